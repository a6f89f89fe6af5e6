"""Run folders: what a long command has done so far, beside its output. What is on disk is the state.

``run.json`` says with which settings the run was begun and whether it is finished. The same command goes on where it
was; one with other settings is refused, by name, so that no run is ever half one thing and half another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from styledrop_cli.errors import UsageError
from styledrop_cli.images import atomic_write

MANIFEST = "run.json"
STATE = "state-{:07d}.safetensors"
STATES = STATE.replace("{:07d}", "*")
STATES_KEPT = 2  # the newest may turn out damaged


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
            for pattern in (STATES, *own):
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
        """Let ``save`` write the state at ``step``, then drop all but the newest ones."""
        save(self.folder / STATE.format(step))
        for path in self.states()[STATES_KEPT:]:
            path.unlink()

    def finish(self) -> None:
        """Nothing is left to go on with."""
        self._write(finished=True)
        for path in self.states():
            path.unlink()

    def read(self, name: str) -> Any:
        """The JSON file ``name`` of this folder, or None if it is missing or damaged."""
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write ``value`` as the JSON file ``name``, a line a key, in one atomic step."""
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(v, ensure_ascii=False)}" for key, v in value.items())
        atomic_write(self.folder / name, f"{{\n{lines}\n}}\n".encode())

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(json.dumps(self.settings))
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


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What differs between two settings, in words."""
    return [
        f"{name}: {_shown(there.get(name))} there, {_shown(here.get(name))} now"
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name)
    ]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"
