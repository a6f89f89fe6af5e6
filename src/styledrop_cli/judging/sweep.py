"""Which settings suit an adapter: the same prompts and seeds drawn at every combination of some, beside each other.

Each combination is a cell. Its pictures are scored as checkpoints and rounds are, against what the base draws for the
same prompts without the adapter, and the cell with the best balance of subject and style is recommended.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from styledrop_cli.adapters.file import open_adapter
from styledrop_cli.adapters.header import AdapterFile, load_adapter, read_header
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.contact_sheet import GridCell, grid_sheet
from styledrop_cli.io.images import to_image
from styledrop_cli.judging.bootstrap import paired_interval
from styledrop_cli.judging.csls import Calibration
from styledrop_cli.judging.evaluate import PLAIN_EACH, PLAIN_SEED, Drawing, References, evaluate, judge_of
from styledrop_cli.judging.meaning import Meaning, meanings
from styledrop_cli.judging.picture_files import without_style
from styledrop_cli.judging.scores import ClipScorer, Scores, mean
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.progress import Counter, OnProgress, unheard
from styledrop_cli.settings import CHECKPOINT, SampleSettings, SweepSettings

if TYPE_CHECKING:
    from PIL.Image import Image

# What is tried where no axis is given: around what fits pocket (docs/lab/tuning.md).
GRID: dict[str, tuple[float, ...]] = {"lambda_a": (0, 0.25, 0.5, 1), "lambda_b": (0.75, 1.5, 3)}
ACROSS = 8  # pictures of a prompt beside each other in a cell; more go on below
TARGET_ASPECT = math.log(4 / 3)  # a sheet's width by its height, as a logarithm
STEP = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class Cell:
    """One combination: its ``values`` by axis, its pictures uint8 ``[P*K,3,S,S]``, prompt by prompt, their scores.

    ``meanings`` say how much these are.
    """

    values: dict[str, float]
    pictures: Tensor
    scores: list[Scores]
    meanings: list[Meaning] = field(default_factory=list)

    @property
    def mean(self) -> Scores:
        """The mean of each score."""
        return mean(self.scores)

    @property
    def balance(self) -> float:
        """The mean balance of its pictures."""
        return float(self.balances.mean())

    @property
    def balances(self) -> Tensor:
        """The balance of each picture, ``[P*K]``."""
        return torch.tensor([score.balance for score in self.scores])


@dataclass(frozen=True)
class Sweep:
    """What a sweep came to: the cells in the order of ``settings.combinations``, the references ``[R,3,S,S]`` in [0,1].

    ``best`` is the number of the cell with the highest mean balance, ``present`` that of what the adapter recommends so
    far, if it is among them. ``other`` is the cell that the best is compared with: ``present``, or the second best.
    ``gain`` is the mean difference of their balances, picture by picture, ``interval`` where it lies in 95 %.
    """

    settings: SweepSettings
    cells: list[Cell]
    references: Tensor
    best: int
    present: int | None
    other: int
    gain: float
    interval: tuple[float, float]

    @property
    def recommended(self) -> dict[str, float]:
        """The best cell's values, but for its checkpoint."""
        return {name: value for name, value in self.cells[self.best].values.items() if name != CHECKPOINT}


def whole_grid(axes: Mapping[str, Sequence[float]], file: AdapterFile) -> dict[str, tuple[float, ...]]:
    """``axes`` without repeated values; where none has several, the usual ones of ``GRID`` that are not set beside.

    What the adapter recommends so far is among the usual ones, so that the best is compared with it.
    """
    given = {name: tuple(dict.fromkeys(values)) for name, values in axes.items()}
    if any(len(values) > 1 for values in given.values()):
        return given
    recommended = SampleSettings(**file.header.recommended)
    usual = {name: tuple(sorted({*values, getattr(recommended, name)})) for name, values in GRID.items()}
    return usual | given


def checkpoints_of(file: AdapterFile) -> dict[int, Path]:
    """The checkpoints of the training beside an adapter, by their step; raises UsageError where there are none.

    Raises ModelError for one that cannot be read, or is of another training.
    """
    folder = file.path.with_name(file.path.name + ".run")
    found = {int(named[1]): path for path in folder.glob("*") if (named := STEP.fullmatch(path.name))}
    if not found:
        raise UsageError(
            f"there are no checkpoints beside {file.path}: no step-*.safetensors in {folder}",
            "leave --checkpoints out, or sweep where the adapter was trained",
        )
    for path in found.values():
        header = read_header(path)
        alike = ("kind", "base", "style", "contents", "pictures")
        if any(getattr(header, name) != getattr(file.header, name) for name in alike):
            raise ModelError(f"{path} is of another training than {file.path}", "leave --checkpoints out")
    return dict(sorted(found.items()))


