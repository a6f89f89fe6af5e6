"""A training corpus drawn from cut-outs: things on transparent grounds in, captioned pictures in many styles out.

``plan`` says which pictures there are, from a seed alone; ``cutouts`` reads the folder of cut-outs.

A caption is content + style, as in StyleDrop. Every thing stands in the same place in the same outline unless the
caption says otherwise: a shift by a pixel changes every id, and a small base cannot learn what no word tells it.
"""

from __future__ import annotations

import functools
import hashlib
import math
import multiprocessing
import os
import random
import re
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.corpus.cutouts import Art, Cutout, Thing, read_art, with_article
from styledrop_cli.corpus.folder import METADATA
from styledrop_cli.corpus.styles import STYLES, apply_style
from styledrop_cli.io.files import atomic_write, read_text, remove_parts, to_json, writing
from styledrop_cli.io.images import OnMessage, jpeg_bytes, load_cutout, quietly

PLAN, THINGS = ".plan", "things.jsonl"  # the hash of the plan that was drawn; the table of what is taught
SIZE = 256  # pixels
BATCH = 8  # pictures that are drawn in a style at once: they share its line widths and tile sizes
HELD_OUT = 0.025  # share of the pictures
LUMA = (0.299, 0.587, 0.114)
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.2, 0.2),
    "blue": (0.22, 0.42, 0.86),
    "light blue": (0.66, 0.84, 0.97),
    "green": (0.3, 0.68, 0.36),
    "light green": (0.75, 0.91, 0.7),
    "yellow": (0.99, 0.87, 0.3),
    "orange": (0.98, 0.62, 0.24),
    "pink": (0.98, 0.7, 0.8),
    "purple": (0.56, 0.36, 0.78),
    "grey": (0.68, 0.69, 0.71),
    "brown": (0.52, 0.36, 0.25),
    "teal": (0.2, 0.62, 0.62),
    "beige": (0.95, 0.89, 0.78),
    "black": (0.06, 0.06, 0.07),
    "dark blue": (0.1, 0.16, 0.38),
}
# How captions call the colours of a whole picture: gain and offset of each channel, and saturation.
PALETTES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "pale colours": ((0.5, 0.5, 0.5), (0.47, 0.47, 0.47), 0.8),
    "muted colours": ((0.8, 0.8, 0.8), (0.12, 0.12, 0.11), 0.45),
    "warm colours": ((0.95, 0.85, 0.6), (0.05, 0.03, 0.0), 0.8),
    "cold colours": ((0.7, 0.85, 1.0), (0.0, 0.03, 0.06), 0.7),
    "dark colours": ((0.5, 0.5, 0.52), (0.0, 0.0, 0.02), 0.9),
    "shades of blue": ((0.75, 0.72, 0.55), (0.1, 0.2, 0.42), 0.0),
    "shades of green": ((0.75, 0.65, 0.7), (0.1, 0.3, 0.15), 0.0),
    "shades of red": ((0.6, 0.85, 0.8), (0.38, 0.08, 0.1), 0.0),
    "shades of brown": ((0.75, 0.8, 0.8), (0.22, 0.12, 0.04), 0.0),
    "black and white": ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), 0.0),
}


@dataclass(frozen=True)
class Drawing:
    """One picture to draw: ``shown`` in ``style`` (None: as they are), after the style ``under`` if there is one."""

    path: str
    shown: tuple[Cutout, ...]
    style: str | None
    seed: int
    white: float = 0.85  # how often the ground is white
    arrangement: str = "alone"
    smallest: float = 1.0  # scale of a thing alone; 1 puts it in the same place always, unmirrored
    colour: str | None = None
    under: str | None = None
    palette: str | None = None
    held_out: bool = False


@dataclass(frozen=True)
class Recipe:
    """How many pictures of each kind there are.

    Of each thing: ``own`` of each cut-out that its plain noun means, ``others`` of each that has a name of its own,
    ``styled`` in each style, and ``mixed`` (one style over another), ``coloured`` (recoloured), ``placed`` (small or on
    one side), ``counted`` (two or three of it) and ``paired`` (beside another thing) altogether. ``toned`` is the share
    of styled pictures whose colours are moved as a whole.

    ``wide`` is for an image tokenizer: every cut-out, taught or not, ``own`` times as it is and ``styled`` times in any
    style, anywhere and on any ground; and ``dense`` pictures full of texture. ``pictures`` draws only so many of all,
    chosen at random.
    """

    own: int = 3
    others: int = 1
    styled: int = 3
    mixed: int = 10
    coloured: int = 6
    placed: int = 1
    counted: int = 1
    paired: int = 1
    toned: float = 0.2
    wide: bool = False
    dense: int = 0
    pictures: int | None = None


