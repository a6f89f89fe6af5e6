"""Which settings suit an adapter: the same prompts and seeds drawn at every combination of some, beside each other.

Each combination is a cell. Its pictures are scored as checkpoints and rounds are, against what the base draws for the
same prompts without the adapter. Recommended is the cell with the best balance of subject and style, of those that keep
the thing as well as what the adapter recommends so far.
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
from styledrop_cli.io.run_names import run_of
from styledrop_cli.judging.bootstrap import mean_with_interval
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
GRID: dict[str, tuple[float, ...]] = {"lambda_a": (0, 0.25, 0.5), "lambda_b": (0.75, 1.5, 3)}
HALF = 0.5  # of how surely a thing was shown before: with less it is mostly gone
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

    @property
    def objects(self) -> Tensor:
        """How surely each picture shows what was asked for, ``[P*K]``."""
        return torch.tensor([score.object for score in self.scores])

    def loses_thing(self, before: Cell, prompts: int) -> bool:
        """Whether it shows what was asked for clearly less surely than ``before``, which has the same P prompts.

        That is: less than half as surely in the mean, or less by more than the 95 % interval of the difference, taken
        picture by picture.
        """
        _, (_, most) = mean_with_interval(self.objects - before.objects, prompts)
        return float(self.objects.mean()) < HALF * float(before.objects.mean()) or most < 0


def best_of(cells: Sequence[Cell], before: Cell | None, prompts: int) -> tuple[int | None, list[int]]:
    """The place of the cell with the highest mean balance, the first of equal ones, and those that lose the thing.

    None of these is the best; where all do, there is none. Without a ``before`` nothing is lost.
    """
    lost = [i for i, cell in enumerate(cells) if before is not None and cell.loses_thing(before, prompts)]
    kept = [i for i in range(len(cells)) if i not in lost]
    return max(kept, key=lambda i: (cells[i].balance, -i), default=None), lost


def gained(cell: Cell, other: Cell, prompts: int) -> tuple[float, tuple[float, float]]:
    """How much more balance ``cell`` has than ``other``, picture by picture: the mean and its 95 % interval."""
    return mean_with_interval(cell.balances - other.balances, prompts)


@dataclass(frozen=True)
class Sweep:
    """What a sweep came to: the cells in the order of ``settings.combinations``, the references ``[R,3,S,S]`` in [0,1].

    ``best`` is the number of the cell with the highest mean balance of those that are not ``lost``: that show the thing
    clearly less surely than what the adapter recommends so far does. Where all are, or none is better than what it
    recommends, there is no best. ``present`` is the number of what it recommends so far, if that is among them. The
    best is compared with the ``other``: what it recommends so far or, if that is the best, the second best. The
    ``gain`` is the mean difference of their balances, picture by picture, ``interval`` where it lies in 95 %.
    """

    settings: SweepSettings
    cells: list[Cell]
    references: Tensor
    best: int | None
    present: int | None
    lost: list[int]
    other: Cell
    gain: float
    interval: tuple[float, float]

    @property
    def values(self) -> dict[str, float]:
        """The best cell's values; none without a best."""
        return {} if self.best is None else self.cells[self.best].values

    @property
    def recommended(self) -> dict[str, float]:
        """The best cell's values, but for its checkpoint."""
        return {name: value for name, value in self.values.items() if name != CHECKPOINT}

    @property
    def sure(self) -> bool:
        """Whether the gain is beyond chance: its interval is above zero, and is over several prompts and seeds."""
        several = len(self.settings.prompts) > 1 and self.settings.number > 1
        return self.best is not None and several and self.interval[0] > 0


def whole_grid(axes: Mapping[str, Sequence[float]], file: AdapterFile) -> dict[str, tuple[float, ...]]:
    """``axes`` without repeated values; where there are none, the usual ones of ``GRID``.

    What the adapter recommends so far is among the usual ones, so that the best is compared with it.
    """
    if given := {name: tuple(dict.fromkeys(values)) for name, values in axes.items()}:
        return given
    recommended = SampleSettings(**file.header.recommended)
    return {name: tuple(sorted({*values, getattr(recommended, name)})) for name, values in GRID.items()}


