from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin

from conftest import draw
from styledrop_cli.errors import PictureError, StyledropError
from styledrop_cli.io import images
from styledrop_cli.io.files import atomic_write
from styledrop_cli.io.images import (
    load_cutout,
    load_mask,
    load_picture,
    load_reference,
    load_transparency,
    read_png_settings,
    save_png,
    square,
    thumbnail_base64,
    to_image,
    to_tensor,
)


def near(image: Image.Image, at: tuple[int, int], colour: tuple[int, int, int], by: int = 12) -> bool:
    pixel = image.getpixel(at)
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= by for a, b in zip(pixel, colour, strict=True))


# ---- pictures that cannot be read ----


def test_missing_picture_names_the_path() -> None:
    with pytest.raises(PictureError, match=r"no picture at nowhere\.png") as caught:
        load_picture(Path("nowhere.png"))
    assert caught.value.hint
    assert caught.value.exit_code == 1


def test_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="is a folder"):
        load_picture(tmp_path)


@pytest.mark.parametrize("content", [b"these are words, not a picture", b"", b"\x89PNG\r\n\x1a\n"])
def test_text_named_png(content: bytes) -> None:
    Path("words.png").write_bytes(content)
    with pytest.raises(PictureError, match=r"words\.png") as caught:
        load_picture(Path("words.png"))
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.5, 0.9])
def test_truncated_picture(kind: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    path = Path(f"cut.{kind.lower()}")
    Image.fromarray(noise).save(path, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(PictureError, match=r"cut\."):
        load_picture(path)


def test_the_largest_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(96, 64).save("vast.png")
    monkeypatch.setattr(images, "LARGEST", 96 * 64)
    assert load_picture(Path("vast.png")).size == (96, 64)
    monkeypatch.setattr(images, "LARGEST", 96 * 64 - 1)
    with pytest.raises(PictureError, match=r"vast\.png is too large: 96 x 64 px, and at most 6,143 pixels are read"):
        load_picture(Path("vast.png"))


def test_the_smallest_picture() -> None:
    draw(16, 300).save("narrow.png")
    assert load_picture(Path("narrow.png")).size == (16, 300)
    draw(300, 15).save("low.png")
    with pytest.raises(PictureError, match=r"low\.png is 300 x 15 px: too small .*") as caught:
        load_picture(Path("low.png"))
    assert caught.value.hint == "give a picture of at least 16 px on its shorter side"


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("png", m) for m in ("RGB", "L", "P", "1", "RGBA", "I;16")]
    + [("jpg", m) for m in ("RGB", "L", "CMYK")]
    + [("tiff", m) for m in ("RGB", "L", "P", "1", "CMYK", "RGBA", "I;16")],
)
def test_very_large_pictures_are_scaled_down_upright(monkeypatch: pytest.MonkeyPatch, kind: str, mode: str) -> None:
    whole = draw(384, 256).convert("L").point(range(0, 65536, 257), "I") if mode == "I;16" else draw(384, 256)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be seen upright
    whole.convert(mode).save(f"large.{kind}", exif=exif)
    expected = load_picture(Path(f"large.{kind}"))
    monkeypatch.setattr(images, "LARGE", 384 * 256 - 1)
    monkeypatch.setattr(images, "ENOUGH", 64)
    seen = load_picture(Path(f"large.{kind}"))
    assert seen.mode == "RGB"
    assert seen.size == (expected.width // 4, expected.height // 4)
    difference = np.asarray(seen.resize((16, 16))).astype(int) - np.asarray(expected.resize((16, 16)))
    assert abs(difference).mean() < 6


# ---- odd pictures that work ----


def write_png(path: Path, bits: int, colour: int, row: bytes, **more: bytes) -> None:
    """A PNG of 16 equal rows of 16 pixels; Pillow itself writes no 16-bit RGB and no grey of 2 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, bits, colour, 0, 0, 0))]
    chunks += [chunk(name.encode(), data) for name, data in more.items()]
    chunks += [chunk(b"IDAT", zlib.compress((b"\0" + row) * 16)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_common_kinds(kind: str) -> None:
    draw().save(f"ref.{kind}")
    image = load_picture(Path(f"ref.{kind}"))
    assert image.mode == "RGB"
    assert image.size == (96, 64)
    assert near(image, (48, 32), (210, 40, 30), 25)


def test_transparent_parts_become_white() -> None:
    image = draw().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.paste((0, 0, 0, 128), (40, 20, 60, 50))
    image.save("clear.png")
    loaded = load_picture(Path("clear.png"))
    assert near(loaded, (5, 5), (255, 255, 255), 0)
    assert near(loaded, (50, 30), (127, 127, 127), 1)


@pytest.mark.parametrize("mode", ["LA", "PA"])
def test_transparent_grey_and_palette(mode: str) -> None:
    image = draw().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 20, 64))
    image = image.convert("LA") if mode == "LA" else image.quantize(16)
    image.save("clear.png")
    loaded = load_picture(Path("clear.png"))
    assert loaded.mode == "RGB"
    assert near(loaded, (5, 5), (255, 255, 255), 1)


def test_palette_with_one_transparent_colour() -> None:
    image = draw().quantize(8)
    image.save("index.png", transparency=image.getpixel((5, 5)))
    loaded = load_picture(Path("index.png"))
    assert near(loaded, (5, 5), (255, 255, 255), 0)
    assert near(loaded, (48, 32), (210, 40, 30), 25)


def test_palette_without_transparency() -> None:
    draw().quantize(8).save("index.png")
    assert near(load_picture(Path("index.png")), (48, 32), (210, 40, 30), 25)


def test_cmyk_jpeg() -> None:
    draw().convert("CMYK").save("print.jpg", quality=95)
    loaded = load_picture(Path("print.jpg"))
    assert loaded.mode == "RGB"
    assert near(loaded, (48, 32), (210, 40, 30), 30)


@pytest.mark.parametrize("value", [0, 257, 30000, 65535])
def test_16_bit_grey_is_scaled_not_clipped(value: int) -> None:
    Image.fromarray(np.full((20, 20), value, dtype=np.uint16)).save("deep.png")
    assert near(load_picture(Path("deep.png")), (3, 3), (round(value / 257),) * 3, 1)


def test_float_tiff() -> None:
    Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)).save("float.tiff")
    loaded = load_picture(Path("float.tiff"))
    assert near(loaded, (0, 0), (0, 0, 0), 1)
    assert near(loaded, (19, 19), (255, 255, 255), 1)


def test_1_bit() -> None:
    draw().convert("1").save("bits.png")
    assert load_picture(Path("bits.png")).mode == "RGB"


def test_16_bit_colour_png() -> None:
    write_png(Path("deep.png"), 16, 2, struct.pack(">HHH", 65535, 32896, 0) * 16)
    assert near(load_picture(Path("deep.png")), (1, 1), (255, 128, 0), 1)


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be seen upright
    draw().save("phone.jpg", exif=exif, quality=95)
    loaded = load_picture(Path("phone.jpg"))
    assert loaded.size == (64, 96)
    assert near(loaded, (32, 6), (30, 160, 60), 25)  # the left quarter is on top now


def test_wide_gamut_profile_is_converted() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    draw().save("tagged.png", icc_profile=srgb)
    assert near(load_picture(Path("tagged.png")), (48, 32), (210, 40, 30), 3)


@pytest.mark.parametrize(
    "load", [load_picture, load_reference, load_mask, lambda path, say: load_cutout(path, 16, say)]
)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "is for Lab and not for RGB"),
        (lambda: icc("GRAY"), "is for GRAY and not for RGB"),
        (lambda: b"no profile at all", "is damaged"),
        (lambda: icc("RGB")[:300], "is damaged"),
    ],
)
def test_a_profile_that_cannot_be_applied_is_said(
    load: Callable[[Path, Callable[[str], None]], Any], make: Callable[[], bytes], words: str
) -> None:
    draw(64, 64).save("odd.png", icc_profile=make())
    said: list[str] = []
    image = load(Path("odd.png"), said.append)
    assert len(said) == 1 and said[0].startswith(f"Warning: the colour profile in odd.png {words}: its colours are")
    if isinstance(image, Image.Image):
        assert near(image, (32, 32), (210, 40, 30), 3)


def test_a_profile_that_its_file_holds_only_in_part_is_said() -> None:
    write_png(Path("odd.png"), 8, 0, bytes(16), iCCP=b"x\0\0no deflate at all")
    said: list[str] = []
    load_picture(Path("odd.png"), said.append)
    assert len(said) == 1 and "profile in odd.png is damaged" in said[0]


# ---- every mode, with a profile, transparency and both, in every part ----

COLOUR, GREY, INK = (200, 100, 50), 100, (20, 120, 200, 30)
VALUES: dict[str, Any] = dict.fromkeys(("RGB", "RGBA", "P", "PA", "YCbCr"), COLOUR)
VALUES |= {"1": 255, "L": GREY, "LA": GREY, "I;16": 257 * GREY, "I": GREY, "F": GREY / 255, "CMYK": INK}
SEE_THROUGH = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16")  # of which a file can say where
PLACES = ((-1, 16), (16, 33))  # columns of the transparent half and of the other


def icc(space: str, gamma: float = 1.0) -> bytes:
    """A profile: linear light, red and blue swapped, or for ink a table that goes from white to a green."""
    fixed = lambda *values: struct.pack(f">{len(values)}i", *(round(65536 * value) for value in values))  # noqa: E731
    xyz = lambda *values: b"XYZ \0\0\0\0" + fixed(*values)  # noqa: E731
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(256 * gamma), 0)
    tags = {"wtpt": xyz(0.9642, 1.0, 0.8249)}
    if space == "GRAY":
        tags |= {"kTRC": curve}
    elif space == "RGB":
        tags |= {"rXYZ": xyz(0.1431, 0.0606, 0.7141), "gXYZ": xyz(0.3851, 0.7169, 0.0971)}
        tags |= {"bXYZ": xyz(0.4361, 0.2225, 0.0139), "rTRC": curve, "gTRC": curve, "bTRC": curve}
    else:
        table = b"".join(bytes((255 - 13 * i, 128 - 5 * i, 128 + 3 * i)) for i in range(16))
        steps = bytes(range(256))
        whole = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + steps * 4 + table + steps * 3
        tags |= {"A2B0": b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + whole}
    place, index, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        index += name.encode() + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    connection = b"Lab " if space == "CMYK" else b"XYZ "
    kind = (b"prtr" if space == "CMYK" else b"mntr") + space.ljust(4).encode() + connection
    head = struct.pack(">I4sI", place + len(body), b"\0\0\0\0", 0x02400000) + kind
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


def half_and_half(mode: str, **more: Any) -> Path:
    """A picture of 64 px in this mode: another colour, the transparent one if it `sees_through`, on its left half."""
    sees_through, path = more.pop("sees_through", False), Path(f"half.{'png' if mode in PNGS else 'tiff'}")
    plain = {"P": "RGB", "PA": "RGBA", "YCbCr": "RGB"}.get(mode, mode)
    value = VALUES[mode] if isinstance(VALUES[mode], tuple) else (VALUES[mode],)
    left = tuple(one // 2 if plain != "F" else one / 2 for one in value) if mode != "1" else (0,)
    if plain.endswith("A"):
        value, left = (*value, 255), (*left, 0 if sees_through else 255)
    alone = lambda colour: colour if len(colour) > 1 else colour[0]  # noqa: E731
    image = Image.new(plain, (64, 64), alone(value))
    image.paste(alone(left), (0, 0, 32, 64))
    if mode == "YCbCr":
        image = image.convert(mode)
    elif mode == "P":
        image = image.quantize(4)
    elif mode == "PA":
        bands = image.convert("RGB").quantize(4)
        image = bands.convert("PA")
        image.putalpha(Image.new("L", (64, 64), 255))
        if sees_through:
            image.putalpha(Image.linear_gradient("L").resize((64, 64)).rotate(90).point(lambda at: 255 * (at >= 128)))
    if sees_through and mode in ("1", "L", "RGB", "I;16", "P"):
        more["transparency"] = image.getpixel((0, 0))
    image.save(path, **more)
    with Image.open(path) as written:
        assert written.mode == mode
    return path


PNGS = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def seen(mode: str, profiled: bool) -> tuple[int, ...]:
    """What the right half of `half_and_half` looks like in sRGB, by ImageCms alone."""
    space = {"CMYK": "CMYK"}.get(mode, "RGB" if isinstance(VALUES[mode], tuple) else "L")
    value = 255 if mode == "1" else GREY if space == "L" else VALUES[mode]
    image = Image.new(space, (1, 1), value)
    if profiled:
        held = ImageCms.ImageCmsProfile(io.BytesIO(icc(SPACES[space])))
        made = ImageCms.profileToProfile(image, held, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert made is not None
        image = made
    pixel = image.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


@pytest.mark.parametrize("profiled", [False, True])
@pytest.mark.parametrize(
    ("mode", "sees_through"), [(mode, False) for mode in VALUES] + [(mode, True) for mode in SEE_THROUGH]
)
def test_colours_and_transparency_of_every_mode(mode: str, profiled: bool, sees_through: bool) -> None:
    space = "CMYK" if mode == "CMYK" else "RGB" if isinstance(VALUES[mode], tuple) else "GRAY"
    path = half_and_half(mode, sees_through=sees_through, **({"icc_profile": icc(space)} if profiled else {}))
    said: list[str] = []
    colour, by = seen(mode, profiled), 3 if mode == "YCbCr" else 1
    assert not profiled or mode == "1" or max(abs(a - b) for a, b in zip(colour, seen(mode, False), strict=True)) > 40
    picture, mask, cut = load_picture(path, said.append), load_mask(path, said.append), load_cutout(path, 64)
    assert said == []
    for image, ground in ((picture, (255, 255, 255)), (mask, (0, 0, 0))):
        assert image.mode == "RGB" and image.size == (64, 64)
        assert near(image, (50, 30), colour, by)  # type: ignore[arg-type]
        assert near(image, (10, 30), ground, 0) == (sees_through or (mode == "1" and ground == (0, 0, 0)))
    assert [round(255 * float(one)) for one in cut[:3, 30, 50]] == pytest.approx(colour, abs=by)
    assert cut[3, 30, 50] == 1 and cut[3, 30, 10] == (0 if sees_through else 1)
    there = load_transparency(path)
    assert (there and there.getbbox()) == ((0, 0, 32, 64) if sees_through else None)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "F"])
def test_grey_takes_a_profile_for_colours(mode: str) -> None:
    path, said = half_and_half(mode, icc_profile=icc("RGB")), []  # type: tuple[Path, list[str]]
    assert near(load_picture(path, said.append), (50, 30), seen("L", True), 2)  # type: ignore[arg-type]
    assert said == []


def test_deep_grey_with_alpha_takes_a_profile_for_grey() -> None:
    row = struct.pack(">HH", 257 * GREY, 65535) * 16
    write_png(Path("deep.png"), 16, 4, row, iCCP=b"x\0\0" + zlib.compress(icc("GRAY")))
    said: list[str] = []
    assert near(load_picture(Path("deep.png"), said.append), (5, 5), seen("L", True), 1)  # type: ignore[arg-type]
    assert said == []


@pytest.mark.parametrize(
    ("bits", "colour", "left", "right"),
    [
        (2, 0, b"\x55\x55", b"\xaa\xaa"),
        (4, 0, b"\x33" * 4, b"\x77" * 4),
        (8, 0, b"\x33" * 8, b"\x77" * 8),
        (8, 2, b"\x33\x44\x55" * 8, b"\x33\x44\x77" * 8),
        (16, 0, b"\x33\x44" * 8, b"\x33\x45" * 8),
        (16, 2, b"\x33\x44" * 24, b"\x35\x44" * 24),
    ],
)
def test_one_transparent_colour_of_any_depth(bits: int, colour: int, left: bytes, right: bytes) -> None:
    value = struct.unpack(">H", left[:2])[0] if bits == 16 else left[0] >> (8 - bits)
    key = struct.pack(">HHH", 0x33, 0x44, 0x55) if (bits, colour) == (8, 2) else struct.pack(">H", value) * (1 + colour)
    write_png(Path("key.png"), bits, colour, left + right, tRNS=key)
    there = load_transparency(Path("key.png"))
    assert there and there.getbbox() == (0, 0, 8, 16)


def test_a_large_picture_keeps_its_transparent_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    path = half_and_half("RGB", sees_through=True)
    monkeypatch.setattr(images, "LARGE", 64 * 64 - 1)
    monkeypatch.setattr(images, "ENOUGH", 32)
    assert near(load_picture(path), (5, 15), (255, 255, 255), 0)
    assert near(load_picture(path), (25, 15), COLOUR, 0)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff"])
def test_a_cutout_is_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be seen upright
    image = Image.new("RGB", (64, 64), "blue")
    image.paste("red", (0, 0, 20, 64))
    image.save(f"turned.{kind}", exif=exif)
    cut = load_cutout(Path(f"turned.{kind}"), 64)
    assert cut[0, 6, 32] > 0.9 and cut[0, 32, 6] < 0.1  # what was on the left is on top


# ---- grey of more than 8 bits: white is what nearly all of it says ----


@pytest.mark.parametrize("odd", [1.0001, 7.0, -3.0, 1e30, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    ("kind", "value", "shade"),
    [(np.float32, 0.5, 128), (np.float32, 100, 100), (np.float32, 257 * 100, 100), (np.int32, 100, 100),
     (np.int32, 257 * 100, 100)],
)  # fmt: skip
def test_no_one_value_decides_what_white_is(kind: type, value: float, shade: int, odd: float) -> None:
    pixels = np.full((64, 64), value, dtype=kind)
    pixels[7, 9] = odd * value * 2 if kind is np.float32 else 70_000
    Image.fromarray(pixels).save("odd.tiff")
    said: list[str] = []
    assert near(load_picture(Path("odd.tiff"), said.append), (40, 40), (shade,) * 3, 1)
    finite = kind is np.int32 or np.isfinite(odd)
    assert finite == (not said)
    if said:
        assert said[0].startswith("Warning: 1 of the 4,096 values in odd.tiff are no finite numbers")


def test_highlights_beyond_white_are_white() -> None:
    pixels = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    pixels[:6] = 3.0  # nearly a tenth of it
    Image.fromarray(pixels).save("high.tiff")
    image = load_picture(Path("high.tiff"))
    assert near(image, (5, 2), (255, 255, 255), 0) and near(image, (0, 32), (128, 128, 128), 1)


def test_whole_numbers_beyond_16_bits() -> None:
    Image.fromarray(np.linspace(0, 2**31 - 1, 64 * 64).astype(np.int32).reshape(64, 64)).save("deep.tiff")
    assert near(load_picture(Path("deep.tiff")), (0, 32), (128, 128, 128), 3)


@pytest.mark.parametrize("said", [struct.pack("<HHIHH", 339, 3, 1, 1, 0), struct.pack("<HHIHH", 65000, 3, 1, 1, 0)])
def test_whole_numbers_without_a_sign(said: bytes) -> None:
    """Where a TIFF does not say that its numbers have one, they have none; Pillow writes none of these."""
    rising = np.linspace(0, 2**32 - 1, 64 * 64).astype(np.uint32).reshape(64, 64)
    Image.fromarray(rising.view(np.int32)).save("deep.tiff")
    whole, signed = Path("deep.tiff").read_bytes(), struct.pack("<HHIHH", 339, 3, 1, 2, 0)
    assert whole.count(signed) == 1
    Path("deep.tiff").write_bytes(whole.replace(signed, said))
    image = load_picture(Path("deep.tiff"))
    assert near(image, (0, 32), (128, 128, 128), 3) and near(image, (63, 60), (243, 243, 243), 4)


def test_nothing_but_no_numbers_is_no_picture() -> None:
    Image.fromarray(np.full((64, 64), np.nan, dtype=np.float32)).save("none.tiff")
    with pytest.raises(PictureError, match=r"none\.tiff holds no finite numbers"):
        load_picture(Path("none.tiff"))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.uint16, np.float32])
def test_a_tiff_that_has_white_as_zero(kind: type, compression: str | None) -> None:
    top = {np.bool_: True, np.uint8: 200, np.uint16: 257 * 200, np.float32: np.float32(200 / 255)}[kind]
    pixels = np.zeros((64, 64), dtype=kind)
    pixels[:, 32:] = top  # the darker half
    Image.fromarray(pixels).save("white.tiff", tiffinfo={262: 0}, compression=compression)
    with Image.open("white.tiff") as written:
        assert written.tag_v2[262] == 0  # type: ignore[attr-defined]
    image = load_picture(Path("white.tiff"))
    # Of 1 and 8 bits Pillow turns over what it writes so, of more it does not.
    left, right = (255, 55) if kind in (np.uint16, np.float32) else (0, 255 if kind is np.bool_ else 200)
    assert near(image, (10, 10), (left,) * 3, 1) and near(image, (50, 10), (right,) * 3, 1)


# ---- what holds nothing to learn ----


def test_a_reference_that_shows_nothing() -> None:
    Image.new("RGBA", (64, 64), (200, 30, 20, 0)).save("clear.png")
    with pytest.raises(PictureError, match=r"clear\.png is transparent all over: there is nothing in it to learn"):
        load_reference(Path("clear.png"))
    said: list[str] = []
    flat = Image.new("RGB", (64, 64), (200, 30, 20))
    flat.putpixel((5, 5), (0, 255, 0))  # one pixel is no style
    flat.save("flat.png")
    load_reference(Path("flat.png"), said.append)
    assert len(said) == 1 and said[0].startswith("Warning: flat.png shows a single colour")
    flat.paste("white", (0, 0, 64, 3))
    flat.save("stripe.png")
    load_reference(Path("stripe.png"), said.append)
    draw().save("ref.png")
    load_reference(Path("ref.png"), said.append)
    assert len(said) == 1


def test_animation_gives_its_first_frame() -> None:
    draw().save("moving.gif", save_all=True, append_images=[Image.new("RGB", (96, 64))])
    assert near(load_picture(Path("moving.gif")), (48, 32), (210, 40, 30), 25)


# ---- shape ----


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (7, 5), (64, 64)])
def test_square_crops_the_middle_and_squashes_nothing(size: tuple[int, int]) -> None:
    width, height = size
    cropped = square(draw(width, height), 64)
    assert cropped.size == (64, 64)
    pixels = np.asarray(cropped).astype(int)
    red = (pixels[..., 0] > 120) & (pixels[..., 2] < 120)
    across, down = red.any(0).sum(), red.any(1).sum()
    assert abs(int(across) - int(down)) <= 64 // min(size) + 2  # the disc is still a disc
    assert near(cropped, (32, 32), (210, 40, 30), 40)


def test_tensor_roundtrip_is_exact() -> None:
    image = draw()
    tensor = to_tensor(image)
    assert tensor.shape == (3, 64, 96)
    assert tensor.dtype == torch.float32
    assert 0 <= float(tensor.min()) <= float(tensor.max()) <= 1
    assert to_image(tensor).tobytes() == image.tobytes()
    assert to_image(tensor * 9 - 4).size == (96, 64)
    with pytest.raises(ValueError, match=r"\[1, 3, 64, 96\]"):
        to_image(tensor[None])


# ---- writing ----


def test_png_settings_roundtrip() -> None:
    settings = {"prompt": "a café, 猫", "negative": "blur", "seed": 7, "lambda_a": 1.5}
    save_png(draw(), Path("new/folder/out.png"), settings)
    assert read_png_settings(Path("new/folder/out.png")) == settings
    with Image.open("new/folder/out.png") as image:
        words = image.info["parameters"]
    assert words.startswith("a café, 猫\nNegative prompt: blur\nSeed: 7")


def parameters(text: str) -> tuple[list[str], dict[str, str]]:
    """The lines before the last, and the last as other programs of the convention read it: quoted values are JSON."""
    *lines, last = text.splitlines()
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    return lines, {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


@pytest.mark.parametrize(
    "style",
    ["pen, ink, Seed: 7", 'a "bold" brush', "back\\slash: x", "ends with a comma,", "plain", "a: b\nSteps: 3, x",
     " blanks at the ends ", "a\rb", "a\u2028b", "a\x85b"],
)  # fmt: skip
def test_what_other_programs_read(style: str) -> None:
    settings = {
        "prompt": "a cat,\nNegative prompt: 5",
        "negative": "x\ny",
        "seed": 3,
        "style": style,
        "mix": {"a": 0.5, "b": 0.5},
        "shares": [0.5, 0.5],
        "steps": 36,
    }
    save_png(draw(), Path("out.png"), settings)
    with Image.open("out.png") as image:
        lines, read = parameters(image.info["parameters"])
    assert lines == ["a cat, Negative prompt: 5", "Negative prompt: x y"]
    assert next(iter(read)) == "Steps"
    assert json.loads(read.pop("Mix")) == settings["mix"] and json.loads(read.pop("Shares")) == settings["shares"]
    assert read == {"Steps": "36", "Seed": "3", "Style": style}
    assert read_png_settings(Path("out.png")) == settings


def test_a_prompt_is_not_read_as_what_to_keep_away_from() -> None:
    settings = {"prompt": " Negative prompt: blur", "negative": "Negative prompt: x", "seed": 3}
    save_png(draw(), Path("out.png"), settings)
    with Image.open("out.png") as image:
        lines, read = parameters(image.info["parameters"])
    assert lines == ["Negative prompt : blur", "Negative prompt: Negative prompt: x"] and read == {"Seed": "3"}
    assert read_png_settings(Path("out.png")) == settings


def test_a_png_of_someone_else_has_no_settings(picture: Path) -> None:
    assert read_png_settings(picture) is None


@pytest.mark.parametrize("text", ["{", "[1]", "7"])
def test_garbled_settings(text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("styledrop", text)
    draw().save("odd.png", pnginfo=info)
    with pytest.raises(PictureError, match="garbled"):
        read_png_settings(Path("odd.png"))


def test_reading_settings_of_nothing() -> None:
    with pytest.raises(PictureError, match="no picture"):
        read_png_settings(Path("nowhere.png"))
    Path("words.png").write_text("words")
    with pytest.raises(PictureError, match="not a picture"):
        read_png_settings(Path("words.png"))


def test_atomic_write_leaves_nothing_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_write(Path("a/b.txt"), b"one")
    atomic_write(Path("a/b.txt"), b"two")
    assert Path("a/b.txt").read_bytes() == b"two"

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StyledropError, match="cannot write a/b.txt: the disk is full"):
        atomic_write(Path("a/b.txt"), b"three")
    assert [path.name for path in Path("a").iterdir()] == ["b.txt"]
    assert Path("a/b.txt").read_bytes() == b"two"


def test_atomic_write_where_a_file_is_in_the_way() -> None:
    Path("taken").write_text("")
    with pytest.raises(StyledropError, match="cannot write"):
        atomic_write(Path("taken/out.png"), b"")


def test_thumbnail_is_small_and_readable() -> None:
    text = thumbnail_base64(draw(800, 600))
    assert text.startswith("data:image/jpeg;base64,")
    assert len(text) < 6000
    json.dumps(text)
