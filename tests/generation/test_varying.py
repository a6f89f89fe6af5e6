"""Variations of a picture: what is kept of it, and that all else is as its file says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from conftest import Run, draw
from styledrop_cli.adapters import library
from styledrop_cli.api import StyleDrop
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import ModelError, PictureError, UsageError
from styledrop_cli.generation import pipeline
from styledrop_cli.generation.editing import edit
from styledrop_cli.generation.editing.edit import Edit
from styledrop_cli.generation.editing.origin import Origin
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.io.images import load_picture, read_png_settings, save_png

ALONE = StyleMix()
Calls = list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return load_base(str(tiny_model), tiny.CPU)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The ids that were given to `sample`, and those that came back."""
    calls: Calls = []
    real = Base.sample

    def watched(self: Base, *rest: Any, ids: Tensor | None = None, **options: Any) -> Tensor:
        made = real(self, *rest, ids=ids, **options)
        assert ids is not None
        calls.append((ids, made))
        return made

    monkeypatch.setattr(Base, "sample", watched)
    return calls


def wanted(base: Base, *seeds: int, **options: Any) -> list[PictureRequest]:
    settings = base.sampling(**({"size": base.sizes[-1], "steps": 3} | options))
    return [PictureRequest("a cat", seed, settings) for seed in seeds]


def vary(base: Base, them: list[PictureRequest], much: float) -> Iterator[tuple[int, Image.Image]]:
    return Edit("vary", draw(120, 90), much, {}).draw(base, ALONE, them)


# ---- what is kept ----


@pytest.mark.parametrize("size", [16, 32])
def test_nothing_drawn_anew_is_the_picture_as_its_tokens_show_it(base: Base, sampled: Calls, size: int) -> None:
    ((_, made),) = vary(base, wanted(base, 5, size=size), 0.0)
    assert sampled == []
    assert made.size == (size, size)
    if size == base.sizes[-1]:
        assert made.tobytes() == base.reconstruct(draw(120, 90)).shown.tobytes()


@pytest.mark.parametrize("options", [{}, {"size": 16}, {"order": "halton", "strength": 2.0}])
def test_all_drawn_anew_is_a_new_drawing(base: Base, options: dict[str, Any]) -> None:
    them = wanted(base, 5, 6, **options)
    fresh = dict(pipeline.draw(base, ALONE, them))
    for index, made in vary(base, them, 1.0):
        assert made.tobytes() == fresh[index].tobytes()
    assert Edit("vary", draw(), 1.0, {}).suits(base) == {}
    assert Edit("vary", draw(), 0.9, {}).suits(base) == {"order": "confidence"}


def test_known_ids_stay_as_they_were(base: Base, sampled: Calls) -> None:
    list(vary(base, wanted(base, *range(8)), 0.4))
    list(vary(base, wanted(base, 3), 0.4))
    (given, drawn), (alone, alone_drawn) = sampled
    masked = given == base.mask_id
    assert (masked.flatten(1).sum(1) == 6).all()  # of 16
    assert len({tuple(row.flatten().tolist()) for row in masked}) > 4
    assert torch.equal(drawn[~masked], given[~masked])
    assert len({tuple(row[~mask].tolist()) for row, mask in zip(given, masked, strict=True)}) > 1
    assert torch.equal(given[3], alone[0]) and torch.equal(drawn[3], alone_drawn[0])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_what_is_drawn_anew_stands_together(share: float) -> None:
    """A neighbour of what is drawn anew is so, too, more often than if single ids were chosen by chance."""
    drawing = edit._Drawing.__new__(edit._Drawing)
    drawing.base = SimpleNamespace(grid=16, device=tiny.CPU)  # type: ignore[assignment]
    chances = [tiny.generator(seed) for seed in range(40)]
    patches = drawing._patches(share, chances)
    assert (patches.flatten(1).sum(1) == round(share * 256)).all()
    both = (patches[:, :, 1:] & patches[:, :, :-1]).float().mean() / share
    assert float(both) > share + 0.1 * (1 - share)


