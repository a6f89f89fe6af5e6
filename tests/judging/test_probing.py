"""The test pictures that choose a checkpoint: what each score answers to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from conftest import draw
from styledrop_cli.adapters.examples import UNKNOWN_CONTENT, TrainingViews, known_contents
from styledrop_cli.adapters.file import new_adapter
from styledrop_cli.base.base import Base
from styledrop_cli.judging import probes as probes_module
from styledrop_cli.judging.evaluate import References, judge_of
from styledrop_cli.judging.probes import PAIRS, Probes
from styledrop_cli.judging.scores import Scores
from styledrop_cli.settings import SampleSettings, TrainSettings

SAMPLING = SampleSettings(steps=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    # Without an enlarged decoder a reference is shown by the same decoder as the test pictures.
    return tiny.base(tmp_path_factory.mktemp("base") / "tiny", decoder=False)


def probes(base: Base, content: str = "a cat") -> Probes:
    reference = base.reconstruct(draw())
    return Probes(base, views(reference.ids, content), "watercolor", SAMPLING)


def views(ids: Tensor, content: str) -> TrainingViews:
    """One reference, seen whole."""
    return TrainingViews({"views.ids": ids[None], "views.picture": torch.tensor([0])}, [content], 1)


def painter(base: Base, ids: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an adapter, every prompt draws ``ids``; without, what the base does."""
    sample: Callable[..., Tensor] = Base.sample

    def painted(self: Base, prompts: list[str], seeds: Any, settings: Any, adapter: Any = None) -> Tensor:
        if adapter is None:
            return sample(self, prompts, seeds, settings)
        return ids.expand(len(prompts), -1, -1)

    monkeypatch.setattr(Base, "sample", painted)


@pytest.mark.parametrize(
    ("style", "thing", "pair"),
    [
        (0.6, 0.9, (0.0, 0.75)),  # more style, and the thing is as it was
        (0.6, 0.2, (0.0, 1.5)),  # more style, and the thing is gone
        (0.1, 0.9, (0.0, 1.5)),  # no more style
    ],
)
def test_another_pair_of_scales_is_taken_where_it_gains_and_keeps_the_thing(
    base: Base, monkeypatch: pytest.MonkeyPatch, style: float, thing: float, pair: tuple[float, float]
) -> None:
    """At lambda A 0 and lambda B 0.75 pictures are such; elsewhere the thing is there, with little style."""
    tests = probes(base)
    count, drawn = len(tests.contents), []

    def seen(base: Base, judge: Any, drawing: Any, plain: Any = None, **rest: Any) -> Any:
        at = (drawing.sampling.lambda_a, drawing.sampling.lambda_b)
        drawn.append(at)
        one = Scores(thing, 0.9, style, 0.0) if at == (0.0, 0.75) else Scores(0.9, 0.9, 0.1, 0.0)
        return SimpleNamespace(pictures=torch.zeros(count, 3, 16, 16), scores=[one] * count)

    monkeypatch.setattr(probes_module, "evaluate", seen)
    values, gain, interval = tests.best_scales(new_adapter(base.transformer, TrainSettings(width=1)))
    assert (values["lambda_a"], values["lambda_b"]) == pair
    assert drawn == [(0.0, 1.5), *PAIRS] and len(set(drawn)) == len(drawn)
    assert (gain > 0.1) == (pair != (0.0, 1.5)) and interval[0] <= gain <= interval[1]


def test_the_references_own_content_is_not_asked_for(base: Base) -> None:
    assert probes(base).contents == ["a teapot", "a house", "a tree"]  # of those that this base was taught
    assert probes(base, "a tree").contents == ["a cat", "a teapot", "a house"]


@pytest.mark.parametrize(("content", "told"), [("a cat", ["a cat"]), (UNKNOWN_CONTENT, []), ("a zyxomorph", [])])
def test_only_contents_that_can_be_told_leak(base: Base, content: str, told: list[str]) -> None:
    """Nobody can tell a content that has no name, or one that the base was never taught."""
    assert known_contents(base, [content, content]) == told
    reference = base.reconstruct(draw()).ids
    judge = judge_of(base, base, References.of_examples(base, views(reference, content)), ["a tree"])
    measured = judge.measure(base.pictures(reference[None], base.sizes[0]), reference[None], ["a tree"])
    assert (float(measured.content) > 0) is bool(told)


def test_a_fresh_adapter_moves_and_leaks_nothing(base: Base) -> None:
    scores, sheet = probes(base).measure(tiny.fresh_adapter())
    assert (scores.shape, scores.style, scores.leak) == (pytest.approx(1), 0, 0)
    assert 0 < scores.object < 1
    assert scores.total == scores.object + scores.shape
    assert sheet.width > sheet.height  # the base's row and the adapter's


def test_a_copy_of_the_reference_is_its_style_and_a_leak(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    made = probes(base)
    painter(base, base.reconstruct(draw()).ids, monkeypatch)
    copied, _ = made.measure(tiny.adapter())
    assert copied.style > 0.99
    assert copied.leak > 0.5
    painter(base, torch.full((4, 4), 7), monkeypatch)  # empty: one id all over
    empty, _ = made.measure(tiny.adapter())
    assert empty.leak < copied.leak - 0.4


def test_the_object_score_knows_which_was_asked_for(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that is right for one prompt is wrong for the others."""
    made = probes(base)
    painter(base, tiny.ids(tiny.TRANSFORMER, 1, share=0.0)[0], monkeypatch)
    same, _ = made.measure(tiny.adapter())
    assert same.object <= 1 / len(made.contents) + 1e-6


def test_scores_are_the_same_every_time(base: Base) -> None:
    adapter = tiny.adapter()
    one, two = probes(base).measure(adapter)[0], probes(base).measure(adapter)[0]
    assert one == two
    assert one.style != 0


def test_a_base_that_was_taught_other_things_is_asked_for_those(base: Base, tmp_path: Path) -> None:
    from dataclasses import replace

    made = probes(replace(base, contents=["a cat", "a dog", "a red cat"]), "a dog")
    assert made.contents == ["a cat"]
    made = probes(replace(base, contents=["a dog", "a red cat"]), "a dog")
    assert made.contents == ["a red cat"]
