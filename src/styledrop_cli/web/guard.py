"""What guards a page: a secret address, who is let in, and how long a connection may last.

A page of another site can neither read nor change anything: the address begins with a secret, the Host header must name
this server (or a foreign name could be pointed at 127.0.0.1), and what changes something must come from the page
itself, or from a script that says the secret in a header, which no browser lets a foreign page send. Starlette's
TrustedHostMiddleware looks at neither the port nor a second Host header, and uvicorn's own limits turn away who comes
last instead of cutting off who is slow; hence `Guard` and `Connection`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

Uploads = Callable[[str], Collection[str]]  # the media types that a path, after the secret, takes besides JSON

LARGEST_BODY = 4096
HOLD = 10.0  # seconds that an answer may wait for news
LONGEST = HOLD + 10.0  # seconds that a connection has for a request, answer and all
MOST = 200  # connections at a time: a browser takes six, and a process may commonly open a thousand files


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


def no_uploads(path: str) -> Collection[str]:
    """Of a site that takes JSON alone."""
    return ()


class Guard:
    """Lets in who asks for this server by its own name, knows the secret and, to change something, is its page.

    Or is a script: ``Authorization: Bearer SECRET`` stands for the page's Origin. ``uploads`` says which paths take
    other bodies than JSON. Gives every answer the headers that keep the secret and the page to themselves.
    """

    def __init__(self, app: ASGIApp, port: int, secret: str, uploads: Uploads = no_uploads) -> None:
        self._app, self._secret, self._uploads = app, secret.encode(), uploads
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
            self._check(scope["method"], Headers(scope=scope), secret, f"/{rest}")
        except Refused as refused:
            await JSONResponse({"error": str(refused)}, refused.status)(scope, receive, guarded)
        else:
            await self._app({**scope, "path": f"/{rest}"}, receive, guarded)

    def _check(self, method: str, headers: Headers, secret: str, path: str) -> None:
        host = headers.getlist("host")
        if len(host) != 1 or host[0] not in self._hosts:
            raise Refused(421, f"This page is at {self._hosts[0]} only.")
        if not secrets.compare_digest(secret.encode("utf-8", "replace"), self._secret):
            raise Refused(404, "There is nothing here.")
        if method in ("GET", "HEAD"):
            return
        origin = headers.getlist("origin")
        ours = origin == [f"http://{host[0]}"] or (not origin and self._is_script(headers))
        if not ours or headers.get("sec-fetch-site", "same-origin") != "same-origin":  # the browser's word on who asks
            raise Refused(403, "Only the page itself may do this.")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and kind not in (takes := self._uploads(path)):
            raise Refused(415, f"Taken here is {' or '.join(takes or ['JSON'])}.")

    def _is_script(self, headers: Headers) -> bool:
        said = headers.getlist("authorization")
        secret = said[0].removeprefix("Bearer ").encode("utf-8", "replace") if len(said) == 1 else b""
        return secrets.compare_digest(secret, self._secret)


async def body_of(request: Request, most: int) -> bytes:
    """A request's body; Refused if it is cut off, or has more than ``most`` bytes, of which no more are read."""
    parts, size = [], 0
    try:
        async for chunk in request.stream():
            parts.append(chunk)
            size += len(chunk)
            if size > most:
                raise Refused(413, f"It is too large: at most {most:,} bytes are taken. Make it smaller.")
    except ClientDisconnect:
        raise Refused(400, "The request was cut off.") from None
    return b"".join(parts)


async def said_in(request: Request, most: int | None = None) -> dict[str, Any]:
    """The JSON object in a request's body; Refused for anything else."""
    body = await body_of(request, LARGEST_BODY if most is None else most)
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "This is not JSON.") from None
    if not isinstance(said, dict):
        raise Refused(400, "This is not a JSON object.")
    return said