# ---- what a picture says of itself ----


@pytest.fixture
def trained(styledrop: Run, tiny_model: Path) -> StyleDrop:
    """Three adapters beside the tests' pictures: ink, gold, and an object."""
    loaded = StyleDrop.load(str(tiny_model))
    quick: dict[str, Any] = {"steps": 2, "checkpoints": 0, "views": 2, "batch_size": 2, "lr": 0.1}
    for name in ("ink", "gold"):
        draw().rotate(len(name) * 30).save("ref.png")
        loaded.train("ref.png", name, contents="a cat", output=f"{name}.safetensors", **quick)
    loaded.train("ref.png", contents="my cat", output="thing.safetensors", learn="object", **quick)
    return loaded


def pixels(path: Path) -> bytes:
    return load_picture(path).tobytes()


DRAWN: dict[str, tuple[str, ...]] = {
    "one": ("ink.safetensors", "a cat", "--strength", "1.3", "--lambda-b", "2", "--negative", "blurry"),
    "other words": ("ink.safetensors", "a cat", "--style", "red", "--size", "16"),
    "no words": ("ink.safetensors", "a cat", "--style", ""),
    "the base": ("--base-only", "a cat", "--top-p", "0.5"),
    "several": ("--mix", "ink.safetensors:0.3", "--mix", "gold.safetensors:0.7", "a cat"),
    "an object": ("ink.safetensors", "a cat", "--object", "thing.safetensors", "--gamma", "0.4"),
    "an object alone": ("--base-only", "a cat", "--object", "thing.safetensors"),
}


@pytest.mark.parametrize("how", DRAWN)
def test_all_but_the_seed_is_as_the_picture_says(
    styledrop: Run, trained: StyleDrop, tiny_model: Path, how: str
) -> None:
    """Drawn anew all over with another seed it is what generate draws by that seed."""
    to = ("--steps", "2", "-q", "--model", tiny_model)
    assert styledrop("generate", *DRAWN[how], "-n", "3", "--seed", "4", "-o", "drawn", *to).code == 0
    code, out, err = styledrop("vary", "drawn/a-cat-4.png", "-n", "2", "--much", "1", "-q", "--model", tiny_model)
    assert code == 0, err
    assert out.split() == [*(f"styledrop-out/a-cat-4-vary-1-{seed}.png" for seed in (5, 6)), "styledrop-out/sheet.png"]
    for seed in (5, 6):
        varied, fresh = Path(f"styledrop-out/a-cat-4-vary-1-{seed}.png"), Path(f"drawn/a-cat-{seed}.png")
        assert pixels(varied) == pixels(fresh)
        said = read_png_settings(varied) or {}
        own = {name: said.pop(name) for name in ("edit", "picture", "picture_sha256", "share")}
        assert (own["edit"], own["picture"], own["share"]) == ("vary", "a-cat-4.png", 1.0)
        assert said == read_png_settings(fresh)


