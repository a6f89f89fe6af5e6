"""The one training loop: it goes on exactly where it stopped, whatever it trains."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from styledrop_cli import devices
from styledrop_cli.devices import autocast, cast_once
from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.io.tensors import read_tensors, save_tensors
from styledrop_cli.training import loop as training_loop
from styledrop_cli.training.loop import Budget, Loop, Progress, decay_to_zero, step_generator

CHECKPOINT = Path("state.safetensors")


class Task(nn.Module):
    """A frozen layer, then one to train; the loss depends on the batch."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 4)
        self.hidden = nn.Linear(4, width)
        self.out = nn.Linear(width, 1)
        tiny.randomise(self, 2)
        self.frozen.requires_grad_(False)

    def forward(self, batch: Tensor) -> Tensor:
        out: Tensor = self.out(torch.tanh(self.hidden(self.frozen(batch))))
        return (out[:, 0] - torch.tanh(batch.sum(1))).pow(2).mean()


def batches(step: int) -> Tensor:
    return torch.randn(16, 4, generator=step_generator(7, step))


def loop(task: nn.Module, steps: int = 8, **options: Any) -> Loop:
    matrices = [p for p in task.parameters() if p.requires_grad and p.ndim == 2]
    others = [p for p in task.parameters() if p.requires_grad and p.ndim < 2]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.05)]
    return Loop(task, optimizers, batches, budget=Budget(steps=steps), device=tiny.CPU, **options)


def ignore(progress: Progress) -> None:
    pass