DENSE = "dense"  # an arrangement: many cut-outs over one another on a textured ground, redrawn as a whole
# Styles with a texture of their own everywhere, for such pictures.
PAINTERLY = ("oil", "watercolor", "pastel", "crayon", "mosaic", "pencil", "low-poly", "crosshatch", "clay", "wood")


def plan(art: Art, recipe: Recipe, seed: int) -> list[Drawing]:
    """Every picture of a corpus, drawn from ``seed`` alone."""
    rng = random.Random(f"corpus {seed}")
    drawings: list[Drawing] = []

    def add(shown: tuple[Cutout, ...], style: str | None, arrangement: str = "alone", **more: Any) -> None:
        toned = style is not None and not recipe.wide and rng.random() < recipe.toned
        number = len(drawings)
        drawings.append(
            Drawing(
                f"{number // 1000:03d}/{number:06d}.jpg",
                shown,
                style,
                rng.getrandbits(40),
                arrangement=arrangement,
                palette=rng.choice(sorted(PALETTES)) if toned else None,
                held_out=rng.random() < HELD_OUT,
                **more,
            )
        )

    if recipe.wide:
        anywhere: dict[str, Any] = {"white": 0.45, "smallest": 0.55}
        for cutout in art.cutouts:
            for _ in range(recipe.own):
                add((cutout,), None, **anywhere)
            for _ in range(recipe.styled if art.styles else 0):
                add((cutout,), rng.choice(art.styles), **anywhere)
        painterly = [style for style in PAINTERLY if style in art.styles]
        for _ in range(recipe.dense):
            some = tuple(rng.choices(art.cutouts, k=rng.randint(6, 16)))
            add(some, rng.choice(painterly) if painterly and rng.random() < 0.85 else None, DENSE)
    else:
        for name, thing in art.things.items():
            _add_thing(add, art, name, thing, recipe, rng)
    if recipe.pictures is not None and recipe.pictures < len(drawings):
        chosen = sorted(rng.sample(range(len(drawings)), recipe.pictures))
        drawings = [drawings[i] for i in chosen]
    return drawings


def _add_thing(add: Callable[..., None], art: Art, name: str, thing: Thing, recipe: Recipe, rng: random.Random) -> None:
    """Add the pictures of a thing."""
    for cutouts, times in ((thing.own, recipe.own), (thing.others, recipe.others)):
        for cutout in cutouts:
            for _ in range(times):
                add((cutout,), None)
    outline = thing.outlines[0]
    for style in art.styles:
        for _ in range(recipe.styled):
            add((rng.choice(thing.outlines),), style)
    for _ in range(recipe.mixed if len(art.styles) > 1 else 0):
        under, over = rng.sample(art.styles, 2)
        add((outline,), over, under=under)
    coloured = [s for s in art.styles if STYLES[s].keeps_background]  # the others have colours of their own

    def looks(times: int) -> list[str | None]:
        """Half of the variations are as the cut-out is, the others in any style."""
        return [rng.choice(coloured) if i % 2 and coloured else None for i in range(times)]

    for look in looks(recipe.coloured):
        add((outline,), look, colour=rng.choice(sorted(COLOURS)))
    for look in looks(recipe.placed):
        add((outline,), look, rng.choice(("small", "left", "right")))
    # Of "the letter A" there is but one, and nobody counts "bread" or "glasses".
    for look in looks(recipe.counted if thing.words[0].startswith(("a ", "an ")) else 0):
        add((outline,), look, rng.choice(("two", "three")))
    others = [other.outlines[0] for n, other in art.things.items() if n != name]
    beside = [other for other in others if other.look == outline.look]
    for look in looks(recipe.paired if beside else 0):
        add((outline, rng.choice(beside)), look, "pair")


