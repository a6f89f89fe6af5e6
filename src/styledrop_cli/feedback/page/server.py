"""The picking page's server: it shows what the loop says and hands on what the person does, and decides nothing.

It is served by `web`, on 127.0.0.1 only. Pictures are served from memory; nothing a client sends is used as a path.
"""

from __future__ import annotations

import math
import re
import secrets
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from styledrop_cli.errors import StyledropError
from styledrop_cli.feedback.page.choices import Choices
from styledrop_cli.web.guard import Refused, said_in
from styledrop_cli.web.serving import FOREVER, Site, media_type, news, page_as

TICK = 0.25  # seconds: how often a waiting answer looks for news
RETURN = 2.5  # seconds that a tab left open by an earlier process has to come back before a new one is opened
FAREWELL = 3.0  # seconds that the open tabs have to fetch the end


@dataclass(frozen=True)
class Candidate:
    """One picture to choose from.

    ``picture`` is a PNG, JPEG or WebP file. Those of one ``prompt`` stand together, in the order given. ``scores`` by
    name and the ``note`` (``empty``, ``like 12``: pictures are numbered from 1) are shown when asked for.
    """

    prompt: str
    picture: bytes
    scores: Mapping[str, float]
    note: str = ""


class Gallery:
    """The page for all rounds of one run; a context manager, within which it is served at ``url``.

    ``references`` are PNG, JPEG or WebP files, ``title`` names the style. ``folder/page.json`` keeps the address: if a
    killed run is started again, a tab left open goes on. ``open_page`` is called with the address unless such a tab
    comes back. ``seen`` is said below the references where they are not the pictures that were given. All methods may
    be called from any thread; those that wait for the person let Ctrl-C through.

    Raises:
        StyledropError: on entering, the server cannot be started or the address not be kept.
        ValueError: a reference, a picture or a sheet is of another file type.
    """

    def __init__(
        self,
        folder: Path,
        references: Sequence[bytes],
        title: str,
        open_page: Callable[[str], object] = lambda url: webbrowser.open(url),
        seen: str = "",
    ) -> None:
        self.url = ""
        self._folder, self._open_page = folder, open_page
        self._news = threading.Condition()  # guards all below; notified of each change
        self._sets: dict[str, list[bytes]] = {}  # pictures by their contents' name: references, pool, sheet
        self._scene: dict[str, Any] = {
            "phase": "working", "note": "Getting ready", "share": 0.0, "round": 0, "enough": 0,
            "title": title, "seen": seen, "references": self._keep(references),
            "pool": None, "sheet": None, "message": "",
        }  # fmt: skip
        self._boot, self._number = secrets.token_hex(8), 0  # of this process; of what it shows now
        self._candidates: list[Candidate] = []
        self._choices: Choices | None = None
        self._answered: bool | None = None
        self._waiting, self._heard = 0, -math.inf  # tabs that wait for news; when one was last heard of, monotonic
        self._leaving = 0  # tabs that have not fetched the end yet
        self._closing = threading.Event()
        self._site: Site | None = None

    # ---- what the loop says ----

    def drawing(self, share: float, note: str) -> None:
        """Pictures are being drawn, a ``share`` in [0, 1] of them by now."""
        self._show(phase="drawing", share=_within(share), note=note)

    def pick(self, candidates: Sequence[Candidate], choices: Choices, round: int, enough: int) -> list[int]:  # noqa: A002
        """Show the pictures until the person is done with ``choices``, and return what is picked, at least one.

        ``round`` counts from 1, ``enough`` is how many picks are plenty. Returns at once where ``choices`` are done.
        """
        if choices.count != len(candidates):
            raise ValueError(f"choices among {choices.count} pictures do not fit {len(candidates)}")
        with self._news:
            self._candidates, self._choices = list(candidates), choices
            pool = self._keep([c.picture for c in candidates], *(c.prompt for c in candidates))
            self._show(phase="picking", round=round, enough=enough, pool=pool, sheet=None, message="", note="")
            self._wait(lambda: choices.done)
            self._show(phase="training", share=0.0)
            return choices.picked

    def training(self, share: float, note: str) -> None:
        """An adapter is learning from the picks; a ``share`` in [0, 1] of it is done."""
        self._show(phase="training", share=_within(share), note=note)

    def another(self, sheet: bytes, message: str, planned: bool) -> bool:
        """Show the sheet of before and after, and ask whether to go on.

        A ``planned`` round is not asked for: True at once, and the sheet stays in view until there is something to
        pick.
        """
        with self._news:
            shown = self._keep([sheet])
            if not planned:
                self._answered = None
                self._show(phase="asking", sheet=shown, message=message, note="")
                self._wait(lambda: self._answered is not None)
            going_on = planned or bool(self._answered)
            self._show(phase="working", sheet=shown, message=message, note="Next round" if going_on else "Finishing")
        return going_on

    def over(self, message: str, sheet: bytes | None = None) -> None:
        """Show the end: what was written where. An open tab is given the time to fetch it, and needs no server then."""
        with self._news:
            shown = self._keep([sheet]) if sheet else None
            self._leaving = max(self._waiting, int(time.monotonic() - self._heard < 2))
            self._show(phase="over", sheet=shown, message=message, note="")
            self._wait(lambda: self._leaving <= 0, FAREWELL)

    # ---- serving ----

    def __enter__(self) -> Gallery:
        self._site = Site(self._routes(), self._folder, "Pick by --feedback clip instead.")
        self.url = self._site.url
        # Some browsers keep whoever opens them waiting.
        threading.Thread(target=self._open, args=(self._site.again,), name="open-page", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        if self._site:
            self._site.close()

    def _open(self, again: bool) -> None:
        if again:
            self._closing.wait(RETURN)
            if self._heard > -math.inf:
                return
        if not self._closing.is_set():
            self._open_page(self.url)

    def _routes(self) -> Router:
        # A bare router: what it does not know is a 404, and it never redirects.
        return Router(
            [
                Route("/", page_as("pick")),
                Route("/state", self._state),
                Route("/pool/{name}", self._pool),
                Route("/pictures/{name}/{number}", self._picture),
                Route("/{act}", self._act, methods=["POST"]),
            ],
            redirect_slashes=False,
        )

    async def _state(self, request: Request) -> Response:
        """What is to be shown. One who has it already waits for news: browsers slow a hidden tab's clock, not this."""
        after = request.query_params.get("after")
        if after == self._tag and self._scene["phase"] == "over":
            with self._news:
                self._leaving -= 1  # this tab has all of it
                self._news.notify_all()
            return self._answer()
        self._waiting += 1
        await news(after, lambda: self._tag, self._closing, TICK)
        self._waiting -= 1
        self._heard = time.monotonic()
        return self._answer()

    async def _pool(self, request: Request) -> Response:
        with self._news:
            if request.path_params["name"] != self._scene["pool"]:
                return JSONResponse({"error": "These pictures are not shown any more."}, 404)
            return JSONResponse([_words(candidate) for candidate in self._candidates])

    async def _picture(self, request: Request) -> Response:
        pictures = self._sets.get(request.path_params["name"], [])
        number = request.path_params["number"]
        # Not int(): it takes digits of all scripts, and fails on thousands of them.
        if not re.fullmatch("[0-9]{1,6}", number) or int(number) >= len(pictures):
            return Response(status_code=404)
        picture = pictures[int(number)]
        return Response(picture, media_type=media_type(picture), headers={"Cache-Control": FOREVER})

    async def _act(self, request: Request) -> Response:
        try:
            said = await said_in(request)
            with self._news:
                more = self._do(request.path_params["act"], said)
                self._show()
                return self._answer(**more)
        except Refused as refused:
            return self._answer(refused.status, error=str(refused))
        except (IndexError, ValueError) as error:
            return self._answer(400, error=str(error))
        except StyledropError as error:
            return self._answer(500, error=f"Not saved: {error.message}. {error.hint or ''}".strip())

    def _do(self, act: str, said: dict[str, Any]) -> dict[str, Any]:
        phase = self._scene["phase"]
        if act in ("mark", "undo", "finish"):
            # A tab may have slept through a round: what it says is about pictures that are gone.
            if phase != "picking" or self._choices is None or said.get("pool") != self._scene["pool"]:
                raise Refused(409, "These pictures are not being picked from any more.")
            if act == "mark":
                self._choices.mark(said.get("index"), said.get("mark", "none"))  # type: ignore[arg-type]
            elif act == "undo":
                return {"undone": self._choices.undo()}
            else:
                self._choices.finish()
        elif act == "answer":
            if phase != "asking" or said.get("sheet") != self._scene["sheet"] or self._answered is not None:
                raise Refused(409, "This is not being asked any more.")
            if type(said.get("another")) is not bool:
                raise ValueError("the answer is true or false")
            self._answered = said["another"]
        else:
            raise Refused(404, "There is nothing to do by this name.")
        return {}

    # ---- what is shown ----

    @property
    def _tag(self) -> str:
        return f"{self._boot}-{self._number}"

    def _show(self, **changes: Any) -> None:
        with self._news:
            self._scene = {**self._scene, **changes}
            shown = (self._scene["references"], self._scene["pool"], self._scene["sheet"])
            self._sets = {name: pictures for name, pictures in self._sets.items() if name in shown}
            self._number += 1
            self._news.notify_all()

    def _wait(self, ready: Callable[[], bool], most: float = math.inf) -> None:
        """Wait for ``ready``, at ``most`` so many seconds, in steps: Ctrl-C does not end a long wait everywhere."""
        until = time.monotonic() + most
        while not self._news.wait_for(ready, timeout=0.5) and time.monotonic() < until:
            if self._site is not None and not self._site.alive:
                raise StyledropError("the page's server has stopped", "Start the same command again: nothing is lost.")

    def _answer(self, status: int = 200, **more: Any) -> Response:
        with self._news:
            choices, references = self._choices, self._sets[self._scene["references"]]
            marks = {
                "picked": choices.picked if choices else [],
                "rejected": choices.rejected if choices else [],
                "undoable": bool(choices and choices.undoable),
            }
            order = {"boot": self._boot, "number": self._number, "tag": self._tag}
            return JSONResponse({**self._scene, **marks, **order, "shown": len(references), **more}, status)

    def _keep(self, pictures: Sequence[bytes], *words: str) -> str:
        """Have ``pictures`` served, under a name made of their contents and ``words``."""
        digest = blake2b(digest_size=10)
        for part in (*pictures, *(w.encode() for w in words)):
            digest.update(blake2b(part).digest())
        for picture in pictures:
            media_type(picture)
        name = digest.hexdigest()
        with self._news:
            self._sets = {**self._sets, name: list(pictures)}
        return name


def _words(candidate: Candidate) -> dict[str, Any]:
    # JSON has no NaN.
    scores = {name: float(value) if math.isfinite(value) else None for name, value in candidate.scores.items()}
    return {"prompt": candidate.prompt, "scores": scores, "note": candidate.note}


def _within(share: float) -> float:
    return min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
