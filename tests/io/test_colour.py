"""Colours: what is measured, what comes back, what a picture is mainly of, and palettes as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from styledrop_cli.errors import UsageError
from styledrop_cli.io.colour import ALIKE, cielab, clusters, delta_e, from_oklab, oklab
from styledrop_cli.io.palette import KEEP, MOST, Palette, check_palette, is_picture

# Sharma, Wu and Dalal (2005), table 1: two colours in CIELAB, and how far they are apart.
SHARMA = [
    (50.0, 2.6772, -79.7751, 50.0, 0.0, -82.7485, 2.0425),
    (50.0, 3.1571, -77.2803, 50.0, 0.0, -82.7485, 2.8615),
    (50.0, -1.3802, -84.2814, 50.0, 0.0, -82.7485, 1.0000),
    (50.0, 0.0, 0.0, 50.0, -1.0, 2.0, 2.3669),
    (50.0, 2.4900, -0.0010, 50.0, -2.4900, 0.0009, 7.1792),
    (50.0, 2.4900, -0.0010, 50.0, -2.4900, 0.0011, 7.2195),
    (50.0, -0.0010, 2.4900, 50.0, 0.0009, -2.4900, 4.8045),
    (50.0, 2.5000, 0.0, 50.0, 0.0, -2.5000, 4.3065),
    (50.0, 2.5000, 0.0, 73.0, 25.0, -18.0, 27.1492),
    (50.0, 2.5000, 0.0, 56.0, -27.0, -3.0, 31.9030),
    (60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644),
    (22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373),
    (36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146),
    (6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377),
    (2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082),
]


def test_differences_are_those_of_the_published_pairs() -> None:
    pairs = torch.tensor(SHARMA, dtype=torch.float64)
    one, other, wanted = pairs[:, :3], pairs[:, 3:6], pairs[:, 6]
    assert torch.allclose(delta_e(one, other), wanted, atol=1e-4, rtol=0)
    assert torch.allclose(delta_e(other, one), wanted, atol=1e-4, rtol=0)
    every = delta_e(one[:, None], one)  # broadcast
    assert every.shape == (len(one), len(one)) and not every.diagonal().any()


def test_white_and_black_are_where_they_belong_and_all_colours_come_back() -> None:
    ends = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(oklab(ends), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), atol=1e-4)
    assert torch.allclose(cielab(ends), torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), atol=1e-3)
    # Red, as published with both spaces.
    red = torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(oklab(red), torch.tensor([0.628, 0.225, 0.126]), atol=1e-3)
    assert torch.allclose(cielab(red), torch.tensor([53.23, 80.11, 67.22]), atol=0.02)
    some = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(from_oklab(oklab(some)), some, atol=1e-4)


def test_main_colours_are_those_that_are_much_seen() -> None:
    colours = oklab(torch.tensor([[0.9, 0.9, 0.9], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7]]))
    pixels = torch.cat([colours[0].expand(700, 3), colours[1].expand(200, 3), colours[2].expand(95, 3)])
    speck = oklab(torch.tensor([[0.0, 1.0, 0.0]])).expand(5, 3)
    noise = 0.005 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    found, shares = clusters(torch.cat([pixels, speck]) + noise, 6)
    assert torch.allclose(found, colours, atol=0.02)  # the most seen first, and no speck
    assert torch.allclose(shares, torch.tensor([0.7, 0.2, 0.1]), atol=0.01)
    found, _ = clusters(torch.rand(2000, 3, generator=torch.Generator().manual_seed(1)), 8)
    assert len(found) == 8 and float(torch.pdist(found).min()) >= ALIKE
    assert len(clusters(colours[:1].expand(50, 3), 6)[0]) == 1


@pytest.mark.parametrize(
    "said",
    ["#0b3d91,#f2c14e", "0b3d91, F2C14E", " #0B3D91 ; #f2c14e ,", "#0b3d91 #f2c14e #0b3d91", ["#0b3d91", "#f2c14e"]],
)
def test_one_palette_written_in_many_ways(said: str | list[str]) -> None:
    palette = Palette.read(said)
    assert palette.colours == ((11, 61, 145), (242, 193, 78))
    assert str(palette) == "#0b3d91,#f2c14e" and Palette.read(str(palette)) == palette


def test_short_colours_and_names() -> None:
    assert Palette.read("#f00, white,Teal").colours == ((255, 0, 0), (255, 255, 255), (0, 128, 128))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("#0b3d91", "one colour, #0b3d91, is no palette: it takes 2 at least"),
        ("#fff,white", "one colour, #ffffff, is"),
        (" , ", "no colours are no palette"),
        ("#0b3d9g,#f2c14e", "'#0b3d9g' is no colour"),
        ("teel,gold", "'teel' is no colour"),
        ("#12345,#f2c14e", "'#12345' is no colour"),
        (",".join(f"#0000{i:02x}" for i in range(MOST + 1)), "33 colours are too many"),
        ("brand.png", "there is no picture brand.png"),
        ("../brand", "there is no picture ../brand"),
    ],
)
def test_what_is_no_palette_is_said(said: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        check_palette(said)
    assert error.value.hint


def test_a_picture_is_told_from_colours(tmp_path: Path) -> None:
    assert is_picture("brand.PNG") and is_picture("a/b") and not is_picture("teal,gold") and not is_picture(KEEP)
    (tmp_path / "brand.png").touch()
    check_palette(str(tmp_path / "brand.png"))  # what is in it is seen when it is read
    check_palette(KEEP)