_IRREGULAR = {"mouse": "mice", "person": "people", "man": "men", "woman": "women", "child": "children", "ox": "oxen",
              "foot": "feet", "tooth": "teeth", "goose": "geese", "knife": "knives", "leaf": "leaves",
              "scarf": "scarves", "loaf": "loaves", "elf": "elves", "potato": "potatoes", "tomato": "tomatoes",
              "mango": "mangoes", "volcano": "volcanoes", "snowman": "snowmen", "merman": "mermen"}  # fmt: skip
_ALIKE = ("fish", "sheep", "deer", "moose", "bison", "squid", "shrimp", "dice")
# A noun ends before one of these.
_LATER = re.compile(r" (?:of|with|without|on|in|at|and|behind|over|under|going|pointing|covering|making|showing)\b")


def _several(phrase: str) -> str:
    """``a cat`` to ``cats``, ``a cup of tea`` to ``cups of tea``."""
    noun = phrase.removeprefix("an ").removeprefix("a ")
    later = _LATER.search(noun)
    noun, rest = (noun[: later.start()], noun[later.start() :]) if later else (noun, "")
    before, space, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("ss", "us", "x", "ch", "sh")) and not last.endswith(_ALIKE):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        last = last[:-1] + "ies"
    elif not last.endswith(("s", *_ALIKE)):
        last += "s"
    return before + space + last + rest


def _with(adjective: str, phrase: str) -> str:
    """``a cat`` and ``blue`` to ``a blue cat``."""
    article, _, noun = phrase.partition(" ")
    if article not in ("a", "an", "the") or not noun:
        return f"{adjective} {phrase}"
    return f"the {adjective} {noun}" if article == "the" else with_article(f"{adjective} {noun}")


def _contents(drawing: Drawing, art: Art) -> list[str]:
    """Equivalent words for what a drawing shows, the plainest first."""
    words = art.words(drawing.shown[0])
    if drawing.arrangement == DENSE:
        return ["many things", "a crowd of things"]
    if drawing.colour:
        own = [w for w in words if not set(w.split()) & set(COLOURS)]
        return [_with(drawing.colour, w) for w in own or words]
    if drawing.arrangement == "pair":
        other = art.words(drawing.shown[1])
        return [f"{words[0]} and {other[0]}", f"{words[-1]} and {other[-1]}", f"{words[0]} next to {other[0]}"]
    if drawing.arrangement in ("two", "three"):
        return [f"{drawing.arrangement} {_several(w)}" for w in words[:2] if w.startswith(("a ", "an "))]
    if drawing.arrangement == "small":
        return [_with("small", words[0]), _with("tiny", words[0])]
    if drawing.arrangement in ("left", "right"):
        return [f"{words[0]} on the {drawing.arrangement}", f"{words[-1]} on the {drawing.arrangement} side"]
    return words


def _captions(drawing: Drawing, art: Art, ground: str, rng: random.Random) -> list[str]:
    """Ten equivalent captions; the first is the plainest and has the style.

    Most name ground and palette. Two leave the style out where the look is the plain one: a caption without a style
    means one look, not a random one.
    """
    content = _contents(drawing, art)
    first = drawing.shown[0]
    looks = art.families[first.look] if drawing.style is None else STYLES[drawing.style].descriptions
    if drawing.under is not None:
        looks = (f"{STYLES[drawing.under].descriptions[0]} and {looks[0]}",)
    thing = art.things.get(first.thing)
    plain = drawing.style is None and (drawing.smallest < 1 or (thing is not None and first in thing.outlines))
    meant = thing is not None and first not in thing.others and drawing.arrangement == "alone" and not drawing.colour
    kinds = thing.kinds if thing is not None and meant else []
    out = []
    for i in range(10):
        # The plainest word is as frequent as all the others together.
        word = content[0] if i == 0 or rng.random() < 0.5 else rng.choice(content)
        if kinds and i in (3, 7):
            word = rng.choice(kinds)
        where = ground if i and rng.random() < 0.58 else ""
        look = looks[0] if i == 0 or rng.random() < 0.5 else rng.choice(looks)
        palette = f", {drawing.palette}" if drawing.palette and (i == 0 or rng.random() < 0.7) else ""
        out.append(f"{word}{where}" if plain and i in (1, 6) else f"{word}{where} in {look} style{palette}")
    return list(dict.fromkeys(out))


# -- pictures -----------------------------------------------------------------------------


