"""The address of the picking page: a port of 127.0.0.1 and a secret, the same again for a tab that was left open."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from pathlib import Path

from styledrop_cli.errors import StyledropError
from styledrop_cli.io.files import atomic_write, read_json


def remembered(path: Path) -> tuple[int, str] | None:
    """The port and the secret of an earlier process."""
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
    """A socket, the secret, and whether they are the ``known`` ones.

    With another port the secret is new as well: whoever has the old port now is told the old one by a tab left open.

    Raises:
        StyledropError: no port can be had.
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
