"""`styledrop report`: one page that shows what was learnt, how good it is, and how it came about."""

from __future__ import annotations

import shlex
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal as file_size

from styledrop_cli.cli import checks, console, load, options
from styledrop_cli.errors import UsageError
from styledrop_cli.io.run_names import run_of
from styledrop_cli.settings import LARGEST_SEED, seeds_from

OUTPUT = Path("report.html")
NUMBER, MOST = 4, 64  # pictures of each prompt
PICTURES = 20_000  # at most, of all rows
FIRST = 500_000  # the seed: no pool's, test picture's or round's


def report(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER|FOLDER",
            help="An adapter file, a saved style, or the folder of iterate's rounds.",
            **options.of_any_file,
        ),
    ],
    *,
    output: Annotated[Path, options.output("FILE", "The HTML file to write.")] = OUTPUT,
    overwrite: options.Overwrite = False,
    number: Annotated[int, options.number("How many pictures of each prompt to draw in each row.")] = NUMBER,
    prompts: Annotated[
        Path | None, options.option(options.PROMPTS, metavar="FILE", shown="12 prompts that nothing was chosen by")
    ] = None,
    scorer: options.SecondScorer = None,
    model: options.Model = "pocket",
    seed: options.FirstSeed = FIRST,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """See what was learnt: one page with pictures, scores and history.

    Draws the same prompts and seeds with the base model, with the base model
    when the prompt names the style, and with the adapter, or the adapter of
    each round. A second CLIP scores them, on prompts that no checkpoint, round
    or picture was chosen by. The page needs no other file and no network.

      styledrop report adapter.safetensors
      styledrop report adapter.rounds -o rounds.html -n 8
    """
    checks.refuse_outside(number=(number, 1, MOST), seed=(seed, 0, LARGEST_SEED))
    seeds_from(seed, number)
    checks.refuse_output(output, overwrite, run=True)
    asked = checks.prompts_in(prompts) if prompts else None
    started = time.monotonic()
    with load.loading(screen, model, device) as load_base:
        from styledrop_cli.io.files import atomic_write, to_text
        from styledrop_cli.judging.clip_scorer import open_second_scorer
        from styledrop_cli.judging.csls import Calibration
        from styledrop_cli.judging.prompts import pool_prompts
        from styledrop_cli.report.commands import commands
        from styledrop_cli.report.grade import free_prompts, grade
        from styledrop_cli.report.history import check_one_base, read_story
        from styledrop_cli.report.page import Grader, write_page
        from styledrop_cli.report.references import brought

        story = read_story(place)
        check_one_base(story)
        base = load_base()
        name, clip_scorer = open_second_scorer(base, scorer)
    wanted = asked or free_prompts(base, story)
    rows = 2 + len(story.stages)
    if (count := rows * len(wanted) * number) > PICTURES:
        raise UsageError(
            f"{rows} rows of {len(wanted):,} prompts and {number} seeds are {count:,} pictures: a report holds at most "
            f"{PICTURES:,}",
            "give fewer prompts, or a smaller -n",
        )
    screen.warn_of_lines(base, {f"'{prompt}'": [prompt] for prompt in wanted})
    for error in story.unreadable:
        screen.warn(f"left out: {error.message}")
    work = run_of(output)
    with screen.progress("looking at other styles") as move:
        calibration = Calibration(clip_scorer, move)
    with screen.progress("drawing") as move:
        graded = grade(
            base,
            story,
            clip_scorer,
            calibration,
            prompts=wanted,
            number=number,
            seed=seed,
            folder=work,
            on_progress=move,
        )
    said = [f"-o {shlex.quote(output.name)}"]
    said += [f"-n {number}"] if number != NUMBER else []
    said += [f"--scorer {shlex.quote(scorer)}"] if scorer else []
    said += [f"--seed {seed}"] if seed != FIRST else []
    given = [str(content) for content in story.stages[0].header.contents]
    again = commands(story, asked or [], pool_prompts(base, given), model, " ".join(said))
    with screen.working("looking at each reference"):
        parts = brought(base, story, graded)
    page = write_page(base, story, graded, Grader(name, name == "clip"), again, parts)
    atomic_write(output, to_text(page).encode())
    shutil.rmtree(work, ignore_errors=True)
    found = {
        row: {measure: vars(estimate) for measure, estimate in of.items()} for row, of in graded.estimates().items()
    }
    seconds = time.monotonic() - started
    screen.say(f"{count:,} pictures, {file_size(len(page))}, in {console.duration(seconds)}:")
    result = {"report": output, "scorer": name, "prompts": graded.prompts, "seeds": graded.seeds, "rows": found}
    if parts:
        result["references"] = {stage: [asdict(one) for one in some] for stage, some in parts.items()}
    screen.result(result, [output])
    if story.unreadable:
        raise typer.Exit(1)
