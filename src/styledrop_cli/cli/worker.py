"""A process that runs one command after another, so that torch is imported once: `python -m styledrop_cli.cli.worker`.

The studio starts it in its folder and speaks with it in lines of JSON. ``{"base": MODEL}`` is answered by what can be
drawn with that model; ``{"id": ID, "argv": [...]}`` runs a command, whose output goes to jobs/ID.log and whose events
go to jobs/ID.events, and is answered by ``{"id": ID, "code": N}``. SIGINT stops a command as Ctrl-C does. When the
studio is gone, however it went, its command is stopped so, too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, TextIO

from styledrop_cli.cli import console, events
from styledrop_cli.cli.app import app
from styledrop_cli.cli.streams import open_streams
from styledrop_cli.errors import INTERRUPTED, StyledropError, UsageError
from styledrop_cli.io.files import OWN

JOBS = Path("jobs")
PATIENCE = 15.0  # seconds that the worker of a studio that was killed has to stop
FAREWELL = 5.0  # seconds that a command has to stop once the studio is gone


class Worker:
    """One command at a time, each from a line of ``asked``."""

    def __init__(self, asked: TextIO, answers: TextIO) -> None:
        self._asked, self._answers = asked, answers
        self._lines: SimpleQueue[str] = SimpleQueue()  # an empty one is the end
        self._running = False
        signal.signal(signal.SIGINT, self._stop)
        threading.Thread(target=self._listen, daemon=True).start()

    def run(self) -> None:
        """Do what is asked until nobody can ask any more."""
        while line := self._lines.get():
            said = json.loads(line)
            answer = self._base(said["base"]) if "base" in said else self._command(said["id"], said["argv"])
            self._answers.write(json.dumps(answer) + "\n")
            self._answers.flush()

    def _listen(self) -> None:
        for line in self._asked:
            self._lines.put(line)
        self._lines.put("")
        if self._running:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(FAREWELL)
            os._exit(INTERRUPTED)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._running:  # what comes late is meant for a command that is over
            raise KeyboardInterrupt

    def _command(self, name: str, argv: list[str]) -> dict[str, Any]:
        path = JOBS / f"{name}.log"
        if path.is_symlink():  # nothing of a studio is
            path.unlink()
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        os.environ[events.VARIABLE] = str((JOBS / f"{name}.events").resolve())
        try:
            self._running = True
            code = console.run(app, argv)
        except KeyboardInterrupt:
            code = INTERRUPTED
        finally:
            self._running = False
        sys.stdout.flush()
        sys.stderr.flush()
        return {"id": name, "code": code}

    def _base(self, model: str) -> dict[str, Any]:
        """What there is to choose from; loading it here also has torch in memory before anything is drawn."""
        try:
            from styledrop_cli.base import hub
            from styledrop_cli.base.base import load_base
            from styledrop_cli.devices import pick_device
            from styledrop_cli.settings import SampleSettings

            place = model if model == "pocket" else hub.find(model)
            if place is None:  # the first command that needs it fetches it, and shows how far that is
                return {"base": {"name": model, "sizes": [], "reach": {}, "usual": {}}}
            base = load_base(model if model == "pocket" else hub.as_read(Path(place), model), pick_device("auto"))
            usual, reach = (
                vars(base.sampling(size=base.sizes[-1])),
                dict(SampleSettings.RANGES)
                | {name: (SampleSettings.RANGES[name][0], most) for name, most in base.spec.reach.items()},
            )
            return {"base": {"name": base.name, "sizes": base.sizes, "reach": reach, "usual": usual}}
        except StyledropError as error:
            return {"base": {"name": model, "error": error.message, "hint": error.hint}}


def main() -> None:
    """Work in this folder for as long as standard input is open."""
    from styledrop_cli.io.run_folder import alone_in

    asked, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    open_streams()
    OWN.add(Path().resolve())  # all of the studio's folder: no link in it is followed
    worker = Worker(asked, answers)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with alone_in(JOBS):
                return worker.run()
        except UsageError:  # one before is still at work: its studio was killed
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()
