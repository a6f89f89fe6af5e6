"""One-picture adaptation against the truth: ``python benchmarks/paired_styles``, from the repository's root.

Some styles are held out of all training, yet exist for every thing, so it is known what the thing asked for really
looks like in them. For each of these styles, and each of a few references (one picture of one thing), an adapter is
trained and draws other things; two judges that the benchmark trains itself say what came out, beside what the base
draws without it and what the style's own artist drew.

Rows: ``base`` (no style named), ``style text`` (the style named, no adapter), ``round 1`` (the adapter, at the scales
it recommends), with ``--rounds`` ``round 2`` by each picker, ``real`` and ``real, tokenized`` (the true
pictures, before and after the tokenizer).

With ``--set`` and more than one value it compares settings instead, on the development styles, by another judge; those
of a round (``round.lambda_a``) on second rounds picked by CLIP.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from art import load_art, looks
from families import HELD_OUT, HeldOut
from judges import Judges, JudgeSettings, load_judges
from measures import MEASURES, Cells, Estimate, cells_of, estimates, markdown, written
from PIL import Image
from rows import PROMPTS, REFERENCE_SIZE, Reference, Row, Studio, references
from second_round import PICKERS, Feedback
from torch import Tensor

from styledrop_cli.base import load_base
from styledrop_cli.checkpoints import write_json
from styledrop_cli.devices import pick_device
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.images import atomic_write, save_png, to_image
from styledrop_cli.settings import RoundSettings, SampleSettings, TrainSettings
from styledrop_cli.sheets import contact_sheet

BASE, DEFAULT = "base", "default"
REPORT_SEED, SWEEP_SEED = 0, 1  # of the judges: whoever chooses does not grade
# Names that both kinds of settings have, and whose is meant where nothing is said.
MEANT = {"steps": "train", "seed": "train", "lambda_a": "sample", "lambda_b": "sample"}
KINDS: dict[str, type[Any]] = {"train": TrainSettings, "sample": SampleSettings, "round": RoundSettings}


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


# ---- settings -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Combination:
    """One row of a sweep: what differs from the defaults, in words, and all settings."""

    name: str
    training: TrainSettings
    sampling: SampleSettings
    feedback: RoundSettings


def read_values(given: Sequence[str]) -> dict[str, list[Any]]:
    """``["steps=150,250"]`` as ``{"train.steps": [150, 250]}``; raises UsageError for unknown names and odd values."""
    found: dict[str, list[Any]] = {}
    for text in given:
        name, _, values = text.partition("=")
        kind, _, bare = name.rpartition(".")
        kind = kind or MEANT.get(bare) or next((k for k, of in KINDS.items() if bare in of.defaults()), "")
        if kind not in KINDS or bare not in KINDS[kind].defaults():
            known = sorted({name for of in KINDS.values() for name in of.defaults()})
            raise UsageError(f"there is no setting called '{name}'", f"Choose among {', '.join(known)}.")
        if (kind, bare) == ("sample", "seed"):
            raise UsageError("the pictures' seeds are counted, not set", "Say how many with --seeds.")
        default = KINDS[kind].defaults()[bare]
        try:
            found[f"{kind}.{bare}"] = [_value(value.strip(), default) for value in values.split(",")]
        except ValueError:
            raise UsageError(f"--set {text}: {bare} takes values like {default!r}") from None
    return found


def _value(text: str, default: object) -> Any:
    """``text`` as a value of the default's type."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(default, tuple):
        return tuple(text.split("+"))
    if isinstance(default, int | float | str):
        return type(default)(text)
    raise ValueError(text)


def combinations(values: Mapping[str, Sequence[Any]], size: int, one_at_a_time: bool) -> list[Combination]:
    """The default, then every combination of values, or every value alone; each once."""
    if one_at_a_time:
        fixed = {name: options[0] for name, options in values.items() if len(options) == 1}
        chosen = [fixed | {n: v} for n, options in values.items() for v in options if len(options) > 1]
    else:
        chosen = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
    made: dict[object, Combination] = {}
    for one in ({}, *chosen):
        combination = _combination(one, size)
        made.setdefault((combination.training, combination.sampling, combination.feedback), combination)
    return list(made.values())


