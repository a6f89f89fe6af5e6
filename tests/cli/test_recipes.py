"""Recipes, plans, samples, folders of references, leftovers: what one command says and another reads."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image

import tiny
from conftest import SOURCE, Outcome, Run, draw
from styledrop_cli.adapters.header import load_adapter, read_header
from styledrop_cli.cli import clean as clean_module
from styledrop_cli.cli.app import app
from styledrop_cli.io.images import read_png_settings
from styledrop_cli.io.tensors import save_part
from styledrop_cli.settings import SUPERRES_STEPS, TrainSettings

QUICK = ("--steps", "2", "--width", "1")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    of = TrainSettings.of
    monkeypatch.setattr(TrainSettings, "of", lambda kind, **given: of(kind, **{"views": 2, "batch_size": 2} | given))


@pytest.fixture
def train(styledrop: Run, tiny_model: Path, picture: Path) -> Callable[..., Outcome]:
    def run(*more: str | Path, quick: bool = True) -> Outcome:
        return styledrop("train", *more, "--model", tiny_model, *(QUICK if quick else ()))

    return run


def same_weights(*names: str) -> bool:
    a, b = (load_adapter(Path(name)).tensors for name in names)
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


SAID = ("ref.png", "--style", "watercolor", "--content", "a cat", "--checkpoints", "0")


# ---- recipes ----


def test_a_run_leaves_its_recipe_which_does_the_same_again(train: Callable[..., Outcome], styledrop: Run) -> None:
    assert train(*SAID, "-o", "a.safetensors", "--seed", "7").code == 0
    recipe = Path("a.safetensors.run/recipe.toml")
    said = tomllib.loads(recipe.read_text())
    assert said["train"]["pictures"] == ["ref.png"] and said["train"]["seed"] == 7
    assert "lr" not in said["train"]  # what nobody said stays the default
    assert styledrop("train", "--config", recipe, "-o", "b.safetensors").code == 0
    a, b = (read_header(Path(f"{name}.safetensors")) for name in "ab")
    assert (a.settings, a.contents, a.base) == (b.settings, b.contents, b.base)
    assert same_weights("a.safetensors", "b.safetensors")


def test_the_command_line_goes_before_the_recipe(styledrop: Run, tiny_model: Path) -> None:
    Path("r.toml").write_text(
        f'[generate]\nwords = ["a cat", "a dog"]\nbase-only = true\nnumber = 2\nlambda_b = 3\nsheet = false\n'
        f"model = {json.dumps(str(tiny_model))}\nsteps = 2\n[train]\nstyle = 'not for generate'\n"
    )
    code, out, err = styledrop("generate", "--config", "r.toml", "-n", "1", "--save-config", "again.toml")
    assert (code, out.split()) == (0, ["styledrop-out/a-cat-0.png", "styledrop-out/a-dog-0.png"]), err
    assert (read_png_settings(Path("styledrop-out/a-cat-0.png")) or {})["lambda_b"] == 3
    again = tomllib.loads(Path("again.toml").read_text())["generate"]
    assert (again["number"], again["lambda-b"], again["sheet"]) == (1, 3.0, False)
    shown = styledrop("generate", "--config", "again.toml")
    assert shown.out == out and "2 of 2 pictures were there already" in shown.err
    # The arguments of the command line stand in place of the recipe's, too.
    assert styledrop("generate", "a bird", "--config", "r.toml", "-n", "1").out.split() == [
        "styledrop-out/a-bird-0.png"
    ]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("[generate]\nlamda-b = 3", "line 2, column 1: styledrop generate has no option 'lamda-b'; did you mean 'lamb"),
        ("[genrate]\nnumber = 3", "line 1, column 2: there is no command 'genrate'; did you mean 'generate'"),
        ("number = 3\n[generate]\n", "line 1, column 1: 'number' is in no table"),
        ("[train]\nstyle = 'x'", "holds nothing for styledrop generate, only for train"),
        ("[generate]\nsheet = 1", "sheet must be true or false, not 1"),
        ("[generate]\nnumber = true", "number must be a text in quotes or a number, not True"),
        ("[generate]\nnumber = 2.5", "--number"),
        ("[generate]\nwords = [['a']]", "words must be a text in quotes or a number, or a list of these"),
        ("[generate]\nconfig = 'b.toml'", "has no option 'config'"),
        ("[generate]\nnumber = ", "line 2"),
        ("[generate]\nlambda-b = 99", "lambda_b must be between 0 and 50"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_with_its_place(styledrop: Run, recipe: str, words: str) -> None:
    Path("r.toml").write_text(recipe)
    code, out, err = styledrop("generate", "--base-only", "a cat", "--config", "r.toml")
    assert (code, out) == (2, "") and words in " ".join(err.split())
    assert list(Path().iterdir()) == [Path("r.toml")]


def test_a_recipe_that_is_not_there(styledrop: Run) -> None:
    code, _, err = styledrop("generate", "--config", "no.toml")
    assert code == 2 and "no.toml cannot be read" in err


def test_every_text_can_stand_in_a_recipe(styledrop: Run, tiny_model: Path) -> None:
    prompt = 'a "cat" \\{x\\} 猫 é \x7f'
    made = styledrop("generate", "--base-only", prompt, "-n", "1", "--steps", "1", "--model", tiny_model,
                     "--save-config", "r.toml", "--dry-run")  # fmt: skip
    assert made.code == 0
    assert tomllib.loads(Path("r.toml").read_text(encoding="utf-8"))["generate"]["words"] == [prompt]


def test_all_that_draw_or_train_read_recipes() -> None:
    group: Any = typer.main.get_group(app)
    with_recipes = {name for name, one in group.commands.items() if any(p.name == "config" for p in one.params)}
    assert {"train", "generate", "edit", "iterate", "sweep", "report", "alphabet", "kit", "pretrain"} <= with_recipes


# ---- what would be done ----


def test_dry_runs_do_nothing_and_say_what_they_would(train: Callable[..., Outcome], styledrop: Run) -> None:
    before = sorted(Path().rglob("*"))
    code, out, _ = train(*SAID, "-o", "a.safetensors", "--dry-run", "--json")
    said = json.loads(out)["dry_run"]
    assert code == 0 and sorted(Path().rglob("*")) == before
    assert said["files"] == ["a.safetensors", "a.safetensors.run"] and said["seconds"] >= 0
    assert train(*SAID, "-o", "a.safetensors").code == 0
    assert sorted(map(str, Path().glob("a.*"))) == said["files"]
    assert train(*SAID, "-o", "a.safetensors", "--dry-run").code == 2  # it is there already: that is said now
    assert "kat.png" in train("kat.png", *SAID[1:], "--dry-run").err


def test_a_dry_run_of_generate_names_the_files_that_come(styledrop: Run, tiny_model: Path) -> None:
    command = (
        "generate",
        "--base-only",
        "a cat",
        "a dog",
        "-n",
        "1",
        "--steps",
        "2",
        "--no-sheet",
        "--model",
        tiny_model,
    )
    said = json.loads(styledrop(*command, "--dry-run", "--json").out)["dry_run"]
    assert not Path("styledrop-out").exists()
    assert styledrop(*command).out.split() == said["files"]
    again = json.loads(styledrop(*command, "--dry-run", "--json").out)["dry_run"]
    assert again["files"] == [] and again["seconds"] == 0
    assert "0 of" in again["pictures"] and "2 are there" in again["pictures"]


def test_a_dry_run_of_iterate(
    train: Callable[..., Outcome], styledrop: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shrink_rounds(monkeypatch)
    assert train(*SAID, "-o", "a.safetensors").code == 0
    before = sorted(Path().rglob("*"))
    command = ("iterate", "a.safetensors", "--per-prompt", "2", "--steps", "2", "--model", tiny_model)
    code, out, err = styledrop(*command, "--dry-run")
    assert code == 0, err
    assert sorted(Path().rglob("*")) == before and "a.rounds" in out and "about" in out


# ---- training ----


def test_own_prompts_are_drawn_at_each_checkpoint_and_choose_nothing(train: Callable[..., Outcome]) -> None:
    wanted = (*SAID[:-2], "--checkpoints", "2")
    assert train(*wanted, "-o", "a.safetensors").code == 0
    own = ("--sample-prompt", "a dog", "--sample-prompt", "a tree")
    assert train(*wanted, *own, "-o", "b.safetensors").code == 0
    assert same_weights("a.safetensors", "b.safetensors")
    assert not list(Path("a.safetensors.run").glob("samples-*"))
    sheets = sorted(path.name for path in Path("b.safetensors.run").glob("samples-*"))
    assert sheets == ["samples-0000001.png", "samples-0000002.png"]
    first, last = (Image.open(Path("b.safetensors.run") / name).convert("RGB") for name in sheets)
    assert first.size == last.size and first.height > first.width / 4  # two rows of four


def test_own_prompts_are_drawn_where_nothing_else_is(train: Callable[..., Outcome]) -> None:
    object_of = ("ref.png", "--learn", "object", "--content", "a cat", "--sample-prompt", "a cat on a hill")
    assert train(*object_of, "-o", "cat.safetensors").code == 0
    assert list(Path("cat.safetensors.run").glob("samples-*")) and not list(
        Path("cat.safetensors.run").glob("step*.png")
    )
    assert read_header(Path("cat.safetensors")).is_object


def test_super_resolution_is_trained_where_it_is_asked_for(
    styledrop: Run, tiny_model: Path, picture: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "finer"))
    save_part(model, "superres", tiny.superres_network(), tiny.SUPERRES)
    command = ("train", *SAID, *QUICK, "--model", model)
    plain = styledrop(*command, "-o", "plain.safetensors")
    finer = styledrop(*command, "-o", "finer.safetensors", "--superres")
    assert (plain.code, finer.code) == (0, 0), finer.err
    assert "super-resolution" not in plain.err
    assert re.search(rf"super-resolution \d+/{SUPERRES_STEPS}  loss", finer.err)
    assert "learning: 2/2" in finer.err and "The last of 2 steps is kept" in finer.err
    assert read_header(Path("plain.safetensors")).superres is None
    assert read_header(Path("finer.safetensors")).superres is not None
    drawn = ("a cat", "-n", "1", "--steps", "2", "--model", model, "--superres-steps", "2")
    assert "train with --superres" in styledrop("generate", "plain.safetensors", *drawn, "-o", "a").err
    assert "train with --superres" not in styledrop("generate", "finer.safetensors", *drawn, "-o", "b").err
    assert Path("a/a-cat-0.png").exists() and Path("b/a-cat-0.png").exists()


def test_a_folder_of_references(train: Callable[..., Outcome]) -> None:
    Path("refs/deep").mkdir(parents=True)
    for name, text in (("b", "a dog in watercolor style"), ("deep/c", "a tree"), ("a", "a cat")):
        draw().save(f"refs/{name}.png")
        Path(f"refs/{name}.txt").write_text(text)
    code, _, err = train("refs", "--style", "watercolor", "--checkpoints", "0", "-o", "a.safetensors")
    assert code == 0, err
    header = read_header(Path("a.safetensors"))
    assert header.contents == ["a cat", "a dog", "a tree"]
    assert [one["name"] for one in header.pictures] == ["a.png", "b.png", "c.png"]
    Path("refs/b.txt").unlink()
    said = train("refs", "--style", "watercolor", "-o", "b.safetensors")
    assert said.code == 2 and "refs/b.png" in said.err
    given = ("--content", "a", "--content", "a dog", "--content", "x")
    assert train("refs", "--style", "watercolor", *given, "--checkpoints", "0", "-o", "c.safetensors").code == 0
    Path("none").mkdir()
    assert "none holds no pictures" in train("none", "--style", "x", "-o", "d.safetensors").err


# ---- leftovers ----


def stopped(run: Path) -> Path:
    """A training that was stopped half way: as its folder would be."""
    run.mkdir()
    (run / "run.json").write_text('{"finished": false, "settings": {}}')
    (run / "state-0000025.safetensors").write_bytes(b"x" * 1000)
    return run


def test_clean_removes_what_nobody_needs(
    train: Callable[..., Outcome], styledrop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(*SAID[:-2], "--checkpoints", "2", "-o", "a.safetensors").code == 0
    half = stopped(Path("half.safetensors.run"))
    Path("strange.safetensors.run").mkdir()
    Path("strange.safetensors.run/step-1.safetensors").write_bytes(b"mine")  # nothing says that it is a run of ours
    moved = Path("gone.safetensors.run")
    moved.mkdir()
    (moved / "run.json").write_text('{"finished": true, "settings": {}}')
    (moved / "step-0000001.safetensors").write_bytes(b"the adapter itself was lost")
    run, before = Path("a.safetensors.run"), sorted(Path().rglob("*"))

    code, out, err = styledrop("clean")
    assert code == 2 and out == "" and "confirm with --yes" in err  # nobody is here to ask
    assert "a.safetensors.run" in err and "stopped half way" in err
    monkeypatch.setattr(clean_module.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda *words, **more: False)
    assert styledrop("clean").code == 1
    assert sorted(Path().rglob("*")) == before

    code, out, _ = styledrop("clean", "--yes", "--json")
    assert code == 0 and set(json.loads(out)["files"]) == {
        str(path) for path in before if path not in Path().rglob("*")
    }
    left = {path.name for path in run.iterdir()}
    assert left >= {"step-0000001.png", "step-0000002.png", "curve.json", "recipe.toml", "run.json"}
    assert not any(name.endswith(".safetensors") for name in left)
    for kept in ("a.safetensors", "ref.png", half / "state-0000025.safetensors", moved / "step-0000001.safetensors",
                 "strange.safetensors.run/step-1.safetensors"):  # fmt: skip
        assert Path(kept).exists()
    assert "nothing to remove" in styledrop("clean").err
    assert styledrop("clean", "--yes", "--unfinished").code == 0
    assert not (half / "state-0000025.safetensors").exists() and (half / "run.json").exists()


def test_clean_leaves_links_alone(styledrop: Run) -> None:
    Path("elsewhere").mkdir()
    Path("elsewhere/mine.safetensors").write_bytes(b"mine")
    half = stopped(Path("half.safetensors.run"))
    os.symlink("../elsewhere/mine.safetensors", half / "state-0000050.safetensors")
    assert styledrop("clean", "--yes", "--unfinished").code == 0
    assert Path("elsewhere/mine.safetensors").read_bytes() == b"mine"
    assert not (half / "state-0000025.safetensors").exists()


def test_clean_of_rounds_keeps_adapters_and_picks(styledrop: Run) -> None:
    for name in ("pool", "picks"):
        Path("x.rounds/round-2", name).mkdir(parents=True)
    keep = [
        Path("x.rounds") / name for name in ("best.safetensors", "round-2/adapter.safetensors", "round-2/picks/1.png")
    ]
    gone = Path("x.rounds/round-2/pool/ids-00000.safetensors")
    for path in (*keep, gone):
        path.write_bytes(b"x")
    Path("x.rounds/run.json").write_text('{"finished": false, "settings": {"per_prompt": 8}}')
    assert styledrop("clean", "--yes").code == 0 and gone.exists()  # the rounds are not over
    Path("x.rounds/table.json").write_text("{}")
    assert styledrop("clean", "--yes").code == 0
    assert not gone.exists() and all(path.exists() for path in keep)


# ---- completion ----


@pytest.mark.skipif(sys.platform == "win32", reason="bash is for other systems")
@pytest.mark.parametrize(
    ("typed", "number", "offered"), [("styledrop gen", 1, "generate"), ("styledrop train --sam", 2, "--sample-prompt")]
)
def test_the_shell_completes(tmp_path: Path, typed: str, number: int, offered: str) -> None:
    program = tmp_path / "bin/styledrop"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m styledrop_cli "$@"\n')
    program.chmod(0o755)
    about = os.environ | {"PYTHONPATH": SOURCE, "HOME": str(tmp_path)}
    about["PATH"] = f"{program.parent}{os.pathsep}{about['PATH']}"
    lines = (
        "styledrop --install-completion bash >&2; source ~/.bash_completions/styledrop.sh\n"
        f"COMP_WORDS=({typed})\nCOMP_CWORD={number}\n"
        '_styledrop_completion styledrop; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", lines], env=about, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [offered], done.stderr
