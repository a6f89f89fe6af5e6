"""What there is to report on: one adapter or the adapters of several rounds, and how each came to be."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from styledrop_cli.adapters import library
from styledrop_cli.adapters.file import bases_apart, is_one_base
from styledrop_cli.adapters.header import AdapterHeader, read_header
from styledrop_cli.errors import ModelError, PictureError, UsageError
from styledrop_cli.feedback.outcome import called
from styledrop_cli.feedback.rounds import ADAPTER, PICKS
from styledrop_cli.io.files import file_hash, read_json
from styledrop_cli.io.images import load_picture
from styledrop_cli.io.run_names import ROUNDS, RUN, TABLE, run_of
from styledrop_cli.training.adapter import CURVE

LONGEST = 2_000  # characters of a verdict
BEYOND = 1e9  # what no loss and no score reaches: a plot of it would show nothing
SCORED = ("object", "shape", "style", "leak", "total")


@dataclass(frozen=True)
class Checkpoint:
    """A point of a training, and the mean scores of its test pictures."""

    step: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """How a training went: ``losses`` as (step, loss), its checkpoints, and which one was ``chosen``."""

    losses: list[tuple[int, float]]
    checkpoints: list[Checkpoint]
    chosen: int | None


@dataclass(frozen=True)
class Pick:
    """A picture that was learnt from: what it was drawn for, and its file if that is at hand."""

    prompt: str
    seed: int | None
    file: Path | None


@dataclass(frozen=True)
class Stage:
    """One adapter: its name in the report, its file and header, its training, and the pictures picked for it."""

    name: str
    file: Path
    hash: str
    header: AdapterHeader
    curve: Curve | None
    picks: list[Pick]


@dataclass(frozen=True)
class Story:
    """The adapters, the first one first.

    ``place`` is what the report was asked for, ``rounds`` what the rounds were begun with, ``unreadable`` what is left
    out. ``verdict`` is what the rounds came to, in words, and ``best`` the name of the stage that was kept.
    """

    place: Path
    stages: list[Stage]
    rounds: Mapping[str, Any] | None
    unreadable: list[PictureError]
    verdict: str = ""
    best: str = ""

    @property
    def style(self) -> str:
        """The style in words."""
        return self.stages[0].header.style

    @property
    def used(self) -> list[str]:
        """Every prompt and content that something was learnt from or picked by, as far as it is known."""
        said = [c for stage in self.stages for c in stage.header.contents]
        said += [pick.prompt for stage in self.stages for pick in stage.picks]
        said += (self.rounds or {}).get("prompts", [])
        return list(dict.fromkeys(str(text) for text in said))


def read_story(place: Path) -> Story:
    """What is known of an adapter file, of the folder of its training, or of a folder of rounds.

    Raises UsageError for a folder that holds neither, ModelError for a file that is missing or no adapter.
    """
    if not place.is_dir():
        unreadable: list[PictureError] = []
        stage = _stage("adapter", place, [run_of(place)], place.parent, unreadable)
        return Story(place, [stage], None, unreadable)
    names = (path.parent.name.removeprefix("round-") for path in place.glob(f"round-*/{ADAPTER}"))
    numbers = sorted(int(name) for name in names if re.fullmatch("[1-9][0-9]{0,8}", name))
    if numbers:
        return _of_rounds(place, numbers)
    adapter = place.with_name(place.name.removesuffix(RUN))
    if place.name.endswith(RUN) and adapter.is_file():
        return read_story(adapter)
    if place.name.endswith(RUN):
        raise UsageError(f"the training in {place} has not written {adapter.name}", "Let it finish first.")
    raise UsageError(
        f"{place} holds no rounds and no training",
        "Name an adapter file, the folder that 'styledrop iterate' filled, or the .run folder beside an adapter.",
    )


def _of_rounds(place: Path, numbers: list[int]) -> Story:
    stages: list[Stage] = []
    unreadable: list[PictureError] = []
    for number in numbers:
        file = place / f"round-{number}" / ADAPTER
        runs = [run_of(file)]
        if number == numbers[0]:  # trained before the rounds, most often under the name that the folder took over
            name = place.name.removesuffix(ROUNDS)
            runs += [run_of(one) for one in (place.with_name(f"{name}.safetensors"), library.file_or_place(name))]
        stages.append(_stage(called(number), file, runs, file.parent, unreadable))
    about = _json(place / "run.json")
    settings = about.get("settings") if isinstance(about, dict) else None
    whole = isinstance(settings, dict) and isinstance(settings.get("prompts", []), list)
    table = _json(place / TABLE)
    table = table if isinstance(table, dict) else {}
    said, best = table.get("verdict", ""), table.get("best")
    named = {number: stage.name for number, stage in zip(numbers, stages, strict=True)}
    chosen = named.get(best, "") if isinstance(best, int) else ""
    return Story(
        place, stages, settings if whole else None, unreadable, said[:LONGEST] if isinstance(said, str) else "", chosen
    )


def _stage(name: str, file: Path, runs: list[Path], folder: Path, unreadable: list[PictureError]) -> Stage:
    header = read_header(file)
    curve = next((curve for run in runs if (curve := _curve(run / CURVE, header)) is not None), None)
    return Stage(name, file, file_hash(file), header, curve, _picks(folder, header, unreadable))


def _picks(folder: Path, header: AdapterHeader, unreadable: list[PictureError]) -> list[Pick]:
    """The pictures beside the adapter, or what its header says of them."""
    listed = header.picks
    if not listed:
        return []
    about = _json(folder / PICKS)
    numbers = about.get("pictures") if isinstance(about, dict) else None
    if not (isinstance(numbers, list) and len(numbers) == len(listed) and all(type(n) is int for n in numbers)):
        numbers = [0] * len(listed)
    picks = []
    for number, one in zip(numbers, listed, strict=True):
        file = folder / "picks" / f"{number:04d}.png"
        if there := file.exists():
            try:
                load_picture(file)
            except PictureError as error:
                unreadable.append(error)
                continue
        seed = one.get("seed")
        picks.append(Pick(str(one.get("prompt", "")), seed if isinstance(seed, int) else None, file if there else None))
    return picks


def _curve(path: Path, header: AdapterHeader) -> Curve | None:
    """What the training of the adapter with this ``header`` wrote of itself.

    None where there is nothing, it is not whole, or it is of another training: none of its checkpoints is that adapter.
    """
    about = _json(path)
    try:
        known = [
            [of.get(name) for name in ("step", "loss", "scores")] for of in (header.to_json(), *about["checkpoints"])
        ]
        if known[0] not in known[1:]:
            return None
        losses = [(int(step), float(loss)) for step, loss in about["losses"] if math.isfinite(loss)]
        checkpoints = [
            Checkpoint(int(one["step"]), {name: float(one["scores"][name]) for name in SCORED})
            for one in about["checkpoints"]
            if one.get("scores")  # a round of feedback draws no test pictures
        ]
        chosen = about.get("chosen")
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        return None
    shown = [number for point in losses for number in point]
    shown += [number for one in checkpoints for number in (one.step, *one.scores.values())]
    if not losses or not all(abs(number) < BEYOND for number in shown):  # nor is NaN
        return None
    return Curve(losses, checkpoints, chosen if isinstance(chosen, int) and abs(chosen) < BEYOND else None)


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None


def parent_of(stage: Stage, before: Stage | None) -> str:
    """Whether the header's parent is the stage before: for the lineage."""
    parent = stage.header.parent
    if not parent:
        return ""
    if before is not None and parent == before.hash:
        return f"made from {before.name}"
    return f"made from an adapter that is not here ({parent[:12]})"


def check_one_base(story: Story) -> None:
    """Raise ModelError unless all adapters were trained on one base."""
    first, *others = story.stages
    for other in others:
        if not is_one_base(other.header.base, first.header.base):
            its, own = bases_apart(other.header.base, first.header.base)
            raise ModelError(
                f"{other.file} was trained on another base ({its}) than {first.file} ({own})", "Report on each alone."
            )
