"""Training a base model from a folder of captioned pictures, one part at a time.

Order: ``tokenizer``, then ``decoder`` (its enlargement), ``text`` (a frozen encoder that knows English, taken from a
package), ``clip`` (which needs only pictures and captions), ``scorer`` (a smaller CLIP that grades), ``base`` and
``superres`` (which need the tokenizer and the text encoder). Without ``text``, the CLIP's own text tower takes its
place. Each part is written into the same model folder. ``drawings`` makes a corpus.
Pocket, the bundled base, is what this makes of the corpus in ``examples/pocket``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from styledrop_cli.corpus.folder import read_corpus
from styledrop_cli.devices import arithmetic_rate, can_compile, is_large
from styledrop_cli.errors import ModelError, StyledropError, UsageError
from styledrop_cli.io.files import remove_parts, writing
from styledrop_cli.io.run_folder import remove_state
from styledrop_cli.io.tensors import read_tensors
from styledrop_cli.training.distributed import (
    LostProcessError,
    broadcast_number,
    is_first,
    refuse_uneven,
    uninterrupted,
    wait_for_everyone,
)
from styledrop_cli.training.loop import Budget, Loop, Progress
from styledrop_cli.training.pretrain.clip import clip_job, scorer_job
from styledrop_cli.training.pretrain.job import Job, Order
from styledrop_cli.training.pretrain.records import (
    WORK,
    Record,
    checkpoints,
    inputs,
    log,
    needed_parts,
    read_record,
    write_record,
)
from styledrop_cli.training.pretrain.text import text_job
from styledrop_cli.training.pretrain.throughput import Call, CallOverError, Meter, flops_a_picture
from styledrop_cli.training.pretrain.tokenizer import decoder_job, tokenizer_job
from styledrop_cli.training.pretrain.transformers import superres_job, transformer_job


class Part(NamedTuple):
    """How a part's training is set up, and pictures a step: as usual, and on a large graphics card.

    What ``make`` returns is None if the part is written and there is nothing to train. The learning rates are those of
    the usual batch. With a card's they grow by the square root of how much larger it is, ``MOST_RATE``-fold at most:
    more was never tried.
    """

    make: Callable[[Order], Job | None]
    batch: int
    card_batch: int


PARTS: dict[str, Part] = {
    "tokenizer": Part(tokenizer_job, 16, 128),
    "decoder": Part(decoder_job, 8, 64),
    "text": Part(text_job, 1, 1),
    "clip": Part(clip_job, 128, 1024),
    "scorer": Part(scorer_job, 128, 1024),
    "base": Part(transformer_job, 64, 1024),
    "superres": Part(superres_job, 32, 256),
}
MOST_RATE = 2.0
SAVE_EVERY = 120.0  # seconds
SHEET_EVERY = 300.0
COMPILED_FROM = 3.0  # minutes of training that have to be left: on a card compiling takes one or two


@dataclass(frozen=True)
class Outcome:
    """The result of one call; not ``finished`` if the call was over before the budget was spent."""

    part: str
    finished: bool
    progress: Progress
    figure: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON says it."""
        about = {"part": self.part, "finished": self.finished, **asdict(self.progress), "figure": self.figure}
        return about | {"loss": self.progress.loss if math.isfinite(self.progress.loss) else None}


