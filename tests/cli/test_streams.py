"""Real processes whose reader goes away, whose output is full or closed; errors as JSON."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SOURCE, Run, draw
from styledrop_cli.cli.streams import AS_WELL_AS_CAN_BE

FULL = "/dev/full"


def shell(line: str) -> tuple[int, str, str]:
    """A line for bash, in which `styledrop` is this one: its first command's exit code, and what came out."""
    done = subprocess.run(
        ["bash", "-c", f"styledrop() {{ {shlex.quote(sys.executable)} -m styledrop_cli \"$@\"; }}\n{line}\n"
         "exit ${PIPESTATUS[0]}"],
        env=os.environ | {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", ["--help", "models list", "models list --json", "generate --help"])
def test_nobody_reads_to_the_end(arguments: str) -> None:
    assert shell(f"styledrop {arguments} | head -c 1")[0::2] == (0, "")
    assert shell(f"styledrop {arguments} 2>&1 | true")[0] == 0


@pytest.mark.parametrize("unbuffered", ["", "PYTHONUNBUFFERED=1 "])
def test_errors_that_nobody_reads_keep_their_exit_code(unbuffered: str) -> None:
    assert shell(f"{unbuffered}styledrop paint 2>&1 | true")[0] == 2
    assert shell("styledrop paint --json 2>&1 | head -c 1")[0] == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    assert shell(f"styledrop models list {closed}")[0::2] == (0, "")
    assert shell(f"styledrop paint {closed}")[0] == 2


@pytest.mark.skipif(not Path(FULL).exists(), reason="there is no /dev/full here")
def test_output_that_was_asked_for_and_cannot_be_written() -> None:
    for arguments in ("--version", "--help", "models list", "models list --json"):
        code, _, err = shell(f"styledrop {arguments} > {FULL}")
        assert (code, err) == (1, "Error: the disk is full\nHint:  make room on it\n"), arguments
        assert shell(f"styledrop {arguments} > {FULL} 2>&1")[0] == 1
    assert shell(f"styledrop models list 2> {FULL}")[0] == 0  # only remarks in passing are lost


@pytest.mark.parametrize("reader", ["2>&1 | head -c 1", "2>&1 | grep -m1 drawing", f"2> {FULL}", ">&- 2>&-"])
def test_work_goes_on_without_its_reader(tiny_model: Path, reader: str) -> None:
    model = f"--model {shlex.quote(str(tiny_model))} --device cpu"
    assert shell(f'styledrop generate --base-only "a cat" -n 3 --steps 2 {model} {reader}')[0] == 0
    assert len(list(Path("styledrop-out").glob("a-cat-*.png"))) == 3


def test_a_training_goes_on_without_its_reader(tiny_model: Path) -> None:
    draw(96, 96).save("ref.png")
    model = f"--model {shlex.quote(str(tiny_model))} --device cpu"
    train = f"styledrop train ref.png --style crayon --content x --steps 20 --checkpoints 1 {model}"
    assert shell(f"{train} 2>&1 | grep -m1 loss")[0] == 0
    assert Path("adapter.safetensors").exists()


@pytest.mark.skipif(not Path(FULL).exists(), reason="there is no /dev/full here")
def test_what_is_done_is_kept_though_it_cannot_be_told(tiny_model: Path) -> None:
    model = f"--model {shlex.quote(str(tiny_model))} --device cpu"
    code, _, err = shell(f'styledrop generate --base-only "a cat" -n 1 --steps 2 {model} > {FULL}')
    assert (code, "the disk is full" in err) == (1, True)
    assert Path("styledrop-out/a-cat-0.png").exists()


# ---- errors as JSON ----


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train", "--json"), 2, "missing argument 'PICTURE[:WEIGHT]...'"),
        (("paint", "--json"), 2, "paint"),
        (("generate", "a.safetensors", "a cat", "--json"), 1, "there is no adapter file a.safetensors"),
        (("train", "none.png", "--style", "x", "--json"), 1, "there is no picture at none.png"),
        (("generate", "--base-only", "a cat", "-n", "many", "--json"), 2, "--number"),
        (("generate", "--base-only", "a cat", "--json", "--colour"), 2, "--colour"),
    ],
)
def test_an_error_is_an_object_too(styledrop: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    found, out, err = styledrop(*arguments)
    about = json.loads(out)
    assert (found, about["exit_code"]) == (code, code)
    assert words in about["error"]
    assert f"Error: {about['error']}\n" in err
    assert about["hint"] is None or f"Hint:  {about['hint']}" in err


def test_only_where_json_was_asked_for(styledrop: Run) -> None:
    assert styledrop("generate", "--base-only", "-n", "0", "--", "--json").out == ""
    assert styledrop("paint").out == ""


def test_what_a_stream_has_no_letters_for() -> None:
    """A file's name goes out as it came in, byte by byte; for a letter that is not there stands a question mark."""
    name = os.fsdecode(b"\xff\xfe.png")
    assert name.encode("utf-8", AS_WELL_AS_CAN_BE) == b"\xff\xfe.png"
    assert "a café 猫".encode("ascii", AS_WELL_AS_CAN_BE) == b"a caf? ?"


ASCII = "PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 LC_ALL=C "


@pytest.mark.parametrize(
    ("setting", "given", "drawn", "path"),
    [
        (ASCII, "'a café'", "a café", "o/a-caf--0.png"),
        (ASCII, "--prompts - <<< 'a café'", "a café", "o/a-caf--0.png"),
        ("PYTHONIOENCODING=ascii ", "--prompts - <<< 'a café 猫'", "a café 猫", "o/a-café-猫-0.png"),
        ("PYTHONIOENCODING=cp1252 ", "'a café 猫'", "a café 猫", "o/a-café-猫-0.png"),
    ],
)
def test_words_go_through_any_encoding(tiny_model: Path, setting: str, given: str, drawn: str, path: str) -> None:
    options = f"--base-only -n 1 --steps 1 -o o --model {shlex.quote(str(tiny_model))} --device cpu --json"
    code, out, err = shell(f"export {setting}; styledrop generate {options} {given} 2> err.txt")
    assert (code, err) == (0, "")
    (picture,) = json.loads(out)["pictures"]
    assert (picture["path"], picture["prompt"]) == (path, drawn)
    assert Path(path).exists()


@pytest.mark.parametrize("given", ["$'a caf\\xe9'", "'a cat' --style $'caf\\xe9'", "--prompts - <<< $'a caf\\xe9'"])
def test_words_that_are_no_text(tiny_model: Path, given: str) -> None:
    options = f"--base-only -n 1 --model {shlex.quote(str(tiny_model))} --device cpu"
    code, _, err = shell(f"styledrop generate {options} {given}")
    assert code == 2 and "no text in UTF-8" in err


def test_an_answer_that_is_no_text_is_only_a_wrong_one() -> None:
    look = "from styledrop_cli.cli.streams import open_streams; open_streams(); print(ascii(input()))"
    done = subprocess.run([sys.executable, "-c", look], input=b"1 2\xe9\n", env=os.environ | {"PYTHONPATH": SOURCE},
                          capture_output=True, check=True)  # fmt: skip
    assert done.stdout.split() == [b"'1", b"2\\ufffd'"]
