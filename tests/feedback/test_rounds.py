"""The feedback loop on a tiny model, with a picker that needs no scorers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from conftest import draw
from person import Watcher
from styledrop_cli.adapters.file import examples_of
from styledrop_cli.adapters.header import load_adapter, read_header, write_recommended
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.feedback import pool as pool_module
from styledrop_cli.feedback import rounds
from styledrop_cli.feedback.pickers import BestPicker, Candidates, Picker, RandomPicker
from styledrop_cli.feedback.pool import Plan, Pool
from styledrop_cli.feedback.rounds import Result, iterate
from styledrop_cli.io import files, images, tensors
from styledrop_cli.io.tensors import read_tensors
from styledrop_cli.judging import evaluate as evaluate_module
from styledrop_cli.judging.evaluate import References, judge_of
from styledrop_cli.judging.scores import Scores
from styledrop_cli.settings import RoundSettings, SampleSettings, TrainSettings
from styledrop_cli.training import adapter as adapter_training
from styledrop_cli.training.adapter import train_adapter

PROMPTS = ["a dog", "a house", "a teapot"]
SETTINGS = RoundSettings(per_prompt=4, steps=4)
SAMPLING = SampleSettings(steps=2, size=16)


class Fake:
    """Picks what it was told to, and remembers what it was shown."""

    name = "fake"

    def __init__(self, *picks: int) -> None:
        self.picks, self.shown = list(picks), list[Candidates]()

    def pick(self, candidates: Candidates, keep: int, folder: Path) -> list[int]:
        self.shown.append(candidates)
        return self.picks


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps a picture, small pools and few checkpoints: what is tested is the way, not the pictures."""
    tiny.shrink_rounds(monkeypatch)
    monkeypatch.setattr(evaluate_module, "DRAWN_TOGETHER", 5)
    monkeypatch.setattr(adapter_training, "SAVE_EVERY", 2)


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return load_base(str(tiny_model), tiny.CPU)


