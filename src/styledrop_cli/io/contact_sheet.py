"""Many pictures on one, with words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from styledrop_cli.io.fonts import font_for, spelt

if TYPE_CHECKING:
    from torch import Tensor

_PAPER, _INK, _GREY, _EDGE = (250, 249, 246), (38, 38, 42), (108, 106, 104), (226, 223, 217)
_CARD, _ACCENT = (255, 255, 255), (200, 30, 95)
_LARGEST = 2400  # pixels of a grid sheet's sides, as long as its pictures stay 32 px wide
_LONGEST = 500  # characters of a line: no sheet is wider
_SHAPE = 4 / 3  # width by height that a long contact sheet comes near to
_LONG = 1.5  # height by width from which on a contact sheet is long


def contact_sheet(
    images: list[Image.Image],
    columns: int,
    labels: list[str] | None = None,
    title: str | None = None,
    cell: int = 256,
) -> Image.Image:
    """All ``images`` on one sheet, in rows of ``columns``, each with its label (at most two lines) below.

    Each is fitted into a square of ``cell`` px, at least 32, without cropping. Where the rows make a long sheet, they
    stand in several stacks side by side.

    Raises:
        ValueError: there are no images, or not as many labels as images.
    """
    if not images or (labels is not None and len(labels) != len(images)):
        raise ValueError(f"{len(images)} images and {len(labels or [])} labels make no sheet")
    columns = max(1, min(columns, len(images)))
    gap, margin, text = max(6, cell // 16), max(12, cell // 9), max(11, cell // 17)
    line, head_size = round(text * 1.35), round(text * 1.6)
    wrapped = [_wrap(label, text, cell) for label in labels or [""] * len(images)]
    high = cell + max(map(len, wrapped)) * line + (gap // 2 if any(wrapped) else 0) + gap
    wide = columns * (cell + gap) - gap + 2 * margin  # of a stack
    stacks, rows = _stacks(-(-len(images) // columns), wide, high)
    width = stacks * wide
    head = _wrap(title or "", head_size, width - 2 * margin)
    top = margin + (len(head) * round(head_size * 1.3) + gap if head else 0)
    sheet = Image.new("RGB", (width, top + rows * high - gap + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, words in enumerate(head):
        _write(draw, (margin, margin - head_size // 4 + index * round(head_size * 1.3)), words, head_size)
    for index, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        stack, place = divmod(index, rows * columns)
        x = margin + stack * wide + place % columns * (cell + gap)
        y = top + place // columns * high
        fitted = ImageOps.contain(image.convert("RGB"), (cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(fitted, (x + (cell - fitted.width) // 2, y + (cell - fitted.height) // 2))
        draw.rectangle((x - 1, y - 1, x + cell, y + cell), outline=_EDGE)
        for number, words in enumerate(lines):
            _write(draw, (x + cell / 2, y + cell + gap // 2 + number * line), words, text, _GREY, "ma")
    return sheet


def _stacks(rows: int, wide: int, high: int) -> tuple[int, int]:
    """In how many stacks ``rows`` stand side by side, and how many rows the first of them has."""
    if rows * high <= _LONG * wide:
        return 1, rows
    ways = [(stacks, -(-rows // stacks)) for stacks in range(1, rows + 1)]
    return min(ways, key=lambda way: abs(math.log(way[0] * wide / (way[1] * high) / _SHAPE)))


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
        down, self._across = shape
        self._gap = max(2, side // 32)
        inner = self._across * (side + self._gap) - self._gap
        self._text = text = max(15, min(22, inner // 20))
        self._large = large = round(text * 1.5)
        self._pad, self._gutter, self._margin = text * 3 // 4, text, 2 * text
        captions = [_length(cell.caption, text) for cell in cells]
        heads = [_length(cell.head, large) + (_length(cell.mark, text) + 2 * text) * bool(cell.mark) for cell in cells]
        labels = [_length(f"{name}  ", text) + _length(value, large) for name, value in columns]
        self._inner = round(max(inner, *captions, *heads, *labels))
        self._pictures_high = down * (side + self._gap) - self._gap
        below = round(large * 1.5) + round(text * 1.4)
        self._card = self._inner + 2 * self._pad, self._pictures_high + below + 2 * self._pad
        names = max(max(_length(name, text), _length(value, large)) for name, value in rows)
        self._left = self._margin + (round(names) + self._gutter if names else 0)
        width = self._left + len(columns) * (self._card[0] + self._gutter) - self._gutter + self._margin
        # As many references as leave half of the room to the words.
        self.reference = 6 * text
        step = self.reference + self._gutter
        shown = min(references, (width - 2 * self._margin) // (2 * step))
        self.reference_spots = [
            (width - self._margin + self._gutter - step * (shown - i), self._margin) for i in range(shown)
        ]
        # Title, notes and the columns' labels stand above each other: (top, size, colour, line).
        self._head: list[tuple[int, int, tuple[int, int, int], str]] = []
        top, room = self._margin, width - 2 * self._margin - step * shown
        for words, size, colour in ((title, 2 * text, _INK), *((note, text, _GREY) for note in notes)):
            for line in _wrap(words, size, room, 3):
                self._head.append((top, size, colour, line))
                top += round(size * 1.35)
        if shown:
            top = max(top, self._margin + self.reference)
        self._labels_top = top + (text if top > self._margin else 0)
        self._top = self._labels_top + round(large * 1.5) * any(name or value for name, value in columns)
        height = self._top + len(rows) * (self._card[1] + self._gutter) - self._gutter + self._margin
        self.size = (width, height)

    def draw_labels(self, draw: ImageDraw.ImageDraw) -> None:
        """The title, the notes, and what stands beside rows and columns."""
        for top, size, colour, line in self._head:
            _write(draw, (self._margin, top), line, size, colour)
        for index, (name, value) in enumerate(self._columns):
            x, y = self._corner(index)[0] + self._pad, self._labels_top + self._large
            _write(draw, (x, y), name, self._text, _GREY, "ls")
            _write(draw, (x + round(_length(f"{name}  ", self._text)), y), value, self._large, anchor="ls")
        for index, (name, value) in enumerate(self._rows):
            y = self._corner(index * len(self._columns))[1] + self._pad + self._pictures_high // 2
            _write(draw, (self._margin, y), name, self._text, _GREY, "ls")
            _write(draw, (self._margin, y + self._text // 4), value, self._large)

    def draw_cell(self, draw: ImageDraw.ImageDraw, index: int, cell: GridCell) -> None:
        """A cell's frame and words."""
        x, y = self._corner(index)
        right, bottom = x + self._card[0], y + self._card[1]
        frame, colour = (max(4, self._text // 3), _ACCENT) if cell.best else (1, _EDGE)
        outside = frame - 1  # outwards, so that it covers nothing
        box = (x - outside, y - outside, right + outside, bottom + outside)
        draw.rounded_rectangle(box, radius=self._pad, fill=_CARD, outline=colour, width=frame)
        base = y + self._pad + self._pictures_high + round(self._large * 1.25)
        _write(draw, (x + self._pad, base), cell.head, self._large, anchor="ls")
        _write(draw, (x + self._pad, base + self._text // 2), cell.caption, self._text, _GREY)
        if cell.mark:
            end = right - self._pad
            start = end - round(_length(cell.mark, self._text)) - self._text
            top, bottom = base - round(self._text * 1.15), base + round(self._text * 0.35)
            draw.rounded_rectangle((start, top, end, bottom), radius=(bottom - top) // 2, fill=colour)
            middle = ((start + end) / 2, (top + bottom) / 2)
            _write(draw, middle, cell.mark, self._text, _CARD if cell.best else _INK, "mm")

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


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: tuple[int, int, int] = _INK,
    anchor: str = "la",
) -> None:
    draw.text(place, text, fill=colour, font=font_for(text, size), anchor=anchor)


def _length(text: str, size: int) -> float:
    return font_for(text, size).getlength(text)


def _wrap(text: str, size: int, width: int, most: int = 2) -> list[str]:
    """``text`` in at most ``most`` lines no wider than ``width``, the last one cut with an ellipsis."""
    lines: list[str] = []
    for word in spelt(text).split():
        if lines and _length(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]}…"]
    return [_cut(line, size, width) for line in lines]


def _cut(line: str, size: int, width: int) -> str:
    if len(line) <= _LONGEST and _length(line, size) <= width:
        return line
    line = line[:_LONGEST]
    while len(line) > 1 and _length(f"{line}…", size) > width:
        line = line[:-1]
    return f"{line.rstrip()}…"


def read_tiles(path: Path, side: int) -> Tensor:
    """The pictures of a sheet without gaps or words, `side` px wide: uint8 `[rows,columns,3,side,side]`."""
    import torch

    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    return torch.from_numpy(pixels.reshape(rows, side, columns, side, 3)).permute(0, 2, 4, 1, 3).contiguous()
