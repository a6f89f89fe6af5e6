"""Names of saved styles, and what a word on the command line stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import nobody
from styledrop_cli.adapters import library
from styledrop_cli.errors import ModelError, UsageError


def keep(name: str) -> Path:
    path = library.file_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_a_name_stands_for_its_file_and_a_path_for_itself() -> None:
    ink = keep("ink")
    assert library.names() == ["ink"] and library.find("ink") == ink
    assert library.find("ink.safetensors") == Path("ink.safetensors")
    assert library.find("there/ink") == Path("there/ink")
    assert library.names_adapter("ink") and not library.names_adapter("a cat")


def test_a_style_goes_before_a_file_of_its_name() -> None:
    Path("ink").write_bytes(b"")
    Path("gold").mkdir()
    assert library.find("ink") == Path("ink")
    ink = keep("ink")
    assert library.find("ink") == ink
    with pytest.raises(ModelError, match="no style called 'gold'"):
        library.find("gold")


def test_an_unknown_name_brings_the_nearest() -> None:
    keep("watercolor")
    with pytest.raises(ModelError) as caught:
        library.find("watercolour")
    assert caught.value.hint is not None and "Did you mean watercolor?" in caught.value.hint


@pytest.mark.parametrize("name", ["ink", "Ink-2", "水彩", "a", "v1.2", "a" * 60])
def test_names_that_a_style_can_have(name: str) -> None:
    assert library.file_of(name).name == f"{name}.safetensors"


@pytest.mark.parametrize(
    "name", ["", "-ink", "ink-", "a cat", "../ink", "a/b", "ink.safetensors", ".ink", "con", "COM1.x", "a" * 61, "a\n"]
)
def test_names_that_no_style_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a style"):
        library.file_of(name)


def test_who_has_no_home_has_no_library_and_draws_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STYLEDROP_STYLES")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    nobody(monkeypatch)
    assert library.names() == [] and not library.names_adapter("ink")
    assert library.find("ink.safetensors") == Path("ink.safetensors")
    with pytest.raises(UsageError):
        library.folder()