def _ground(rng: random.Random, white: float) -> tuple[Tensor, str]:
    """A background ``[3,S,S]`` and how captions name it."""

    def colour(name: str) -> Tensor:
        values = [min(1.0, max(0.0, v + rng.uniform(-0.05, 0.05))) for v in COLOURS[name]]
        return torch.tensor(values).view(3, 1, 1)

    if rng.random() < white:
        return torch.ones(3, SIZE, SIZE), " on a white background" if rng.random() < 0.2 else ""
    first, second = rng.sample(sorted(COLOURS), 2)
    if rng.random() < 0.7:
        return colour(first).expand(3, SIZE, SIZE), f" on {with_article(first)} background"
    angle = rng.uniform(0, 2 * math.pi)
    line = torch.linspace(-0.5, 0.5, SIZE)
    t = (line.view(-1, 1) * math.sin(angle) + line.view(1, -1) * math.cos(angle) + 0.5).clamp(0, 1)
    mixed = colour(first) * (1 - t) + colour(second) * t
    if rng.random() < 0.5:
        return mixed, f" on {with_article(first)} and {second} gradient background"
    return mixed, " on a gradient background"


def _textured(rng: random.Random) -> Tensor:
    """A background ``[3,S,S]`` that is nowhere even: three colours mixed by fractal noise, with grain."""
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    rough = rng.uniform(0.4, 0.75)  # how much each finer octave counts

    def noise(channels: int) -> Tensor:
        total, weight = torch.zeros(1, channels, SIZE, SIZE), 1.0
        for octave in range(1, 8):
            side = min(SIZE, 2**octave + 1)
            coarse = torch.rand(1, channels, side, side, generator=generator) - 0.5
            total += weight * F.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=True)
            weight *= rough
        return total[0] / total.std()

    colours = [torch.tensor(COLOURS[name]).view(3, 1, 1) for name in rng.sample(sorted(COLOURS), 3)]
    first, second = ((0.5 + 0.35 * mask).clamp(0, 1) for mask in noise(2))
    mixed = (colours[0] * (1 - first) + colours[1] * first) * (1 - second) + colours[2] * second
    grain: Tensor = mixed + rng.uniform(0.0, 0.12) * noise(3)
    return grain.clamp(0, 1)


def _place(rgba: Tensor, scale: float, x: float, y: float, mirrored: bool) -> Tensor:
    """Premultiplied ``[4,S,S]`` scaled, moved by ``x`` and ``y`` (in half widths) and perhaps mirrored."""
    if (scale, x, y, mirrored) == (1.0, 0.0, 0.0, False):
        return rgba
    rgba = rgba[None]
    if scale < 0.7:  # grid_sample alone would alias
        rgba = F.avg_pool2d(rgba, 2)
    turn = -1.0 if mirrored else 1.0
    theta = torch.tensor([[[turn / scale, 0, -x * turn / scale], [0, 1 / scale, -y / scale]]])
    grid = F.affine_grid(theta, [1, 4, SIZE, SIZE], align_corners=False)
    return F.grid_sample(rgba, grid, align_corners=False)[0]


def _recoloured(rgba: Tensor, name: str) -> Tensor:
    """A premultiplied cut-out in shades of one colour; its median lightness becomes the colour itself."""
    alpha = rgba[3:]
    grey = (rgba[:3] / alpha.clamp(min=1e-3)).mul(torch.tensor(LUMA).view(3, 1, 1)).sum(0, True)
    inside = alpha > 0.5
    usual = float(grey[inside].median()) if bool(inside.any()) else 0.5
    t = torch.where(grey < usual, grey / max(2 * usual, 1e-3), 0.5 + (grey - usual) / max(2 * (1 - usual), 1e-3))
    colour = torch.tensor(COLOURS[name]).view(3, 1, 1)
    shaded = torch.where(t < 0.5, colour * (0.25 + 1.5 * t), colour + (1 - colour) * (1.6 * t - 0.8))
    return torch.cat((shaded.clamp(0, 1) * alpha, alpha))


_remarks: list[str] = []  # on how cut-outs were read, not reported yet


@functools.lru_cache(maxsize=64)
def _cutout(path: Path, changed: int) -> Tensor:
    rgba = load_cutout(path, SIZE, _remarks.append)
    return torch.cat((rgba[:3] * rgba[3:], rgba[3:]))


