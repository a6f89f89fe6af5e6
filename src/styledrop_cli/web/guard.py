"""What guards the picking page: a secret address, who is let in, and how long a connection may last.

A page of another site can neither read nor change anything: the address begins with a secret, the Host header must name
this server (or a foreign name could be pointed at 127.0.0.1), and what changes something must come from the page
itself. Starlette's TrustedHostMiddleware looks at neither the port nor a second Host header, and uvicorn's own limits
turn away who comes last instead of cutting off who is slow; hence `Guard` and `Connection`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from styledrop_cli.errors import StyledropError
from styledrop_cli.io.files import atomic_write, read_json

LARGEST_BODY = 4096
HOLD = 10.0  # seconds that an answer may wait for news
LONGEST = HOLD + 10.0  # seconds that a connection has for a request, answer and all
MOST = 200  # connections at a time: a browser takes six, and a process may commonly open a thousand files


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


def listen(known: tuple[int, str] | None) -> tuple[socket.socket, str, bool]:
    """A socket of 127.0.0.1, the secret, and whether they are the ``known`` ones; StyledropError if no port is free.

    With another port the secret is new as well: a tab left open tells the old one to whoever has the old port now.
    """
    if known:
        try:
            return _bound(known[0]), known[1], True
        except OSError:
            pass
    try:
        return _bound(0), secrets.token_urlsafe(32), False
    except OSError as error:
        raise StyledropError(
            f"the page cannot be served on 127.0.0.1: {error.strerror or error}", "Pick by --feedback clip instead."
        ) from None


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


# ---- connections and requests ----


class Refused(Exception):  # noqa: N818
    """A request that is not served, and why."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Connection(H11Protocol):
    """Cuts off who takes long over a request or its answer, for which uvicorn itself would wait for ever.

    Of more than ``MOST`` connections one that asks nothing right now is closed: the oldest of those that never did.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._asked, self._since = False, time.monotonic()
        self._end = self.loop.call_later(LONGEST, transport.abort)
        if len(self.connections) > MOST:
            quiet = [one for one in self.connections if isinstance(one, Connection) and one is not self and one._quiet]
            if quiet:
                min(quiet, key=lambda one: (one._asked, one._since)).transport.abort()

    @property
    def _quiet(self) -> bool:
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._end.cancel()
        self._end = self.loop.call_later(LONGEST, self.transport.abort)  # what was answered may not be read
        self._asked, self._since = True, time.monotonic()
        super().on_response_complete()


class Guard:
    """Lets in who asks for this server by its own name, knows the secret and, to change something, is its page.

    Gives every answer the headers that keep the secret and the page to themselves.
    """

    def __init__(self, app: ASGIApp, port: int, secret: str) -> None:
        self._app, self._secret = app, secret.encode()
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
            await send(message)

        secret, _, rest = scope["path"].removeprefix("/").partition("/")
        try:
            self._check(scope["method"], Headers(scope=scope), secret)
        except Refused as refused:
            await JSONResponse({"error": str(refused)}, refused.status)(scope, receive, guarded)
        else:
            await self._app({**scope, "path": f"/{rest}"}, receive, guarded)

    def _check(self, method: str, headers: Headers, secret: str) -> None:
        host = headers.getlist("host")
        if len(host) != 1 or host[0] not in self._hosts:
            raise Refused(421, f"This page is at {self._hosts[0]} only.")
        if not secrets.compare_digest(secret.encode("utf-8", "replace"), self._secret):
            raise Refused(404, "There is nothing here.")
        if method in ("GET", "HEAD"):
            return
        ours = headers.getlist("origin") == [f"http://{host[0]}"]
        if not ours or headers.get("sec-fetch-site", "same-origin") != "same-origin":  # the browser's word on who asks
            raise Refused(403, "Only the page itself may do this.")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "This is not JSON.")


async def said_in(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body; Refused for anything else."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_BODY:
                raise Refused(413, f"More than {LARGEST_BODY} bytes are not read.")
        said = json.loads(body)
    except ClientDisconnect:
        raise Refused(400, "The request was cut off.") from None
    except (ValueError, RecursionError):
        raise Refused(400, "This is not JSON.") from None
    if not isinstance(said, dict):
        raise Refused(400, "This is not a JSON object.")
    return said
