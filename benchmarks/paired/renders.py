"""What the judges learn from: things in every style, placed, coloured and grounded at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from paired.art import FAMILIES, Art, Look
from paired.families import GROUNDS, HELD_OUT
from paired.openmoji import OPENMOJI
from styledrop_cli.base.base import Base
from styledrop_cli.corpus.styles import STYLES
from styledrop_cli.devices import autocast, generator
from styledrop_cli.io.tensors import read_tensors, save_tensors

CALL = 8  # pictures drawn together
MOST_LOOKS = 1000  # so many seeds a judge has for them


@dataclass(frozen=True)
class Examples:
    """Pictures uint8 ``[N,3,S,S]``, each one's look and thing, and whether it has been through the tokenizer."""

    pictures: Tensor
    look: Tensor
    thing: Tensor
    tripped: Tensor

    def where(self, rows: Tensor) -> Examples:
        """Those that ``rows`` [N] (bool) picks."""
        return Examples(self.pictures[rows], self.look[rows], self.thing[rows], self.tripped[rows])

    def at(self, side: int) -> Examples:
        """The same, ``side`` px wide."""
        if self.pictures.shape[-1] == side:
            return self
        parts = [_bytes(shrunk(p.float() / 255, side)) for p in self.pictures.split(256)]
        return Examples(torch.cat(parts), self.look, self.thing, self.tripped)

    def __len__(self) -> int:
        return len(self.pictures)


def shrunk(pictures: Tensor, side: int) -> Tensor:
    """Pictures ``[B,3,S,S]`` in [0,1], ``side`` px wide."""
    if pictures.shape[-1] == side:
        return pictures.float()
    return F.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True).clamp(0, 1)


@torch.no_grad()
def round_trip(base: Base, pictures: Tensor, exact: bool = False) -> Tensor:
    """What the tokenizer makes of pictures ``[B,3,S,S]`` in [0,1] of any size that it takes; ``exact``: in fp32."""
    with autocast(base.device, not exact):
        parts = [base.tokenizer.decode(base.tokenizer.encode(p.to(base.device))) for p in pictures.split(32)]
    return torch.cat(parts).float().cpu()


def examples(
    art: Art,
    all_looks: Sequence[Look],
    base: Base,
    *,
    renders: int,
    tripped: float,
    side: int,
    seed: int,
    folder: Path,
    on_progress: Callable[[float, str], None] = lambda share, note: None,
) -> Examples:
    """``renders`` pictures ``side`` px wide of things in every look; outlines come from any family.

    A share of them, ``tripped``, is there once more as the tokenizer shows it.

    A held-out style comes up three times as often as a training style and an art family twice: those are the ones to
    be told from all others. A style's lengths are drawn once per call, so that calls are small. Each look's pictures
    are kept in ``folder``: a run that was cut goes on after the last of them.
    """
    weights = [1 if look.name in STYLES else 2 if look.name in FAMILIES else 3 for look in all_looks]
    parts: list[Mapping[str, Tensor]] = []
    for number, look in enumerate(all_looks):
        on_progress(number / len(all_looks), f"renders for the judges, {look.name}")
        path = folder / f"{number:02d}.safetensors"
        if not path.exists():
            count = round(renders * weights[number] / sum(weights))
            save_tensors(path, _of_look(art, look, base, count, tripped, side, seed * MOST_LOOKS + number), {})
        parts.append(read_tensors(path)[0])
    look_of = torch.cat([torch.full_like(part["thing"], number) for number, part in enumerate(parts)])
    pictures, thing, trip = (torch.cat([part[name] for part in parts]) for name in ("pictures", "thing", "tripped"))
    return Examples(pictures, look_of, thing, trip)


