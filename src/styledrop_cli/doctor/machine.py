"""The machine: its processor, its memory, and its devices as torch sees them."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from styledrop_cli.doctor import libraries
from styledrop_cli.doctor.asking import Answer
from styledrop_cli.doctor.findings import NOTE, WRONG, Finding

TRAINING = 1_500_000_000  # bytes of memory that a training on pocket takes


def hardware(said: Answer) -> Iterator[Finding]:
    """The system, its processor and its memory, and whether they are well used."""
    yield Finding("machine", "system", platform.platform())
    cores = _cores()
    threads = said.get("threads")
    fast = {True: ", bfloat16 is fast", False: ", no fast bfloat16"}.get(said.get("bfloat16", ""), "")
    kind = f"{platform.machine()}, {cores} core{'s' * (cores > 1)}"
    kind += f", {threads} thread{'s' * (threads > 1)}" if threads else ""
    if threads and threads != cores:
        few = f"OMP_NUM_THREADS={cores} in front uses all cores"
        many = f"more threads than cores wait for each other: OMP_NUM_THREADS={cores} in front"
        yield Finding("machine", "processor", kind + fast, NOTE, few if threads < cores else many)
    else:
        yield Finding("machine", "processor", kind + fast)
    if memory := _memory():
        total, free = memory
        found = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB free"
        little = "learning a style takes 1.4 GB: close other programs first"
        yield Finding("machine", "memory", found, *((NOTE, little) if free < TRAINING else ()))


def _cores() -> int:
    """The processor's cores that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> tuple[int, int] | None:
    """Bytes of memory, all and free, within what a container may have; None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        total, free = 1024 * kilobytes["MemTotal"], 1024 * kilobytes["MemAvailable"]
    except (OSError, ValueError, LookupError):
        try:
            here = importlib.import_module("psutil").virtual_memory()  # comes with accelerate
        except ImportError:
            return None
        total, free = here.total, here.available
    try:
        most = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no container, or one without a bound
        return total, free
    return min(total, most), min(free, most)


def devices(said: Answer) -> Iterator[Finding]:
    """Which devices there are, which one is taken, and why not another."""
    if error := said.get("error"):
        mend = libraries.how_to_mend("torch", error)
        yield Finding("devices", "cpu", f"torch cannot say: {error}", WRONG, mend)
    if "picked" not in said:
        return
    built, cards = said["built for"], said["cards"]
    heard = next((one for one in said.get("warnings", ()) if "CUDA" in one or "NVIDIA" in one), "")
    if cards:
        yield Finding("devices", "cuda", f"{'; '.join(cards)}; PyTorch is built for {built}")
    elif built is None:
        advice = "this machine has an NVIDIA card: https://pytorch.org/get-started/locally says which build uses it"
        found = "none: this PyTorch is built without CUDA"
        yield Finding("devices", "cuda", found, *((NOTE, advice) if libraries.has_nvidia() else ()))
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        yield Finding("devices", "cuda", "none: CUDA_VISIBLE_DEVICES hides it", NOTE, "unset it to use the card")
    else:
        found = f"none, though PyTorch is built for {built}" + (f": {heard}" if heard else "")
        advice = (
            "update the card's driver, or install the PyTorch that fits it: https://pytorch.org/get-started/locally"
        )
        yield Finding("devices", "cuda", found, *((NOTE, advice) if heard or libraries.has_nvidia() else ()))
    if sys.platform == "darwin":
        yield Finding("devices", "mps", "here" if said["mps"] else "none: this Mac or its PyTorch has no Metal")
    picked = said["picked"]
    if fault := said.get("fault"):
        advice = "say --device cpu" if picked != "cpu" else libraries.how_to_mend("torch", fault)
        yield Finding("devices", "taken", f"{picked}, which does not compute: {fault}", WRONG, advice)
    else:
        why = "the best of those that are here; --device names another" if picked != "cpu" else "there is no other"
        yield Finding("devices", "taken", f"{picked}: {why}")
