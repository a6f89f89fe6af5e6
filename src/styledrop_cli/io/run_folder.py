"""Run folders: what a long command has done so far, beside its output. What is on disk is the state.

``run.json`` says with which settings the run was begun and whether it is finished. The same command goes on where it
was; one with other settings is refused, with the names of those that differ. Two processes never work in one folder.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import OWN, atomic_write, read_json, remove_parts, to_json, writing

LOCK = ".lock"
MANIFEST = "run.json"
STATE = "state-{:07d}.safetensors"
STATES = STATE.replace("{:07d}", "*")
STATES_KEPT = 2  # the newest may turn out damaged
LOCK_TRIED = 0.2  # seconds
# What a file system without locks says (on Linux, NFS has them, and they hold between machines).
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
SIGNED_AT = 1 if sys.platform == "win32" else 0  # byte of the lock file: there nobody else can read the first one


# ---- nobody else in it -------------------------------------------------------------------------


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``, which is made if need be, until the block is over or this process dies.

    The operating system's lock on an open file is what counts, not that the file is there: a killed process leaves no
    lock. What killed processes left half written in the folder is removed, and so is a folder that was made and stayed
    empty. A thread may enter a folder again that it is in. On a disk without locks nobody is kept out.

    Raises UsageError, naming the process, if another one works there, StyledropError if the folder cannot be written.
    """
    place, path = folder.resolve(), folder / LOCK
    lock = FileLock(place / LOCK, LOCK_TRIED, is_singleton=True, preserve_lock_file=True, on_acquired=_sign)
    if lock.is_locked:  # by this thread
        yield
        return
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    with writing(path):
        if path.is_symlink():  # never ours, and what it leads to is not ours to write
            path.unlink()
        if not _acquired(lock, place):
            raise UsageError(
                f"another process{_owner(path)} is working in {folder}",
                "Wait for it, or choose another output with -o.",
            )
    entered = place not in OWN  # without locks it may be
    OWN.add(place)
    try:
        remove_parts(folder, deep=True)
        yield
    finally:
        if entered:
            OWN.discard(place)
        if missing and [one.name for one in folder.glob("*")] == [LOCK]:
            with suppress(OSError):  # another process uses it by now
                path.unlink()
                for one in missing:
                    one.rmdir()
        lock.release()


def refuse_busy(folder: Path) -> None:
    """Refuse a folder that another process works in, without making it; raises as ``alone_in`` does."""
    if (folder / LOCK).exists():
        with alone_in(folder):
            pass


def _acquired(lock: FileLock, folder: Path) -> bool:
    """Whether nobody else holds the lock, which is taken where the disk has locks."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except FileNotFoundError:  # another process has just removed the folder, which it had made
            continue
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        return True


def _sign(file: int) -> None:
    """Write into the open lock ``file`` whose it is."""
    os.ftruncate(file, 0)
    os.lseek(file, SIGNED_AT, os.SEEK_SET)
    os.write(file, f"{os.getpid()} {platform.node()}".encode())


def _owner(path: Path) -> str:
    """Which process holds the lock at ``path``, as far as it is written there."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(SIGNED_AT)
            pid, _, node = file.read(1000).decode(errors="replace").partition(" ")
    except OSError:
        return ""
    there = "" if node == platform.node() else f" on {node}"
    return f", PID {pid}{there}," if pid else ""


# ---- what is done in it ------------------------------------------------------------------------


class Run:
    """One run folder. ``settings`` is everything that determines the result, as plain values by name."""

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
        ``unsaid`` is what older runs, which do not name these settings, were begun with. Raises UsageError, naming what
        differs, if an unfinished run has other settings, unless ``fresh``.
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

        States of later steps are damaged, or the run would have gone on from them: they are removed first.
        """
        path = self.folder / STATE.format(step)
        for later in self.states():
            if later > path or later.is_dir():
                remove_state(later)
        save(path)
        for old in self.states()[STATES_KEPT:]:
            remove_state(old)

    def finish(self) -> None:
        """Record that the run is finished, and remove its states."""
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
    """What differs between the settings of two runs, in words."""
    return [
        "{}: {} there, {} now".format(name, *_shown(there.get(name), here.get(name)))
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name)
    ]


def _shown(*values: Any) -> list[str]:
    """Values that differ; of long ones the part where they begin to differ."""
    texts = [to_json(value) for value in values]
    same = next((i for i, both in enumerate(zip(*texts, strict=False)) if len({*both}) > 1), min(map(len, texts)))
    start = same - 20 if same > 60 else 0
    return [
        text
        if len(text) <= 80
        else f"{'...' * (start > 0)}{text[start : start + 76]}" + f"...{text[-1]}" * (start + 76 < len(text))
        for text in texts
    ]
