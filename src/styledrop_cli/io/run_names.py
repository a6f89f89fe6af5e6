"""What the folders and files of runs are called: who writes, reads and clears them takes the names from here."""

from __future__ import annotations

import re
from pathlib import Path

RUN, ROUNDS = ".run", ".rounds"  # what the folder of a training, and that of rounds, end in
CHECKPOINT = "step-{:07d}"  # of a training: an adapter file, and a sheet of test pictures
SUPERRES = "superres.safetensors"  # of a training: super-resolution's adapter, which each checkpoint holds as well
IDS = "ids-{:05d}.safetensors"  # of rounds: pictures that are drawn, by the number of the first
ROUND, ROUND_ADAPTER = "round-{}", "adapter.safetensors"  # of rounds: a folder each, and in it what it learnt
ROUND_PICTURE = "graded/{:02d}.png"  # in it: what it draws of a prompt that the rounds are compared by
TABLE = "table.json"  # of rounds: how they compare, written at their end


def run_of(file: Path) -> Path:
    """The folder of the work on a file, which lies beside it."""
    return file.with_name(file.name + RUN)


def any_of(name: str) -> str:
    """The pattern of all files that a name with a number in it stands for: ``ids-*.safetensors``."""
    return re.sub(r"\{.*?\}", "*", name)
