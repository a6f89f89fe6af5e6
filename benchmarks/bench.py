"""Time and memory of the everyday commands, and how near a step comes to its arithmetic: ``make bench``.

Commands run as whole processes, as a person would type them, with the bundled base and its default settings; each
figure is the median of several runs, and memory the largest resident set of any run. A step is measured in this
process, right after the matrix products that it is held against: its arithmetic (counted by torch, attention added)
divided by their rate is the time that it could take at best.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

EXAMPLES = Path(__file__).parents[1] / "examples"
REPORT = "report of 504, beside drawing"
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


def varied(drawn: Path, folder: Path, number: int) -> None:
    """So many pictures like those in ``drawn``, each a file of its own that says how it was made."""
    from styledrop_cli.io.images import load_picture, read_png_settings, save_png

    said = {path: read_png_settings(path) or {} for path in sorted(drawn.glob("*.png"))}
    pictures = [(load_picture(path), settings) for path, settings in said.items() if "seed" in settings]  # no sheet
    for i in range(number):
        picture, settings = pictures[i % len(pictures)]
        turned = picture.rotate(i // len(pictures), fillcolor="white")
        save_png(turned, folder / f"{i:04d}.png", settings)


@dataclass(frozen=True)
class Step:
    """One step of training or drawing, as a function that takes it."""

    name: str
    take: Callable[[], object]
    dtype: torch.dtype
    attention: float  # FLOP, which torch does not count on a CPU


def matmul_rate(dtype: torch.dtype) -> float:
    """FLOP a second of a large square matrix product, the best of several."""
    n = 1536
    a, b = torch.randn(2, n, n).to(dtype)
    times = [seconds_of(lambda: a @ b) for _ in range(12)]
    return 2 * n**3 / min(times)


def seconds_of(take: Callable[[], object]) -> float:
    """Of the clock, for one call."""
    started = time.perf_counter()
    take()
    return time.perf_counter() - started


def steps() -> list[Step]:
    """A training step and a drawing step of the bundled base, as ``train`` and ``generate -n 4`` take them."""
    from styledrop_cli.adapters.file import new_adapter
    from styledrop_cli.base.base import load_base
    from styledrop_cli.devices import autocast, cast_once, fast_bfloat16
    from styledrop_cli.sampling.guidance import Branch, Scales, guided
    from styledrop_cli.sampling.masking import random_mask
    from styledrop_cli.settings import SampleSettings, TrainSettings
    from styledrop_cli.training.loop import masked_cross_entropy

    device = torch.device("cpu")
    base, settings, sampling = load_base("pocket", device), TrainSettings(), SampleSettings()
    adapter = new_adapter(base.transformer, settings)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=settings.lr)
    sizes = base.transformer.config
    draws = torch.Generator().manual_seed(0)
    side = sizes.sample_size
    ids = torch.randint(sizes.codebook_size, (settings.batch_size, side, side), generator=draws)
    masked = random_mask(settings.batch_size, side**2, draws).view(ids.shape)
    condition = base.condition(["a cat in watercolor style"] * settings.batch_size)

    network = cast_once(base.transformer, device)

    def train() -> None:
        with autocast(device):
            loss = masked_cross_entropy(network, ids, masked, condition, adapter, 0.1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    four = base.condition(["a cat in watercolor style"] * 4)
    logits = guided(
        base.transformer, four, base.condition([""] * 4), [Branch(four, adapter)], Scales(0, sampling.lambda_b, True)
    )
    half = ids[:4].masked_fill(masked[:4], sizes.mask_id)

    @torch.no_grad()
    def draw() -> None:
        logits(half, masked[:4], 0.5)

    places = (side // 2) ** 2
    text = base.clip.config.context_length
    one_layer = 4 * places * (places + text) * sizes.hidden_size  # both products, itself and the text
    attention = one_layer * sizes.num_hidden_layers
    return [
        Step("train, 8 pictures", train, torch.bfloat16 if fast_bfloat16(device) else torch.float32, 24 * attention),
        Step("draw, 4 pictures", draw, torch.float32, 12 * attention),
    ]


def print_steps(runs: int) -> None:
    """Of each step: its time, its arithmetic, and the time that would take at the machine's rate."""
    print(f"\n{'step':20} {'median ms':>9} {'GFLOP':>7} {'GFLOP/s':>8} {'matmul':>8} {'at best ms':>10} {'ratio':>6}")
    for step in steps():
        with FlopCounterMode(display=False) as counter:
            step.take()
        work = counter.get_total_flops() + step.attention
        rate = matmul_rate(step.dtype)
        for _ in range(3):
            step.take()
        seconds = statistics.median(seconds_of(step.take) for _ in range(10 * runs))
        print(
            f"{step.name:20} {1e3 * seconds:9.1f} {work / 1e9:7.2f} {work / seconds / 1e9:8.0f} {rate / 1e9:8.0f} "
            f"{1e3 * work / rate:10.1f} {seconds * rate / work:6.2f}"
        )


