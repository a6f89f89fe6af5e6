"""Picture files to tensors and back.

Torch is imported by the two functions that need it, so that checking a picture or reading a PNG's
settings stays instant.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from styledrop_cli.errors import PictureError
from styledrop_cli.files import atomic_write, parse_json

if TYPE_CHECKING:
    from torch import Tensor

SETTINGS_KEY = "styledrop"
_END = b"\0\0\0\0IEND\xaeB`\x82"  # a PNG's last chunk
LARGEST = 100_000_000  # pixels of a picture, by its header; what is larger is refused before it is decoded
LARGE = 24_000_000  # pixels beyond which a picture is scaled down while it is read
ENOUGH = 1024  # of the shorter side, of a picture scaled down so: nothing here looks closer
LARGEST_THUMBNAIL = 1_000_000  # pixels
OPAQUE = 250  # of 255: so much is not meant to be seen through
SMALLEST = 16  # of the shorter side: less holds no style

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # of Pillow's other readers one runs a program
_READABLE = "PNG, JPEG, WebP, GIF, BMP and TIFF are read; open and save it as PNG in a picture editor"
_AGAIN = "the file is damaged or was not copied completely: copy or export it again"
# What Pillow's readers raise at damaged files: each its own, and by mistake anything.
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip


# ---- reading ----------------------------------------------------------------------------------


def load_picture(path: Path) -> Image.Image:
    """The picture at `path` as plain 8-bit sRGB, upright, on white where it was transparent.

    EXIF rotation is applied, embedded colour profiles are converted to sRGB, and CMYK, palette,
    grey, 16-bit and float pictures are turned into RGB. Of an animation the first frame is taken.
    A picture of more than `LARGE` pixels comes back scaled down, or cut off at the ends of its longer side.

    Raises:
        PictureError: it is missing, not a picture, cut short, or too large or too small to be meant.
    """
    path = Path(path)
    with _opened(path) as image:
        width, height = image.size
        if min(width, height) < SMALLEST:
            raise PictureError(
                f"{path} is {width} x {height} px: too small to hold a style",
                f"give a picture of at least {SMALLEST} px on its shorter side",
            )
        upright = ImageOps.exif_transpose(_scaled_down(image))
        return _to_rgb(upright)


def load_transparency(path: Path) -> Image.Image | None:
    """Where the picture at `path` is transparent, if only a little: white there, black elsewhere; None if nowhere.

    As large as what `load_picture` gives.

    Raises:
        PictureError: it is missing, not a picture, cut short, or too large to be meant.
    """
    with _opened(path) as image:
        if not image.has_transparency_data:
            return None
        upright = ImageOps.exif_transpose(_scaled_down(image))
        mask = upright.convert("RGBA").getchannel("A").point(lambda alpha: 0 if alpha >= OPAQUE else 255)
    return mask if mask.getbbox() else None


def load_cutout(path: Path, size: int) -> Tensor:
    """The square picture at `path` with its transparency: `[4,size,size]` in [0,1], colours not multiplied by alpha.

    Raises:
        PictureError: it is missing, not a picture, cut short, too large, or not square.
    """
    with _opened(path) as image:
        if image.width != image.height:
            raise PictureError(f"{path} is {image.width} x {image.height} px", "a cut-out must be square")
        if image.width * image.height > LARGE:
            raise _too_large(path, f"{image.width} x {image.height} px", LARGE)
        pixels = np.array(
            image.convert("RGBA").convert("RGBa").resize((size, size), Image.Resampling.BOX).convert("RGBA")
        )
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture at `path`, its header read and its size bearable; what goes wrong with it is a PictureError."""
    if not path.exists():
        raise PictureError(f"there is no picture at {path}", "check the spelling of the path")
    if path.is_dir():
        raise PictureError(f"{path} is a folder, not a picture", "name the picture file inside it")
    if not path.is_file():  # a pipe would be waited for
        raise PictureError(f"{path} is no ordinary file", "save the picture in a file, and name that")
    try:
        with warnings.catch_warnings():
            # Pillow warns about large pictures, odd EXIF and the like; only its errors matter here.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > LARGEST:
                    raise _too_large(path, f"{image.width} x {image.height} px", LARGEST)
                yield image
    except UnidentifiedImageError:
        if path.stat().st_size == 0:
            raise PictureError(f"{path} is empty", _AGAIN) from None
        raise PictureError(f"{path} is not a picture this program can read", _READABLE) from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, higher than ours, says but their number
        pixels = re.search(r"\d+", str(error))
        raise _too_large(path, f"{int(pixels[0]):,} pixels" if pixels else str(error), LARGEST) from None
    except PermissionError:
        raise PictureError(f"{path} may not be read", "check the file's permissions") from None
    except _BROKEN as error:
        raise PictureError(f"{path} cannot be read to its end ({error})", _AGAIN) from None


def _too_large(path: Path, size: str, most: int) -> PictureError:
    return PictureError(
        f"{path} is too large: {size}, and at most {most:,} pixels are read",
        "scale it down in a picture editor: 1024 px on its shorter side are plenty",
    )


