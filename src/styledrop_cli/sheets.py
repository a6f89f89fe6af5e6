"""Many pictures on one, with words."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont, ImageOps

_PAPER, _INK, _GREY, _EDGE = (250, 249, 246), (38, 38, 42), (108, 106, 104), (226, 223, 217)


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
    if font.getlength(line) <= width:
        return line
    while len(line) > 1 and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip()}…"
