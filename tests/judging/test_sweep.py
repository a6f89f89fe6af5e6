"""`styledrop sweep`: what stands where on its sheet, what it recommends, what it saves, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from children import unprivileged
from conftest import Outcome, Run, draw
from styledrop_cli.adapters.header import load_adapter, read_header, write_recommended
from styledrop_cli.base import base as base_module
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io import contact_sheet
from styledrop_cli.io.contact_sheet import GridCell, grid_sheet
from styledrop_cli.io.images import read_png_settings, to_tensor
from styledrop_cli.io.tensors import read_tensors
from styledrop_cli.judging import clip_scorer
from styledrop_cli.judging import evaluate as evaluate_module
from styledrop_cli.judging import sweep as sweep_module
from styledrop_cli.judging.bootstrap import paired_interval
from styledrop_cli.judging.scores import Scores
from styledrop_cli.judging.sweep import Cell, Sweep, checkpoints_of, judged, sheet_of, sweep, whole_grid
from styledrop_cli.settings import CHECKPOINT, SampleSettings, SweepSettings, TrainSettings
from styledrop_cli.training.adapter import train_adapter

PROMPTS = ("a cat", "a dog")


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return load_base(str(tiny_model), tiny.CPU)


@pytest.fixture(scope="module")
def trained(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter, two checkpoints old, and its run folder."""
    folder = tmp_path_factory.mktemp("trained")
    draw().save(folder / "ref.png")
    train_adapter(
        base,
        pictures=[folder / "ref.png"],
        style="watercolor",
        contents=["a house"],
        settings=TrainSettings(steps=4, lr=0.05, views=2, checkpoints=2, last=True),
        output=folder / "water.safetensors",
    )
    return folder


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ref.png").unlink()
    return Path("water.safetensors")


Go = Callable[..., Outcome]


@pytest.fixture
def go(styledrop: Run, adapter: Path, tiny_model: Path) -> Go:
    """Run `styledrop sweep` on the adapter, in few steps unless they are what is compared."""

    def go(*arguments: str | Path) -> Outcome:
        few = () if "--steps" in arguments else ("--steps", "2")
        return styledrop("sweep", adapter, *arguments, *few, "--model", tiny_model)

    return go


def said(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def swept(base: Base, adapter: Path, axes: Mapping[str, Any], number: int = 2, **given: Any) -> Sweep:
    settings = SweepSettings({"steps": (2,), **axes}, PROMPTS, number, seed=5)
    return sweep(base, base, load_adapter(adapter), settings, **given)


def of_values(result: Sweep) -> dict[tuple[float, ...], Cell]:
    return {tuple(value for _, value in sorted(cell.values.items())): cell for cell in result.cells}


# ---- the sheet ----

Box = tuple[int, int, int, int]


def boxes(sheet: Image.Image, count: int) -> list[Box]:
    """Where each of `count` pictures of `coloured` stands: left, top, right, bottom."""
    pixels = np.asarray(sheet)
    found = []
    for index in range(count):
        ys, xs = (pixels == colour(index)).all(-1).nonzero()
        assert len(ys), f"picture {index} is missing"
        found.append((int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1))
        assert len(ys) == (found[-1][2] - found[-1][0]) * (found[-1][3] - found[-1][1]), "something covers it"
    return found


def colour(index: int) -> tuple[int, int, int]:
    return (3, 250 - index, 2 * index % 251)


def coloured(index: int) -> Image.Image:
    return Image.new("RGB", (16, 16), colour(index))


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (1, 4), (3, 1)])
def test_every_picture_stands_in_its_cell(rows: int, columns: int) -> None:
    """And beside which row and column, in which line of the cell, and what is framed."""
    cells, (down, across), side = rows * columns, (2, 3), 32
    order = torch.arange(cells * down * across).view(cells, down, across).tolist()
    words = [
        GridCell(f"{i}.00", "object 0.10", "recommended" if i == cells - 1 else "", i == cells - 1)
        for i in range(cells)
    ]
    sheet = grid_sheet(
        ([[coloured(i) for i in line] for line in cell] for cell in order),
        words,
        [("lambda_a", str(i)) for i in range(rows)],
        [("lambda_b", str(i)) for i in range(columns)],
        (down, across),
        "watercolor",
        ["a cat"],
        side=side,
    )
    found = boxes(sheet, cells * down * across)
    assert all(right - left == bottom - top == side for left, top, right, bottom in found)
    for index, cell in enumerate(order):
        row, column = divmod(index, columns)
        for line, numbers in enumerate(cell):
            for place, number in enumerate(numbers):
                left, top = found[number][:2]
                assert top == found[order[row * columns][line][place]][1]  # level with the row's first
                assert left == found[order[column][line][place]][0]  # below the column's first
                assert not place or left > found[numbers[place - 1]][2]
                assert not line or top > found[cell[line - 1][place]][3]
    ys, xs = (np.asarray(sheet) == contact_sheet._ACCENT).all(-1).nonzero()
    framed = [
        i
        for i, (left, top, right, bottom) in enumerate(found)
        if xs.min() < left and right <= xs.max() and ys.min() < top and bottom <= ys.max()
    ]
    assert framed == [number for line in order[-1] for number in line]


