"""A kit's assets as pictures to draw, and what is said of them once they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from styledrop_cli.base.base import Base
from styledrop_cli.generation.collection import Collection, Thing
from styledrop_cli.generation.extend import shaped
from styledrop_cli.generation.lists.kit_file import Asset
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.generation.resolve import settings_of, within_reach
from styledrop_cli.settings import seeds_from


def candidates(first: PictureRequest, number: int) -> list[PictureRequest]:
    """``number`` pictures that differ from the ``first`` by their seeds alone, which count on."""
    return [replace(first, seed=seed) for seed in seeds_from(first.seed, number)]


def things_of(
    base: Base, mixture: StyleMix, asset: Asset, choose: bool, on_message: Callable[[str], None]
) -> list[Thing]:
    """The pictures of an asset, each with seeds of its own; not to ``choose`` among several is one seed each."""
    settings = settings_of(base, mixture, within_reach(base, asset.options, on_message))
    cut = base.text_tokenizer.cut
    settings = replace(settings, negative=cut(settings.negative, "", on_message))
    prompt = cut(asset.prompt, mixture.style if asset.style is None else asset.style, on_message)
    each = asset.best if choose else 1
    width, height = _size(base, asset)
    shape: dict[str, Any] = {}
    if (width, height) != (settings.size, settings.size):
        shape = {"width": width, "height": height} | ({"fit": asset.fit} if width != height else {})
    return [
        Thing(
            stem,
            candidates(PictureRequest(prompt, settings.seed + index * each, settings, asset.style), each),
            partial(shaped, width=width, height=height, fit=asset.fit) if shape else None,
            shape,
        )
        for index, stem in enumerate(asset.stems)
    ]


def enlarged(base: Base, listed: Sequence[Asset]) -> list[str]:
    """The names of the assets that are larger than the base draws."""

    def scaled_to(asset: Asset) -> int:
        return (max if asset.fit == "cover" else min)(_size(base, asset))

    return [asset.name for asset in listed if scaled_to(asset) > base.sizes[-1]]


def _size(base: Base, asset: Asset) -> tuple[int, int]:
    return asset.size or (base.sizes[-1], base.sizes[-1])


def manifest_entry(collection: Collection, index: int, path: Path) -> dict[str, Any]:
    """What ``kit.json`` says of a picture."""
    said = collection.about(index)
    side = said["size"]
    own = ("prompt", "seed", "width", "height", "size", "adapter", "model", "styledrop")
    return {
        "name": collection.things[index].stem,
        "file": path.name,
        "prompt": said["prompt"],
        "seed": said["seed"],
        "size": [said.get("width", side), said.get("height", side)],
        "settings": {name: value for name, value in said.items() if name not in own},
    }
