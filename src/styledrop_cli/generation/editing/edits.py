"""An edit as a person asks for it: what is done to which picture, and how it is drawn best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styledrop_cli.base.base import Base
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.editing.changes import (
    OnStep,
    Sides,
    check_mask,
    check_sides,
    inpaint,
    outpaint,
    resample,
    restyle,
)
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.images import OnMessage, load_mask, load_picture, load_transparency, quietly
from styledrop_cli.settings import exact

if TYPE_CHECKING:
    from PIL.Image import Image

# How each is drawn best, where that is not how a picture is; looked at on pocket. All begin beside what is known, where
# the base is surest: in an even order colours change within a thing. A thing in a mask needs more say to the words.
# What is around a picture has only to go on: with any, parts of things appear there. Muse resamples with a guidance
# scale of 4, our 3, among the 3 likeliest tokens.
SUITS: dict[str, dict[str, Any]] = {
    "inpaint": {"lambda_b": 3.5, "order": "confidence"},
    "outpaint": {"lambda_b": 0.0, "order": "confidence"},
    "restyle": {"order": "confidence"},
    "mask-free": {"lambda_b": 3.0, "top_k": 3, "top_p": 1.0},
}
SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Edit:
    """What is done to a picture.

    ``name`` is a key of ``SUITS``, ``about`` what the file of each result says of it, ``remark`` what its author should
    know. ``draw`` yields ``(which of wanted, picture)``; all that is wanted has the same settings.
    """

    name: str
    about: dict[str, Any]
    draw: Callable[[Base, StyleMix, Sequence[PictureRequest], OnStep], Iterator[tuple[int, Image]]]
    remark: str = ""

    def suits(self, base: Base) -> dict[str, Any]:
        """The settings that it is drawn with best."""
        return SUITS[self.name] if base.spec.edits_suit or self.name == "mask-free" else {}


def edit_of(
    path: Path,
    *,
    mask: Path | None = None,
    sides: Sides | None = None,
    share: float | None = None,
    iterations: int | None = None,
    on_message: OnMessage = quietly,
) -> Edit | None:
    """The edit of a picture that is asked for by one of these, or by none: see those below.

    ``on_message`` is told what of a picture could not be read as it is meant. Raises PictureError if a picture cannot
    be read, UsageError for what does not fit.
    """
    if sides is not None:
        return outpainting(path, sides, on_message)
    if share is not None:
        return restyling(path, share, on_message)
    if iterations is not None:
        return resampling(path, iterations, on_message)
    return inpainting(path, mask, on_message)


def inpainting(path: Path, mask: Path | None, on_message: OnMessage = quietly) -> Edit | None:
    """Draw anew where a ``mask`` is white; without one where the picture is transparent, None if it is nowhere.

    What is transparent in a mask stays. Raises UsageError where nothing or all would be drawn anew.
    """
    picture = load_picture(path, on_message)
    area = load_mask(mask, on_message) if mask is not None else load_transparency(path)
    if area is None:
        return None
    unknown = check_mask(picture, area)
    if unknown.all():
        raise UsageError(
            f"{f'the mask {mask} is white' if mask is not None else f'{path} is transparent'} all over: "
            "nothing of the picture would stay",
            "Make black or transparent in a mask what is to stay; to draw all of it anew, restyle it by 1 "
            "(--restyle 1).",
        )
    share = float(unknown.float().mean())
    part = f"{share:.0%}" if 0.005 <= share < 0.995 else f"{share:.3%}"
    return Edit(
        "inpaint",
        _about("inpaint", path) | ({"mask_sha256": file_hash(mask)} if mask is not None else {}),
        lambda base, mixture, wanted, on_step: inpaint(base, mixture, wanted, picture, area, on_step),
        f"{part} of {path} is drawn anew",
    )


def outpainting(path: Path, sides: Sides, on_message: OnMessage = quietly) -> Edit:
    """Draw around a picture."""
    picture = load_picture(path, on_message)
    check_sides(picture, sides)
    return Edit(
        "outpaint",
        _about("outpaint", path) | {"sides": dict(zip(SIDES, sides, strict=True))},
        lambda base, mixture, wanted, on_step: outpaint(base, mixture, wanted, picture, sides, on_step),
    )


def restyling(path: Path, share: float, on_message: OnMessage = quietly) -> Edit:
    """Draw a ``share`` in [0,1] of a picture anew."""
    if not 0 <= share <= 1:
        raise UsageError(f"a share of {exact(share)} of a picture", "Give one between 0, nothing, and 1, all of it.")
    picture = load_picture(path, on_message)
    return Edit(
        "restyle",
        _about("restyle", path) | {"share": float(share)},
        lambda base, mixture, wanted, on_step: restyle(base, mixture, wanted, picture, share, on_step),
        _square(path, picture),
    )


def resampling(path: Path, iterations: int, on_message: OnMessage = quietly) -> Edit:
    """Draw a picture anew a few ids at a time, in so many ``iterations``."""
    if iterations < 1:
        raise UsageError(f"{iterations} iterations draw nothing", "Give 1 or more; 100 are usual.")
    picture = load_picture(path, on_message)
    return Edit(
        "mask-free",
        _about("mask-free", path) | {"iterations": iterations},
        lambda base, mixture, wanted, on_step: resample(base, mixture, wanted, picture, iterations, on_step),
        _square(path, picture),
    )


def _about(name: str, path: Path) -> dict[str, Any]:
    return {"edit": name, "picture": path.name, "picture_sha256": file_hash(path)}


def _square(path: Path, picture: Image) -> str:
    side = min(picture.size)
    return "" if picture.width == picture.height else f"{path} is not square: its middle, {side} x {side} px, is taken"