@pytest.fixture(scope="module")
def trained(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    draw().save(folder / "ref.png")
    path = folder / "adapter.safetensors"
    settings = TrainSettings(steps=4, views=3, checkpoints=1)
    train_adapter(
        base, pictures=[folder / "ref.png"], style="watercolor", contents=["a cat"], settings=settings, output=path
    )
    return path


@pytest.fixture
def start(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(trained, tmp_path))


Go = Callable[..., Result]


@pytest.fixture
def go(base: Base, start: Path, tmp_path: Path) -> Go:
    """Run the rounds in a folder."""

    def go(picker: Picker | None = None, **given: Any) -> Result:
        options: dict[str, Any] = {
            "folder": tmp_path / "rounds",
            "settings": SETTINGS,
            "pickers": [picker or BestPicker()],
            "watcher": Watcher(),
            "grader": base,
            "prompts": PROMPTS,
        }
        return iterate(base, given.pop("start", start), **options | given)

    return go


def pool_of(folder: Path) -> torch.Tensor:
    return torch.cat([read_tensors(path)[0]["ids"] for path in sorted(folder.glob("pool/ids-*.safetensors"))])


# ---- what a round does ----


def test_each_round_draws_as_its_own_adapter_recommends(go: Go, start: Path, tmp_path: Path) -> None:
    write_recommended(start, {"strength": 0.5, "temperature": 3.0})
    go(Fake(1, 2, 3), settings=replace(SETTINGS, rounds=2))
    pools_of = [Plan.read(tmp_path / f"rounds/round-{n}/pool") for n in (2, 3)]
    graded = [Plan.read(tmp_path / f"rounds/round-{n}/graded") for n in (1, 2, 3)]
    # What a sweep found of the first adapter says nothing of those that are trained after it.
    for plans, strengths in ((pools_of, [0.5, 1.0]), (graded, [0.5, 1.0, 1.0])):
        assert [plan.sampling.strength for plan in plans if plan] == strengths
    assert [plan.sampling.temperature for plan in graded if plan] == [3.0, 2.0, 2.0]


def test_picks_train_on_their_own_ids_beside_the_references(go: Go, start: Path, tmp_path: Path) -> None:
    before = start.read_bytes()
    result = go(Fake(1, 6, 11))
    made = load_adapter(tmp_path / "rounds/round-2/adapter.safetensors")
    examples, given = examples_of(made), examples_of(load_adapter(start))
    pool = pool_of(tmp_path / "rounds/round-2")
    assert pool.shape == (12, 4, 4)
    assert torch.equal(examples.views["views.ids"][-3:], pool[[1, 6, 11]])
    assert torch.equal(examples.own_views, given.own_views)
    assert examples.contents == ["a cat", "a dog", "a house", "a teapot"]  # each pick's own text
    assert examples.references == 1
    assert start.read_bytes() == before
    assert made.header.number == 2
    assert made.header.parent == files.file_hash(start)
    assert [pick["seed"] for pick in made.header.picks] == [2001, 2002, 2003]
    assert result.path.read_bytes() in {start.read_bytes(), made.path.read_bytes()}


def test_each_round_draws_with_the_adapter_before_it(go: Go, tmp_path: Path) -> None:
    picker, watcher = Fake(0, 4, 8), Watcher()
    go(picker, settings=RoundSettings(rounds=2, per_prompt=4, steps=4), watcher=watcher)
    folder = tmp_path / "rounds"
    assert [path.parent.name for path in watcher.sheets] == ["round-2", "round-3"]
    third = read_header(folder / "round-3/adapter.safetensors")
    assert third.parent == files.file_hash(folder / "round-2/adapter.safetensors")
    assert len(third.contents) == 4  # the second round's picks, not the first's as well
    assert not torch.equal(pool_of(folder / "round-2"), pool_of(folder / "round-3"))
    table = json.loads((folder / "table.json").read_text())
    assert [row["round"] for row in table["rounds"]] == [0, 1, 2, 3]
    assert not {"a cat", *PROMPTS} & set(table["prompts"])  # nothing that was picked from grades


def test_the_widest_adapter_below_one_per_cent_is_trained(go: Go, base: Base, start: Path, tmp_path: Path) -> None:
    go(Fake(0))
    sizes = {}
    for path in (start, tmp_path / "rounds/round-2/adapter.safetensors"):
        file = load_adapter(path)
        sizes[file.header.config["width"]] = sum(t.numel() for n, t in file.tensors.items() if n.startswith("adapter."))
    (narrow, wide), whole = sorted(sizes), sum(p.numel() for p in base.transformer.parameters())
    assert narrow < wide
    assert sizes[wide] < 0.01 * whole <= sizes[wide] * (wide + 1) / wide


def test_another_round_can_be_asked_for(go: Go) -> None:
    assert len(go(Fake(0), watcher=Watcher(more=2)).table) == 1 + 1 + 3


def test_the_last_round_can_be_insisted_on(go: Go, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    totals = iter([0.5, 0.9, 0.2] * 2)  # the base, the first round and the second
    monkeypatch.setattr(rounds, "mean", lambda scores: Scores(next(totals), 0, 0, 0))
    made = tmp_path / "rounds"
    assert go(Fake(0)).best == 1
    assert (made / "best.safetensors").read_bytes() == (made / "round-1/adapter.safetensors").read_bytes()
    assert go(Fake(0), last=True).best == 2
    assert (made / "best.safetensors").read_bytes() == (made / "round-2/adapter.safetensors").read_bytes()


def test_what_lies_there_tells_how_it_came_to_be(go: Go, tmp_path: Path) -> None:
    go()
    folder = tmp_path / "rounds/round-2"
    scored = json.loads((folder / "scores.json").read_text())["pictures"]
    picked = json.loads((folder / "picks.json").read_text())
    assert picked["feedback"] == "clip"
    assert [entry["picture"] for entry in scored] == list(range(1, 13))
    assert {"prompt", "seed", "object", "style", "leak", "total", "flaw"} <= set(scored[0])
    assert sorted(path.stem for path in (folder / "picks").iterdir()) == sorted(f"{n:04d}" for n in picked["pictures"])
    about = images.read_png_settings(next((folder / "picks").iterdir()))
    assert about is not None and about["style"] == "watercolor"
    assert (folder / "pool.png").exists() and (folder / "sheet.png").exists()


def test_superresolution_goes_over_as_it_is(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "model", superres=True, decoder=False)
    draw().save(tmp_path / "ref.png")
    start = tmp_path / "wide.safetensors"
    settings = TrainSettings(steps=2, views=2, checkpoints=0, width=1, superres_steps=2, shared=True)
    try:
        train_adapter(
            base, pictures=[tmp_path / "ref.png"], style="ink", contents=["a cat"], settings=settings, output=start
        )
    except UsageError:
        pytest.skip("this tiny base is too small for an adapter below 1 %")
    iterate(
        base,
        start,
        folder=tmp_path / "r",
        settings=SETTINGS,
        pickers=[Fake(0)],
        watcher=Watcher(),
        grader=base,
        prompts=PROMPTS,
    )
    before, after = load_adapter(start), load_adapter(tmp_path / "r/round-2/adapter.safetensors")
    assert before.header.superres == after.header.superres
    for name in (n for n in before.tensors if n.startswith("superres.")):
        assert torch.equal(before.tensors[name], after.tensors[name])


# ---- who picks ----


def candidates(totals: list[float], prompts: list[str], flaws: dict[int, str] | None = None) -> Candidates:
    pictures = torch.zeros(len(totals), 3, 2, 2, dtype=torch.uint8)
    marks = [(flaws or {}).get(i, "") for i in range(len(totals))]
    return Candidates(prompts, pictures, [Scores(total, 0, 0, 0) for total in totals], marks)


def test_the_best_of_each_prompt_comes_before_the_second_best_of_any() -> None:
    pool = candidates([0.9, 0.8, 0.7, 0.1, 0.3, 0.2], ["a"] * 3 + ["b"] * 3)
    assert BestPicker().pick(pool, 2, Path()) == [0, 4]
    assert BestPicker().pick(pool, 3, Path()) == [0, 4, 1]
    assert BestPicker().pick(pool, 99, Path()) == [0, 4, 1, 5, 2, 3]
    assert BestPicker().pick(pool, 1, Path()) == [0]


def test_what_is_empty_or_repeated_is_not_picked() -> None:
    pool = candidates([0.9, 0.8, 0.3, 0.2], ["a", "a", "b", "b"], {0: "empty", 3: "like 3"})
    assert BestPicker().pick(pool, 9, Path()) == [1, 2]
    assert set(RandomPicker(0).pick(pool, 9, Path())) == {1, 2}


def test_chance_is_chance_and_repeatable() -> None:
    pool = candidates([float(i) for i in range(40)], ["a"] * 20 + ["b"] * 20)
    drawn = {tuple(RandomPicker(seed).pick(pool, 2, Path())) for seed in range(20)}
    assert len(drawn) > 10
    assert RandomPicker(3).pick(pool, 2, Path()) == RandomPicker(3).pick(pool, 2, Path())
    assert all({pool.prompts[i] for i in picks} == {"a", "b"} for picks in drawn)


def test_every_round_has_its_picker_and_the_last_stands_for_the_rest(go: Go, tmp_path: Path) -> None:
    first, then = Fake(0), Fake(1)
    go(settings=RoundSettings(rounds=3, per_prompt=4, steps=2), pickers=[first, then])
    assert (len(first.shown), len(then.shown)) == (1, 2)


def test_nothing_to_pick_is_an_error_that_says_what_to_do(go: Go) -> None:
    with pytest.raises(UsageError, match="nothing to pick"):
        go(Fake())


# ---- going on ----


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of the sampler drew, but for the test pictures of a training."""
    counted: list[int] = []
    sample = Base.sample

    def counting(self: Base, prompts: list[str], *rest: Any, **named: Any) -> torch.Tensor:
        counted.append(len(prompts))
        return sample(self, prompts, *rest, **named)

    monkeypatch.setattr(Base, "sample", counting)
    return counted


def test_done_is_done(go: Go, draws: list[int]) -> None:
    first = go(Fake(0, 5))
    draws.clear()
    picker = Fake()
    assert go(picker) == first
    assert draws == [] and picker.shown == []


def test_more_rounds_go_on_from_those_that_are_there(go: Go, draws: list[int], tmp_path: Path) -> None:
    go(Fake(0))
    second = (tmp_path / "rounds/round-2/adapter.safetensors").read_bytes()
    go(Fake(0), settings=RoundSettings(rounds=2, per_prompt=4, steps=4))
    assert (tmp_path / "rounds/round-2/adapter.safetensors").read_bytes() == second
    assert (tmp_path / "rounds/round-3/adapter.safetensors").exists()


def test_other_settings_are_refused_by_name(go: Go, tmp_path: Path) -> None:
    go(Fake(0))
    with pytest.raises(UsageError, match="per_prompt: 4 there, 5 now"):
        go(Fake(0), settings=RoundSettings(per_prompt=5, steps=4))
    with pytest.raises(UsageError, match="prompts: "):
        go(Fake(0), prompts=["a dog"])
    go(Fake(0), settings=RoundSettings(per_prompt=5, steps=4), fresh=True)
    assert len(pool_of(tmp_path / "rounds/round-2")) == 15


def test_a_shard_of_another_plan_or_cut_short_is_drawn_again(go: Go, tmp_path: Path) -> None:
    go(Fake(0))
    whole = pool_of(folder := tmp_path / "rounds/round-2")
    for name in ("adapter.safetensors", "adapter.safetensors.run/run.json"):
        (folder / name).unlink()
    (folder / "pool/ids-00000.safetensors").write_bytes(b"cut")
    tensors.save_tensors(folder / "pool/ids-00005.safetensors", {"ids": whole[:5] * 0}, {"plan": "another"})
    go(Fake(0))
    assert torch.equal(pool_of(folder), whole)


@pytest.mark.parametrize("picks", [{}, {"pictures": []}, {"pictures": [13]}, {"pictures": [["1"]]}, {"pictures": 3}])
def test_picks_that_name_no_pictures(go: Go, tmp_path: Path, picks: dict[str, Any]) -> None:
    go(Fake(0))
    (tmp_path / "rounds/round-2/adapter.safetensors").unlink()
    (tmp_path / "rounds/round-2/picks.json").write_text(json.dumps(picks))
    with pytest.raises(UsageError, match="does not name pictures of 1 to 12"):
        go(Fake(0))


# ---- several processes, one pool ----


def test_a_pool_drawn_by_two_is_the_pool_drawn_by_one(base: Base, trained: Path, tmp_path: Path) -> None:
    adapter = str(trained.resolve())
    plan = Plan(tuple(PROMPTS), 4, 7, "watercolor", adapter, SAMPLING)
    judge = judge_of(base, base, References.of_adapter(base, load_adapter(trained)), PROMPTS)
    alone = Pool(base, tmp_path / "alone", plan).evaluate(judge)
    heard: list[int] = []
    Pool(base, tmp_path / "both", plan).help((1, 2))
    assert len(list((tmp_path / "both").glob("ids-*"))) == 1  # the second of three shards
    together = Pool(base, tmp_path / "both", plan).evaluate(judge, None, heard.append, (0, 2))
    assert torch.equal(alone.ids, together.ids)
    assert torch.equal(alone.pictures, together.pictures)
    assert sum(heard) == len(plan) == 12


def test_a_pool_is_of_its_adapter_wherever_that_lies(
    base: Base, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(tuple(PROMPTS), 4, 7, "watercolor", str(trained.resolve()), SAMPLING)
    Pool(base, folder := tmp_path / "pool", plan).help((0, 1))
    first = folder / "ids-00000.safetensors"
    before = json.dumps([asdict(plan), files.file_hash(trained)])  # as it was marked while the place counted, too
    tensors.save_tensors(first, read_tensors(first)[0], {"plan": hashlib.sha256(before.encode()).hexdigest()})
    moved = shutil.copy(trained, tmp_path / "renamed.safetensors")
    monkeypatch.setattr(base, "sample", None)  # nothing is drawn
    Pool(base, folder, plan).help((0, 1))
    first.unlink()
    with pytest.raises(TypeError):
        Pool(base, folder, plan).help((0, 1))
    monkeypatch.undo()
    Pool(base, folder, plan).help((0, 1))
    monkeypatch.setattr(base, "sample", None)
    Pool(base, folder, replace(plan, adapter=str(moved))).help((0, 1))


def test_what_nobody_draws_is_drawn_in_the_end(
    base: Base, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "PATIENCE", 0.0)
    plan = Plan(tuple(PROMPTS), 4, 7, "watercolor", str(trained.resolve()), SAMPLING)
    judge = judge_of(base, base, References.of_adapter(base, load_adapter(trained)), PROMPTS)
    assert len(Pool(base, tmp_path / "p", plan).evaluate(judge, share=(0, 2)).ids) == 12


def test_helpers_draw_what_is_planned_until_it_is_over(base: Base, go: Go, tmp_path: Path) -> None:
    go(Fake(0))
    pool = tmp_path / "rounds/round-2/pool"
    whole = pool_of(pool.parent)
    for path in pool.glob("ids-*"):
        path.unlink()
    turns = iter([False, False, True])
    rounds.assist(base, tmp_path / "rounds", (0, 1), lambda: next(turns))
    assert torch.equal(pool_of(pool.parent), whole)


# ---- what cannot be gone on from ----


def test_an_adapter_without_its_references_is_refused(go: Go, start: Path) -> None:
    file = load_adapter(start)
    views = {name: t for name, t in file.tensors.items() if not name.startswith("views.")}
    tiny.write_adapter(start, views, file.header.to_json())
    with pytest.raises(ModelError, match="does not hold the pictures"):
        go()


def test_the_result_is_never_written_over_what_it_starts_from(go: Go, start: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rounds"
    folder.mkdir()
    best = Path(shutil.copy(start, folder / "best.safetensors"))
    with pytest.raises(UsageError, match="would be replaced"):
        go(start=best)


def test_rounds_go_on_from_a_round(go: Go, tmp_path: Path) -> None:
    go(Fake(0), last=True)
    result = go(Fake(0), start=tmp_path / "rounds/best.safetensors", folder=tmp_path / "more")
    assert [row["round"] for row in result.table] == [0, 2, 3]
    assert read_header(tmp_path / "more/round-3/adapter.safetensors").number == 3
