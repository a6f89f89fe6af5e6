"""Whether a published model draws here what it drew where it came from: the proof that only its weights can give."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from styledrop_cli.base.base import Base, open_folder
from styledrop_cli.errors import ModelError

# Of the picture whose values are in the registry: upstream's slow tests draw it, with noise from the CPU.
PROMPT, STEPS, SEED = "dog", 2, 0
TOLERANCE = 3e-3  # of values in [0,1], upstream's own


def corner(picture: torch.Tensor) -> list[float]:
    """The values of a picture ``[3,H,W]`` that upstream's tests look at, nine of them."""
    return [float(value) for value in picture[-1, -3:, -3:].flatten()]


@torch.no_grad()
def problems(base: Base) -> tuple[list[str], str]:
    """What is wrong with a base when it is used, a sentence each, and what was looked at.

    Every tensor of every part is read and must be there, of the right shape, and finite. A base with golden values,
    and fp32 weights, then draws the picture that they are of, and must come to the same values.
    """
    found = []
    parts = open_folder(base.folder, base.text_encoder or None).parts.values()
    for part in parts:
        try:
            part.load(finite=True)
        except ModelError as error:
            found.append(error.message)
    if not base.spec.golden:
        return found, "its weights are whole; for a model of this size there are no published values to compare with"
    if not all(part.mapped for part in parts):
        return found, (
            "its weights are whole; the published values are of fp32 weights, so its picture was not compared "
            "(styledrop models fetch NAME --precision fp32)"
        )
    if not found:
        ids = base.sample([PROMPT], [SEED], base.sampling(steps=STEPS))
        base.done_with("transformer")
        found = compared(corner(base.pictures(ids, base.sizes[0])[0].cpu()), base.spec.golden)
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
