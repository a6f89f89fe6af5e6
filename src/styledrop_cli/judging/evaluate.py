"""How good given pictures are: do they show what was asked for, in the reference's style, without copying it?

StyleDrop's Text and Style (arXiv 2306.00983, 4.1) are cosines in a CLIP's space; beside them stand the scores by which
checkpoints and rounds are chosen, against what the base draws for the same prompts without an adapter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from styledrop_cli.adapters.examples import TrainingViews, guess_content, known_contents, tokenize_views
from styledrop_cli.adapters.file import open_adapter, references_of
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.devices import autocast, generator
from styledrop_cli.errors import PictureError
from styledrop_cli.io.images import load_picture, square, to_tensor
from styledrop_cli.io.tensors import AdapterFile
from styledrop_cli.judging.scores import (
    ClipScorer,
    Judge,
    Measurements,
    StyleCalibration,
    empty,
    repeats,
    scores,
    thumbnails,
)
from styledrop_cli.settings import SampleSettings, TrainSettings

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = ("text", "likeness", "csls", "object", "shape", "style", "leak", "total")
BATCH = 64  # pictures that are read and looked at together
READERS = 2  # threads that decode them
DRAWN_TOGETHER = 24  # pictures that the base draws together
PLAIN_EACH = 2  # pictures that the base draws of each prompt, to compare with
MANY = 64  # prompts beyond which it draws only one of each
PLAIN_SEED = 1_000_003  # no picture's own but by chance: from one seed, base and adapter draw alike
DIGITS = 4  # to which scores are compared: what differs by less is rounding


@dataclass(frozen=True)
class Picture:
    """One to score: its file, the ``prompt`` it was drawn for, and the ``style`` that was said behind it, or none."""

    path: Path
    prompt: str
    style: str = ""


@dataclass(frozen=True)
class References:
    """What pictures were drawn after.

    ``examples`` are the references as ids, ``shown`` ``[R,3,S,S]`` in [0,1] as pictures. ``style`` is an adapter's own
    in words, ``sampling`` how the base draws beside it.
    """

    examples: TrainingViews
    shown: Tensor
    style: str
    sampling: SampleSettings

    @classmethod
    def of_adapter(cls, base: Base, file: AdapterFile) -> References:
        """Those that an adapter learnt a style from.

        Raises ModelError if it lacks them, or is of another base, UsageError if it learnt an object.
        """
        open_adapter(base, file)
        sampling = base.sampling(**file.header["recommended"])
        return replace(cls.of_examples(base, references_of(file)), style=str(file.header["style"]), sampling=sampling)

    @classmethod
    def of_examples(cls, base: Base, examples: TrainingViews) -> References:
        """The references among the pictures that are learnt from."""
        with torch.no_grad(), autocast(base.device):
            shown = base.pictures(examples.whole.long().to(base.device), base.sizes[0]).float()
        return cls(examples, shown, "", base.sampling())

    @classmethod
    def of_pictures(cls, base: Base, images: Sequence[Image], contents: list[str]) -> References:
        """Given pictures and what each shows, cut into views as a training does."""
        settings = TrainSettings()
        views = tokenize_views(base, list(images), contents, settings.views, generator(settings.seed))
        shown = torch.stack([to_tensor(square(image, base.sizes[0])) for image in images]).to(base.device)
        return cls(TrainingViews(views, contents, len(images)), shown, "", base.sampling())

    @classmethod
    def joined(cls, parts: Sequence[References]) -> References:
        """All of them as one, in the words and scales of the first that has a style."""
        first = next((part for part in parts if part.style), parts[0])
        ids: list[Tensor] = []
        owners: list[Tensor] = []
        contents: list[str] = []
        for part in parts:
            given = part.examples.views["views.picture"] < part.examples.references
            owners.append(part.examples.views["views.picture"][given] + len(contents))
            ids.append(part.examples.own_views)
            contents += part.examples.contents[: part.examples.references]
        views = {"views.ids": torch.cat(ids), "views.picture": torch.cat(owners)}
        return replace(
            first,
            examples=TrainingViews(views, contents, len(contents)),
            shown=torch.cat([part.shown for part in parts]),
        )


@dataclass(frozen=True)
class Row:
    """What was made of one picture.

    ``text`` and ``likeness`` in [-1,1]: cosines with its prompt and with the nearest reference (the paper's Text and
    Style). ``csls`` in [-4,4]: the likeness of style, calibrated (see ``calibration``); None where nothing calibrates.
    The others as in ``scores.Scores``. ``note`` is ``empty``, ``like NAME`` for a near-duplicate of a better
    one of the same prompt, or nothing. Without a reference, only ``text`` and ``object`` are there.
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
    note: str = ""