def _of_look(art: Art, look: Look, base: Base, count: int, tripped: float, side: int, seed: int) -> dict[str, Tensor]:
    """Pictures in one look: ``pictures`` uint8 ``[N,3,side,side]``, and each one's ``thing`` and ``tripped``."""
    rng, draws, size = random.Random(f"judge {seed}"), generator(seed), base.sizes[0]
    names: list[int] = []
    while len(names) < count:
        names += rng.sample(range(len(art.things)), len(art.things))
    parts: list[tuple[Tensor, list[int], bool]] = []
    for start in range(0, count, CALL):
        things = names[start : min(start + CALL, count)]
        families = [look.family or rng.choice([*FAMILIES, OPENMOJI]) for _ in things]
        # References are drawn at twice the tokenizer's size and shrunk.
        large = size * (2 if look.name in HELD_OUT and rng.random() < 0.4 else 1)
        rgba = art.rgba([(f, art.things[t]) for f, t in zip(families, things, strict=True)], large)
        rgba = recoloured(placed(rgba, 0.72, draws), 0.25, draws)
        drawn = shrunk(look(rgba, grounds(len(things), large, 0.6, draws), draws), size)
        parts.append((_bytes(shrunk(drawn, side)), things, False))
        if rng.random() < tripped:
            parts.append((_bytes(shrunk(round_trip(base, drawn), side)), things, True))
    return {
        "pictures": torch.cat([pictures for pictures, _, _ in parts]),
        "thing": torch.tensor([thing for _, things, _ in parts for thing in things]),
        "tripped": torch.tensor([trip for _, things, trip in parts for _ in things]),
    }


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8)


# ---- pictures that differ -----------------------------------------------------------------------


def placed(rgba: Tensor, smallest: float, draws: torch.Generator) -> Tensor:
    """Things ``[B,4,S,S]`` scaled by ``smallest`` to 1, moved within the picture, and mirrored half of the time."""
    B = len(rgba)
    scale = smallest + (1 - smallest) * torch.rand(B, generator=draws)
    move = (2 * torch.rand(B, 2, generator=draws) - 1) * (1 - scale)[:, None] * 0.8
    turn = torch.where(torch.rand(B, generator=draws) < 0.5, -1.0, 1.0)
    theta = torch.zeros(B, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = turn / scale, 1 / scale
    theta[:, 0, 2], theta[:, 1, 2] = -move[:, 0] * turn / scale, -move[:, 1] / scale
    whole = torch.cat((rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]), 1)
    moved = F.grid_sample(whole, F.affine_grid(theta, list(whole.shape), align_corners=False), align_corners=False)
    return torch.cat((moved[:, :3] / moved[:, 3:].clamp(min=1e-3), moved[:, 3:]), 1).clamp(0, 1)


def recoloured(rgba: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """A ``share`` of things ``[B,4,S,S]`` with their hues turned (a rotation about the grey axis)."""
    B = len(rgba)
    angle = 6.2832 * torch.rand(B, generator=draws) * (torch.rand(B, generator=draws) < share)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    third = torch.full((3, 3), 1 / 3)
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    turn = cos * torch.eye(3) + (1 - cos) * third + sin * across
    return torch.cat((torch.einsum("bij,bjhw->bihw", turn, rgba[:, :3]).clamp(0, 1), rgba[:, 3:]), 1)


def grounds(count: int, size: int, white: float, draws: torch.Generator) -> Tensor:
    """Backgrounds ``[count,3,size,size]``, white with probability ``white``.

    The others are of one colour or run from one to another; about half of the colours are near those that the held-out
    styles bring, so that the ground alone gives no style away.
    """
    table = torch.tensor(GROUNDS)[torch.randint(len(GROUNDS), (2, count), generator=draws)]
    near = (table * (0.8 + 0.25 * torch.rand(2, count, 1, generator=draws))).clamp(0, 1)
    chosen = torch.rand(2, count, 1, generator=draws) < 0.5
    two = torch.where(chosen, near, torch.rand(2, count, 3, generator=draws))[..., None, None]
    plain = torch.rand(count, 1, 1, 1, generator=draws) < 0.75
    t = torch.linspace(0, 1, size).view(1, 1, -1, 1) * ~plain
    ground = (two[0] * (1 - t) + two[1] * t).expand(count, 3, size, size)
    return torch.where(torch.rand(count, 1, 1, 1, generator=draws) < white, torch.ones(1), ground)
