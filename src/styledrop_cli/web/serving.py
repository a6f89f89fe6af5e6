"""Serving an app to this machine alone: a socket of 127.0.0.1, an address that is remembered, a thread, the page."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.io.files import atomic_write, read_json
from styledrop_cli.web.guard import HOLD, Connection, Guard, Uploads, no_uploads

PAGE = Path(__file__).with_name("page.html")
REMEMBERED = "page.json"  # port and secret
FOREVER = "private, max-age=31536000, immutable"  # for what is addressed by its contents


# ---- the address ----


def remembered(path: Path) -> tuple[int, str] | None:
    """The port and the secret of an earlier process, so that a tab that was left open finds the page again."""
    try:
        there = read_json(path)
        port, secret = there["port"], there["secret"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sound = type(port) is int and 0 < port < 65536 and isinstance(secret, str) and re.fullmatch(r"[\w-]{32,99}", secret)
    return (port, secret) if sound else None


def remember(path: Path, port: int, secret: str) -> None:
    """Keep the address, for this user's eyes only."""
    atomic_write(path, json.dumps({"port": port, "secret": secret}).encode(), private=True)


def listen(known: tuple[int, str] | None, hint: str, port: int = 0) -> tuple[socket.socket, str, bool]:
    """A socket of 127.0.0.1, the secret, and whether they are the ``known`` ones.

    With another port the secret is new as well: a tab left open tells the old one to whoever has the old port now.
    ``port`` is the one to take, 0 any. StyledropError with the ``hint`` if no port is free, UsageError if that one is
    not.
    """
    if known and port in (0, known[0]):
        try:
            return _bound(known[0]), known[1], True
        except OSError:
            pass
    try:
        return _bound(port), secrets.token_urlsafe(32), False
    except OSError as error:
        why = error.strerror or error
        if port:
            raise UsageError(f"port {port} cannot be served on: {why}", "name another --port, or none") from None
        raise StyledropError(f"the page cannot be served on 127.0.0.1: {why}", hint) from None


def _bound(port: int) -> socket.socket:
    # Only of a socket that says TCP does asyncio send an answer at once: else its body waits 40 ms behind its head.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere this would let two programs share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
    except OSError:
        listening.close()
        raise
    return listening


# ---- the server ----


class Site:
    """``app`` behind the guard, served at ``url`` by a thread until it is closed.

    ``folder/page.json`` keeps the address; ``again`` is whether it is that of an earlier process. ``uploads`` are the
    paths that take other bodies than JSON. Raises as ``listen`` does, and StyledropError if the server does not start
    or the address cannot be kept.
    """

    def __init__(self, app: ASGIApp, folder: Path, hint: str, port: int = 0, uploads: Uploads = no_uploads) -> None:
        listening, self.secret, self.again = listen(remembered(folder / REMEMBERED), hint, port)
        self.port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/{self.secret}/"
        self.closing = threading.Event()
        self.server = uvicorn.Server(_config(Guard(app, self.port, self.secret, uploads)))
        self._thread = threading.Thread(target=self.server.run, args=([listening],), name="page", daemon=True)
        try:
            remember(folder / REMEMBERED, self.port, self.secret)
            self._thread.start()
            while not self.server.started:
                if not self.alive:
                    raise StyledropError("the page's server did not start", "Start the command again.")
                time.sleep(0.01)
        except BaseException:
            self.close()
            listening.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it still serves."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop serving; what is being answered is given a moment."""
        self.closing.set()
        self.server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(5)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app, log_config=None, log_level="error", access_log=False, server_header=False,
        lifespan="off", ws="none", http=Connection, loop="asyncio", timeout_graceful_shutdown=1,
    )  # fmt: skip


# ---- answers ----


async def news(after: str | None, tag: Callable[[], str], closing: threading.Event, tick: float) -> None:
    """Return once ``tag`` is another than ``after``, or ``HOLD`` seconds have passed, or the site closes.

    Browsers slow a hidden tab's clock, and not an answer that it waits for.
    """
    until = time.monotonic() + HOLD
    while after == tag() and time.monotonic() < until and not closing.is_set():
        await asyncio.sleep(tick)


def page_as(scene: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers with the page, opened in a ``scene``: pick or studio."""

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data: blob:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        text = (
            PAGE.read_text(encoding="utf-8")
            .replace("NONCE", nonce)
            .replace('data-scene="SCENE"', f'data-scene="{scene}"')
        )
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    return page


def media_type(picture: bytes) -> str:
    """The media type of a picture, by its first bytes; ValueError if it is no PNG, JPEG or WebP file."""
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if picture.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if picture.startswith(b"RIFF") and picture[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError(f"a picture for the page is PNG, JPEG or WebP, and does not begin with {picture[:12]!r}")
