"""Run folders: what a long command has done so far, beside its output. What is on disk is the state.

``run.json`` says with which settings the run was begun and whether it is finished. The same command goes on where it
was; one with other settings is refused, by name, so that no run is ever half one thing and half another. Two processes
never work in one folder: the second is told.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import OWN, atomic_write, read_json, remove_parts, to_json, writing

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
MANIFEST = "run.json"
STATE = "state-{:07d}.safetensors"
STATES = STATE.replace("{:07d}", "*")
STATES_KEPT = 2  # the newest may turn out damaged

_mine: dict[Path, tuple[int, FileIO]] = {}  # the folders that are held here: by which thread, and the open lock


# ---- nobody else in it -------------------------------------------------------------------------


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``, which is made if need be, until the block is over or this one dies.

    What is locked is an open file, never its being there: nothing is left to clean up. What killed processes left half
    written in the folder is removed, and a folder made for nothing. A thread may enter again what it is in. Of several
    processes that share a folder on purpose only the first asks for it.

    Raises UsageError, naming the process, if another one works there, StyledropError if the folder cannot be written.
    """
    place = folder.resolve()
    if place in _mine and _mine[place][0] == threading.get_ident():
        yield
        return
    path = folder / LOCK
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    with writing(path):
        if path.is_symlink():  # ours never is one, and what it leads to is not ours to write
            path.unlink()
        file = _locked(path)
    if file is None:
        raise UsageError(
            f"another process{_whose(path)} is working in {folder}", "Wait for it, or choose another output with -o."
        )
    with file:
        with writing(path):
            file.truncate(0)
            file.write(f"{os.getpid()} {platform.node()}".encode())
        _mine[place] = threading.get_ident(), file
        OWN.add(place)
        try:
            remove_parts(folder, deep=True)
            yield
        finally:
            del _mine[place]
            OWN.discard(place)
            if missing and [one.name for one in folder.glob("*")] == [LOCK]:
                with suppress(OSError):  # somebody wants it, after all
                    path.unlink()
                    for one in missing:
                        one.rmdir()


def refuse_busy(folder: Path) -> None:
    """Refuse a folder that another process works in, without making it; raises as ``alone_in`` does."""
    if (folder / LOCK).exists():
        with alone_in(folder):
            pass


def _locked(path: Path) -> FileIO | None:
    """The file at ``path``, made if need be, locked for as long as it is open; None if another process locked it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
        try:
            _lock(file)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except (BlockingIOError, PermissionError):
            file.close()
            return None
        except OSError:
            # A network file system without locks (on Linux, NFS has them, and they hold between machines). Nobody knows
            # of the others there; that is no reason not to work.
            return file
        file.close()  # its folder had been made for nothing, and was removed meanwhile


def _lock(file: FileIO) -> None:
    """Lock an open file; raises OSError at once if that cannot be."""
    if sys.platform == "win32":
        file.seek(2**30)  # beyond what the others are to read: here a lock also keeps readers out
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _whose(path: Path) -> str:
    """Which process it is that has locked the file at ``path``, as far as it says."""
    try:
        pid, _, node = path.read_text(encoding="utf-8", errors="replace").partition(" ")
    except OSError:
        return ""
    there = "" if node == platform.node() else f" on {node}"
    return f", PID {pid}{there}," if pid else ""


def _forget_locks() -> None:
    """A child that goes on after its parent has died (a pool's worker) does not keep others out."""
    for _, file in _mine.values():
        with suppress(OSError):
            file.close()
    _mine.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


# ---- what is done in it ------------------------------------------------------------------------


class Run:
    """One run folder. ``settings`` is everything that decides the result, as plain values by name."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings

    @classmethod
    def begin(
        cls,
        folder: Path,
        settings: dict[str, Any],
        *,
        fresh: bool,
        own: tuple[str, ...],
        unsaid: Mapping[str, Any] | None = None,
    ) -> Run:
        """Go on with an unfinished run of equal settings, or start a new one.

        A new one first removes what an earlier one left: its states and the files that match the patterns ``own``.
        ``unsaid`` is what runs were begun with that do not say it: those of before there was another choice.
        Raises UsageError, naming what differs, if an unfinished run has other settings and ``fresh`` is not said.
        """
        run = cls(folder, settings)
        there = None if fresh else run._read()
        if there is None or there.get("finished"):
            for state in run.states():
                remove_state(state)
            for pattern in own:
                for path in folder.glob(pattern):
                    path.unlink()
            run._write(finished=False)
        elif differences := _differences({**(unsaid or {}), **there.get("settings", {})}, run._plain()):
            raise UsageError(
                f"{folder} holds an unfinished run with other settings: {'; '.join(differences)}",
                "Repeat its settings to go on with it, say --fresh to start over, or choose another output with -o.",
            )
        return run

    def states(self) -> list[Path]:
        """The saved states, the newest first."""
        return sorted(self.folder.glob(STATES), reverse=True)

    def save_state(self, step: int, save: Callable[[Path], None]) -> None:
        """Let ``save`` write the state at ``step``, then drop all but the newest ones.

        Those of later steps go first: had one of them been whole, the run would have gone on from it.
        """
        path = self.folder / STATE.format(step)
        for later in self.states():
            if later > path or later.is_dir():
                remove_state(later)
        save(path)
        for old in self.states()[STATES_KEPT:]:
            remove_state(old)

    def finish(self) -> None:
        """Nothing is left to go on with."""
        self._write(finished=True)
        for path in self.states():
            remove_state(path)

    def read(self, name: str) -> Any:
        """The JSON file ``name`` of this folder, or None if it is missing or damaged."""
        try:
            return read_json(self.folder / name)
        except (OSError, ValueError):
            return None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write ``value`` as the JSON file ``name``, a line a key, in one atomic step."""
        lines = ",\n".join(f" {to_json(key)}: {to_json(v)}" for key, v in value.items())
        atomic_write(self.folder / name, f"{{\n{lines}\n}}\n".encode())

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(to_json(self.settings))
        return plain

    def _read(self) -> dict[str, Any] | None:
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        there = self.read(MANIFEST)
        if not isinstance(there, dict) or not isinstance(there.get("settings"), dict):
            raise UsageError(f"{path} is damaged: what was begun there is not known", "Say --fresh to start over.")
        return there

    def _write(self, finished: bool) -> None:
        self.write(MANIFEST, {"finished": finished, "settings": self.settings})


def remove_state(state: Path) -> None:
    """Remove a state, also where a folder has taken its place."""
    if state.is_dir():
        shutil.rmtree(state)
    else:
        state.unlink()


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What differs between two settings, in words."""
    return [
        "{}: {} there, {} now".format(name, *_shown(there.get(name), here.get(name)))
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name)
    ]


def _shown(*values: Any) -> list[str]:
    """Values that differ, in short: of long ones what is around where they begin to differ."""
    texts = [to_json(value) for value in values]
    same = next((i for i, both in enumerate(zip(*texts, strict=False)) if len({*both}) > 1), min(map(len, texts)))
    start = same - 20 if same > 60 else 0
    return [
        text
        if len(text) <= 80
        else f"{'...' * (start > 0)}{text[start : start + 76]}" + f"...{text[-1]}" * (start + 76 < len(text))
        for text in texts
    ]
