"""The picking page without a browser: what is kept of each click, and who is let in."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from conftest import draw
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.feedback.page import Candidate, Choices, Gallery, server
from styledrop_cli.web import serving


def encoded(kind: str, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    draw(side, side).save(buffer, kind)
    return buffer.getvalue()


PNG, JPEG, WEBP = encoded("PNG"), encoded("JPEG"), encoded("WEBP")
CANDIDATES = [
    Candidate("a cat", PNG, {"total": 1.25, "leak": -0.5}),
    Candidate("a cat", JPEG, {"total": float("nan")}, "like 1"),
    Candidate("a dog", WEBP, {}),
    *[Candidate("a bus", encoded("PNG", 9 + i), {"total": i}) for i in range(17)],
]


# ---- choices ----


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    return Choices(len(CANDIDATES), tmp_path / "round-2" / "choices.json")


def again(choices: Choices) -> Choices:
    return Choices(choices.count, choices.path)


def seen(choices: Choices) -> tuple[Any, ...]:
    return choices.picked, choices.rejected, choices.done, choices.version, choices.undoable


def test_each_change_is_on_disk_before_the_next(choices: Choices) -> None:
    assert seen(choices) == ([], [], False, 0, False) and not choices.path.exists()
    steps: list[Callable[[], object]] = [
        lambda: choices.mark(7, "pick"),
        lambda: choices.mark(3, "pick"),
        lambda: choices.mark(3, "reject"),
        lambda: choices.mark(7, None),
        lambda: choices.undo(),
        lambda: choices.finish(),
    ]
    for number, step in enumerate(steps):
        step()
        assert choices.version == number + 1
        assert seen(again(choices)) == seen(choices)
    assert seen(choices) == ([7], [3], True, 6, False)
    assert not [path for path in choices.path.parent.iterdir() if path != choices.path]


def test_undo_takes_back_mark_by_mark_also_in_another_process(choices: Choices) -> None:
    before = []
    for index, mark in [(1, "pick"), (2, "reject"), (1, "reject"), (2, None), (1, "pick")]:
        before.append((choices.picked, choices.rejected))
        choices.mark(index, mark)  # type: ignore[arg-type]
    undone = []
    while before:
        choices = again(choices)
        undone.append(choices.undo())
        assert (choices.picked, choices.rejected) == before.pop()
    assert undone == [1, 2, 1, 2, 1]
    version = choices.version
    assert choices.undo() is None and choices.version == version


def test_what_changes_nothing_is_not_a_change(choices: Choices) -> None:
    choices.mark(4, None)
    assert choices.version == 0
    choices.mark(4, "pick")
    choices.mark(4, "pick")
    assert choices.version == 1
    assert choices.undo() == 4 and not choices.picked


@pytest.mark.parametrize("index", [-1, 20, 10**30, True, 1.0, "1", None, [1]])
def test_no_such_picture(choices: Choices, index: Any) -> None:
    with pytest.raises(IndexError):
        choices.mark(index, "pick")
    assert not choices.path.exists()


@pytest.mark.parametrize("mark", ["", "Pick", True, 0, ["pick"], {}])
def test_no_such_mark(choices: Choices, mark: Any) -> None:
    with pytest.raises(ValueError):
        choices.mark(0, mark)
    assert not choices.path.exists()


def test_done_is_done(choices: Choices) -> None:
    choices.mark(1, "reject")
    with pytest.raises(ValueError, match="pick at least one"):
        choices.finish()
    choices.mark(0, "pick")
    choices.finish()
    choices.finish()
    assert choices.version == 3
    for change in (lambda: choices.mark(2, "pick"), lambda: choices.mark(0, None), choices.undo):
        with pytest.raises(ValueError, match="over"):
            change()
    assert again(choices).picked == [0] and again(choices).done


def test_a_mark_that_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    choices = Choices(3, tmp_path / "other" / "choices.json")
    choices.mark(0, "pick")
    choices.path = tmp_path / "file" / "choices.json"
    for change in (lambda: choices.mark(1, "pick"), choices.undo, choices.finish):
        with pytest.raises(StyledropError):
            change()
    assert seen(choices) == ([0], [], False, 1, True)


GOOD = '{"count": 20, "done": false, "version": 2, "history": [[1, "pick"], [2, null]]}'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (GOOD, ""),
        (GOOD, "[]"),
        (GOOD, "null"),
        (GOOD, "[" * 5000),
        (GOOD[-1], ""),
        ('"done": false', '"done": 0'),
        ('"version": 2', '"version": "2"'),
        ("[1,", "[0,"),
        ("[1,", "[21,"),
        ("[1,", "[1.5,"),
        ("[1,", "["),
        ('"pick"', '"picked"'),
        ('"pick"', '["pick"]'),
        ('[[1, "pick"], [2, null]]', "7"),
        ('"done": false, "version": 2, "history": [[1, "pick"]', '"done": true, "version": 2, "history": [[1, null]'),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "choices.json"
    path.write_text(GOOD)
    assert Choices(20, path).picked == [0]
    path.write_text(GOOD.replace(old, new))
    assert path.read_text() != GOOD
    with pytest.raises(UsageError, match="choices.json is damaged") as caught:
        Choices(20, path)
    assert "Remove it" in str(caught.value.hint)


def test_choices_among_other_pictures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    path.write_text(GOOD)
    with pytest.raises(UsageError, match="among 20 pictures, and there are 8 now"):
        Choices(8, path)


def test_threads_lose_nothing(choices: Choices) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: choices.mark(i, "reject" if i % 2 else "pick"), range(20)))
    assert again(choices).picked == list(range(0, 20, 2)) and again(choices).rejected == list(range(1, 20, 2))


# ---- the server ----


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


class Client:
    """A tab without a browser."""

    def __init__(self, gallery: Gallery) -> None:
        self.parts = urlsplit(gallery.url)
        self.host = self.parts.netloc

    def ask(self, path: str, body: bytes | None = None, headers: dict[str, str | None] | None = None) -> Answer:
        """GET, or POST where there is a body; `path` after the secret, or from the root if it begins with a slash."""
        sent = {"Host": self.host, **(headers or {})}
        if body is not None:
            sent = {"Origin": f"http://{self.host}", "Content-Type": "application/json"} | sent
        connection = HTTPConnection("127.0.0.1", self.parts.port or 0, timeout=20)
        try:
            connection.putrequest(
                "GET" if body is None else "POST",
                path if path.startswith("/") else self.parts.path + path,
                skip_host=True,
                skip_accept_encoding=True,
            )
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def tell(self, path: str, **said: Any) -> Answer:
        return self.ask(path, json.dumps(said).encode())

    def state(self) -> Any:
        return self.ask("state").said

    def wait_for(self, phase: str) -> Any:
        """The first state in `phase`, found by waiting for news as the page does."""
        said = self.state()
        while said["phase"] != phase:
            said = self.ask(f"state?after={said['tag']}").said
        return said


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery(tmp_path / "page", [PNG, JPEG], "watercolor", lambda url: None) as gallery:
        yield gallery


@pytest.fixture
def client(gallery: Gallery) -> Client:
    return Client(gallery)


@contextmanager
def picking(gallery: Gallery, choices: Choices, round: int = 2) -> Iterator[tuple[Future[list[int]], str]]:  # noqa: A002
    """`pick` on its way, and the name of its pool."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(gallery.pick, CANDIDATES, choices, round, 10)
        try:
            yield future, Client(gallery).wait_for("picking")["pool"]
        finally:
            if not choices.done:
                choices.mark(0, "pick")
                choices.finish()
            future.result(20)


