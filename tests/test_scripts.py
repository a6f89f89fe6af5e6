"""The scripts that make the documents' pictures and figures run."""

from __future__ import annotations

import json
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from styledrop_cli import StyleDrop, settings
from styledrop_cli.errors import UsageError

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


def test_bars(
    tiny_model: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.shrink_bench(monkeypatch)
    art = tiny.write_bench_art(Path("art"))
    Path("pictures").mkdir()
    picture.rename("pictures/one.png")
    given = ("--model", tiny_model, "--art", art, "--pictures", "pictures", "--every", 4, "--seeds", 1, "-o", "out")
    run("benchmarks/bars.py", *given, monkeypatch=monkeypatch)
    figures = json.loads(Path("out/bars.json").read_text())["figures"]
    # 64x64 ids of 24 codes: this tokenizer makes 4 px an id.
    assert figures["bytes of a picture's ids at 256 px"] == int(64 * 64 * 4.58496 / 8)
    assert figures["WebP at equal bytes, dB"] > figures["tokenizer, pictures at 256 px, dB"]  # of an untrained one
    assert "WebP" in capsys.readouterr().out and Path("out/outside-words.png").exists()


@pytest.fixture(scope="module")
def bars() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "bars.py"))


def test_webp_keeps_to_its_bytes(bars: dict[str, Any]) -> None:
    noise = (torch.rand(256, 256, 3, generator=tiny.generator()) * 255).byte().numpy()
    image, best = Image.fromarray(noise), bars["best_webp"]
    assert best(image, 400) < best(image, 4000) < best(image, 60000)


# Of the words outside the names, those that have become names since.
TAUGHT_SINCE = {
    "a boar", "a lime", "a poodle", "a ram", "a rat", "a sandwich", "a stopwatch", "a van", "a cupcake", "an orca",
    "a minibus", "toast",
}  # fmt: skip


def test_words_outside_are_outside(bars: dict[str, Any]) -> None:
    asked = bars["read_outside"](bars["WORDS"])
    assert len(asked) == 60 == len(dict(asked))
    recipe = runpy.run_path(str(ROOT / "examples" / "pocket" / "make_corpus.py"))
    known = {words[0] for words in recipe["table"]("words.txt").values()}
    # Pocket 3 is taught these by name; the figure is of the others.
    assert known & {words for words, _ in asked} == TAUGHT_SINCE
    outlines = {Path(c.file).stem for c in recipe["chosen"](None) if c.outline}
    assert {thing for _, things in asked for thing in things} <= outlines


def test_pictures_that_are_not_there(bars: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures"):
        bars["pictures_in"](tmp_path)


def test_notebook(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Cell by cell, as an editor runs it: in one namespace, on a tiny base."""
    load = StyleDrop.load
    monkeypatch.setattr(StyleDrop, "load", lambda model: load(str(tiny_model) if model == "pocket" else model))
    run("examples/notebook.py", "out", 2, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert "learnt watercolor and flat illustration" in said
    assert "add up to 1.8" in said
    names = {path.name for path in Path("out").glob("*.png")}
    assert {"a-cat-0.png", "a-cat-1.png", "careful-a-rocket-7.png", "mixed-a-tree-0.png"} < names