def test_a_sheet_makes_room_for_words_and_grows_no_further_than_it_must() -> None:
    def made(count: int, side: int | None = None, caption: str = "", across: int = 1) -> Image.Image:
        return grid_sheet(
            ([[coloured(0)] * across] for _ in range(count)),
            [GridCell("1.00", caption)] * count,
            [("", "")],
            [("strength", str(i)) for i in range(count)],
            (1, across),
            side=side,
        )

    assert made(2, 32, "object 0.99   style 0.99   leak 0.99").width > made(2, 32).width
    left, top, right, bottom = boxes(made(1), 1)[0]
    assert (right - left, bottom - top) == (256, 256)  # few are shown large
    assert made(8, across=6).width <= contact_sheet._LARGEST < made(8, 256, across=6).width


def test_the_references_are_shown_above_the_table() -> None:
    cell = GridCell("1.00", "")
    sheet = grid_sheet([[[coloured(0)]]], [cell], [("", "")], [("", "")], (1, 1), references=[coloured(1), coloured(2)])
    picture, reference, *_ = boxes(sheet, 2)
    assert reference[0] > sheet.width // 2 and reference[3] < picture[1]


def test_a_sheet_of_other_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="3 cells are no 2 rows of 2"):
        grid_sheet([], [GridCell("", "")] * 3, [("a", "1")] * 2, [("b", "1")] * 2, (1, 1))


def score(balance: float) -> Scores:
    return Scores(balance, balance, balance, 0)


def made_up(axes: dict[str, tuple[float, ...]], balances: list[list[float]], number: int, present: int | None) -> Sweep:
    """A sweep whose pictures are of one colour each."""
    prompts = PROMPTS[: len(balances[0]) // number]
    settings = SweepSettings(axes, prompts, number)
    cells = []
    for index, (values, of_each) in enumerate(zip(settings.combinations, balances, strict=True)):
        numbers = range(index * len(of_each), (index + 1) * len(of_each))
        pictures = torch.stack([(to_tensor(coloured(i)) * 255).round().to(torch.uint8) for i in numbers])
        cells.append(Cell(values, pictures, [score(t) for t in of_each]))
    before = cells[0 if present is None else present]
    return judged(settings, cells, torch.zeros(1, 3, 16, 16), present, before)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    "axes",
    [
        {"lambda_a": (0, 1), "lambda_b": (1, 2, 3)},
        {"lambda_a": (0, 1, 2, 3, 4, 5), "lambda_b": (2,)},
        {"strength": (1, 2, 0.5)},
    ],
)
def test_the_sheet_of_a_sweep_is_a_table_of_its_axes(axes: dict[str, tuple[float, ...]], number: int) -> None:
    count = math.prod(map(len, axes.values()))
    result = made_up(axes, [[0.0] * 2 * number] * count, number, None)
    sheet = sheet_of(result, "watercolor", "clip")
    found = boxes(sheet, count * 2 * number)
    firsts = {tuple(cell.values.items()): found[i * 2 * number] for i, cell in enumerate(result.cells)}
    for one, (left, top, *_) in firsts.items():
        for other, (its_left, its_top, *_) in firsts.items():
            alike = len({*one} & {*other})
            assert (left == its_left or top == its_top) == (alike > 0 or len(result.settings.several) == 1), (
                one,
                other,
            )
    for cell in range(count):  # a line is a prompt, its seeds side by side
        for prompt in range(2):
            line = [found[(cell * 2 + prompt) * number + k] for k in range(number)]
            assert len({top for _, top, _, _ in line}) == 1
            assert [left for left, *_ in line] == sorted({left for left, *_ in line})
    assert 0.2 < sheet.width / sheet.height < 5


