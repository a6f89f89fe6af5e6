"""Training a base model from a folder of captioned pictures, one part at a time.

Order: ``tokenizer``, then ``decoder`` (its enlargement), ``text`` (a frozen encoder that knows English, taken from a
package), ``clip`` (which needs only pictures and captions), ``scorer`` (a smaller CLIP that grades), ``base`` and
``superres`` (which need the tokenizer and the text encoder). Without ``text``, the CLIP's own text tower takes its
place. Each part is written into the same model folder. ``drawings`` makes a corpus.
Pocket, the bundled base, is what this makes of the corpus in ``examples/pocket``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from styledrop_cli.checkpoints import read_tensors
from styledrop_cli.corpus import read_corpus
from styledrop_cli.errors import ModelError, StyledropError, UsageError
from styledrop_cli.files import remove_parts, writing
from styledrop_cli.pretraining.captions import clip_job, scorer_job
from styledrop_cli.pretraining.ids import superres_job, transformer_job
from styledrop_cli.pretraining.job import Job, Order
from styledrop_cli.pretraining.pictures import decoder_job, tokenizer_job
from styledrop_cli.pretraining.words import write_text
from styledrop_cli.processes import LostProcessError, is_first, refuse_uneven, told_by_first, uninterrupted
from styledrop_cli.runs import remove_state
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
WORK = ".training"  # the folder for work in progress
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
    goes on exactly from the newest checkpoint, or from the one before if that is damaged. ``init_from`` is a model
    folder whose part is the starting point. ``compiled`` compiles the step first: a minute or two later, 1.4 times as
    fast on a CPU; needs a C++ compiler.
    Of several processes (``processes.together``) all call it, and the first alone writes. Raises UsageError for an
    unusable corpus, a missing earlier part or a batch that several processes cannot share evenly; LostProcessError if
    one of them dies.
    """
    if part not in (*PARTS, "text"):
        raise UsageError(f"there is no part called '{part}'", f"Choose one of text, {', '.join(PARTS)}.")
    records = read_corpus(corpus, captions=part not in ("tokenizer", "decoder"))
    on_message(f"{len(records)} pictures, {sum(r.held_out for r in records)} of them held out")
    if part == "text":  # nothing to train
        if is_first():
            on_message(write_text(corpus, records, out))
        told_by_first(0, device)  # who returns finds it written
        return
    state, before = (out / WORK / f"{part}{one}.safetensors" for one in ("", "-before"))
    saved = [path for path in (state, before) if path.exists()]
    if saved and not resume:
        raise UsageError(f"{saved[0]} is the checkpoint of an unfinished training", "Add --resume, or delete it.")
    if is_first():
        remove_parts(out)
    torch.manual_seed(seed)
    make, usual = PARTS[part]
    refuse_uneven(batch_size or usual, "Say a --batch-size that they divide.")
    if saved:
        # What was begun from another model has that one's sizes and vocabulary: they are in the folder by now.
        init_from = out
    job = make(Order(records, out, init_from, batch_size or usual, seed, device))
    loop = Loop(
        job.task,
        job.optimizers,
        job.batches,
        budget=budget,
        device=device,
        weight=job.weight,
        average=0.999,
        compiled=compiled,
    )
    _go_on(loop, saved, on_message)
    job.progress(budget.progress(loop.progress.step, loop.progress.seconds))
    marks = {"save": loop.progress.seconds, "sheet": loop.progress.seconds}

    def save() -> None:
        with uninterrupted():  # a launcher says it twice
            with _averaged(loop):
                job.export(job.task)
            if state.exists():
                with writing(before):
                    state.replace(before)
            loop.save(state)
        with _averaged(loop):
            on_message(f"step {loop.progress.step}, {loop.progress.seconds:.0f} s: {job.figure(job.task)}")

    def after_step(progress: Progress) -> None:
        on_step(progress)
        job.progress(progress.share)
        if not is_first():
            return
        if progress.seconds - marks["save"] > SAVE_EVERY:
            marks["save"] = progress.seconds
            save()
        if job.sheet is not None and progress.seconds - marks["sheet"] > SHEET_EVERY:
            marks["sheet"] = progress.seconds
            with _averaged(loop):
                job.sheet(job.task, out / WORK / f"{part}-{progress.step:06d}.png")

    whole = is_first()
    try:
        loop.run(after_step)
    except LostProcessError as error:
        whole = False  # it died in the middle of a step
        newest = next((path for path in (state, before) if path.exists()), None)
        if newest is None:
            raise LostProcessError("Nothing was saved yet.") from error
        step = read_tensors(newest)[1]["step"]
        raise LostProcessError(f"The same command with --resume goes on from step {step}.") from error
    except torch.OutOfMemoryError as error:
        raise StyledropError(
            f"{device} ran out of memory with {batch_size or usual} pictures a step",
            "Say a smaller --batch-size; what was trained so far is kept, and --resume goes on with it.",
        ) from error
    finally:
        if loop.progress.step and whole:
            save()
    if is_first():
        before.unlink(missing_ok=True)
        state.unlink()
    told_by_first(0, device)  # who returns finds it written


def _go_on(loop: Loop, saved: list[Path], on_message: Callable[[str], None]) -> None:
    """Take up the newest of what was ``saved`` that is whole, if anything was; raises ModelError if none of it is."""
    for path in saved:
        try:
            loop.resume(path)
        except ModelError as error:
            if path == saved[-1]:
                raise
            on_message(f"Warning: {error}; going on from the one before")
            if is_first():
                remove_state(path)  # or it would take the place of the one before
            continue
        on_message(f"going on from step {loop.progress.step}")
        return


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
