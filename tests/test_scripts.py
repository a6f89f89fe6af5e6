"""The scripts that make the documents' pictures and figures run."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
import tiny_bench
from conftest import ROOT
from styledrop_cli import StyleDrop, settings
from styledrop_cli.base.known_things import Thing, write_things
from styledrop_cli.errors import UsageError


def run(script: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    monkeypatch.syspath_prepend((ROOT / script).parent)  # as Python does for a script
    return runpy.run_path(str(ROOT / script), run_name="__main__")


def test_show(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = partial(settings.TrainSettings, steps=1, views=2, checkpoints=0, superres_steps=1)
    monkeypatch.setattr(settings, "TrainSettings", quick)
    monkeypatch.setattr(settings, "SampleSettings", partial(settings.SampleSettings, size=128, steps=2))
    made = run("examples/show.py", "sheet.png", monkeypatch=monkeypatch)
    with Image.open("sheet.png") as sheet:
        columns, rows = len(made["PROMPTS"]) + 1, len(made["REFERENCES"])
        assert sheet.width / sheet.height == pytest.approx(columns / rows, rel=0.2)
    assert {name for name, _, _ in made["REFERENCES"]} == {
        p.name for p in (ROOT / "examples").glob("*.png") if p.name != "hat_mask.png"
    }


def test_recognised(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    alone = ("--model", tiny_model, "--every", "3")
    run("benchmarks/recognised.py", *alone, monkeypatch=monkeypatch)
    by_its_own = capsys.readouterr().out
    assert "%" in by_its_own
    run("benchmarks/recognised.py", *alone, "--judge", tiny_model, monkeypatch=monkeypatch)
    assert capsys.readouterr().out == by_its_own
    known = Path(shutil.copytree(tiny_model, "known"))
    (known / "contents.txt").write_text("a cat\na dog\n")
    write_things(known / "things.jsonl", [Thing("dog", ("a dog",)), Thing("cat", ("a cat",))])
    index = Path("index.jsonl")
    index.write_text('{"file": "noto/dog-face.webp", "thing": "dog"}\n{"file": "noto/cat-face.webp", "thing": "cat"}\n')
    run("benchmarks/recognised.py", "--model", known, "--outside", index, monkeypatch=monkeypatch)
    # Of two names either is among five: every word for which one of them is accepted is right.
    words = [line for line in (ROOT / "benchmarks/outside_words.txt").read_text().splitlines() if line[:1] != "#"]
    right = sum(bool({"dog-face", "cat-face", "dog", "cat"} & set(line.split(":")[1].split())) for line in words)
    assert f"{len(words)} words outside the names: accepted first" in (said := capsys.readouterr().out)
    assert f"in five {right / len(words):.1%}" in said


def test_bars(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bench.shrink_bench(monkeypatch)
    art = tiny_bench.write_bench_art(Path("art"))
    given = ("--model", tiny_model, "--art", art, "--every", 4, "--seeds", 1, "-o", "out")
    run("benchmarks/bars.py", *given, monkeypatch=monkeypatch)
    figures = json.loads(Path("out/bars.json").read_text())["figures"]
    assert figures["base: top-1 as a share of the ceiling"] >= 0
    assert "ceiling" in capsys.readouterr().out and Path("out/outside-words.png").exists()


def test_grounds_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("art").mkdir()
    whole = Image.new("RGBA", (128, 128))
    whole.paste((40, 60, 190, 255), (20, 20, 108, 108))
    whole.paste((0, 0, 0, 0), (50, 50, 78, 78))
    whole.save("art/frame.png")
    Path("art/index.jsonl").write_text('{"file": "frame.png", "thing": "frame"}\n')
    run("benchmarks/transparent.py", "art", "--number", 1, "--out", "figures.json", monkeypatch=monkeypatch)
    figures = json.loads(Path("figures.json").read_text())
    assert {"white", "wash", "soft", "watercolor"} <= figures.keys()
    colour = figures["one colour"]
    assert colour["iou"] > 0.98 and colour["error"] < 0.01 and colour["edge"] < 20
    assert colour["found"] > 0.9 * colour["holes"] > 0 and figures["white"]["found"] == 0


def write_icons(folder: Path, family: str, icons: Sequence[str]) -> None:
    """A family of icons as npm has it: circles of different colours."""
    bodies = {
        name: {"body": f'<circle cx="8" cy="8" r="6" fill="hsl({number * 40} 80% 50%)"/>'}
        for number, name in enumerate(icons)
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{family}-icons.json").write_text(json.dumps({"width": 16, "height": 16, "icons": bodies}))


def test_parts(
    tiny_model: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("resvg_py", reason="draws icons; it comes with the extra 'pocket'")
    Path("pictures").mkdir()
    picture.rename("pictures/one.png")
    tiny.write_words(Path("words"), [Thing("cat", ("a cat",), kinds=("lynx",)), Thing("dog", ("a dog",))])
    model = Path("model")
    shutil.copytree(tiny_model, model)  # the other tests' stays as it is
    (model / "contents.txt").write_text("a cat\na dog\n")
    entries = [{"file": f"noto/{icon}.webp", "thing": thing} for icon, thing in (("cat-face", "cat"), ("dog", "dog"))]
    Path("index.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    for family in ("openmoji", "fxemoji", "emojione", "noto-v1"):
        write_icons(Path("work"), family, ["cat-face", "dog"])
    given = (
        tiny_model,
        "words",
        "--index",
        "index.jsonl",
        "--work",
        "work",
        "--pictures",
        "pictures",
        "-o",
        "out.json",
    )
    run("benchmarks/parts.py", *given, monkeypatch=monkeypatch)
    whole, words = json.loads(Path("out.json").read_text()).values()
    # 64x64 ids of 24 codes: this tokenizer makes 4 px an id.
    assert whole["WebP of as many bytes"].endswith(f" dB in {int(64 * 64 * 4.58496 / 8):,}")
    assert whole["clip, right name first, fxemoji"] in ("0.0% of 2", "50.0% of 2", "100.0% of 2")
    assert words["text, words outside the names"].endswith("% of 60") and "text" not in "".join(whole)
    assert "| tokenizer, OpenMoji at 128 px " in capsys.readouterr().out


def test_guesses(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("resvg_py", reason="draws icons; it comes with the extra 'pocket'")
    shutil.copytree(tiny_model, "model")  # the other tests' stays as it is
    Path("model/contents.txt").write_text("a cat\na dog\n")
    entries = [{"file": f"noto/{thing}.webp", "thing": thing} for thing in ("cat", "dog")]
    Path("index.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    for family in ("openmoji", "fxemoji", "emojione", "noto-v1"):
        write_icons(Path("work"), family, ["cat", "dog"])
    given = ("--model", "model", "--index", "index.jsonl", "--work", "work", "-o", "out.json")
    made = run("benchmarks/guesses.py", *given, monkeypatch=monkeypatch)
    found = json.loads(Path("out.json").read_text())["guesses"]
    assert len(found["icons on white"]) == len(found["icons as gold"]) == 2 * 4
    assert len(found["reference pictures"]) == 6
    assert "guess_from of tiny: " in capsys.readouterr().out
    trusted_from = made["trusted_from"]
    mostly_right = {"white": [(0.9, True)] * 40 + [(0.5, False)] * 40, "gold": [(0.95, True)] * 10}
    assert trusted_from(mostly_right) == 0.75
    assert trusted_from(mostly_right | {"glass": [(1.0, False)]}) is None  # the worst kind of picture decides
    assert trusted_from({"white": [(0.9, True)] * 20}) is None  # so few say nothing


def test_fidelity(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A row of each picture, the ones that lose most first, and a sheet that shows each beside what is left."""
    given = (ROOT / "examples" / "logo.png", "--drawn", "--model", tiny_model, "-o", "sheet.png")
    run("benchmarks/fidelity.py", *given, monkeypatch=monkeypatch)
    lines = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert {line[0].strip() for line in lines} == {"logo", "thin lines", "bold lines", "small text", "large letters"}
    edges = [float(line[1]) for line in lines]
    assert edges == sorted(edges)
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 6 * 170


