"""A picture as an SVG file: areas of few flat colours, for flat art and logos, at any size.

The picture is enlarged, each pixel gets one of few main colours, and the outline of each colour's areas is traced by
vtracer (https://github.com/visioncortex/vtracer). A colour's areas go a little way under those that lie on top of them,
so that no seams show between neighbours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from styledrop_cli.errors import StyledropError
from styledrop_cli.generation.ground import components, oklab
from styledrop_cli.io.files import atomic_write, parse_json, read_text, to_json
from styledrop_cli.io.images import load_whole, read_png_settings
from styledrop_cli.io.palette import RGB, Palette

COLOURS = 16  # that an SVG has at most, if nothing else is said
SHADES = 3.0  # in Oklab times 100: a picture that differs more from its flat colours has shades or texture
SIDE = 768  # pixels of the longer side that a picture is enlarged to, about, before it is traced
MOST = 8  # times that it is enlarged at most: the filters' time grows with the square of it
APART = 5.0  # how far main colours are from each other at least, in Oklab times 100
SPECK = 3  # pixels wide, of the picture: smaller areas become part of what is around them
LARGEST = 50_000_000  # bytes of an SVG that is read
_SAID = re.compile(r'<metadata id="styledrop">(.*?)</metadata>', re.DOTALL)
_PATH = re.compile(r'<path d="([^"]*)" fill="[^"]*" transform="translate\(([-\d.]+),([-\d.]+)\)"/>')


@dataclass(frozen=True)
class Traced:
    """An SVG: its text, how many colours and outlines it has, and how far the picture is from it in the mean.

    ``lost`` is a distance in Oklab times 100; below ``SHADES`` it is flat art.
    """

    text: str
    colours: int
    outlines: int
    lost: float


def need_vtracer() -> None:
    """Raise StyledropError where the library that traces outlines is missing."""
    if find_spec("vtracer") is None:
        raise StyledropError("SVG files need the package vtracer, which is not here", 'pip install "styledrop[svg]"')


def traced(
    image: Image.Image, title: str, said: Mapping[str, Any], most: int = COLOURS, palette: Sequence[RGB] = ()
) -> Traced:
    """A picture as SVG of its own width and height, with ``title`` and, as JSON, what is ``said`` of it.

    It has at most so many of its main colours or, with a ``palette`` of RGB colours in [0,255], some of these alone;
    without one, those of the palette that it was drawn in, if what is ``said`` has one at full strength.
    What is transparent in ``RGBA`` (alpha below one half) has no area. Raises StyledropError where vtracer is missing.
    """
    need_vtracer()
    palette = palette or drawn_in(said)
    width, height = image.size
    if max(image.size) > SIDE:
        image = image.resize([max(1, round(side * SIDE / max(width, height))) for side in image.size])
    scale = min(MOST, max(1, round(SIDE / max(image.size))))
    colours = np.array(palette, np.uint8).reshape(-1, 3) if palette else _main_colours(image, most)
    labels, lost = _labelled(image, colours, scale)
    paths, outlines, shown = [], 0, 0
    order = np.argsort(-np.bincount(labels.ravel(), minlength=256)[: len(colours)], kind="stable").tolist()
    above = np.isin(labels, order)
    for index in order:
        own = labels == index
        if not own.any():
            continue
        above &= ~own
        under = np.asarray(Image.fromarray(own).convert("L").filter(ImageFilter.MaxFilter(2 * scale + 1))) > 0
        found = _outlines(own | (under & above))
        paths.append(f'<g fill="#{bytes(colours[index]).hex()}">{"".join(found)}</g>')
        outlines, shown = outlines + len(found), shown + 1
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    about = {**said, "svg": {"colours": shown, "outlines": outlines, "lost": round(lost, 2)}}
    text = [
        head,
        f"<title>{escape(_allowed(title))}</title>",
        f'<metadata id="styledrop">{escape(_allowed(to_json(about)))}</metadata>',
        f'<g transform="scale({width / image.width / scale:.8g} {height / image.height / scale:.8g})">',
        *paths,
        "</g>\n</svg>\n",
    ]
    return Traced("\n".join(text), shown, outlines, lost)


def drawn_in(said: Mapping[str, Any]) -> Sequence[RGB]:
    """The palette that a picture has wholly, by what its file says of its settings; empty if it has none."""
    return Palette.read(said["palette"]).colours if said.get("palette") and said.get("palette_strength") == 1 else ()


def svg_beside(picture: Path, most: int = COLOURS) -> tuple[Path, bool]:
    """Write the SVG of a picture file beside it; where it is, and whether it is flat art, which an SVG is good for.

    One that is there and was made of this picture in this way is left as it is. Raises StyledropError for a file of
    that name that is not ours, where vtracer is missing, and where it cannot be written; PictureError for a picture
    that cannot be read.
    """
    path = picture.with_suffix(".svg")
    about = read_png_settings(picture) or {}
    about |= {"svg_colours": most}
    if path.exists():
        there = read_svg_settings(path)
        if there is None:
            raise StyledropError(
                f"{path} is there already, and was not written by styledrop", "move it, or choose another folder"
            )
        if {name: value for name, value in there.items() if name != "svg"} == about:
            return path, float(there["svg"].get("lost", 0)) < SHADES
    made = traced(load_whole(picture), str(about.get("prompt", picture.stem)), about, most)
    atomic_write(path, made.text.encode())
    return path, made.lost < SHADES


def read_svg_settings(path: Path) -> dict[str, Any] | None:
    """What ``traced`` wrote into an SVG file of what it shows; None if it is no SVG of ours."""
    try:
        found = _SAID.search(read_text(path, LARGEST))
        said = parse_json(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")) if found else None
    except (OSError, ValueError, TypeError):
        return None
    return said if isinstance(said, dict) and isinstance(said.get("svg"), dict) else None


def _main_colours(image: Image.Image, most: int) -> NDArray[np.uint8]:
    """At most so many colours ``[K,3]`` that most of the picture has, the transparent parts left out.

    Seen are the pixels that are like their neighbours: what lies between two colours at an edge is none. Like ones are
    put together, those first by which the least is lost (Ward's method), until they are few and apart.
    """
    pixels = np.asarray(image.convert("RGBA"))
    lab = oklab(pixels[..., :3].astype(np.float32))
    edge = sum(np.abs(step).sum(2) for step in np.gradient(lab, axis=(0, 1)))
    solid = pixels[..., 3] >= 128
    if not solid.any():
        return np.zeros((1, 3), np.uint8)
    flat = solid & (edge <= max(2.0, float(np.median(edge[solid]))))
    seen, shades = lab[flat], pixels[flat][:, :3].astype(np.float64)
    place = np.unique((seen / 3).round().astype(int), axis=0, return_inverse=True)[1].reshape(-1)
    count = np.bincount(place).astype(np.float64)
    large = np.argsort(-count, kind="stable")[:200]
    count = count[large]
    means = np.stack([np.bincount(place, seen[:, c]) for c in range(3)], 1)[large] / count[:, None]
    rgb = np.stack([np.bincount(place, shades[:, c]) for c in range(3)], 1)[large] / count[:, None]
    while len(count) > 1:
        apart = ((means[:, None] - means) ** 2).sum(2)
        cost = apart * count[:, None] * count / (count[:, None] + count)
        cost[np.diag_indices(len(count))] = np.inf
        if len(count) <= most and apart[~np.eye(len(count), dtype=bool)].min() >= APART**2:
            break
        # While there are too many, where the least is lost; then whichever two are too near.
        wanted = cost if len(count) > most else np.where(np.isinf(cost), np.inf, apart)
        one, other = divmod(int(wanted.argmin()), len(count))
        share = count[other] / (count[one] + count[other])
        means[one] += share * (means[other] - means[one])
        rgb[one] += share * (rgb[other] - rgb[one])
        count[one] += count[other]
        keep = np.arange(len(count)) != other
        count, means, rgb = count[keep], means[keep], rgb[keep]
    return rgb.round().clip(0, 255).astype(np.uint8)


def _labelled(image: Image.Image, colours: NDArray[np.uint8], scale: int) -> tuple[NDArray[np.uint8], float]:
    """Which colour each pixel of the picture has, enlarged by ``scale``; 255 where it is transparent.

    The second is how far its pixels are from their colours, in the mean.

    The most frequent label around a pixel is its own, and specks are filled by what is around them: what lies between
    two colours at an edge has no area of a third.
    """
    large = image.convert("RGBA").resize([side * scale for side in image.size], Image.Resampling.BICUBIC)
    pixels = np.asarray(large)
    lab, wanted = oklab(pixels[..., :3].astype(np.float32)), oklab(colours.astype(np.float32))
    labels, least = np.zeros(lab.shape[:2], np.uint8), np.full(lab.shape[:2], np.inf, np.float32)
    for index, colour in enumerate(wanted):
        away = ((lab - colour) ** 2).sum(2)
        nearer = away < least
        labels[nearer], least[nearer] = index, away[nearer]
    clear = pixels[..., 3] < 128
    lost = float(np.sqrt(least[~clear]).mean()) if not clear.all() else 0.0
    labels[clear] = 255
    labels = np.asarray(Image.fromarray(labels).filter(ImageFilter.ModeFilter(2 * scale + 1))).copy()
    labels[clear] = 255
    speck = np.zeros(labels.shape, bool)
    for index in range(len(colours)):
        parts = components(labels == index)
        small = np.bincount(parts.ravel()) < (SPECK * scale) ** 2
        small[0] = False
        speck |= small[parts]
    speck |= (labels == 255) & ~clear
    return _filled_in(labels, speck, clear), lost


def _filled_in(labels: NDArray[np.uint8], unknown: NDArray[np.bool_], clear: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Labels with those of ``unknown`` pixels taken from their nearest known neighbours; ``clear`` ones give none."""
    labels, unknown = labels.copy(), unknown.copy()
    labels[unknown] = 255
    while unknown.any():
        before = unknown.copy()
        for here, there in (
            (np.s_[1:], np.s_[:-1]),
            (np.s_[:-1], np.s_[1:]),
            (np.s_[:, 1:], np.s_[:, :-1]),
            (np.s_[:, :-1], np.s_[:, 1:]),
        ):
            taken = unknown[here] & ~before[there] & ~clear[there] & (labels[there] != 255)
            labels[here][taken] = labels[there][taken]
            unknown[here] &= ~taken
        if (unknown == before).all():  # specks with nothing around them: there is nothing to become part of
            break
    return labels


def _outlines(mask: NDArray[np.bool_]) -> list[str]:
    """The outlines of a mask's areas, each with its holes, as SVG paths."""
    import vtracer

    buffer = io.BytesIO()
    Image.fromarray(np.where(mask, np.uint8(0), np.uint8(255))).convert("RGBA").save(buffer, "PNG", compress_level=1)
    made = vtracer.convert_raw_image_to_svg(
        buffer.getvalue(),
        img_format="png",
        colormode="binary",
        mode="spline",
        filter_speckle=1,
        corner_threshold=60,
        length_threshold=4.0,
        splice_threshold=45,
        path_precision=1,
    )
    return [
        f'<path d="{shape.strip()}" transform="translate({float(x):g},{float(y):g})"/>'
        for shape, x, y in _PATH.findall(made)
    ]


def _allowed(text: str) -> str:
    """A text without the signs that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", " ", text)
