"""Which layers carry what is measured with one adapter, layer by layer."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import style_layers
import tiny
from conftest import ROOT, Run
from styledrop_cli.adapters.file import open_adapter
from styledrop_cli.adapters.header import AdapterFile, load_adapter
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import UsageError

LEARN = ("--style", "ink", "--content", "a cat", "--steps", "3", "--checkpoints", "0", "-q")


@pytest.fixture
def base(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    """Of three layers."""
    tiny.shrink_rounds(monkeypatch)
    return load_base(str(tiny_model), tiny.CPU)


def learnt(styledrop: Run, picture: Path, tiny_model: Path, *more: str) -> AdapterFile:
    assert styledrop("train", picture, *LEARN, "--model", tiny_model, "-o", "a.safetensors", *more).code == 0
    return load_adapter(Path("a.safetensors"))


def test_the_rows() -> None:
    assert style_layers.rows_of(3, []) == {
        "all layers": (1, 2, 3),
        "without 1": (2, 3),
        "without 2": (1, 3),
        "without 3": (1, 2),
        "only 1": (1,),
        "only 2": (2,),
        "only 3": (3,),
    }
    assert style_layers.rows_of(3, ["2-3", "all"]) == {
        "all layers": (1, 2, 3),
        "only 2-3": (2, 3),
        "only all": (1, 2, 3),
    }


@pytest.mark.parametrize("kind", ["bottleneck", "lora", "prompt"])
def test_masked_it_is_the_adapter_of_those_layers(
    base: Base, styledrop: Run, picture: Path, tiny_model: Path, kind: str
) -> None:
    """With all of them it is the adapter itself; without a layer it is as if that one had learnt nothing."""
    adapter = open_adapter(base, learnt(styledrop, picture, tiny_model, "--kind", kind, "--width", "1")).base
    tiny.randomise(adapter, 1)
    sampling = base.sampling(steps=2, lambda_a=1.0)

    def drawn(layers: tuple[int, ...]) -> torch.Tensor:
        some = style_layers.InLayers(adapter, base.transformer, layers)
        return base.sample(["a dog"] * 8, list(range(8)), sampling, some)

    assert torch.equal(drawn((1, 2, 3)), base.sample(["a dog"] * 8, list(range(8)), sampling, adapter))
    assert not torch.equal(drawn((2, 3)), drawn((1, 2, 3)))
    if kind != "lora":  # which is also outside of the layers
        assert torch.equal(drawn(()), base.sample(["a dog"] * 8, list(range(8)), sampling))


def test_the_command(base: Base, styledrop: Run, picture: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch,
                     capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    file = learnt(styledrop, picture, tiny_model)
    rows = style_layers.measure(base, [file, file], [], "clip", 2, 3)
    assert [row.name for row in rows] == list(style_layers.rows_of(3, []))
    assert {values.shape for row in rows for values in row.scores.values()} == {(2, 3, 2)}
    assert all(torch.equal(values[0], values[1]) for row in rows for values in row.scores.values())
    asked = ["style_layers.py", "a.safetensors", "--model", str(tiny_model), "--scorer", "clip", "--prompts", "2"]
    monkeypatch.setattr(sys, "argv", [*asked, "--layers", "2-3", "--sheet", "sheet.png"])
    capsys.readouterr()
    runpy.run_path(str(ROOT / "benchmarks" / "style_layers.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "| all layers " in shown and "| only 2-3 " in shown and "leak" in shown
    assert Path("sheet.png").stat().st_size > 1000


def test_what_cannot_be_measured(base: Base, styledrop: Run, picture: Path, tiny_model: Path) -> None:
    file = learnt(styledrop, picture, tiny_model)
    with pytest.raises(UsageError, match="'only 3-4' names a layer that tiny has not"):
        style_layers.measure(base, [file], ["3-4"], "clip", 1, 2)
    some = learnt(styledrop, picture, tiny_model, "--layers", "1-2", "--overwrite")
    with pytest.raises(UsageError, match="is in some layers only"):
        style_layers.measure(replace(base), [some], [], "clip", 1, 2)
