"""styledrop from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from PIL import Image

import styledrop_cli
from conftest import Run, draw
from styledrop_cli import ModelError, StyleDrop, UsageError
from styledrop_cli.api import Drawing, Training
from styledrop_cli.io.images import load_picture, read_png_settings, save_png
from styledrop_cli.settings import SampleSettings, TrainSettings

QUICK = {"steps": 2, "checkpoints": 0, "views": 2, "batch_size": 2}


@pytest.fixture
def loaded(tiny_model: Path) -> StyleDrop:
    return StyleDrop.load(str(tiny_model))


@pytest.mark.parametrize(("options", "settings"), [(Drawing, SampleSettings), (Training, TrainSettings)])
def test_options_are_settings(options: type, settings: type) -> None:
    known, named = get_type_hints(settings), get_type_hints(options)
    known |= {"palette": str | Sequence[str]}  # from Python a list of colours will do as well
    assert {name: known[name] for name in named} == named


def test_it_is_imported_when_it_is_asked_for() -> None:
    assert styledrop_cli.StyleDrop is StyleDrop
    with pytest.raises(AttributeError, match="has no attribute 'StyleDrip'"):
        styledrop_cli.StyleDrip  # noqa: B018


def test_learn_and_draw(loaded: StyleDrop, picture: Path) -> None:
    seen: list[int] = []
    adapter = loaded.train(
        picture, "ink", contents="a cat", output="a.safetensors", on_step=lambda s, n, loss: seen.append(s), **QUICK
    )
    assert adapter.path == Path("a.safetensors") and adapter.header.style == "ink" and seen[-1] > 0
    made = loaded.generate(["a cat", "a dog"], adapter, number=2, seed=5, steps=2, lambda_b=3)
    assert [(one.prompt, one.seed) for one in made] == [("a cat", 5), ("a cat", 6), ("a dog", 5), ("a dog", 6)]
    assert all(one.image.size == (32, 32) for one in made)
    again = loaded.generate("a dog", "a.safetensors", seed=6, steps=2, lambda_b=3)
    assert again[0].image.tobytes() == made[3].image.tobytes()  # neither neighbours nor who read the file matter
    guarded = loaded.generate(["a cat", "a dog"], adapter, seed=5, steps=2, lambda_b=3, guard=2)
    assert [one.image.tobytes() == old.image.tobytes() for one, old in zip(guarded, made[::2], strict=True)] == [
        True,  # what the reference shows is asked for
        False,
    ]
    path = made[0].save("out")
    assert path == Path("out/a-cat-5.png")
    assert load_picture(path).tobytes() == made[0].image.tobytes()
    about = read_png_settings(path)
    assert about == made[0].about
    assert about is not None and (about["lambda_b"], about["style"], about["steps"]) == (3, "ink", 2)
    assert made[0].save("out") == path  # the same picture is not written twice
    other = replace(made[0], about=made[0].about | {"steps": 9})
    assert other.save("out") == Path("out/a-cat-5-steps-9.png")


def test_several_adapters(loaded: StyleDrop, picture: Path) -> None:
    for name, style in (("a", "ink"), ("b", "gold")):
        loaded.train(picture, style, contents="a cat", output=f"{name}.safetensors", **QUICK)
    mine = loaded.train(picture, contents="my cat", output="o.safetensors", learn="object", **QUICK)
    made = loaded.generate("a cat", {"a.safetensors": 0.5, "b.safetensors": 0.5}, thing=mine, gamma=0.5, steps=2)
    assert made[0].about["style"] == "ink and gold"
    assert made[0].about["mix"] == {"a.safetensors": 0.5, "b.safetensors": 0.5}
    assert (made[0].about["object"], made[0].about["gamma"]) == ("o.safetensors", 0.5)


def test_styles_are_kept_and_found_by_name(loaded: StyleDrop, picture: Path) -> None:
    assert styledrop_cli.styles() == []
    adapter = loaded.train(picture, "ink", contents="a cat", output="a.safetensors", **QUICK)
    kept = styledrop_cli.save(adapter, "ink")
    assert styledrop_cli.styles() == ["ink"] and styledrop_cli.load("ink").header == adapter.header
    with pytest.raises(UsageError, match="already"):
        styledrop_cli.save("a.safetensors", "ink")
    styledrop_cli.save("a.safetensors", "ink", overwrite=True)
    by_name, by_file = (loaded.generate("a cat", one, steps=2)[0] for one in ("ink", kept))
    assert by_name.image.tobytes() == by_file.image.tobytes()
    with pytest.raises(ModelError, match="no style called 'inq'"):
        styledrop_cli.load("inq")


def test_edit(loaded: StyleDrop, tiny_model: Path, styledrop: Run) -> None:
    save_png(draw(90, 60), Path("ref.png"))
    mask = Image.new("L", (90, 60))
    mask.paste(255, (10, 10, 40, 40))
    save_png(mask.convert("RGB"), Path("mask.png"))
    ways: list[tuple[dict[str, Any], list[str]]] = [
        ({"mask": "mask.png"}, ["--mask", "mask.png"]),
        ({"outpaint": (8, 0, 8, 0)}, ["--outpaint", "left=8,right=8"]),
        ({"restyle": 0.5}, ["--restyle", "0.5"]),
        ({"mask_free": 3}, ["--mask-free", "--iterations", "3"]),
    ]
    for change, options in ways:
        steps = {} if "mask_free" in change else {"steps": 2}
        made = loaded.edit("ref.png", "a cat", number=2, seed=3, **change, **steps)
        said = [word for name, value in steps.items() for word in (f"--{name}", str(value))]
        command = ["edit", "ref.png", "a cat", *options, *said, "-n", "2", "--seed", "3", "--model", str(tiny_model)]
        paths = styledrop(*command).out.split()
        for one, path in zip(made, paths[:2], strict=True):
            assert (one.image.tobytes(), one.about) == (
                load_picture(Path(path)).tobytes(),
                read_png_settings(Path(path)),
            )
            assert one.save("styledrop-out", "ref-{prompt}-{seed}") == Path(path)  # it is there already
    for wrong in (
        {},
        {"mask": "mask.png", "restyle": 0.5},
        {"restyle": 1.5},
        {"mask_free": 0},
        {"outpaint": (0, 0, 0, 0)},
    ):
        with pytest.raises(UsageError) as caught:
            loaded.edit("ref.png", "a cat", **wrong)
        assert caught.value.hint


def test_what_is_wrong_is_said_at_once(loaded: StyleDrop, picture: Path) -> None:
    """By the call itself, not by the first picture."""
    loaded.train(picture, "ink", contents="a cat", output="a.safetensors", **QUICK)
    for wrong in (
        {"prompts": " "},
        {"prompts": []},
        {"prompts": "a cat", "number": 0},
        {"prompts": "a cat", "steps": 0},
        {"prompts": "a cat", "size": 31},
        {"prompts": "a cat", "adapter": {"a.safetensors": 0.7}},
        {"prompts": "a cat", "adapter": "a.safetensors", "thing": "a.safetensors", "gamma": 1.5},
        {"prompts": "a cat", "preset": "slow"},
        {"prompts": "a cat", "superres_steps": 4},
    ):
        with pytest.raises(UsageError):
            loaded.stream(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no adapter file"):
        loaded.stream("a cat", "nowhere.safetensors")
    with pytest.raises(ModelError):
        StyleDrop.load("nowhere")