def test_a_round_from_drawing_to_the_end(gallery: Gallery, client: Client, choices: Choices) -> None:
    assert client.state()["phase"] == "working"
    gallery.drawing(0.25, "to choose from 5/20")
    said = client.state()
    assert (said["phase"], said["share"], said["note"]) == ("drawing", 0.25, "to choose from 5/20")
    with picking(gallery, choices) as (future, pool):
        said = client.state()
        assert (said["title"], said["round"], said["enough"], said["picked"]) == ("watercolor", 2, 10, [])
        listed = client.ask(f"pool/{pool}").said
        assert [c["prompt"] for c in listed] == [c.prompt for c in CANDIDATES]
        assert listed[0]["scores"] == {"total": 1.25, "leak": -0.5}
        assert listed[1] == {"prompt": "a cat", "scores": {"total": None}, "note": "like 1"}
        for number, (candidate, kind) in enumerate(
            zip(CANDIDATES, ["png", "jpeg", "webp"] + ["png"] * 17, strict=True)
        ):
            answer = client.ask(f"pictures/{pool}/{number}")
            assert (answer.body, answer.headers["content-type"]) == (candidate.picture, f"image/{kind}")
            assert "private" in answer.headers["cache-control"]
        assert client.ask(f"pictures/{said['references']}/1").body == JPEG
        assert client.tell("finish", pool=pool).status == 400  # nothing is picked
        assert client.tell("mark", pool=pool, index=4, mark="pick").said["picked"] == [4]
        assert again(choices).picked == [4]
        assert client.tell("mark", pool=pool, index=5, mark="reject").said["rejected"] == [5]
        assert client.tell("undo", pool=pool).said["undone"] == 5
        assert not future.done()
        assert client.tell("finish", pool=pool).status == 200
        assert future.result(20) == [4]
    assert client.state()["phase"] == "training"
    gallery.training(7.0, "over the top")
    assert client.state()["share"] == 1.0
    assert gallery.another(PNG, "better", planned=True) is True
    gallery.drawing(0.5, "the next pool")
    said = client.state()
    assert client.ask(f"pictures/{said['sheet']}/0").body == PNG and said["message"] == "better"
    with ThreadPoolExecutor(1) as threads:
        for wanted in (True, False):
            answer = threads.submit(gallery.another, PNG, "and now?", False)
            said = client.wait_for("asking")
            assert said["message"] == "and now?" and not answer.done()
            assert client.tell("answer", sheet="another", another=wanted).status == 409
            assert client.tell("answer", sheet=said["sheet"], another="yes").status == 400
            assert not answer.done()
            assert client.tell("answer", sheet=said["sheet"], another=wanted).status == 200
            assert answer.result(20) is wanted
        end = threads.submit(gallery.over, "written to best.safetensors", PNG)
        said = client.wait_for("over")
        assert said["message"] == "written to best.safetensors" and said["sheet"]
        client.ask(f"state?after={said['tag']}")  # a tab that has all of it
        end.result(20)


