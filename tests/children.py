"""Commands in processes of their own, to be killed: there at once, for they are forked from one that has imported all.

They are real processes in every respect, and small ones: few steps a picture, small pools, a state every few steps.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

import tiny
from conftest import SOURCE
from styledrop_cli.base import base as base_module
from styledrop_cli.cli import console, drawing
from styledrop_cli.cli.app import app
from styledrop_cli.judging import evaluate as evaluate_module
from styledrop_cli.training import adapter as adapter_training
from styledrop_cli.training import loop as training_loop
from styledrop_cli.training.loop import Budget
from styledrop_cli.training.pretrain import run as pretraining

STEPS_A_MINUTE = 1000  # a budget of minutes would end at another step each time


def small(patch: pytest.MonkeyPatch) -> None:
    """Make every command a small one, in this process."""
    tiny.shrink_rounds(patch)
    tiny.shrink_pretraining(patch)
    patch.setattr(evaluate_module, "DRAWN_TOGETHER", 5)
    patch.setattr(base_module, "BATCH", 3)
    patch.setattr(adapter_training, "SAVE_EVERY", 3)
    patch.setattr(pretraining, "SAVE_EVERY", -1.0)
    patch.setattr(pretraining, "SHEET_EVERY", -1.0)
    patch.setattr(drawing, "DEAD", 0.0)
    patch.setattr(training_loop, "Budget", lambda minutes: Budget(steps=round(minutes * STEPS_A_MINUTE)))


def operations(
    patch: pytest.MonkeyPatch,
    at: int,
    happen: Callable[[], Any],
    what: tuple[str, ...] = ("replace", "unlink", "mkdir"),
    lasting: bool = False,
) -> list[str]:
    """What is done to the disk, as it is done: writes, and ``what`` else.

    At the ``at``-th ``happen`` is called, and at all after it if it is ``lasting``: in the middle of a write, before
    anything else is done.
    """
    done: list[str] = []

    def told(what: str, path: object) -> bool:
        done.append(f"{what} {path}")
        return len(done) == at or (lasting and len(done) > at)

    def write_bytes(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            if told("write", self):
                file.write(data[: len(data) // 2])
                file.flush()
                happen()
            return file.write(data)

    patch.setattr(Path, "write_bytes", write_bytes)

    def wrapped(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Path, *more: Any, **options: Any) -> Any:
            if told(name, self):
                happen()
            return own(self, *more, **options)

        return call

    for name in what:
        patch.setattr(Path, name, wrapped(name, getattr(Path, name)))
    return done


def run(arguments: list[str], folder: str, log: str, die_at: int) -> None:
    """A command in ``folder``; what it says goes to ``log``. At its ``die_at``-th operation on the disk it dies."""
    os.chdir(folder)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    patch = pytest.MonkeyPatch()
    small(patch)
    done = operations(patch, die_at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    code = console.run(app, arguments)
    os.write(1, f"operations: {len(done)}\n".encode())
    sys.exit(code)


def start(arguments: list[str], log: Path, die_at: int = 0) -> ForkServerProcess:
    """Begin a command here and now."""
    context = multiprocessing.get_context("forkserver")
    heavy = ("styledrop_cli.feedback.rounds", "styledrop_cli.generation.pipeline", "accelerate", "torch._dynamo")
    context.set_forkserver_preload(["children", *heavy])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # it is not told where else these are to be found
        forkserver.ensure_running()
    process = context.Process(target=run, args=(arguments, os.getcwd(), str(log), die_at))
    process.start()
    return process


HOLD = """
import sys
from pathlib import Path
from styledrop_cli.io.run_folder import alone_in
with alone_in(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in ``folder``."""
    environment = os.environ | {"PYTHONPATH": SOURCE}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], text=True, env=environment, **pipes) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom permissions stop; root is stopped by none."""
    if os.getuid():
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
