"""Parts of a base are in memory one after the other, and half as large where they are drawn with in bfloat16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from styledrop_cli import devices
from styledrop_cli.base import base as base_module
from styledrop_cli.base import sample
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.published import open_published
from styledrop_cli.generation import pipeline
from styledrop_cli.models.tokenizer import ImageTokenizer

PICTURES = ["a cat", "a dog"]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with bfloat16."""
    for module in (devices, base_module, sample):
        monkeypatch.setattr(module, "fast_bfloat16", lambda device: True)


def held_while_drawing(base: Base, precision: str, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Which parts are in memory when ids become pixels, for each of some pictures, and which at the end."""
    held: list[set[str]] = []
    decode = ImageTokenizer.decode

    def noted(self: ImageTokenizer, ids: torch.Tensor) -> torch.Tensor:
        held.append(set(base.parts._here))
        return decode(self, ids)

    monkeypatch.setattr(ImageTokenizer, "decode", noted)
    settings = base.sampling(steps=2, precision=precision)
    wanted = [pipeline.PictureRequest(prompt, 0, settings) for prompt in PICTURES]
    assert len(list(pipeline.draw(base, pipeline.StyleMix(), wanted))) == len(wanted)
    return [*held, set(base.parts._here)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32 files", "fp16 files"])
def test_parts_are_there_in_turn(
    tmp_path: Path, half: bool, precision: str, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(tiny.write_meissonic(tmp_path / "model", half=half)), tiny.CPU)
    assert held_while_drawing(base, precision, monkeypatch) == [{"tokenizer"}, {"tokenizer"}, set()]


def test_what_draws_fast_is_not_loaded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture by aMUSEd takes seconds, and to convert its fp16 files one more: only mapped ones are let go."""
    base = load_base(str(tiny.write_published(tmp_path / "model", half=True)), tiny.CPU)
    every = {"clip", "transformer", "tokenizer"}
    assert held_while_drawing(base, "fp32", monkeypatch) == [every] * 3


def test_a_large_card_keeps_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_module, "is_large", lambda device: True)
    base = load_base(str(tiny.write_meissonic(tmp_path / "model", half=True)), tiny.CPU)
    assert not any(part.in_turn for part in base.parts.known.values())
    assert base.batch == 1
    on_card = replace(base, device=torch.device("cuda"))
    assert on_card.batch > 1
    monkeypatch.setattr(base_module, "is_large", lambda device: False)
    assert on_card.batch == 1


@pytest.mark.parametrize("half", [False, True], ids=["fp32 files", "fp16 files"])
@pytest.mark.parametrize("write", [tiny.write_published, tiny.write_meissonic], ids=["amused", "meissonic"])
def test_loaded_in_bfloat16_is_as_cast(tmp_path: Path, write: Any, half: bool, fast: None) -> None:
    """Read in bfloat16 at once, a network has the tensors that it has when it is cast afterwards."""
    part = open_published(write(tmp_path / "model", half=half)).parts["transformer"]
    wanted = devices.cast_once(part.load(), tiny.CPU).state_dict()
    made = part.load(halved=True).state_dict()
    assert {name: tensor.dtype for name, tensor in made.items()} == {n: t.dtype for n, t in wanted.items()}
    assert {torch.float32, torch.bfloat16} == {tensor.dtype for tensor in made.values()}
    assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())
