"""A folder of pictures, each learnt as a style of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Run, draw
from styledrop_cli.adapters import library
from styledrop_cli.adapters.header import read_header
from styledrop_cli.training import adapter as training

FEW = ("--steps", "2", "--checkpoints", "0")


@pytest.fixture
def each(styledrop: Run, tiny_model: Path) -> tuple[str | Path, ...]:
    """The beginning of the command, and three pictures: two with captions, one of which says a style alone."""
    Path("art").mkdir()
    for number, name in enumerate(("delft", "gold leaf", "ink")):
        draw(64 + 16 * number).save(f"art/{name}.png")
    Path("art/delft.txt").write_text("a house in blue delft style")
    Path("art/gold leaf.txt").write_text("gold")
    Path("art/ink.txt").write_text("a cat in ink style")
    return ("train", "--each", "art", *FEW, "--model", tiny_model)


def words(path: Path) -> tuple[str, list[str]]:
    header = read_header(path)
    return header.style, header.contents


def test_every_picture_is_a_style_of_its_own(styledrop: Run, each: tuple[str | Path, ...]) -> None:
    done = styledrop(*each)
    assert done.code == 0, done.err
    assert sorted(path.name for path in Path("styles").glob("*.safetensors")) == [
        "delft.safetensors", "gold-leaf.safetensors", "ink.safetensors"]  # fmt: skip
    assert words(Path("styles/delft.safetensors")) == ("blue delft", ["a house"])
    assert words(Path("styles/gold-leaf.safetensors"))[0] == "gold"
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["delft", "gold-leaf", "ink"]
    assert "--styles styles" in done.err


def test_a_style_for_all_leaves_captions_what_is_shown(styledrop: Run, each: tuple[str | Path, ...]) -> None:
    assert styledrop(*each, "--style", "ink", "--save-as", "brand-{name}").code == 0
    assert library.names() == ["brand-delft", "brand-gold-leaf", "brand-ink"]
    assert words(library.find("brand-ink")) == ("ink", ["a cat"])
    assert not Path("styles").exists()


def test_each_learns_what_train_learns_alone(styledrop: Run, each: tuple[str | Path, ...], tiny_model: Path) -> None:
    assert styledrop(*each).code == 0
    about = ("--style", "ink", "--content", "a cat", *FEW, "--model", tiny_model)
    assert styledrop("train", "art/ink.png", *about).code == 0
    from safetensors import safe_open

    def tensors(path: str) -> dict[str, Any]:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118

    assert tensors("styles/ink.safetensors") == tensors("adapter.safetensors")


def test_what_is_learnt_is_not_learnt_again_and_what_was_stopped_goes_on(
    styledrop: Run, each: tuple[str | Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, learnt = training.train_adapter, []

    def stopped(base: Any, **about: Any) -> Any:
        learnt.append(about["pictures"][0].stem)
        if len(learnt) == 2:
            raise KeyboardInterrupt
        return real(base, **about)

    monkeypatch.setattr(training, "train_adapter", stopped)
    assert styledrop(*each).code == 130
    assert learnt == ["delft", "gold leaf"]
    before = Path("styles/delft.safetensors").read_bytes()
    done = styledrop(*each, "--json")
    assert done.code == 0 and learnt[2:] == ["gold leaf", "ink"]
    assert [one["state"] for one in json.loads(done.out)["styles"]] == ["was there", "learnt", "learnt"]
    assert Path("styles/delft.safetensors").read_bytes() == before


def test_one_broken_picture_does_not_stop_the_others(styledrop: Run, each: tuple[str | Path, ...]) -> None:
    Path("art/gold leaf.png").write_bytes(b"\x89PNG\r\n\x1a\nnot much")
    done = styledrop(*each, "--json")
    said = json.loads(done.out)
    assert done.code == 1 and said["failed"] == 1 and "gold leaf.png" in done.err
    assert [one["state"] for one in said["styles"]] == ["learnt", "failed", "learnt"]
    assert said["styles"][1]["error"] and not Path("styles/gold-leaf.safetensors").exists()
    draw().save("art/gold leaf.png")
    assert styledrop(*each).code == 0 and Path("styles/gold-leaf.safetensors").exists()


def test_a_file_that_holds_something_else_stays(styledrop: Run, each: tuple[str | Path, ...]) -> None:
    assert styledrop(*each).code == 0
    Path("art/ink.txt").write_text("a dog in ink style")
    refused = styledrop(*each)
    assert refused.code == 2 and "ink.safetensors is already there" in refused.err
    assert words(Path("styles/ink.safetensors")) == ("ink", ["a cat"])
    assert styledrop(*each, "--overwrite").code == 0
    assert words(Path("styles/ink.safetensors")) == ("ink", ["a dog"])


def test_what_is_wrong_is_said_before_anything_is_learnt(styledrop: Run, each: tuple[str | Path, ...]) -> None:
    Path("other").mkdir()
    draw().save("other/ink.jpg")
    for more, said in (
        (("--save-as", "one"), "3 pictures"),
        (("--save-as", "a/{name}"), "cannot be the name of a style"),
        (("-o", "a.safetensors"), "each picture gets one of its own"),
        (("-o", "a", "--save-as", "{name}"), "both say where"),
        (("other/ink.jpg", "--style", "ink"), "would both be called 'ink'"),
        (("other",), "have no style, the first is other/ink.jpg"),
        (("--learn", "object", "--style", "ink"), "--each learns styles"),
        (("--content", "a cat"), "--content texts: 1"),
    ):
        done = styledrop(*each, *more)
        assert done.code == 2 and said in done.err, done.err
    assert not Path("styles").exists() and not library.folder().exists()


def test_a_dry_run_learns_nothing(styledrop: Run, each: tuple[str | Path, ...]) -> None:
    done = styledrop(*each, "--dry-run", "--json")
    assert done.code == 0 and len(json.loads(done.out)["dry_run"]["files"]) == 3
    assert not Path("styles").exists()
