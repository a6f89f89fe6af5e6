"""`styledrop score`: what it makes of known pictures, and what it says of unknown ones."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import tiny
from conftest import Outcome, Run, draw
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base import base as base_module
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.prompt_tokens import words
from styledrop_cli.io.images import load_picture, save_png
from styledrop_cli.judging import clip_scorer, picture_files
from styledrop_cli.judging import evaluate as evaluate_module
from styledrop_cli.judging.evaluate import References
from styledrop_cli.judging.picture_files import COLUMNS, Picture, Row, means, score_files, without_style
from styledrop_cli.settings import TrainSettings
from styledrop_cli.training.adapter import train_adapter

COLOURS = {"red": (1.0, 0.1, 0.1), "green": (0.1, 1.0, 0.1), "cat": (0.1, 0.1, 1.0)}


def noise(seed: int, side: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return load_base(str(tiny_model), tiny.CPU)


def train(base: Base, folder: Path, name: str, style: str, picture: Image.Image) -> Path:
    picture.save(folder / f"{name}.png")
    train_adapter(
        base,
        pictures=[folder / f"{name}.png"],
        style=style,
        contents=["a cat"],
        settings=TrainSettings(steps=2, views=2, checkpoints=0),
        output=folder / f"{name}.safetensors",
    )
    return folder / f"{name}.safetensors"


@pytest.fixture(scope="module")
def adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(base, tmp_path_factory.mktemp("one"), "adapter", "watercolor", draw())


@pytest.fixture(scope="module")
def other(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(base, tmp_path_factory.mktemp("two"), "other", "ink", noise(9))


Score = Callable[..., Outcome]


@pytest.fixture
def score(styledrop: Run, tiny_model: Path) -> Score:
    return lambda *arguments: styledrop("score", *arguments, "--model", tiny_model)


@pytest.fixture
def drawn(styledrop: Run, tiny_model: Path, adapter: Path) -> list[Path]:
    """Two pictures of each of two prompts in styledrop-out, with a sheet, and the adapter in this folder."""
    shutil.copy(adapter, "adapter.safetensors")
    quickly = ("-n", "2", "--steps", "2", "--model", tiny_model, "-q")
    out = styledrop("generate", "adapter.safetensors", "a cat", "a dog", *quickly).out
    return [Path(line) for line in out.splitlines()[:-1]]


def said(outcome: Outcome, code: int = 0) -> dict[str, Any]:
    assert outcome.code == code, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def close(one: Row, two: Row) -> None:
    for name in COLUMNS:
        assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-4)
    assert (one.picture, one.note) == (two.picture, two.note)


def made(base: Base, pictures: list[Picture], references: References | None) -> list[Row]:
    done = score_files(base, base, pictures, references)
    assert not done.unreadable
    return done.rows


def after(base: Base, *pictures: Image.Image, content: str = "a unicorn") -> References:
    return References.of_pictures(base, pictures, [content] * len(pictures))


# ---- what is measured ----


def test_a_picture_against_itself_and_against_noise(base: Base) -> None:
    draw().save("ref.png")
    noise(1).save("noise.png")
    itself, other = made(
        base, [Picture(Path("ref.png"), "a cat"), Picture(Path("noise.png"), "a cat")], after(base, draw())
    )
    assert itself.likeness == pytest.approx(1, abs=1e-5)
    assert itself.style == pytest.approx(1, abs=1e-3)
    assert other.likeness is not None and other.likeness < 1
    assert other.leak is not None and itself.leak is not None
    assert itself.leak > other.leak  # its blocks are the reference's own
    assert itself.total == pytest.approx(itself.object + (itself.shape or 0) + 1 - itself.leak, abs=1e-3)


class ColourScorer:
    """Sees nothing but colours, and knows their names."""

    def picture_embeds(self, pictures: Tensor) -> Tensor:
        return F.normalize(pictures.mean((-2, -1)) + 1e-3, dim=-1)

    def text_embeds(self, texts: list[str]) -> Tensor:
        named = [next((COLOURS[w] for w in words(text) if w in COLOURS), (0.5, 0.5, 0.5)) for text in texts]
        return F.normalize(torch.tensor(named), dim=-1)

    def chances(self, pictures: Tensor, texts: Tensor) -> Tensor:
        return (20 * pictures @ texts.T).softmax(-1)


def test_its_caption_and_another(base: Base) -> None:
    Image.new("RGB", (40, 32), "red").save("red.png")
    both = [Picture(Path("red.png"), "a red dog"), Picture(Path("red.png"), "a green dog")]
    right, wrong = score_files(base, ColourScorer(), both, None).rows
    assert right.text > 0.9 > 0.5 > wrong.text
    assert right.object > 0.4 > 0.01 > wrong.object  # the base knows a red cat too
    assert (right.likeness, right.shape, right.style, right.leak, right.total) == (None,) * 5


def test_one_eye_for_the_base_and_for_the_references(base: Base) -> None:
    Image.new("RGB", (32, 32), (0, 250, 0)).save("green.png")
    references = after(base, Image.new("RGB", (32, 32), (0, 255, 0)), Image.new("RGB", (32, 32), "red"))
    (row,) = score_files(base, ColourScorer(), [Picture(Path("green.png"), "a red dog")], references).rows
    assert row.likeness == pytest.approx(1, abs=1e-3)  # the nearest of them
    assert row.text < 0.5


@pytest.fixture
def some(base: Base) -> list[Picture]:
    """Nine pictures of two prompts: an empty one, one twice under a prompt, and once more under the other."""
    Path("in").mkdir()
    for index in range(6):
        noise(index).save(f"in/{index}.png")
    Image.new("RGB", (32, 32), "white").save("in/empty.png")
    for name in ("again", "elsewhere"):
        shutil.copy("in/0.png", f"in/{name}.png")
    prompts = ["a cat"] * 3 + ["a dog"] * 3 + ["a cat", "a cat", "a dog"]
    names = [*map(str, range(6)), "empty", "again", "elsewhere"]
    return [Picture(Path(f"in/{name}.png"), prompt) for name, prompt in zip(names, prompts, strict=True)]


def test_empty_ones_and_repeats_are_noted(base: Base, some: list[Picture]) -> None:
    for references in (after(base, draw()), None):
        notes = {row.picture.path.stem: row.note for row in made(base, some, references) if row.note}
        assert notes == {"empty": "empty", "again": "like 0.png"} or notes == {"empty": "empty", "0": "like again.png"}


def test_the_better_of_two_alike_is_kept(base: Base) -> None:
    for name, light in (("a", 190), ("b", 200)):
        image = draw(32, 32)
        image.putpixel((0, 0), (light, 0, 0))
        image.save(f"{name}.png")
    rows = made(base, [Picture(Path(f"{n}.png"), "a cat") for n in "ba"], after(base, draw()))
    order = sorted(rows, key=lambda row: (-round(row.total or 0, 4), row.picture.path))
    assert [row.note for row in order] == ["", f"like {order[0].picture.path.name}"]


def test_neither_order_nor_batches_matter(base: Base, some: list[Picture], monkeypatch: pytest.MonkeyPatch) -> None:
    references = after(base, draw())
    first = {row.picture: row for row in made(base, some, references)}
    monkeypatch.setattr(picture_files, "READ_TOGETHER", 2)
    monkeypatch.setattr(evaluate_module, "DRAWN_TOGETHER", 1)
    shuffled = random.Random(3).sample(some, len(some))
    rows = made(base, shuffled, references)
    assert [row.picture for row in rows] == shuffled
    for row in rows:
        close(row, first[row.picture])


def test_one_bare_picture_of_each_prompt_where_there_are_many(
    base: Base, some: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    for many, count in ((2, 4), (1, 2)):
        monkeypatch.setattr(picture_files, "MANY_PROMPTS", many)
        heard: list[tuple[float, str]] = []
        score_files(base, base, some, after(base, draw()), lambda *said, heard=heard: heard.append(said))
        whole = count + 9
        assert heard == [
            (0.0, f"0/{whole}"),
            (pytest.approx(count / whole), f"{count}/{whole}"),
            (1.0, f"{whole}/{whole}"),
        ]


def test_the_base_is_told_the_style_too(base: Base, some: list[Picture], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    sample = Base.sample
    monkeypatch.setattr(Base, "sample", lambda self, texts, *rest: told.extend(texts) or sample(self, texts, *rest))
    score_files(base, base, [Picture(one.path, one.prompt, "ink") for one in some[:1]], after(base, draw()))
    assert told == ["a cat in ink style"] * 2


def test_means_are_over_those_that_have_a_value() -> None:
    picture = Picture(Path("a.png"), "a cat")
    found = means([Row(picture, 0.2, 0.4), Row(picture, 0.4, 0.8, likeness=0.5)])
    assert found["text"] == pytest.approx(0.3)
    assert (found["likeness"], found["total"]) == (0.5, None)


@pytest.mark.parametrize(
    ("prompt", "style", "plain"),
    [
        ("a cat in watercolor style", "watercolor", "a cat"),
        ("a cat in Watercolor", "watercolor", "a cat"),
        ("a cat, watercolor style", "watercolor", "a cat"),
        ("a  cat in flat\n style", "flat style", "a cat"),
        ("a cat in watercolor style", "ink", "a cat in watercolor style"),
        ("a bottle of ink", "ink", "a bottle of ink"),
        ("a pink sink", "ink", "a pink sink"),
        ("in ink", "ink", "in ink"),
        ("a cat in a (b", "a (b", "a cat"),
        ("a cat in style", "", "a cat in style"),
    ],
)
def test_the_style_at_the_end_of_a_prompt_is_none_of_it(prompt: str, style: str, plain: str) -> None:
    assert without_style(prompt, style) == plain


# ---- as it is typed ----


def test_a_folder_that_generate_made_needs_nothing_else(score: Score, drawn: list[Path]) -> None:
    found = said(score("styledrop-out", "--json"))
    assert [one["picture"] for one in found["pictures"]] == [str(path) for path in drawn]
    assert [one["prompt"] for one in found["pictures"]] == ["a cat", "a cat", "a dog", "a dog"]
    assert all(isinstance(one[name], float) for one in [*found["pictures"], found["mean"]] for name in COLUMNS)
    for one in [*found["pictures"], found["mean"]]:
        assert 0 <= one["seen"] <= 1 and -2 <= one["way"] <= 2
        assert one["verdict"].count(",") == 1
    assert (found["scorer"], found["unreadable"]) == ("clip", [])
    for column in COLUMNS:
        mean = sum(one[column] for one in found["pictures"]) / 4
        assert found["mean"][column] == pytest.approx(mean, abs=1e-3)


def test_what_a_folder_holds_besides_is_counted_and_named(score: Score, drawn: list[Path]) -> None:
    for name in ("x.heic", "y.AVIF"):
        Path("styledrop-out", name).write_bytes(b"no picture that we read")
    assert "left out: 2 in a format that is not read ('x.heic', 'y.AVIF')" in score("styledrop-out").err


def test_a_table(score: Score, drawn: list[Path]) -> None:
    shown = score("styledrop-out")
    assert shown.code == 0, shown.err
    assert all(word in shown.out for word in ("by clip", "mean", *COLUMNS, *(path.name for path in drawn)))
    assert "contact sheets left out: 1" in shown.err
    assert all(f"{name}: " in shown.err for name in ("seen", "way"))  # what they are
    assert score("styledrop-out", "-q").err == ""


def test_the_adapter_is_found_beside_the_pictures_and_above_them(score: Score, drawn: list[Path]) -> None:
    here = said(score("styledrop-out", "--json"))
    for place in (Path("else/styledrop-out"), Path("else")):
        place.mkdir(parents=True, exist_ok=True)
        shutil.move(
            Path("adapter.safetensors") if place.name != "else" else "else/styledrop-out/adapter.safetensors", place
        )
        shutil.copytree("styledrop-out", "else/styledrop-out", dirs_exist_ok=True)
        found = said(score("else/styledrop-out", "--json"))
        assert found["mean"] == here["mean"]
    shutil.rmtree("styledrop-out")
    Path("else/adapter.safetensors").unlink()
    code, out, err = score("else/styledrop-out", "--json")
    assert code == 0
    assert "4 of 4 pictures have no reference ('adapter.safetensors' was not found)" in err
    assert "--reference FILE" in err
    mean = {name for name, value in json.loads(out)["mean"].items() if value is not None}
    assert mean == {"text", "object", "seen", "verdict"}
    table = score("else/styledrop-out").out
    assert "object" in table and "likeness" not in table


def test_another_adapter_of_that_name_is_no_reference(score: Score, drawn: list[Path], other: Path) -> None:
    here = said(score("styledrop-out", "--json"))
    shutil.move("adapter.safetensors", "styledrop-out/renamed.safetensors")
    shutil.copy(other, "adapter.safetensors")
    Path("a-model.safetensors").write_bytes(b"no adapter")
    assert said(score("styledrop-out", "--json"))["mean"] == here["mean"]
    Path("styledrop-out/renamed.safetensors").unlink()
    assert "4 of 4 pictures have no reference ('adapter.safetensors' was not found)" in score("styledrop-out").err


def test_a_prompt_and_a_reference(score: Score, picture: Path, drawn: list[Path], adapter: Path) -> None:
    draw().save("mine.jpg", quality=95)
    for reference in (["ref.png"], ["ref.png", "--content", "a cat"], [adapter], [adapter, "--reference", "ref.png"]):
        given = score("mine.jpg", "--prompt", "a dog", "--reference", *reference, "--json")
        (one,) = said(given)["pictures"]
        assert one["prompt"] == "a dog"
        assert isinstance(one["total"], float)
        if "ref.png" in reference:
            assert one["likeness"] > 0.99
    assert said(score(drawn[0], "--prompt", "a dog in watercolor style", "--json"))["pictures"][0]["prompt"] == "a dog"


def test_several_adapters_in_one_folder(
    styledrop: Run, score: Score, tiny_model: Path, drawn: list[Path], other: Path
) -> None:
    shutil.copy(other, "other.safetensors")
    quickly = ("-n", "2", "--steps", "2", "--model", tiny_model, "-q")
    styledrop("generate", "other.safetensors", "a house", *quickly)
    styledrop("generate", "--base-only", "a tree", *quickly)
    together = said(score("styledrop-out", "--json"))
    assert len(together["pictures"]) == 8
    apart = said(score(*drawn, "--reference", "adapter.safetensors", "--json"))["pictures"]
    apart += said(score(*Path("styledrop-out").glob("a-house*"), "--reference", "other.safetensors", "--json"))[
        "pictures"
    ]
    by_path = {one["picture"]: one for one in together["pictures"]}
    for one in apart:
        for name in COLUMNS:
            assert by_path[one["picture"]][name] == pytest.approx(one[name], abs=2e-4)
    assert by_path["styledrop-out/a-tree-0.png"]["likeness"] is None


def test_csv_holds_every_picture(score: Score, drawn: list[Path]) -> None:
    settings = {"prompt": 'a "cat",\n or a dog', "seed": 1, "adapter": "adapter.safetensors"}
    for index in range(45):
        save_png(noise(index), Path(f"styledrop-out/{index:02d}, odd.png"), settings)
    save_png(noise(99), Path("styledrop-out/bare.png"), {"prompt": "a dog", "seed": 1})
    code, out, err = score("styledrop-out", "--csv", "-q")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 50
    assert list(rows[0]) == ["picture", "prompt", *COLUMNS, "note", "seen", "way", "verdict"]
    assert rows[0]["picture"] == "styledrop-out/00, odd.png"
    assert rows[0]["prompt"] == 'a "cat", or a dog'
    by_name = {Path(row["picture"]).name: row for row in rows}
    assert all(float(by_name[path.name][name]) is not None for path in drawn for name in COLUMNS)
    assert by_name["bare.png"]["total"] == "" and float(by_name["bare.png"]["object"]) >= 0


def test_above_forty_pictures_there_is_a_row_a_prompt(score: Score) -> None:
    Path("in").mkdir()
    for index in range(41):
        save_png(
            noise(index // 2), Path(f"in/{index}.png"), {"prompt": "a cat" if index < 30 else "a dog", "seed": index}
        )
    code, out, err = score("in", "-q")
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert "41 pictures by clip; --csv lists every one" in out
    assert [line[:3] for line in lines if "a" in line[:1]] == [["a", "cat", "30"], ["a", "dog", "11"]]
    assert "15 alike" in out and "5 alike" in out
    assert next(line[1] for line in lines if line[:1] == ["mean"]) == "41"
    Path("in/40.png").unlink()
    assert "39.png" in score("in", "-q").out


def test_what_tokenize_wrote_is_left_out(styledrop: Run, score: Score, drawn: list[Path], tiny_model: Path) -> None:
    """Unless it is named, or no ids lie beside it."""
    draw().save("ref.png")
    assert styledrop("tokenize", "ref.png", "--model", tiny_model).code == 0  # into the same folder
    shown = score("styledrop-out", "--json")
    assert "pictures that tokenize wrote left out: 2" in shown.err
    assert [one["picture"] for one in said(shown)["pictures"]] == [str(path) for path in drawn]
    named = said(score("styledrop-out/ref-original.png", "--prompt", "a cat", "--json"))
    assert len(named["pictures"]) == 1
    Path("styledrop-out/ref-ids.json").unlink()
    assert score("styledrop-out").code == 2  # an ordinary picture, which does not say what it shows


def test_without_a_reference_it_is_said_what_is_seen(score: Score, picture: Path) -> None:
    one = said(score(picture, "--prompt", "a cat", "--json"))["pictures"][0]
    assert 0 <= one["seen"] <= 1 and one["way"] is None
    assert one["verdict"] in ("clear", "in doubt", "not seen")


def test_contact_sheets_are_no_pictures(score: Score, drawn: list[Path], picture: Path) -> None:
    assert Path("styledrop-out/sheet.png").exists()
    for name in ("sheet.png", "sheet-2.png", "pool.png", "step-0000050.png"):
        Path("round").mkdir(exist_ok=True)
        draw().save(f"round/{name}")
    names = [one["picture"] for one in said(score("styledrop-out", "round", "--prompt", "a cat", "--json"))["pictures"]]
    assert names == [str(path) for path in drawn]
    # One that generate made is known wherever it is named, a picture that only has such a name is none.
    code, _, err = score("styledrop-out/sheet.png")
    assert code == 2
    assert "there are no pictures to score in styledrop-out/sheet.png, only contact sheets" in err
    save_png(draw(), Path("styledrop-out/sheet-7.png"), {"prompt": "sheet", "seed": 7})
    names = [one["picture"] for one in said(score("styledrop-out", "--json"))["pictures"]]
    assert "styledrop-out/sheet-7.png" in names
    assert said(score("round/pool.png", "--prompt", "a cat", "--json"))["pictures"]


def test_what_is_named_twice_is_scored_once(score: Score, drawn: list[Path]) -> None:
    found = said(score("styledrop-out", drawn[1], drawn[1].absolute(), "--json"))
    assert len(found["pictures"]) == 4


def test_other_scorers(score: Score, drawn: list[Path], base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(clip_scorer, "load_scorer", lambda name, folder, device: asked.append(name) or base)
    own = said(score("styledrop-out", "--json"))
    assert said(score("styledrop-out", "--scorer", "clip", "--json")) == own
    assert asked == []  # it is the base's own, and open_clip stays where it is
    theirs = said(score("styledrop-out", "--scorer", "ViT-B-16/openai", "--json"))
    assert asked == ["ViT-B-16/openai"]
    assert theirs == own | {"scorer": "ViT-B-16/openai"}
    assert "by ViT-B-16/openai" in score("styledrop-out", "--scorer", "ViT-B-16/openai").out


def test_a_base_that_sees_no_pictures(score: Score, picture: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = base.having(clip=copy.deepcopy(base.clip))
    blind.clip.visual = None
    monkeypatch.setattr(base_module, "load_base", lambda model, device: blind)
    code, _, err = score(picture, "--prompt", "a cat")
    assert code == 1
    assert "has no picture tower" in err and "--scorer" in err


def test_words_that_the_base_was_not_taught(score: Score, picture: Path) -> None:
    assert "tiny does not know 'unicorn'" in score(picture, "--prompt", "a unicorn", "-q").err


# ---- what is refused, and what is left out ----


def garbled(path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("styledrop", "{never closed")
    draw().save(path, pnginfo=info)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["empty"], 2, ["there are no pictures to score in empty", ".webp"]),
        (["empty", "empty2"], 2, ["in empty and 1 more"]),
        (["nowhere.png"], 1, ["there is nothing at nowhere.png", "spelling"]),
        (["ref.png"], 2, ["ref.png does not say what it was asked to show\n", '--prompt "a cat"']),
        (["bare"], 2, ["bare/0.png does not say what it was asked to show, nor do 2 more"]),
        (["ref.png", "--prompt", "?"], 2, ["--prompt says nothing"]),
        (["ref.png", "--prompt", "a cat", "--content", "?"], 2, ["a --content says nothing"]),
        (["ref.png", "--prompt", "a cat", "--content", "a cat"], 2, ["reference pictures: 0, --content texts: 1"]),
        (["ref.png", "--prompt", "a cat", "--reference", "gone.png"], 1, ["there is no picture at gone.png"]),
        (["ref.png", "--prompt", "a cat", "--reference", "empty"], 1, ["empty is a folder, not a picture"]),
        (["ref.png", "--prompt", "a cat", "--reference", "gone.safetensors"], 1, ["no adapter file gone.safetensors"]),
        (["ref.png", "--prompt", "a cat", "--reference", "words.png"], 1, ["words.png is not a picture"]),
        (["ref.png", "--prompt", "a cat", "--scorer", "clop"], 2, ["no scorer called 'clop'", "Did you mean 'clip'"]),
        (["ref.png", "--prompt", "a cat", "--scorer", "scorer"], 1, ["has no scorer yet"]),
        (["ref.png", "--prompt", "a cat", "--csv", "--json"], 2, ["--csv and --json both say how to print"]),
        (["words.png"], 1, ["words.png is not a picture this program can read"]),
        (["garbled.png", "--prompt", "a cat"], 1, ["the settings inside garbled.png are garbled"]),
        (["cut.jpg", "--prompt", "a cat"], 1, ["cut.jpg cannot be read to its end"]),
        (["mega"], 1, ["mega/mega.safetensors was trained on another base (mega) than this one (tiny)"]),
        (["ref.png", "--prompt", "a cat", "--reference", "mega/mega.safetensors"], 1, ["on another base (mega)"]),
    ],
)
def test_what_is_refused(
    score: Score, picture: Path, adapter: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    for name in ("empty", "empty2", "bare", "mega"):
        Path(name).mkdir()
    for index in range(3):
        draw().save(f"bare/{index}.png")
    Path("words.png").write_text("these are words")
    garbled(Path("garbled.png"))
    cut(Path("cut.jpg"))
    file = load_adapter(adapter)
    tiny.write_adapter(
        Path("mega/mega.safetensors"),
        file.tensors,
        file.header.to_json() | {"base": {"name": "mega", "hash": "f" * 64}},
    )
    save_png(draw(), Path("mega/a.png"), {"prompt": "a cat", "seed": 1, "adapter": "mega.safetensors"})
    outcome = score(*arguments)
    assert outcome.code == code, outcome.err
    assert outcome.out == "" or ("--json" in arguments and json.loads(outcome.out)["exit_code"] == code)
    assert "Error: " in outcome.err and "Traceback" not in outcome.err and "unexpected" not in outcome.err
    assert all(word in outcome.err for word in words), outcome.err


def cut(path: Path) -> None:
    noise(1, 96).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])


def test_the_others_are_scored_where_some_cannot_be_read(score: Score, drawn: list[Path]) -> None:
    whole = said(score("styledrop-out", "--json"))
    Path("styledrop-out/words.png").write_text("these are words")
    garbled(Path("styledrop-out/garbled.png"))
    cut(Path("styledrop-out/cut.jpg"))
    shown = score("styledrop-out", "--prompt", "a cat", "-q")
    assert shown.code == 1
    assert "mean" in shown.out
    for name in ("words.png", "garbled.png", "cut.jpg"):
        assert any("Warning: left out: " in line and name in line for line in shown.err.splitlines()), shown.err
    assert "Error" not in shown.err
    Path("styledrop-out/cut.jpg").unlink()
    found = said(score("styledrop-out", "--json"), code=1)
    assert found["pictures"] == whole["pictures"]
    assert [Path(one["picture"]).name for one in found["unreadable"]] == ["garbled.png", "words.png"]
    assert all("error" in one for one in found["unreadable"])


def test_of_many_that_cannot_be_read_a_few_are_named(score: Score, picture: Path) -> None:
    Path("in").mkdir()
    for index in range(9):
        Path(f"in/{index}.png").write_text("these are words")
    shutil.copy(picture, "in/good.png")
    shown = score("in", "--prompt", "a cat")
    assert shown.code == 1
    assert "in/4.png" in shown.err and "in/5.png" not in shown.err
    assert "4 more that cannot be read" in shown.err


def test_what_a_picture_says_leads_nowhere_else(score: Score, adapter: Path) -> None:
    Path("deep/in").mkdir(parents=True)
    shutil.copy(adapter, "secret.safetensors")
    for index, value in enumerate(["../secret.safetensors", str(adapter), 7, "", "a.png"]):
        save_png(
            noise(index), Path(f"deep/in/{index}.png"), {"prompt": "a cat", "seed": 1, "adapter": value, "style": 3}
        )
    outcome = score("deep/in", "--json")
    assert "5 of 5 pictures have no reference" in outcome.err
    assert said(outcome)["mean"]["likeness"] is None


def test_pictures_of_any_shape(score: Score) -> None:
    Path("in").mkdir()
    draw(200, 40).save("in/wide.PNG")
    draw(40, 40).convert("L").save("in/grey.webp")
    draw(64, 64).save("in/.hidden.png")
    (Path("in") / "folder.png").mkdir()
    found = said(score("in", "--prompt", "a cat", "--reference", "in/wide.PNG", "--json"))
    assert [Path(one["picture"]).name for one in found["pictures"]] == ["grey.webp", "wide.PNG"]
    assert found["pictures"][1]["likeness"] == pytest.approx(1, abs=1e-4)
    assert load_picture(Path("in/wide.PNG")).size == (200, 40)
