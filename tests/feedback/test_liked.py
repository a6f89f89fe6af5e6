"""A round of feedback from pictures that a person liked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny
from conftest import Outcome, Run, draw
from styledrop_cli.adapters.file import examples_of
from styledrop_cli.adapters.header import load_adapter, read_header
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.cli import console
from styledrop_cli.cli.app import app
from styledrop_cli.errors import UsageError
from styledrop_cli.feedback.liked import Liked
from styledrop_cli.io.images import load_picture, square, to_tensor
from styledrop_cli.report.commands import commands
from styledrop_cli.report.history import read_story

Iterate = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shrink_rounds(monkeypatch)


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return load_base(str(tiny_model), tiny.CPU)


@pytest.fixture(scope="module")
def drawn(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter and pictures that it drew."""
    folder = tmp_path_factory.mktemp("drawn")
    draw().save(folder / "ref.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train = "train ref.png --style watercolor --steps 2 --checkpoints 0 --content".split()
        for command in (
            [*train, "a cat"],
            ["generate", "adapter.safetensors", "a dog", "a tree", "-n", "2", "-o", "out"],
        ):
            assert console.run(app, [*command, "--model", str(tiny_model)]) == 0
    return folder


@pytest.fixture
def iterate(styledrop: Run, tiny_model: Path, drawn: Path) -> Iterate:
    """The command in a copy of that folder."""
    shutil.copytree(drawn, Path(), dirs_exist_ok=True)

    def run(*arguments: str | Path) -> Outcome:
        return styledrop("iterate", *arguments, "--steps", "2", "--model", tiny_model)

    return run


LIKED = ("--liked", "out/a-dog-0.png", "--liked", "out/a-tree-1.png")


def test_what_is_learnt_from_is_what_was_liked(iterate: Iterate, base: Base) -> None:
    code, _, err = iterate("adapter.safetensors", *LIKED, "--liked", "out/a-dog-0.png", "--json")
    assert code == 0 and "was not drawn with" not in err, err
    made = load_adapter(Path("adapter.rounds/round-2/adapter.safetensors"))
    assert (made.header.number, made.header.feedback) == (2, "liked")
    assert made.header.picks == [{"prompt": "a dog", "seed": 0}, {"prompt": "a tree", "seed": 1}]  # each once
    examples = examples_of(made)
    assert examples.contents == ["a cat", "a dog", "a tree"] and examples.references == 1
    ids = examples.views["views.ids"][-2:]
    for one, path in zip(ids, ("out/a-dog-0.png", "out/a-tree-1.png"), strict=True):
        seen = base.tokenizer.encode(to_tensor(square(load_picture(Path(path)), base.sizes[0]))[None])
        assert torch.equal(one.long(), seen[0].long())
    assert not Path("adapter.rounds/round-2/pool").exists() and not Path("adapter.rounds/plain").exists()


def test_it_is_compared_with_the_start_on_other_prompts(iterate: Iterate) -> None:
    said = json.loads(iterate("adapter.safetensors", *LIKED, "--json").out)
    assert [row["round"] for row in said["rounds"]] == [0, 1, 2] and said["best"] in (1, 2) and said["verdict"]
    table = json.loads(Path("adapter.rounds/table.json").read_text())
    assert table["prompts"] and not {"a dog", "a tree", "a cat"} & set(table["prompts"])
    for number in (1, 2):
        for place, _ in enumerate(table["prompts"], 1):
            assert load_picture(Path(f"adapter.rounds/round-{number}/graded/{place:02}.png")).size == (16, 16)


def test_the_report_says_how_to_do_it_again(iterate: Iterate, styledrop: Run, tiny_model: Path) -> None:
    assert iterate("adapter.safetensors", *LIKED).code == 0
    story = read_story(Path("adapter.rounds"))
    assert [pick.file is not None for pick in story.stages[1].picks] == [True, True]
    (again,) = [line for line in commands(story, [], [], "pocket", "") if line.startswith("styledrop iterate")]
    assert again.count("--liked") == 2 and "--prompts" not in again and "--steps 2" in again
    liked = [word for word in again.split() if "picks/" in word]
    assert [Path(one).read_bytes() for one in liked] == [Path(one).read_bytes() for one in LIKED[1::2]]


def test_other_pictures_in_the_same_folder_are_other_rounds(iterate: Iterate) -> None:
    assert iterate("adapter.safetensors", *LIKED, "--dry-run").code == 0
    assert not Path("adapter.rounds/run.json").exists()
    assert iterate("adapter.safetensors", *LIKED).code == 0
    manifest = json.loads(Path("adapter.rounds/run.json").read_text())
    assert len(manifest["settings"]["liked"]) == 2
    Path("adapter.rounds/run.json").write_text(json.dumps(manifest | {"finished": False}))
    assert iterate("adapter.safetensors", *LIKED).code == 0  # goes on
    Path("adapter.rounds/run.json").write_text(json.dumps(manifest | {"finished": False}))
    code, _, err = iterate("adapter.safetensors", "--liked", "out/a-dog-1.png")
    assert code == 2 and "liked" in err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("adapter.safetensors", "--liked", "ref.png"), "does not say what it shows"),
        (("adapter.safetensors", "--liked", "out/sheet.png"), "is a sheet"),
        (("adapter.safetensors", "--liked", "none.png"), "no picture at none.png"),
        (("--liked", "out/a-dog-0.png"), "none is named"),
        (("adapter.safetensors", *LIKED, "--rounds", "2"), "--rounds both say"),
        (("adapter.safetensors", *LIKED, "--feedback", "random"), "--feedback both say"),
    ],
)
def test_what_cannot_be_learnt_from(iterate: Iterate, given: tuple[str, ...], said: str) -> None:
    code, _, err = iterate(*given)
    assert code != 0 and said in " ".join(err.split())
    assert not Path("adapter.rounds/round-2").exists()


def test_a_picture_of_another_adapter_is_learnt_from_with_a_warning(iterate: Iterate, base: Base) -> None:
    assert iterate("adapter.safetensors", *LIKED).code == 0
    best = load_adapter(Path("adapter.rounds/round-2/adapter.safetensors"))
    heard: list[str] = []
    Liked.read([Path("out/a-dog-0.png")], best, heard.append)  # its parent drew it
    assert not heard
    shutil.copy("adapter.safetensors", "other.safetensors")
    with pytest.raises(UsageError):
        Liked.read([Path("ref.png")], best, heard.append)
    assert read_header(Path("adapter.safetensors")).number == 1
