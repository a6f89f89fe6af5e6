from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin

from conftest import draw
from styledrop_cli import images
from styledrop_cli.errors import PictureError, StyledropError
from styledrop_cli.files import atomic_write
from styledrop_cli.images import (
    load_picture,
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
    """Written by hand: Pillow itself writes no 16-bit RGB."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">HHH", 65535, 32896, 0) * 16
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(row * 16)) + chunk(b"IEND", b"")
    Path("deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)
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
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    draw().save("mistagged.png", icc_profile=lab)
    assert near(load_picture(Path("mistagged.png")), (48, 32), (210, 40, 30), 3)
    draw().save("garbled.png", icc_profile=b"no profile at all")
    assert near(load_picture(Path("garbled.png")), (48, 32), (210, 40, 30), 3)


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
