"""Rounds whose pictures several real processes draw, as ``accelerate launch`` starts them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import tiny
from conftest import draw
from styledrop_cli import pools
from styledrop_cli.base import load_base
from styledrop_cli.checkpoints import read_tensors, write_json
from styledrop_cli.examples import Examples, tokenize_views
from styledrop_cli.pools import Plan, Pool
from styledrop_cli.rounds import GRADED, assist, judge_of
from styledrop_cli.settings import SampleSettings
from test_interrupted import SOURCE, little_adapter, whole

# Without a card --cpu would start one process; --multi_gpu starts two, cards or not.
LAUNCH = (
    "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 "
    "--mixed_precision no --dynamo_backend no"
).split()
PROGRAM = ["-m", "styledrop_cli"]
POOL = Path("round-2/pool")


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


def start(command: list[str], output: Path, launch: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *launch, *PROGRAM, *command, "-o", str(output)],
        env=os.environ | {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code and what was said. Whatever a process started holds its pipes: none of that is left either."""
    out, said = process.communicate(timeout=120)
    return process.returncode, out, said


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def drawn_by(folder: Path) -> set[str]:
    return {read_tensors(path)[1]["process"] for path in folder.glob("ids-*.safetensors")}


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
    assert said.count("Warning: ") == said.count("draw with it: ") == said.count("round 2 is done") == 1
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
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    if not children.exists():
        launcher.kill()
        pytest.skip("only Linux tells which processes the launcher started")
    wait_for(tmp_path / "r" / POOL / "plan.json", launcher)
    if how == signal.SIGINT:
        os.killpg(launcher.pid, how)
    else:
        places = {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in children.read_text().split()}
        os.kill(next(int(pid) for pid, place in places.items() if b"\0RANK=1\0" in place), how)
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
    monkeypatch.setattr(pools, "SHARD", 2)
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
    monkeypatch.setattr(pools, "PATIENCE", 0.0)
    views = tokenize_views(base, [draw()], ["a cat"], 1, tiny.generator(), False)
    judge = judge_of(base, base, Examples(views, ["a cat"], 1), PLAN.prompts)

    def hear(done: int) -> None:
        if done == 8:  # its own three shards, and the last of the other's two
            Pool(base, tmp_path, PLAN).help((1, 2))

    assert len(Pool(base, tmp_path, PLAN).draw(judge, hear, (0, 2)).ids) == 10
    process = [read_tensors(tmp_path / f"ids-{start:05d}.safetensors")[1]["process"] for start in range(0, 10, 2)]
    assert process == ["0", "1", "0", "0", "0"]