def run(
    part: str,
    corpus: Path,
    out: Path,
    *,
    budget: Budget,
    device: torch.device,
    batch_size: int | None = None,
    rate: float = 1.0,
    init_from: Path | None = None,
    keep_codes: bool = False,
    resume: bool = False,
    compiled: bool | None = False,
    seed: int = 0,
    call: Call | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_message: Callable[[str], None] = lambda message: None,
) -> Outcome:
    """Train ``part`` on ``corpus`` and write it into the model folder ``out``.

    The part on disk is renewed every two minutes, so stopping at any time leaves a usable result. ``resume`` goes on
    exactly from the newest checkpoint, or from the one before if that is damaged, with its batch size and rate, which
    is a factor on the part's learning rates. ``init_from`` is a model folder whose part is the starting point;
    ``keep_codes`` then trains the tokenizer's decoding half alone. ``compiled`` compiles the step first: a minute or
    two later, 1.4 times as fast on a CPU; needs a C++ compiler. None does so on a graphics card where it pays. When the
    ``call`` is about to be over, what was done is saved, to go on with. Of several processes
    (``distributed.together``) all call it, and rank 0 alone writes.

    Raises UsageError for an unusable corpus, a missing earlier part, earlier parts that are not those the training
    began with, or a batch that several processes cannot share evenly; LostProcessError if one of them dies;
    StyledropError, having written nothing new, if weights are not finite.
    """
    if part not in PARTS:
        raise UsageError(f"there is no part called '{part}'", f"Choose one of {', '.join(PARTS)}.")
    call = call or Call()
    call.took.clear()  # another part's say nothing of this one's
    records = read_corpus(corpus, captions=part not in ("tokenizer", "decoder"), on_message=on_message)
    on_message(f"{len(records)} pictures, {sum(r.held_out for r in records)} of them held out")
    saved = [path for path in checkpoints(out, part) if path.exists()]
    if saved and not resume:
        raise UsageError(f"{saved[0]} is the checkpoint of an unfinished training", "Add --resume, or delete it.")
    if saved:
        init_from = out  # what it was begun from gave it its sizes and vocabulary: they are in the folder by now
    if is_first():
        remove_parts(out)
    torch.manual_seed(seed)
    record = _new_record(out, part, batch_size, rate, device, resumed=bool(saved))
    refuse_uneven(record.batch, "Say a --batch-size that they divide.")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, where anything is not in bfloat16
    try:
        order = Order(records, out, init_from, record.batch, seed, device, call, corpus, on_message, keep_codes)
        job = PARTS[part].make(order)
    except CallOverError:
        return _not_begun(part, on_message)
    if job is None:
        return _finish(out, Outcome(part, True, Progress(share=1.0)), record, device)
    if device.type == "cuda":
        job.task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for group in (group for optimizer in job.optimizers for group in optimizer.param_groups):
        group["lr"] *= record.rate
    began = time.monotonic()
    with _enough_memory(device, record.batch):
        meter = Meter(flops_a_picture(job.task, job.batches(0), device), arithmetic_rate(device), record.batch)
    call.took["step"] = time.monotonic() - began  # the counted one
    if _over_for_all(call, device):
        return _not_begun(part, on_message)
    loop = Loop(
        job.task,
        job.optimizers,
        job.batches,
        budget=budget,
        device=device,
        weight=job.weight,
        average=0.999,
        compiled=_pays_compiling(budget, call, device) if compiled is None else compiled,
        ahead=device.type == "cuda",
    )
    _go_on(loop, saved, on_message)
    job.progress(budget.progress(loop.progress.step, loop.progress.seconds))
    training = _Training(part, out, device, job, loop, record, call, meter, on_step, on_message, fresh=not saved)
    return training.run()


def _new_record(
    out: Path, part: str, batch_size: int | None, rate: float, device: torch.device, *, resumed: bool
) -> Record:
    """With which batch, learning rate and other parts a part is trained; what is resumed keeps its batch and rate."""
    _, usual, card = PARTS[part]
    batch, made_with = batch_size or usual, inputs(out, part)
    if batch_size is None and is_large(device):
        batch, rate = card, rate * min((card / usual) ** 0.5, MOST_RATE)
    if resumed and (there := read_record(out, part)):
        refuse_other_inputs(out, part, there, made_with)
        batch, rate = batch_size or there.batch, there.rate
    return Record(batch, rate, made_with)


def _pays_compiling(budget: Budget, call: Call, device: torch.device) -> bool:
    pays = (budget.minutes or 0.0) >= COMPILED_FROM and not call.over(spare=60 * COMPILED_FROM)
    if not (pays and can_compile(device)):
        return False
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled goes on as it is
    return True


def _over_for_all(call: Call, device: torch.device) -> bool:
    """Whether, by the clock of rank 0, no time is left for a step."""
    return call.seconds is not None and bool(broadcast_number(float(call.over("step", "saving")), device))


