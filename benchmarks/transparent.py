"""How right `--transparent` is: drawings whose true alpha is known, put on grounds, and their ground taken out again.

    python benchmarks/transparent.py corpus/art --number 40

The drawings are those of an art folder with an ``index.jsonl`` (examples/pocket/make_corpus.py fetches one), the same
ones on each ground. Beside plain grounds there are gradients, paper with grain, and washes, soft edges as a base has
that enlarges what it draws, and the procedural styles that draw a thing on a given ground: there the true alpha is that
of the drawing, which a style may fray. Of each ground it says

- error, iou: the mean absolute error of alpha, and the intersection over union at one half;
- edge: the error of the colours that are seen when the cut-out is laid on red, in [0,255], over the true edge's pixels;
- opaque: how many pictures were left as they are;
- holes, found, wrong: the area of true holes, how much of it was taken out, and how much was taken out inside things
  that is no hole, each in a thousandth of the pictures.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from script import run_in_words
from styledrop_cli.corpus.styles import apply_style
from styledrop_cli.generation.ground import components, without_ground
from styledrop_cli.io.files import write_json
from styledrop_cli.io.images import load_cutout, to_image

SIZE = 256
RED = torch.tensor([0.85, 0.1, 0.1]).view(3, 1, 1)
PAPER = torch.tensor([0.94, 0.92, 0.86]).view(3, 1, 1)
STYLES = ("watercolor", "crayon", "oil", "pastel", "clay")
COLOURS = ("#f5f1e6", "#3a7ca5", "#f4c95d", "#22252b", "#c8553d", "#9bc1a3", "#e8e8ee")


def colour(rng: random.Random) -> Tensor:
    """One of a few colours that grounds have, RGB ``[3,1,1]``."""
    text = rng.choice(COLOURS)
    return torch.tensor([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]).view(3, 1, 1)


def noise(rng: random.Random, coarsest: int, finest: int) -> Tensor:
    """Fractal noise ``[1,S,S]`` of deviation 1, with details between so many and so many a side."""
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    total, side, weight = torch.zeros(1, 1, SIZE, SIZE), coarsest, 1.0
    while side <= finest:
        coarse = torch.randn(1, 1, side + 1, side + 1, generator=generator)
        total += weight * F.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=True)
        side, weight = side * 2, weight * 0.6
    return total[0] / total.std()


def gradient(rng: random.Random) -> Tensor:
    """From one colour to another that is a little lighter or darker."""
    angle, first = rng.uniform(0, 6.28), colour(rng)
    line = torch.linspace(-0.5, 0.5, SIZE)
    t = (line.view(-1, 1) * np.sin(angle) + line.view(1, -1) * np.cos(angle) + 0.5).clamp(0, 1)
    return (first + (t - 0.5) * rng.choice((-0.35, 0.35))).clamp(0, 1)


GROUNDS: dict[str, Callable[[random.Random], Tensor]] = {
    "white": lambda rng: torch.ones(3, SIZE, SIZE),
    "one colour": lambda rng: colour(rng).expand(3, SIZE, SIZE),
    "gradient": gradient,
    "paper grain": lambda rng: (PAPER + 0.025 * noise(rng, 64, 256)).clamp(0, 1),
    "wash": lambda rng: (colour(rng) * 0.35 + 0.6 + 0.035 * noise(rng, 2, 16) + 0.01 * noise(rng, 64, 256)).clamp(0, 1),
}  # fmt: skip


def drawing(path: Path) -> Tensor:
    """A cut-out ``[4,S,S]`` with room around it, its colours not multiplied by alpha."""
    inner = load_cutout(path, SIZE * 3 // 4)
    inner = torch.cat([inner[:3] * inner[3:], inner[3:]])
    around = F.pad(inner, (SIZE // 8,) * 4)
    return torch.cat([around[:3] / around[3:].clamp(min=1e-3), around[3:]]).clamp(0, 1)


def composed(cutout: Tensor, ground: Tensor, style: str | None, seed: int) -> Tensor:
    """The cut-out on the ground, plainly or in a style, ``[3,S,S]``."""
    if style is None:
        return cutout[:3] * cutout[3:] + ground * (1 - cutout[3:])
    return apply_style(style, cutout[None], ground[None], torch.Generator().manual_seed(seed))[0]


def softened(picture: Tensor) -> Tensor:
    """``[C,S,S]`` as a base draws that enlarges what it draws at half the size."""
    half = F.avg_pool2d(picture[None], 2)
    return F.interpolate(half, scale_factor=2, mode="bicubic", align_corners=False)[0].clamp(0, 1)


def holes_of(alpha: np.ndarray) -> np.ndarray:
    """Where a cut-out is transparent and not connected to the border."""
    labels = components(alpha < 0.5)
    ends = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return (labels > 0) & ~np.isin(labels, ends)


def measured(cutout: Tensor, picture: Tensor) -> dict[str, float] | None:
    """What is wrong with the alpha that is found in a picture; None if it was left opaque."""
    made = without_ground(to_image(picture))
    if made is None:
        return None
    found = torch.from_numpy(np.array(made)).permute(2, 0, 1).float() / 255
    alpha, true = found[3].numpy(), cutout[3].numpy()
    one, other = alpha >= 0.5, true >= 0.5
    edge = torch.from_numpy((true > 0.02) & (true < 0.98))
    seen = found[:3] * found[3:] + RED * (1 - found[3:])
    wanted = cutout[:3] * cutout[3:] + RED * (1 - cutout[3:])
    holes, mine = holes_of(true), holes_of(alpha)
    return {
        "error": float(np.abs(alpha - true).mean()),
        "iou": float((one & other).sum() / max(1, (one | other).sum())),
        "edge": float(255 * (seen - wanted).abs().mean(0)[edge].mean()) if bool(edge.any()) else 0.0,
        "holes": float(holes.sum()),
        "found": float((holes & (alpha < 0.5)).sum()),
        "wrong": float((mine & (true >= 0.5)).sum()),
    }


def run(art: Path, number: int, seed: int) -> dict[str, dict[str, float]]:
    """Each ground's numbers."""
    index = [json.loads(line) for line in (art / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    files = sorted({one["file"] for one in index if not one.get("mono") and (art / one["file"]).exists()})
    chosen = random.Random(seed).sample(files, min(number, len(files)))
    results: dict[str, dict[str, float]] = {}
    for name in [*GROUNDS, "soft", *STYLES]:
        every, opaque = [], 0
        for place, file in enumerate(chosen):
            rng = random.Random(1000 * seed + place)
            ground = GROUNDS[name if name in GROUNDS else "one colour"](rng)
            cutout = drawing(art / file)
            picture = composed(cutout, ground, name if name in STYLES else None, place)
            if name == "soft":
                together = softened(torch.cat([cutout[:3] * cutout[3:], cutout[3:]]))
                cutout, picture = (
                    torch.cat([together[:3] / together[3:].clamp(min=1e-3), together[3:]]),
                    softened(picture),
                )
            one = measured(cutout, picture)
            opaque += one is None
            every += [one] if one else []
        mean = {key: float(np.mean([one[key] for one in every])) for key in ("error", "iou", "edge")} if every else {}
        total = {key: sum(one[key] for one in every) for key in ("holes", "found", "wrong")}
        mean |= {
            "opaque": opaque,
            **{key: 1000 * total[key] / (len(chosen) * SIZE * SIZE) for key in ("holes", "found", "wrong")},
        }
        results[name] = mean
        print(f"{name:12} " + "  ".join(f"{key} {value:.3f}" for key, value in mean.items()), flush=True)
    return results


def main() -> None:
    """Measure, print, and write the numbers if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("art", type=Path)
    parser.add_argument("--number", type=int, default=40, help="drawings on each ground")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    results = run(options.art, options.number, options.seed)
    if options.out:
        write_json(options.out, results)


if __name__ == "__main__":
    run_in_words(main)
