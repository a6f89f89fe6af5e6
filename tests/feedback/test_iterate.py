"""`styledrop iterate` as it is typed: who picks, what from, and what is refused."""

from __future__ import annotations

import builtins
import io
import json
import os
import re
import shutil
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops

import tiny
from conftest import Outcome, Run, draw
from person import Person
from styledrop_cli.adapters.header import load_adapter, read_header
from styledrop_cli.base.base import load_base
from styledrop_cli.cli import checks
from styledrop_cli.errors import UsageError
from styledrop_cli.feedback.people import numbers
from styledrop_cli.feedback.rounds import reference_pictures
from styledrop_cli.settings import TrainSettings
from styledrop_cli.training.adapter import train_adapter


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shrink_rounds(monkeypatch)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    draw().save(folder / "ref.png")
    train_adapter(
        load_base(str(tiny_model), tiny.CPU),
        pictures=[folder / "ref.png"],
        style="watercolor",
        contents=["a cat"],
        settings=TrainSettings(steps=2, views=2, checkpoints=0),
        output=folder / "adapter.safetensors",
    )
    return folder / "adapter.safetensors"


Iterate = Callable[..., Outcome]


@pytest.fixture
def iterate(styledrop: Run, tiny_model: Path, trained: Path) -> Iterate:
    """The command, with an adapter in the folder, little to draw and little to learn."""
    shutil.copy(trained, "adapter.safetensors")
    Path("prompts.txt").write_text("a dog\n\n# not this\na house\na dog\n", encoding="utf-8")

    def run(*arguments: str | Path) -> Outcome:
        small = ("--prompts", "prompts.txt", "--per-prompt", "3", "--steps", "2")
        return styledrop("iterate", *arguments, *small, "--model", tiny_model)

    return run


def picked(folder: Path) -> list[int]:
    numbers: list[int] = json.loads((folder / "picks.json").read_text())["pictures"]
    return numbers


def test_the_newest_adapter_here_is_gone_on_from(iterate: Iterate, trained: Path) -> None:
    shutil.copy(trained, "older.safetensors")
    os.utime("older.safetensors", (1, 1))
    code, out, err = iterate("-q")
    assert code == 0, err
    assert out == "adapter.rounds/best.safetensors\n"
    assert read_header(Path("adapter.rounds/round-2/adapter.safetensors")).number == 2
    # What a round made is never the newest adapter here, wherever it is copied.
    shutil.copy("adapter.rounds/round-2/adapter.safetensors", "newest.safetensors")
    later = time.time() + 60
    os.utime("newest.safetensors", (later, later))
    assert "adapter.rounds" in iterate("-q").out


def test_no_adapter_here(iterate: Iterate) -> None:
    Path("adapter.safetensors").unlink()
    Path("other.safetensors").write_bytes(b"something else")
    code, _, err = iterate()
    assert code == 2
    assert "no adapter in this folder" in err and "styledrop train" in err


def test_the_table_and_the_json_say_which_round_is_best(iterate: Iterate) -> None:
    shown = iterate()
    assert shown.code == 0, shown.err
    assert all(word in shown.out for word in ("base", "round", "object", "shape", "style", "leak", "total"))
    said = json.loads(iterate("--json").out)
    assert [row["round"] for row in said["rounds"]] == [0, 1, 2]
    assert said["rounds"][0]["way"] == pytest.approx(0, abs=1e-4)  # the base itself: there the way begins
    assert all(0 <= row["seen"] <= 1 and row["verdict"] for row in said["rounds"])
    assert said["best"] in (1, 2)
    assert said["scorer"] == "clip"  # this model has no second one
    assert said["verdict"].startswith("The rounds ") and "Kept is " in said["verdict"]
    assert " ".join(said["verdict"].split()) in " ".join(shown.err.split())
    (table,) = Path().glob("*.rounds/table.json")
    assert json.loads(table.read_text())["verdict"] == said["verdict"]


