"""Art and judges of seconds for the comparison with known truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import tiny
from paired import comparisons, judges, rows
from paired import run as paired_run
from paired.art import FAMILIES
from paired.judges import JudgeSettings
from paired.openmoji import OPENMOJI
from paired.rows import OUTLINES

# Prompts, two references of each style, and one thing that is neither.
BENCH_THINGS = (
    "cat-face", "house", "fish", "owl", "sailboat", "dog-face", "airplane", "fox", "penguin", "castle", "elephant",
    "bicycle", "bear",
)  # fmt: skip


def write_bench_art(folder: Path) -> Path:
    """Art to measure with: a shape tells the thing, its colours the family."""
    for family, of_family in enumerate((*FAMILIES, OPENMOJI)):
        (folder / of_family).mkdir(parents=True)
        for number, thing in enumerate(BENCH_THINGS):
            image = Image.new("RGBA", (64, 64))
            colour = (40 + 50 * family, 230 - 45 * family, 60 + 20 * number, 255)
            ImageDraw.Draw(image).regular_polygon(
                (32, 32, 26), 3 + number, rotation=15 * number, fill=colour, outline=(0, 0, 0, 255)
            )
            image.save(folder / of_family / f"{thing}.webp", lossless=True)
    called = {thing: [f"{'an' if thing[0] in 'aeo' else 'a'} {thing.removesuffix('-face')}"] for thing in BENCH_THINGS}
    said = {"families": {name: [words] for name, words in FAMILIES.items()}, "outlines": [*OUTLINES]}
    (folder / "art.json").write_text(json.dumps(said | {"things": called}), encoding="utf-8")
    return folder


def shrink_bench(monkeypatch: pytest.MonkeyPatch) -> JudgeSettings:
    """Judges of seconds, small references, two steps a picture, and short rounds; the judges' settings."""
    sizes = {"style_side": 16, "content_side": 8, "style_width": 4, "content_width": 4}
    small = JudgeSettings(renders=80, style_passes=1, content_passes=1, batch=16, held_out=0.3, **sizes)
    for module in (judges, paired_run):
        monkeypatch.setattr(module, "JudgeSettings", lambda: small)
    monkeypatch.setattr(rows, "REFERENCE_SIZE", 64)
    for module in (comparisons, rows):
        monkeypatch.setattr(module, "SampleSettings", tiny.QuickSampleSettings)
    monkeypatch.setattr(comparisons, "RoundSettings", tiny.QuickRoundSettings)
    monkeypatch.setitem(comparisons.KINDS, "round", tiny.QuickRoundSettings)
    return small
