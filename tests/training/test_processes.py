"""Several real processes at one work, as ``accelerate launch`` starts them: training, drawing, rounds of feedback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from test_interrupted import little_adapter, whole

import tiny
import together
from conftest import SEARCH, Outcome, Run, draw
from styledrop_cli.adapters.examples import TrainingViews, tokenize_views
from styledrop_cli.base.base import load_base
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.feedback import pool as pool_module
from styledrop_cli.feedback.pool import Plan, Pool
from styledrop_cli.feedback.rounds import assist
from styledrop_cli.io.files import write_json
from styledrop_cli.io.tensors import read_tensors, save_part, tensors_hash
from styledrop_cli.judging import evaluate as evaluate_module
from styledrop_cli.judging.evaluate import References, judge_of
from styledrop_cli.judging.prompts import GRADED
from styledrop_cli.settings import SampleSettings
from styledrop_cli.training import distributed
from styledrop_cli.training.loop import Budget, Loop

# Without a card --cpu would start one process; --multi_gpu starts two, cards or not.
LAUNCH = (
    "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 "
    "--mixed_precision no --dynamo_backend no"
).split()
PROGRAM = ["-m", "styledrop_cli"]
TOGETHER = [together.__file__]
POOL = Path("round-2/pool")


def start(
    command: list[str], output: Path, launch: list[str], program: list[str] = PROGRAM, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *launch, *program, *command, "-o", str(output)],
        env=os.environ | {"PYTHONPATH": SEARCH, "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def pair(command: list[str], output: Path) -> list[subprocess.Popen[str]]:
    """Two processes as a launcher would start them, but that nobody ends one when the other dies."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    return [start(command, output, [], TOGETHER, RANK=str(number), **meet) for number in range(2)]


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code and what was said. Whatever a process started holds its pipes: none of that is left either."""
    out, said = process.communicate(timeout=120)
    return process.returncode, out, said


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def second_of(launcher: subprocess.Popen[str]) -> int:
    """The second process that it started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    if not children.exists():
        launcher.kill()
        pytest.skip("only Linux tells which processes the launcher started")
    places = {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in children.read_text().split()}
    return next(int(pid) for pid, place in places.items() if b"\0RANK=1\0" in place)


