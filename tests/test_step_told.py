"""Which step the weights were trained to be told is seen from their own loss."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import step_told
import tiny
from conftest import ROOT
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.corpus.folder import read_corpus
from styledrop_cli.errors import UsageError
from styledrop_cli.models.meissonic import MeissonicCondition, MeissonicTransformer
from styledrop_cli.sampling.masking import TOLD_OF_ALL, random_mask, steps_left
from styledrop_cli.training.loop import masked_cross_entropy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_meissonic(tmp_path_factory.mktemp("meissonic") / "small")


def grids(base: Base) -> Tensor:
    """Twelve pictures that are alike, so that there is something to be learnt of them."""
    draws, side = tiny.generator(5), base.grid
    one = torch.randint(base.codes, (side, side), generator=draws)
    other = torch.rand(12, side, side, generator=draws) < 0.2
    return torch.where(other, torch.randint(base.codes, (12, side, side), generator=draws), one)


CAPTIONS = ["a cat", "a dog"] * 6


def leaning(base: Base, sign: float) -> Base:
    """The base after what reads the step has learnt to make the one loss smaller than the other, on other masks."""
    network, ids, draws = base.transformer, grids(base), tiny.generator(3)
    condition, steps = base.condition(CAPTIONS), base.sampling().steps
    assert isinstance(network, MeissonicTransformer)
    learning = list(network.time_text_embed.timestep_embedder.requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(learning, lr=1e-2)
    for _ in range(12):
        masked = random_mask(len(ids), ids[0].numel(), draws).view(ids.shape)
        share = masked.float().mean((1, 2))
        script, drawing = (
            masked_cross_entropy(network, ids, masked, condition.at(told))
            for told in (TOLD_OF_ALL * share, steps_left(share, steps))
        )
        (sign * (script - drawing)).backward()
        optimizer.step()
        optimizer.zero_grad()
    network.requires_grad_(False)
    return base


@pytest.mark.parametrize(("sign", "preferred"), [(1, "upstream's training script"), (-1, "drawing")])
def test_it_tells_which_step_the_weights_prefer(folder: Path, sign: float, preferred: str) -> None:
    base = leaning(load_base(str(folder), tiny.CPU), sign)
    losses = step_told.measure(base, grids(base), CAPTIONS, 3)
    assert losses.verdict.startswith(f"the weights prefer what {preferred} tells: ")
    assert sign * (losses.drawing.mean() - losses.script.mean()) > 0
    names = [name for name, _ in losses.rows()]
    means = dict(losses.rows())
    assert means[names[0]][0] == pytest.approx(float(losses.script.mean()))
    assert means[names[1]][0] == pytest.approx(float(losses.drawing.mean()))


def test_both_are_told_of_the_same_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, told = load_base(str(folder), tiny.CPU), []
    at = MeissonicCondition.at
    monkeypatch.setattr(MeissonicCondition, "at", lambda self, left: (told.append(left), at(self, left))[1])
    losses = step_told.measure(base, grids(base)[:1], CAPTIONS[:1], 5)
    steps = [left for left in told if isinstance(left, Tensor)]
    share = losses.masked.flatten()
    assert torch.cat(steps[0::2]).tolist() == pytest.approx((1000 * share).tolist())
    assert torch.cat(steps[1::2]).tolist() == steps_left(share, 48).tolist()


def test_weights_to_which_the_step_says_nothing(folder: Path) -> None:
    base = load_base(str(folder), tiny.CPU)
    network = base.transformer
    assert hasattr(network, "time_text_embed")
    network.time_text_embed.timestep_embedder.linear_2.weight.data = torch.zeros(16, 16)
    losses = step_told.measure(base, grids(base), CAPTIONS, 2)
    assert torch.equal(losses.script, losses.drawing)
    assert losses.verdict.startswith("no difference can be told: +0.0000")


def test_the_script(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tiny.write_corpus(Path("pictures"))
    given = ["step_told.py", "--model", str(folder), "--pictures", str(corpus), "--masks", "3", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", given)
    runpy.run_path(str(ROOT / "benchmarks/step_told.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert f"of {len(read_corpus(corpus))} pictures, 3 times each" in out
    assert "as upstream's training script" in out and "as drawing tells it" in out
    assert "no difference can be told" in out or "the weights prefer" in out


def test_a_base_that_is_not_told_the_step(tmp_path: Path) -> None:
    base = load_base(str(tiny.write_published(tmp_path / "amused")), tiny.CPU)
    with pytest.raises(UsageError, match="amused is not told the step"):
        step_told.measure(base, grids(base), CAPTIONS, 1)
