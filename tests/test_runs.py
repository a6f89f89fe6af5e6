"""Run folders: the same settings go on, others are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.runs import STATES_KEPT, Run

FOLDER = Path("a.run")


def begin(fresh: bool = False, **settings: object) -> Run:
    return Run.begin(FOLDER, {"lr": 0.1, "targets": ("a", "b")} | settings, fresh=fresh, own=("step-*",))


def test_equal_settings_go_on() -> None:
    begin().save_state(3, lambda path: path.write_text("three") and None)
    again = begin()
    assert [p.read_text() for p in again.states()] == ["three"]


def test_others_are_refused_by_name_and_nothing_is_touched() -> None:
    begin().save_state(3, lambda path: path.write_text("three") and None)
    with pytest.raises(
        UsageError, match=r'a\.run holds .*: lr: 0\.1 there, 0\.2 now; more: null there, "x{70}.*\.\.\."'
    ):
        begin(lr=0.2, more="x" * 200)
    assert len(begin().states()) == 1
    assert begin(fresh=True, lr=0.2).states() == []


def test_what_earlier_runs_did_not_say_is_what_they_did() -> None:
    begin().save_state(3, lambda path: path.write_text("three") and None)
    for learn, there in (("style", True), ("object", False)):
        settings = {"lr": 0.1, "targets": ("a", "b"), "learn": learn}
        if there:
            run = Run.begin(FOLDER, settings, fresh=False, own=(), unsaid={"learn": "style"})
            assert len(run.states()) == 1
        else:
            with pytest.raises(UsageError, match='learn: "style" there, "object" now'):
                Run.begin(FOLDER, settings, fresh=False, own=(), unsaid={"learn": "style"})


def test_states_come_newest_first_and_old_ones_go() -> None:
    run = begin()
    for step in (9, 10, 2_000_000):
        run.save_state(step, lambda path: path.write_text(path.name) and None)
    assert [p.name for p in run.states()] == ["state-2000000.safetensors", "state-0000010.safetensors"]
    assert STATES_KEPT == 2


def test_a_new_run_clears_its_own_files_only() -> None:
    run = begin()
    for name in ("step-1.png", "notes.txt"):
        (FOLDER / name).write_text("x")
    run.save_state(1, lambda path: path.write_text("one") and None)
    run.finish()
    assert {p.name for p in FOLDER.iterdir()} == {"step-1.png", "notes.txt", "run.json"}
    begin(lr=7)
    assert {p.name for p in FOLDER.iterdir()} == {"notes.txt", "run.json"}


def test_json_is_read_back_or_none() -> None:
    run = begin()
    run.write("curve.json", {"losses": [[1, 2.5]], "style": "墨"})
    assert run.read("curve.json") == {"losses": [[1, 2.5]], "style": "墨"}
    assert (FOLDER / "curve.json").read_text(encoding="utf-8") == '{\n "losses": [[1, 2.5]],\n "style": "墨"\n}\n'
    (FOLDER / "curve.json").write_text("{")
    assert run.read("curve.json") is None
    assert run.read("nothing.json") is None


@pytest.mark.parametrize("text", ["", "[]", '{"finished": false}', "\x00"])
def test_a_damaged_manifest_is_said(text: str) -> None:
    begin()
    (FOLDER / "run.json").write_text(text)
    with pytest.raises(UsageError, match=r"run\.json is damaged") as error:
        begin()
    assert "--fresh" in str(error.value.hint)
    begin(fresh=True)


def test_a_folder_that_cannot_be_made() -> None:
    FOLDER.write_text("a file")
    with pytest.raises(StyledropError, match=r"cannot write a\.run"):
        begin()
