"""Measure a base model, or settings, against styles whose truth is known; `--help` says more."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from styledrop_cli.cli import checks, console, load, options
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import LARGEST_SEED

if TYPE_CHECKING:
    from paired.art import Art
    from paired.run import Plan
    from styledrop_cli.base.base import Base

# Without --quick and with it; the benchmark has no more than 4 references of a style and 10 things to draw.
REFERENCES, PROMPTS, SEEDS = (4, 1), (10, 6), (2, 1)
QUICK_STYLES = "report"
MOST_SEEDS = 100
measured = partial(typer.Option, rich_help_panel="What is measured")
compared = partial(typer.Option, rich_help_panel="Comparing settings")
places = partial(typer.Option, rich_help_panel="Where things are")


def _or_quick(default: tuple[int, int]) -> str:
    return f"{default[0]}, or {default[1]} with --quick"


class What(StrEnum):
    """What can be measured."""

    styles = "styles"
    likeness = "likeness"


app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["--help", "-h"]}
)


@app.command(cls=options.Command)
@options.command
def measure(
    what: Annotated[
        What,
        typer.Argument(
            metavar="WHAT", help="styles: learning a style from one picture; likeness: how well score knows a style."
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where the table, the figures and the sheets go.",
            show_default="report in the folder of --work; sweep where settings are compared",
        ),
    ] = None,
    quick: Annotated[
        bool,
        options.flag("Few pictures and smaller judges: a first look in ten minutes, not a figure to quote.", "--quick"),
    ] = False,
    styles: Annotated[
        str | None,
        measured(
            metavar="NAME,...",
            help="all, development, report, or names between commas.",
            show_default="all, or report with --quick; development where settings are compared",
        ),
    ] = None,
    references: Annotated[
        int | None, measured(help="One-picture adapters of each style.", show_default=_or_quick(REFERENCES))
    ] = None,
    prompts: Annotated[int | None, measured(help="Things drawn with each.", show_default=_or_quick(PROMPTS))] = None,
    seeds: Annotated[int | None, measured(help="Pictures of each thing.", show_default=_or_quick(SEEDS))] = None,
    rounds: Annotated[
        bool,
        options.flag(
            "A second round too: picked by CLIP, by chance, and by who knows the truth.",
            "--rounds",
            panel="What is measured",
        ),
    ] = False,
    families: Annotated[
        Path | None, measured(metavar="FILE", help="Draw a sheet of the styles there are, and stop.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        compared("--set", metavar="NAME=VALUE,...", help="A setting of train, generate or iterate; may be repeated."),
    ] = None,
    one_at_a_time: Annotated[
        bool,
        options.flag("Each value alone, not every combination.", "--one-at-a-time", panel="Comparing settings"),
    ] = False,
    judge_seed: Annotated[
        int | None,
        measured(
            help="Which judges grade; another seed trains others.", show_default="0; 1 where settings are compared"
        ),
    ] = None,
    art: Annotated[Path, places(metavar="FOLDER", help="Rendered art: what examples/pocket makes.")] = Path(
        "corpus/art"
    ),
    openmoji: Annotated[
        Path | None, places(metavar="FILE", help="OpenMoji's icon package.", show_default="fetched with npm")
    ] = None,
    work: Annotated[
        Path, places(metavar="FOLDER", help="Judges and adapters are kept here, and not trained again.")
    ] = Path("styledrop-bench"),
    model: options.Model = "pocket",
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """Measure a base model, or settings, against the truth.

    Some styles are held out of all training and yet exist for every thing, so
    it is known what a teapot looks like in them. Adapters learn each from one
    picture of something else and draw the teapot; two judges, trained first
    and kept, say what came out, beside what the base draws and the truth.
    How long it takes is said first; cut, the same command goes on.
    Several values in --set compare settings instead. likeness asks whether the
    likenesses that score measures know the true pictures of a style from others.

      python benchmarks/against_truth.py styles --quick
      python benchmarks/against_truth.py styles --model my-model
      python benchmarks/against_truth.py styles --set lambda_a=0,0.5
      python benchmarks/against_truth.py likeness
    """
    checks.refuse_outside(
        references=(references, 1, REFERENCES[0]),
        prompts=(prompts, 2, PROMPTS[0]),
        seeds=(seeds, 1, MOST_SEEDS),
        judge_seed=(judge_seed, 0, LARGEST_SEED),
    )
    if what is What.likeness and (rounds or settings or families or output):
        raise UsageError(
            "likeness draws nothing by a model and writes no files",
            "leave out --rounds, --set, --families and -o, or measure styles",
        )
    checks.refuse_unwritable(work, "--work")
    if output:
        checks.refuse_unwritable(output)
    if families:
        checks.refuse_output(families, overwrite=True, option="--families")
    with load.loading(screen, model, device) as load_base:
        from paired import run as paired_run
        from paired.art import check_art, load_art
        from paired.comparisons import chosen_styles, comparing, read_values

        values = read_values(settings or [])
        plan = paired_run.Plan(
            chosen_styles(styles or (QUICK_STYLES if quick and not comparing(values) else None), values),
            values,
            references=REFERENCES[quick] if references is None else references,
            prompts=PROMPTS[quick] if prompts is None else prompts,
            seeds=SEEDS[quick] if seeds is None else seeds,
            judge_seed=judge_seed,
            rounds=rounds or any(name.startswith("round.") for name in values),
            one_at_a_time=one_at_a_time,
            quick=quick,
        )
        check_art(art)
        base = load_base()
    with screen.working("reading the art"):
        drawn_from = load_art(art, openmoji, work)
    if families:
        paired_run.show_families(base, drawn_from, work, families)
        screen.result({"what": what.value, "sheet": families}, [families])
        return
    if what is What.likeness:
        _likeness(screen, base, drawn_from, plan)
        return
    with screen.progress("measuring") as move:
        outcome = paired_run.run(base, drawn_from, plan, work, screen.say, move)
    output = output or work / ("sweep" if comparing(values) else "report")
    outcome.write(output)
    screen.result({"what": what.value, "output": output, **outcome.figures}, [outcome.tables.rstrip("\n")])
    screen.say(f"table, figures and sheets: {output}", "dim")


def _likeness(screen: console.Screen, base: Base, art: Art, plan: Plan) -> None:
    from paired.art import looks
    from paired.likeness import compare, table
    from paired.rows import references
    from styledrop_cli.judging.clip_scorer import open_scorer, open_second_scorer

    second, clip_scorer = open_second_scorer(base)
    scorers = {"clip": open_scorer(base, "clip"), second: clip_scorer}
    shown = [reference for style in plan.styles for reference in references(style, plan.references, art)]
    with screen.progress("measuring") as move:
        found = compare(base, scorers, looks(), shown, art, move)
    data = {
        "what": What.likeness.value,
        "references": [{"style": r.style.name, "thing": r.thing} for r in shown],
        "ranked_first": found,
    }
    screen.result(data, [table(found, shown)])


if __name__ == "__main__":
    raise SystemExit(console.run(app))
