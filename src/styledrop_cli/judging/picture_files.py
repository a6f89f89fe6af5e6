"""How good given picture files are: do they show what was asked for, in the reference's style, without copying it?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from styledrop_cli.adapters.examples import guess_content
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.errors import PictureError
from styledrop_cli.io.files import names_apart
from styledrop_cli.io.images import load_picture, square, to_tensor
from styledrop_cli.io.palette import Palette
from styledrop_cli.judging.evaluate import (
    DRAWN_TOGETHER,
    PLAIN_EACH,
    PLAIN_SEED,
    Drawing,
    References,
    evaluate,
    judge_of,
)
from styledrop_cli.judging.meaning import Meaning, meanings
from styledrop_cli.judging.palette import fit
from styledrop_cli.judging.scores import (
    ClipScorer,
    Judge,
    Measurements,
    StyleCalibration,
    flaws,
    scores,
    thumbnails,
)
from styledrop_cli.progress import Counter, OnProgress, unheard

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = ("text", "likeness", "csls", "object", "shape", "style", "leak", "total")
OF_PALETTES = ("delta_e", "on_palette")  # what those have besides that have a palette
READ_TOGETHER = 64  # pictures that are read and looked at together
READERS = 2  # threads that decode them
MANY_PROMPTS = 64  # beyond which the base draws only one picture of each
DIGITS = 4  # to which scores are compared: what differs by less is rounding


@dataclass(frozen=True)
class Picture:
    """One to score: its file, the ``prompt`` it was drawn for, and the ``style`` that was said behind it, or none."""

    path: Path
    prompt: str
    style: str = ""


@dataclass(frozen=True)
class Row:
    """What was made of one picture.

    ``text`` and ``likeness`` in [-1,1]: cosines with its prompt and with the nearest reference (the paper's Text and
    Style). ``csls`` in [-4,4]: the likeness of style, calibrated (see ``csls``); None where nothing calibrates.
    ``delta_e`` and ``on_palette`` say how near the colours are to a palette (``palette.fit``), where there is one. The
    others are as in ``scores.Scores``. ``note`` is ``empty``, ``like NAME`` for a near-duplicate of a better one of the
    same prompt, or nothing. ``meaning`` says how much they are. Without a reference, only ``text``, ``object`` and what
    is ``seen`` are there.
    """

    picture: Picture
    text: float
    object: float
    likeness: float | None = None
    csls: float | None = None
    shape: float | None = None
    style: float | None = None
    leak: float | None = None
    total: float | None = None
    delta_e: float | None = None
    on_palette: float | None = None
    note: str = ""
    meaning: Meaning = field(default_factory=Meaning)


@dataclass(frozen=True)
class ScoredFiles:
    """A row of each picture that could be read, in the order in which they were given, and why the others could not."""

    rows: list[Row]
    unreadable: list[tuple[Path, PictureError]]


def without_style(prompt: str, style: str) -> str:
    """``prompt`` without the style at its end, as ``with_style`` puts it there or behind a comma."""
    style = " ".join(style.split()).removeprefix("in ")
    said = re.fullmatch(rf"(.+?)(?:,| in) {re.escape(style)}(?: style)?", " ".join(prompt.split()), re.IGNORECASE)
    return said[1] if style and said else " ".join(prompt.split())


def contents_of(base: Base, images: Sequence[Image], paths: Sequence[Path]) -> list[str]:
    """What given pictures show, guessed by the base's CLIP as for a training, without a word."""
    return [guess_content(base, image, path, lambda message: None) for image, path in zip(images, paths, strict=True)]


@torch.no_grad()
def score_files(
    base: Base,
    clip_scorer: ClipScorer,
    pictures: Sequence[Picture],
    references: References | None,
    on_progress: OnProgress = unheard,
    calibration: StyleCalibration | None = None,
) -> ScoredFiles:
    """Score ``pictures`` that were drawn after the same ``references``, or after none, with ``clip_scorer``.

    Each is cut to its middle square and looked at as large as the base draws small, some at a time: memory does not
    grow with their number. Their ids, by which copying is found, are read off the pixels, and so are those of what the
    base draws to compare with: pocket reads two to four of five ids as they were drawn, and finds as much copied in
    them, within 0.03 on average, or up to 0.05 more where a style was exaggerated. The likeness is
    calibrated by ``calibration``.
    """
    distinct = sorted({(p.prompt, p.style) for p in pictures})
    places = {said: place for place, said in enumerate(distinct)}
    judge = judge_of(base, clip_scorer, references, sorted({prompt for prompt, _ in distinct}), calibration)
    each = PLAIN_EACH if len(distinct) <= MANY_PROMPTS else 1
    counter = Counter(on_progress, len(pictures) + (each * len(distinct) if references else 0))
    plain = _plain(base, judge, references, distinct, each, counter) if references else None
    rows: list[Row] = []
    small: list[Tensor] = []
    unreadable: list[tuple[Path, PictureError]] = []
    for batch in _batches(pictures, base.sizes[0]):
        unreadable += [(picture.path, found) for picture, found in batch if isinstance(found, PictureError)]
        if whole := [(picture, found) for picture, found in batch if isinstance(found, Tensor)]:
            given = [picture for picture, _ in whole]
            shown = torch.stack([pixels for _, pixels in whole]).to(base.device)
            # Only copying goes by ids, and without references there is nothing to copy.
            ids = base.tokenizer.encode(shown) if plain else torch.zeros(len(shown), 2, 2, dtype=torch.long)
            measured = judge.measure(shown, ids, [picture.prompt for picture in given])
            beside = plain.rows([places[p.prompt, p.style] for p in given]) if plain else None
            rows += _rows(given, measured, beside, judge.own_csls)
            small.append(thumbnails(shown))
        counter.add(len(batch))
    return ScoredFiles(_noted(rows, torch.cat(small)) if small else [], unreadable)