def _combination(chosen: Mapping[str, Any], size: int) -> Combination:
    def part(kind: str) -> dict[str, Any]:
        return {name.partition(".")[2]: v for name, v in chosen.items() if name.startswith(f"{kind}.")}

    given = part("train")
    training = TrainSettings.of(given.pop("kind", TrainSettings.kind), **given)
    # An adapter is drawn with at the scales that its file recommends.
    recommended = {"lambda_a": training.lambda_a, "lambda_b": training.lambda_b, "size": size}
    sampling = SampleSettings(**recommended | part("sample"))
    words = " ".join(f"{_shown(n)}={'+'.join(v) if isinstance(v, tuple) else v}" for n, v in chosen.items())
    return Combination(words or DEFAULT, training, sampling, RoundSettings(**part("round")))


def _shown(name: str) -> str:
    kind, _, bare = name.partition(".")
    return bare if MEANT.get(bare, kind) == kind else name


def chosen_styles(text: str) -> list[HeldOut]:
    """``development``, ``report``, ``all`` or names between commas; raises UsageError for another."""
    everything = list(HELD_OUT.values())
    groups = {
        "all": everything,
        "development": [s for s in everything if s.development],
        "report": [s for s in everything if not s.development],
    }
    if text in groups:
        return groups[text]
    names = {name.lower(): style for name, style in HELD_OUT.items()}
    wanted = [part.strip().lower() for part in text.split(",")]
    if unknown := [name for name in wanted if name not in names]:
        raise UsageError(
            f"there is no held-out style called '{unknown[0]}'", f"Choose {', '.join([*groups, *HELD_OUT])}."
        )
    return [names[name] for name in dict.fromkeys(wanted)]


# ---- measuring ------------------------------------------------------------------------------------


@dataclass
class Result:
    """Of each row: its cells ``[S,R,P,K]`` of each measure, and its first seed's pictures of each reference."""

    cells: dict[str, Cells]
    pictures: dict[str, dict[Reference, Tensor]]


def measure(
    rows: Mapping[str, Row], studio: Studio, judges: Judges, shown: list[list[Reference]], things: list[str], seeds: int
) -> Result:
    """Draw and judge every row of every reference."""
    result = Result({}, {})
    for row, draw in rows.items():
        started, parts = time.monotonic(), []
        result.pictures[row] = {}
        for of_style in shown:
            for reference in of_style:
                pictures = draw(reference, things, list(range(seeds)))
                result.pictures[row][reference] = pictures[::seeds]
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
        result.cells[row] = {name: torch.cat([part[name] for part in parts]).view(shape) for name in parts[0]}
        say(f"{row}: {time.monotonic() - started:.0f} s")
    return result


def groups_of(styles: list[HeldOut]) -> dict[str, list[int]]:
    """Every style alone, and the development and the report-only ones together: places in ``styles``."""
    groups = {style.name: [i] for i, style in enumerate(styles)}
    for name, development in (("development", True), ("report-only", False)):
        members = [i for i, style in enumerate(styles) if style.development == development]
        if len(members) > 1:
            groups[name] = members
    return groups


def report(found: Mapping[str, Mapping[str, Mapping[str, Estimate]]], against: str) -> str:
    """The tables of all groups, in markdown."""
    parts = []
    for group, rows in found.items():
        lines = [
            [row, *(written(name, values[name], row != against) for name in MEASURES)] for row, values in rows.items()
        ]
        parts.append(f"**{group}**\n\n{markdown(['row', *MEASURES], lines)}\n")
    return "\n".join(parts)


def against_first(cells: Mapping[str, Cells], styles: list[HeldOut]) -> str:
    """What a second round changes: its rows against round 1 instead of the base."""
    rows = {row: values for row, values in cells.items() if row == BASE or row.startswith("round")}
    found = {
        f"{group}, against round 1": {
            row: values for row, values in estimates(rows, members, BASE, "round 1").items() if row != BASE
        }
        for group, members in groups_of(styles).items()
        if len(members) > 1 or len(styles) == 1
    }
    return report(found, "round 1")


