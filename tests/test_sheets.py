"""Many pictures on one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from conftest import draw
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
