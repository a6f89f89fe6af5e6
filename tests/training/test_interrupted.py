"""Real processes, stopped in the middle: the same command goes on to the same weights. See also test_faults.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tiny
from conftest import SOURCE, draw
from styledrop_cli.base.base import load_base
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.tensors import read_tensors, tensors_hash
from styledrop_cli.settings import TrainSettings
from styledrop_cli.training.adapter import train_adapter

pytestmark = pytest.mark.slow
TRAIN = ["train", "ref.png", "--style", "crayon", "--content", "a ball", "--steps", "60", "--checkpoints", "2"]


def start(output: str, command: list[str] = TRAIN) -> subprocess.Popen[str]:
    # A shell's background jobs ignore Ctrl-C, and so would what they start.
    return subprocess.Popen(
        [sys.executable, "-m", "styledrop_cli", *command, "-o", output],
        env=os.environ | {"PYTHONPATH": SOURCE},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


def little_adapter(model: Path, path: Path) -> list[str]:
    """Train an adapter that the rounds can start from, at ``path``; the command that starts them, but for its size."""
    draw().save(path.with_name("ref.png"))
    train_adapter(
        load_base(str(model), tiny.CPU),
        pictures=[path.with_name("ref.png")],
        style="watercolor",
        contents=["a cat"],
        settings=TrainSettings(steps=2, views=2, checkpoints=0),
        output=path,
    )
    return ["iterate", str(path), "--model", str(model), "--device", "cpu"]


def whole(folder: Path) -> dict[str, str]:
    """Every file that rounds made and what is in it, but for the work in progress of a training; all can be read."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found[name] = tensors_hash(read_tensors(path)[0])
        elif path.suffix in (".json", ".png"):
            found[name] = file_hash(path)
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    return {name: content for name, content in found.items() if ".run" not in name}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_training_goes_on_to_the_same_bits(how: signal.Signals) -> None:
    draw(96, 96).save("ref.png")
    code, said = finish(start("whole.safetensors"))
    assert code == 0, said

    process = start("stopped.safetensors")
    folder = Path("stopped.safetensors.run")
    while process.poll() is None and not list(folder.glob("state-*.safetensors")):
        time.sleep(0.05)
    process.send_signal(how)
    code, said = finish(process)
    assert not Path("stopped.safetensors").exists()
    if how == signal.SIGINT:
        assert code == 130, said
        assert "the same command goes on from there" in said
        assert "Traceback" not in said

    code, said = finish(start("stopped.safetensors"))
    assert code == 0, said
    assert "going on from step" in said
    whole, again = (read_tensors(Path(f"{name}.safetensors"))[0] for name in ("whole", "stopped"))
    assert set(whole) == set(again)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
