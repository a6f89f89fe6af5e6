"""Families of icons that nothing is trained on, OpenMoji before all: fetched, and rendered as cut-outs."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.io.files import atomic_write

OPENMOJI = "openmoji"
SIZE, MARGIN = 256, 12  # of a rendered icon: px, and px of air around it


def fetch(work: Path, family: str = OPENMOJI) -> Path:
    """Download a family's icon package with npm, unless it is in ``work``; its ``icons.json``.

    Raises StyledropError where it cannot be had.
    """
    target, package = work / f"{family}-icons.json", f"@iconify-json/{family}"
    if target.exists():
        return target
    unpack = f"Unpack the npm package {package} yourself, and put its icons.json there as {target}."
    work.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=work, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise StyledropError(f"the icons of {package} cannot be fetched: {error}", unpack) from None
    with tarfile.open(work / done.stdout.split()[-1]) as archive:
        member = archive.extractfile("package/icons.json")
        if member is None:
            raise StyledropError(f"there is no icons.json in {package}", unpack)
        atomic_write(target, member.read())
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


def render(icons: Mapping[str, Mapping[str, float | str]], things: Sequence[str], folder: Path) -> None:
    """Render those of ``things`` that there are icons of to ``folder``, in the box and margin of the training art."""
    try:
        import resvg_py
    except ImportError:
        raise UsageError("icons are drawn with resvg-py", "pip install 'styledrop[pocket]'") from None
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
        atomic_write(folder / f"{thing}.png", bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)))
