"""What several processes gain, and what they send each other: ``python benchmarks/scale.py`` (docs/results/scale.md).

A pool of pictures is drawn by one process and by several, as a person would start them, in turn. Beside the clock
stands the processor's time, which other programs on the machine hardly change. ``--network`` counts instead, on Linux,
what a training step of two processes sends over the loopback interface, where nothing else should talk meanwhile
(``unshare -n``): the bytes of a longer run less those of a shorter one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THINGS = "cat dog house tree car fish bird rocket teapot apple star flower".split()
LAUNCH = "-m accelerate.commands.launch --multi_gpu --num_machines 1 --main_process_port 0 --mixed_precision no".split()
LENGTHS = (2, 6)  # steps
PICTURE = Path(__file__).parents[1] / "examples" / "watercolor.png"


def command(processes: int, program: list[str]) -> list[str]:
    """A Python program's ``arguments``, on so many processes."""
    launch = [*LAUNCH, "--dynamo_backend", "no", "--num_processes", str(processes)] if processes > 1 else []
    return [sys.executable, *launch, *program]


def run(arguments: list[str]) -> tuple[str, float, float]:
    """Run a program; what it printed, and its seconds by the clock and of the processor, all its processes together."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    seconds, after = time.perf_counter() - started, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, seconds, used


def draw(processes: int, pictures: int) -> tuple[float, float, float]:
    """Draw a pool; seconds of the whole command, of its drawing, and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = [f"a {thing}" for thing in THINGS]
        generate = ["-m", "styledrop_cli", "generate", "--base-only", *prompts, "-n", str(pictures // len(THINGS))]
        generate += ["--no-sheet", "--device", "cpu", "--json", "-o", folder]
        out, seconds, used = run(command(processes, generate))
        return seconds, json.loads(out)["seconds"], used


def scaling(pictures: int, processes: list[int], times: int) -> None:
    """Print a table; of several runs, each number is the least."""
    runs: dict[int, list[tuple[float, float, float]]] = {number: [] for number in processes}
    for _ in range(times):
        for number in processes:
            runs[number].append(draw(number, pictures))
    best = {number: tuple(map(min, zip(*found, strict=True))) for number, found in runs.items()}
    one = best[processes[0]]
    print("| processes | the whole command, s | drawing, s | pictures a minute | times as fast | processor, s |")
    print("|---|---|---|---|---|---|")
    for number, (whole, drawing, used) in best.items():
        rate, faster = 60 * pictures / drawing, one[1] / drawing
        print(f"| {number} | {whole:.1f} | {drawing:.1f} | {rate:.0f} | {faster:.2f} | {used:.1f} |")


# ---- what goes over the network -------------------------------------------------------------------


def sent() -> int:
    """Bytes that the loopback interface has sent."""
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.split()[0] == "lo:").split()[9])


def prepare(folder: Path) -> None:
    """A folder of captioned pictures, and one of the bundled base."""
    from styledrop_cli.base.registry import POCKET

    shutil.copytree(POCKET, folder / "base")
    (folder / "pictures").mkdir()
    for number in range(16):
        shutil.copy(PICTURE, folder / "pictures" / f"{number}.png")
        (folder / "pictures" / f"{number}.txt").write_text(f"a {THINGS[number % len(THINGS)]}", encoding="utf-8")


def part(name: str, steps: int, folder: Path) -> None:
    """Train a part of a base of the bundled one's sizes for so many ``steps``, in one of several processes."""
    import torch

    from styledrop_cli.training.distributed import take_place, together
    from styledrop_cli.training.loop import Budget
    from styledrop_cli.training.pretrain import run as pretraining

    out, device = folder / f"{name}-{steps}", torch.device("cpu")
    init_from = folder / "base" if name != "decoder" else None  # the bundled base has none
    with together(take_place(), device):
        pretraining.run(name, folder / "pictures", out, budget=Budget(steps=steps), device=device, init_from=init_from)


def network() -> None:
    """Print what each of two processes sends in a step."""
    print("| what is trained | sent in a step, MB |")
    print("|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for what in ("bottleneck", "lora", "tokenizer", "decoder", "clip", "base", "superres"):
            counted = []
            for steps in LENGTHS:
                if what in ("bottleneck", "lora"):
                    program = [
                        "-m",
                        "styledrop_cli",
                        "train",
                        str(PICTURE),
                        "--style",
                        "watercolor",
                        "--content",
                        "a cat",
                    ]
                    program += ["--kind", what, "--checkpoints", "0", "--steps", str(steps), "--device", "cpu"]
                    program += ["-o", str(folder / f"{what}-{steps}.safetensors")]
                else:
                    out = folder / f"{what}-{steps}"
                    if what in ("decoder", "base", "superres"):
                        shutil.copytree(folder / "base", out)
                        (out / "transformer.safetensors").unlink()
                    program = [__file__, "--part", what, "--steps", str(steps), "--folder", str(folder)]
                before = sent()
                run(command(2, program))
                counted.append(sent() - before)
            a_step = (counted[1] - counted[0]) / (LENGTHS[1] - LENGTHS[0]) / 2
            print(f"| {what} | {a_step / 1e6:.2f} |", flush=True)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--network", action="store_true", help="count what a training step sends")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        part(given.part, given.steps, given.folder)
    elif given.network:
        network()
    else:
        scaling(given.pictures, given.processes, given.times)


if __name__ == "__main__":
    main()
