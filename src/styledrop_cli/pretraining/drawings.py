"""A training corpus drawn from cut-outs: things on transparent grounds in, captioned pictures in many styles out.

An art folder holds ``<family>/<name>.png`` or ``.webp`` (square, transparent around the thing) and ``art.json``::

    {"families": {"flat": ["flat design", "flat vector"]},  how captions call a family's own look
     "outlines": ["flat"],                                  families that the procedural styles redraw
     "styles": ["watercolor", "neon"],                      which of them; all if left out
     "things": {"cat-face": ["a cat", "a kitty"]},          what captions call a thing, the plainest word first
     "kinds": {"cat-face": ["a tabby"]},                    rarer words for kinds of it
     "never_mirrored": ["clock"]}                           parts of names of things that would be wrong mirrored

A caption is content + style, as in StyleDrop. Every thing stands in one place in one outline unless the caption says
otherwise: a shift by a pixel changes every id, and a small base spends itself on averaging what words do not tell.
"""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from styledrop_cli.corpus import METADATA
from styledrop_cli.errors import UsageError
from styledrop_cli.files import atomic_write, read_json
from styledrop_cli.images import jpeg_bytes, load_cutout
from styledrop_cli.styles import STYLES, apply_style

ART = "art.json"
NAME = re.compile(
    r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]{0,39}"
)  # of a thing or a family, and of the file and the folder it has
SIZE = 256
BATCH = 8  # pictures a style is drawn on at once: they share its line widths and tile sizes
HELD_OUT = 0.025
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
# A whole picture's colours: its name and, of what is drawn, gain and offset of each channel, and saturation.
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
class Art:
    """What an art folder holds and how captions call it."""

    folder: Path
    families: dict[str, tuple[str, ...]]
    outlines: tuple[str, ...]
    styles: tuple[str, ...]
    things: dict[str, list[str]]
    kinds: dict[str, list[str]]
    never_mirrored: tuple[str, ...]

    def has(self, family: str, name: str) -> bool:
        """Whether the family draws the thing."""
        return self.path(family, name).exists()

    def path(self, family: str, name: str) -> Path:
        """Where the cut-out of a thing lies."""
        webp = self.folder / family / f"{name}.webp"
        return webp if webp.exists() else webp.with_suffix(".png")


def read_art(folder: Path) -> Art:
    """Raises UsageError for a folder without ``art.json``, or one that names what is not there."""
    path = folder / ART
    if not path.is_file():
        raise UsageError(f"{folder} holds no {ART}", "It says what the cut-outs show; see examples/pocket.")
    try:
        said = read_json(path)
        art = Art(
            folder,
            {family: tuple(_texts(words)) for family, words in said["families"].items()},
            tuple(_texts(said["outlines"], none=True)),
            tuple(_texts(said.get("styles", list(STYLES)), none=True)),
            {name: _texts(words) for name, words in said["things"].items()},
            {name: _texts(words, none=True) for name, words in said.get("kinds", {}).items()},
            tuple(_texts(said.get("never_mirrored", []), none=True)),
        )
        if odd := [name for name in (*art.families, *art.things) if not NAME.fullmatch(name)]:
            raise ValueError(f"{odd[0]!r:.80} cannot be the name of a file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not as it should be: {error!r}", "Compare it with examples/pocket.") from error
    unknown = [style for style in art.styles if style not in STYLES]
    if unknown:
        raise UsageError(f"{path}: unknown styles {', '.join(unknown)}", f"There are {', '.join(STYLES)}.")
    missing = [n for n in art.things if not any(art.has(family, n) for family in art.families)]
    if missing or not art.things:
        raise UsageError(f"{path}: no family draws {', '.join(missing[:5]) or 'anything'}")
    return art


def _texts(words: Any, none: bool = False) -> list[str]:
    """``words`` if it is a list of texts, or TypeError; there may be ``none``."""
    if (
        not isinstance(words, list)
        or not (words or none)
        or not all(isinstance(word, str) and word.strip() for word in words)
    ):
        raise TypeError(f"{words!r:.80} is no list of words")
    return words


