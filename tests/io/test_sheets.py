"""Many pictures on one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import draw
from styledrop_cli.io import fonts
from styledrop_cli.io.contact_sheet import contact_sheet


def test_contact_sheet_shows_every_picture_in_order() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    sheet = contact_sheet([Image.new("RGB", (64, 64), colour) for colour in colours], 3, cell=64)
    pixels = np.asarray(sheet).reshape(-1, 3)
    for colour in colours:
        assert (pixels == colour).all(1).sum() > 62 * 62
    assert sheet.width > sheet.height


def test_contact_sheet_makes_room_for_words() -> None:
    images = [draw(), draw(40, 90)]
    plain = contact_sheet(images, 2, cell=96)
    long = "a very long caption about a very small picture that never seems to come to an end"
    labelled = contact_sheet(images, 2, ["猫", long], title=long, cell=96)
    assert labelled.width == plain.width
    assert labelled.height > plain.height
    assert contact_sheet(images, 9, cell=96).size == plain.size


def test_contact_sheet_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="no sheet"):
        contact_sheet([], 3)
    with pytest.raises(ValueError, match="no sheet"):
        contact_sheet([draw()], 3, ["one", "two"])


@pytest.mark.parametrize(("number", "columns"), [(30, 1), (70, 2), (120, 4), (61, 3)])
def test_a_long_sheet_stands_in_stacks(number: int, columns: int) -> None:
    """Its pictures are as large as before, in rows as before: down the first stack, then down the next."""
    colours = [(i, 255 - i, 7 * i % 256) for i in range(number)]
    sheet = contact_sheet([Image.new("RGB", (32, 32), colour) for colour in colours], columns, ["x"] * number, cell=32)
    assert 0.8 < sheet.width / sheet.height < 2.2
    pixels, corners = np.asarray(sheet), []
    for colour in colours:
        ys, xs = (pixels == colour).all(-1).nonzero()
        assert (np.ptp(ys), np.ptp(xs)) == (31, 31)
        corners.append((int(xs.min()), int(ys.min())))
    rows = [corners[start : start + columns] for start in range(0, number, columns)]
    assert all(len({y for _, y in row}) == 1 and row == sorted(row) for row in rows)
    starts = [row[0] for row in rows]
    assert starts == sorted(starts)  # by stack, then by height


def test_words_are_shown_in_a_font_that_has_their_letters() -> None:
    for text in ("a cat", "crème brûlée — naïve, Łódź", "Жук λ", "一只红色的猫 · 3, un château", "狗、薯条"):
        assert fonts.spelt(text) == text
        box = bytes(fonts.font_for(text, 16).getmask("\U0010ffff"))
        assert all(bytes(fonts.font_for(text, 16).getmask(letter)) != box for letter in text if letter != " ")


def test_a_font_of_the_system_shows_what_others_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cached in (fonts._chosen, fonts._has, fonts._opened):
        cached.cache_clear()
    monkeypatch.setattr(fonts.shutil, "which", lambda name: None)
    monkeypatch.setattr(fonts, "WIDE", ())
    monkeypatch.setattr(fonts, "_MATCHED", {})
    assert fonts.spelt("a 龘 café") == "a U+9F98 café"  # no font has it
    assert fonts.spelt("ねこ 고양이 ガ") == "neko goyangi ga"  # their sounds are in their names
    builder = pytest.importorskip("fontTools.fontBuilder", reason="fonttools, which comes with matplotlib").FontBuilder
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")
    names, glyphs = [".notdef", "cat", *"acfé"], {}
    for place, name in enumerate(names):
        pen = pens.TTGlyphPen(None)
        pen.moveTo((0, 0))
        pen.lineTo((0, 500))
        pen.lineTo((100 * place + 100, 0))
        pen.closePath()
        glyphs[name] = pen.glyph()
    font = builder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({0x9F98: "cat", **{ord(letter): letter for letter in "acfé"}})
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Cats", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "cats.ttf")
    for cached in (fonts._chosen, fonts._has, fonts._opened):
        cached.cache_clear()
    monkeypatch.setattr(fonts, "WIDE", ("no such font.ttf", str(tmp_path / "cats.ttf")))
    assert fonts.spelt("a 龘 café") == "a 龘 café"
    assert fonts.font_for("a 龘 café", 16).getname() == ("Cats", "Regular")  # type: ignore[union-attr]
    for cached in (fonts._chosen, fonts._has, fonts._opened):
        cached.cache_clear()
