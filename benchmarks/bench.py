"""Time and memory of the everyday commands, as whole processes: ``make bench``.

Each figure is the median of several runs of the command a person would type, with the bundled base and its default
settings; memory is the largest resident set of any run.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
STYLEDROP = [sys.executable, "-m", "styledrop_cli"]


@dataclass(frozen=True)
class Row:
    """One command, how often it is run and what it should stay under."""

    name: str
    arguments: list[str]
    runs: int
    seconds: float


def measure(arguments: list[str]) -> tuple[float, float]:
    """Run ``styledrop`` once; seconds of the clock and peak memory in GB."""
    started = time.perf_counter()
    process = subprocess.Popen([*STYLEDROP, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"styledrop {' '.join(arguments)} failed:\n{said.decode()}")
    unit = 1 if platform.system() == "Darwin" else 1024
    return seconds, usage.ru_maxrss * unit / 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of the slow commands (default 3)")
    runs = parser.parse_args().runs
    import torch

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"{'command':34} {'median s':>9} {'least':>7} {'most':>7} {'aim':>6} {'peak GB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        adapter = str(Path(folder, "adapter.safetensors"))
        picture = str(EXAMPLES / "watercolor.png")
        train = ["train", picture, "--style", "watercolor", "-o", adapter, "--overwrite", "--quiet"]
        draw = ["generate", adapter, "a cat", "--quiet", "-o", str(Path(folder, "out"))]
        rows = [
            Row("--help", ["--help"], 3 * runs, 0.3),
            Row("train", train, runs, 120),
            Row("generate, 4 pictures", [*draw, "-n", "4"], runs, 15),
            Row("generate, 1 picture", [*draw, "-n", "1"], runs, 15),
            Row("tokenize", ["tokenize", picture, "--quiet", "-o", str(Path(folder, "ids"))], runs, 15),
        ]
        for row in rows:
            times, memory = zip(*(measure(row.arguments) for _ in range(row.runs)), strict=True)
            print(
                f"{row.name:34} {statistics.median(times):9.2f} {min(times):7.2f} {max(times):7.2f} "
                f"{row.seconds:6.1f} {max(memory):8.2f}"
            )


if __name__ == "__main__":
    main()