def test_the_command(styledrop: Run, trained: StyleDrop, tiny_model: Path) -> None:
    to = ("-q", "--model", tiny_model)
    assert styledrop("generate", "ink.safetensors", "a cat", "-n", "1", "--steps", "2", *to).code == 0
    command = ("vary", "styledrop-out/a-cat-0.png", "-n", "3", "--json", *to)
    result = json.loads(styledrop(*command).out)
    assert (result["drawn"], len(result["pictures"]), result["sheets"]) == (3, 3, ["styledrop-out/sheet.png"])
    assert (result["settings"]["share"], result["settings"]["steps"], result["settings"]["order"]) == (
        0.5,
        2,
        "confidence",
    )
    before = {path.name: path.read_bytes() for path in Path("styledrop-out").iterdir()}
    assert json.loads(styledrop(*command).out)["drawn"] == 0
    assert {path.name: path.read_bytes() for path in Path("styledrop-out").iterdir()} == before
    # One alone is what it was among others, and a variation can be varied.
    (alone,) = json.loads(styledrop(*command, "-n", "1", "--seed", "2", "-o", "other").out)["pictures"]
    assert pixels(Path(alone["path"])) == pixels(Path("styledrop-out/a-cat-0-vary-0.5-2.png"))
    assert styledrop("vary", alone["path"], "-n", "1", *to).code == 0
    # What is said here goes before what the picture says.
    said = ("--prompt", "a dog", "--adapter", "gold.safetensors", "--lambda-b", "0.5", "--style", "blue", "-n", "1")
    settings = json.loads(styledrop(*command, *said, "-o", "more").out)
    assert settings["pictures"][0]["prompt"] == "a dog"
    assert [settings["settings"][n] for n in ("adapter", "lambda_b", "style")] == ["gold.safetensors", 0.5, "blue"]
    assert [settings["settings"][n] for n in ("steps", "strength")] == [2, 1.0]


def test_from_python(styledrop: Run, trained: StyleDrop, tiny_model: Path) -> None:
    (drawn,) = trained.generate("a cat", "ink.safetensors", seed=3, steps=2, strength=1.2)
    path = drawn.save()
    made = trained.vary(path, number=2, much=0.4)
    assert [one.seed for one in made] == [4, 5]
    paths = styledrop("vary", path, "-n", "2", "--much", "0.4", "--model", tiny_model).out.split()
    for one, other in zip(made, map(Path, paths[:2]), strict=True):
        assert (one.image.tobytes(), one.about) == (pixels(other), read_png_settings(other))
    with pytest.raises(UsageError, match="1.5 is no share of a picture"):
        trained.vary(path, much=1.5)
    (other,) = trained.vary(path, adapter="gold.safetensors", prompt="a dog", seed=3, steps=3)
    assert (other.prompt, other.seed, other.about["style"], other.about["steps"]) == ("a dog", 3, "gold", 3)


def test_an_adapter_by_another_name_and_one_that_is_gone(styledrop: Run, trained: StyleDrop) -> None:
    path = trained.generate("a cat", "ink.safetensors", steps=2)[0].save()
    expected = trained.vary(path)[0].image.tobytes()
    Path("ink.safetensors").rename("renamed.safetensors")
    Path("gold.safetensors").rename("ink.safetensors")  # another one of its name
    assert trained.vary(path)[0].image.tobytes() == expected
    Path("renamed.safetensors").unlink()
    with pytest.raises(ModelError, match=r"the adapter that drew a-cat-0.png, ink.safetensors \(sha256 ") as caught:
        trained.vary(path)
    assert caught.value.hint and "--adapter" in caught.value.hint
    assert trained.vary(path, adapter="ink.safetensors")


