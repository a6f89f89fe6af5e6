"""What every command that draws pictures into a folder does: whom it draws with, and drawing what is not there yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styledrop_cli.cli import console
from styledrop_cli.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from styledrop_cli.base.base import Base
    from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
    from styledrop_cli.training.distributed import Place

ADAPTER = ".safetensors"
DEAD = 3600.0  # seconds without a byte, and whoever wrote a picture writes it no more: many draw into one folder
Shares = list[tuple[Path, float]]
OnStep = Callable[[float], None]  # told what share in [0,1] of all steps is taken
# (base, mixture, wanted, on_step) -> (which of them, picture), as they are done
Draw = Callable[["Base", "StyleMix", Sequence["PictureRequest"], OnStep], Iterator[tuple[int, "Image"]]]


def read_shares(mixed: Sequence[str]) -> Shares:
    """`["a.safetensors:0.6", "b.safetensors:0.4"]` as files and shares; without any share all are alike.

    Raises:
        UsageError: some have a share and some have none, one is no number, or a file is no adapter file.
    """
    files: list[tuple[Path, float | None]] = []
    for text in mixed:
        name, colon, number = text.rpartition(":")
        if text.endswith(ADAPTER):  # no share; or C:\a.safetensors
            files.append((Path(text), None))
        elif colon and name.endswith(ADAPTER) and (share := _number(number)) is not None:
            files.append((Path(name), share))
        else:
            raise UsageError(
                f"--mix {text} names no adapter file with its share", f"write --mix a{ADAPTER}:0.6 --mix b{ADAPTER}:0.4"
            )
    shares = [share for _, share in files if share is not None]
    if shares and len(shares) < len(files):
        without = next(file for file, share in files if share is None)
        raise UsageError(f"--mix {without} has no share, and others have", "give each a share, or none")
    return [(file, 1 / len(files) if share is None else share) for file, share in files]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_mixture(styles: Shares, thing: Path | None, gamma: float | None) -> StyleMix:
    """The adapter files of a mixture, read.

    Raises:
        UsageError: shares that do not add up to 1, an object's share without an object, or an object among the styles.
        ModelError: a file is missing or no adapter.
    """
    from styledrop_cli.generation.pipeline import GAMMA, StyleMix
    from styledrop_cli.io.tensors import load_adapter

    if gamma is not None and thing is None:
        raise UsageError("--gamma is the share of an object, and there is none", "name its adapter with --object")
    files = tuple((load_adapter(path), share) for path, share in styles)
    return StyleMix(files, load_adapter(thing) if thing else None, GAMMA if gamma is None else gamma)


def draw_all(
    screen: console.Screen,
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    stems: Sequence[str],
    folder: Path,
    *,
    own_draw: Draw | None = None,
    more: Mapping[str, Any] | None = None,
    original: Path | None = None,
    sheet: bool = True,
    columns: int = 8,
    title: str = "",
    place: Place = (0, 1),
) -> dict[str, Any]:
    """Draw what is not in `folder` yet, show it as it comes, and say at the end what is where.

    `own_draw` does so in place of `pipeline.draw`, `more` is what its pictures say besides, `original` the picture that
    they are made of, for the sheet. `place` is this process's number among how many that draw: each its share of the
    pictures, and the first also what the others do not bring. Raises as `pipeline.draw` does, StyledropError where
    something cannot be written.
    """
    from styledrop_cli.generation import pipeline
    from styledrop_cli.generation.output_folder import Batch, about, about_mixture, write_sheets
    from styledrop_cli.io.files import remove_parts
    from styledrop_cli.training.distributed import PATIENCE, wait_for_others

    started = time.monotonic()
    for settings in {one.settings for one in wanted}:
        pipeline.check_size(base, settings)
    drawn_by = about_mixture(base, mixture)
    batch = Batch(folder, stems, lambda index: about(wanted[index], mixture, drawn_by) | dict(more or {}))
    remove_parts(folder, "*.png", older=DEAD)
    missing = batch.missing
    total = len(set(batch.paths))
    if len(missing) < total:
        # Of several processes another one may have begun before.
        say_there(screen, total - len(missing), total, "were there already" if place[1] == 1 else "are there")

    def draw_these(indices: Sequence[int], what: str, already: int = 0) -> float:
        """Draw those of `indices` that nobody has drawn by then; the most seconds between one and the next."""
        slowest, since = 0.0, time.monotonic()
        ours = [wanted[index] for index in indices]
        draw = own_draw or partial(pipeline.draw, there=lambda index: batch.has_come(indices[index]))

        def pictures(on_step: OnStep) -> Iterator[Image]:
            nonlocal slowest, since
            for index, image in draw(base, mixture, ours, on_step):
                batch.save(indices[index], image)
                yield image
                slowest, since = max(slowest, time.monotonic() - since), time.monotonic()

        follow(screen, what, pictures, already, already + len(indices))
        return slowest

    number, of = place
    if missing and of == 1:
        draw_these(missing, "drawing", total - len(missing))
    elif missing:
        own = [index for index in missing if index % of == number]
        slowest = draw_these(own, f"drawing one share of {of}") if own else 0.0
        if number == 0:
            with screen.working("waiting for the others"):
                patience = max(PATIENCE, 2 * slowest)
                wait_for_others(lambda: sum(not batch.has_come(index) for index in missing), patience)
            # From the end: who is only slow goes on from the beginning.
            if rest := [index for index in reversed(missing) if not batch.has_come(index)]:
                draw_these(rest, "drawing what the others did not")
    sheets: list[Path] = []
    if sheet and number == 0 and len(wanted) > 1:
        labels = [f"{one.prompt} · {one.seed}" for one in wanted]
        with screen.working("laying out a sheet"):
            sheets = list(
                write_sheets(base, folder, "sheet", batch.paths, batch.about, labels, title, columns, original)
            )
    return {
        "pictures": [
            {"path": path, "prompt": one.prompt, "seed": one.seed}
            for path, one in zip(batch.paths, wanted, strict=True)
        ],
        "sheets": sheets,
    } | summary(screen, [batch.about(index) for index in range(len(wanted))], len(missing), started)


def say_there(screen: console.Screen, there: int, total: int, how: str = "were there already") -> None:
    """Say how many of the pictures need not be drawn."""
    screen.say(f"{there:,} of {total:,} pictures {how}")


def follow(
    screen: console.Screen, what: str, pictures: Callable[[OnStep], Iterator[Image]], there: int, total: int
) -> None:
    """Show `pictures` as they come: `total` with those that are `there`, and in between how far their steps are."""
    with screen.drawing(what) as (move, show):
        note = f"{there:,}/{total:,}"

        def on_step(share: float) -> None:
            move(min(share, 0.999), f"{note}, {share:.0%} of the steps")

        for done, image in enumerate(pictures(on_step), there + 1):
            show(image)
            note = f"{done:,}/{total:,}"
        move(1.0, note)


def summary(screen: console.Screen, abouts: Sequence[Mapping[str, Any]], drawn: int, started: float) -> dict[str, Any]:
    """The end of a command's result: what all its pictures say alike, how many were drawn, and since when."""
    seconds = time.monotonic() - started
    if drawn:
        screen.say(f"drawn in {console.duration(seconds)}:")
    common = dict(abouts[0])
    for said in abouts[1:]:
        common = {name: value for name, value in said.items() if common.get(name, ...) == value}
    return {
        "settings": {name: value for name, value in common.items() if name not in ("prompt", "seed")},
        "drawn": drawn,
        "seconds": round(seconds, 1),
    }


def paths_of(result: dict[str, Any]) -> list[Path]:
    """The paths that a command prints: each picture's once, then the sheets'."""
    return [*dict.fromkeys(one["path"] for one in result["pictures"]), *result["sheets"]]
