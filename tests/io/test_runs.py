"""Run folders: the same settings go on, others are refused by name, and so is a second process."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from children import held
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.io import files
from styledrop_cli.io.files import remove_parts
from styledrop_cli.io.run_folder import STATES_KEPT, Run, alone_in, refuse_busy

FOLDER = Path("a.run")


def begin(fresh: bool = False, **settings: object) -> Run:
    return Run.begin(FOLDER, {"lr": 0.1, "targets": ("a", "b")} | settings, fresh=fresh, own=("step-*",))


def test_long_settings_are_shown_where_they_differ() -> None:
    begin(style="x" * 100 + "ink" + "y" * 100)
    with pytest.raises(UsageError, match=r'style: \.\.\.x{20}inky+\.\.\." there, \.\.\.x{20}goldy+\.\.\." now'):
        begin(style="x" * 100 + "gold" + "y" * 100)


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


def test_states_of_later_steps_and_folders_in_their_place_go() -> None:
    """They were damaged: else the run would have gone on from them."""
    run = begin()
    for step in (5, 10, 15):
        run.save_state(step, lambda path: path.write_text(path.name) and None)
    (FOLDER / "state-0000020.safetensors").mkdir()
    (FOLDER / "state-0000020.safetensors/inside").write_text("x")
    run.save_state(10, lambda path: path.write_text("again") and None)
    assert [p.name for p in run.states()] == ["state-0000010.safetensors"]
    for step in (12, 14):
        (FOLDER / f"state-{step:07d}.safetensors").mkdir()
    run.save_state(14, lambda path: path.write_text(path.name) and None)
    assert [p.name for p in run.states()] == ["state-0000014.safetensors", "state-0000010.safetensors"]
    (FOLDER / "state-0000014.safetensors").unlink()
    (FOLDER / "state-0000014.safetensors").mkdir()
    run.finish()
    assert run.states() == []


# ---- one process a folder ----


def test_the_second_process_is_told_who_the_first_is() -> None:
    with held(FOLDER) as other:
        for enter in (lambda: alone_in(FOLDER).__enter__(), lambda: refuse_busy(FOLDER)):
            with pytest.raises(UsageError, match=rf"another process, PID {other.pid}, is working in a\.run") as error:
                enter()
            assert "-o" in str(error.value.hint)
        with alone_in(Path("b.run")):
            refuse_busy(Path("b.run"))  # its own
        (FOLDER / ".lock").write_text("12 elsewhere")
        with pytest.raises(UsageError, match="another process, PID 12 on elsewhere, is working in"):
            refuse_busy(FOLDER)
        (FOLDER / ".lock").write_text("")
        with pytest.raises(UsageError, match="another process is working in"):
            refuse_busy(FOLDER)
        assert not Path("c.run").exists()
        refuse_busy(Path("c.run"))
        assert not Path("c.run").exists()


@pytest.mark.parametrize("how", ["kill", "terminate", "end"])
def test_any_death_frees_the_folder(how: str) -> None:
    with held(FOLDER) as other:
        if how == "end":
            other.communicate("\n")
        else:
            getattr(other, how)()
        other.wait()
        with alone_in(FOLDER):
            assert (FOLDER / ".lock").read_text().startswith(f"{os.getpid()} ")
    with alone_in(FOLDER), alone_in(FOLDER):  # what one is in one may enter again
        pass
    with pytest.raises(KeyError), alone_in(FOLDER):
        raise KeyError
    refuse_busy(FOLDER)


def test_a_folder_made_for_nothing_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("there").mkdir()
    for folder, left in ((Path("there/far/run"), []), (Path("there"), [".lock"])):
        with pytest.raises(UsageError), alone_in(folder):
            raise UsageError("this cannot be")
        assert [path.name for path in Path("there").iterdir()] == left
    with alone_in(Path("used/run")):
        Path("used/run/state").touch()
    assert {path.name for path in Path("used/run").iterdir()} == {".lock", "state"}
    # Whoever opens the lock just before it goes takes the next one.
    flock = fcntl.flock

    def lock_what_goes(file: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        (FOLDER / ".lock").unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", lock_what_goes)
    with alone_in(FOLDER), ThreadPoolExecutor(1) as threads, pytest.raises(UsageError, match="is working"):
        threads.submit(refuse_busy, FOLDER).result()


def test_another_thread_is_another_worker() -> None:
    with (
        alone_in(FOLDER),
        ThreadPoolExecutor(1) as threads,
        pytest.raises(UsageError, match=f"PID {os.getpid()}, is working"),
    ):
        threads.submit(refuse_busy, FOLDER).result()


def test_a_child_that_outlives_its_parent_holds_nothing() -> None:
    with alone_in(FOLDER):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        with pytest.raises(AssertionError), held(FOLDER):  # but the parent goes on holding it
            pass
    try:
        with alone_in(FOLDER):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_worked_on(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(file: object, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with alone_in(FOLDER), alone_in(FOLDER):
        assert begin().states() == []


def test_a_folder_that_cannot_be_locked() -> None:
    FOLDER.mkdir()
    (FOLDER / ".lock").mkdir()
    with pytest.raises(StyledropError, match=r"cannot write a\.run/\.lock: "), alone_in(FOLDER):
        pass


# ---- what killed processes leave ----


def test_what_dead_processes_left_half_written_goes() -> None:
    with held(Path("elsewhere")) as alive:
        pass
    dead = alive.pid
    (FOLDER / "deeper").mkdir(parents=True)
    stale = [FOLDER / f".a.png.{dead}.part", FOLDER / f"deeper/.b.json.{dead}.part", FOLDER / f".c.{os.getpid()}.part"]
    kept = [FOLDER / f"..{os.getppid()}.part", FOLDER / f".a.png.{os.getppid()}.part", FOLDER / ".a.png.part",
            FOLDER / ".a.png.0.part", FOLDER / f"a.png.{dead}.part", FOLDER / f".a.png.{dead}.partly"]  # fmt: skip
    for path in (*stale, *kept):
        path.write_text("half")
    remove_parts(FOLDER, "*.png", older=60)
    assert all(path.exists() for path in (*stale, *kept))
    os.utime(stale[0], (1, 1))
    remove_parts(FOLDER, "*.png", older=60)
    assert [path.exists() for path in stale] == [False, True, True]
    with alone_in(FOLDER):
        assert not [path for path in stale if path.exists()]
        assert all(path.exists() for path in kept)


def test_elsewhere_nobody_is_asked_whether_he_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "kill", None)  # on Windows it would end him
    assert not files._alive(os.getpid())
    monkeypatch.setattr(files.os, "name", "nt")
    assert not files._alive(os.getppid())


# ---- one file, many writers ----


def test_threads_may_write_the_same_file_at_a_time() -> None:
    path, texts = Path("shared.json"), [f"{letter}" * 20_000 for letter in "abcdefgh"]

    def write(text: str) -> list[str]:
        read = []
        for _ in range(25):
            files.atomic_write(path, text.encode())
            read.append(path.read_text())
        return read

    with ThreadPoolExecutor(len(texts)) as threads:
        assert {one for read in threads.map(write, texts) for one in read} <= set(texts)
    assert [one.name for one in Path().iterdir() if "shared" in one.name] == ["shared.json"]