def _scaled_down(image: Image.Image) -> Image.Image:
    """A very large picture at `ENOUGH` px on its shorter side, before anything copies it; the middle if narrow."""
    if image.width * image.height <= LARGE:
        return image
    if min(image.size) <= ENOUGH:
        image.load()
        width, height = (min(side, LARGE // min(image.size)) for side in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    image.draft(None, _shorter_side(image.size, ENOUGH))  # a JPEG is decoded at a half, a quarter or an eighth
    image.load()  # only now is a TIFF upright
    if image.mode in ("1", "P", "PA"):  # these cannot be averaged
        return image.convert("RGBA").resize(_shorter_side(image.size, ENOUGH), Image.Resampling.BOX)
    return image.resize(_shorter_side(image.size, ENOUGH), Image.Resampling.BOX)


def _shorter_side(size: tuple[int, int], wanted: int) -> tuple[int, int]:
    """`size` scaled so that its shorter side is the one `wanted`."""
    scale = wanted / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image)
    transparent = image.has_transparency_data
    image = _to_srgb(image)
    if not transparent:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Grey with more than 8 bits: Pillow's own conversion clips it to white instead of scaling."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    peak = float(values.max(initial=0.0))
    full = 1.0 if peak <= 1.0 and image.mode == "F" else 255.0 if peak <= 255.0 else 65535.0
    if image.mode.startswith("I;16"):
        full = 65535.0
    grey = (values / max(full, peak if peak > 65535.0 else full)).clip(0.0, 1.0) * 255.0
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


def _to_srgb(image: Image.Image) -> Image.Image:
    """Apply an embedded colour profile (wide-gamut photos, CMYK for print) where there is one."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    try:
        plain = ImageCms.profileToProfile(
            image.convert("RGB") if alpha else image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # A broken or mismatched profile is common and harmless: use the numbers as is.
    if plain is None:
        return image
    if alpha:
        plain.putalpha(alpha)
    return plain


def square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square of `image`, scaled to `size` x `size`; never squashed."""
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)


# ---- tensors ----------------------------------------------------------------------------------


def to_tensor(image: Image.Image) -> Tensor:
    """`image` as float32 [3, H, W] in [0, 1]."""
    import torch

    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255.0)


def to_image(tensor: Tensor) -> Image.Image:
    """A [3, H, W] tensor in [0, 1] (values outside are clipped) as a picture."""
    import torch

    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ValueError(f"a picture is [3, H, W], not {list(tensor.shape)}")
    pixels = tensor.detach().float().clamp(0.0, 1.0).mul(255.0).round().to("cpu", torch.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


# ---- writing ----------------------------------------------------------------------------------


def save_png(image: Image.Image, path: Path, settings: dict[str, Any] | None = None) -> None:
    """Write `image` as PNG, atomically, with `settings` inside.

    They are stored twice: as JSON in the text chunk `styledrop` (read back by
    `read_png_settings`), and in words in `parameters`, which other image generators' tools show.

    Raises:
        StyledropError: the file cannot be written.
    """
    atomic_write(path, png_bytes(image, settings))


def png_bytes(image: Image.Image, settings: dict[str, Any] | None = None) -> bytes:
    """What `save_png` writes."""
    chunks = PngImagePlugin.PngInfo()
    if settings is not None:
        chunks.add_itxt(SETTINGS_KEY, json.dumps(settings, ensure_ascii=False))
        chunks.add_itxt("parameters", _in_words(settings))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks, optimize=True)
    return buffer.getvalue()


def jpeg_bytes(picture: Image.Image | Tensor, quality: int = 95) -> bytes:
    """A picture, uint8 `[3,H,W]` if it is a tensor, as JPEG; its colours are not thinned out."""
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


def _in_words(settings: dict[str, Any]) -> str:
    """The `parameters` convention: the prompt, the negative prompt, then `Key: value, ...`."""
    rest = {key: value for key, value in settings.items() if key not in ("prompt", "negative")}
    lines = [str(settings.get("prompt", ""))]
    if settings.get("negative"):
        lines.append(f"Negative prompt: {settings['negative']}")
    named = (f"{key.replace('_', ' ').capitalize()}: {value}" for key, value in rest.items())
    return "\n".join([*lines, ", ".join(named)])


def read_png_settings(path: Path) -> dict[str, Any] | None:
    """The settings that `save_png` put into the picture at `path`, or None if it has none.

    Raises:
        PictureError: it is missing or not a picture, or its settings are garbled.
    """
    with _opened(Path(path)) as image:
        if isinstance(image, PngImagePlugin.PngImageFile) and not (SETTINGS_KEY in image.info and _ends(path)):
            image.load()  # text may also stand behind the pixels, or the pixels end too soon
        text = image.info.get(SETTINGS_KEY)
    if text is None:
        return None
    try:
        settings = parse_json(text) if isinstance(text, str) else None
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise PictureError(f"the settings inside {path} are garbled")
    return settings


def _ends(path: Path) -> bool:
    """Whether a PNG has its end, which is quicker to see than all of its pixels are."""
    with path.open("rb") as file:
        file.seek(-len(_END), os.SEEK_END)
        return file.read() == _END


def thumbnail_base64(image: Image.Image, size: int = 96) -> str:
    """A `size` x `size` JPEG of `image` as a `data:` address, small enough for a file header."""
    buffer = io.BytesIO()
    square(image, size).convert("RGB").save(buffer, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def from_base64(address: str) -> Image.Image:
    """The picture in a `data:` address, as `thumbnail_base64` writes it.

    Raises:
        PictureError: there is no picture in it.
    """
    try:
        data = base64.b64decode(address.partition(",")[2], validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > LARGEST_THUMBNAIL:
                    raise ValueError("too large")
                return image.convert("RGB")
    except (*_BROKEN, Image.DecompressionBombError):
        raise PictureError("the small picture in this file is garbled") from None
