"""Real processes with the bundled base, stopped in the middle: the same command goes on to the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import draw
from styledrop_cli.checkpoints import read_tensors

pytestmark = pytest.mark.slow
TRAIN = ["train", "ref.png", "--style", "crayon", "--content", "a ball", "--steps", "60", "--checkpoints", "2"]
SOURCE = str(Path(__file__).parents[1] / "src")


def start(output: str) -> subprocess.Popen[str]:
    # A shell's background jobs ignore Ctrl-C, and so would what they start.
    return subprocess.Popen(
        [sys.executable, "-m", "styledrop_cli", *TRAIN, "-o", output],
        env=os.environ | {"PYTHONPATH": SOURCE},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


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