def drawn_by(folder: Path) -> set[str]:
    return {read_tensors(path)[1]["process"] for path in folder.glob("ids-*.safetensors")}


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process all is as ``together`` has it in others."""
    AcceleratorState._reset_state()  # one precision a process
    together.prepare(monkeypatch)
    yield
    AcceleratorState._reset_state()


# ---- training ----


@pytest.mark.usefixtures("exact")
def test_each_part_of_a_base_is_trained_by_two_as_by_one(tmp_path: Path) -> None:
    corpus, one, two = tiny.write_corpus(tmp_path / "corpus", 24, 6), tmp_path / "one", tmp_path / "two"
    both = pair(["parts", str(corpus)], two)
    wanted = together.train_parts(corpus, one)
    for process in both:
        code, _, said = finish(process)
        assert code == 0, said
    losses = json.loads((two / "losses.json").read_text())
    for part, curve in wanted.items():
        assert losses[part][:1] == pytest.approx(curve[:1], rel=1e-6), part  # none of what is only written
        assert losses[part] == pytest.approx(curve, rel=1e-3), part  # Adam makes much of where it has seen little
    made = {path.relative_to(two) for path in two.rglob("*.*")}
    assert made == {path.relative_to(one) for path in one.rglob("*.*")} | {Path("losses.json")}


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With super-resolution, which gets an adapter of its own."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("whole") / "tiny"))
    save_part(folder, "superres", tiny.superres_network(), tiny.SUPERRES)
    draw().save(folder / "ref.png")
    return folder


@pytest.fixture
def learn(model: Path) -> list[str]:
    learn = ["train", str(model / "ref.png"), "--style", "ink", "--content", "a cat", "--model", str(model)]
    return [*learn, "--device", "cpu", "--steps", "60", "--checkpoints", "2"]


def by_one(command: list[str], output: Path, styledrop: Run) -> Outcome:
    done = styledrop(*command, "-o", output)
    assert done.code == 0, done.err
    return done


def same_learning(one: Path, two: Path) -> None:
    curves = [json.loads(Path(f"{path}.run/curve.json").read_text()) for path in (one, two)]
    assert len(curves[0]["losses"]) == 60
    assert curves[0]["chosen"] == curves[1]["chosen"]
    for (step, wanted), (its_step, loss) in zip(curves[0]["losses"], curves[1]["losses"], strict=True):
        assert step == its_step and loss == pytest.approx(wanted, rel=5e-3)
    tensors, others = (read_tensors(path)[0] for path in (one, two))
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            assert (others[name] - tensor).norm() < 0.02 * tensor.norm(), name
        else:
            assert torch.equal(others[name], tensor), name


@pytest.mark.usefixtures("exact")
def test_an_adapter_is_learnt_by_two_as_by_one(learn: list[str], tmp_path: Path, styledrop: Run) -> None:
    launched = start(learn, tmp_path / "two.safetensors", LAUNCH, TOGETHER)
    alone = by_one(learn, tmp_path / "one.safetensors", styledrop)
    code, out, said = finish(launched)
    assert code == 0, said
    same_learning(tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    # The second one says nothing.
    assert out.splitlines() == [str(tmp_path / "two.safetensors")] and len(alone.out.splitlines()) == 1
    assert said.count("learnt in ") == said.count("draw with it: ") == 1
    assert said.count("Warning: ") == alone.err.count("Warning: ")
    assert "Traceback" not in said


@pytest.mark.usefixtures("exact")
def test_a_dead_process_ends_the_run_and_the_same_command_goes_on(
    learn: list[str], tmp_path: Path, styledrop: Run
) -> None:
    output = tmp_path / "two.safetensors"
    first, second = pair(learn, output)
    wait_for(Path(f"{output}.run/state-0000025.safetensors"), first)
    second.kill()
    began = time.monotonic()
    code, out, said = finish(first)
    assert time.monotonic() - began < 20
    finish(second)
    assert (code, out) == (1, "")
    assert "Error: another process of this run died" in said and "The same command goes on from step 25." in said
    assert "Traceback" not in said
    assert not output.exists()
    read_tensors(Path(f"{output}.run/state-0000025.safetensors"))
    assert "going on from step 25 of 60" in by_one(learn, output, styledrop).err
    by_one(learn, tmp_path / "one.safetensors", styledrop)
    same_learning(tmp_path / "one.safetensors", output)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_launched_training_goes_on_to_the_same_bits(learn: list[str], tmp_path: Path, how: signal.Signals) -> None:
    code, _, said = finish(start(learn, tmp_path / "whole.safetensors", LAUNCH, TOGETHER))
    assert code == 0, said
    output = tmp_path / "stopped.safetensors"
    launcher = start(learn, output, LAUNCH, TOGETHER)
    wait_for(Path(f"{output}.run/state-0000025.safetensors"), launcher)
    if how == signal.SIGINT:
        os.killpg(launcher.pid, how)
    else:
        os.kill(second_of(launcher), how)
    code, out, said = finish(launcher)
    assert (code != 0, out) == (True, "")
    assert said.count("\nstopped\n") == said.count("the same command goes on from there") == (how == signal.SIGINT)
    assert said.count("Error: another process of this run died") == (how == signal.SIGKILL)
    code, _, said = finish(start(learn, output, LAUNCH, TOGETHER))
    assert code == 0 and said.count("going on from step ") == 1, said
    one, two = (read_tensors(tmp_path / f"{name}.safetensors")[0] for name in ("whole", "stopped"))
    assert tensors_hash(one) == tensors_hash(two)


@pytest.mark.slow
def test_a_base_trained_by_two_ends_when_the_first_ones_clock_says_so(model: Path, tmp_path: Path) -> None:
    corpus = tiny.write_corpus(tmp_path / "corpus")
    command = ["pretrain", "tokenizer", str(corpus), "--init-from", str(model), "--minutes", "0.02", "--batch-size"]
    first, second = pair([*command, "4"], tmp_path / "base")
    code, out, said = finish(first)
    assert code == 0, said
    assert out.splitlines() == [str(tmp_path / "base")] and said.count("held-out PSNR") == 1
    assert finish(second) == (0, "", "")
    first, second = pair([*command, "5"], tmp_path / "other")
    code, _, said = finish(first)
    assert code == 2 and "Error: 5 pictures a step cannot be split evenly among 2 processes" in said
    assert "Error in process 1: " in finish(second)[2]


def test_a_batch_is_dealt_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.arange(8)[:, None], None
    parts = []
    for number in range(3):
        monkeypatch.setattr(distributed, "rank_and_world_size", lambda number=number: (number, 3))
        rows, nothing = distributed.own_rows(batch)
        assert nothing is None
        parts.append(rows)
    assert [len(rows) for rows in parts] == [2, 3, 3] and torch.equal(torch.cat(parts), batch[0])
    distributed.refuse_uneven(9, "")
    with pytest.raises(UsageError, match="8 pictures a step cannot be split evenly among 3 processes"):
        distributed.refuse_uneven(8, "")


def test_only_a_message_that_fails_is_taken_for_a_dead_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in a step of one of several processes keeps its own words: it is a RuntimeError too."""

    def lost(flat: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer")

    class Mean(torch.nn.Linear):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return super().forward(batch).mean()

    def run(width: int) -> None:
        task = Mean(1, 1)
        optimizers = [torch.optim.SGD(task.parameters(), lr=0.1)]
        budget, batch = Budget(steps=1), torch.ones(4, width)
        Loop(task, optimizers, lambda step: batch, budget=budget, device=tiny.CPU).run(lambda progress: None)

    monkeypatch.setattr(distributed, "rank_and_world_size", lambda: (0, 2))
    monkeypatch.setattr(distributed.dist, "all_reduce", lost)
    monkeypatch.setattr(distributed.dist, "broadcast", lambda flat, source: None)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as error:
        run(width=2)
    assert not isinstance(error.value, StyledropError)
    with pytest.raises(distributed.LostProcessError):
        run(width=1)


# ---- drawing ----

PICTURES = ["generate", "--base-only", "a cat", "a red house", "-n", "5", "--steps", "2", "--device", "cpu"]


def test_pictures_are_drawn_by_two_as_by_one(model: Path, tmp_path: Path, styledrop: Run) -> None:
    command = [*PICTURES, "--model", str(model)]
    first, second = pair(command, tmp_path / "two")
    alone = by_one(command, tmp_path / "one", styledrop)
    code, out, said = finish(first)
    assert code == 0, said
    assert finish(second) == (0, "", "")
    assert "drawing one share of 2: 5/5" in said and "the others did not" not in said
    assert whole(tmp_path / "two") == whole(tmp_path / "one") and len(whole(tmp_path / "two")) == 11
    assert out == alone.out.replace(str(tmp_path / "one"), str(tmp_path / "two"))


def test_each_draws_its_share_and_the_first_what_is_missing(
    model: Path, tmp_path: Path, styledrop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, made = [*PICTURES, "--model", str(model)], tmp_path / "two"
    by_one(command, tmp_path / "one", styledrop)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert by_one(command, made, styledrop) == (0, "", "")
    wanted = [made / f"a-{prompt}-{seed}.png" for prompt in ("cat", "red-house") for seed in range(5)]
    assert sorted(made.iterdir()) == sorted(wanted[1::3])
    wanted[1].unlink()  # as if it had died before
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(distributed, "PATIENCE", 0.0)
    done = by_one(command, made, styledrop)
    assert "drawing one share of 3: 4/4" in done.err and "drawing what the others did not: 4/4" in done.err
    assert whole(made) == whole(tmp_path / "one")


def test_what_is_not_shared_is_the_first_ones_alone(styledrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert styledrop("models", "list") == (0, "", "")
    monkeypatch.setenv("RANK", "0")
    code, out, _ = styledrop("models", "list")
    assert code == 0 and "pocket" in out
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE")  # left over from something else
    assert styledrop("models", "list").out == out
    assert distributed.take_place() == (0, 1)


# ---- rounds of feedback ----


@pytest.fixture(scope="module")
def command(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A round with a pool of four shards, and two wherever rounds are compared."""
    folder = tmp_path_factory.mktemp("begun")
    model = Path(shutil.copytree(tiny_model, folder / "tiny"))
    (model / "contents.txt").write_text("\n".join(["a cat", *GRADED]), encoding="utf-8")
    prompts = folder / "prompts.txt"
    prompts.write_text("a rabbit\na lion\na bird\na horse\n", encoding="utf-8")
    small = ["--prompts", str(prompts), "--per-prompt", "24", "--steps", "4"]
    return [*little_adapter(model, folder / "adapter.safetensors"), *small]


@pytest.fixture(scope="module")
def alone(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    code, _, said = finish(start(command, folder, []))
    assert code == 0, said
    assert len(list((folder / POOL).glob("ids-*"))) == 4
    assert drawn_by(folder / POOL) == {"0"}
    return whole(folder)


def test_two_processes_make_what_one_makes(command: list[str], alone: dict[str, str], tmp_path: Path) -> None:
    code, out, said = finish(start(command, tmp_path / "r", LAUNCH))
    assert code == 0, said
    assert whole(tmp_path / "r") == alone
    for pool in (POOL, Path("round-1/graded"), Path("round-2/graded")):
        assert drawn_by(tmp_path / "r" / pool) == {"0", "1"}
    # The second one says nothing.
    assert out.count("by clip, ") == 1
    assert said.count("Warning: 'a lion': ") == said.count("draw with it: ") == said.count("round 1 is done") == 1
    assert "Traceback" not in said


@pytest.mark.slow
def test_what_a_dead_process_leaves_is_drawn_by_the_other(
    command: list[str], alone: dict[str, str], tmp_path: Path
) -> None:
    first, second = (start(command, tmp_path / "r", [], RANK=str(n), WORLD_SIZE="2") for n in range(2))
    wait_for(tmp_path / "r" / POOL / "plan.json", first)
    second.kill()
    assert finish(second)[0] == -signal.SIGKILL
    code, _, said = finish(first)
    assert code == 0, said
    assert whole(tmp_path / "r") == alone
    assert drawn_by(tmp_path / "r/round-2/graded") == {"0"}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_all_stop_and_the_same_command_goes_on(
    command: list[str], alone: dict[str, str], tmp_path: Path, how: signal.Signals
) -> None:
    """Ctrl-C, or the death of one process: the launcher ends all of them."""
    launcher = start(command, tmp_path / "r", LAUNCH)
    wait_for(tmp_path / "r" / POOL / "plan.json", launcher)
    if how == signal.SIGINT:
        os.killpg(launcher.pid, how)
    else:
        os.kill(second_of(launcher), how)
    code, _, said = finish(launcher)
    assert code != 0
    assert said.count("\nstopped\n") == (how == signal.SIGINT)
    assert not (tmp_path / "r/best.safetensors").exists()

    code, _, said = finish(start(command, tmp_path / "r", LAUNCH))
    assert code == 0, said
    assert whole(tmp_path / "r") == alone


# ---- the same within one process ----


PLAN = Plan(("a cat", "a dog"), 5, 7, "ink", "", SampleSettings(steps=2, size=16))  # five shards of two


@pytest.fixture
def base(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(evaluate_module, "DRAWN_TOGETHER", 2)
    return load_base(str(tiny_model), tiny.CPU)


def test_every_pool_planned_since_is_helped_with(base: Any, tmp_path: Path) -> None:
    """Also two of the same plan, and one planned again after it was removed."""
    for name in ("old", "a", "b"):
        write_json(tmp_path / name / "plan.json", asdict(PLAN))
    os.utime(tmp_path / "old/plan.json", (1, 1))
    turns = iter(["draw", "plan again", "draw", "over"])

    def over() -> bool:
        turn = next(turns)
        if turn == "plan again":
            assert drawn_by(tmp_path / "b") == {"1"}
            shutil.rmtree(tmp_path / "a")
            write_json(tmp_path / "a/plan.json", asdict(PLAN))
        return turn == "over"

    assist(base, tmp_path, (1, 2), over, since=2.0)
    assert {name: len(list((tmp_path / name).glob("ids-*"))) for name in ("old", "a", "b")} == {
        "old": 0,
        "a": 2,
        "b": 2,
    }


def test_what_a_slow_process_draws_is_not_drawn_twice(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "PATIENCE", 0.0)
    views = tokenize_views(base, [draw()], ["a cat"], 1, tiny.generator(), False)
    judge = judge_of(base, base, References.of_examples(base, TrainingViews(views, ["a cat"], 1)), PLAN.prompts)

    drawn: list[int] = []

    def hear(count: int) -> None:
        drawn.append(count)
        if sum(drawn) == 8:  # its own three shards, and the last of the other's two
            Pool(base, tmp_path, PLAN).help((1, 2))

    assert len(Pool(base, tmp_path, PLAN).evaluate(judge, None, hear, (0, 2)).ids) == 10
    process = [read_tensors(tmp_path / f"ids-{start:05d}.safetensors")[1]["process"] for start in range(0, 10, 2)]
    assert process == ["0", "1", "0", "0", "0"]
