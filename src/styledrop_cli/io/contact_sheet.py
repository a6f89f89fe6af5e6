"""Many pictures on one, with words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from torch import Tensor

_PAPER, _INK, _GREY, _EDGE = (250, 249, 246), (38, 38, 42), (108, 106, 104), (226, 223, 217)
_CARD, _ACCENT = (255, 255, 255), (200, 30, 95)
_LARGEST = 2400  # pixels of a grid sheet's sides, as long as its pictures stay 32 px wide
_LONGEST = 500  # characters of a line: no sheet is wider


def contact_sheet(
    images: list[Image.Image],
    columns: int,
    labels: list[str] | None = None,
    title: str | None = None,
    cell: int = 256,
) -> Image.Image:
    """All `images` on one sheet, `columns` wide, each with its label (at most two lines) below.

    Each is fitted into a `cell` x `cell` square without cropping. `cell` is at least 32.

    Raises:
        ValueError: there are no images, or not as many labels as images.
    """
    if not images or (labels is not None and len(labels) != len(images)):
        raise ValueError(f"{len(images)} images and {len(labels or [])} labels make no sheet")
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    gap, margin, text = max(6, cell // 16), max(12, cell // 9), max(11, cell // 17)
    line = round(text * 1.35)
    wrapped = [_wrap(label, _font(text, label), cell) for label in labels or [""] * len(images)]
    label_height = max(map(len, wrapped)) * line + (gap // 2 if any(wrapped) else 0)
    width = 2 * margin + columns * cell + (columns - 1) * gap
    head, head_size = [], round(text * 1.6)
    if title:
        head = _wrap(title, _font(head_size, title), width - 2 * margin)
    top = margin + (len(head) * round(head_size * 1.3) + gap if head else 0)
    height = top + rows * (cell + label_height) + (rows - 1) * gap + margin
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, words in enumerate(head):
        place = (margin, margin - head_size // 4 + index * round(head_size * 1.3))
        draw.text(place, words, fill=_INK, font=_font(head_size, words))
    for index, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        x = margin + index % columns * (cell + gap)
        y = top + index // columns * (cell + label_height + gap)
        fitted = ImageOps.contain(image.convert("RGB"), (cell, cell), Image.Resampling.LANCZOS)
        spot = (x + (cell - fitted.width) // 2, y + (cell - fitted.height) // 2)
        sheet.paste(fitted, spot)
        draw.rectangle((x - 1, y - 1, x + cell, y + cell), outline=_EDGE)
        for number, words in enumerate(lines):
            below = (x + cell / 2, y + cell + gap // 2 + number * line)
            draw.text(below, words, fill=_GREY, font=_font(text, words), anchor="ma")
    return sheet


@dataclass(frozen=True)
class GridCell:
    """The words below a cell's pictures: a ``head``, a small ``caption``, a ``mark``; the ``best`` is framed."""

    head: str
    caption: str
    mark: str = ""
    best: bool = False


def grid_sheet(
    pictures: Iterable[Sequence[Sequence[Image.Image]]],
    cells: Sequence[GridCell],
    rows: Sequence[tuple[str, str]],
    columns: Sequence[tuple[str, str]],
    shape: tuple[int, int],
    title: str = "",
    notes: Sequence[str] = (),
    references: Sequence[Image.Image] = (),
    side: int | None = None,
) -> Image.Image:
    """A table of cells with pictures in them, row by row; a name and a value stand beside each row and column.

    ``pictures`` has each cell's in lines, at most as many lines and as many in a line as ``shape`` says; they are taken
    one cell after the other, so they need never be there all at once. They are shown ``side`` wide and high, by
    default as large as the sheet allows. An axis that needs no labels has one entry of empty texts. ``references`` are
    shown small, right above the table.

    Raises:
        ValueError: there are not as many cells as rows times columns.
    """
    if not cells or len(cells) != len(rows) * len(columns):
        raise ValueError(f"{len(cells)} cells are no {len(rows)} rows of {len(columns)}")
    sides = [side] if side else range(256, 31, -16)
    for side in sides:
        layout = _Grid(cells, rows, columns, shape, title, notes, len(references), side)
        if max(layout.size) <= _LARGEST:
            break
    sheet = Image.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    layout.draw_labels(draw)
    for spot, image in zip(layout.reference_spots, references, strict=False):
        sheet.paste(ImageOps.fit(image.convert("RGB"), (layout.reference,) * 2, Image.Resampling.LANCZOS), spot)
    for index, (cell, lines) in enumerate(zip(cells, pictures, strict=True)):
        layout.draw_cell(draw, index, cell)
        for spot, image in layout.spots(index, lines):
            fitted = image.convert("RGB").resize((layout.side, layout.side), Image.Resampling.LANCZOS)
            sheet.paste(fitted, spot)
    return sheet