def means(rows: Sequence[Row]) -> dict[str, float | None]:
    """The mean of each of ``COLUMNS`` over the rows that have it; None where none has. Then what palettes have."""
    found: dict[str, float | None] = {}
    for name in (*COLUMNS, *OF_PALETTES):
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        if values or name in COLUMNS:
            found[name] = sum(values) / len(values) if values else None
    return found


def with_palettes(rows: Sequence[Row], palettes: Mapping[Path, Palette]) -> list[Row]:
    """The rows, those with a palette by the path of their picture with how near to it that is."""

    def measured(row: Row) -> Row:
        palette = palettes.get(row.picture.path)
        if palette is None:
            return row
        delta_e, share = fit(to_tensor(load_picture(row.picture.path)), palette)
        return replace(row, delta_e=delta_e, on_palette=share)

    return [measured(row) for row in rows]


def _plain(
    base: Base, judge: Judge, references: References, distinct: list[tuple[str, str]], each: int, counter: Counter
) -> Measurements:
    """What the base alone makes of ``distinct`` prompts and styles: of each the mean of ``each`` pictures."""
    seeds = range(PLAIN_SEED, PLAIN_SEED + each)
    parts = []
    for start in range(0, len(distinct), DRAWN_TOGETHER):  # of all prompts together, the pictures would fill memory
        some = distinct[start : start + DRAWN_TOGETHER]
        texts = [with_style(prompt, style) for prompt, style in some]
        drawing = Drawing.of_each([prompt for prompt, _ in some], texts, seeds, references.sampling)
        drawn = evaluate(base, judge, drawing, on_drawn=counter.add, from_pixels=True)
        parts.append(drawn.measured.means(len(some), 1))
    return Measurements.cat(parts)


def _rows(pictures: Sequence[Picture], measured: Measurements, plain: Measurements | None, own: float) -> list[Row]:
    texts, objects = measured.text.tolist(), measured.object.tolist()
    placed = meanings(measured, plain, own)
    rows = [
        Row(p, text, shown, meaning=meaning)
        for p, text, shown, meaning in zip(pictures, texts, objects, placed, strict=True)
    ]
    if plain is None:
        return rows
    beside = zip(rows, measured.likeness.tolist(), measured.csls.tolist(), scores(measured, plain), strict=True)
    return [
        replace(row, likeness=likeness, csls=None if isnan(csls) else csls, total=score.total, **asdict(score))
        for row, likeness, csls, score in beside
    ]


def _noted(rows: list[Row], small: Tensor) -> list[Row]:
    """The rows with their notes; of two pictures alike the better is the original, of equals the first by its path."""

    def rank(place: int) -> tuple[float, Path]:
        row = rows[place]
        return -round(row.object if row.total is None else row.total, DIGITS), row.picture.path

    names = names_apart([row.picture.path for row in rows])
    notes = flaws(small, [row.picture.prompt for row in rows], sorted(range(len(rows)), key=rank), names)
    return [replace(row, note=note) for row, note in zip(rows, notes, strict=True)]


def _batches(pictures: Sequence[Picture], side: int) -> Iterator[list[tuple[Picture, Tensor | PictureError]]]:
    """The pictures' pixels, or why there are none, a batch at a time; the next is read while one is looked at."""

    def read(picture: Picture) -> tuple[Picture, Tensor | PictureError]:
        try:
            return picture, to_tensor(square(load_picture(picture.path), side))
        except PictureError as error:
            return picture, error

    batches = [pictures[start : start + READ_TOGETHER] for start in range(0, len(pictures), READ_TOGETHER)]
    with ThreadPoolExecutor(READERS) as pool:
        coming: Iterator[tuple[Picture, Tensor | PictureError]] | None = None
        for batch in (*batches, ()):
            found, coming = coming, pool.map(read, batch)
            if found is not None:
                yield list(found)
