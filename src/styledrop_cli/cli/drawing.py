"""What every command that draws pictures into a folder does: draw what is not there yet, and show it as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styledrop_cli.cli import console
from styledrop_cli.errors import StyledropError
from styledrop_cli.progress import Forecast

if TYPE_CHECKING:
    from PIL.Image import Image

    from styledrop_cli.base.base import Base
    from styledrop_cli.cli.options import Assets
    from styledrop_cli.generation.collection import Collection, Thing
    from styledrop_cli.generation.output_folder import Batch
    from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
    from styledrop_cli.settings import SampleSettings
    from styledrop_cli.training.distributed import Place

LONG = 60.0  # seconds: a picture that takes longer is announced
DEAD = 3600.0  # seconds: a picture that nobody wrote a byte to for so long is not being written by another process
OnStep = Callable[[float], None]  # told what share in [0,1] of all steps is taken
# (base, mixture, wanted, on_step) -> (which of them, picture), as they are done
Draw = Callable[["Base", "StyleMix", Sequence["PictureRequest"], OnStep], Iterator[tuple[int, "Image"]]]


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
    assets: Assets | None = None,
) -> None:
    """Draw what is not in `folder` yet, show it as it comes, and print at the end what is where.

    `own_draw` does so in place of `pipeline.draw`, `more` is what its pictures say besides, `original` the picture that
    they are made of, for the sheet. `place` is this process's number among how many that draw: each its share of the
    pictures, and the first also what the others do not bring. `assets` says whether SVG files are written, too.

    Raises as `pipeline.draw` does, StyledropError where something cannot be written.
    """
    from styledrop_cli.generation.output_folder import write_sheets

    started = time.monotonic()
    batch, drawn = draw_into(
        screen, base, mixture, wanted, stems, folder, own_draw=own_draw, more=more or {}, place=place
    )
    svgs = finish(screen, batch.paths, assets) if place[0] == 0 else {}
    sheets: list[Path] = []
    if sheet and place[0] == 0 and len(wanted) > 1:
        labels = [f"{one.prompt} · {one.seed}" for one in wanted]
        with screen.working("laying out a sheet"):
            sheets = list(
                write_sheets(base, folder, "sheet", batch.paths, batch.about, labels, title, columns, original)
            )
    pictures = [
        {"path": path, "prompt": one.prompt, "seed": one.seed} | svgs.get(path, {})
        for path, one in zip(batch.paths, wanted, strict=True)
    ]
    abouts = [batch.about(index) for index in range(len(wanted))]
    screen.result(
        {"pictures": pictures, "sheets": sheets} | summary(screen, abouts, drawn, started),
        [*dict.fromkeys(batch.paths), *(one["svg"] for one in svgs.values()), *sheets],
    )


def draw_into(
    screen: console.Screen,
    base: Base,
    mixture: StyleMix,
    wanted: Sequence[PictureRequest],
    stems: Sequence[str],
    folder: Path,
    *,
    own_draw: Draw | None = None,
    more: Mapping[str, Any],
    place: Place,
    what: str = "drawing",
) -> tuple[Batch, int]:
    """`draw_all` without what it prints at the end: the pictures in `folder`, and how many were not there.

    `what` is what the progress is called.
    """
    from styledrop_cli.generation import pipeline
    from styledrop_cli.generation.output_folder import Batch, about, about_mixture
    from styledrop_cli.io.files import remove_parts

    _check_sizes(screen, base, [one.settings for one in wanted])
    warn_of_guard(screen, base, mixture, any(one.settings.guard for one in wanted))
    drawn_by = about_mixture(base, mixture)
    batch = Batch(folder, stems, lambda index: about(base, wanted[index], mixture, drawn_by) | dict(more))
    remove_parts(folder, "*.png", older=DEAD)
    missing = batch.missing

    def draw(indices: Sequence[int], on_step: OnStep) -> Iterator[tuple[int, Image]]:
        ours = [wanted[index] for index in indices]
        if own_draw:
            return own_draw(base, mixture, ours, on_step)
        return pipeline.draw(base, mixture, ours, on_step, there=lambda index: batch.has_come(indices[index]))

    _draw_missing(screen, batch, missing, draw, place, what)
    return batch, len(missing)


def _draw_missing(
    screen: console.Screen,
    batch: Batch,
    missing: Sequence[int],
    draw: Callable[[Sequence[int], OnStep], Iterator[tuple[int, Image]]],
    place: Place,
    called: str,
) -> None:
    """Draw the `missing` pictures of a batch, or this process's share of them; the first also draws what is left."""
    from styledrop_cli.training.distributed import PATIENCE, wait_for_others

    (number, of), total = place, len(set(batch.paths))
    if len(missing) < total:
        # Of several processes another one may have begun before.
        say_there(screen, total - len(missing), total, "were there already" if of == 1 else "are there")

    def draw_these(indices: Sequence[int], what: str, already: int = 0) -> float:
        """Draw those of `indices` that nobody has drawn by then; the most seconds between one and the next."""
        slowest, since = 0.0, time.monotonic()

        def pictures(on_step: OnStep) -> Iterator[Image]:
            nonlocal slowest, since
            for index, image in draw(indices, on_step):
                batch.save(indices[index], image)
                yield image
                slowest, since = max(slowest, time.monotonic() - since), time.monotonic()

        follow(screen, what, pictures, already, already + len(indices))
        return slowest

    if missing and of == 1:
        draw_these(missing, called, total - len(missing))
    elif missing:
        own = [index for index in missing if index % of == number]
        slowest = draw_these(own, f"{called} one share of {of}") if own else 0.0
        if number == 0:
            with screen.working("waiting for the others"):
                patience = max(PATIENCE, 2 * slowest)
                wait_for_others(lambda: sum(not batch.has_come(index) for index in missing), patience)
            # From the end: who is only slow goes on from the beginning.
            if rest := [index for index in reversed(missing) if not batch.has_come(index)]:
                draw_these(rest, "drawing what the others did not")


