"""Picture files to tensors and back.

Torch is imported by the functions that need it, so that checking a picture or reading a PNG's settings stays instant.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageChops, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from styledrop_cli.errors import PictureError
from styledrop_cli.io.files import atomic_write, parse_json, to_json, to_text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

OnMessage = Callable[[str], None]  # is told a remark; one that begins with `Warning: ` is a warning
SETTINGS_KEY = "styledrop"
_END = b"\0\0\0\0IEND\xaeB`\x82"  # a PNG's last chunk
LARGEST = 100_000_000  # pixels of a picture, by its header; what is larger is refused before it is decoded
LARGE = 24_000_000  # pixels beyond which a picture is scaled down while it is read
ENOUGH = 1024  # of the shorter side, of a picture scaled down so: nothing here looks closer
LARGEST_THUMBNAIL = 1_000_000  # pixels
OPAQUE = 250  # of 255: so much is not meant to be seen through
SMALLEST = 16  # of the shorter side: less holds no style
# What may be white in grey of 32 bits, and how far up nearly all values may then lie: floats go beyond 1 in highlights,
# and resampling overshoots.
WHITES = {1.0: 4.0, 255.0: 320.0, 65535.0: 80_000.0}
NEARLY_ALL = 0.99  # of the values
SAMPLED = 1_000_000  # of them at most, about, to tell
STRIP = 256  # rows that are converted at once
SAME = 4  # of 255: so near are two shades of one colour
FEW = 1e-3  # of the pixels: so few show nothing

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # of Pillow's other readers one runs a program
_READABLE = "PNG, JPEG, WebP, GIF, BMP and TIFF are read; open and save it as PNG in a picture editor"
_AGAIN = "the file is damaged or was not copied completely: copy or export it again"
# What Pillow's readers raise at damaged files: each its own, and by mistake anything.
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip


# ---- reading ----------------------------------------------------------------------------------


def quietly(message: str) -> None:
    """An ``on_message`` for where nobody listens."""


def load_picture(path: Path, on_message: OnMessage = quietly) -> Image.Image:
    """The picture at ``path`` as ``RGB``: 8-bit sRGB, upright, on white where it was transparent.

    EXIF rotation is applied, embedded colour profiles are converted to sRGB, and CMYK, palette, grey, 16-bit and float
    pictures are turned into RGB. Of an animation the first frame is taken. A picture of more than ``LARGE`` pixels is
    scaled down, or cut off at the ends of its longer side. ``on_message`` is told what could not be read as it is
    meant: a profile that cannot be applied, values that are no numbers.

    Raises:
        PictureError: it is missing, not a picture, cut short, or too large or too small to be meant.
    """
    return _on(_read(path, on_message, SMALLEST), "white")


def load_whole(path: Path) -> Image.Image:
    """The picture at ``path`` as ``load_picture`` reads it, of any size and ``RGBA`` where it is transparent."""
    return _read(path, quietly)


def load_shown(path: Path) -> Image.Image:
    """The picture at ``path`` as ``load_picture`` reads it, but on a checkerboard where it is transparent."""
    return checkered(_read(path, quietly, SMALLEST))


def checkered(image: Image.Image) -> Image.Image:
    """``RGB`` or ``RGBA`` as ``RGB``, on a light checkerboard of 16 squares a side where it is transparent."""
    if image.mode != "RGBA":
        return image
    side = max(1, max(image.size) // 16)
    y, x = np.indices((image.height, image.width)) // side
    squares = np.where((x + y) % 2, np.uint8(226), np.uint8(246))
    return Image.alpha_composite(Image.fromarray(squares).convert("RGBA"), image).convert("RGB")


def load_reference(path: Path, on_message: OnMessage = quietly) -> Image.Image:
    """A picture to learn from, as ``load_picture`` reads it; ``on_message`` is told if it shows one colour alone.

    Raises:
        PictureError: it is transparent all over, and as ``load_picture`` does.
    """
    image = _read(path, on_message, SMALLEST)
    if image.mode == "RGBA" and not any(image.getchannel("A").histogram()[256 - OPAQUE :]):
        raise PictureError(
            f"{path} is transparent all over: there is nothing in it to learn",
            "save it with its layers shown, or give another picture",
        )
    image = _on(image, "white")
    if _is_flat(image):
        on_message(f"Warning: {path} shows a single colour: there is no style in it, and that colour is what is learnt")
    return image


def load_transparency(path: Path) -> Image.Image | None:
    """Where the picture at ``path`` is transparent, if only a little: ``L``, white there and black elsewhere.

    It has the size of what ``load_picture`` gives, and raises as that does; None if nothing is transparent.
    """
    whole = _read(path, quietly)
    if whole.mode != "RGBA":
        return None
    mask = whole.getchannel("A").point(lambda alpha: 0 if alpha >= OPAQUE else 255)
    return mask if mask.getbbox() else None


def load_mask(path: Path, on_message: OnMessage = quietly) -> Image.Image:
    """The mask at ``path`` as ``RGB``, black where it is transparent; else as ``load_picture``, but of any size."""
    return _on(_read(path, on_message), "black")


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of the picture at ``path`` by its header, in pixels; raises as ``load_picture`` does."""
    with _opened(path) as image:
        return image.size


