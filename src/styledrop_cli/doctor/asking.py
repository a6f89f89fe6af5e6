"""Asking another process, which may raise, hang or die of what it is asked: torch before all may be broken.

This module is both sides: `ask` starts the process, and `answer` is what runs in it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from styledrop_cli.errors import StyledropError

DEVICES, BASE = "devices", "base:"  # what is asked beside the libraries; a base's folder follows its word
AFTER_TORCH = ("accelerate", "torchvision", "open_clip", DEVICES, BASE)  # not tried where torch is broken
PATIENCE = 180  # seconds for all that a process is asked; a first import from a slow disk takes half a minute

Answer = Mapping[str, Any]


def ask(names: Sequence[str]) -> dict[str, Answer]:
    """What other processes say of `names`: facts, or an `error`. A name that kills one does not hide those after it."""
    answers: dict[str, Answer] = {}

    def left() -> list[str]:
        hopeless = AFTER_TORCH if "error" in answers.get("torch", ()) else ()
        return [name for name in names if name not in answers and not name.startswith(hopeless)]

    while asked := left():
        lines, why = _another(asked)
        for line in lines:
            answers.update(json.loads(line))
        if culprit := next(iter(left()), None):
            answers[culprit] = {"error": why or "it ends the program that imports it"}
    return answers


def _another(names: Sequence[str]) -> tuple[list[str], str]:
    """The lines that a process writes about `names`, and why it came to no end, if so."""
    program = "import sys; from styledrop_cli.doctor.asking import answer; answer(sys.argv[1:])"
    # -P and this process's own path: what lies in the current folder is found there if it is found here.
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, *names],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return _whole_lines(error.stdout), f"nothing came of it in {PATIENCE} seconds"
    except OSError as error:
        return [], f"Python cannot be started: {error}"
    why = ""
    if done.returncode < 0:
        why = f"it ends the program that imports it ({signal.Signals(-done.returncode).name})"
    elif done.returncode > 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1][:200] if said else f"it ends the program that imports it (exit code {done.returncode})"
    return _whole_lines(done.stdout), why


def _whole_lines(written: bytes | None) -> list[str]:
    lines = (written or b"").decode(errors="replace").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


def answer(names: Sequence[str]) -> None:
    """The other process's part: a line of JSON on standard output about each of `names`, as soon as it is known."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # libraries may print
        broken = False
        for name in names:
            if broken and name.startswith(AFTER_TORCH):
                continue
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                try:
                    said = _examined(name)
                except Exception as error:
                    said = {"error": in_words(error)}
                if name == DEVICES and heard:
                    said["warnings"] = [str(one.message).partition("\n")[0] for one in heard]
            broken |= name == "torch" and "error" in said
            out.write(json.dumps({name: said}) + "\n")
            out.flush()


def _examined(name: str) -> dict[str, Any]:
    if name == DEVICES:
        return _torch_says()
    if name.startswith(BASE):
        return _load(Path(name.removeprefix(BASE)))
    if name == "open_clip":  # as styledrop itself imports it
        from styledrop_cli.judging.clip_scorer import open_clip

        open_clip()
    else:
        importlib.import_module(name)
    return {}


def _torch_says() -> dict[str, Any]:
    """Which devices torch sees, and whether the one that styledrop would take computes."""
    import torch

    from styledrop_cli.devices import fast_bfloat16, pick_device

    picked = pick_device()
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    builds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    said: dict[str, Any] = {
        "built for": next((f"{name} {version}" for name, version in builds.items() if version), None),
        "cards": [f"{card.name}, {card.total_memory / 1e9:.0f} GB" for card in cards],
        "mps": torch.backends.mps.is_available(),
        "picked": picked.type,
        "threads": torch.get_num_threads(),
        "bfloat16": fast_bfloat16(torch.device("cpu")),
    }
    try:
        ones = torch.ones(32, 32, device=picked)
        if (total := float((ones @ ones).sum())) != 32**3:
            said["fault"] = f"a product of matrices comes to {total:g}, not {32**3}"
    except Exception as error:
        said["fault"] = in_words(error)
    return said


def _load(folder: Path) -> dict[str, Any]:
    """Load a base as the commands do: all of one of ours, the layout of a published one."""
    import torch

    from styledrop_cli.base.base import load_base
    from styledrop_cli.base.folder import load_module
    from styledrop_cli.io.tensors import CONFIG, read_config

    base = load_base(str(folder), torch.device("cpu"))
    if (folder / CONFIG).exists():
        for part in set(read_config(folder)["parts"]) - set(base.parts.known):
            load_module(folder, part)
    return {"name": base.name, "sizes": base.sizes}


def in_words(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, StyledropError):
        return error.message
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]