def sheet(result: Result, studio: Studio, of_style: list[Reference], things: list[str]) -> Image.Image:
    """Per reference a line of pictures for each row, the reference before them; the true ones come last."""
    images, labels = [], []
    shown = [row for row in result.pictures if row != "real"]
    lines = [*[row for row in shown if row != "real, tokenized"], *(["real"] if "real" in result.pictures else [])]
    for reference in of_style:
        picture = to_image(studio.true(reference, [reference.thing], REFERENCE_SIZE)[0])
        for row in lines:
            images += [picture, *(to_image(p) for p in result.pictures[row][reference])]
            words = [studio.art.words[thing] for thing in things]
            labels += [f"after {studio.art.words[reference.thing]}: {row}", *words]
    return contact_sheet(images, len(things) + 1, labels, of_style[0].style.name, cell=112)


def families_sheet(studio: Studio) -> Image.Image:
    """What the held-out styles look like: two references' artists each, drawing the same things."""
    images, labels = [], []
    for style in HELD_OUT.values():
        for reference in references(style, 2, studio.art)[: 2 if style.draw else 1]:
            images += [to_image(p) for p in studio.true(reference, PROMPTS[:8], REFERENCE_SIZE)]
            labels += [style.name, *[""] * 7]
    return contact_sheet(images, 8, labels, cell=112)


# ---- the command ----------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python benchmarks/paired_styles", description=__doc__.split("\n")[0])
    add = made.add_argument
    add("--model", default="pocket", help="pocket, or a model folder")
    add("--raw", type=Path, default=Path("corpus/art"), help="folder of rendered art (default corpus/art)")
    add("--openmoji", type=Path, help="OpenMoji's icon package; without it, it is fetched with npm")
    add("--work", type=Path, default=Path("build/paired_styles"), help="judges and adapters are kept here")
    add(
        "-o", "--output", type=Path, help="folder for the table, figures and sheets (default WORK/report or WORK/sweep)"
    )
    add("--styles", help="all, development, report, or names between commas")
    add("--references", type=int, help="of each style (default 4)")
    add("--prompts", type=int, help="things drawn after each (default 10)")
    add("--seeds", type=int, help="pictures of each thing (default 2)")
    add("--quick", action="store_true", help="2 references, 6 prompts, 1 seed")
    add("--families", type=Path, metavar="FILE", help="draw a sheet of the held-out styles, and stop")
    add("--judges", action="store_true", help="make the judges, for reports and for sweeps, and stop")
    add("--judge-seed", type=int, help="which judges (default 0; where settings are compared, 1)")
    add("--set", action="append", default=[], metavar="NAME=VALUE,...", help="a setting of train or generate")
    add("--rounds", action="store_true", help="rows of a second round too: picked by CLIP, by chance, by the truth")
    add("--one-at-a-time", action="store_true", help="compare each value alone, not every combination")
    return made


def count(name: str, value: int | None, default: int, most: int) -> int:
    """A number of the command line; raises UsageError outside 1..most."""
    value = default if value is None else value
    if not 1 <= value <= most:
        raise UsageError(f"--{name} must be between 1 and {most}, not {value}")
    return value


