"""The art that everything here is drawn from: what there is, what captions call it, and how it looks in each style.

Vector icons rendered to RGBA at 256 px, ``FOLDER/<family>/<name>.webp``. OpenMoji is rendered into the work folder and
never beside the training art, so that no corpus can pick it up by accident.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from families import GROUNDS, HELD_OUT
from PIL import Image
from torch import Tensor

from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.styles import STYLES
from styledrop_cli.styles.canvas import Canvas

POCKET = Path(__file__).parents[2] / "examples" / "pocket"
# The families pocket is trained on, and what its captions call them.
FAMILIES = {
    "fluent-emoji": "3d rendering",
    "fluent-emoji-flat": "flat design",
    "noto": "cartoon",
    "twemoji": "flat icon",
}
OPENMOJI = "openmoji"
SIZE, MARGIN = 256, 12  # of a rendered icon: px, and px of air around it


@dataclass(frozen=True)
class Look:
    """One of the styles the judges tell apart: an art family as it is, or outlines of any family drawn over."""

    name: str
    text: str
    family: str | None
    draw: Callable[[Canvas], Tensor] | None = None

    def __call__(self, rgba: Tensor, ground: Tensor, generator: torch.Generator) -> Tensor:
        """Things ``[B,4,S,S]`` on ``ground`` ``[B,3,S,S]``, all in [0,1], as pictures ``[B,3,S,S]``."""
        with torch.no_grad():
            canvas = Canvas(rgba, ground, generator)
            drawn = canvas.flat(ground) if self.draw is None else self.draw(canvas)
            return drawn.expand(len(rgba), 3, *rgba.shape[2:]).clamp(0, 1)


def looks() -> list[Look]:
    """Every style there is: the art families, the training styles, and those held out."""
    return [
        *(Look(name, text, name) for name, text in FAMILIES.items()),
        *(Look(name, family.descriptions[0], None, family.draw) for name, family in STYLES.items()),
        *(Look(h.name, h.text, OPENMOJI if h.draw is None else None, h.draw) for h in HELD_OUT.values()),
    ]


@dataclass
class Art:
    """Rendered things. ``words`` is what captions call each, ``folders`` where each family's pictures are."""

    things: list[str]
    words: dict[str, str]
    folders: dict[str, Path]

    @property
    def hash(self) -> str:
        """sha256 of which pictures there are and how many bytes each has."""
        digest = hashlib.sha256()
        for family, folder in self.folders.items():
            for thing in self.things:
                digest.update(f"{family}/{thing} {(folder / f'{thing}.webp').stat().st_size}\n".encode())
        return digest.hexdigest()

    def rgba(self, pairs: Sequence[tuple[str, str]], size: int) -> Tensor:
        """The things of ``(family, thing)`` pairs, ``[B,4,size,size]`` in [0,1], colours not multiplied by alpha."""
        return torch.stack([_read(self.folders[family] / f"{thing}.webp", size) for family, thing in pairs]) / 255


@cache
def _read(path: Path, size: int) -> Tensor:
    """uint8 ``[4,size,size]``."""
    try:
        with Image.open(path) as image:
            # Pillow resizes RGBA by way of multiplied colours, so that nothing bleeds in from where it is transparent.
            pixels = image.convert("RGBA").resize((size, size), Image.Resampling.BOX)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def load_art(raw: Path, openmoji: Path | None, work: Path) -> Art:
    """The taught things that all families and OpenMoji draw.

    ``openmoji`` is an icon package or its folder; without it one is taken from ``raw`` or the work folder, else
    fetched. Raises UsageError where there is no art.
    """
    taught = _listed("taught.txt")
    folders = {family: raw / family for family in FAMILIES}
    missing = [name for name, folder in folders.items() if not any(folder.glob("*.webp"))]
    if missing:
        raise UsageError(
            f"there is no rendered art of {', '.join(missing)} in {raw}",
            "Make it with examples/pocket/make_corpus.py --parts art, and name its folder with --raw.",
        )
    folders[OPENMOJI] = raw / OPENMOJI
    if openmoji is not None or not folders[OPENMOJI].is_dir():
        folders[OPENMOJI] = work / OPENMOJI
        done, asked = folders[OPENMOJI] / "done", "\n".join(taught)
        if openmoji is not None or not done.exists() or done.read_text(encoding="utf-8") != asked:
            render(icons_of(openmoji or fetch(work)), taught, folders[OPENMOJI])
            done.write_text(asked, encoding="utf-8")
    things = [t for t in taught if all((folder / f"{t}.webp").exists() for folder in folders.values())]
    if len(things) < 2:
        raise UsageError(f"the families in {raw} have fewer than two things in common")
    return Art(things, {thing: called(thing) for thing in things}, folders)


def _listed(file: str) -> list[str]:
    lines = (POCKET / file).read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