def test_pictures_show_only_with_what_they_belong_to(gallery: Gallery, client: Client, choices: Choices) -> None:
    with picking(gallery, choices) as (_, pool):
        client.tell("mark", pool=pool, index=1, mark="pick")
    # The picks are still shown while they are learnt from, but none of them can be changed.
    assert client.ask(f"pictures/{pool}/1").status == 200
    refused = client.tell("mark", pool=pool, index=2, mark="pick")
    assert refused.status == 409 and refused.said["phase"] == "training"
    other = Choices(2, choices.path.with_name("other.json"))
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(gallery.pick, CANDIDATES[:2], other, 3, 10)
        new = client.wait_for("picking")["pool"]
        # A tab that slept through the round still shows the pictures of before.
        assert client.tell("mark", pool=pool, index=0, mark="pick").status == 409
        assert client.tell("finish", pool=pool).status == 409
        assert client.ask(f"pool/{pool}").status == client.ask(f"pictures/{pool}/1").status == 404
        assert not other.picked
        client.tell("mark", pool=new, index=0, mark="pick")
        client.tell("finish", pool=new)
        assert future.result(20) == [0]


def test_done_choices_are_not_asked_for_again(gallery: Gallery, choices: Choices) -> None:
    choices.mark(6, "pick")
    choices.finish()
    assert gallery.pick(CANDIDATES, choices, 2, 10) == [6]
    with pytest.raises(ValueError, match="do not fit"):
        gallery.pick(CANDIDATES[:3], choices, 2, 10)


def test_clicks_at_the_same_moment(gallery: Gallery, client: Client, choices: Choices) -> None:
    with picking(gallery, choices) as (_, pool), ThreadPoolExecutor(8) as threads:
        start = threading.Barrier(8)

        def click(index: int) -> int:
            start.wait(20)
            return client.tell("mark", pool=pool, index=index, mark="pick").status

        assert list(threads.map(click, range(8))) == [200] * 8
        assert again(choices).picked == client.state()["picked"] == list(range(8))
        # Two presses on Done: the second finds nothing to be done, or does nothing.
        assert threads.submit(client.tell, "finish", pool=pool).result().status == 200
        assert client.tell("finish", pool=pool).status in (200, 409)


def test_news_end_the_waiting(gallery: Gallery, client: Client) -> None:
    before = client.state()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.ask, f"state?after={before['tag']}")
        gallery.drawing(0.75, "more")
        assert waiting.result(20).said["share"] == 0.75
    assert client.ask("state?after=of-another-process").status == 200


