"""Memory and seconds of an image tokenizer at a large size: ``python benchmarks/pixels.py``.

Random weights of the published size turn ids into pixels, and pixels into ids, each in a process of its own, with
layers in strips (``models/strips.py``) and whole. What both make is compared.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from paired.measures import markdown
from script import run_in_words
from styledrop_cli.io.tensors import read_tensors, save_tensors
from styledrop_cli.models import strips
from styledrop_cli.models.tokenizer import ImageTokenizer, TokenizerConfig

WAYS = ("decode", "encode")
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of the peak memory


@torch.no_grad()
def turn(way: str, whole: bool, side: int, output: Path) -> None:
    """Decode ``side`` x ``side`` ids, or encode as large a picture, and write what comes; tell the peaks."""
    if whole:
        strips.LARGE = sys.maxsize
    torch.manual_seed(0)
    config = TokenizerConfig()
    network = ImageTokenizer(config).requires_grad_(False).eval()
    before, began = peak(), time.perf_counter()
    made: Tensor
    if way == "decode":
        ids = torch.randint(config.num_vq_embeddings, (1, side, side))
        made = network.pixels(network.quantize.embedding(ids).permute(0, 3, 1, 2))
    else:
        made = network.latents(torch.rand(1, 3, config.factor * side, config.factor * side))
    seconds = time.perf_counter() - began
    print(f"{peak():.2f} {before:.2f} {seconds:.1f}")
    save_tensors(output, {"made": made})


def peak() -> float:
    """The most memory that this process ever had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 1e9


def run() -> None:
    """As its arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, default=64, help="ids along a side; 64 are 1024 px")
    parser.add_argument("--turn", nargs=3, metavar=("WAY", "HOW", "FILE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.turn:
        way, how, file = chosen.turn
        turn(way, how == "whole", chosen.ids, Path(file))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            made = {}
            for how in ("whole", "strips"):
                file = Path(folder) / f"{way}-{how}.safetensors"
                command = [sys.executable, __file__, "--ids", str(chosen.ids), "--turn", way, how, str(file)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                made[how] = read_tensors(file)[0]["made"]
                rows.append([way, how, *said, f"{float((made[how] - made['whole']).abs().max()):.1e}"])
    print(markdown(["", "layers", "peak, GB", "before, GB", "seconds", "largest difference"], rows))


if __name__ == "__main__":
    run_in_words(run)