@dataclass(frozen=True)
class Drawing:
    """One picture to draw: ``names`` of ``family`` in ``style``, drawn over the style ``under`` if there is one.

    ``style`` None is the family's own look.
    """

    path: str
    names: tuple[str, ...]
    family: str
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
    """How many pictures a thing gets: in each family's own look, in each style, and in which variations.

    ``mixed``, ``coloured``, ``placed``, ``counted`` and ``paired`` are pictures a thing: in one style over another,
    recoloured, small or on one side, two or three of it, and beside another. ``toned`` is the share of styled pictures
    whose colours are moved as a whole. ``wide`` draws everything anywhere, in any family and on any ground: for an
    image tokenizer. Of all that, only so many ``pictures`` are drawn, chosen at random.
    """

    own: int = 3
    styled: int = 3
    mixed: int = 10
    coloured: int = 6
    placed: int = 1
    counted: int = 1
    paired: int = 1
    toned: float = 0.2
    wide: bool = False
    pictures: int | None = None


def plan(art: Art, recipe: Recipe, seed: int) -> list[Drawing]:
    """Every picture of a corpus, drawn from ``seed`` alone."""
    rng = random.Random(f"corpus {seed}")
    drawings: list[Drawing] = []
    for name in art.things:
        families = [f for f in art.families if art.has(f, name)]
        outlines = [f for f in art.outlines if f in families] or families[:1]

        def add(
            family: str, style: str | None, arrangement: str = "alone", names: tuple[str, ...] = (name,), **more: Any
        ) -> None:
            toned = style is not None and not recipe.wide and rng.random() < recipe.toned
            if recipe.wide:
                more = {"white": 0.45, "smallest": 0.55} | more
            number = len(drawings)
            drawings.append(
                Drawing(
                    f"{number // 1000:03d}/{number:06d}-{names[0]}.jpg",
                    names,
                    family,
                    style,
                    rng.getrandbits(40),
                    arrangement=arrangement,
                    palette=rng.choice(sorted(PALETTES)) if toned else None,
                    held_out=rng.random() < HELD_OUT,
                    **more,
                )
            )

        for family in families:
            for _ in range(recipe.own):
                add(family, None)
        for look in art.styles:
            for _ in range(recipe.styled):
                add(rng.choice(families if recipe.wide else outlines), look)
        for _ in range(recipe.mixed if len(art.styles) > 1 else 0):
            under, over = rng.sample(art.styles, 2)
            add(outlines[0], over, under=under)
        # Half of the variations have the plain look, the others any style.
        variations = (("coloured", recipe.coloured), ("placed", recipe.placed), ("counted", recipe.counted))
        coloured = [s for s in art.styles if STYLES[s].keeps_background]  # the others have colours of their own
        for kind, number in (*variations, ("paired", recipe.paired)):
            if kind == "counted" and art.things[name][0].startswith("the "):
                continue  # there is but one
            for i in range(number):
                style = rng.choice(coloured) if i % 2 and coloured else None
                if kind == "coloured":
                    add(outlines[0], style, colour=rng.choice(sorted(COLOURS)))
                elif kind == "paired":
                    others = [n for n in art.things if n != name and art.has(outlines[0], n)]
                    if others:
                        add(outlines[0], style, "pair", (name, rng.choice(others)))
                elif kind == "placed":
                    add(outlines[0], style, rng.choice(("small", "left", "right")))
                else:
                    add(outlines[0], style, rng.choice(("two", "three")), (name,))
    if recipe.pictures is not None and recipe.pictures < len(drawings):
        chosen = sorted(rng.sample(range(len(drawings)), recipe.pictures))
        drawings = [drawings[i] for i in chosen]
    return drawings