@dataclass(frozen=True)
class Appraisal:
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
def appraise(
    base: Base,
    clip_scorer: ClipScorer,
    pictures: Sequence[Picture],
    references: References | None,
    on_progress: Callable[[float, str], None] = lambda share, note: None,
    calibration: StyleCalibration | None = None,
) -> Appraisal:
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
    each = PLAIN_EACH if len(distinct) <= MANY else 1
    work = len(pictures) + (each * len(distinct) if references else 0)

    def move(done: int, note: str) -> None:
        on_progress(done / work, note)

    plain = _plain(base, judge, references.sampling, distinct, each, move) if references else None
    drawn = work - len(pictures)
    rows: list[Row] = []
    small: list[Tensor] = []
    unreadable: list[tuple[Path, PictureError]] = []
    read = 0
    for batch in _batches(pictures, base.sizes[0]):
        read += len(batch)
        whole = []
        for picture, found in batch:
            if isinstance(found, PictureError):
                unreadable.append((picture.path, found))
            else:
                whole.append((picture, found))
        if whole:
            shown = torch.stack([pixels for _, pixels in whole]).to(base.device)
            given = [picture for picture, _ in whole]
            # Only copying goes by ids, and without references there is nothing to copy.
            ids = base.tokenizer.encode(shown) if plain else torch.zeros(len(shown), 2, 2, dtype=torch.long)
            seen = judge.see(shown, ids, [picture.prompt for picture in given])
            beside = _rows_of(plain, [places[p.prompt, p.style] for p in given]) if plain else None
            rows += _rows(given, seen, beside)
            small.append(thumbnails(shown))
        move(drawn + read, f"{read}/{len(pictures)}")
    return Appraisal(_noted(rows, torch.cat(small)) if small else [], unreadable)


def means(rows: Sequence[Row]) -> dict[str, float | None]:
    """The mean of each of ``COLUMNS`` over the rows that have it; None where none has."""
    found: dict[str, float | None] = {}
    for name in COLUMNS:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def judge_of(
    base: Base,
    clip_scorer: ClipScorer,
    references: References | None,
    prompts: Sequence[str],
    calibration: StyleCalibration | None = None,
) -> Judge:
    """A judge of pictures drawn for ``prompts``, which say no style, after ``references`` or after none.

    Of the references' contents those leak that ``known_contents`` has. ``calibration`` is the clip_scorer's own.
    """
    if references is None:  # grey stands for the reference that is not there; nothing is said of it
        nothing = torch.full((1, 3, base.sizes[0], base.sizes[0]), 0.5, device=base.device)
        return Judge(clip_scorer, list(prompts), base.contents, nothing, [], torch.zeros(1, 2, 2))
    own = known_contents(base, references.examples.contents[: references.examples.references])
    return Judge(
        clip_scorer, list(prompts), base.contents, references.shown, own, references.examples.own_views, calibration
    )


def _plain(
    base: Base,
    judge: Judge,
    sampling: SampleSettings,
    distinct: Sequence[tuple[str, str]],
    each: int,
    move: Callable[[int, str], None],
) -> Measurements:
    """What the base without an adapter makes of ``distinct`` prompts and styles: of each the mean of some pictures."""
    work = [(prompt, style, PLAIN_SEED + i) for prompt, style in distinct for i in range(each)]
    parts = []
    for start in range(0, len(work), DRAWN_TOGETHER):
        chunk = work[start : start + DRAWN_TOGETHER]
        with autocast(base.device):
            texts = [with_style(prompt, style) for prompt, style, _ in chunk]
            ids = base.sample(texts, [seed for *_, seed in chunk], sampling)
            shown = base.pictures(ids, base.sizes[0]).float()
        parts.append(judge.see(shown, base.tokenizer.encode(shown), [prompt for prompt, *_ in chunk]))
        move(start + len(chunk), f"without an adapter {start + len(chunk)}/{len(work)}")
    return Measurements.cat(parts).means(len(distinct), 1)


def _rows_of(seen: Measurements, places: list[int]) -> Measurements:
    return Measurements(*(getattr(seen, name)[places] for name in Measurements.__dataclass_fields__))


def _rows(pictures: Sequence[Picture], seen: Measurements, plain: Measurements | None) -> list[Row]:
    texts, objects = seen.text.tolist(), seen.object.tolist()
    rows = [Row(p, text, shown) for p, text, shown in zip(pictures, texts, objects, strict=True)]
    if plain is None:
        return rows
    return [
        replace(row, likeness=likeness, csls=None if isnan(csls) else csls, total=score.total, **asdict(score))
        for row, likeness, csls, score in zip(
            rows, seen.style.tolist(), seen.csls.tolist(), scores(seen, plain), strict=True
        )
    ]


def _noted(rows: list[Row], small: Tensor) -> list[Row]:
    """The rows with their notes; of two pictures alike the better is the original, of equals the first by its path."""

    def place(index: int) -> tuple[float, Path]:
        row = rows[index]
        return -round(row.object if row.total is None else row.total, DIGITS), row.picture.path

    same = repeats(small, [row.picture.prompt for row in rows], sorted(range(len(rows)), key=place))
    noted = []
    for row, nothing, of in zip(rows, empty(small).tolist(), same, strict=True):
        note = "empty" if nothing else ""
        if of is not None and not nothing:
            other = rows[of].picture.path
            note = f"like {other.name if other.parent == row.picture.path.parent else other}"
        noted.append(replace(row, note=note))
    return noted


def _batches(pictures: Sequence[Picture], side: int) -> Iterator[list[tuple[Picture, Tensor | PictureError]]]:
    """The pictures' pixels, or why there are none, a batch at a time; the next is read while one is looked at."""

    def read(path: Path) -> Tensor | PictureError:
        try:
            return to_tensor(square(load_picture(path), side))
        except PictureError as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:

        def begun(start: int) -> list[Future[Tensor | PictureError]]:
            return [pool.submit(read, picture.path) for picture in pictures[start : start + BATCH]]

        coming = begun(0)
        for start in range(0, len(pictures), BATCH):
            found, coming = coming, begun(start + BATCH)
            results: Iterable[Tensor | PictureError] = (one.result() for one in found)
            yield list(zip(pictures[start : start + BATCH], results, strict=True))
