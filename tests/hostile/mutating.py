"""Spoiling bytes at random, and what is JSON among them by its structure: the same from the same randomness."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 10**6, 2**31, 2**53, 2**63, 10**30, -(2**63) - 1, 1e308, float("nan"),
    float("inf"), "", " ", "a", "1", "\0", "\x1b[31m", "\x9b31m", "\ud800", "\u202e", "..", "../x", "/etc/passwd",
    "a/../../b", "<script>alert(1)</script>", "{{ 7*7 }}", "[/red]", "[bold]", "%s%n", "a\nb", "x" * 300, "x" * 5000,
    [], {}, [[]], [{}], {"": None}, [0], ["a"], [-1, 2], [None] * 50,
)  # fmt: skip
WORDS = (
    b"1e999", b"NaN", b"Infinity", b"-1", b"0", b"9" * 25, b"9" * 5000, b"\\ud800", b"\\u0000", b"null", b"true",
    b"[" * 60, b"[" * 3000, b'{"a":' * 3000, b"{", b"}", b"]", b'"', b"\\", b"\0", b"\x1b[2J", b"\xc2\x9b", b"\xff\xfe",
    b"\xed\xa0\x80", b"../", b"\n", b"\r", b"\t", b"=", b"--", b"|", b"\xef\xbb\xbf",
)  # fmt: skip
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def spoiled(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """``data`` after a few changes; ``others`` may lend a stretch of theirs."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        change = rng.random()
        if change < 0.4 and (made := _json(data, rng)) is not None:
            data = made
        elif change < 0.5 and (numbers := list(NUMBER.finditer(data))):
            start, end = rng.choice(numbers).span()
            data = data[:start] + rng.choice(WORDS[:7]) + data[end:]
        else:
            data = _bytes(data, rng, others)
    return data


def _bytes(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice((1, 1, 2, 4, 8, 40, 400)))
    before, stretch, behind = data[:start], data[start:end], data[end:]
    change = rng.randrange(8)
    if change == 0 and stretch:
        return before + bytes([stretch[0] ^ 1 << rng.randrange(8)]) + stretch[1:] + behind
    if change == 1:
        return before + behind
    if change == 2:
        return before + stretch * rng.choice((2, 3, 50)) + behind
    if change == 3:
        return before + rng.randbytes(len(stretch)) + behind
    if change == 4:
        return before
    if change == 5 and others:
        other = rng.choice(others)
        at = rng.randint(0, len(other))
        return before + other[at : at + rng.choice((4, 40, 4000))] + behind
    if change == 6:
        return before + rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * len(stretch) + behind
    return before + rng.choice(WORDS) + behind


def _json(data: bytes, rng: Random) -> bytes | None:
    """The first JSON object or list in ``data`` with one place changed; None if there is none."""
    found = re.search(rb"[{\[]", data)
    if found is None:
        return None
    text = data[found.start() :].decode("utf-8", "surrogateescape")
    try:
        value, end = json.JSONDecoder().raw_decode(text)
        made = json.dumps(_changed(value, rng))
    except (ValueError, RecursionError):
        return None
    return data[: found.start()] + made.encode() + text[end:].encode("utf-8", "surrogateescape")


def _changed(value: Any, rng: Random) -> Any:
    places = list(_places(value))
    if not places:
        return rng.choice(NASTY)
    inside, key = rng.choice(places)
    change, new = rng.randrange(6), rng.choice(NASTY)
    if change == 0:
        del inside[key]
    elif change == 1 and isinstance(inside, dict):
        inside[new if isinstance(new, str) else str(key).upper()] = inside.pop(key)
    elif change == 2:
        inside[key] = [inside[key], new]
    elif change == 3:
        other, there = rng.choice(places)
        inside[key] = json.loads(json.dumps(other[there])) if there in other or isinstance(other, list) else new
    else:
        inside[key] = new
    return value


def _places(value: Any) -> Any:
    """Where something stands in JSON: each with the object or list that it stands in."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