def test_many_seeds_go_on_below() -> None:
    result = made_up({"strength": (1, 2)}, [[0.0] * 11] * 2, 11, None)
    found = boxes(sheet_of(result, "", "clip"), 22)
    tops = [top for _, top, _, _ in found[:11]]
    assert tops == sorted(tops) and len(set(tops)) == 2


# ---- what is recommended ----


def test_the_highest_mean_balance_is_recommended_and_compared_with_what_was() -> None:
    balances = [[0.3, 0.0, 0.3, 0.1], [0.6, 0.1, 0.3, 0.2], [0.0, 0.0, 0.9, 0.2], [0.1, 0.1, 0.0, 0.1]]
    axes = {"lambda_a": (0.0, 1.0), "lambda_b": (1.0, 3.0)}
    result = made_up(axes, balances, 2, present=0)
    assert (result.best, result.other, result.lost) == (1, result.cells[0], [3])
    assert result.recommended == {"lambda_a": 0.0, "lambda_b": 3.0}
    difference = torch.tensor(balances[1]) - torch.tensor(balances[0])
    assert result.gain == pytest.approx(float(difference.mean()))
    assert result.interval == paired_interval(difference.view(2, 2))
    already = made_up(axes, balances, 2, present=1)
    assert (already.best, already.other) == (1, already.cells[2])  # the second best


def test_neither_a_thing_without_style_nor_a_copy_is_recommended() -> None:
    """As it was seen: the base draws the thing, half an adapter both, too much of it pieces of the reference."""
    base, half, copy = Scores(0.9, 0.9, 0.0, 0.0), Scores(0.6, 0.7, 0.4, 0.05), Scores(0.0, 0.3, 0.8, 0.2)
    assert half.balance > copy.balance > base.balance == 0
    assert base.total > half.total
    assert Scores(0.5, 0.3, 0.5, 0.1).balance == pytest.approx(0.4)
    for odd in (Scores(0, -1, -1, 2), Scores(0, 0, 0, 0), Scores(1, 1, 1, 0)):
        assert 0 <= odd.balance <= 1


def test_of_equal_cells_the_first_is_recommended() -> None:
    assert made_up({"steps": (4, 8, 12)}, [[0.0], [1.0], [1.0]], 1, 0).best == 1


def shown(objects: list[float], styles: list[float], before: list[float], present: int | None = None) -> Sweep:
    """A sweep over strengths: of each its object and style in all of 2 x 2 pictures; ``before`` is what there was."""
    settings = SweepSettings({"strength": tuple(range(1, len(objects) + 1))}, PROMPTS, 2)

    noise = [0.02, -0.01, 0.01, -0.02]

    def cell(values: dict[str, float], thing: float, style: float) -> Cell:
        noise.reverse()
        scores = [Scores(thing + one, thing, style, 0.0) for one in noise]
        return Cell(values, torch.zeros(4, 3, 16, 16, dtype=torch.uint8), scores)

    cells = [cell(*one) for one in zip(settings.combinations, objects, styles, strict=True)]
    own = cells[present] if present is not None else cell({"strength": 0.0}, *before)
    return judged(settings, cells, torch.zeros(1, 3, 16, 16), present, own)


