"""What every test gets: a folder of its own, no colours in the output, small pictures to play with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image, ImageDraw

from styledrop_cli.checkpoints import save_part
from styledrop_cli.cli import console
from styledrop_cli.cli.app import app


@pytest.fixture(autouse=True)
def _sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test inside an empty folder, in a plain terminal of a fixed width."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "STYLEDROP_TRACEBACK", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


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