def sweep(
    base: Base,
    clip_scorer: ClipScorer,
    file: AdapterFile,
    settings: SweepSettings,
    *,
    style: str | None = None,
    checkpoints: Mapping[int, Path] | None = None,
    on_progress: OnProgress = unheard,
) -> Sweep:
    """Draw and score every cell of ``settings`` with the adapter in ``file``; ``clip_scorer`` judges.

    ``style`` is said behind each prompt in place of the adapter's own. What no axis sets is as the adapter recommends.
    ``checkpoints`` are the files of the values of that axis. Raises ModelError for an adapter of another base or one
    that does not hold its references, UsageError for values out of range.
    """
    references = References.of_adapter(base, file)
    style = references.style if style is None else style
    prompts = [without_style(prompt, style) for prompt in settings.prompts]
    texts = [with_style(prompt, style) for prompt in settings.prompts]
    judge = judge_of(base, clip_scorer, references, prompts, Calibration(clip_scorer))
    recommended, cells = references.sampling, settings.combinations
    samplings = [
        base.sampling(**(file.header.recommended | {n: v for n, v in values.items() if n != CHECKPOINT}))
        for values in cells
    ]
    counter = Counter(on_progress, len(prompts) * (len(cells) * settings.number + PLAIN_EACH))
    candidates = range(PLAIN_SEED, PLAIN_SEED + PLAIN_EACH + settings.number)
    seeds = [seed for seed in candidates if seed not in settings.seeds][:PLAIN_EACH]
    # In full precision: the sheet shows the very pictures that generate draws.
    drawing = Drawing.of_each(prompts, texts, seeds, recommended, full_precision=True)
    plain = evaluate(base, judge, drawing, on_drawn=counter.add).measured.means(len(prompts), settings.number)
    drawing = Drawing.of_each(prompts, texts, settings.seeds, recommended, full_precision=True)
    adapters: dict[float, Adapter] = {}
    made = []
    for values, sampling in zip(cells, samplings, strict=True):
        step = values.get(CHECKPOINT, -1)
        if step not in adapters:
            its_file = load_adapter((checkpoints or {})[int(step)]) if CHECKPOINT in values else file
            adapters[step] = open_adapter(base, its_file).base
        own = replace(drawing, sampling=sampling, adapter=adapters[step])
        drawn = evaluate(base, judge, own, plain, on_drawn=counter.add)
        made.append(Cell(values, drawn.pictures, drawn.scores, meanings(drawn.measured, plain, judge.own_csls)))
    trained = file.header.step
    as_it_was = (
        place
        for place, (values, sampling) in enumerate(zip(cells, samplings, strict=True))
        if sampling == recommended and values.get(CHECKPOINT, trained) == trained
    )
    return judged(settings, made, references.shown.cpu(), next(as_it_was, None))


def judged(settings: SweepSettings, cells: list[Cell], references: Tensor, present: int | None) -> Sweep:
    """Which of the ``cells`` is best, the first of equal ones, and how sure that is; ``present`` was, so far."""
    order = sorted(range(len(cells)), key=lambda index: (-cells[index].balance, index))
    best, second = order[:2]
    other = second if present is None or present == best else present
    difference = (cells[best].balances - cells[other].balances).unflatten(0, (len(settings.prompts), settings.number))
    return Sweep(
        settings, cells, references, best, present, other, float(difference.mean()), paired_interval(difference)
    )


def sheet_of(result: Sweep, title: str, scorer: str) -> Image:
    """All cells of a sweep on one sheet, the references above them; ``scorer`` is who judged."""
    settings, cells = result.settings, result.cells
    lines = math.ceil(settings.number / ACROSS)
    across = math.ceil(settings.number / lines)
    shape = (lines * len(settings.prompts), across)
    rows, columns = _arranged(settings, shape)
    places = [
        next(i for i, cell in enumerate(cells) if all(cell.values[n] == v for n, v in (*row, *column)))
        for row in rows
        for column in columns
    ]
    prompts = " · ".join(settings.prompts)
    fixed = [f"{name} {values[0]:g}" for name, values in settings.axes.items() if len(values) == 1]
    seeds = f"seed {settings.seed}" if settings.number == 1 else f"seeds {settings.seeds[0]} to {settings.seeds[-1]}"
    return grid_sheet(
        (_lines(cells[place].pictures, len(settings.prompts), across) for place in places),
        [_words(result, place) for place in places],
        [_label(row) for row in rows],
        [_label(column) for column in columns],
        shape,
        title,
        [
            f"{prompts}   ({', '.join([*fixed, seeds])})",
            f"balance of subject (object, shape) and style (less leak), by {scorer}",
        ],
        [to_image(one) for one in result.references],
    )


# ---- the sheet ----

_Values = tuple[tuple[str, float], ...]  # none, or one axis's name and value


def _arranged(settings: SweepSettings, shape: tuple[int, int]) -> tuple[list[_Values], list[_Values]]:
    """The axes of several values as rows and columns, in the way that makes the sheet less of a strip."""
    nothing: list[_Values] = [()]
    several: list[list[_Values]] = [[((name, value),) for value in settings.axes[name]] for name in settings.several]
    one, other = [*several, nothing][:2]
    ways = ((one, other), (other, one))
    high, wide = shape
    return min(ways, key=lambda way: abs(math.log(len(way[1]) * wide / (len(way[0]) * high)) - TARGET_ASPECT))


def _label(values: _Values) -> tuple[str, str]:
    return (values[0][0], f"{values[0][1]:g}") if values else ("", "")


def _words(result: Sweep, place: int) -> GridCell:
    score, balance = result.cells[place].mean, result.cells[place].balance
    said = f"object {score.object:.2f}   style {score.style:.2f}   leak {score.leak:.2f}"
    best, now = place == result.best, place == result.present
    mark = "recommended" if best else "as it was" if now else ""
    return GridCell(f"{balance:.2f}", said, mark, best)


def _lines(pictures: Tensor, prompts: int, across: int) -> list[list[Image]]:
    of_each = pictures.unflatten(0, (prompts, -1))
    return [[to_image(one.float() / 255) for one in line] for prompt in of_each for line in prompt.split(across)]
