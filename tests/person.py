"""A person at the picking page, played by a thread that talks to it as a browser does; and one who watches rounds."""

from __future__ import annotations

import _thread
import http.client
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 300.0  # seconds


class Person:
    """Picks the pictures named, presses Done, and wants ``more`` rounds; ``open_page`` stands for the browser's."""

    def __init__(self, picks: Sequence[int] = (0, 1), more: int = 0) -> None:
        self.picks, self.more = list(picks), more
        self.phases: list[str] = []
        self.rounds: list[int] = []  # as the page counts them
        self.told: dict[str, str] = {}  # the last words of each phase
        self.failed: list[str] = []

    def open_page(self, url: str) -> None:
        threading.Thread(target=self._sit, args=(url,), daemon=True).start()

    def _sit(self, url: str) -> None:
        until = time.monotonic() + PATIENCE
        done = set[str]()
        while time.monotonic() < until:
            try:
                state = self._ask(url, "state")
            except (OSError, http.client.HTTPException):
                return  # the program has ended, and its page with it
            phase = state["phase"]
            if self.phases[-1:] != [phase]:
                self.phases.append(phase)
            self.told[phase] = state["message"]
            if phase == "picking" and state["pool"] not in done:
                done.add(state["pool"])
                self.rounds.append(state["round"])
                for index in self.picks:
                    self._ask(url, "mark", {"pool": state["pool"], "index": index, "mark": "pick"})
                self._ask(url, "finish", {"pool": state["pool"]})
            elif phase == "asking" and state["sheet"] not in done:
                done.add(state["sheet"])
                self.more -= 1
                self._ask(url, "answer", {"sheet": state["sheet"], "another": self.more >= 0})
            elif phase == "over":
                self._ask(url, f"state?after={state['tag']}")
                return
            time.sleep(0.02)
        self.failed.append(f"still {self.phases[-1:]} after {PATIENCE:.0f} seconds")
        _thread.interrupt_main()  # nobody else will ever press Done

    def _ask(self, url: str, what: str, said: dict[str, Any] | None = None) -> dict[str, Any]:
        place = urlsplit(url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=PATIENCE)
        try:
            headers = {"Origin": f"http://{place.netloc}", "Content-Type": "application/json"}
            body = None if said is None else json.dumps(said)
            connection.request("GET" if said is None else "POST", place.path + what, body, headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
            if response.status >= 400:
                self.failed.append(f"{what}: {response.status} {answer}")
            return answer
        finally:
            connection.close()


class Watcher:
    """Hears everything; asks for as many more rounds as it is told to."""

    def __init__(self, more: int = 0) -> None:
        self.more, self.heard, self.last = more, list[str](), ""
        self.sheets: list[Path] = []

    def say(self, message: str) -> None:
        self.heard.append(message)

    def drawing(self, what: str, share: float, note: str) -> None:
        # Each purpose begins at nothing: the page shows the last share that it heard of until there is another.
        assert share == 0 if what != self.last else 0 < share <= 1
        self.last = what
        self.heard.append(what)

    def learning(self, share: float, note: str) -> None:
        self.last = "learning"
        self.heard.append("learning")

    def round_done(self, number: int, sheet: Path, planned: bool) -> bool:
        self.sheets.append(sheet)
        self.more -= not planned
        return planned or self.more >= 0