def test_what_loses_the_thing_is_never_recommended() -> None:
    """As a new user had it: the most style stood where the thing was gone, and won by its balance."""
    result = shown([0.9, 0.24], [0.1, 0.6], [], present=0)
    assert result.cells[1].balance > result.cells[0].balance
    assert (result.best, result.lost, result.sure) == (0, [1], False)
    assert shown([0.9, 0.89], [0.1, 0.6], [], present=0).best == 1  # as surely, as far as the pictures can tell
    everything = shown([0.24, 0.3], [0.6, 0.6], [0.9, 0.1])
    assert (everything.best, everything.lost, everything.recommended) == (None, [0, 1], {})


def test_nothing_is_recommended_that_is_worse_than_what_there_is() -> None:
    result = shown([0.9, 0.9], [0.1, 0.2], [0.9, 0.4])
    assert (result.best, result.lost) == (None, [])
    assert result.other.values == {"strength": 0.0}
    better = shown([0.9, 0.9], [0.1, 0.5], [0.9, 0.4])
    assert (better.best, better.sure) == (1, True)


def test_a_single_prompt_or_seed_is_never_sure() -> None:
    balances = [[0.1, 0.1], [0.9, 0.9]]
    assert made_up({"strength": (1, 2)}, balances, 2, 0).gain > 0.5
    assert not made_up({"strength": (1, 2)}, balances, 2, 0).sure
    assert not made_up({"strength": (1, 2)}, balances, 1, 0).sure


# ---- what is drawn ----


def test_a_cell_shows_what_generate_draws_with_its_settings(base: Base, adapter: Path) -> None:
    axes = {"lambda_a": (0.0, 2.0), "strength": (0.0, 0.5), "temperature": (7.0,)}
    result = swept(base, adapter, axes)
    assert [cell.values["strength"] for cell in result.cells] == [0.0, 0.5, 0.0, 0.5]
    for cell in result.cells:
        settings = base.sampling(size=16, seed=5, **cell.values)
        drawn = tiny.generate(base, load_adapter(adapter), prompts=[*PROMPTS], count=2, settings=settings)
        wanted = torch.stack([to_tensor(image) * 255 for _, _, image in drawn])
        assert (cell.pictures.float() - wanted).abs().max() <= 1  # alone and in a batch decoding rounds differently
        assert cell.balance == pytest.approx(sum(one.balance for one in cell.scores) / 4)
    first, _, third, last = (cell.pictures for cell in result.cells)
    assert torch.equal(first, third)  # of nothing, nothing can be exaggerated
    assert not torch.equal(third, last)
    assert len({picture.numpy().tobytes() for picture in first}) == 4


def test_neither_order_nor_company_changes_a_cell(base: Base, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = of_values(swept(base, adapter, {"lambda_a": (0.0, 1.0, 2.0), "lambda_b": (1.0, 3.0)}))
    monkeypatch.setattr(evaluate_module, "DRAWN_TOGETHER", 3)
    two = of_values(swept(base, adapter, {"lambda_a": (2.0, 0.0), "lambda_b": (3.0, 1.0)}))
    assert set(two) < set(one)
    for values, cell in two.items():
        # Shards of another size are decoded in other batches, which may round a value the other way.
        assert (cell.pictures.int() - one[values].pictures.int()).abs().max() <= 1
        for found, wanted in zip(cell.scores, one[values].scores, strict=True):
            assert found.balance == pytest.approx(wanted.balance, abs=1e-5)


def test_the_base_is_looked_at_with_other_seeds(base: Base, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int]] = []
    sample = Base.sample

    def note(self: Base, prompts: list[str], seeds: list[int], *rest: Any) -> torch.Tensor:
        seen.extend((rest[1] is None, seed) for seed in seeds)
        return sample(self, prompts, seeds, *rest)

    monkeypatch.setattr(Base, "sample", note)
    monkeypatch.setattr(sweep_module, "PLAIN_SEED", 6)
    said_so: list[tuple[float, str]] = []
    swept(base, adapter, {"strength": (1.0, 2.0)}, on_progress=lambda *share: said_so.append(share))
    assert [seed for plain, seed in seen if plain] == [7, 8, 7, 8]  # 5 and 6 are the cells'
    assert [seed for plain, seed in seen if not plain] == [5, 6, 5, 6] * 3
    # What the adapter recommends, which no cell is, is drawn beside them.
    assert [note for _, note in said_so] == ["0/16", "4/16", "8/16", "12/16", "16/16"]