def webp_thumbnail(path: Path, side: int) -> bytes:
    """The picture at ``path`` as WebP of at most ``side`` px, transparent where it is; raises as ``load_picture``."""
    image = _read(path, quietly)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=86)
    return buffer.getvalue()


def load_cutout(path: Path, size: int, on_message: OnMessage = quietly) -> Tensor:
    """The square picture at ``path`` with its transparency: ``[4,size,size]`` in [0,1], colours not times alpha.

    Upright and in sRGB, as ``load_picture`` reads it.

    Raises:
        PictureError: it is not square, and as ``load_picture`` does.
    """
    with _opened(path, LARGE) as image:
        if image.width != image.height:
            raise PictureError(f"{path} is {image.width} x {image.height} px", "a cut-out must be square")
        whole = _upright_srgb(image, path, on_message)
    pixels = np.array(whole.convert("RGBA").resize((size, size), Image.Resampling.BOX))
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _read(path: Path, on_message: OnMessage, smallest: int = 1) -> Image.Image:
    """What all pictures are read by: ``RGBA`` where there is transparency of any kind, else ``RGB``."""
    with _opened(Path(path)) as image:
        if min(image.size) < smallest:
            raise PictureError(
                f"{path} is {image.width} x {image.height} px: too small to hold a style",
                f"give a picture of at least {smallest} px on its shorter side",
            )
        return _upright_srgb(image, path, on_message)


@contextmanager
def _opened(path: Path, most: int | None = None) -> Iterator[Image.Image]:
    """The picture at ``path``, its header read, of at most ``most`` pixels; all that is wrong is a PictureError."""
    most = LARGEST if most is None else most
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
                if image.width * image.height > most:
                    raise _too_large(path, f"{image.width} x {image.height} px", most)
                yield image
    except UnidentifiedImageError:
        if path.stat().st_size == 0:
            raise PictureError(f"{path} is empty", _AGAIN) from None
        raise PictureError(f"{path} is not a picture this program can read", _READABLE) from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, higher than ours
        pixels = re.search(r"\d+", str(error))
        raise _too_large(path, f"{int(pixels[0]):,} pixels" if pixels else str(error), most) from None
    except PermissionError:
        raise PictureError(f"{path} may not be read", "check the file's permissions") from None
    except _BROKEN as error:
        raise PictureError(f"{path} cannot be read to its end ({error})", _AGAIN) from None


def _too_large(path: Path, size: str, most: int) -> PictureError:
    return PictureError(
        f"{path} is too large: {size}, and at most {most:,} pixels are read",
        "scale it down in a picture editor: 1024 px on its shorter side are plenty",
    )


def _upright_srgb(image: Image.Image, path: Path, on_message: OnMessage) -> Image.Image:
    """The opened picture: first its transparency, then its colours by its profile, both upright."""
    large, key = image.width * image.height > LARGE, _transparent_colour(image)
    if large and min(image.size) > ENOUGH:
        image.draft(None, _shorter_side(image.size, ENOUGH))  # a JPEG is decoded at a half, a quarter or an eighth
    image.load()  # only now is a TIFF upright
    image = _in_eight_bits(image, key, path, on_message)
    image = ImageOps.exif_transpose(_scaled_down(image) if large else image)
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    image = _to_srgb(image.convert(image.mode.removesuffix("A")), path, on_message)
    if alpha:
        image.putalpha(alpha)
    return image