def _several(phrase: str) -> str:
    """``a cat`` to ``cats``."""
    noun = phrase.removeprefix("an ").removeprefix("a ")
    if noun.endswith(("s", "fish", "sheep")):
        return noun
    if noun.endswith(("x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("mouse"):
        return noun.removesuffix("mouse") + "mice"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou") else noun + "s"


def _with(adjective: str, phrase: str) -> str:
    """``a cat`` and ``blue`` to ``a blue cat``."""
    article, _, noun = phrase.partition(" ")
    if article not in ("a", "an", "the") or not noun:
        return f"{adjective} {phrase}"
    return f"{'the' if article == 'the' else 'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {noun}"


def _contents(drawing: Drawing, art: Art) -> list[str]:
    """Equivalent words for what a drawing shows, the plainest first."""
    words = art.things[drawing.names[0]]
    if drawing.colour:
        own = [w for w in words if not set(w.split()) & set(COLOURS)]
        return [_with(drawing.colour, w) for w in own or words]
    if drawing.arrangement == "pair":
        other = art.things[drawing.names[1]]
        return [f"{words[0]} and {other[0]}", f"{words[-1]} and {other[-1]}", f"{words[0]} next to {other[0]}"]
    if drawing.arrangement in ("two", "three"):
        return [f"{drawing.arrangement} {_several(w)}" for w in words[:2]]
    if drawing.arrangement == "small":
        return [_with("small", words[0]), _with("tiny", words[0])]
    if drawing.arrangement in ("left", "right"):
        return [f"{words[0]} on the {drawing.arrangement}", f"{words[-1]} on the {drawing.arrangement} side"]
    return words


def _captions(drawing: Drawing, art: Art, ground: str, rng: random.Random) -> list[str]:
    """Ten equivalent captions; the first is the plainest and has the style.

    Ground and palette are named in most, the style is left out of two where the look is the plain one: a caption
    without a style means one look, not a draw among all.
    """
    content = _contents(drawing, art)
    looks = art.families[drawing.family] if drawing.style is None else STYLES[drawing.style].descriptions
    if drawing.under is not None:
        looks = (f"{STYLES[drawing.under].descriptions[0]} and {looks[0]}",)
    plain = drawing.style is None and (drawing.family in art.outlines or drawing.smallest < 1)
    kinds = art.kinds.get(drawing.names[0], []) if drawing.arrangement == "alone" and not drawing.colour else []
    out = []
    for i in range(10):
        # The plain word comes up as often as all the others together.
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
        return colour(first).expand(3, SIZE, SIZE), f" on {'an' if first[0] in 'aeiou' else 'a'} {first} background"
    angle = rng.uniform(0, 2 * math.pi)
    line = torch.linspace(-0.5, 0.5, SIZE)
    t = (line.view(-1, 1) * math.sin(angle) + line.view(1, -1) * math.cos(angle) + 0.5).clamp(0, 1)
    mixed = colour(first) * (1 - t) + colour(second) * t
    if rng.random() < 0.5:
        return mixed, f" on a {first} and {second} gradient background"
    return mixed, " on a gradient background"


def _place(rgba: Tensor, scale: float, x: float, y: float, mirrored: bool) -> Tensor:
    """Premultiplied ``[4,S,S]`` scaled, moved (in half widths) and perhaps mirrored."""
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
    """A premultiplied cut-out in shades of one colour; its usual lightness becomes the colour itself."""
    alpha = rgba[3:]
    grey = (rgba[:3] / alpha.clamp(min=1e-3)).mul(torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, True)
    inside = alpha > 0.5
    usual = float(grey[inside].median()) if bool(inside.any()) else 0.5
    t = torch.where(grey < usual, grey / max(2 * usual, 1e-3), 0.5 + (grey - usual) / max(2 * (1 - usual), 1e-3))
    colour = torch.tensor(COLOURS[name]).view(3, 1, 1)
    shaded = torch.where(t < 0.5, colour * (0.25 + 1.5 * t), colour + (1 - colour) * (1.6 * t - 0.8))
    return torch.cat((shaded.clamp(0, 1) * alpha, alpha))


@functools.lru_cache(maxsize=64)
def _cutout(path: Path, changed: int) -> Tensor:
    rgba = load_cutout(path, SIZE)
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
    whole = torch.zeros(4, SIZE, SIZE)
    for i, (scale, x, y) in enumerate(places):
        name = drawing.names[min(i, len(drawing.names) - 1)]
        path = art.path(drawing.family, name)
        rgba, mirrored = _cutout(path, path.stat().st_mtime_ns), False
        if drawing.colour:
            rgba = _recoloured(rgba, drawing.colour)
        if drawing.smallest < 1:
            scale = rng.uniform(drawing.smallest, 1.0)
            x, y = (rng.uniform(-1, 1) * (1 - scale) * 0.7 for _ in "xy")
            mirrored = rng.random() < 0.35 and not any(part in name for part in art.never_mirrored)
        part = _place(rgba, scale, x, y, mirrored)
        whole = part + whole * (1 - part[3:])
    return whole


def _toned(drawn: Tensor, palette: str) -> Tensor:
    gain, offset, saturation = PALETTES[palette]
    grey = drawn.mul(torch.tensor([0.299, 0.587, 0.114], device=drawn.device).view(3, 1, 1)).sum(0, True)
    drawn = grey + saturation * (drawn - grey)
    moved = drawn * torch.tensor(gain, device=drawn.device).view(3, 1, 1)
    return (moved + torch.tensor(offset, device=drawn.device).view(3, 1, 1)).clamp(0, 1)


@torch.no_grad()
def draw(drawings: list[Drawing], art: Art, device: torch.device) -> tuple[Tensor, list[list[str]]]:
    """Pictures of one style, over one other if any, uint8 ``[B,3,S,S]`` on the CPU, and each one's captions."""
    style, under = drawings[0].style, drawings[0].under
    captions, cutouts, grounds = [], [], []
    for drawing in drawings:
        rng = random.Random(drawing.seed)
        ground, words = _ground(rng, drawing.white)
        kept = style is None or STYLES[style].keeps_background
        cutouts.append(_arranged(drawing, art, rng))
        grounds.append(ground)
        captions.append(_captions(drawing, art, words if kept else "", rng))
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
    return (drawn.clamp(0, 1) * 255).round().byte().cpu(), captions


def _batches(drawings: list[Drawing]) -> list[list[Drawing]]:
    """Drawings in groups of one style and one below it, in the order of the plan."""
    groups: dict[tuple[str | None, str | None], list[Drawing]] = {}
    for drawing in drawings:
        groups.setdefault((drawing.style, drawing.under), []).append(drawing)
    return [group[i : i + BATCH] for group in groups.values() for i in range(0, len(group), BATCH)]


@dataclass
class _Worker:
    """Draws and writes batches; picklable, so that processes can share the work."""

    art: Art
    out: Path
    device: torch.device
    alone: bool = field(default=False)

    def __call__(self, batch: list[Drawing]) -> list[dict[str, Any]]:
        if not self.alone:
            torch.set_num_threads(1)
        pictures, captions = draw(batch, self.art, self.device)
        lines: list[dict[str, Any]] = []
        for drawing, picture, texts in zip(batch, pictures, captions, strict=True):
            atomic_write(self.out / drawing.path, jpeg_bytes(picture))
            about = {"thing": "+".join(drawing.names), "style": drawing.style or drawing.family}
            split = {"split": "held-out"} if drawing.held_out else {}
            lines.append({"file_name": drawing.path, "text": texts, **about, **split})
        return lines


def write_corpus(
    art_folder: Path,
    out: Path,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: torch.device,
    workers: int = 1,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Draw a corpus into ``out``, its ``metadata.jsonl`` last; the number of pictures.

    The same folder, recipe and seed give the same corpus, whatever the number of ``workers``. Raises UsageError for an
    unusable art folder, PictureError for a cut-out that cannot be read.
    """
    art = read_art(art_folder)
    drawings = plan(art, recipe, seed)
    batches = _batches(drawings)
    parallel = workers > 1 and device.type == "cpu"
    work = _Worker(art, out, device, alone=not parallel)
    lines: list[dict[str, Any]] = []
    pool: Any = ProcessPoolExecutor(workers, initializer=_end_with_parent) if parallel else nullcontext()
    with pool as executor:
        for done in _results(executor, work, batches):
            lines += done
            on_picture(len(lines), len(drawings))
    order = {drawing.path: i for i, drawing in enumerate(drawings)}
    lines.sort(key=lambda line: order[line["file_name"]])
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    atomic_write(out / METADATA, text.encode())
    return len(lines)


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed: it would wait for more to do for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _results(executor: Executor | None, work: _Worker, batches: list[list[Drawing]]) -> Iterator[list[dict[str, Any]]]:
    yield from map(work, batches) if executor is None else executor.map(work, batches)
