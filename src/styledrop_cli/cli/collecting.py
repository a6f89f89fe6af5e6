"""What the commands do that draw a whole collection: the best of several pictures of each thing, and a sheet of all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styledrop_cli.cli import console, drawing
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import seeds_from

if TYPE_CHECKING:
    from PIL.Image import Image

    from styledrop_cli.base.base import Base
    from styledrop_cli.generation.collection import Collection, Thing
    from styledrop_cli.generation.pipeline import PictureRequest, StyleMix


def refuse_no_adapter(adapter: Path, command: str) -> None:
    """Refuse what is no adapter file by its name.

    Raises:
        UsageError: it does not end as one does.
    """
    if adapter.suffix != drawing.ADAPTER:
        raise UsageError(f"'{adapter}' is no adapter file (*{drawing.ADAPTER})", f"styledrop {command}")


def candidates(first: PictureRequest, number: int) -> list[PictureRequest]:
    """`number` pictures that differ from the `first` by their seeds alone, which count on."""
    return [replace(first, seed=seed) for seed in seeds_from(first.seed, number)]


def is_blind(screen: console.Screen, base: Base) -> bool:
    """Whether the base's CLIP cannot say which of several pictures is best; then that is said aloud."""
    from styledrop_cli.generation.collection import sees_pictures

    if sees_pictures(base):
        return False
    screen.say(f"the CLIP of {base.name} reads and does not see: one picture is drawn of each, and none is chosen")
    return True


def collect(
    screen: console.Screen,
    base: Base,
    mixture: StyleMix,
    things: Sequence[Thing],
    folder: Path,
    known: Sequence[str],
    colours: bool = True,
) -> tuple[Collection, dict[str, Any]]:
    """Draw what is not in `folder` yet, and show it as it comes; the second is the beginning of a command's result.

    `known` are other things that a picture might show instead, told apart with `colours` or without (see
    `collection.Chooser`). Raises as `pipeline.draw` does, StyledropError where something cannot be written.
    """
    from styledrop_cli.generation import pipeline
    from styledrop_cli.generation.collection import Chooser, Collection

    started = time.monotonic()
    for settings in {thing.candidates[0].settings for thing in things}:
        pipeline.check_size(base, settings)
    collection = Collection(base, mixture, things, folder)
    missing, total = collection.missing, len(things)
    if len(missing) < total:
        drawing.say_there(screen, total - len(missing), total)
    if missing:
        several = any(len(things[index].candidates) > 1 for index in missing)
        chooser = Chooser(base, known, colours) if several else None

        def pictures(on_step: drawing.OnStep) -> Iterator[Image]:
            return (image for _, image in collection.draw(chooser, on_step))

        drawing.follow(screen, "drawing", pictures, total - len(missing), total)
    abouts = [collection.about(index) for index in range(total)]
    return collection, drawing.summary(screen, abouts, len(missing), started)
