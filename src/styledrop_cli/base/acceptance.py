"""Whether a published model draws here what it drew where it came from: the proof that only its weights can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from styledrop_cli.base.base import Base
from styledrop_cli.base.hub.layout import WEIGHTS
from styledrop_cli.errors import ModelError
from styledrop_cli.models.transformer import TransformerConfig

PROMPT, STEPS, SEED = "dog", 2, 0
TOLERANCE = 3e-3  # of values in [0,1], upstream's own
AMUSED_256 = TransformerConfig()
AMUSED_512 = replace(AMUSED_256, sample_size=32, downsample=True, upsample=True)
# The last 3x3 values of the blue channel of upstream's picture of PROMPT: fp32 weights, noise from the CPU, its
# default settings (diffusers, tests/pipelines/amused/test_amused.py, the slow tests).
GOLDEN: dict[TransformerConfig, tuple[float, ...]] = {
    AMUSED_256: (0.4011, 0.3992, 0.379, 0.3856, 0.3772, 0.3711, 0.3919, 0.385, 0.3625),
    AMUSED_512: (0.1199, 0.1171, 0.1229, 0.1188, 0.1210, 0.1147, 0.1260, 0.1346, 0.1152),
}


def corner(picture: torch.Tensor) -> list[float]:
    """The values of a picture ``[3,H,W]`` that upstream's tests look at, nine of them."""
    return [float(value) for value in picture[-1, -3:, -3:].flatten()]


@torch.no_grad()
def problems(base: Base) -> tuple[list[str], str]:
    """What is wrong with a base when it is used, a sentence each, and what was looked at.

    Every tensor of every part is read and must be there, of the right shape, and finite. A model of a published size,
    with fp32 weights, then draws the picture that upstream's tests draw, and must come to the same values.
    """
    published = base.published
    if published is None:
        return [], "it is not a published model: its parts were read"
    found = []
    for part in WEIGHTS:
        try:
            published.load(part, finite=True)
        except ModelError as error:
            found.append(error.message)
    wanted = GOLDEN.get(published.transformer)
    if wanted is None:
        return found, "its weights are whole; for a model of this size there are no published values to compare with"
    if not all(map(published.is_mapped, WEIGHTS)):
        return found, (
            "its weights are whole; the published values are of fp32 weights, so its picture was not compared "
            "(styledrop models fetch NAME --precision fp32)"
        )
    if not found:
        ids = base.sample([PROMPT], [SEED], base.sampling(steps=STEPS))
        base.done_with("transformer")
        found = compared(corner(base.pictures(ids, base.sizes[0])[0].cpu()), wanted)
    return found, "its weights are whole, and it draws upstream's picture"


def compared(made: Sequence[float], wanted: Sequence[float]) -> list[str]:
    """A sentence if values in [0,1] differ by more than upstream's tolerance."""
    worst = max(abs(a - b) for a, b in zip(made, wanted, strict=True))
    if worst <= TOLERANCE:
        return []
    said = ", ".join(f"{value:.4f}" for value in made)
    return [
        f"it does not draw upstream's picture: its last values are {said}, {worst:.4f} away from the published ones, "
        f"and {TOLERANCE} is allowed"
    ]
