"""What every test gets: a folder of its own, no colours in the output, small pictures to play with."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from PIL import Image, ImageDraw

from chromium import chromium
from styledrop_cli.cli import console
from styledrop_cli.cli.app import app
from styledrop_cli.errors import StyledropError
from styledrop_cli.io.tensors import save_part

ROOT = Path(__file__).parents[1]
SOURCE = str(ROOT / "src")  # where a process of its own finds the package
SEARCH = os.pathsep.join([SOURCE, str(ROOT / "tests"), str(ROOT / "benchmarks")])  # and these tests' own modules


@pytest.fixture(autouse=True)
def _sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test inside an empty folder, in a plain terminal of a fixed width."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("STYLEDROP_STYLES", str(tmp_path / ".styles"))
    for name in ("FORCE_COLOR", "STYLEDROP_TRACEBACK", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


def nobody(patch: pytest.MonkeyPatch) -> None:
    """Make the user of these tests one that has no home folder and that the system does not know."""
    for name in ("HOME", "USERPROFILE", "HOMEPATH", "HOMEDRIVE"):
        patch.delenv(name, raising=False)
    pwd = pytest.importorskip("pwd", reason="this system knows its users otherwise")

    def unknown(who: object) -> None:
        raise KeyError(who)

    patch.setattr(pwd, "getpwuid", unknown)
    patch.setattr(pwd, "getpwnam", unknown)


class Outcome(NamedTuple):
    """What a command left behind: its exit code and what it wrote to either side."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def styledrop(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `styledrop ARGUMENTS` in this process."""

    def run(*arguments: str | Path) -> Outcome:
        code = console.run(app, [str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


def draw(width: int = 96, height: int = 64) -> Image.Image:
    """A red disc in the middle of a blue picture whose left quarter is green."""
    image = Image.new("RGB", (width, height), (20, 60, 200))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width // 4, height), fill=(30, 160, 60))
    radius = min(width, height) // 3
    pen.circle((width / 2, height / 2), radius, fill=(210, 40, 30))
    return image


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small ordinary PNG."""
    path = tmp_path / "ref.png"
    draw().save(path)
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with every part, untrained: 4x4 ids, 16 and 32 px.

    Its transformer is wide enough for the commands' default adapter to stay below 1 % of it.
    """
    import tiny

    folder = tiny.write_base(tmp_path_factory.mktemp("models") / "tiny")
    wide = replace(tiny.TRANSFORMER, hidden_size=128, intermediate_size=768)
    save_part(folder, "transformer", tiny.transformer(wide), wide)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; without it the tests that use it are skipped, and say so."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(chromium())
        except StyledropError as error:
            pytest.skip(error.message)
        yield opened


@pytest.fixture
def tabs(browser: Any) -> Iterator[SimpleNamespace]:
    """`open(url)` opens a tab; whatever a tab asks for or complains of is in `asked` and `complaints`."""
    asked: list[str] = []
    complaints: list[str] = []
    with ExitStack() as stack:

        def open_tab(url: str, **options: Any) -> Any:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
            stack.callback(context.close)
            context.set_default_timeout(15000)
            page = context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(url)
            return page

        yield SimpleNamespace(open=open_tab, asked=asked, complaints=complaints)


@pytest.fixture(scope="session")
def hub_server() -> Iterator[Any]:
    """An HTTP server that answers as the hub does, see ``hub_server``."""
    from hub_server import Handler

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def remote(hub_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The hub, as huggingface_hub sees it from now on, with an empty cache."""
    from huggingface_hub import constants

    from hub_server import Handler, Hub, point_to

    remote = Handler.hub = Hub(f"http://127.0.0.1:{hub_server.server_port}")
    point_to(monkeypatch, remote.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return remote
