"""Environment variables that make no sense, and paths that the shell left with their `~`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SOURCE, Run, draw, nobody
from styledrop_cli.environment import expanded, is_on, launched, read_by, whole_number
from styledrop_cli.errors import UsageError


@pytest.mark.parametrize("value", ["abc", "", "-1"])
def test_what_makes_no_sense_and_does_not_matter(value: str) -> None:
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "OMP_NUM_THREADS", "TERMINAL_WIDTH")
    for arguments in (["--version"], ["train", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "styledrop_cli", *arguments],
            env=os.environ | dict.fromkeys(names, value) | {"PYTHONPATH": SOURCE},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "styledrop" in done.stdout


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', and no whole number"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2', and no whole number"),
        ({"WORLD_SIZE": "2", "RANK": "first"}, "RANK is 'first', and no whole number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, and WORLD_SIZE 2"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "x"}, "LOCAL_RANK is 'x', and no whole number"),
        ({"WORLD_SIZE": "2"}, "environment variable MASTER_ADDR expected, but not set"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "::1", "MASTER_PORT": "x"}, "where the other processes are is not known"),
    ],
)
def test_what_makes_no_sense_where_work_is_shared(
    styledrop: Run, picture: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], words: str
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, given.get(name, ""))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code, _, err = styledrop("train", picture, "--style", "crayon", "--model", tiny_model, "--device", "cpu")
    assert code == 2 and words in err and "Hint:  " in err, err


def test_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")
    assert launched() == (0, 1, 0)
    monkeypatch.setenv("WORLD_SIZE", " 3 ")
    monkeypatch.setenv("RANK", "1")
    assert launched() == (1, 3, 1)
    assert whole_number("LOCAL_RANK", 7) == 7
    monkeypatch.setenv("STYLEDROP_TRACEBACK", "0")
    assert not is_on("STYLEDROP_TRACEBACK")


def test_what_a_library_cannot_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD_TIMEOUT", "soon")
    with pytest.raises(UsageError, match="ODD_TIMEOUT is 'soon', which lib cannot read"), read_by("lib", "ODD_"):
        int(os.environ["ODD_TIMEOUT"])
    with pytest.raises(ValueError, match="later"), read_by("lib", "ODD_"):
        int("later")


def test_paths_that_the_shell_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a.png") == str(tmp_path / "a.png")
    assert expanded("~") == str(tmp_path)
    for path in ("a~", "./~/a", "~nobody-of-this-name.png"):
        assert expanded(path) == path
    nobody(monkeypatch)
    with pytest.raises(UsageError, match="~/a.png is in the home folder, and this user has none"):
        expanded("~/a.png")


def test_every_kind_of_path_may_begin_at_home(
    styledrop: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path("home").resolve()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    draw().save(home / "ref.png")
    (home / "model").symlink_to(tiny_model)
    (home / "prompts.txt").write_text("a cat")
    train = ("train", "~/ref.png", "--style", "crayon", "--steps", "2", "--checkpoints", "0", "--model", "~/model")
    assert styledrop(*train, "-o", "~/a.safetensors").code == 0
    few = ("-n", "1", "--steps", "2", "--model", "~/model")
    assert styledrop("generate", "~/a.safetensors", "--prompts", "~/prompts.txt", "-o", "~/pictures", *few).code == 0
    assert styledrop("generate", "--mix", "~/a.safetensors:1", "a cat", "-o", "~/mixed", *few).code == 0
    assert styledrop("inspect", "~/a.safetensors").code == 0
    assert {path.name for path in home.iterdir()} >= {"a.safetensors", "pictures", "mixed"}
    assert not list(Path().glob("~*"))