def stop_after(steps: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.step == steps:
            raise KeyboardInterrupt

    return stop


def test_it_learns_and_leaves_frozen_weights_alone() -> None:
    task = Task()
    before, first = task.frozen.weight.clone(), float(task(batches(-1)).detach())
    losses: list[float] = []
    made = loop(task, 100, schedule=lambda share: 1.0)
    made.run(lambda progress: losses.append(progress.loss))
    assert len(losses) == made.progress.step == 100
    assert float(task(batches(-1)).detach()) < 0.7 * first
    assert torch.equal(task.frozen.weight, before)
    assert task.frozen.weight.grad is None
    assert set(made.trained) == {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("stop", [1, 5])
def test_a_resumed_run_is_bit_identical(average: float | None, stop: int) -> None:
    whole = loop(Task(), average=average)
    losses: dict[int, float] = {}
    whole.run(lambda progress: losses.update({progress.step: progress.loss}))

    first = loop(Task(), average=average)
    with pytest.raises(KeyboardInterrupt):
        first.run(stop_after(stop))
    first.save(CHECKPOINT)
    del first

    second = loop(Task(), average=average)
    second.resume(CHECKPOINT)
    assert (second.progress.step, second.progress.loss) == (stop, losses[stop])
    again: dict[int, float] = {}
    second.run(lambda progress: again.update({progress.step: progress.loss}))
    assert again == {step: loss for step, loss in losses.items() if step > stop}
    for name, parameter in whole.trained.items():
        assert torch.equal(second.trained[name], parameter)
    assert set(second.averaged) == (set(whole.trained) if average else set())
    for name, mean in whole.averaged.items():
        assert torch.equal(second.averaged[name], mean)
        assert not torch.equal(mean, whole.trained[name])
    whole.save(Path("whole.safetensors"))
    second.save(Path("second.safetensors"))
    one, two = (read_tensors(Path(f"{name}.safetensors"))[0] for name in ("whole", "second"))
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)  # the optimizers' memory too


class Running(Task):
    """Keeps a sum that no gradient makes, and lets it into the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch: Tensor) -> Tensor:
        self.seen += batch.sum()
        return super().forward(batch) * (1 + self.seen**2)


def test_what_is_learnt_without_a_gradient_is_resumed_too() -> None:
    whole = Running()
    loop(whole).run(ignore)
    first = loop(Running())
    with pytest.raises(KeyboardInterrupt):
        first.run(stop_after(3))
    first.save(CHECKPOINT)
    task = Running()
    second = loop(task)
    second.resume(CHECKPOINT)
    second.run(ignore)
    assert all(torch.equal(t, task.state_dict()[name]) for name, t in whole.state_dict().items())


def test_the_average_follows_the_weights() -> None:
    task = Task()
    made = loop(task, 20, average=0.9)
    wanted = made.trained["out.weight"].detach().clone()

    def follow(progress: Progress) -> None:
        decay = min(0.9, (1 + progress.step) / (10 + progress.step))
        wanted.mul_(decay).add_(made.trained["out.weight"].detach(), alpha=1 - decay)

    made.run(follow)
    torch.testing.assert_close(made.averaged["out.weight"], wanted)


def other_names() -> Loop:
    class Other(Task):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Linear(1, 1)

    return loop(Other())


@pytest.mark.parametrize(
    "other",
    [other_names, lambda: loop(Task(width=5)), lambda: loop(Task(), average=0.9)],
    ids=["names", "sizes", "average"],
)
def test_a_checkpoint_of_another_training_is_refused(other: Callable[[], Loop]) -> None:
    other().save(CHECKPOINT)
    with pytest.raises(ModelError, match=r"state\.safetensors is of another training") as error:
        loop(Task()).resume(CHECKPOINT)
    assert error.value.hint


def test_other_files_are_no_checkpoints() -> None:
    save_tensors(CHECKPOINT, {"weight": torch.ones(2)})
    with pytest.raises(ModelError, match="another training"):
        loop(Task()).resume(CHECKPOINT)
    CHECKPOINT.write_text("no weights at all", encoding="utf-8")
    with pytest.raises(ModelError, match="is not a safetensors file: it is text that begins 'no weights at all'"):
        loop(Task()).resume(CHECKPOINT)
    with pytest.raises(ModelError, match="there is no file"):
        loop(Task()).resume(Path("nowhere"))


def test_gradients_are_clipped() -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, batch: Tensor) -> Tensor:
            return 1e6 * self.weight.sum()

    task = Steep()
    descent = torch.optim.SGD(task.parameters(), lr=1.0)
    Loop(
        task, [descent], batches, budget=Budget(steps=1), device=tiny.CPU, schedule=lambda share: 1.0, clip_norm=0.5
    ).run(ignore)
    assert float(task.weight.detach().norm()) == pytest.approx(0.5, rel=1e-4)


class Cliff(Task):
    """No finite loss, or no finite gradient, at the steps told."""

    def __init__(self, loss: tuple[int, ...] = (), gradient: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.calls, self.bad_loss, self.bad_gradient = 0, loss, gradient

    def forward(self, batch: Tensor) -> Tensor:
        self.calls += 1
        loss = super().forward(batch)
        if self.calls in self.bad_loss:
            return loss * float("nan")
        if self.calls in self.bad_gradient:
            return loss + (self.out.weight * 0).sum().sqrt()  # a root's slope at nothing
        return loss


@pytest.mark.parametrize("bad", [{"loss": (3,)}, {"gradient": (3, 4)}])
def test_a_step_that_is_not_finite_is_left_out(bad: dict[str, tuple[int, ...]]) -> None:
    """A weight that is no number stays none, and every checkpoint after it."""
    task = Cliff(**bad)
    made = loop(task, average=0.9)
    seen: dict[int, Tensor] = {}
    made.run(lambda progress: seen.update({progress.step: task.out.weight.detach().clone()}))
    assert made.progress.step == 8
    assert torch.equal(seen[3], seen[2])
    assert not torch.equal(seen[5], seen[4])
    assert all(t.isfinite().all() for t in [*made.trained.values(), *made.averaged.values()])


def test_too_many_of_them_end_the_training() -> None:
    task = Cliff(loss=tuple(range(5, 99)))
    made = loop(task, 99)
    with pytest.raises(StyledropError, match="20 steps in a row, up to step 24") as error:
        made.run(ignore)
    assert "learning rate" in str(error.value.hint)
    assert all(p.isfinite().all() for p in task.parameters())


def test_weights_that_one_step_made_infinite_are_not_saved() -> None:
    """Its loss and its gradient were finite, and what it made of the weights is not."""
    task = Task()
    made = loop(task, 1)
    made.run(ignore)
    made.save(CHECKPOINT)
    before = CHECKPOINT.read_bytes()
    with torch.no_grad():
        task.out.weight[0, 0] = torch.inf
    with pytest.raises(StyledropError, match=r"is not written: 1 of its \d+ tensors .* first is task\.out\.weight"):
        made.save(CHECKPOINT)
    assert CHECKPOINT.read_bytes() == before


def test_learning_rates() -> None:
    shares = [i / 1000 for i in range(1001)]
    rates = [decay_to_zero(share) for share in shares]
    assert max(rates) <= 1
    assert rates[-1] == 0
    assert shares[rates.index(max(rates))] == 0.02
    assert decay_to_zero(0.5) == 0.5


def test_budgets() -> None:
    assert Budget(steps=8).progress(2, 1e9) == 0.25
    assert Budget(minutes=2).progress(10**9, 30.0) == 0.25
    assert Budget(steps=8).progress(9, 0) == Budget(minutes=1).progress(0, 61) == 1


def test_a_paused_process_is_charged_one_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            cls.now += 7200.0
            return cls.now

    monkeypatch.setattr(training_loop, "time", Clock)
    made = loop(Task(), 3)
    made.run(ignore)
    assert made.progress.seconds == 3 * training_loop.LONGEST_STEP


def test_ctrl_c_waits_for_the_step() -> None:
    """A step is taken whole or not at all, and the signal is not lost."""

    class Interrupted(Task):
        def forward(self, batch: Tensor) -> Tensor:
            if len(losses) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return super().forward(batch)

    losses: list[float] = []
    whole, made = loop(Task()), loop(Interrupted())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            made.run(lambda progress: losses.append(progress.loss))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert made.progress.step == 4
    assert len(losses) == 3  # what comes after a step is not waited for
    with pytest.raises(KeyboardInterrupt):
        whole.run(stop_after(4))
    for name, parameter in whole.trained.items():
        assert torch.equal(made.trained[name], parameter)


def test_ctrl_c_is_left_to_who_handles_it() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with training_loop.uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_copy_for_training_has_its_matrices_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.transformer()
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: False)
    assert cast_once(network, tiny.CPU) is network
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: True)
    copied = cast_once(network, tiny.CPU)
    assert copied.transformer_layers[0].attn1.to_q.weight.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert copied.embed.embeddings.weight.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in network.parameters())
    ids, condition = tiny.ids(tiny.TRANSFORMER, 2), tiny.condition(network, 2)
    with autocast(tiny.CPU):
        torch.testing.assert_close(copied(ids, condition), network(ids, condition))


def test_each_step_draws_its_own_numbers() -> None:
    def drawn(seed: int, step: int) -> list[float]:
        return torch.rand(4, generator=step_generator(seed, step)).tolist()

    assert drawn(1, 5) == drawn(1, 5)
    assert len({tuple(drawn(seed, step)) for seed in (0, 1, 2**63 - 1) for step in range(20)}) == 60
