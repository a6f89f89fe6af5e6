"""The studio under attack: other sites, names that lead elsewhere, links, bombs, odd bodies, slow clients."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import draw
from studio_process import Script
from styledrop_cli.errors import UsageError
from styledrop_cli.io.images import save_png
from styledrop_cli.studio.server import Studio
from styledrop_cli.web import guard

NOBODY = [sys.executable, "-c", "import sys; [0 for _ in sys.stdin]"]  # a worker that does nothing
JSON = "application/json"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    """A studio with a picture and a reference, whose worker does nothing."""
    folder = tmp_path / "desk"
    (tmp_path / "outside").mkdir()
    save_png(draw(), tmp_path / "outside/secret.png", {"prompt": "a secret"})
    (tmp_path / "outside/secret.txt").write_text("root:secret")
    with Studio(folder, NOBODY) as studio:
        save_png(draw(), folder / "pictures/ink/a-cat-0.png", {"prompt": "a cat", "seed": 0})
        script = Script(studio.url)
        draw().save(tmp_path / "ref.png")
        reference = script.upload(tmp_path / "ref.png").said["id"]
        yield SimpleNamespace(
            folder=folder, outside=tmp_path / "outside", script=script, reference=reference, port=script.parts.port,
            host=script.parts.netloc, root=script.parts.path,
        )  # fmt: skip


def body(**said: Any) -> bytes:
    return json.dumps(said).encode()


def sent(site: Any, *request: str | bytes) -> bytes:
    """What comes back on a connection of its own, before it is closed."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as there:
        there.sendall(b"".join(one if isinstance(one, bytes) else f"{one}\r\n".encode() for one in request))
        return there.recv(100_000)


# ---- who may do something ----


def test_only_the_page_and_who_knows_the_secret_change_something(site: Any) -> None:
    script, heart = site.script, "api/pictures/ink/a-cat-0.png/heart"
    page = {"Authorization": None, "Origin": f"http://{site.host}"}
    foreign = [
        {"Authorization": None},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Basic {script.secret}"},
        {"Authorization": f"Bearer {script.secret}x"},
        {"Origin": "http://evil.example"},  # a browser says who asks, whatever else is sent
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        page | {"Origin": "http://evil.example"},
        page | {"Sec-Fetch-Site": "same-site"},
    ]
    for headers in foreign:
        assert script.ask(heart, body(on=True), headers).status == 403, headers
    preflight = script.ask(heart, b"", {"Origin": "http://evil.example", "Authorization": None}, "OPTIONS")
    assert preflight.status == 403 and not [name for name in preflight.headers if name.startswith("access-control")]
    assert script.get("api/state")["hearts"] == []
    assert script.ask(heart, body(on=True), page).status == 200
    assert script.ask(heart, body(on=False)).status == 200
    for host in ("evil.example", f"evil.example:{site.port}", f"[::1]:{site.port}", ""):
        assert script.ask(heart, body(on=True), {"Host": host}).status == 421
    assert script.ask("/api/state").status == 404  # without the secret


def test_raw_bodies_go_to_the_uploads_alone_and_only_of_their_kind(site: Any) -> None:
    picture = (site.outside / "secret.png").read_bytes()
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "image/gif", ""):
        assert site.script.ask("api/references", picture, {"Content-Type": kind}).status == 415, kind
    for path in ("api/draw", "api/pictures/ink/a-cat-0.png/heart", "api/styles/x/remove", "api/jobs/000001/cancel"):
        for kind in ("image/png", "application/octet-stream"):
            assert site.script.ask(path, picture, {"Content-Type": kind}).status == 415, (path, kind)
    assert site.script.ask("api/styles/import", picture, {"Content-Type": "image/png"}).status == 415
    for path in ("api/draw", "api/references", "api/jobs/000001/cancel"):
        assert site.script.ask(path, b"", method="PUT").status == 405