def test_pictures_of_others(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    to = ("-n", "1", "--steps", "2", "-q", "--model", tiny_model)
    code, out, err = styledrop("vary", picture, *to)
    assert (code, out) == (2, "")
    assert "ref.png does not say what it shows" in err and "--prompt" in err
    assert styledrop("vary", picture, "--prompt", "a house", *to).code == 0
    said = read_png_settings(Path("styledrop-out/ref-vary-0.5-0.png")) or {}
    assert (said["prompt"], said["adapter"], said["size"], said["edit"]) == ("a house", None, 32, "vary")


def saying(**said: Any) -> Path:
    save_png(draw(32, 32), Path("odd.png"), said)
    return Path("odd.png")


def test_what_a_file_cannot_mean(trained: StyleDrop) -> None:
    usual = read_png_settings(trained.generate("a cat", "ink.safetensors", steps=2)[0].save()) or {}
    for wrong in ({"steps": 0}, {"steps": "two"}, {"ramp": 3}, {"strength": None}):
        with pytest.raises(PictureError, match="the settings inside odd.png cannot be drawn with"):
            Origin.read(saying(**(usual | wrong)))
    for wrong in (
        {"shares": [1, 2]},
        {"shares": "all"},
        {"mix": {}},
        {"adapter_hash": "a+b"},
        {"object": 3},
        {"adapter": None},
    ):
        with pytest.raises((UsageError, ModelError), match="which adapter drew it|is not here"):
            trained.vary(saying(**(usual | wrong)))
    with pytest.raises(UsageError, match="which adapter drew it"):  # as a round's picks are written
        trained.vary(saying(prompt="a cat", style="ink", seed=3, round=1))
    with pytest.raises(UsageError, match="a sheet of several pictures"):
        trained.vary(saying(prompt="a cat", sheet_of=["a.png"]))
    with pytest.raises(ModelError, match="is not here"):
        trained.vary(saying(**(usual | {"adapter": "../../etc/passwd", "adapter_hash": "0" * 12})))


def test_a_picture_of_before_there_was_a_setting(trained: StyleDrop) -> None:
    path = trained.generate("a cat", "ink.safetensors", steps=2)[0].save()
    usual = read_png_settings(path) or {}
    old = {name: value for name, value in usual.items() if name not in ("order", "correct", "superres_plausible")}
    assert Origin.read(saying(**old)).settings == Origin.read(path).settings
    without_hash = {name: value for name, value in old.items() if name != "adapter_hash"}
    assert trained.vary(saying(**without_hash))[0].about["adapter_hash"] == usual["adapter_hash"]  # by its name


@pytest.mark.parametrize("value", ["-0.1", "1.1", "nan"])
def test_a_share_out_of_range(styledrop: Run, picture: Path, value: str) -> None:
    code, _, err = styledrop("vary", picture, "--prompt", "a cat", "--much", value)
    assert (code, "--much must be between 0 and 1" in err) == (2, True)


def test_a_base_that_only_its_owner_knows(styledrop: Run, trained: StyleDrop) -> None:
    path = trained.generate("a cat", steps=2)[0].save()
    code, _, err = styledrop("vary", path)
    assert code == 2 and "drawn by the base model tiny" in err and "--model" in err


def test_super_resolution_draws_again(tmp_path: Path) -> None:
    loaded = StyleDrop(tiny.base(tmp_path / "base", superres=True))
    drawn = loaded.generate("a cat", number=2, steps=2, superres_steps=2, superres_lambda_b=0.0)
    (made,) = loaded.vary(drawn[0].save(), much=1)
    assert made.image.tobytes() == drawn[1].image.tobytes()
    # A base without it draws as it can.
    bare = StyleDrop(tiny.base(tmp_path / "bare"))
    assert bare.vary("a-cat-0.png", prompt="a cat")[0].about["superres_steps"] == 0


@pytest.mark.parametrize("write", [tiny.write_published, tiny.write_meissonic])
def test_published_bases(tmp_path: Path, write: Any) -> None:
    loaded = StyleDrop.load(str(write(tmp_path / "base")))
    drawn = loaded.generate("a cat", number=2, steps=2)
    path = drawn[0].save()
    assert loaded.vary(path, much=1)[0].image.tobytes() == drawn[1].image.tobytes()
    one, other = loaded.vary(path, number=2)
    assert one.image.size == drawn[0].image.size and one.image.tobytes() != other.image.tobytes()
    assert one.about["order"] == ("confidence" if loaded.base.spec.edits_suit else drawn[0].about["order"])


def test_an_adapter_among_the_saved_styles(trained: StyleDrop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained.generate("a cat", "ink.safetensors", steps=2)[0].save()
    monkeypatch.setenv(library.VARIABLE, str(Path("saved").resolve()))
    Path("ink.safetensors").rename("gone")
    with pytest.raises(ModelError):
        trained.vary(path)
    Path("saved").mkdir()
    Path("gone").rename("saved/my-ink.safetensors")
    assert trained.vary(path)[0].about["style"] == "ink"
