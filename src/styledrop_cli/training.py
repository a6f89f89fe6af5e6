"""The one training loop. It knows nothing of what it trains: a task's ``forward(batch)`` returns its loss."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.checkpoints import pack_optimizer, read_tensors, save_tensors, tensors_hash, unpack_optimizer
from styledrop_cli.devices import fast_bfloat16
from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.transformer import Condition, MaskedTransformer

# A step that took longer than this was interrupted (a paused process, a sleeping laptop): time is not charged for it.
LONGEST_STEP = 30.0
WARMUP = 0.02
MOST_LEFT_OUT = 20  # steps in a row


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or minutes of the clock."""

    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: float, seconds: float) -> float:
        """The share that is done, in [0,1]."""
        if self.steps is not None:
            return min(step / self.steps, 1.0)
        assert self.minutes is not None
        return min(seconds / (60 * self.minutes), 1.0)


@dataclass
class Progress:
    """Where a training stands; handed to the callbacks after every step."""

    step: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    share: float = 0.0


def decay_to_zero(share: float) -> float:
    """Learning-rate factor: a short linear warm-up, then straight down to zero (arXiv 2502.15938)."""
    return min(share / WARMUP, 1.0) * (1 - share)


def steady(share: float) -> float:
    """Learning-rate factor: constant."""
    return 1.0


def masked_cross_entropy(
    transformer: MaskedTransformer,
    ids: Tensor,
    masked: Tensor,
    condition: Condition,
    adapter: AdapterFn | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean cross-entropy over the hidden positions of ``ids`` ``[B,H,W]``; ``masked`` is boolean, the same shape.

    Muse (arXiv 2301.00704, 2.4); logits are computed at the hidden positions only.
    """
    hidden = ids.masked_fill(masked, transformer.config.mask_id)
    logits = transformer(hidden, condition, adapter, masked).float()
    return F.cross_entropy(logits, ids[masked], label_smoothing=label_smoothing)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Randomness that depends on the step alone, so that a resumed run repeats nothing and skips nothing."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C until the block is done, so that no step is left half taken."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is not signal.default_int_handler:
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


class Loop:
    """Optimises a task within a budget, with checkpoints from which it goes on exactly.

    ``batches(step)`` must depend on nothing but the step, so that a resumed run sees what the whole one would have.
    """

    def __init__(
        self,
        task: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        batches: Callable[[int], Any],
        *,
        budget: Budget,
        device: torch.device,
        schedule: Callable[[float], float] = decay_to_zero,
        average: float | None = None,
        clip_norm: float = 1.0,
        compiled: bool = False,
    ) -> None:
        from accelerate import Accelerator

        precision = "bf16" if fast_bfloat16(device) else "no"
        self._accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
        self.task = task
        prepared: nn.Module = self._accelerator.prepare_model(task)
        # Only the training step is compiled; measuring calls the plain task.
        self._prepared = torch.compile(prepared) if compiled else prepared
        self._optimizers = [self._accelerator.prepare_optimizer(o) for o in optimizers]
        self._plain_optimizers = optimizers
        self._rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        self._batches = batches
        self._budget = budget
        self._schedule = schedule
        self._clip_norm = clip_norm
        self._average = average
        self.trained = {n: p for n, p in task.named_parameters() if p.requires_grad}
        self.averaged = {n: p.detach().clone() for n, p in self.trained.items()} if average else {}
        self.progress = Progress()
        self._left_out = 0  # steps in a row

    def run(self, on_step: Callable[[Progress], None]) -> None:
        """Train until the budget is spent. ``on_step`` may save, measure, or raise to stop."""
        progress = self.progress
        progress.share = self._budget.progress(progress.step, progress.seconds)
        while progress.share < 1:
            with uninterrupted():
                self._step()
            on_step(progress)

    def _step(self) -> None:
        progress, started = self.progress, time.monotonic()
        # The middle of the step: at its start a warm-up would be zero, and a single step would learn nothing.
        factor = self._schedule(self._budget.progress(progress.step + 0.5, progress.seconds))
        for optimizer, rates in zip(self._plain_optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        loss = self._prepared(self._batches(progress.step))
        self._accelerator.backward(loss)
        norm = self._accelerator.clip_grad_norm_(list(self.trained.values()), self._clip_norm)
        progress.step += 1
        progress.loss = float(loss.detach())
        # One bad step would spoil every weight for good, and then every checkpoint: it is left out.
        finite = math.isfinite(progress.loss) and math.isfinite(float(norm or 0.0))
        self._left_out = 0 if finite else self._left_out + 1
        if self._left_out >= MOST_LEFT_OUT:
            raise StyledropError(
                f"the training went astray: {MOST_LEFT_OUT} steps in a row, up to step {progress.step}, had no finite "
                "loss and gradient",
                "Train with a lower learning rate; what was saved before is whole.",
            )
        for optimizer in self._optimizers:
            if finite:
                optimizer.step()
            optimizer.zero_grad()
        if finite:
            self._update_average()
        progress.seconds += min(time.monotonic() - started, LONGEST_STEP)
        progress.share = self._budget.progress(progress.step, progress.seconds)

    def _update_average(self) -> None:
        if self._average is None:
            return
        step = self.progress.step
        decay = min(self._average, (1 + step) / (10 + step))
        old, new = list(self.averaged.values()), [p.detach() for p in self.trained.values()]
        torch._foreach_lerp_(old, new, 1 - decay)

    def save(self, path: Path) -> None:
        """Write everything that going on needs, atomically."""
        tensors: dict[str, Tensor] = {f"task.{n}": p for n, p in self.trained.items()}
        tensors |= {f"average.{n}": p for n, p in self.averaged.items()}
        tensors |= {f"buffer.{n}": b for n, b in self.task.named_buffers()}
        for index, optimizer in enumerate(self._plain_optimizers):
            tensors |= {f"optimizer{index}.{n}": t for n, t in pack_optimizer(optimizer).items()}
        p = self.progress
        about = {"step": str(p.step), "seconds": str(p.seconds), "loss": str(p.loss)}
        save_tensors(path, tensors, about | {"sha256": tensors_hash(tensors)})

    def resume(self, path: Path) -> None:
        """Go on from what ``save`` wrote; raises ModelError if it is damaged or of another task."""
        tensors, metadata = read_tensors(path)
        checksum = tensors_hash(tensors)
        if metadata.get("sha256", checksum) != checksum:
            raise ModelError(f"the checkpoint {path} is damaged: its checksum does not match", "Delete it.")
        parts = _by_prefix(tensors)
        try:
            for own, saved in ((self.trained, parts.get("task", {})), (self.averaged, parts.get("average", {}))):
                if set(own) != set(saved):
                    raise KeyError(", ".join(sorted(set(own) ^ set(saved))[:3]))
                for name, parameter in own.items():
                    parameter.data.copy_(saved[name])
            buffers = dict(self.task.named_buffers())  # some learn without a gradient (spectral norm)
            for name, saved_buffer in parts.get("buffer", {}).items():
                buffers[name].copy_(saved_buffer)
            for index, optimizer in enumerate(self._plain_optimizers):
                unpack_optimizer(optimizer, parts.get(f"optimizer{index}", {}))
            self.progress = Progress(int(metadata["step"]), float(metadata["seconds"]), float(metadata["loss"]))
        except (KeyError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"the checkpoint {path} is of another training: {error}", "Start in another folder."
            ) from error


def _by_prefix(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        parts.setdefault(prefix, {})[rest] = tensor
    return parts
