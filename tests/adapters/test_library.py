"""Names of saved styles, and what a word on the command line stands for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from conftest import nobody
from styledrop_cli.adapters import library
from styledrop_cli.errors import ModelError, StyledropError, UsageError


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


def test_a_style_is_saved_whole_under_a_free_name() -> None:
    Path("a.safetensors").write_bytes(b"first")
    Path("b.safetensors").write_bytes(b"second")
    ink = library.save(Path("a.safetensors"), "ink")
    assert ink == library.find("ink") and ink.read_bytes() == b"first"
    with pytest.raises(UsageError, match="a style called 'ink' already"):
        library.save(Path("b.safetensors"), "ink")
    assert ink.read_bytes() == b"first"
    library.save(Path("b.safetensors"), "ink", overwrite=True)
    assert ink.read_bytes() == b"second"
    with pytest.raises(ModelError, match="cannot read c.safetensors"):
        library.save(Path("c.safetensors"), "gold")
    assert [one.name for one in library.folder().iterdir()] == ["ink.safetensors"]


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_is_taken_meanwhile_stays_the_others(monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    real = os.link

    def link(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"the other's")
        if not links:
            raise OSError(errno.EPERM, "no links on this disk")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    Path("a.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match="already"):
        library.save(Path("a.safetensors"), "ink")
    assert library.find("ink").read_bytes() == b"the other's"
    monkeypatch.setattr(os, "link", real)


def test_a_disk_without_links_keeps_styles_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Path) -> None:
        raise OSError(errno.EPERM, "no links on this disk")

    monkeypatch.setattr(os, "link", link)
    Path("a.safetensors").write_bytes(b"mine")
    assert library.save(Path("a.safetensors"), "ink").read_bytes() == b"mine"


def test_a_library_that_cannot_be_written_says_where_else() -> None:
    library.folder().parent.mkdir(parents=True, exist_ok=True)
    library.folder().write_bytes(b"")
    Path("a.safetensors").write_bytes(b"mine")
    with pytest.raises(StyledropError) as caught:
        library.save(Path("a.safetensors"), "ink")
    assert caught.value.hint == "set STYLEDROP_STYLES to another folder"
