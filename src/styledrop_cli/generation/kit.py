"""A kit's assets as pictures to draw, and what is said of them once they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from styledrop_cli.base.base import Base
from styledrop_cli.generation.collection import Chooser, Collection, Thing, sees_pictures
from styledrop_cli.generation.extend import shaped
from styledrop_cli.generation.lists.kit_file import Asset
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.generation.resolve import settings_of, within_reach
from styledrop_cli.io.images import load_picture, square
from styledrop_cli.settings import seeds_from

WEAK = 0.3  # below this probability of what was asked for; of pictures looked at, those below showed nothing clear


def candidates(first: PictureRequest, number: int) -> list[PictureRequest]:
    """``number`` pictures that differ from the ``first`` by their seeds alone, which count on."""
    return [replace(first, seed=seed) for seed in seeds_from(first.seed, number)]


def things_of(
    base: Base,
    mixture: StyleMix,
    asset: Asset,
    usual: Mapping[str, Any],
    choose: bool,
    on_message: Callable[[str], None],
) -> list[Thing]:
    """The pictures of an asset, each with seeds of its own; not to ``choose`` among several is one seed each.

    ``usual`` are the settings of those that do not say otherwise.
    """
    settings = settings_of(base, mixture, usual, within_reach(base, asset.options, on_message))
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


def weak_ones(base: Base, collection: Collection, known: Sequence[str]) -> list[int]:
    """The numbers of the pictures whose middle square the base's CLIP takes for something else among ``known``.

    None are where it reads no pictures, and none of what it does not know to be ``known``.
    """
    if not sees_pictures(base):
        return []
    chooser, weak = Chooser(base, known), []
    for index, path in enumerate(collection.paths):
        prompt = collection.wanted(index).prompt
        shown = square(load_picture(path), base.sizes[-1])
        if prompt in known and float(chooser.chances([shown], prompt)) < WEAK:
            weak.append(index)
    return weak


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
