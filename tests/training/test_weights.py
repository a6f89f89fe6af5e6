"""Several references, each with a weight: how often it is learnt from, and where that is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from conftest import Outcome, Run, draw
from styledrop_cli.adapters.examples import TrainingViews, turns_by_weight
from styledrop_cli.adapters.file import examples_of
from styledrop_cli.adapters.header import AdapterFile, load_adapter
from styledrop_cli.adapters.merge import merge, read_parts
from styledrop_cli.base.base import Base
from styledrop_cli.cli.load import read_weighted
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import TrainSettings, checked_weights
from styledrop_cli.training.adapter import train_adapter, train_on_picks

SETTINGS = TrainSettings(steps=4, batch_size=3, width=1, views=4, checkpoints=0, superres_steps=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.base(tmp_path_factory.mktemp("base") / "tiny")


def pictures(*names: str) -> list[Path]:
    made = []
    for number, name in enumerate(names):
        image = draw(48, 32)
        image.paste((50 * number, 20 * len(name), 80), (0, 0, 24, 16))
        image.save(name)
        made.append(Path(name))
    return made


def train(base: Base, weights: Sequence[float] | None, output: str = "a.safetensors", **given: Any) -> AdapterFile:
    train_adapter(
        base,
        pictures=pictures("a.png", "b.png"),
        style="ink",
        contents=["a cat", "a dog"],
        weights=weights,
        settings=given.pop("settings", SETTINGS),
        output=Path(output),
        **given,
    )
    return load_adapter(Path(output))


# ---- whose turn it is ----


@pytest.mark.parametrize("weights", [(2.0, 1.0), (1.0, 3.0, 1.0), (0.7, 0.2, 0.1), (1000.0, 0.5), (5, 1, 1, 1, 1, 7)])
def test_each_has_its_share_of_any_number_of_turns(weights: tuple[float, ...]) -> None:
    number = 3000
    owners = turns_by_weight(weights, torch.arange(number))
    counts = torch.nn.functional.one_hot(owners, len(weights)).cumsum(0)
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    wanted = torch.arange(1, number + 1)[:, None] * shares
    assert float((counts - wanted).abs().max()) <= (len(weights) + 1) / 2


@pytest.mark.parametrize("weights", [(2.0, 1.0), (0.3, 0.3, 0.4), (1.0, 0.001)])
def test_a_turn_does_not_depend_on_what_is_asked_beside_it(weights: tuple[float, ...]) -> None:
    """So a resumed training takes what the whole one would have taken."""
    whole = turns_by_weight(weights, torch.arange(5000))
    for first, number in ((0, 1), (1, 8), (997, 16), (4992, 8)):
        assert torch.equal(turns_by_weight(weights, torch.arange(first, first + number)), whole[first : first + number])


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_equal_ones_come_in_turn(number: int) -> None:
    turns = torch.arange(100)
    assert torch.equal(turns_by_weight([0.3] * number, turns), turns % number)


def test_only_their_proportion_counts() -> None:
    turns = torch.arange(500)
    assert torch.equal(turns_by_weight((2, 1), turns), turns_by_weight((4, 2), turns))


def test_views_are_drawn_by_weight() -> None:
    views = {"views.ids": torch.zeros(9, 4, 4).short(), "views.picture": torch.tensor([0, 0, 1, 1, 1, 2, 3, 4, 5])}
    examples = TrainingViews(views, list("abcdef"), 2, (3.0, 1.0))
    rows = examples.rows(torch.arange(800), tiny.generator())
    counts = torch.bincount(views["views.picture"][rows], minlength=6).tolist()
    # Every other turn is a reference's, and of those three of four are the first one's.
    assert counts == [300, 100, 100, 100, 100, 100]


# ---- trainings ----


def test_equal_weights_train_as_none(base: Base) -> None:
    one = train(base, None)
    for weights in ([1, 1], [0.3, 0.3]):
        other = train(base, weights, "b.safetensors")
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
        assert list(other.header.written) == list(one.header.written)
        assert "weights" not in other.header.written


def test_other_weights_train_otherwise_and_are_written_down(base: Base) -> None:
    files = {weights: train(base, weights) for weights in (None, (2, 1), (1, 2))}
    ups = {weights: file.tensors["adapter.up"] for weights, file in files.items()}
    assert not torch.equal(ups[None], ups[2, 1])
    assert not torch.equal(ups[1, 2], ups[2, 1])
    assert files[2, 1].header.weights == [2.0, 1.0]
    assert examples_of(files[2, 1]).weights == (2.0, 1.0)
    assert torch.equal(train(base, (2, 1)).tensors["adapter.up"], ups[2, 1])


def test_a_stopped_run_with_other_weights_is_told_so(base: Base) -> None:
    def stop(step: int, total: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    whole = train(base, [2, 1], "whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train(base, [2, 1], on_step=stop)
    for weights, now in ((None, "1.0, 1.0"), ([3, 1], "3.0, 1.0")):
        with pytest.raises(UsageError, match=rf"weights: \[2.0, 1.0\] there, \[{now}\] now"):
            train(base, weights)
    assert torch.equal(train(base, [2, 1]).tensors["adapter.up"], whole.tensors["adapter.up"])


def test_a_run_of_before_there_were_weights_goes_on(base: Base) -> None:
    def stop(step: int, total: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(base, None, on_step=stop)
    path = Path("a.safetensors.run/run.json")
    said = json.loads(path.read_text("utf-8"))
    assert said["settings"].pop("weights") == [1.0, 1.0]
    path.write_text(json.dumps(said), "utf-8")
    with pytest.raises(UsageError, match="weights"):
        train(base, [2, 1])
    train(base, None)


def test_a_round_of_feedback_keeps_them(base: Base) -> None:
    parent = train(base, [3, 1])
    train_on_picks(
        base,
        parent,
        ids=torch.zeros(2, 4, 4, dtype=torch.long),
        contents=["a house", "a cat"],
        settings=replace(SETTINGS, steps=1),
        output=Path("round.safetensors"),
        about={"number": 2, "feedback": "clip", "picks": []},
    )
    made = load_adapter(Path("round.safetensors"))
    assert made.header.weights == [3.0, 1.0]
    assert examples_of(made).weights == (3.0, 1.0)


def test_merged_they_keep_their_proportions(base: Base) -> None:
    train(base, [3, 1], "a.safetensors")
    train(base, None, "b.safetensors")
    merge(
        base, read_parts([Path("a.safetensors"), Path("b.safetensors")]), style="ink", output=Path("both.safetensors")
    )
    both = load_adapter(Path("both.safetensors"))
    assert both.header.weights == [1.5, 0.5, 1.0, 1.0]
    assert examples_of(both).weights == (1.5, 0.5, 1.0, 1.0)
    merge(base, read_parts([Path("b.safetensors")]), style="ink", output=Path("alone.safetensors"))
    assert "weights" not in load_adapter(Path("alone.safetensors")).header.written


# ---- what is written on the command line ----


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), 1e-9, 5000])
def test_weights_out_of_range(weight: float) -> None:
    with pytest.raises(UsageError, match=r"between 0.001 and 1,000, not .+ \(b.png\)"):
        checked_weights([1, weight], ["a.png", "b.png"])


def test_one_for_each() -> None:
    with pytest.raises(UsageError, match="2 pictures but 1 weights"):
        checked_weights([1], ["a.png", "b.png"])


def test_pictures_whose_names_hold_colons() -> None:
    for name in ("a.png", "a:b.png", "c:3", "d.png:2"):
        draw(8, 8).save(name, "PNG")
    read = {
        "a.png:2": ("a.png", 2.0),
        "a:b.png:0.5": ("a:b.png", 0.5),
        "c:3:1e-1": ("c:3", 0.1),
        "d.png:2:4": ("d.png:2", 4.0),
        "missing.png:3": ("missing.png", 3.0),
    }
    for word, (path, weight) in read.items():
        assert read_weighted([word], "weight", "picture") == ([Path(path)], [weight])
    for word in ("a.png", "a:b.png", "c:3", "d.png:2", "C:\\missing.png", ":2"):
        assert read_weighted([word], "weight", "picture") == ([Path(word)], None)


TRAIN = ("--style", "ink", "--content", "a cat", "--content", "a dog")


@pytest.fixture
def go(styledrop: Run, tiny_model: Path) -> Any:
    pictures("a.png", "b.png")
    few = ("--steps", "2", "--checkpoints", "0", "--model", str(tiny_model))
    return lambda *words: styledrop("train", *words, *few)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a.png:0", "b.png:1"), "must be between 0.001 and 1,000, not 0 (a.png)"),
        (("a.png:-2", "b.png:1"), "not -2 (a.png)"),
        (("a.png:nan", "b.png:1"), "not nan (a.png)"),
        (("a.png:", "b.png:1"), "'' is no weight of a.png"),
        (("a.png:heavy", "b.png:1"), "'heavy' is no weight of a.png"),
        (("a.png:2", "b.png"), "1 of 2 pictures have a weight"),
        (("a.png:2", "c.png:1"), "c.png"),
    ],
)
def test_what_is_wrong_is_said(go: Any, words: tuple[str, ...], said: str) -> None:
    outcome: Outcome = go(*words, *TRAIN)
    assert outcome.code in (1, 2)
    assert said in " ".join(outcome.err.split())
    assert "unexpected" not in outcome.err
    assert not Path("adapter.safetensors").exists()


def test_the_command_and_what_shows_them(go: Any, styledrop: Run) -> None:
    assert "a.png at weight 2: a cat" in " ".join(go("a.png:2", "b.png:1", *TRAIN, "--dry-run").out.split())
    outcome: Outcome = go("a.png:2", "b.png:1", *TRAIN, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["weights"] == [2.0, 1.0]
    shown = " ".join(styledrop("inspect", "adapter.safetensors").out.split())
    assert "weights 2, 1" in shown
    assert 'pictures = ["a.png:2", "b.png:1"]' in Path("adapter.safetensors.run/recipe.toml").read_text("utf-8")


def test_a_folders_weight_is_that_of_each_picture_in_it(go: Any) -> None:
    Path("some").mkdir()
    for name in "cd":
        draw(40, 40).rotate(90 * ord(name)).save(f"some/{name}.png")
    assert go("a.png:4", "some:1", "--style", "ink").code == 0
    assert load_adapter(Path("adapter.safetensors")).header.weights == [4.0, 1.0, 1.0]