def _on(image: Image.Image, ground: str) -> Image.Image:
    """``RGB`` or ``RGBA`` as ``RGB``, on a ground of one colour where it is transparent."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")


def _transparent_colour(image: Image.Image) -> Any:
    """The colour that is transparent in a PNG without alpha, as its pixels will have it; None if there is none.

    Pillow scales pixels to 8 bits and leaves this colour as it is in the file. To be asked before they are loaded.
    """
    key, raw = image.info.get("transparency"), next((tile.args for tile in getattr(image, "tile", ())), "")
    if raw in ("L;2", "L;4"):
        return key and key * (85 if raw == "L;2" else 17)
    if raw == "RGB;16B":
        return key and tuple(value >> 8 for value in key)
    return key


def _in_eight_bits(image: Image.Image, key: Any, path: Path, on_message: OnMessage) -> Image.Image:
    """A picture of any mode as ``L``, ``LA``, ``RGB``, ``RGBA``, ``CMYK`` or ``LAB``; ``key`` is transparent in it."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image, key, path, on_message)
    if image.mode in ("La", "RGBa"):  # multiplied by their alpha
        return image.convert(image.mode[:-1] + "A")
    if key is not None:
        image.info["transparency"] = key
    wanted = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
    # What is not converted is not copied either.
    return image if image.mode in (wanted, "LA", "CMYK", "LAB") else image.convert(wanted)


def _from_deep_grey(image: Image.Image, key: Any, path: Path, on_message: OnMessage) -> Image.Image:
    """Grey with more than 8 bits as ``L``, or ``LA`` where the value ``key`` is transparent.

    Pillow's own conversion clips it to white instead of scaling, and takes no heed of a TIFF that has white as zero.
    """
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "I" and tags and tags.get(SAMPLEFORMAT, (1,)) == (1,):  # read as if it had a sign
        values = values.view(np.uint32)
    white = _white(values, image.mode, tags.get(BITSPERSAMPLE, (16,))[0], path)
    grey, strange = np.empty(values.shape, np.uint8), 0
    for top in range(0, len(values), STRIP):
        part = values[top : top + STRIP].astype(np.float32) / np.float32(white)
        strange += int((~np.isfinite(part)).sum())
        part = 1 - part if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 else part
        grey[top : top + STRIP] = (np.nan_to_num(part).clip(0, 1) * 255).round()
    if strange:
        on_message(
            f"Warning: {strange:,} of the {values.size:,} values in {path} are no finite numbers: they are taken for "
            "black, and what is infinite for the end of the scale that it is at"
        )
    made = Image.fromarray(grey)
    if key is not None:
        made.putalpha(Image.fromarray(np.where(values == key, np.uint8(0), np.uint8(255))))
    made.info = {name: about for name, about in image.info.items() if name != "transparency"}
    return made


def _white(values: NDArray[Any], mode: str, bits: int, path: Path) -> float:
    """Which of the deep grey ``values`` is white: what their type says or, if it does not, what nearly all of them say.

    A few that lie beyond are a dead pixel, a highlight, or what resampling adds.
    """
    if mode.startswith("I;16"):
        return float(2**bits - 1)
    step = math.ceil((values.size / SAMPLED) ** 0.5)
    seen = values[::step, ::step].astype(np.float64)
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        raise PictureError(f"{path} holds no finite numbers", "export it again")
    usual = float(np.quantile(seen, NEARLY_ALL))
    return next((white for white, most in WHITES.items() if usual <= most and (white > 1 or mode == "F")), usual)


