"""The one training loop. It knows nothing of what it trains: a task's ``forward(batch)`` returns its loss.

Several processes (see ``distributed``) take a step as one would: each computes the loss of its own rows of the batch,
weighted by their share of it, so that the gradients of all add up to that of the batch.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.adapters.file import own_tensors
from styledrop_cli.devices import fast_bfloat16
from styledrop_cli.environment import read_by
from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.io.tensors import (
    MOST_STEPS,
    pack_optimizer,
    read_tensors,
    refuse_other_optimizer,
    save_tensors,
    tensors_hash,
    unpack_optimizer,
)
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.transformer import Condition, TokenTransformer
from styledrop_cli.training.distributed import (
    all_reduce,
    broadcast,
    broadcast_number,
    own_rows,
    rank_and_world_size,
    take_place,
    uninterrupted,
)

# Seconds of a step that count as training time. What is beyond was a pause: a stopped process, a sleeping laptop.
LONGEST_STEP = 30.0
# Once USUAL steps are known, a step also counts as no more than UNUSUAL times their median: it was being compiled.
UNUSUAL, USUAL = 5.0, 8
WARMUP = 0.02  # of the budget
AHEAD = 4  # batches, and threads that make them
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


@dataclass(frozen=True)
class Speed:
    """How fast a training goes: pictures and FLOPs a second, and those as a share of the machine's rate."""

    pictures: float
    flops: float
    share: float

    def __str__(self) -> str:
        size, unit = (1e12, "T") if self.flops >= 1e12 else (1e9, "G")
        rate = f"{self.pictures:,.1f}" if self.pictures < 10 else f"{self.pictures:,.0f}"
        return f"{rate} pictures/s, {self.flops / size:.3g} {unit}FLOP/s, {self.share:.0%} of the machine's"


@dataclass
class Progress:
    """Where a training stands, for the callbacks after every step. ``speed`` is None where nobody measures it."""

    step: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    share: float = 0.0
    speed: Speed | None = None


def decay_to_zero(share: float) -> float:
    """Learning-rate factor at this ``share`` of the budget: a short warm-up, then linearly to 0 (arXiv 2502.15938)."""
    return min(share / WARMUP, 1.0) * (1 - share)