def checkpoints_of(file: AdapterFile) -> dict[int, Path]:
    """The checkpoints of the training beside an adapter, by their step; raises UsageError where there are none.

    Raises ModelError for one that cannot be read, or is of another training.
    """
    folder = run_of(file.path)
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
    trained = file.header.step
    as_it_was = (
        place
        for place, (values, sampling) in enumerate(zip(cells, samplings, strict=True))
        if sampling == recommended and values.get(CHECKPOINT, trained) == trained
    )
    present = next(as_it_was, None)
    drawn_cells = len(cells) + (present is None)  # what it recommends so far is drawn in any case, to compare with
    counter = Counter(on_progress, len(prompts) * (drawn_cells * settings.number + PLAIN_EACH))
    candidates = range(PLAIN_SEED, PLAIN_SEED + PLAIN_EACH + settings.number)
    seeds = [seed for seed in candidates if seed not in settings.seeds][:PLAIN_EACH]
    # In full precision: the sheet shows the very pictures that generate draws.
    drawing = Drawing.of_each(prompts, texts, seeds, recommended, full_precision=True)
    plain = evaluate(base, judge, drawing, on_drawn=counter.add).measured.means(len(prompts), settings.number)
    drawing = Drawing.of_each(prompts, texts, settings.seeds, recommended, full_precision=True)
    adapters: dict[float, Adapter] = {}

    def cell(values: dict[str, float], sampling: SampleSettings, step: float) -> Cell:
        if step not in adapters:
            its_file = load_adapter((checkpoints or {})[int(step)]) if step >= 0 else file
            adapters[step] = open_adapter(base, its_file).base
        own = replace(drawing, sampling=sampling, adapter=adapters[step])
        drawn = evaluate(base, judge, own, plain, on_drawn=counter.add)
        return Cell(values, drawn.pictures, drawn.scores, meanings(drawn.measured, plain, judge.own_csls))

    made = [
        cell(values, sampling, values.get(CHECKPOINT, -1)) for values, sampling in zip(cells, samplings, strict=True)
    ]
    if present is not None:
        before = made[present]
    else:
        its_own = {name: trained or 0 if name == CHECKPOINT else getattr(recommended, name) for name in settings.axes}
        before = cell(its_own, recommended, -1)
    return judged(settings, made, references.shown.cpu(), present, before)


def judged(settings: SweepSettings, cells: list[Cell], references: Tensor, present: int | None, before: Cell) -> Sweep:
    """Which of the ``cells`` is best and how sure that is; ``before`` is what the adapter recommends so far.

    It is the cell with the number ``present``, unless it is none of them.
    """
    prompts = len(settings.prompts)
    best, lost = best_of(cells, before, prompts)
    others = [i for i in range(len(cells)) if i not in (best, *lost)]
    other = before
    if best == present and best is not None and others:
        other = cells[max(others, key=lambda i: (cells[i].balance, -i))]
    gain, interval = (0.0, (0.0, 0.0)) if best is None else gained(cells[best], other, prompts)
    if present is None and gain <= 0:
        best = None
    return Sweep(settings, cells, references, best, present, lost, other, gain, interval)


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


def mark_of(result: Sweep, place: int) -> str:
    """What is said of a cell beside its scores."""
    if place == result.best:
        return "recommended"
    return "as it was" if place == result.present else "loses the thing" if place in result.lost else ""


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
    best, mark = place == result.best, mark_of(result, place)
    return GridCell(f"{balance:.2f}", said, mark, best)


def _lines(pictures: Tensor, prompts: int, across: int) -> list[list[Image]]:
    of_each = pictures.unflatten(0, (prompts, -1))
    return [[to_image(one.float() / 255) for one in line] for prompt in of_each for line in prompt.split(across)]