def _scaled_down(image: Image.Image) -> Image.Image:
    """A very large picture at ``ENOUGH`` px on its shorter side; the middle if it is narrow."""
    if min(image.size) <= ENOUGH:
        width, height = (min(side, LARGE // min(image.size)) for side in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    return image.resize(_shorter_side(image.size, ENOUGH), Image.Resampling.BOX)


def _shorter_side(size: tuple[int, int], wanted: int) -> tuple[int, int]:
    """``size`` scaled so that its shorter side is the one ``wanted``."""
    scale = wanted / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def _to_srgb(image: Image.Image, path: Path, on_message: OnMessage) -> Image.Image:
    """``L``, ``RGB``, ``CMYK`` or ``LAB`` as ``RGB``, by the embedded colour profile if one can be applied."""
    if "icc_profile" not in image.info:
        return image.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        space = profile.profile.xcolor_space.strip()
        if (fitting := _in_space(image, space)) is not None:
            made = ImageCms.profileToProfile(fitting, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert made is not None
            return made
        problem = f"is for {space} and not for {'grey' if image.mode == 'L' else image.mode}"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        problem = "is damaged"
    on_message(
        f"Warning: the colour profile in {path} {problem}: its colours are taken as if there were none. Save the "
        "picture as sRGB to be sure of them"
    )
    return image.convert("RGB")


def _in_space(image: Image.Image, space: str) -> Image.Image | None:
    """``image`` in the mode that a profile of a colour ``space`` (ICC's name) is for; None if it is of another kind."""
    if space == "RGB" and image.mode == "L":
        return image.convert("RGB")  # grey is a colour
    if space == "GRAY" and image.mode == "RGB":  # so is grey with alpha here
        red, *others = image.split()
        return None if any(ImageChops.difference(red, other).getbbox() for other in others) else red
    return image if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space) == image.mode else None


def _is_flat(image: Image.Image) -> bool:
    """Whether all but a few pixels of an ``RGB`` picture have the same colour, or nearly."""
    counts = np.array(image.histogram()).reshape(3, 256)
    middle = (counts.cumsum(1) * 2 >= counts.sum(1, keepdims=True)).argmax(1)
    near = abs(np.arange(256) - middle[:, None]) <= SAME
    return bool(((counts * ~near).sum(1) < FEW * counts.sum(1)).all())


def square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square of ``image``, scaled to ``size`` x ``size``; never squashed."""
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)


def resampled(image: Image.Image, side: int) -> Image.Image:
    """A square picture in another size, by Lanczos: smoother where it is larger, and no more in it."""
    return image.resize((side, side), Image.Resampling.LANCZOS)


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
    """Write ``image`` as PNG, whole or not at all, with ``settings`` inside; StyledropError if it cannot be written.

    They are stored twice: as JSON in the text chunk ``styledrop`` (``read_png_settings`` reads it), and in words in
    ``parameters``, which other image generators' tools show.
    """
    atomic_write(path, png_bytes(image, settings))


def png_bytes(image: Image.Image, settings: dict[str, Any] | None = None) -> bytes:
    """What ``save_png`` writes."""
    chunks = PngImagePlugin.PngInfo()
    if settings is not None:
        chunks.add_itxt(SETTINGS_KEY, to_json(settings))
        chunks.add_itxt("parameters", to_text(_in_words(settings)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks, optimize=True)
    return buffer.getvalue()


def jpeg_bytes(picture: Image.Image | Tensor, quality: int = 95) -> bytes:
    """A picture, uint8 `[3,H,W]` if it is a tensor, as JPEG; its colours are not thinned out.

    Nothing but its pixels is in it, whatever file it was read from.
    """
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    return _jpeg(picture, quality=quality, subsampling=0)


def _jpeg(picture: Image.Image, **how: int) -> bytes:
    pixels = picture.convert("RGB")
    pixels.info = {}  # where Pillow keeps what else a file said, and from where it writes a comment again
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", optimize=True, **how)
    return buffer.getvalue()


def _in_words(settings: dict[str, Any]) -> str:
    """The ``parameters`` convention: the prompt, the negative prompt, each a line, then ``Steps: 36, Key: value, ...``.

    A value that holds what stands between values is quoted, as AUTOMATIC1111's web UI writes and reads it. A prompt has
    no quotes there: one that begins as a negative prompt does gets a blank in front of its colon.
    """
    prompt, negative = (" ".join(str(settings.get(key) or "").split()) for key in ("prompt", "negative"))
    lines = [re.sub("^Negative prompt:", "Negative prompt :", prompt)]
    if settings.get("negative"):
        lines.append(f"Negative prompt: {negative}")
    rest = {key: value for key, value in settings.items() if key not in ("prompt", "negative")}
    if "steps" in rest:  # by these some programs know where the settings begin
        rest = {"steps": rest["steps"]} | rest
    named = (f"{key.replace('_', ' ').capitalize()}: {_quoted(value)}" for key, value in rest.items())
    return "\n".join([*lines, ", ".join(named)])


def _quoted(value: object) -> str:
    said = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    broken = len(said.splitlines()) > 1  # also by signs that JSON need not escape, and some programs break lines at
    if broken or said != said.strip() or any(sign in said for sign in ',:"'):
        return json.dumps(said, ensure_ascii=broken)
    return said


def read_png_settings(path: Path) -> dict[str, Any] | None:
    """The settings that ``save_png`` put into the picture at ``path``, or None if it has none.

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
        settings = parse_json(text)
    except (ValueError, TypeError):
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
    """A ``size`` x ``size`` JPEG of ``image`` as a ``data:`` address, small enough for a file header.

    Nothing but its pixels is in it: adapter files are given away.
    """
    data = _jpeg(square(image, size), quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def from_base64(address: str) -> Image.Image:
    """The picture in a ``data:`` address, as ``thumbnail_base64`` writes it; PictureError if there is none in it."""
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