# ---- collections: the best of several pictures of each subject -----------------------------------


def say_roughly(screen: console.Screen, base: Base, task: str) -> None:
    """Say what to expect of a `task` that the base does only roughly (see `registry.BaseSpec.roughly`)."""
    if said := base.spec.roughly.get(task):
        screen.say(said)


def is_blind(screen: console.Screen, base: Base) -> bool:
    """Whether the base's CLIP cannot say which of several pictures is best; if so, a remark says it."""
    from styledrop_cli.generation.collection import sees_pictures

    if sees_pictures(base):
        return False
    screen.say(f"the CLIP of {base.name} reads no pictures: one is drawn of each prompt, and none is chosen")
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
    """Draw what is not in `folder` yet, and show it as it comes; the second is the end of a command's result.

    `known` are other things that a picture might show instead, told apart with `colours` or without (see
    `collection.Chooser`). Raises as `pipeline.draw` does, StyledropError where something cannot be written.
    """
    from styledrop_cli.generation.collection import Chooser, Collection

    started = time.monotonic()
    _check_sizes(screen, base, [thing.candidates[0].settings for thing in things])
    warn_of_guard(screen, base, mixture, any(thing.candidates[0].settings.guard for thing in things))
    collection = Collection(base, mixture, things, folder)
    missing, total = collection.missing, len(things)
    if len(missing) < total:
        say_there(screen, total - len(missing), total)
    if missing:
        several = any(len(things[index].candidates) > 1 for index in missing)
        chooser = Chooser(base, known, colours) if several else None

        def pictures(on_step: OnStep) -> Iterator[Image]:
            return (image for _, image in collection.draw(chooser, on_step))

        follow(screen, "drawing", pictures, total - len(missing), total)
    abouts = [collection.about(index) for index in range(total)]
    return collection, summary(screen, abouts, len(missing), started)


# ---- both ----------------------------------------------------------------------------------------


def _check_sizes(screen: console.Screen, base: Base, every: Sequence[SampleSettings]) -> None:
    """Raise as `pipeline.check_size` does, and say which sizes are resampled."""
    from styledrop_cli.generation import pipeline

    larger: dict[int, None] = {}
    for settings in set(every):
        pipeline.check_size(base, settings)
        if pipeline.drawn_size(base, settings) != settings.size:
            larger[settings.size] = None
    if larger:
        sizes = ", ".join(map(str, sorted(larger)))
        screen.say(f"{base.name} draws {base.sizes[-1]} px; {sizes} px are resampled from that, and no sharper")


def finish(screen: console.Screen, paths: Sequence[Path], assets: Assets | None) -> dict[Path, dict[str, Path]]:
    """Say which pictures stayed opaque, and write the SVG files that are wanted; {"svg": its path} by picture."""
    from styledrop_cli.base.prompt_tokens import quoted
    from styledrop_cli.generation.output_folder import said_in

    if assets is None:
        return {}
    paths = list(dict.fromkeys(paths))
    if opaque := [path.name for path in paths if "ground" in said_in(path)]:
        screen.say(f"no clear ground was found in {quoted(opaque)}: left opaque; another --seed may draw one")
    if not assets.svg:
        return {}
    from styledrop_cli.generation.svg import COLOURS, svg_beside

    made, textured = {}, []
    with screen.progress("tracing outlines") as move:
        for number, path in enumerate(paths, 1):
            try:
                svg, flat = svg_beside(path, assets.svg_colours or COLOURS)
            except StyledropError as error:  # the pictures and their sheet are good without it
                screen.warn(f"no SVG of {path.name}: {error.message}")
            else:
                made[path] = {"svg": svg}
                textured += [] if flat else [svg.name]
            move(number / len(paths), f"{number:,}/{len(paths):,}")
    if textured:
        screen.say(
            f"an SVG has flat colours, good for logos and flat art; shades or texture are lost in {quoted(textured)}"
        )
    return made


def warn_of_guard(screen: console.Screen, base: Base, mixture: StyleMix, guarded: bool) -> None:
    """A warning where pictures are to be `guarded` and an adapter does not say what its reference shows."""
    if not guarded:
        return
    files = mixture.unguarded(base)
    for file in files:
        screen.warn(
            f"{file.path} does not say what its reference shows, in words that {base.name} knows: --guard keeps "
            "nothing of it out (train with --content)"
        )
    if not mixture.styles:
        screen.warn("--guard keeps out what a style's reference shows, and no style draws here: it does nothing")


def say_there(screen: console.Screen, there: int, total: int, how: str = "were there already") -> None:
    """Say how many of the pictures need not be drawn."""
    screen.say(f"{there:,} of {total:,} pictures {how}")


def follow(
    screen: console.Screen, what: str, pictures: Callable[[OnStep], Iterator[Image]], there: int, total: int
) -> None:
    """Show `pictures` as they come: `total` with those that are `there`, and in between how far their steps are."""
    number = total - there

    def tell(steps: int, seconds: float) -> None:
        took = console.duration(steps * seconds)
        every = f"; all {number:,} take {console.duration(number * steps * seconds)}" if number > 1 else ""
        screen.say(f"a picture takes about {took} on this machine: {steps:,} steps of {seconds:.1f} s each{every}")

    forecast = Forecast(tell, LONG, number)
    with screen.drawing(what) as (move, show):
        note = f"{there:,}/{total:,}"

        def on_step(share: float) -> None:
            forecast.step(share)
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