def test_what_no_axis_sets_is_as_the_adapter_recommends(base: Base, adapter: Path) -> None:
    write_recommended(adapter, {"lambda_b": 4.0, "strength": 0.5, "steps": 3})
    result = sweep(base, base, load_adapter(adapter), SweepSettings({"lambda_b": (1.0, 4.0)}, PROMPTS, 1), style="red")
    assert result.present == 1
    settings = SampleSettings(size=16, lambda_b=1.0, strength=0.5, steps=3)
    drawn = tiny.generate(base, load_adapter(adapter), prompts=[*PROMPTS], count=1, settings=settings, style="red")
    wanted = torch.stack([to_tensor(image) * 255 for _, _, image in drawn])
    assert (result.cells[0].pictures.float() - wanted).abs().max() <= 1


def test_the_usual_grid(adapter: Path) -> None:
    write_recommended(adapter, {"lambda_a": 0.1})
    file = load_adapter(adapter)
    assert whole_grid({}, file) == {"lambda_a": (0, 0.1, 0.25, 0.5), "lambda_b": (0.75, 1.5, 3)}
    assert whole_grid({"strength": [1, 2, 1]}, file) == {"strength": (1, 2)}


# ---- checkpoints ----


def test_checkpoints_are_an_axis(base: Base, adapter: Path) -> None:
    files = checkpoints_of(load_adapter(adapter))
    assert list(files) == [2, 4]
    result = swept(base, adapter, {CHECKPOINT: tuple(files), "steps": (2, SampleSettings.steps)}, checkpoints=files)
    assert result.present == 3  # the last checkpoint, in as many steps as are usual
    for cell in result.cells:
        step = int(cell.values[CHECKPOINT])
        alone = swept(base, files[step], {"steps": (2, SampleSettings.steps)})
        assert torch.equal(cell.pictures, of_values(alone)[(cell.values["steps"],)].pictures)
    assert not torch.equal(result.cells[0].pictures, result.cells[2].pictures)


def test_checkpoints_that_are_not_its_own(adapter: Path) -> None:
    run = Path("water.safetensors.run")
    checkpoint = next(run.glob("step-*.safetensors"))
    file = load_adapter(checkpoint)
    tiny.write_adapter(checkpoint, file.tensors, file.header.to_json() | {"style": "ink"})
    with pytest.raises(ModelError, match=f"{checkpoint} is of another training than water.safetensors"):
        checkpoints_of(load_adapter(adapter))
    checkpoint.write_bytes(b"")
    with pytest.raises(ModelError, match="is not a safetensors file: it is empty"):
        checkpoints_of(load_adapter(adapter))


# ---- the command ----


def test_a_sweep_from_end_to_end(go: Go, styledrop: Run) -> None:
    axes = ("--lambda-a", "0, 1,0", "--lambda-b", "1,1.5,3")
    code, out, err = go(*PROMPTS, "a corgi", "a cat", *axes, "-n", "2")
    assert code == 0, err
    assert "does not know 'corgi'" in err and "48/48" in err
    assert "3 prompts and 2 seeds, by clip" in out
    assert "recommended" in out and "one prompt" not in out
    assert out.splitlines()[-1] == "sweep.png"
    about = read_png_settings(Path("sweep.png"))
    assert about is not None
    assert about["axes"] == {"lambda_a": [0, 1], "lambda_b": [1, 1.5, 3], "steps": [2]}
    assert about["prompt"] == "a cat | a dog | a corgi"
    assert about["seeds"] == [0, 1]
    assert len(about["cells"]) == 6
    assert all(0 <= cell["seen"] <= 1 and -2 <= cell["way"] <= 2 and cell["verdict"] for cell in about["cells"])
    best = max((one for one in about["cells"] if not one["lost"]), key=lambda cell: cell["balance"], default={})
    if about["recommended"]:
        assert about["recommended"] == {name: best[name] for name in about["axes"]}
        assert f"recommended: lambda_a {best['lambda_a']:g}, lambda_b {best['lambda_b']:g}, steps 2" in out
    else:
        assert "recommended, as before: lambda_a 0, lambda_b 1.5, steps 12" in out
    assert json.loads(styledrop("inspect", "sweep.png", "--json").out) == about
    assert styledrop("inspect", "sweep.png").code == 0
    again = said(go(*PROMPTS, "a corgi", *axes, "-n", "2", "--json", "--overwrite", "-o", "sweep.png"))
    assert {name: again[name] for name in about} == about
    assert again["sheet"] == "sweep.png"