PLACES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "small": ((0.5, 0.0, 0.0),),
    "left": ((0.55, -0.42, 0.0),),
    "right": ((0.55, 0.42, 0.0),),
    "pair": ((0.5, -0.48, 0.0), (0.5, 0.48, 0.0)),
    "two": ((0.5, -0.48, 0.0), (0.5, 0.48, 0.0)),
    "three": ((0.45, 0.0, -0.5), (0.45, -0.5, 0.45), (0.45, 0.5, 0.45)),
}


def _arranged(drawing: Drawing, art: Art, rng: random.Random) -> Tensor:
    """The things of a drawing in their places, premultiplied ``[4,S,S]``."""
    places = PLACES.get(drawing.arrangement, ((1.0, 0.0, 0.0),))
    if drawing.arrangement == DENSE:
        places = tuple((rng.uniform(0.2, 0.9), rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9)) for _ in drawing.shown)
    whole = torch.zeros(4, SIZE, SIZE)
    for i, (scale, x, y) in enumerate(places):
        cutout = drawing.shown[min(i, len(drawing.shown) - 1)]
        path = art.path(cutout)
        rgba, mirrored = _cutout(path, path.stat().st_mtime_ns), False
        if drawing.colour:
            rgba = _recoloured(rgba, drawing.colour)
        if drawing.smallest < 1:
            scale = rng.uniform(drawing.smallest, 1.0)
            x, y = (rng.uniform(-1, 1) * (1 - scale) * 0.7 for _ in "xy")
            mirrored = rng.random() < 0.35 and not any(part in cutout.name for part in art.never_mirrored)
        part = _place(rgba, scale, x, y, mirrored)
        whole = part + whole * (1 - part[3:])
    return whole


def _toned(drawn: Tensor, palette: str) -> Tensor:
    gain, offset, saturation = PALETTES[palette]
    grey = drawn.mul(torch.tensor(LUMA, device=drawn.device).view(3, 1, 1)).sum(0, True)
    drawn = grey + saturation * (drawn - grey)
    moved = drawn * torch.tensor(gain, device=drawn.device).view(3, 1, 1)
    return (moved + torch.tensor(offset, device=drawn.device).view(3, 1, 1)).clamp(0, 1)


@torch.no_grad()
def draw(drawings: list[Drawing], art: Art, device: torch.device) -> Tensor:
    """Pictures of the same style, and the same below it, as uint8 ``[B,3,S,S]`` on the CPU."""
    style, under = drawings[0].style, drawings[0].under
    cutouts, grounds = [], []
    for drawing in drawings:
        rng = random.Random(drawing.seed)
        ground = _textured(rng) if drawing.arrangement == DENSE else _ground(rng, drawing.white)[0]
        rgba = _arranged(drawing, art, rng)
        if drawing.arrangement == DENSE:  # a style redraws the whole of it, not a thing on a ground
            rgba = torch.cat((rgba[:3] + ground * (1 - rgba[3:]), torch.ones(1, SIZE, SIZE)))
        cutouts.append(rgba)
        grounds.append(ground)
    rgba, ground = torch.stack(cutouts).to(device), torch.stack(grounds).to(device)
    if style is None:
        drawn = rgba[:, :3] + ground * (1 - rgba[:, 3:])
    else:
        straight = torch.cat((rgba[:, :3] / rgba[:, 3:].clamp(min=1e-3), rgba[:, 3:]), 1).clamp(0, 1)
        generator = torch.Generator().manual_seed(drawings[0].seed)
        if under is not None:
            first = apply_style(under, straight, torch.ones_like(ground), generator)
            straight = torch.cat((first, straight[:, 3:]), 1)
        drawn = apply_style(style, straight, ground, generator)
    drawn = torch.stack([_toned(p, d.palette) if d.palette else p for p, d in zip(drawn, drawings, strict=True)])
    return (drawn.clamp(0, 1) * 255).round().byte().cpu()


def captions_of(drawing: Drawing, art: Art) -> list[str]:
    """The captions of a drawing, the plainest first; the picture need not be drawn for them."""
    _, ground = _ground(random.Random(drawing.seed), drawing.white)
    kept = drawing.arrangement != DENSE and (drawing.style is None or STYLES[drawing.style].keeps_background)
    return _captions(drawing, art, ground if kept else "", random.Random(f"captions {drawing.seed}"))