def run(arguments: Sequence[str] | None = None, settings: JudgeSettings | None = None) -> None:
    """Everything the command does; raises StyledropError."""
    options = parser().parse_args(arguments)
    values = read_values(options.set)
    sweep = any(len(options) > 1 for options in values.values())
    styles = chosen_styles(options.styles or ("development" if sweep else "all"))
    if sweep and not all(style.development for style in styles):
        raise UsageError(
            "settings are compared on the development styles only",
            "Say --styles development, or give each setting one value.",
        )
    number = count("references", options.references, 2 if options.quick else 4, 4)
    prompts = count("prompts", options.prompts, 6 if options.quick else len(PROMPTS), len(PROMPTS))
    seeds = count("seeds", options.seeds, 1 if options.quick else 2, 100)
    base = load_base(options.model, pick_device("cpu"))
    sizes = values.pop("sample.size", [base.sizes[0]])
    if len(sizes) > 1 or sizes[0] not in base.sizes:
        raise UsageError(f"all pictures of a run are of one size, one of {', '.join(map(str, base.sizes))} px")
    size = sizes[0]
    made = combinations(values, size, options.one_at_a_time)
    art, everything = load_art(options.raw, options.openmoji, options.work), looks()
    studio = Studio(base, art, {look.name: look for look in everything}, options.work, size, say)
    if options.families:
        save_png(families_sheet(studio), options.families)
        return
    judge_seeds = [REPORT_SEED, SWEEP_SEED] if options.judges else [SWEEP_SEED if sweep else REPORT_SEED]
    if options.judge_seed is not None:
        judge_seeds = [options.judge_seed]
    for seed in judge_seeds:
        judges = load_judges(art, everything, base, options.work, seed, settings or JudgeSettings(), say)
        print(f"judges {seed}: " + "; ".join(f"{name} {share:.1%}" for name, share in judges.accuracy.items()))
    if options.judges:
        return

    shown = [references(style, number, art) for style in styles]
    things = [t for t in PROMPTS if t in art.things][:prompts]

    def adapted(one: Combination) -> Row:
        return studio.adapted(one.training, one.sampling)

    def second(who: str, one: Combination) -> Row:
        return feedback.row(who, one.training, one.sampling, one.feedback)

    rows: dict[str, Row] = {BASE: studio.plain}
    of_rounds = any(name.startswith("round.") for name in values)
    if of_rounds or options.rounds:
        picks = SWEEP_SEED if judge_seeds[0] == REPORT_SEED else REPORT_SEED  # who picks does not grade
        feedback = Feedback(
            studio, load_judges(art, everything, base, options.work, picks, settings or JudgeSettings(), say)
        )
    if sweep:
        rows |= {one.name: second("clip", one) if of_rounds else adapted(one) for one in made}
    else:
        rows |= {"style text": studio.told, "round 1": adapted(made[-1])}
        if options.rounds:
            rows |= {f"round 2, {who}": second(who, made[-1]) for who in PICKERS}
        rows |= {"real": studio.real, "real, tokenized": studio.tokenized}
    result = measure(rows, studio, judges, shown, things, seeds)

    against = DEFAULT if sweep else BASE
    found = {group: estimates(result.cells, members, BASE, against) for group, members in groups_of(styles).items()}
    text = report(found, against)
    if options.rounds and not sweep:
        text += f"\n{against_first(result.cells, styles)}"
    print(f"\n{text}\nIn brackets: 95 % of paired bootstrap differences against {against}. All but truth in per cent.")
    output = options.output or options.work / ("sweep" if sweep else "report")
    atomic_write(output / "table.md", text.encode())
    write_json(
        output / "figures.json",
        {
            "model": base.name,
            "base": base.hash,
            "judges": {"seed": judge_seeds[0], "accuracy": judges.accuracy},
            "size": size,
            "things": things,
            "references": {s.name: [r.thing for r in refs] for s, refs in zip(styles, shown, strict=True)},
            "settings": {c.name: {"train": asdict(c.training), "sample": asdict(c.sampling)} for c in made},
            "against": against,
            "groups": {g: {r: {m: asdict(e) for m, e in v.items()} for r, v in f.items()} for g, f in found.items()},
            "cells": {row: {n: v.tolist() for n, v in cells.items()} for row, cells in result.cells.items()},
        },
    )
    for style, of_style in zip(styles, shown, strict=True):
        save_png(sheet(result, studio, of_style, things), output / f"{style.name.replace(' ', '-').lower()}.png")
    print(f"written to {output}")


def main() -> None:
    """Run, and show what went wrong in words."""
    try:
        run()
    except StyledropError as error:
        print(f"Error: {error.message}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
