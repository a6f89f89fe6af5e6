"""Training a base model from a folder of captioned pictures, one part at a time.

Order: ``tokenizer``, then ``decoder`` (its enlargement), ``clip`` (which needs only pictures and captions),
``scorer`` (a smaller CLIP that grades: it needs the first one's vocabulary), ``base`` and ``superres`` (which need the
tokenizer and the CLIP's text tower). Each part is written into the same model folder. ``drawings`` makes a corpus.
Pocket, the bundled base, is what this makes of the corpus in ``examples/pocket``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from styledrop_cli.corpus import read_corpus
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.pretraining.captions import clip_job, scorer_job
from styledrop_cli.pretraining.ids import superres_job, transformer_job
from styledrop_cli.pretraining.job import Job, Order
from styledrop_cli.pretraining.pictures import decoder_job, tokenizer_job
from styledrop_cli.training import Budget, Loop, Progress

# Part -> how its training is set up, and pictures a step.
PARTS: dict[str, tuple[Callable[[Order], Job], int]] = {
    "tokenizer": (tokenizer_job, 16),
    "decoder": (decoder_job, 8),
    "clip": (clip_job, 128),
    "scorer": (scorer_job, 128),
    "base": (transformer_job, 64),
    "superres": (superres_job, 32),
}
SAVE_EVERY = 120.0  # seconds
SHEET_EVERY = 300.0


def run(
    part: str,
    corpus: Path,
    out: Path,
    *,
    budget: Budget,
    device: torch.device,
    batch_size: int | None = None,
    init_from: Path | None = None,
    resume: bool = False,
    compiled: bool = False,
    seed: int = 0,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_message: Callable[[str], None] = lambda message: None,
) -> None:
    """Train ``part`` on ``corpus`` and write it into the model folder ``out``.

    The part on disk is renewed every two minutes, so stopping at any time leaves a usable result, and ``resume``
    goes on exactly from the newest checkpoint. ``init_from`` is a model folder whose part is the starting point.
    ``compiled`` compiles the step first: a minute or two later, 1.4 times as fast on a CPU; needs a C++ compiler.
    Raises UsageError for an unusable corpus or a missing earlier part.
    """
    if part not in PARTS:
        raise UsageError(f"there is no part called '{part}'", f"Choose one of {', '.join(PARTS)}.")
    records = read_corpus(corpus, captions=part not in ("tokenizer", "decoder"))
    on_message(f"{len(records)} pictures, {sum(r.held_out for r in records)} of them held out")
    state = out / ".training" / f"{part}.safetensors"
    if state.exists() and not resume:
        raise UsageError(f"{state} is the checkpoint of an unfinished training", "Add --resume, or delete it.")
    torch.manual_seed(seed)
    make, usual = PARTS[part]
    if resume and state.exists():
        # What was begun from another model has that one's sizes and vocabulary: they are in the folder by now.
        init_from = out
    job = make(Order(records, out, init_from, batch_size or usual, seed, device))
    loop = Loop(job.task, job.optimizers, job.batches, budget=budget, device=device, average=0.999, compiled=compiled)
    if resume and state.exists():
        loop.resume(state)
        on_message(f"going on from step {loop.progress.step}")
    marks = {"save": loop.progress.seconds, "sheet": loop.progress.seconds}

    def save() -> None:
        with _averaged(loop):
            job.export(job.task)
            on_message(f"step {loop.progress.step}, {loop.progress.seconds:.0f} s: {job.figure(job.task)}")
        loop.save(state)

    def after_step(progress: Progress) -> None:
        on_step(progress)
        if progress.seconds - marks["save"] > SAVE_EVERY:
            marks["save"] = progress.seconds
            save()
        if job.sheet is not None and progress.seconds - marks["sheet"] > SHEET_EVERY:
            marks["sheet"] = progress.seconds
            with _averaged(loop):
                job.sheet(job.task, out / ".training" / f"{part}-{progress.step:06d}.png")

    try:
        loop.run(after_step)
    except torch.OutOfMemoryError as error:
        raise StyledropError(
            f"{device} ran out of memory with {batch_size or usual} pictures a step",
            "Say a smaller --batch-size; what was trained so far is kept, and --resume goes on with it.",
        ) from error
    finally:
        if loop.progress.step:
            save()
    state.unlink()


@contextmanager
def _averaged(loop: Loop) -> Iterator[None]:
    """The task with its averaged weights, for measuring and writing."""
    trained = {n: p.detach().clone() for n, p in loop.trained.items()}
    for name, parameter in loop.trained.items():
        parameter.data.copy_(loop.averaged[name])
    try:
        with torch.no_grad():
            loop.task.eval()
            yield
    finally:
        loop.task.train()
        for name, parameter in loop.trained.items():
            parameter.data.copy_(trained[name])