def test_pictures_are_learnt_from_first(iterate: Iterate) -> None:
    draw().save("ref.png")
    command = ("ref.png", "--style", "ink", "--content", "a cat", "-o", "ink")
    code, _, err = iterate(*command)
    assert code == 0, err
    assert read_header(Path("ink/round-1/adapter.safetensors")).style == "ink"
    assert read_header(Path("ink/round-2/adapter.safetensors")).contents[0] == "a cat"
    assert iterate(*command).code == 0  # and not again
    code, _, err = iterate("ref.png", "--style", "chalk", "--content", "a cat", "-o", "ink")
    assert code == 2
    assert "style: ink there, chalk now" in err
    assert iterate("ref.png", "--style", "chalk", "--content", "a cat", "-o", "ink", "--fresh").code == 0
    assert read_header(Path("ink/best.safetensors")).style == "chalk"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--feedback", "dog"], "--feedback knows no 'dog'"),
        (["--rounds", "0"], "rounds must be between"),
        (["--keep", "0"], "--keep must be between"),
        (["--picks", "a.txt", "--rounds", "2"], "1 --picks for 2 rounds"),
        (["--picks", "a.txt", "--feedback", "human"], "both say who picks"),
        (["adapter.safetensors", "adapter.safetensors"], "2 files, and one adapter is improved"),
        (["adapter.safetensors", "--style", "ink"], "its own style"),
        (["missing.safetensors"], "no adapter file missing.safetensors"),
        (["missing.png", "--style", "ink"], "no picture at missing.png"),
        (["ref.png"], "need a style"),
        (["-o", "prompts.txt"], "prompts.txt is a file"),
        (["--scorer", "nobody"], "no scorer called 'nobody'"),
    ],
)
def test_what_is_refused(iterate: Iterate, arguments: list[str], said: str) -> None:
    draw().save("ref.png")
    code, _, err = iterate(*arguments)
    assert code in (1, 2)
    assert said in err
    assert "Traceback" not in err
    assert not Path("adapter.rounds/round-2").exists()


@pytest.mark.parametrize(
    ("text", "said"), [("", "holds no prompts"), ("a dog\n!!!\n", "says nothing"), (None, "cannot be read")]
)
def test_prompts_that_say_nothing(
    styledrop: Run, iterate: Iterate, tiny_model: Path, text: str | None, said: str
) -> None:
    if text is not None:
        Path("mine.txt").write_text(text)
    code, _, err = styledrop("iterate", "--prompts", "mine.txt", "--model", tiny_model)
    assert code == 2
    assert said in err


# ---- who picks ----


def test_numbers_in_a_file(iterate: Iterate) -> None:
    code, _, err = iterate("--picks", "picks.txt")
    assert code == 2
    assert "there is no picks.txt yet" in err
    assert "adapter.rounds/round-2/pool.png" in err.replace("\n", "")
    assert Path("adapter.rounds/round-2/pool.png").exists()
    Path("picks.txt").write_text("2, 6\n5 # the red one, a café\n", encoding="utf-16")
    assert iterate("--picks", "picks.txt").code == 0
    assert picked(Path("adapter.rounds/round-2")) == [2, 6, 5]
    assert load_adapter(Path("adapter.rounds/round-2/adapter.safetensors")).header.feedback == "file"


@pytest.mark.parametrize("text", ["", "cat", "0", "7", "1 -2", "1.5"])
def test_numbers_that_pick_nothing(iterate: Iterate, text: str) -> None:
    Path("picks.txt").write_text(text)
    code, _, err = iterate("--picks", "picks.txt")
    assert code == 2
    assert "picks.txt" in err
    assert not Path("adapter.rounds/round-2/picks.json").exists()


def answers(monkeypatch: pytest.MonkeyPatch, *said: str) -> list[str]:
    """Type these at the questions, then close the input; the questions."""
    asked: list[str] = []
    rest: Iterator[str] = iter(said)

    def answer(question: str = "") -> str:
        asked.append(question)
        try:
            return next(rest)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", answer)
    return asked


def test_a_person_in_the_terminal(iterate: Iterate, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, "4", "x", "1 3", "b", "b", "3", "", "b", "5", "")
    code, _, err = iterate("--feedback", "terminal")
    assert code == 0, err
    assert picked(Path("adapter.rounds/round-2")) == [3, 5]
    assert "1/2 a dog" in asked[0] and "Type some of 1 to 3" in err
    assert "picked: 1 3" in asked[4]