def masked_cross_entropy(
    transformer: TokenTransformer,
    ids: Tensor,
    masked: Tensor,
    condition: Condition,
    adapter: AdapterFn | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean cross-entropy over the ``masked`` (bool) positions of ``ids``, both ``[B,H,W]`` (Muse, 2301.00704, 2.4).

    Logits are computed at the masked positions only.
    """
    hidden = ids.masked_fill(masked, transformer.config.mask_id)
    logits = transformer(hidden, condition, adapter, masked).float()
    return F.cross_entropy(logits, ids[masked], label_smoothing=label_smoothing)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Randomness that depends on the step alone, so that a resumed run draws what the whole one would have."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def rows(batch: Any) -> int:
    """How many rows a batch has: what most losses are a mean over."""
    return len(batch[0] if isinstance(batch, tuple) else batch)


def hidden(batch: tuple[Tensor, ...]) -> int:
    """How many masked positions a batch ``(ids, masked, ...)`` has: what ``masked_cross_entropy`` is a mean over."""
    return int(batch[1].sum())


class Loop:
    """Optimises a task within a budget, with checkpoints from which it goes on exactly.

    ``batches(step)`` depends on nothing but the step, so that a resumed run sees what the whole one would have; it is a
    tensor or a tuple of tensors (or None), a row a picture. ``weight(batch)`` is how many elements its loss is a mean
    over; a loss that is no such mean has to combine the processes' rows itself (``distributed.all_gather``).
    ``average`` is the decay of a moving average of the weights. ``ahead`` makes the next batches in threads, so that a
    graphics card does not wait for them.
    """

    def __init__(
        self,
        task: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        batches: Callable[[int], Any],
        *,
        budget: Budget,
        device: torch.device,
        weight: Callable[[Any], int] = rows,
        schedule: Callable[[float], float] = decay_to_zero,
        average: float | None = None,
        clip_norm: float = 1.0,
        compiled: bool = False,
        ahead: bool = False,
    ) -> None:
        take_place()  # accelerate must not see the other processes: see ``distributed``
        precision = "bf16" if fast_bfloat16(device) else "no"
        with read_by("accelerate", "ACCELERATE_"):
            from accelerate import Accelerator

            self._accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
        self.task = task
        prepared: nn.Module = self._accelerator.prepare_model(task)
        # Only the training step is compiled; measuring calls the plain task.
        self._prepared = torch.compile(prepared) if compiled else prepared
        self._optimizers = optimizers
        self._rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        self._batches, self._weight, self._device = batches, weight, device
        self._makers = ThreadPoolExecutor(AHEAD) if ahead else None
        self._ready: dict[int, Future[Any]] = {}  # by step
        self._lately: deque[float] = deque(maxlen=64)  # seconds that steps took
        self._budget = budget
        self._schedule = schedule
        self._clip_norm = clip_norm
        self._average = average
        self.trained = {n: p for n, p in task.named_parameters() if p.requires_grad}
        self.averaged = {n: p.detach().clone() for n, p in self.trained.items()} if average else {}
        self.progress = Progress()
        self._left_out = 0  # steps in a row
        self._learnt = False  # whether any step was taken

    def run(self, on_step: Callable[[Progress], None]) -> None:
        """Train until the budget is spent. ``on_step`` may save, measure, or raise to stop.

        Of several processes all call it. Raises LostProcessError if one dies, StyledropError if they do not begin at
        the same step or if too many steps in a row have no finite loss.
        """
        progress = self.progress
        if broadcast_number(progress.step, self._device) != progress.step:
            raise StyledropError(
                "the processes of this run do not go on from the same step: they do not see the same folder",
                "Name a folder with -o that all machines share.",
            )
        broadcast(list(self.trained.values()))
        progress.share = self._budget.progress(progress.step, progress.seconds)
        while progress.share < 1:
            with uninterrupted():
                self._step()
            on_step(progress)
        if self._left_out and not self._learnt:
            raise _astray(self._left_out, progress.step)

    def _batch(self) -> Any:
        """The batch of the step that is due."""
        step = self.progress.step
        if self._makers is None:
            return self._batches(step)
        for one in range(step, step + AHEAD):
            if one not in self._ready:
                self._ready[one] = self._makers.submit(self._batches, one)
        return self._ready.pop(step).result()

    def _step(self) -> None:
        progress, started = self.progress, time.monotonic()
        # The middle of the step: at its start a warm-up would be zero, and a single step would learn nothing.
        factor = self._schedule(self._budget.progress(progress.step + 0.5, progress.seconds))
        for optimizer, rates in zip(self._optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        loss = self._loss(self._batch())
        self._accelerator.backward(loss)
        loss = loss.detach()
        all_reduce([loss, *(p.grad for p in self.trained.values() if p.grad is not None)])
        norm = self._accelerator.clip_grad_norm_(list(self.trained.values()), self._clip_norm)
        progress.step += 1
        progress.loss = float(loss)
        # One bad step would spoil every weight, and then every checkpoint: it is left out.
        finite = math.isfinite(progress.loss) and math.isfinite(float(norm or 0.0))
        self._left_out = 0 if finite else self._left_out + 1
        self._learnt |= finite
        if self._left_out >= MOST_LEFT_OUT:
            raise _astray(self._left_out, progress.step)
        for optimizer in self._optimizers:
            if finite:
                optimizer.step()
            optimizer.zero_grad()
        if finite and self._average is not None:
            decay = min(self._average, (1 + progress.step) / (10 + progress.step))
            torch._foreach_lerp_(list(self.averaged.values()), [p.detach() for p in self.trained.values()], 1 - decay)
        progress.seconds += self._charged(time.monotonic() - started)
        progress.seconds = broadcast_number(progress.seconds, self._device)
        progress.share = self._budget.progress(progress.step, progress.seconds)

    def _charged(self, seconds: float) -> float:
        """How many of the ``seconds`` that a step took count as training: pauses do not."""
        known = len(self._lately) >= USUAL
        charged = min(seconds, LONGEST_STEP, UNUSUAL * median(self._lately) if known else LONGEST_STEP)
        self._lately.append(seconds)
        return charged

    def _loss(self, batch: Any) -> Tensor:
        """The loss of a batch or, of several processes, this one's share of it."""
        if rank_and_world_size()[1] < 2:
            loss: Tensor = self._prepared(batch)
            return loss
        own = own_rows(batch)
        share: Tensor = self._prepared(own) * (self._weight(own) / self._weight(batch))
        return share

    def _state(self) -> dict[str, Tensor]:
        """What a checkpoint holds besides the optimizers; some buffers are trained without a gradient."""
        parts: dict[str, Mapping[str, Tensor]]
        parts = {"task": self.trained, "average": self.averaged, "buffer": dict(self.task.named_buffers())}
        return {f"{part}.{name}": tensor for part, held in parts.items() for name, tensor in held.items()}

    def save(self, path: Path) -> None:
        """Write everything that ``resume`` needs, atomically."""
        tensors = self._state()
        for index, optimizer in enumerate(self._optimizers):
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
        own, saved = self._state(), {n: t for n, t in tensors.items() if not n.startswith("optimizer")}
        states = [own_tensors(tensors, f"optimizer{index}.") for index in range(len(self._optimizers))]
        try:
            _refuse_others(own, saved)
            for optimizer, state in zip(self._optimizers, states, strict=True):
                refuse_other_optimizer(optimizer, state)
            progress = Progress(int(metadata["step"]), float(metadata["seconds"]), float(metadata["loss"]))
            if not (0 <= progress.step <= (self._budget.steps or MOST_STEPS) and 0 <= progress.seconds < math.inf):
                raise ValueError(f"step {progress.step}, after {progress.seconds} s")
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"the checkpoint {path} is of another training: {error}", "Start in another folder."
            ) from error
        for name, tensor in saved.items():  # only now that all of it is known to be sound
            own[name].data.copy_(tensor)
        for optimizer, state in zip(self._optimizers, states, strict=True):
            unpack_optimizer(optimizer, state)
        self.progress = progress


def _astray(steps: int, last: int) -> StyledropError:
    return StyledropError(
        f"the training went astray: {steps} steps in a row, up to step {last}, had no finite loss and gradient",
        "Train with a lower learning rate; what was saved before is whole.",
    )


def _refuse_others(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the ``saved`` tensors are finite and have the names and shapes of ``own``."""
    if other := sorted(set(own) ^ set(saved)):
        raise ValueError(", ".join(other[:3]))
    for name, tensor in saved.items():
        if tensor.shape != own[name].shape or not tensor.isfinite().all():
            raise ValueError(f"{name} is {list(tensor.shape)} or not finite")