@pytest.mark.parametrize("secret", ["", "x", "state", "%E2%82%AC", "..", "{secret}x", "x{secret}", "{short}"])
def test_nothing_is_found_without_the_secret(client: Client, secret: str) -> None:
    right = client.parts.path.strip("/")
    wrong = secret.format(secret=right, short=right[:-1])
    for path in ("", "/", "/state", "/pool/x"):
        answer = client.ask(f"/{wrong}{path}" if wrong else path or "/")
        assert (answer.status, answer.said) == (404, {"error": "There is nothing here."})
    assert client.ask(f"/{wrong}/mark", b"{}").status == 404


def test_only_this_host_is_served(client: Client) -> None:
    port = client.parts.port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"127.0.0.1.evil:{port}",
    ):
        assert client.ask("", headers={"Host": host}).status == 421
        assert client.ask("mark", b"{}", {"Host": host, "Origin": f"http://{host}"}).status == 421
    assert client.ask("", headers={"Host": None}).status in (400, 421)
    assert client.ask("", headers={"Host": f"localhost:{port}"}).status == 200


def test_only_the_page_itself_may_change_something(gallery: Gallery, client: Client, choices: Choices) -> None:
    port = client.parts.port
    foreign = (None, "null", "", "http://evil.example", f"https://{client.host}", f"http://localhost:{port}",
               "http://127.0.0.1", f"http://{client.host}.evil.example", f"http://{client.host}/")  # fmt: skip
    with picking(gallery, choices) as (_, pool):
        click = json.dumps({"pool": pool, "index": 1, "mark": "pick"}).encode()
        for origin in foreign:
            assert client.ask("mark", click, {"Origin": origin}).status == 403, origin
        for kind in (None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
            assert client.ask("mark", click, {"Content-Type": kind}).status == 415, kind
        assert client.ask("mark").status == 405  # a GET changes nothing
        assert not choices.path.exists()
        same = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
        assert client.ask("mark", click, same | {"Content-Type": "Application/JSON; charset=utf-8"}).status == 200
        assert choices.picked == [1]


def test_odd_bodies_are_refused_in_words(gallery: Gallery, client: Client, choices: Choices) -> None:
    with picking(gallery, choices) as (_, pool):
        click: dict[str, Any] = {"pool": pool, "index": 1, "mark": "pick"}
        large = json.dumps(click | {"more": "x" * 5000}).encode()
        assert client.ask("mark", large).status == 413
        for body in (b"", b"{", b"\xff\xfe", b"[" * 4000, b"[]", b"null", b'"mark"', b"NaN"):
            assert client.ask("mark", body).status == 400, body
        for wrong in (
            *({"index": index} for index in (-1, 20, 10**30, 1.5, True, "1", None, [], {})),
            *({"mark": mark} for mark in ("", "picked", 1, True, [], {})),
        ):
            answer = client.tell("mark", **(click | wrong))
            assert answer.status == 400 and answer.said["error"] and answer.said["phase"] == "picking", wrong
        assert client.tell("mark", pool=pool).status == client.tell("mark", pool=pool, index=1).status == 400
        for stale in ({"pool": "x"}, {"pool": None}, {"pool": [pool]}):
            assert client.tell("mark", **(click | stale)).status == 409
        assert client.tell("erase", **click).status == 404
        assert client.tell("answer", sheet=None, another=True).status == 409
        assert not choices.path.exists()


def test_no_path_leads_to_the_disk(gallery: Gallery, client: Client, choices: Choices) -> None:
    with picking(gallery, choices) as (_, pool):
        client.tell("mark", pool=pool, index=1, mark="pick")
        tricks = ["page.json", "../page.json", "pictures/../page.json", "pictures/%2e%2e%2fpage.json/0", "page.html"]
        tricks += [
            f"pictures/{pool}/{n}" for n in ("20", "-1", "1.0", "%D9%A3", "9" * 5000, "0/..", "0%00", "", "..%2f0")
        ]
        tricks += [
            f"pictures/{'../' * 9}etc/passwd",
            f"pool/{pool}x",
            "pool/%2e%2e",
            "//etc/passwd",
            "pictures//0",
            "state/",
        ]
        for trick in tricks:
            assert client.ask(client.parts.path + trick).status in (404, 405), trick


def test_a_full_disk_is_said_and_nothing_is_marked(gallery: Gallery, client: Client, choices: Choices) -> None:
    with picking(gallery, choices) as (_, pool):
        choices.mark(3, "pick")
        good, choices.path = choices.path, choices.path / "below-a-file"
        answer = client.tell("mark", pool=pool, index=1, mark="pick")
        assert answer.status == 500 and "cannot write" in answer.said["error"]
        assert answer.said["picked"] == [3]
        choices.path = good


def test_headers_keep_the_page_to_itself(client: Client) -> None:
    page = client.ask("")
    policy = page.headers["content-security-policy"]
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert page.body.count(f'nonce="{nonce}"'.encode()) == 2 and b"NONCE" not in page.body
    assert nonce not in client.ask("").headers["content-security-policy"]
    picture = client.ask(f"pictures/{client.state()['references']}/0")
    for answer in (page, picture, client.ask("state"), client.ask("/x"), client.ask("nothing"), client.tell("mark")):
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "content-security-policy" in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control") or name == "server"]
    for answer in (page, client.ask("state"), client.ask("/x")):
        assert answer.headers["cache-control"] == "no-store"


def test_it_listens_on_this_machine_only(gallery: Gallery, client: Client) -> None:
    assert client.parts.hostname == "127.0.0.1" and len(client.parts.path.strip("/")) >= 32
    with socket.socket() as elsewhere, pytest.raises(OSError):
        elsewhere.connect(("127.0.0.2", client.parts.port))


def test_ctrl_c_ends_the_waiting(gallery: Gallery, choices: Choices) -> None:
    client = Client(gallery)

    def interrupt() -> None:
        client.wait_for("picking")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            gallery.pick(CANDIDATES, choices, 1, 10)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    choices.mark(0, "pick")
    choices.finish()
    assert gallery.pick(CANDIDATES, choices, 1, 10) == [0]  # the page is still there


def test_other_files_are_no_pictures(tmp_path: Path, gallery: Gallery) -> None:
    with pytest.raises(ValueError, match="PNG, JPEG or WebP"):
        Gallery(tmp_path, [b"<svg onload='x()'>"], "t")
    with pytest.raises(ValueError, match="PNG, JPEG or WebP"):
        gallery.another(b"GIF89a", "", planned=True)


# ---- the address ----


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(server, "RETURN", 0.5)
    return []


def serve(folder: Path, opened: list[str]) -> Gallery:
    return Gallery(folder, [PNG], "watercolor", opened.append)


def settle() -> None:
    """Let the threads that open the page end."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name == "open-page":
            thread.join(20)


def test_the_address_outlives_the_process(tmp_path: Path, opened: list[str]) -> None:
    with serve(tmp_path / "page", opened) as first:
        settle()
        assert opened == [first.url]
    path = tmp_path / "page" / "page.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["page.json"]
    with serve(tmp_path / "page", opened) as second:
        assert Client(second).state()["phase"] == "working"  # a tab that was left open
        settle()
        assert second.url == first.url and opened == [first.url]
    with serve(tmp_path / "page", opened) as third:  # no tab is left
        settle()
        assert opened == [first.url, third.url] and third.url == first.url


def test_a_taken_port_is_left_and_its_secret_forgotten(tmp_path: Path, opened: list[str]) -> None:
    with serve(tmp_path, opened) as first:
        settle()
    with socket.socket() as other:
        other.bind(("127.0.0.1", urlsplit(first.url).port or 0))
        other.listen()
        with serve(tmp_path, opened) as second:
            assert Client(second).state()["phase"] == "working"
            settle()
    one, two = urlsplit(first.url), urlsplit(second.url)
    assert one.port != two.port and one.path != two.path and opened == [first.url, second.url]
    kept = json.loads((tmp_path / "page.json").read_text())
    assert (kept["port"], f"/{kept['secret']}/") == (two.port, two.path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"port": 0, "secret": "x"}', '{"port": 80, "secret": "short"}', '{"port": "8", "secret": 1}'],
)
def test_a_damaged_address_is_replaced(tmp_path: Path, opened: list[str], text: str) -> None:
    (tmp_path / "page.json").write_text(text)
    with serve(tmp_path, opened) as gallery:
        assert Client(gallery).state()["phase"] == "working"
    assert len(json.loads((tmp_path / "page.json").read_text())["secret"]) >= 32


def test_a_folder_that_cannot_be_is_said(tmp_path: Path, opened: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StyledropError, match="cannot write"), serve(tmp_path / "file" / "page", opened):
        pass
    assert not opened


def test_no_port_is_said(tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def bound(port: int) -> socket.socket:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(serving, "_bound", bound)
    with pytest.raises(StyledropError, match="cannot be served.*already in use"), serve(tmp_path, opened):
        pass
