"""Scales beyond what a base can use are drawn as its largest, and its presets are its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from conftest import Outcome, Run
from styledrop_cli import StyleDrop
from styledrop_cli.base.base import load_base
from styledrop_cli.base.registry import POCKET_SPEC
from styledrop_cli.io.files import read_json, write_json
from styledrop_cli.io.images import read_png_settings
from styledrop_cli.settings import PRESETS

REACH = POCKET_SPEC.reach


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that goes by the name of the bundled one."""
    folder = tiny.write_base(tmp_path_factory.mktemp("models") / "p", decoder=False)
    write_json(folder / "config.json", read_json(folder / "config.json") | {"name": "pocket"})
    return folder


def settings_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)["settings"]
    return found


def test_a_scale_beyond_reach_is_drawn_as_the_largest_and_said(styledrop: Run, pocket: Path, tiny_model: Path) -> None:
    beyond = ("--lambda-a", "2", "--lambda-b", "9", "--strength", "4", "--steps", "1")
    draw = ("generate", "--base-only", "a cat", "-n", "1", "--json", *beyond, "--model")
    outcome = styledrop(*draw, pocket)
    assert settings_of(outcome).items() >= REACH.items()
    assert all(f"{name} " in outcome.err and "is drawn as" in outcome.err for name in REACH)
    own = styledrop(*draw, tiny_model, "-o", "own")  # nothing is known of its reach
    assert settings_of(own).items() >= {"lambda_a": 2, "lambda_b": 9, "strength": 4}.items()
    assert "is drawn as" not in own.err


def test_a_list_has_no_further_reach(styledrop: Run, pocket: Path) -> None:
    Path("list.txt").write_text("a cat --lambda-a 3\na dog --lambda-a 0.25\n")
    outcome = styledrop(
        "generate", "--base-only", "--prompts", "list.txt", "-n", "1", "--steps", "1", "--model", pocket, "-q"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("is drawn as") == 1
    abouts = [read_png_settings(Path(line)) for line in outcome.out.splitlines() if "sheet" not in line]
    assert [one["lambda_a"] for one in abouts if one] == [REACH["lambda_a"], 0.25]


def test_in_python_a_scale_is_what_it_is(pocket: Path) -> None:
    (picture,) = StyleDrop(load_base(str(pocket), tiny.CPU)).generate("a cat", lambda_a=2.0, steps=1, number=1)
    assert picture.about["lambda_a"] == 2.0


def test_what_suits_the_bundled_base_is_within_its_reach() -> None:
    base = load_base("pocket", tiny.CPU)
    for values in (vars(base.sampling()), *map(base.preset, PRESETS)):
        assert all(values.get(name, 0) <= most for name, most in REACH.items())


def test_a_preset_is_what_it_is_on_the_base(styledrop: Run, pocket: Path, tiny_model: Path) -> None:
    def paper(model: Path) -> dict[str, Any]:
        draw = ("generate", "--base-only", "a cat", "-n", "1", "--json", "--preset", "paper", "--steps", "1")
        return settings_of(styledrop(*draw, "--model", model, "-o", model.name))

    own = PRESETS["paper"] | {"steps": 1}
    assert paper(tiny_model).items() >= own.items()
    assert paper(pocket).items() >= (own | POCKET_SPEC.presets["paper"]).items()


def test_presets_of_rows_change_presets_that_there_are() -> None:
    assert set(POCKET_SPEC.presets) <= set(PRESETS)
    assert all(PRESETS[name].keys() >= values.keys() for name, values in POCKET_SPEC.presets.items())
