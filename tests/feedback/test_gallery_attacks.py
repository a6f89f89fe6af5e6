"""The picking page under attack, over real sockets: other sites, other names, odd requests, slow ones, many clicks."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from test_gallery import CANDIDATES, PNG, Client, picking

from conftest import SOURCE
from styledrop_cli.feedback.page import Choices, Gallery
from styledrop_cli.web import guard, serving

NOTHING = b'{"error":"There is nothing here."}'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    """A page on which is being picked, and the ways to speak to it."""
    choices = Choices(len(CANDIDATES), tmp_path / "round-2" / "choices.json")
    with (
        Gallery(tmp_path / "page", [PNG], "watercolor", lambda url: None) as gallery,
        picking(gallery, choices) as (_, pool),
    ):
        parts = urlsplit(gallery.url)
        click = json.dumps({"pool": pool, "index": 1, "mark": "pick"}).encode()
        yield SimpleNamespace(
            gallery=gallery, client=Client(gallery), choices=choices, pool=pool, click=click, port=parts.port,
            host=parts.netloc, root=parts.path, secret=parts.path.strip("/"),
        )  # fmt: skip


def connected(site: Any, timeout: float = 20) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=timeout)


def sent(site: Any, *request: str | bytes) -> bytes:
    """What comes back on a connection of its own for lines, and for a body as bytes; the client says no more."""
    with connected(site) as there:
        there.sendall(b"".join(one if isinstance(one, bytes) else f"{one}\r\n".encode() for one in request))
        there.shutdown(socket.SHUT_WR)
        return until_closed(there)


def until_closed(there: socket.socket) -> bytes:
    back = b""
    with suppress(ConnectionResetError):
        while more := there.recv(65536):
            back += more
    return back


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def post(site: Any, path: str = "mark", *headers: str, body: bytes | None = None) -> bytes:
    """A click with these headers beside the least that there must be."""
    body = site.click if body is None else body
    lines = [f"POST {site.root}{path} HTTP/1.1", f"Host: {site.host}", *headers, f"Content-Length: {len(body)}", ""]
    return sent(site, *lines, body)


def as_json(site: Any) -> tuple[str, str]:
    return f"Origin: http://{site.host}", "Content-Type: application/json"


# ---- other sites ----


def test_a_click_of_another_site_is_none(site: Any) -> None:
    origin, kind = as_json(site)
    for headers in (
        (kind,),
        (f"Referer: http://{site.host}{site.root}", kind),  # an Origin is never made up for by a Referer
        ("Origin: http://evil.example", f"Referer: http://{site.host}{site.root}", kind),
        ("Origin: null", kind),
        (f"Origin: http://{site.host}, http://evil.example", kind),
        (origin, "Origin: http://evil.example", kind),
        ("Origin: http://evil.example", origin, kind),
        (f"Origin: http://{site.host}:80", kind),
        (f"Origin: HTTP://{site.host}", kind),
        *((origin, kind, f"Sec-Fetch-Site: {of}") for of in ("cross-site", "same-site", "none", "", "Same-Origin")),
    ):
        assert status(post(site, "mark", *headers)) == 403, headers
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=application/json"):
        assert status(post(site, "mark", origin, f"Content-Type: {kind}")) == 415, kind
    for path in ("mark", f"mark?pool={site.pool}&index=1&mark=pick", "finish", "undo"):
        assert site.client.ask(path, headers={"Origin": f"http://{site.host}"}).status == 405
    assert not site.choices.path.exists()
    assert status(post(site, "mark", *as_json(site), "Sec-Fetch-Site: same-origin")) == 200
    assert site.choices.picked == [1]


def test_no_other_site_may_read(site: Any) -> None:
    for path in ("", "state", f"pool/{site.pool}", f"pictures/{site.pool}/0", "nothing", "/", "/x/state"):
        for origin in ("http://evil.example", "null", f"http://{site.host}"):
            headers = site.client.ask(path, headers={"Origin": origin}).headers
            assert not [name for name in headers if name.startswith("access-control") or name == "set-cookie"]
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["referrer-policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["cache-control"] == (serving.FOREVER if "pictures" in path else "no-store")


# ---- other names ----


def test_it_answers_to_its_own_name_only(site: Any) -> None:
    for host in (
        "attacker.com",
        f"attacker.com:{site.port}",
        f"127.0.0.1.attacker.com:{site.port}",
        f"[::1]:{site.port}",
        f"127.1:{site.port}",
        f"2130706433:{site.port}",
        f"0.0.0.0:{site.port}",
        f"127.0.0.1:{site.port}.",
        f"127.0.0.1.:{site.port}",
        f"127.0.0.1:0{site.port}",
        f"user@127.0.0.1:{site.port}",
        f"{site.host}, {site.host}",
        f"{site.host}@attacker.com",
        f"LOCALHOST:{site.port}",
        "",
    ):
        answer = sent(site, f"GET {site.root} HTTP/1.1", f"Host: {host}", "")
        assert status(answer) in (400, 421), (host, answer)
        assert b"<html" not in answer and site.secret.encode() not in answer
    one, other = f"Host: {site.host}", "Host: attacker.com"
    for hosts in ((), (one, other), (other, one), (one, one)):
        assert status(sent(site, f"GET {site.root} HTTP/1.1", *hosts, "")) in (400, 421), hosts
        assert status(sent(site, f"GET {site.root} HTTP/1.0", *hosts, "")) in (400, 421), hosts
    for begins in (f"http://{site.host}", "http://attacker.com", f"//{site.host}", "attacker.com:80"):
        assert status(sent(site, f"GET {begins}{site.root} HTTP/1.1", one, "")) in (400, 404), begins
    assert status(sent(site, f"GET {site.root} HTTP/1.1", one, "X-Forwarded-Host: attacker.com", "")) == 200


# ---- odd requests ----


def test_nothing_leads_out_of_the_page(site: Any) -> None:
    site.client.tell("mark", pool=site.pool, index=1, mark="pick")
    secrets_on_disk = [site.secret.encode(), b'"history"', b"root:"]
    tricks = [
        f"{start}{up * 6}{end}"
        for start in ("", "pictures/", f"pictures/{site.pool}/", "pool/", f"pool/{site.pool}/")
        for up in (
            "../",
            "..%2f",
            "%2e%2e/",
            "%2e%2e%2f",
            "%252e%252e%252f",
            "..%5c",
            "..\\",
            "%c0%ae%c0%ae/",
            "....//",
        )
        for end in ("etc/passwd", "page.json", "round-2/choices.json", "page.html")
    ]
    tricks += [
        f"{name}{tail}" for name in ("page.json", "page.html") for tail in ("", "%00", "%00.png", "/", "?", ";x")
    ]
    tricks += ["/etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "C:%5cwindows", "%ff%fe", "%", "%zz"]
    tricks += [f"pictures/{site.pool}/{n}" for n in ("0%00", "%30%00", "0%2f..", "+0", "0x0", "1e0", "٠", "99999999")]
    for trick in tricks:
        answer = sent(site, f"GET {site.root}{trick} HTTP/1.1", f"Host: {site.host}", "")
        assert status(answer) in (400, 404, 405), trick
        assert not any(word in answer for word in secrets_on_disk), trick


def test_bodies_that_lie_about_their_length(site: Any) -> None:
    origin, kind = as_json(site)
    head = (f"POST {site.root}mark HTTP/1.1", f"Host: {site.host}", origin, kind)
    long = b'{"pool": "' + b"x" * 100_000
    chunked = b"".join(b"1\r\n%c\r\n" % c for c in long[:6000])
    for expected, *request in (
        ((413,), "Content-Length: 1000000000000", "", long),
        ((413,), "Transfer-Encoding: chunked", "", b"fffffff\r\n" + long),
        ((413,), "Transfer-Encoding: chunked", "", chunked),
        ((413,), "Expect: 100-continue", f"Content-Length: {len(long)}", "", long),
        ((400,), "Content-Length: 1000", "", site.click),  # the rest never comes
        ((400,), "Content-Length: -1", "", site.click),
        ((400,), "Content-Length: 5, 6", "", site.click),
        ((400,), "Content-Length: 1", "Content-Length: 2", "", site.click),
        ((400,), "Content-Length: " + "9" * 30, "", site.click),
        ((400,), "Content-Length: 5", "", site.click),  # the rest is no second request
        ((400, 501), "Transfer-Encoding: gzip", "", site.click),
        ((400,), "Transfer-Encoding: chunked", "", b"zz\r\n" + site.click),
        ((400,), "Transfer-Encoding: chunked", "", b"5\r\n" + site.click),
        ((400,), "", b""),
    ):
        answer = sent(site, *head, *request)
        assert status(answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")) in (*expected, 0), (request[0], answer)
        assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert not site.choices.path.exists()
    # What nobody asked to read is not read, and whoever asks next is answered.
    answer = sent(
        site, f"GET {site.root}state HTTP/1.1", f"Host: {site.host}", "Content-Length: 10000000", "", bytes(10**6)
    )
    assert status(answer) == 200
    assert status(post(site, "mark", *as_json(site))) == 200


def test_floods_of_headers(site: Any) -> None:
    for flood in (
        [f"GET {site.root} HTTP/1.1", f"Host: {site.host}", *(f"X-{i}: {'x' * 50}" for i in range(5000))],
        [f"GET {site.root} HTTP/1.1", f"Host: {site.host}", f"X: {'x' * 1_000_000}"],
        [f"GET {site.root}{'x' * 1_000_000} HTTP/1.1", f"Host: {site.host}"],
        ["x" * 1_000_000],
    ):
        with connected(site) as there:
            with suppress(ConnectionError):  # it is closed before all is said
                there.sendall("\r\n".join([*flood, "", ""]).encode())
            assert status(until_closed(there)) in (0, 400)
    assert site.client.state()["phase"] == "picking"


def test_other_methods_and_protocols(site: Any) -> None:
    origin, kind = as_json(site)
    host = f"Host: {site.host}"
    assert sent(site, f"HEAD {site.root} HTTP/1.1", host, "").endswith(b"\r\n\r\n")
    for method in ("OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "CONNECT", "PROPFIND", "get", "MARK"):
        for headers in ((), (origin, kind)):
            for path in ("", "mark", "state", f"pictures/{site.pool}/0"):
                lines = (
                    f"{method} {site.root}{path} HTTP/1.1",
                    host,
                    *headers,
                    "X-Told: back",
                    "Content-Length: 0",
                    "",
                )
                answer = sent(site, *lines)
                assert status(answer) in (400, 403, 404, 405), (method, headers, path)
                assert b"X-Told" not in answer and b"ccess-control" not in answer
    upgrade = ("Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    for path, expected in ((f"{site.root}state", 200), ("/", 404), ("/x/state", 404)):
        for to in ("websocket", "h2c"):
            answer = sent(
                site, f"GET {path} HTTP/1.1", host, *upgrade, f"Upgrade: {to}", "Origin: http://evil.example", ""
            )
            assert status(answer) == expected and b"ccess-control" not in answer
    for noise in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        bytes(range(256)) * 50,
        b"\r\n" * 999,
    ):
        assert status(sent(site, noise)) in (0, 400, 421)
    assert not site.choices.path.exists()


def test_nothing_is_served_without_the_secret(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = guard.secrets.compare_digest
    spy = lambda one, other: compared.append((one, other)) or compare(one, other)  # noqa: E731
    monkeypatch.setattr(guard.secrets, "compare_digest", spy)
    asked = [
        "",
        "state",
        "mark",
        f"pool/{site.pool}",
        f"pictures/{site.pool}/0",
        "page.html",
        "favicon.ico",
        "robots.txt",
    ]
    wrong = [
        "",
        "x",
        site.secret[:-1],
        site.secret + "x",
        site.secret.swapcase(),
        f"%20{site.secret}",
        f"x/{site.secret}",
    ]
    for path in asked:
        for secret in wrong:
            for method, extra in (("GET", ()), ("POST", as_json(site))):
                target = f"/{secret}/{path}".replace("//", "/") if secret else f"/{path}"
                answer = sent(
                    site, f"{method} {target} HTTP/1.1", f"Host: {site.host}", *extra, "Content-Length: 0", ""
                )
                assert status(answer) == 404 and answer.endswith(NOTHING), target
                assert site.secret.encode() not in answer
    # In a time that says nothing of how much of it was right.
    assert len(compared) == len(asked) * len(wrong) * 2
    assert {right for _, right in compared} == {site.secret.encode()}


def test_the_secret_is_not_told_on(
    site: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        for path in ("", "state", "nothing", "pictures/x/0"):
            sent(
                site,
                f"GET {site.root}{path} HTTP/1.1",
                f"Host: {site.host}",
                "Upgrade: websocket",
                "Connection: upgrade",
                "",
            )
        sent(site, f"GET {site.root} HTTP/9.9", f"Host: {site.host}", "\x00", "")
        post(site, "mark", *as_json(site), body=b"{")
        post(site, "mark", *as_json(site))
    out, err = capfd.readouterr()
    assert site.secret not in caplog.text + out + err
    for path in ("", "state", f"pool/{site.pool}", "nothing", "/x"):  # nor where a page that is shown could say it on
        answer = site.client.ask(path)
        assert site.secret.encode() not in answer.body
        assert site.secret not in str(answer.headers)


# ---- slow and many clients ----


def gone(there: socket.socket) -> bool:
    """Whether the server has closed a connection, or does within 20 s."""
    with suppress(ConnectionError):
        while there.recv(65536):
            pass
    return True


def test_who_is_slow_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LONGEST", 0.5)
    large = PNG + bytes(20_000_000)
    with Gallery(tmp_path / "page", [large], "watercolor", lambda url: None) as gallery, ExitStack() as stack:
        client = Client(gallery)
        site = SimpleNamespace(port=client.parts.port, host=client.host, root=client.parts.path)
        picture = f"{site.root}pictures/{client.state()['references']}/0"
        head = f"Host: {site.host}\r\n"
        post_head = "\r\n".join([f"POST {site.root}mark HTTP/1.1", f"Host: {site.host}", *as_json(site)])
        said = {
            "nothing": "",
            "half a line": "GET /",
            "half its headers": f"GET {site.root} HTTP/1.1\r\n{head}",
            "half a body": f"{post_head}\r\nContent-Length: 50\r\n\r\n{{",
            "a second request by half": f"GET {site.root}x HTTP/1.1\r\n{head}\r\nGET /",
            "a body after the answer": f"POST /x HTTP/1.1\r\n{head}Content-Length: 50\r\n\r\n{{",
        }
        for words in said.values():
            there = stack.enter_context(connected(site))
            there.sendall(words.encode())
            assert gone(there), words
        for more in ("", "Connection: close\r\n"):  # one that asks, and does not read
            there = stack.enter_context(connected(site))
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            there.sendall(f"GET {picture} HTTP/1.1\r\n{head}{more}\r\n".encode())
            assert gallery._site is not None
            while gallery._site.server.server_state.connections:
                time.sleep(0.05)
        assert client.state()["phase"] == "working"


def test_many_connections_leave_room_for_a_click(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST", 10)
    with ExitStack() as stack:
        tab = HTTPConnection("127.0.0.1", site.port, timeout=20)  # keeps its connection, as browsers do
        stack.callback(tab.close)
        tab.request("GET", f"{site.root}state", headers={"Host": site.host})
        tag = json.loads(tab.getresponse().read())["tag"]
        tab.request("GET", f"{site.root}state?after={tag}", headers={"Host": site.host})  # and waits for news
        halves = []
        for _ in range(40):
            there = stack.enter_context(connected(site))
            there.sendall(b"GET /")
            halves.append(there)
        # The oldest had to go, and nobody who was being answered.
        assert all(gone(there) for there in halves[:29])
        assert status(post(site, "mark", *as_json(site))) == 200
        assert json.loads(tab.getresponse().read())["picked"] == [1]
        assert site.gallery._site is not None and len(site.gallery._site.server.server_state.connections) <= 11


def test_the_end_does_not_wait_for_who_is_slow(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with Gallery(tmp_path / "page", [PNG], "watercolor", lambda url: None) as gallery:
            parts = urlsplit(gallery.url)
            for _ in range(30):
                there = stack.enter_context(socket.create_connection(("127.0.0.1", parts.port or 0), timeout=20))
                there.sendall(f"POST {parts.path}mark HTTP/1.1\r\nHost: {parts.netloc}\r\n".encode())
        assert gallery._site is not None and not gallery._site.alive


def test_answers_go_out_at_once(site: Any) -> None:
    """Else their bodies wait 40 ms for the client's word that it has the head."""
    with connected(site) as there:
        there.sendall(f"GET {site.root}state HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())
        assert there.recv(9)
        (connection,) = site.gallery._site.server.server_state.connections
        behind = connection.transport.get_extra_info("socket")
        assert behind.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.slow
def test_a_click_is_answered_within_a_second_beside_a_thousand_slow_clients(site: Any) -> None:
    over = threading.Event()
    cut = 0

    def drip() -> None:
        """A thousand connections, each a byte a second; one that is cut comes again."""
        nonlocal cut
        line = f"GET {site.root} HTTP/1.1\r\nHost: {site.host}\r\nX: {'x' * 999}".encode()
        there: list[tuple[socket.socket, int]] = []
        while not over.is_set():
            while len(there) < 900 and not over.is_set():  # of the thousand files that a process may have open here
                with suppress(OSError):
                    there.append((connected(site), 0))
            still = []
            for one, at in there:
                try:
                    one.send(line[at : at + 1])
                    still.append((one, at + 1))
                except OSError:
                    one.close()
                    cut += 1
            there = still
            over.wait(1)
        for one, _ in there:
            one.close()

    thread = threading.Thread(target=drip)
    thread.start()
    waits = []
    try:
        time.sleep(2)
        for click in range(30):
            began = time.monotonic()
            body = json.dumps(
                {"pool": site.pool, "index": click % 20, "mark": ("pick", "reject")[click // 20]}
            ).encode()
            assert status(post(site, "mark", *as_json(site), body=body)) == 200
            waits.append(time.monotonic() - began)
            time.sleep(1)
    finally:
        over.set()
        thread.join()
    assert max(waits) < 1, waits
    assert cut > 900, f"{cut} were cut"


SERVE = """
import sys, time
from pathlib import Path
from styledrop_cli.feedback.page import Candidate, Choices, Gallery
picture = Path("picture.png").read_bytes()
with Gallery(Path("page"), [picture], "load", lambda url: print(url, flush=True)) as gallery:
    gallery.pick([Candidate("a cat", picture, {"total": 1.0})] * 200, Choices(200, Path("choices.json")), 2, 10)
"""
A_SECOND, SECONDS, TABS = 200, 60, 8


@pytest.mark.slow
def test_two_hundred_requests_a_second_for_a_minute_lose_no_pick(tmp_path: Path) -> None:
    """Six tabs read, two click; in the end the process is killed, and what it had acknowledged is on disk."""
    Path("picture.png").write_bytes(PNG)
    environment = os.environ | {"PYTHONPATH": SOURCE}
    process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    with process.stdout, ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.send_signal, signal.SIGKILL)
        url = urlsplit(process.stdout.readline().strip())
        waits: dict[str, list[float]] = {"read": [], "pick": []}
        acknowledged: dict[int, str | None] = {}
        failed: list[Any] = []
        start = time.monotonic() + 0.5

        def tab(number: int) -> None:
            chance = random.Random(number)
            connection = HTTPConnection("127.0.0.1", url.port or 0, timeout=30)
            pool = None
            clicks = number < 2
            for turn in range(A_SECOND * SECONDS // TABS):
                time.sleep(max(0.0, start + (turn * TABS + number) / A_SECOND - time.monotonic()))
                began = time.monotonic()
                if clicks and pool:
                    index, mark = chance.randrange(100) * 2 + number, chance.choice(["pick", "reject", None])
                    headers = {"Origin": f"http://{url.netloc}", "Content-Type": "application/json"}
                    said = json.dumps({"pool": pool, "index": index, "mark": mark})
                    connection.request("POST", f"{url.path}mark", said, headers)
                else:
                    path = chance.choice(["state", "", f"pool/{pool}", f"pictures/{pool}/{chance.randrange(200)}"])
                    connection.request("GET", f"{url.path}{path if pool else 'state'}")
                answer = connection.getresponse()
                body = answer.read()
                waits["pick" if clicks and pool else "read"].append(time.monotonic() - began)
                if answer.status != 200:
                    failed.append((answer.status, body[:80]))
                elif clicks and pool:
                    acknowledged[index] = mark
                    if turn % 50 == 0:  # on disk when it is said to be
                        there = Choices(200, Path("choices.json"))
                        marked = "pick" if index in there.picked else "reject" if index in there.rejected else None
                        if marked != mark:
                            failed.append((index, mark, marked))
                elif not pool:
                    pool = json.loads(body)["pool"]
            connection.close()

        with ThreadPoolExecutor(TABS) as threads:
            for future in [threads.submit(tab, number) for number in range(TABS)]:
                future.result()
        took = time.monotonic() - start
    there = Choices(200, Path("choices.json"))
    found = {
        index: "pick" if index in there.picked else "reject" if index in there.rejected else None
        for index in range(200)
    }
    lost = {index: mark for index, mark in acknowledged.items() if found[index] != mark}
    figures = {
        name: [
            round(1000 * q, 1)
            for q in (statistics.median(w), *(statistics.quantiles(w, n=100)[p] for p in (94, 98)), max(w))
        ]
        for name, w in waits.items()
    }
    asked = sum(map(len, waits.values()))
    summary = f"{asked} requests in {took:.1f} s; ms at 50, 95, 99 and 100 %: {figures}"
    assert asked == A_SECOND * SECONDS and not failed and not lost, (summary, failed[:5], lost)
    assert there.version > 1000 and took < SECONDS + 5, summary