def _batches(drawings: list[Drawing]) -> list[list[Drawing]]:
    """Drawings in groups that ``draw`` takes; shuffled, so that progress tells how long the rest takes."""
    groups: dict[tuple[str | None, str | None], list[Drawing]] = {}
    for drawing in drawings:
        groups.setdefault((drawing.style, drawing.under), []).append(drawing)
    batches = [group[i : i + BATCH] for group in groups.values() for i in range(0, len(group), BATCH)]
    random.Random(len(batches)).shuffle(batches)
    return batches


def _write(art: Art, out: Path, device: torch.device, batch: list[Drawing]) -> tuple[int, list[str]]:
    """Draw and write a batch: how many pictures, and the remarks on the cut-outs that were read."""
    for drawing, picture in zip(batch, draw(batch, art, device), strict=True):
        atomic_write(out / drawing.path, jpeg_bytes(picture))
    remarks = _remarks.copy()
    _remarks.clear()
    return len(batch), remarks


def write_corpus(
    art_folder: Path,
    out: Path,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: torch.device,
    workers: int = 1,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
    on_message: OnMessage = quietly,
) -> int:
    """Draw a corpus into ``out``, its ``things.jsonl`` and ``metadata.jsonl`` last; the number of pictures.

    The same folder, recipe and seed give the same corpus, whatever the number of ``workers``, and however often it was
    killed: what an earlier call has drawn of the same plan is kept. ``on_message`` is told once of each cut-out that
    could not be read as it is meant. Raises UsageError for an unusable art folder, PictureError for a cut-out that
    cannot be read, StyledropError where ``out`` cannot be written.
    """
    art = read_art(art_folder, on_message)
    drawings = plan(art, recipe, seed)
    batches = _begun(art, drawings, out)
    parallel = workers > 1 and device.type == "cpu"
    work = functools.partial(_write, art, out, device)
    done = len(drawings) - sum(map(len, batches))
    on_picture(done, len(drawings))
    pool: Any = ProcessPoolExecutor(workers, initializer=_begin, initargs=(work,)) if parallel else nullcontext()
    with pool as executor:
        said: set[str] = set()
        for number, remarks in map(work, batches) if executor is None else executor.map(_work, batches):
            for remark in remarks:
                if remark not in said:
                    said.add(remark)
                    on_message(remark)
            done += number
            on_picture(done, len(drawings))
    things = ({"thing": name, "words": thing.words, "zh": thing.zh} for name, thing in art.things.items())
    for name, lines in ((THINGS, things), (METADATA, (_line(drawing, art) for drawing in drawings))):
        atomic_write(out / name, "".join(to_json(line) + "\n" for line in lines).encode())
    return len(drawings)


def _line(drawing: Drawing, art: Art) -> dict[str, Any]:
    """A drawing's line in ``metadata.jsonl``."""
    about = {"thing": "+".join(dict.fromkeys(c.thing for c in drawing.shown)),
             "style": drawing.style or drawing.shown[0].look}  # fmt: skip
    split = {"split": "held-out"} if drawing.held_out else {}
    return {"file_name": drawing.path, "text": captions_of(drawing, art), **about, **split}


def _begun(art: Art, drawings: list[Drawing], out: Path) -> list[list[Drawing]]:
    """The batches that are still to be drawn: all of them, if ``out`` was drawn after another plan."""
    batches, mark = _batches(drawings), out / PLAN
    used = {cutout.file: cutout for drawing in drawings for cutout in drawing.shown}
    sizes = [(file, art.path(cutout).stat().st_size) for file, cutout in sorted(used.items())]
    said = hashlib.sha256(repr((drawings, sizes)).encode()).hexdigest()
    remove_parts(out, deep=True)
    try:
        same = read_text(mark) == said
    except (OSError, ValueError):
        same = False
    if same:
        return [batch for batch in batches if not all((out / drawing.path).exists() for drawing in batch)]
    with writing(out / METADATA):
        (out / METADATA).unlink(missing_ok=True)  # until the corpus is whole
    atomic_write(mark, said.encode())
    return batches


_write_here: Callable[[list[Drawing]], tuple[int, list[str]]]  # of a process that shares the work


def _begin(write: Callable[[list[Drawing]], tuple[int, list[str]]]) -> None:
    """Make a process ready to share the work, and let it end when its parent is killed: it would wait for ever."""
    global _write_here
    _write_here = write
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(batch: list[Drawing]) -> tuple[int, list[str]]:
    return _write_here(batch)