def test_every_answer_keeps_itself_to_itself(site: Any) -> None:
    for path in ("", "api/state", "api/pictures/ink/a-cat-0.png/file", "api/nothing", "api/pictures/x/y/file"):
        headers = site.script.ask(path, headers={"Origin": "http://evil.example"}).headers
        assert not [name for name in headers if name.startswith("access-control") or name == "set-cookie"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]


# ---- names that lead elsewhere ----

UP = ("..", "../", "..%2f", "%2e%2e", "%2e%2e%2f", "%252e%252e%252f", "..%5c", "....//", "%00", "%ff", "~", "*", ".")


def test_no_name_leads_out(site: Any) -> None:
    tricks: list[str] = []
    for up in UP:
        far = f"{up}{up}{up}"
        tricks += [
            f"api/pictures/{up}/secret.png/file", f"api/pictures/ink/{far}outside%2fsecret.png/file",
            f"api/pictures/{far}outside/secret.png/thumb", f"api/pictures/ink/{up}/svg", f"api/references/{far}/file",
            f"api/styles/{far}secret/file", f"api/styles/{far}/report", f"api/jobs/{far}/log", f"api/preview/{up}/file",
            f"api/rounds/{far}/1/1", f"api/rounds/ink-1/{far}/1", f"api/learn/{up}/samples",
            f"api/learn/{up}/samples/{up}",
            f"{far}page.json", f"api/{far}page.json",
        ]  # fmt: skip
    for path in tricks:
        answer = sent(site, f"GET {site.root}{path} HTTP/1.1", f"Host: {site.host}", "Connection: close", "")
        assert answer.split(b" ")[1] in (b"400", b"404"), (path, answer[:200])
        assert b"secret.png" not in answer.partition(b"\r\n\r\n")[2] or b'"error"' in answer
        assert site.script.secret.encode() not in answer and b"root:" not in answer
    for name in ("../x", "/etc/passwd", "", "a/b", "..", "x.safetensors", "con", "a" * 61, "\0"):
        learn = {"references": [{"id": site.reference}], "style": "ink"}
        assert site.script.ask("api/learn", body(**learn, name=name)).status in (400, 404), name
        assert site.script.ask("api/draw", body(prompts=["x"], style=name)).status in (400, 404), name
        assert site.script.ask("api/improve", body(style=name)).status in (400, 404), name
        assert site.script.ask("api/vary", body(picture=name)).status in (400, 404), name
    for name in ("000001", "../../outside/secret", "c4b7ff1f995f"):
        learn = {"references": [{"id": name}], "style": "ink", "name": "ink"}
        assert site.script.ask("api/learn", body(**learn)).status in (400, 404)


def test_links_in_the_folder_are_not_followed(site: Any, tmp_path: Path) -> None:
    pictures = site.folder / "pictures"
    (pictures / "away").symlink_to(site.outside)
    (pictures / "ink/link.png").symlink_to(site.outside / "secret.png")
    (pictures / "ink/a-cat-0.svg").symlink_to(site.outside / "secret.txt")
    (site.folder / "references/0123456789ab.png").symlink_to(site.outside / "secret.png")
    (site.folder / f"references/seen/{site.reference}-reconstruction.png").symlink_to(site.outside / "secret.png")
    job = site.script.tell("api/draw", prompts=["a cat"])["job"]
    (site.folder / f"jobs/{job}.log").symlink_to(site.outside / "secret.txt")
    shown = site.script.get("api/pictures")["pictures"]
    assert [one["id"] for one in shown] == ["ink/a-cat-0.png"]
    (site.folder / f"thumbs/{shown[0]['tag']}.webp").symlink_to(site.outside / "secret.txt")
    assert [one["id"] for one in site.script.get("api/references")] == [site.reference]
    for path in (
        "api/pictures/away/secret.png/file", "api/pictures/ink/link.png/file", "api/pictures/ink/a-cat-0.png/svg",
        "api/references/0123456789ab/file", f"api/references/{site.reference}/seen",
    ):  # fmt: skip
        assert site.script.ask(path).status == 404, path
    assert site.script.ask(f"api/jobs/{job}/log").body == b""
    assert b"secret" not in site.script.ask("api/pictures/ink/a-cat-0.png/thumb").body
    assert site.outside.joinpath("secret.txt").read_text() == "root:secret"
    for name in ("pictures", "jobs", "references"):
        place = tmp_path / f"other-{name}"
        place.mkdir()
        (place / name).symlink_to(site.outside)
        with pytest.raises(UsageError, match="is a link"), Studio(place, NOBODY):
            pass