@cache
def _phrases() -> dict[str, list[str]]:
    lines = (POCKET / "words.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {name: [phrase.strip() for phrase in phrases.split(";")] for name, _, phrases in pairs}


def called(thing: str) -> str:
    """What captions call a thing: ``cat-face`` is "a cat"."""
    plain = thing.replace("-", " ")
    return _phrases().get(thing, [f"{'an' if plain[0] in 'aeiou' else 'a'} {plain}"])[0]


# ---- OpenMoji -----------------------------------------------------------------------------------


def fetch(work: Path) -> Path:
    """Download OpenMoji's icon package with npm; its ``icons.json``."""
    target = work / "openmoji-icons.json"
    if target.exists():
        return target
    work.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", "@iconify-json/openmoji"]
    try:
        done = subprocess.run(command, cwd=work, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise StyledropError(
            f"OpenMoji's icons cannot be fetched: {error}",
            "Unpack the npm package @iconify-json/openmoji yourself and name it with --openmoji.",
        ) from None
    with tarfile.open(work / done.stdout.split()[-1]) as archive:
        member = archive.extractfile("package/icons.json")
        assert member is not None
        target.write_bytes(member.read())
    return target


def icons_of(package: Path) -> dict[str, dict[str, float | str]]:
    """The icons of an ``icons.json``, or of the folder it is in, each with its body and box."""
    path = package / "icons.json" if package.is_dir() else package
    try:
        pack = json.loads(path.read_text(encoding="utf-8"))
        sizes = {"left": 0, "top": 0, "width": pack.get("width", 16), "height": pack.get("height", 16)}
        return {name: sizes | icon for name, icon in pack["icons"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} is no icon package: {error}", "Name an icons.json with --openmoji.") from None


def render(icons: dict[str, dict[str, float | str]], things: Sequence[str], folder: Path) -> None:
    """Render those of ``things`` that there are icons of to ``folder``, in the box and margin of the training art."""
    try:
        import resvg_py
    except ImportError:
        raise UsageError("OpenMoji's icons are drawn with resvg_py", "pip install 'styledrop[pocket]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    for thing in things:
        if thing not in icons:
            continue
        left, top, width, height = (float(icons[thing][key]) for key in ("left", "top", "width", "height"))
        side = max(width, height) * (1 + 2 * MARGIN / (SIZE - 2 * MARGIN))
        box = (left + width / 2 - side / 2, top + height / 2 - side / 2, side, side)
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{SIZE}" height="{SIZE}" viewBox="{" ".join(f"{v:g}" for v in box)}">{icons[thing]["body"]}</svg>'
        )
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE))
        with Image.open(io.BytesIO(png)) as image:
            image.convert("RGBA").save(folder / f"{thing}.webp", "WEBP", lossless=True, quality=0, method=0)


# ---- pictures that differ -----------------------------------------------------------------------


def placed(rgba: Tensor, smallest: float, draws: torch.Generator) -> Tensor:
    """Things ``[B,4,S,S]`` scaled by ``smallest`` to 1, moved within the picture, and mirrored half of the time."""
    B = len(rgba)
    scale = smallest + (1 - smallest) * torch.rand(B, generator=draws)
    move = (2 * torch.rand(B, 2, generator=draws) - 1) * (1 - scale)[:, None] * 0.8
    turn = torch.where(torch.rand(B, generator=draws) < 0.5, -1.0, 1.0)
    theta = torch.zeros(B, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = turn / scale, 1 / scale
    theta[:, 0, 2], theta[:, 1, 2] = -move[:, 0] * turn / scale, -move[:, 1] / scale
    whole = torch.cat((rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]), 1)
    moved = F.grid_sample(whole, F.affine_grid(theta, list(whole.shape), align_corners=False), align_corners=False)
    return torch.cat((moved[:, :3] / moved[:, 3:].clamp(min=1e-3), moved[:, 3:]), 1).clamp(0, 1)


def recoloured(rgba: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """A ``share`` of things ``[B,4,S,S]`` with their hues turned (a rotation about the grey axis)."""
    B = len(rgba)
    angle = 6.2832 * torch.rand(B, generator=draws) * (torch.rand(B, generator=draws) < share)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    third = torch.full((3, 3), 1 / 3)
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    turn = cos * torch.eye(3) + (1 - cos) * third + sin * across
    return torch.cat((torch.einsum("bij,bjhw->bihw", turn, rgba[:, :3]).clamp(0, 1), rgba[:, 3:]), 1)


def grounds(count: int, size: int, white: float, draws: torch.Generator) -> Tensor:
    """Backgrounds ``[count,3,size,size]``, white with probability ``white``.

    The others are of one colour or run from one to another; about half of the colours are near those that the held-out
    styles bring, so that the ground alone gives no style away.
    """
    table = torch.tensor(GROUNDS)[torch.randint(len(GROUNDS), (2, count), generator=draws)]
    near = (table * (0.8 + 0.25 * torch.rand(2, count, 1, generator=draws))).clamp(0, 1)
    chosen = torch.rand(2, count, 1, generator=draws) < 0.5
    two = torch.where(chosen, near, torch.rand(2, count, 3, generator=draws))[..., None, None]
    plain = torch.rand(count, 1, 1, 1, generator=draws) < 0.75
    t = torch.linspace(0, 1, size).view(1, 1, -1, 1) * ~plain
    ground = (two[0] * (1 - t) + two[1] * t).expand(count, 3, size, size)
    return torch.where(torch.rand(count, 1, 1, 1, generator=draws) < white, torch.ones(1), ground)
