"""The calibrated likeness of style: its laws, and what it knows on pocket's own CLIPs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.io.contact_sheet import read_tiles
from styledrop_cli.judging.clip_scorer import open_scorer
from styledrop_cli.judging.csls import BANK, NEIGHBOURS, RIDGE, SIDE, Calibration


class Fake:
    """An clip_scorer that sees nothing but a picture's mean colours at four places."""

    def picture_embeds(self, pictures: Tensor) -> Tensor:
        return F.normalize(F.interpolate(pictures, (2, 2), mode="area").flatten(1) - 0.5, dim=-1)

    def text_embeds(self, texts: list[str]) -> Tensor:
        raise NotImplementedError

    def chances(self, pictures: Tensor, texts: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.fixture(scope="module")
def bank() -> Tensor:
    """uint8 ``[styles,things,3,64,64]``."""
    return read_tiles(BANK, SIDE)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration(Fake())


def seen(pictures: Tensor) -> Tensor:
    return Fake().picture_embeds(pictures.float() / 255)


def test_the_bank_holds_every_style_pocket_was_taught_and_no_more(bank: Tensor) -> None:
    from styledrop_cli.corpus.styles import STYLES

    families = 4
    assert bank.shape == (families + len(STYLES), 32, 3, SIDE, SIDE)
    assert not set(STYLES) & {"stained-glass", "risograph", "cross-stitch", "gold", "openmoji"}
    assert bank.float().std((-1, -2)).amax(-1).gt(2).float().mean() > 0.99  # something is drawn


def test_it_is_csls_in_the_space_where_things_are_shrunk(calibration: Calibration, bank: Tensor) -> None:
    """The formula, written out with numpy-like steps on one pair."""
    whole = seen(bank.flatten(0, 1)).double().view(*bank.shape[:2], -1)
    mean, apart = whole.mean((0, 1)), (whole - whole.mean(1, keepdim=True)).flatten(0, 1)
    values, vectors = torch.linalg.eigh(apart.T @ apart / len(apart))
    shrink = vectors @ torch.diag((values.clamp(min=0) + RIDGE * values.mean()) ** -0.5)

    def shrunk(embeds: Tensor) -> Tensor:
        return F.normalize((embeds.double() - mean) @ shrink, dim=-1)

    x, y, others = shrunk(whole[3, 5]), shrunk(whole[9, 1]), shrunk(whole.flatten(0, 1))
    usual = [(others @ one).sort(descending=True).values[:NEIGHBOURS].mean() for one in (x, y)]
    wanted = 2 * x @ y - usual[0] - usual[1]
    found = calibration.likeness(whole[3, 5][None].float(), whole[9, 1][None].float())
    assert float(found) == pytest.approx(float(wanted), abs=1e-5)


def test_laws(calibration: Calibration) -> None:
    noise = (
        torch.randint(256, (6, 3, 64, 64), generator=tiny.generator(3)) * torch.linspace(0.3, 1, 6)[:, None, None, None]
    )
    a, b = seen(noise[:4]), seen(noise[4:])
    likeness = calibration.likeness(a, b)
    assert likeness.shape == (4,)
    assert (likeness.abs() <= 4).all()
    # Order changes nothing, each picture stands alone, and the nearest reference counts.
    assert torch.allclose(calibration.likeness(a.flip(0), b).flip(0), likeness)
    assert torch.allclose(calibration.likeness(a[1:2], b), likeness[1:2])
    assert torch.allclose(calibration.likeness(a, b.flip(0)), likeness)
    assert torch.allclose(torch.maximum(calibration.likeness(a, b[:1]), calibration.likeness(a, b[1:])), likeness)
    # Symmetric, and nothing is more like a picture than itself.
    assert torch.allclose(calibration.likeness(a[:1], b[:1]), calibration.likeness(b[:1], a[:1]))
    assert (calibration.likeness(a, a) >= likeness).all()


def test_how_far_it_is_is_told() -> None:
    heard: list[float] = []
    Calibration(Fake(), lambda share, note: heard.append(share))
    assert heard == sorted(heard)
    assert heard[-1] == 1


# ---- with scorers that see ----


@pytest.fixture(scope="module")
def pocket() -> Base:
    return load_base("pocket", tiny.CPU)


@pytest.mark.parametrize("name", ["clip", "scorer"])
def test_it_tells_a_style_from_a_thing(pocket: Base, bank: Tensor, name: str) -> None:
    """A neon thing is nearer to another neon thing than to the same thing in another style."""
    from styledrop_cli.corpus.styles import STYLES

    clip_scorer = open_scorer(pocket, name)
    calibration = Calibration(clip_scorer)
    things = [0, 4, 9, 16]
    better = {"raw": 0, "csls": 0}
    pairs = 0
    for style in ("neon", "wood", "pencil", "mosaic"):
        row = 4 + list(STYLES).index(style)
        for thing in things:
            reference = clip_scorer.picture_embeds(bank[row, thing][None].float() / 255)
            same_style = clip_scorer.picture_embeds(bank[row, [t for t in things if t != thing]].float() / 255)
            same_thing = clip_scorer.picture_embeds(
                bank[[r for r in range(len(bank)) if r != row], thing].float() / 255
            )
            for measure, score in (("raw", lambda x, y: (x @ y.T)[:, 0]), ("csls", calibration.likeness)):
                wins = score(same_style, reference)[:, None] > score(same_thing, reference)[None]
                better[measure] += int(wins.sum())
            pairs += wins.numel()
    assert better["csls"] > better["raw"]
    assert better["csls"] / pairs > 0.85


def test_a_picture_against_itself_noise_and_another_style(pocket: Base, bank: Tensor) -> None:
    calibration, clip_scorer = Calibration(pocket), pocket
    neon = bank[13].float() / 255
    reference = clip_scorer.picture_embeds(neon[:1])
    itself, other_thing, other_style, noise = (
        float(calibration.likeness(clip_scorer.picture_embeds(p[None]), reference))
        for p in (neon[0], neon[4], bank[3, 0].float() / 255, torch.rand(3, 64, 64, generator=tiny.generator()))
    )
    assert itself > other_thing > max(other_style, noise)
    assert itself > 0
    assert noise < 0
