"""The whole run: rows are drawn for every reference, judged against the truth, and compared picture by picture.

Rows: ``base`` (no style named), ``style text`` (the style named, no adapter), ``round 1`` (the adapter, at the scales
it recommends), where wanted ``round 2`` by each picker, ``real`` and ``real, tokenized`` (the true pictures, before
and after the tokenizer). Where settings are compared: the base, and a row for each combination of settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from paired.art import Art, Look, looks
from paired.comparisons import DEFAULT, Combination, Values, combinations, comparing
from paired.families import HeldOut
from paired.judges import Judges, JudgeSettings, Say, judges_file, load_judges
from paired.measures import cells_of, estimates
from paired.report import Groups, Measured, against_first, families_sheet, groups_of, sheet, tables
from paired.rows import BASE, FIRST, PROMPTS, REAL, REFERENCES, TOKENIZED, Reference, Row, Studio, references
from paired.second_round import PICKERS, Feedback
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import quoted
from styledrop_cli.cli.console import duration
from styledrop_cli.corpus.styles import STYLES
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write, write_json
from styledrop_cli.io.images import save_png

if TYPE_CHECKING:
    from PIL.Image import Image

# With --quick, the judges know so many things and every so-manieth training style, from so many renders.
QUICK_THINGS, QUICK_STYLES, QUICK_RENDERS = 64, 3, 3000
QUICK_PASSES: dict[str, Any] = {"style_passes": 6.0, "content_passes": 18.0}
# On two idle cores, with pocket: for a run's first words, and nothing else.
SECONDS_OF_A_RENDER, SECONDS_OF_AN_ADAPTER, SECONDS_OF_A_PICTURE = 0.085, 45.0, 0.6
REPORT_SEED, SWEEP_SEED = 0, 1  # of the judges: whoever chooses does not grade
FEWEST = 2  # things drawn after each reference: of one alone nothing can be said
NOTE = "In brackets: 95 % of paired bootstrap differences against {against}. All but truth in per cent."


@dataclass(frozen=True)
class Plan:
    """What is drawn and judged: ``values`` of settings, on so many references of each style.

    After each reference, ``prompts`` things are drawn ``seeds`` times. ``rounds`` adds those after a round of feedback.
    """

    styles: Sequence[HeldOut]
    values: Values
    references: int
    prompts: int
    seeds: int
    judge_seed: int | None = None
    rounds: bool = False
    one_at_a_time: bool = False
    quick: bool = False

    def judged(self, art: Art) -> tuple[Art, list[Look], JudgeSettings]:
        """What the judges learn to tell apart, and how: with ``quick`` less of it, on fewer pictures."""
        everything, settings = looks(), JudgeSettings()
        if not self.quick:
            return art, everything, settings
        needed = {*PROMPTS, *(thing for style in self.styles for thing in REFERENCES[style.name])}
        few = [*STYLES][::QUICK_STYLES]
        return (
            art.with_few(needed, QUICK_THINGS),
            [look for look in everything if look.name not in STYLES or look.name in few],
            replace(settings, renders=min(settings.renders, QUICK_RENDERS), **QUICK_PASSES),
        )

    @property
    def judge(self) -> int:
        """The seed of the judges that grade."""
        if self.judge_seed is not None:
            return self.judge_seed
        return SWEEP_SEED if comparing(self.values) else REPORT_SEED


@dataclass(frozen=True)
class Outcome:
    """What a run found: its tables in markdown, all figures, and a sheet of what was drawn for each style."""

    tables: str
    figures: dict[str, Any]
    sheets: dict[str, Image]

    def write(self, folder: Path) -> None:
        """Write ``table.md``, ``figures.json`` and the sheets into ``folder``."""
        atomic_write(folder / "table.md", self.tables.encode())
        write_json(folder / "figures.json", self.figures)
        for name, image in self.sheets.items():
            save_png(image, folder / f"{name.replace(' ', '-').lower()}.png")


def run(base: Base, art: Art, plan: Plan, work: Path, say: Say, on_progress: Callable[[float, str], None]) -> Outcome:
    """Draw, judge and compare; judges and adapters are kept in ``work``.

    Raises UsageError where the base knows too few of the things, or has not the size that is asked for.
    """
    art, everything, judging = plan.judged(art)
    size, values = picture_size(plan.values, base)
    made = combinations(values, base, size, plan.one_at_a_time)
    shown = [references(style, plan.references, art) for style in plan.styles]
    things = known_things(base, art, plan.prompts, say)
    studio = Studio(base, art, {look.name: look for look in everything}, work, size, say)

    compared = comparing(plan.values)
    seeds = [plan.judge]
    if plan.rounds:  # who picks does not grade
        seeds.append(SWEEP_SEED if plan.judge == REPORT_SEED else REPORT_SEED)
    missing = [s for s in seeds if not judges_file(art, everything, base, work, s, judging)[0].exists()]
    of_judges = SECONDS_OF_A_RENDER * judging.renders * len(missing)
    rest, words = costs(studio, made if compared else made[-1:], shown, len(things) * plan.seeds, compared)
    whole = of_judges + rest
    say(
        f"about {duration(whole)} on two idle cores with pocket (judges {duration(of_judges)}, {words}); what is in "
        f"{work} already is not made again, and a run that is cut goes on there"
    )

    def judged_by(seed: int) -> Judges:
        place = missing.index(seed) / len(missing) if seed in missing else 0

        def on_making(share: float, note: str) -> None:
            on_progress((place + share / len(missing)) * of_judges / whole, note)

        return load_judges(art, everything, base, work, seed, judging, say, on_making)

    judges = judged_by(plan.judge)
    feedback = Feedback(studio, judged_by(seeds[1])) if plan.rounds else None
    rows = compared_rows(studio, made, feedback) if compared else report_rows(studio, made[-1], feedback)
    before = of_judges / max(whole, 1e-9)
    measured = measure(
        rows,
        studio,
        judges,
        shown,
        things,
        plan.seeds,
        lambda share, note: on_progress(before + (1 - before) * share, note),
    )
    against = DEFAULT if compared else BASE
    found = {g: estimates(measured.cells, members, BASE, against) for g, members in groups_of(plan.styles).items()}
    text = tables(found, against)
    if plan.rounds and not compared:
        text += f"\n{against_first(measured.cells, plan.styles)}"
    return Outcome(
        f"{text}\n{NOTE.format(against=against)}\n",
        _figures(base, plan, judges, size, things, shown, made, found, against, measured),
        {refs[0].style.name: sheet(measured, studio, refs, things) for refs in shown},
    )


def costs(
    studio: Studio, made: Sequence[Combination], shown: Sequence[Sequence[Reference]], each: int, compared: bool
) -> tuple[float, str]:
    """About how many seconds adapters and pictures take, of which there are ``each`` a reference; and it in words."""
    everyone = [reference for of_style in shown for reference in of_style]
    files = {studio.adapter_file(r, studio.trained(one.training, one.sampling)) for one in made for r in everyone}
    adapters = [path for path in files if not path.exists()]
    pictures = each * len(everyone) * (len(made) if compared else 2)
    on_adapters, on_pictures = SECONDS_OF_AN_ADAPTER * len(adapters), SECONDS_OF_A_PICTURE * pictures
    many = "adapter" if len(adapters) == 1 else "adapters"
    said = f"{len(adapters)} {many} {duration(on_adapters)}, {pictures} pictures {duration(on_pictures)}"
    return on_adapters + on_pictures, said


def show_families(base: Base, art: Art, work: Path, path: Path) -> None:
    """Write a sheet of what the held-out styles look like to ``path``."""
    studio = Studio(base, art, {look.name: look for look in looks()}, work, base.sizes[0], lambda line: None)
    save_png(families_sheet(studio), path)


# ---- what is drawn ------------------------------------------------------------------------------


def picture_size(values: Values, base: Base) -> tuple[int, Values]:
    """The side of a run's pictures in px, the base's own unless it is set, and the other values."""
    sizes = values.get("sample.size", [base.sizes[0]])
    if len(sizes) > 1 or sizes[0] not in base.sizes:
        raise UsageError(f"all pictures of a run are of one size, one of {', '.join(map(str, base.sizes))} px")
    return sizes[0], {name: options for name, options in values.items() if name != "sample.size"}


def known_things(base: Base, art: Art, count: int, say: Say) -> list[str]:
    """The first ``count`` things to draw that the base was taught; those passed over are named in a warning.

    Raises UsageError if fewer than two are left.
    """
    known: list[str] = []
    passed: list[str] = []
    for thing in PROMPTS:
        if thing in art.things and len(known) < count:
            words = art.words[thing]
            taught = words in base.contents or not base.unknown_words(words)
            (known if taught else passed).append(thing)
    named = quoted([art.words[thing] for thing in passed], len(PROMPTS))
    if len(known) < FEWEST:
        raise UsageError(
            f"{base.name} was taught {len(known)} of the things that are drawn here, and it takes {FEWEST}: it does "
            f"not know {named or 'what the art shows'}",
            "The benchmark draws everyday things; a base of other things cannot be measured by it.",
        )
    if passed:
        say(f"Warning: {base.name} was never taught {named}: left out, {len(known)} things are drawn")
    return known


def report_rows(studio: Studio, one: Combination, feedback: Feedback | None) -> dict[str, Row]:
    """The rows of one choice of settings, from the base to the truth."""
    rows = {BASE: studio.plain, "style text": studio.told, FIRST: studio.adapted(one.training, one.sampling)}
    if feedback is not None:
        for who in PICKERS:
            rows[f"round 2, {who}"] = feedback.row(who, one.training, one.sampling, one.feedback)
    return {**rows, REAL: studio.real, TOKENIZED: studio.tokenized}


def compared_rows(studio: Studio, made: Sequence[Combination], feedback: Feedback | None) -> dict[str, Row]:
    """The base and a row for each combination of settings; with ``feedback`` after a second round picked by CLIP."""
    rows: dict[str, Row] = {BASE: studio.plain}
    for one in made:
        if feedback is None:
            rows[one.name] = studio.adapted(one.training, one.sampling)
        else:
            rows[one.name] = feedback.row("clip", one.training, one.sampling, one.feedback)
    return rows


def measure(
    rows: Mapping[str, Row],
    studio: Studio,
    judges: Judges,
    shown: Sequence[Sequence[Reference]],
    things: list[str],
    seeds: int,
    on_progress: Callable[[float, str], None],
) -> Measured:
    """Draw and judge every row of every reference."""
    measured = Measured()
    everyone = [reference for of_style in shown for reference in of_style]
    for i, (row, draw) in enumerate(rows.items()):
        parts = []
        measured.pictures[row] = {}
        for j, reference in enumerate(everyone):
            on_progress((i + j / len(everyone)) / len(rows), f"{row}, {reference.style.name}")
            pictures = draw(reference, things, list(range(seeds)))
            measured.pictures[row][reference] = pictures[::seeds]
            true = studio.true(reference, things, studio.size).repeat_interleave(seeds, 0)
            parts.append(
                cells_of(
                    judges,
                    pictures,
                    true,
                    look=judges.looks.index(reference.style.name),
                    wanted=[judges.things.index(t) for t in things for _ in range(seeds)],
                    reference=judges.things.index(reference.thing),
                )
            )
        shape = (len(shown), len(shown[0]), len(things), seeds)
        measured.cells[row] = {name: torch.cat([part[name] for part in parts]).view(shape) for name in parts[0]}
    on_progress(1.0, f"{len(rows)} rows")
    return measured


def _figures(
    base: Base,
    plan: Plan,
    judges: Judges,
    size: int,
    things: list[str],
    shown: Sequence[Sequence[Reference]],
    made: Sequence[Combination],
    found: Groups,
    against: str,
    measured: Measured,
) -> dict[str, Any]:
    return {
        "model": base.name,
        "base": base.hash,
        "judges": {"seed": plan.judge, "accuracy": judges.accuracy},
        "size": size,
        "things": things,
        "references": {refs[0].style.name: [r.thing for r in refs] for refs in shown},
        "settings": {
            one.name: {"train": asdict(one.training), "sample": asdict(one.sampling)}
            | ({"round": asdict(one.feedback)} if plan.rounds else {})
            for one in made
        },
        "against": against,
        "groups": {g: {r: {m: asdict(e) for m, e in v.items()} for r, v in f.items()} for g, f in found.items()},
        "cells": {row: {name: v.tolist() for name, v in cells.items()} for row, cells in measured.cells.items()},
    }