@dataclass
class _Training:
    """A part's training under way. ``fresh`` until something was saved."""

    part: str
    out: Path
    device: torch.device
    job: Job
    loop: Loop
    record: Record
    call: Call
    meter: Meter
    on_step: Callable[[Progress], None]
    on_message: Callable[[str], None]
    fresh: bool
    figure: str = ""

    def run(self) -> Outcome:
        """Train until the budget is spent or the call is over."""
        self.saved_at = self.shown_at = self.loop.progress.seconds  # of training
        self.stepped = time.monotonic()
        whole, over = is_first(), False
        try:
            with _enough_memory(self.device, self.record.batch):
                self.loop.run(self._after_step)
        except CallOverError:
            over = self.loop.progress.share < 1
        except LostProcessError as error:
            whole = False  # it died in the middle of a step
            newest = next((path for path in checkpoints(self.out, self.part) if path.exists()), None)
            if newest is None:
                raise LostProcessError("Nothing was saved yet.") from error
            step = read_tensors(newest)[1]["step"]
            raise LostProcessError(f"The same command with --resume goes on from step {step}.") from error
        finally:
            if self.loop.progress.step and whole:
                self._save()
        if not over and whole and not self.call.over("sheet"):
            self._show()
        outcome = Outcome(self.part, not over, self.loop.progress, self.figure)
        return outcome if over else _finish(self.out, outcome, self.record, self.device)

    def _after_step(self, progress: Progress) -> None:
        self.call.took["step"], self.stepped = time.monotonic() - self.stepped, time.monotonic()
        progress.speed = self.meter.speed(progress)
        self.on_step(progress)
        self.job.progress(progress.share)
        if _over_for_all(self.call, self.device):
            raise CallOverError
        if not is_first():
            return
        if progress.seconds - self.saved_at > SAVE_EVERY:
            self.saved_at = progress.seconds
            self._save()
        if progress.seconds - self.shown_at > SHEET_EVERY and not self.call.over("sheet", "step", "saving"):
            self.shown_at = progress.seconds
            self._show()
        self.stepped = time.monotonic()

    def _save(self) -> None:
        """Write the part and a checkpoint, and measure the held-out figure if there is time."""
        newest, before = checkpoints(self.out, self.part)
        with uninterrupted(), self.call.measured("saving"):  # a launcher sends Ctrl-C twice
            if self.fresh:
                write_record(self.out, self.part, self.record)
            with _averaged(self.loop):
                self.job.export(self.job.task)
            if newest.exists():
                with writing(before):
                    newest.replace(before)
            self.loop.save(newest)
        self.figure = "not measured: the call is over"
        if not self.call.over("measuring"):
            with self.call.measured("measuring"), _averaged(self.loop):
                self.figure = self.job.figure(self.job.task)
        progress = self.loop.progress
        speed = f"; {progress.speed}" if progress.speed else ""
        self.on_message(f"step {progress.step}, {progress.seconds:.0f} s: {self.figure}{speed}")
        about = Outcome(self.part, False, progress, self.figure).plain()
        log(self.out, self.part, about | {"pictures": progress.step * self.record.batch}, fresh=self.fresh)
        self.fresh = False
        self.meter.mark(progress)

    def _show(self) -> None:
        """Write a sheet of pictures."""
        if self.job.sheet is not None:
            with self.call.measured("sheet"), _averaged(self.loop):
                path = self.out / WORK / f"{self.part}-{self.loop.progress.step:06d}.png"
                self.job.sheet(self.job.task, path)


def _not_begun(part: str, on_message: Callable[[str], None]) -> Outcome:
    on_message(f"the call is over before the {part} could take a step; where that happens again, give it more minutes")
    return Outcome(part, False, Progress())


def _finish(out: Path, outcome: Outcome, record: Record, device: torch.device) -> Outcome:
    """Record a part as finished and then remove its checkpoints; all processes wait for that."""
    if is_first():
        about = {"finished": True, "result": outcome.plain()}
        write_record(out, outcome.part, Record(**asdict(record) | about))
        remove_checkpoints(out, outcome.part)
    wait_for_everyone(device)
    return outcome


def remove_checkpoints(folder: Path, part: str) -> None:
    """Remove the states of a training that is finished."""
    for path in reversed(checkpoints(folder, part)):
        path.unlink(missing_ok=True)


def refuse_other_inputs(folder: Path, part: str, there: Record, now: dict[str, str]) -> None:
    """Raise UsageError if a part was made, or begun, with other parts than ``now`` lie beside it.

    What its record lists and it does not need is not compared: older records list a CLIP beside any text encoder.
    """
    needed = needed_parts(folder, part)
    if other := [name for name, digest in there.inputs.items() if name in needed and now.get(name) != digest]:
        raise UsageError(
            f"the {part} of {folder} was trained with another {' and '.join(other)} than is there now",
            f"Put that back, or delete {folder / WORK / f'{part}.json'} and the part's files beside it, to train it "
            "anew.",
        )


def _go_on(loop: Loop, saved: list[Path], on_message: Callable[[str], None]) -> None:
    """Go on from the newest of what was ``saved`` that is whole, if anything was; raises ModelError if nothing is."""
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
def _enough_memory(device: torch.device, batch: int) -> Iterator[None]:
    """What to do where a step needs more memory than there is."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StyledropError(
            f"{device} ran out of memory with {batch} pictures a step",
            "Say a smaller --batch-size; what was trained so far is kept, and --resume goes on with it.",
        ) from error


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