@pytest.fixture
def bench_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return lambda name: runpy.run_path(str(ROOT / "benchmarks" / name))


def test_webp_keeps_to_its_bytes(bench_script: Callable[[str], dict[str, Any]]) -> None:
    noise = (torch.rand(256, 256, 3, generator=tiny.generator()) * 255).byte().numpy()
    image, best = Image.fromarray(noise), bench_script("parts.py")["best_webp"]
    assert best(image, 400) < best(image, 4000) < best(image, 60000)


# Of the words outside the names, those that have become names since.
TAUGHT_SINCE = {
    "a boar", "a lime", "a poodle", "a ram", "a rat", "a sandwich", "a stopwatch", "a van", "a cupcake", "an orca",
    "a minibus", "toast",
}  # fmt: skip


def test_words_outside_are_outside(bench_script: Callable[[str], dict[str, Any]]) -> None:
    bars = bench_script("bars.py")
    asked = bars["read_outside"](bars["WORDS"])
    assert len(asked) == 60 == len(dict(asked))
    recipe = runpy.run_path(str(ROOT / "examples" / "pocket" / "make_corpus.py"))
    known = {words[0] for words in recipe["table"]("words.txt").values()}
    # Pocket 3 is taught these by name; the figure is of the others.
    assert known & {words for words, _ in asked} == TAUGHT_SINCE
    outlines = {Path(c.file).stem for c in recipe["chosen"](None) if c.outline}
    assert {thing for _, things in asked for thing in things} <= outlines


def test_pictures_that_are_not_there(bench_script: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures"):
        bench_script("parts.py")["pictures_in"](tmp_path)


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