def test_what_was_typed_is_not_lost(iterate: Iterate, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "1 2")
    code, _, err = iterate("--feedback", "terminal")
    assert code == 2
    assert "nobody to pick" in err
    asked = answers(monkeypatch, "", "", "")
    assert iterate("--feedback", "terminal").code == 0
    assert "picked: 1 2" in asked[0]
    assert picked(Path("adapter.rounds/round-2")) == [1, 2]


def test_a_person_on_the_page(iterate: Iterate, monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(picks=[0, 4], more=1)
    monkeypatch.setattr(webbrowser, "open", person.open_page)
    code, _, err = iterate("--feedback", "human")
    assert code == 0, err
    assert person.failed == []
    assert [phase for phase in person.phases if phase in ("picking", "asking")] == ["picking", "asking"] * 2
    # The first round of feedback is called the first, everywhere.
    assert person.rounds == [1, 2]
    assert person.told["asking"] == "Round 2 has been learnt."
    assert re.findall(r"(start|round \d) is done", err) == ["round 1", "round 2"]
    for number in (2, 3):  # the second because it was asked for
        assert picked(Path(f"adapter.rounds/round-{number}")) == [1, 5]
        assert read_header(Path(f"adapter.rounds/round-{number}/adapter.safetensors")).feedback == "human"


def test_the_page_shows_the_very_reference(trained: Path, tiny_model: Path) -> None:
    """The picture that was given where it is found, by its contents; else what the base's tokens show of it."""
    base = load_base(str(tiny_model), tiny.CPU)
    shutil.copy(trained, "adapter.safetensors")
    draw(40).save("ref.png")  # of the same name, and another
    files, original = reference_pictures(base, Path("adapter.safetensors"), [])
    assert not original
    with Image.open(io.BytesIO(files[0])) as shown:
        assert shown.format == "PNG" and shown.size == (base.sizes[-1],) * 2
    Path("pictures").mkdir()
    shutil.copy(trained.with_name("ref.png"), "pictures/ref.png")
    files, original = reference_pictures(base, Path("adapter.safetensors"), [])
    assert original
    with Image.open(io.BytesIO(files[0])) as shown, Image.open("pictures/ref.png") as given:
        assert shown.size == given.size
        assert ImageChops.difference(shown, given.convert("RGB")).convert("L").getextrema()[1] < 60  # but for JPEG


def test_first_clip_then_a_person(iterate: Iterate, monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(picks=[2])
    monkeypatch.setattr(webbrowser, "open", person.open_page)
    code, _, err = iterate("--feedback", "clip,human", "--rounds", "2")
    assert code == 0, err
    assert person.failed == []
    found = [read_header(Path(f"adapter.rounds/round-{n}/adapter.safetensors")).feedback for n in (2, 3)]
    assert found == ["clip", "human"]


def test_numbers() -> None:
    assert numbers("3 1,2;  3\n10") == [3, 1, 2, 10]
    assert numbers("") == []
    assert numbers("1 two") is None
    assert numbers("٣") is None


def test_a_file_of_prompts_is_read_as_generate_reads_it() -> None:
    Path("prompts.txt").write_text("# things\na {red|blue} cat\na dog\na red cat\n", encoding="utf-8")
    assert checks.prompts_in(Path("prompts.txt")) == ["a red cat", "a blue cat", "a dog"]
    Path("prompts.csv").write_text("prompt\na tree\n", encoding="utf-8")
    assert checks.prompts_in(Path("prompts.csv")) == ["a tree"]
    for wrong, what in (
        ("a cat --seed 5\n", "line 1: 'a cat' has seed of its own"),
        ("a dog\na {red|blue cat\n", "line 2, column 3: this { is never closed"),
        ("{a|b}{a|b}" * 10, "holds more than 100,000 prompts"),
        ("?!\n", "a prompt in prompts.txt, line 1 says nothing"),
    ):
        Path("prompts.txt").write_text(wrong, encoding="utf-8")
        with pytest.raises(UsageError, match=re.escape(what)):
            checks.prompts_in(Path("prompts.txt"))