# ---- pictures that are none, and such as blow up ----


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    """A PNG that says it is so large, and holds hardly anything."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rest = b"".join(more) or chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rest + chunk(b"IEND", b"")


def test_bombs_and_what_is_no_picture(site: Any) -> None:
    html = b"\x89PNG\r\n\x1a\n<html><script>alert(1)</script>"
    text = chunk(b"zTXt", b"styledrop\0\0" + zlib.compress(b"x" * 200_000_000, 9))
    bad = [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", html, png(60_000, 60_000), png(20_000, 5_001),
           png(2**31 - 1, 2**31 - 1), png(0, 0), png(4, 4), png(64, 64, text), b"\xff\xd8\xff" + b"x" * 1000,
           b"RIFF\0\0\0\0WEBPVP8 "]  # fmt: skip
    started = time.monotonic()
    for one in bad:
        answer = site.script.ask("api/references", one, {"Content-Type": "image/png", "X-Name": "x%00%0d%0a.png"})
        assert answer.status == 400 and answer.said["error"], (one[:40], answer)
        data = "data:image/png;base64," + base64.b64encode(one).decode()
        if len(data) < 11_000_000 and one != png(4, 4):
            asked = body(picture="ink/a-cat-0.png", prompt="x", mask=data)
            assert site.script.ask("api/edit", asked).status == 400, one[:40]
    assert time.monotonic() - started < 60
    assert len(site.script.get("api/references")) == 1
    for mask in (
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:image/png;base64,%%%",
        "",
        "../x.png",
        "file:///etc/passwd",
    ):
        asked = body(picture="ink/a-cat-0.png", prompt="x", mask=mask)
        assert site.script.ask("api/edit", asked).status == 400, mask
    assert not list((site.folder / "masks").iterdir())


def test_what_is_in_the_folder_may_be_anything(site: Any) -> None:
    ink = site.folder / "pictures/ink"
    (ink / "bomb.png").write_bytes(png(60_000, 60_000))
    (ink / "empty.png").write_bytes(b"")
    (ink / "folder.png").mkdir()
    os.mkfifo(ink / "pipe.png")
    save_png(draw(), ink / "odd.png", {"prompt": ["no", "text"], "seed": float("nan"), "settings": {"a": float("inf")}})
    save_png(draw(), ink / "<img src=x>\n.png", {"prompt": "<script>"})
    if sys.platform == "linux":
        (ink / os.fsdecode(b"\xff\xfe.png")).write_bytes((site.outside / "secret.png").read_bytes())
    for name in ("hearts.json", "page.json"):
        (site.folder / name).write_text("[" * 10_000)
    page = site.script.get("api/pictures")
    assert {one["id"] for one in page["pictures"]} == {"ink/a-cat-0.png", "ink/odd.png", "ink/<img src=x>\n.png"}
    odd = next(one for one in page["pictures"] if one["id"] == "ink/odd.png")
    assert odd["seed"] is None and isinstance(odd["prompt"], str)
    assert site.script.ask("api/pictures/ink/bomb.png/thumb").status == 400
    file = site.script.ask("api/pictures/ink/%3Cimg%20src%3Dx%3E%0A.png/file?download=1")
    assert file.status == 200 and "\n" not in file.headers["content-disposition"]
    assert site.script.get("api/state")["hearts"] == []


# ---- bodies ----


def test_bodies_that_are_not_as_they_should_be(site: Any) -> None:
    for one in (
        b"", b"[]", b"null", b"{", b"[" * 20_000, b'{"prompts": [' + b"[" * 20_000, b"\xff", b'{"prompts": NaN}',
        body(), body(prompts=[]), body(prompts=""), body(prompts=["x"] * 501), body(prompts=[1]),
        body(prompts=["x" * 1001]),
        body(prompts=["x"], number=0), body(prompts=["x"], number=True), body(prompts=["x"], number=1.5),
        body(prompts=["x"], seed=-1), body(prompts=["x"], seed=10**30), body(prompts=["x"], size="256"),
        body(prompts=["x"], settings={"steps": 10**9}), body(prompts=["x"], settings={"output": "/etc"}),
        body(prompts=["x"], settings={"preset": "paper --output x"}),
        body(prompts=["x"], palette="../outside/secret.png"),
        body(prompts=["x"], palette="secret.png"), body(prompts=["x"], output="/etc"), body(prompts=["x"], mix=[{}]),
        b'{"prompts": ["\\ud800"]}', b'{"prompts": ["x"], "settings": {"lambda_b": Infinity}}',
        b'{"prompts": ["x"], "seed": ' + b"9" * 5000 + b"}",
    ):  # fmt: skip
        answer = site.script.ask("api/draw", one)
        assert answer.status == 400 and answer.said["error"], (one[:60], answer)
    assert not [job for job in site.script.get("api/state")["jobs"] if job["kind"] == "draw"]


def test_a_word_is_never_an_option(site: Any) -> None:
    asked = {"prompts": ["--output=/etc", "-o"], "settings": {"negative": "--output=/etc"}}
    command = site.script.tell("api/draw", **asked)["command"]
    assert " -o pictures/no-style " in command and command.endswith("--base-only -- --output=/etc -o")
    assert "--negative=--output=/etc" in command
    learn = {"references": [{"id": site.reference, "content": "--fresh"}], "style": "--overwrite", "name": "ink"}
    command = site.script.tell("api/learn", **learn)["command"]
    assert "--style=--overwrite" in command and "--content=--fresh" in command


def test_bodies_without_end(site: Any) -> None:
    head = (f"Host: {site.host}", f"Authorization: Bearer {site.script.secret}", "Content-Type: image/png")
    answer = sent(site, f"POST {site.root}api/references HTTP/1.1", *head, "Content-Length: 9", "", b"123")
    assert answer == b"" or b" 400 " in answer  # cut off, once it takes too long
    assert site.script.ask("api/draw", b"x" * 260_000).status == 413
    assert site.script.ask("api/pictures/ink/a-cat-0.png/heart", b" " * 260_000).status == 413
    large = io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"x" * 40_000_000)
    assert site.script.ask("api/references", large.getvalue(), {"Content-Type": "image/png"}).status == 413
    assert len(site.script.get("api/references")) == 1


def test_who_is_slow_keeps_nobody_waiting(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LONGEST", 2.0)
    with ExitStack() as stack:
        for _ in range(guard.MOST + 20):
            there = stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=20))
            there.sendall(f"POST {site.root}api/draw HTTP/1.1\r\nHost: {site.host}\r\nContent-Le".encode())
        began = time.monotonic()
        assert site.script.get("api/pictures")["total"] == 1
        assert time.monotonic() - began < 10
        there.settimeout(20)
        assert there.recv(1000) == b""  # and it is cut off


def test_a_thousand_jobs_are_enough(site: Any) -> None:
    statuses = [site.script.ask("api/draw", body(prompts=["a cat"], seed=seed)).status for seed in range(1001)]
    assert statuses[:900] == [200] * 900 and statuses[-1] == 400
    assert site.script.get("api/state")["jobs"]


def test_what_is_being_made_is_not_made_twice(site: Any) -> None:
    said = {"references": [{"id": site.reference, "content": "a cat"}], "style": "ink", "name": "ink"}
    first = site.script.tell("api/learn", **said)
    assert site.script.tell("api/learn", **said) == first  # a double click
    assert "'ink' is being made" in site.script.refused("api/learn", 400, **said, options={"steps": 2})
    site.script.tell(f"api/jobs/{first['job']}/cancel")
    assert site.script.tell("api/learn", **said)["job"] != first["job"]