class _Grid:
    """Where everything is on a grid sheet."""

    def __init__(
        self,
        cells: Sequence[GridCell],
        rows: Sequence[tuple[str, str]],
        columns: Sequence[tuple[str, str]],
        shape: tuple[int, int],
        title: str,
        notes: Sequence[str],
        references: int,
        side: int,
    ) -> None:
        self.side = side
        self._rows, self._columns = rows, columns
        down, across = shape
        self._gap = max(2, side // 32)
        inner = across * side + (across - 1) * self._gap
        self._text = max(15, min(22, inner // 20))
        self._large = round(self._text * 1.5)
        self._pad, self._gutter, self._margin = self._text * 3 // 4, self._text, 2 * self._text
        captions = [self._length(cell.caption, self._text) for cell in cells]
        heads = [self._length(cell.head, self._large) + self._pill(cell.mark) for cell in cells]
        labels = [self._length(f"{name}  ", self._text) + self._length(value, self._large) for name, value in columns]
        self._inner = round(max(inner, *captions, *heads, *labels))
        self._line = round(self._text * 1.4)
        self._pictures_high = down * side + (down - 1) * self._gap
        self._across = across
        self._card = (
            self._inner + 2 * self._pad,
            self._pictures_high + round(self._large * 1.5) + self._line + 2 * self._pad,
        )
        names = [max(self._length(name, self._text), self._length(value, self._large)) for name, value in rows]
        self._left = self._margin + (round(max(names)) + self._gutter if max(names) else 0)
        width = self._left + len(columns) * (self._card[0] + self._gutter) - self._gutter + self._margin
        # As many references as leave half of the room to the words.
        self.reference = 6 * self._text
        step = self.reference + self._gutter
        shown = min(references, (width - 2 * self._margin) // (2 * step))
        self.reference_spots = [
            (width - self._margin + self._gutter - step * (shown - i), self._margin) for i in range(shown)
        ]
        room = width - 2 * self._margin - step * shown
        # Title, notes and the columns' labels stand above each other: (top, size, colour, line).
        self._head: list[tuple[int, int, tuple[int, int, int], str]] = []
        top = self._margin
        for words, size, colour in ((title, 2 * self._text, _INK), *((note, self._text, _GREY) for note in notes)):
            for line in _wrap(words, _font(size, words), room, 3):
                self._head.append((top, size, colour, line))
                top += round(size * 1.35)
        if shown:
            top = max(top, self._margin + self.reference)
        self._labels_top = top + (self._text if top > self._margin else 0)
        has_labels = any(name or value for name, value in columns)
        self._top = self._labels_top + (round(self._large * 1.5) if has_labels else 0)
        height = self._top + len(rows) * (self._card[1] + self._gutter) - self._gutter + self._margin
        self.size = (width, height)

    def draw_labels(self, draw: ImageDraw.ImageDraw) -> None:
        """The title, the notes, and what stands beside rows and columns."""
        for top, size, colour, line in self._head:
            draw.text((self._margin, top), line, fill=colour, font=_font(size, line))
        for index, (name, value) in enumerate(self._columns):
            x, y = self._corner(index)[0] + self._pad, self._labels_top + self._large
            draw.text((x, y), name, fill=_GREY, font=_font(self._text, name), anchor="ls")
            x += round(self._length(f"{name}  ", self._text))
            draw.text((x, y), value, fill=_INK, font=_font(self._large, value), anchor="ls")
        for index, (name, value) in enumerate(self._rows):
            y = self._corner(index * len(self._columns))[1] + self._pad + self._pictures_high // 2
            draw.text((self._margin, y), name, fill=_GREY, font=_font(self._text, name), anchor="ls")
            y += self._text // 4
            draw.text((self._margin, y), value, fill=_INK, font=_font(self._large, value), anchor="la")

    def draw_cell(self, draw: ImageDraw.ImageDraw, index: int, cell: GridCell) -> None:
        """A cell's frame and words."""
        x, y = self._corner(index)
        right, bottom = x + self._card[0], y + self._card[1]
        frame = max(4, self._text // 3) if cell.best else 1
        outside = frame - 1  # outwards, so that it covers nothing
        draw.rounded_rectangle(
            (x - outside, y - outside, right + outside, bottom + outside),
            radius=self._pad,
            fill=_CARD,
            outline=_ACCENT if cell.best else _EDGE,
            width=frame,
        )
        base = y + self._pad + self._pictures_high + round(self._large * 1.25)
        draw.text((x + self._pad, base), cell.head, fill=_INK, font=_font(self._large, cell.head), anchor="ls")
        below = (x + self._pad, base + self._text // 2)
        draw.text(below, cell.caption, fill=_GREY, font=_font(self._text, cell.caption), anchor="la")
        if cell.mark:
            font = _font(self._text, cell.mark)
            end = right - self._pad
            start = end - round(self._length(cell.mark, self._text)) - self._text
            box = (start, base - round(self._text * 1.15), end, base + round(self._text * 0.35))
            colour = _ACCENT if cell.best else _EDGE
            draw.rounded_rectangle(box, radius=(box[3] - box[1]) // 2, fill=colour)
            middle = ((start + end) / 2, (box[1] + box[3]) / 2)
            draw.text(middle, cell.mark, fill=_CARD if cell.best else _INK, font=font, anchor="mm")

    def spots(
        self, index: int, lines: Sequence[Sequence[Image.Image]]
    ) -> Iterator[tuple[tuple[int, int], Image.Image]]:
        """A cell's pictures and where their left upper corners are."""
        x, y = self._corner(index)
        step = self.side + self._gap
        left = x + self._pad + (self._inner - self._across * step + self._gap) // 2
        for row, line in enumerate(lines):
            for column, image in enumerate(line):
                yield (left + column * step, y + self._pad + row * step), image

    def _corner(self, index: int) -> tuple[int, int]:
        row, column = divmod(index, len(self._columns))
        return (
            self._left + column * (self._card[0] + self._gutter),
            self._top + row * (self._card[1] + self._gutter),
        )

    def _length(self, text: str, size: int) -> float:
        return _font(size, text).getlength(text)

    def _pill(self, mark: str) -> float:
        """How wide a mark is, with the space before it."""
        return self._length(mark, self._text) + 2 * self._text if mark else 0


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _font(size: int, text: str) -> _Font:
    """Pillow's own font; for words it cannot write (say, Chinese) one of the system's, if any."""
    if not all(ord(letter) < 0x250 or 0x2000 <= ord(letter) < 0x2100 for letter in text):
        for name in ("NotoSansCJK-Regular.ttc", "PingFang.ttc", "msyh.ttc", "DejaVuSans.ttf"):
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def _wrap(text: str, font: _Font, width: int, most: int = 2) -> list[str]:
    """`text` in at most `most` lines no wider than `width`, the last one cut with an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]}…"]
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: _Font, width: int) -> str:
    if len(line) <= _LONGEST and font.getlength(line) <= width:
        return line
    line = line[:_LONGEST]
    while len(line) > 1 and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip()}…"


def read_tiles(path: Path, side: int) -> Tensor:
    """The pictures of a sheet without gaps or words, `side` px wide: uint8 `[rows,columns,3,side,side]`."""
    import torch

    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    return torch.from_numpy(pixels.reshape(rows, side, columns, side, 3)).permute(0, 2, 4, 1, 3).contiguous()
