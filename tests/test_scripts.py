"""The scripts that make the documents' pictures and figures run."""

from __future__ import annotations

import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from styledrop_cli import settings

ROOT = Path(__file__).parents[1]


def run(script: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    return runpy.run_path(str(ROOT / script), run_name="__main__")


def test_show(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = partial(settings.TrainSettings, steps=1, views=2, checkpoints=0, superres_steps=1)
    monkeypatch.setattr(settings, "TrainSettings", quick)
    monkeypatch.setattr(settings, "SampleSettings", partial(settings.SampleSettings, size=128, steps=2))
    made = run("examples/show.py", "sheet.png", monkeypatch=monkeypatch)
    with Image.open("sheet.png") as sheet:
        columns, rows = len(made["PROMPTS"]) + 1, len(made["REFERENCES"])
        assert sheet.width / sheet.height == pytest.approx(columns / rows, rel=0.2)
    assert {name for name, _, _ in made["REFERENCES"]} == {p.name for p in (ROOT / "examples").glob("*.png")}


def test_recognised(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("benchmarks/recognised.py", "--model", tiny_model, "--every", "3", monkeypatch=monkeypatch)
    assert "%" in capsys.readouterr().out
