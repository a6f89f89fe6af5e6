"""What a command tells a program that watches it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from styledrop_cli.cli import events


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(events.VARIABLE, "told.jsonl")
    return Path("told.jsonl")


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_command_tells_how_far_it_is_and_what_it_made(styledrop: Run, tiny_model: Path, watched: Path) -> None:
    command = ("generate", "--base-only", "a cat", "an unheard-of thing", "-n", "2", "--model", tiny_model)
    assert styledrop(*command, "--quiet").code == 0
    lines = told(watched)
    moves = [line for line in lines if line.get("what") == "drawing"]
    assert moves[-1]["share"] == 1 and moves[-1]["note"] == "4/4"
    assert all(set(line) == {"what", "share", "note", "left"} for line in moves)
    assert [line["share"] for line in moves] == sorted(line["share"] for line in moves)
    assert "unheard-of" in " ".join(line["warn"] for line in lines if "warn" in line)
    (result,) = [line["result"] for line in lines if "result" in line]
    assert len(result["pictures"]) == 4


def test_a_failure_is_told_with_what_to_do(styledrop: Run, watched: Path) -> None:
    assert styledrop("generate", "nothing", "a cat").code == 2
    (line,) = told(watched)
    assert "nothing" in line["error"] and line["hint"]
    assert styledrop("generate", "--no-such-option").code == 2
    assert "no such option" in told(watched)[-1]["error"]


def test_progress_is_told_seldom_and_to_its_end(watched: Path) -> None:
    move = events.told_of("work")
    for step in range(10_001):
        move(step / 10_000, f"{step}")
    lines = told(watched)
    assert lines[0]["share"] == 0 and lines[-1] == {"what": "work", "share": 1.0, "note": "10000", "left": None}
    assert len(lines) < 100


def test_nobody_to_tell_is_no_error(styledrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("", "no/such/folder/told.jsonl", "."):
        monkeypatch.setenv(events.VARIABLE, place)
        assert styledrop("generate", "nothing", "a cat").code == 2
    assert not list(Path().glob("*.jsonl"))