def test_a_sheet_is_no_picture_to_score(go: Go, styledrop: Run, tiny_model: Path) -> None:
    assert go("a cat", "--strength", "0,1", "-n", "1", "-o", "drawn/best.png", "-q").out == "drawn/best.png\n"
    outcome = styledrop("score", "drawn", "--model", tiny_model)
    assert outcome.code == 2
    assert "only contact sheets" in outcome.err


def test_how_sure_it_is(go: Go) -> None:
    few = ("--strength", "1,2", "--overwrite")
    assert "one picture at each combination says little" in go("a cat", *few, "-n", "1").out
    alone = go("a cat", *few, "-n", "3").out
    assert "over 1 prompt and 3 seeds" in alone and "one prompt says little" in alone


def test_the_nearest_scorer_is_suggested_and_others_judge(go: Go, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = go("a cat", "--strength", "0,1", "-n", "1", "--scorer", "ViT-B-61/openai")
    assert outcome.code == 2 and "Did you mean 'ViT-B-16'" in outcome.err
    asked: list[str] = []
    monkeypatch.setattr(clip_scorer, "load_scorer", lambda name, folder, device: asked.append(name) or base)
    found = said(go("a cat", "--strength", "0,1", "-n", "1", "--scorer", "scorer", "--json"))
    assert (asked, found["scorer"]) == (["scorer"], "scorer")


# ---- saving ----


def test_saved_it_changes_the_header_alone_and_generate_goes_by_it(
    go: Go, styledrop: Run, adapter: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, metadata = read_tensors(adapter)
    best_is(monkeypatch, 0)
    found = said(go(*PROMPTS, "--strength", "0.25,3", "--temperature", "5", "-n", "1", "--save", "--force", "--json"))
    assert found["saved"]
    after, now = read_tensors(adapter)
    assert list(after) == list(before)
    assert all(torch.equal(after[n], t) and after[n].dtype == t.dtype for n, t in before.items())
    assert {k: v for k, v in now.items() if k != "styledrop"} == {k: v for k, v in metadata.items() if k != "styledrop"}
    old = json.loads(metadata["styledrop"])
    as_trained = {"recommended": old["recommended"], "step": old["step"]}
    recommended = {"recommended": old["recommended"] | found["recommended"], "as_trained": as_trained}
    assert json.loads(now["styledrop"]) == old | recommended
    assert found["recommended"] == {"strength": found["recommended"]["strength"], "temperature": 5.0, "steps": 2}
    assert f"strength  {found['recommended']['strength']:g}" in styledrop("inspect", adapter).out

    def drawn(*options: str) -> tuple[dict[str, Any], bytes]:
        command = ("generate", adapter, "a cat", "-n", "1", "--json", "--model", tiny_model, *options)
        about = said(styledrop(*command))
        return about["settings"], Image.open(about["pictures"][0]["path"]).tobytes()

    settings, shown = drawn()
    assert {name: settings[name] for name in found["recommended"]} == found["recommended"]
    explicit = [word for name, value in found["recommended"].items() for word in (f"--{name}", str(value))]
    assert drawn(*explicit)[1] == shown
    assert drawn("--strength", "0", "--steps", "3")[0]["steps"] == 3  # what is asked for goes before


def whole(adapter: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """All that an adapter file holds; its order in the file is nobody's."""
    tensors, metadata = read_tensors(adapter)
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, metadata


def best_is(monkeypatch: pytest.MonkeyPatch, place: int, interval: tuple[float, float] = (-0.1, 0.2)) -> None:
    """Whatever is drawn, the cell at ``place`` is the best, with a gain in ``interval``."""
    order = sweep_module.judged

    def first(*given: Any) -> Sweep:
        return replace(order(*given), best=place, gain=0.1, interval=interval)

    monkeypatch.setattr(sweep_module, "judged", first)


def test_only_what_is_beyond_chance_is_saved_unless_it_is_insisted_on(
    go: Go, styledrop: Run, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_before, as_trained = adapter.read_bytes(), whole(adapter)
    strengths = ("--strength", "0.5,0.8", "-n", "2", "--overwrite")
    best_is(monkeypatch, 0)
    outcome = go(*PROMPTS, *strengths, "--save")
    assert outcome.code == 0 and "nothing is saved" in outcome.err and "--force" in outcome.err
    assert adapter.read_bytes() == bytes_before
    assert not said(go(*PROMPTS, *strengths, "--save", "--json"))["saved"]
    assert said(go(*PROMPTS, *strengths, "--save", "--force", "--json"))["saved"]
    assert read_header(adapter).recommended["strength"] == 0.5
    best_is(monkeypatch, 1, (0.05, 0.2))
    outcome = go(*PROMPTS, *strengths, "--save")
    assert "inspect water.safetensors --reset" in outcome.err
    assert read_header(adapter).recommended["strength"] == 0.8
    outcome = styledrop("inspect", adapter, "--reset")
    assert outcome.code == 0 and "is again what its training wrote, and recommends lambda_a 0" in outcome.err
    assert whole(adapter) == as_trained  # however often something was saved in between
    outcome = styledrop("inspect", adapter, "--reset")
    assert outcome.code == 0 and "nothing was saved into it since" in outcome.err
    assert whole(adapter) == as_trained
    assert styledrop("inspect", "sweep.png", "--reset").code == 2


def test_saved_it_can_become_another_checkpoint_and_back(
    go: Go, styledrop: Run, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, as_trained = checkpoints_of(load_adapter(adapter)), whole(adapter)
    best_is(monkeypatch, 0)
    found = said(go("a cat", "--checkpoints", "-n", "1", "--save", "--force", "--json"))
    assert found["recommended"] == {"steps": 2, CHECKPOINT: 2}
    after, wanted = read_tensors(adapter)[0], read_tensors(files[2])[0]
    assert set(after) == set(wanted) and all(torch.equal(after[name], t) for name, t in wanted.items())
    header = read_header(adapter).to_json()
    assert header["step"] == 2
    assert header["recommended"] == read_header(files[2]).recommended | {"steps": 2}
    again = said(go("a cat", "--checkpoints", "-n", "1", "--json", "--overwrite"))
    assert [cell[CHECKPOINT] for cell in again["cells"]] == [2, 4]
    assert styledrop("inspect", adapter, "--reset").code == 0
    assert whole(adapter) == as_trained


def test_without_save_the_adapter_stays_as_it_is(go: Go, adapter: Path) -> None:
    before = adapter.read_bytes()
    assert go("a cat", "--strength", "0,2", "-n", "1").code == 0
    assert adapter.read_bytes() == before


# ---- what is refused ----

WRONG: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
    ((), 2, ("there is nothing to draw", 'styledrop sweep water.safetensors "a cat"')),
    (("a", "cat"), 2, ("2 prompts: a, cat",)),
    (("a cat", "--lambda-a", ""), 2, ("--lambda-a is empty", "0,1,2")),
    (("a cat", "--lambda-a", " , "), 2, ("--lambda-a is empty",)),
    (("a cat", "--lambda-a", "0,two"), 2, ("--lambda-a: 'two' is no number",)),
    (("a cat", "--steps", "2.5"), 2, ("--steps: '2.5' is no whole number",)),
    (("a cat", "--lambda-b", "1,nan"), 2, ("--lambda-b must be between 0 and 50, not nan",)),
    (
        ("a cat", "--lambda-a", "0,99", "--strength", "x,11", "--steps", "0", "-n", "0"),
        2,
        (
            "--lambda-a must be between 0 and 50, not 99",
            "--strength: 'x' is no number",
            "--strength must be between 0 and 10, not 11",
            "--steps must be between 1 and 256, not 0",
            "--number must be between 1 and 1,000, not 0",
        ),
    ),
    (("a cat", "-o", "sweep.jpg"), 2, ("sweep.jpg, does not end in .png",)),
    (("a cat", "-o", "taken.png"), 2, ("taken.png is already there", "--overwrite")),
    (("a cat", "-o", "water.safetensors/a.png"), 2, ("water.safetensors is a file",)),
    (("a cat", "--style", "?!"), 2, ("--style says nothing",)),
    (
        ("a cat", "--lambda-a", "0,1", "--steps", "1,2", "--strength", "1,2"),
        2,
        ("lambda_a, strength and steps all have several values", "leave several values to two"),
    ),
    (("a cat", "--lambda-a", "1", "--lambda-b", "2"), 2, ("one combination of settings", "several values")),
    (("a cat", "--lambda-b", "3", "--save"), 2, ("--lambda-b 3: one combination of settings", "several values")),
    (("a cat", "--force"), 2, ("--force is for --save",)),
    (
        ("a cat", "--steps", ",".join(map(str, range(1, 10))), "--lambda-a", "0,1,2,3,4,5,6,7", "-n", "100"),
        2,
        ("72 combinations of settings are too many: at most 64; 7,200 pictures are too many: at most 2,000",),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG)
def test_what_is_refused(
    styledrop: Run,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)  # said before the base is loaded
    Path("taken.png").write_text("precious")
    before = sorted(Path().rglob("*"))
    outcome = styledrop("sweep", adapter, *arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert all(word in outcome.err for word in words), outcome.err
    assert sorted(Path().rglob("*")) == before
    assert Path("taken.png").read_text() == "precious"


def test_adapters_that_are_refused(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    file = load_adapter(adapter)
    tiny.write_adapter(
        Path("other.safetensors"), file.tensors, file.header.to_json() | {"base": {"name": "mega", "hash": "f"}}
    )
    own = {name: t for name, t in file.tensors.items() if not name.startswith("views.")}
    tiny.write_adapter(Path("bare.safetensors"), own, file.header.to_json())
    shutil.rmtree("water.safetensors.run")
    for arguments, code, words in (
        (("a cat", "a dog"), 1, "there is no style called 'a cat', and no such file"),
        (("nowhere.safetensors", "a cat"), 1, "there is no adapter file nowhere.safetensors"),
        (("other.safetensors", "a cat"), 1, "was trained on another base (mega)"),
        (("bare.safetensors", "a cat"), 1, "does not hold the pictures that it was trained on"),
        ((adapter, "a cat", "--checkpoints"), 2, "no step-*.safetensors in water.safetensors.run"),
    ):
        outcome = styledrop("sweep", *arguments, "--model", tiny_model)
        assert (outcome.code, outcome.out) == (code, "")
        assert words in outcome.err
    assert not Path("sweep.png").exists()


def test_saving_where_nothing_may_be_written(
    styledrop: Run, tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    Path("shut").mkdir()
    shutil.copy(adapter, "shut/a.safetensors")
    Path("shut").chmod(0o555)
    tmp_path.chmod(0o777)
    with unprivileged():
        outcome = styledrop("sweep", "shut/a.safetensors", "a cat", "--save")
    assert outcome.code == 2
    assert "the folder of shut/a.safetensors may not be written to" in outcome.err
    assert not Path("sweep.png").exists()


def test_settings_check_themselves() -> None:
    with pytest.raises(UsageError, match="number must be between 1 and 1,000, not 0"):
        SweepSettings({"steps": (1, 2)}, ["a cat"], 0)
    settings = SweepSettings({"steps": (1, 2), "lambda_a": (0,), "lambda_b": (3, 4)}, ["a cat"], 2, seed=3)
    assert settings.several == ["steps", "lambda_b"]
    assert settings.combinations[1] == {"steps": 1, "lambda_a": 0, "lambda_b": 4}
    assert settings.seeds == [3, 4]