def print_report(adapter: Path, folder: Path, runs: int) -> None:
    """What a report takes beside its drawing: with all its pictures there, it is graded and written again."""
    from styledrop_cli.base.base import load_base
    from styledrop_cli.judging.clip_scorer import open_second_scorer
    from styledrop_cli.judging.csls import Calibration
    from styledrop_cli.report.grade import free_prompts, grade
    from styledrop_cli.report.history import read_story
    from styledrop_cli.report.page import Grader, write_page

    def make() -> bytes:
        story, base = read_story(adapter), load_base("pocket", torch.device("cpu"))
        name, clip_scorer = open_second_scorer(base)
        prompts = free_prompts(base, story)
        calibration = Calibration(clip_scorer)
        graded = grade(base, story, clip_scorer, calibration, prompts=prompts, number=14, seed=0, folder=folder)
        return write_page(base, story, graded, Grader(name, False), []).encode()

    size = len(make())
    times = [seconds_of(make) for _ in range(runs)]
    print(
        f"{REPORT:34} {statistics.median(times):9.2f} {min(times):7.2f} {max(times):7.2f} {60.0:6.1f} "
        f"        {size / 1e6:.1f} MB (aim 20)"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of the slow commands (default 3)")
    parser.add_argument("--only", default="", help="commands whose name holds this, and no steps")
    runs, only = (given := parser.parse_args()).runs, given.only
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"{'command':34} {'median s':>9} {'least':>7} {'most':>7} {'aim':>6} {'peak GB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        adapter = str(Path(folder, "adapter.safetensors"))
        picture, sheet = str(EXAMPLES / "watercolor.png"), str(Path(folder, "sweep.png"))
        train = ["train", picture, "--style", "watercolor", "-o", adapter, "--overwrite", "--quiet"]
        drawn = Path(folder, "out")
        draw = ["generate", adapter, "a cat", "--quiet", "-o", str(drawn)]
        rows = [
            Row("--help", ["--help"], 3 * runs, 0.3),
            Row("train", train, runs, 60),
            Row("generate, 1 picture", [*draw, "-n", "1"], runs, 8),
            Row("generate, 4 pictures", [*draw, "-n", "4"], runs, 8),
            Row("generate, 64 pictures", [*draw, "-n", "64"], runs, 100),
            Row("tokenize", ["tokenize", picture, "--quiet", "-o", str(Path(folder, "ids"))], runs, 8),
            Row("iterate, one round", ["iterate", adapter, "--quiet", "--fresh"], runs, 360),
            Row("sweep, 12 cells of 4", ["sweep", adapter, "a cat", "-q", "-o", sheet, "--overwrite"], runs, 60),
            Row("score, 1000 pictures", ["score", str(Path(folder, "many")), "--quiet", "--csv"], runs, 60),
        ]
        chosen = [row for row in rows if only in row.name]
        if any(row.name.startswith("score") for row in chosen):
            from styledrop_cli.judging.prompts import SUBJECTS

            measure(train)
            measure(["generate", adapter, *SUBJECTS, "-n", "2", "-o", str(Path(folder, "few")), "--quiet"])
            varied(Path(folder, "few"), Path(folder, "many"), 1000)
        elif any(row.name.startswith(("generate", "iterate", "sweep")) for row in chosen):
            measure(train)

        def anew(row: Row) -> tuple[float, float]:
            shutil.rmtree(drawn, ignore_errors=True)  # what is there is not drawn again
            return measure(row.arguments)

        for row in chosen:
            times, memory = zip(*(anew(row) for _ in range(row.runs)), strict=True)
            print(
                f"{row.name:34} {statistics.median(times):9.2f} {min(times):7.2f} {max(times):7.2f} "
                f"{row.seconds:6.1f} {max(memory):8.2f}"
            )
        if not only or only in REPORT:
            measure(train)
            print_report(Path(adapter), Path(folder, "report"), runs)
    if not only:
        print_steps(runs)


if __name__ == "__main__":
    main()
