"""Several styles in turn: the same prompts and seeds in each, each on its own base model, and sheets of all."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styledrop_cli import __version__
from styledrop_cli.adapters import library
from styledrop_cli.base.registry import BUNDLED
from styledrop_cli.cli import console, drawing, load, plan
from styledrop_cli.errors import ModelError, PictureError, UsageError
from styledrop_cli.generation.lists.file_names import word_slug
from styledrop_cli.generation.lists.prompt_file import Line
from styledrop_cli.io.files import names_apart

if TYPE_CHECKING:
    from PIL.Image import Image

    from styledrop_cli.adapters.header import AdapterFile
    from styledrop_cli.base.base import Base
    from styledrop_cli.cli.options import Assets
    from styledrop_cli.generation.output_folder import Batch
    from styledrop_cli.generation.pipeline import PictureRequest, StyleMix

PATTERN = "{style}-{prompt}-{seed}"
ROWS, COLUMNS, ACROSS = 12, 8, 4  # at most: pictures above and beside each other on a sheet, and in a line of a cell
LONGEST_WORDS = 32  # characters below a cell of a sheet
Pictures = Sequence[tuple[Line, str, int]]  # each by its line of the list, its prompt and its seed


@dataclass(frozen=True)
class Wanted:
    """What is drawn in every style, and how: `pattern` names the files, a `thing` is an object in the style."""

    pictures: Pictures
    preset: str | None
    chosen: Mapping[str, Any]
    style: str | None = None
    pattern: str = PATTERN
    thing: Path | None = None
    gamma: float | None = None
    assets: Assets | None = None


@dataclass(frozen=True)
class Row:
    """A style, what was wanted in it, and where that lies."""

    name: str
    file: AdapterFile
    wanted: list[PictureRequest]
    batch: Batch
    drawn: int


def named(said: Sequence[str]) -> dict[str, Path]:
    """The styles of `ink,gold.safetensors,styles/` by names that tell them apart; a folder stands for all in it.

    Raises UsageError for none, ModelError for a word that is neither a style nor a file.
    """
    found: list[Path] = []
    for word in filter(None, (one.strip() for words in said for one in words.split(","))):
        place = library.file_or_place(word)
        if place.is_dir():
            inside = sorted(place.glob(f"*{library.SUFFIX}"))
            if not inside:
                raise UsageError(f"the folder {place} holds no adapters (*{library.SUFFIX})", "name another one")
            found += inside
        else:
            found.append(library.find(word))
    paths = list(dict.fromkeys(found))
    if not paths:
        raise UsageError("--styles names no style", "name them with commas between: --styles ink,gold")
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):
        stems = [name.removesuffix(library.SUFFIX) for name in names_apart(paths)]
    return dict(zip(stems, paths, strict=True))


def read_styles(paths: Mapping[str, Path]) -> dict[str, AdapterFile]:
    """The adapter files of styles; ModelError for one that cannot be read, UsageError for one that is no style."""
    from styledrop_cli.adapters.header import load_adapter

    files = {name: load_adapter(path) for name, path in paths.items()}
    for name, file in files.items():
        if file.header.is_object:
            raise UsageError(
                f"{name} is no style: it learnt an object, {file.header.name}", "draw it in the styles with --object"
            )
    return files


def draw_styles(
    screen: console.Screen,
    files: Mapping[str, AdapterFile],
    wanted: Wanted,
    folder: Path,
    *,
    model: str | None,
    device: str,
    sheet: bool = True,
    skip: bool = False,
    dry_run: bool = False,
) -> None:
    """Draw all that is `wanted` in each style, each on its own base, and print what is where.

    With `skip` a style whose base is not here is left out, with a warning. Raises ModelError otherwise, and as
    `drawing.draw_into` does.
    """
    from styledrop_cli.training.distributed import take_place

    started, place = time.monotonic(), take_place()
    rows: list[Row] = []
    seconds = 0.0
    tell = _once(screen)
    for base, names in bases_of(screen, files, model, device, skip=skip):
        for name in names:
            mixture, requests, stems = _requests(base, name, files[name], wanted, tell)
            if dry_run:
                batch, time_each = _planned(screen, base, mixture, requests, stems, folder)
                rows.append(Row(name, files[name], requests, batch, len(batch.missing)))
                seconds += time_each * len(batch.missing)
                continue
            batch, drawn = drawing.draw_into(
                screen, base, mixture, requests, stems, folder, more={}, place=place, what=f"drawing {name}"
            )
            rows.append(Row(name, files[name], requests, batch, drawn))
        del base  # before the next one is loaded
    rows.sort(key=lambda row: list(files).index(row.name))
    if not rows:
        raise ModelError("there is no style to draw", "fetch the base models: styledrop models list")
    if dry_run:
        count = sum(len(row.wanted) for row in rows)
        missing = [row.batch.paths[index] for row in rows for index in row.batch.missing]
        said = {"styles": ", ".join(row.name for row in rows), "pictures": f"{len(missing):,} of {count:,} to draw"}
        plan.show(screen, said, seconds, missing)
        return
    sheets: list[Path] = []
    if sheet and place[0] == 0:
        with screen.working("laying out sheets"):
            sheets = list(write_sheets(rows, wanted.pictures, folder))
    paths = list(dict.fromkeys(path for row in rows for path in row.batch.paths))
    svgs = drawing.finish(screen, paths, wanted.assets) if place[0] == 0 else {}
    pictures = [
        {"path": path, "style": row.name, "prompt": one.prompt, "seed": one.seed} | svgs.get(path, {})
        for row in rows
        for path, one in zip(row.batch.paths, row.wanted, strict=True)
    ]
    abouts = [row.batch.about(index) for row in rows for index in range(len(row.wanted))]
    result = drawing.summary(screen, abouts, sum(row.drawn for row in rows), started)
    made = [*paths, *(one["svg"] for one in svgs.values()), *sheets]
    screen.result({"pictures": pictures, "sheets": sheets} | result, made)


def _once(screen: console.Screen) -> Callable[[str], None]:
    """What says a remark at the first style that it is made of, and not again at each of the others."""
    said: set[str] = set()

    def tell(message: str) -> None:
        if message not in said:
            said.add(message)
            screen.say(message)

    return tell


def _requests(
    base: Base, name: str, file: AdapterFile, wanted: Wanted, tell: Callable[[str], None]
) -> tuple[StyleMix, list[PictureRequest], list[str]]:
    """What to draw in one style, and the names of the files."""
    from styledrop_cli.generation.requests import requests_of
    from styledrop_cli.generation.resolve import within_reach

    mixture = load.read_mixture([(file.path, 1.0)], wanted.thing, wanted.gamma)
    chosen = base.preset(wanted.preset) | within_reach(base, wanted.chosen, tell)
    pattern = wanted.pattern.replace("{style}", word_slug(name))
    requests, stems = requests_of(base, mixture, wanted.pictures, chosen, wanted.style, pattern, tell)
    texts = [text for one in requests for text in (one.prompt, one.style or "", one.settings.negative)]
    for remark in base.remarks(list(dict.fromkeys(texts)), mixture.learnt):
        tell(f"{console.WARNING}{remark}")
    return mixture, requests, stems


def _planned(
    screen: console.Screen,
    base: Base,
    mixture: StyleMix,
    requests: list[PictureRequest],
    stems: list[str],
    folder: Path,
) -> tuple[Batch, float]:
    """The pictures that would be there, and how many seconds each that is missing takes."""
    from styledrop_cli.generation.foresight import seconds_each
    from styledrop_cli.generation.output_folder import Batch, about, about_mixture

    drawn_by = about_mixture(base, mixture)
    batch = Batch(folder, stems, lambda index: about(base, requests[index], mixture, drawn_by))
    with screen.working("timing a few steps"):
        return batch, seconds_each(base, mixture, requests[0]) if batch.missing else 0.0


# ---- each on its own base ----


def bases_of(
    screen: console.Screen, files: Mapping[str, AdapterFile], model: str | None, device: str, *, skip: bool
) -> Iterator[tuple[Base, list[str]]]:
    """Each base in turn, loaded, and the names of the styles that were trained on it.

    The base `model` comes first, if one is named: without `skip` all styles must be of it. Otherwise a style's base is
    the published one that it names, or else the bundled one. Raises ModelError for a style of another base; with `skip`
    such a style is left out, as is one whose base is not here, and a warning says so.
    """
    from styledrop_cli.adapters.file import bases_apart, is_one_base
    from styledrop_cli.base import hub

    waiting = list(files)

    def loaded(which: str | None, names: list[str]) -> tuple[Base, list[str]]:
        with load.loading(screen, which, device, files[names[0]].path) as load_base:
            base = load_base()
        return base, [name for name in names if is_one_base(files[name].header.base, base.identity)]

    def refuse(base: Base, others: list[str]) -> None:
        if not others:
            return
        its, own = bases_apart(files[others[0]].header.base, base.identity)
        said = f"{', '.join(others)}: trained on another base ({its}) than this one ({own})"
        if not skip:
            raise ModelError(said, "Leave these styles out, or name their base with --model.")
        screen.warn(f"left out: {said}")

    if model is not None:
        base, own = loaded(model, waiting)
        waiting = [name for name in waiting if name not in own]
        if not skip:
            refuse(base, waiting)
        if own:
            yield base, own
        del base
    by_base: dict[str, list[str]] = {}
    for name in waiting:
        by_base.setdefault(load.own_model(files[name].header.base), []).append(name)
    for which in sorted(by_base, key=lambda one: one != BUNDLED):
        names = by_base[which]
        if skip and hub.find(which) is None:
            screen.warn(
                f"left out: {', '.join(names)}, whose base is not here; fetch it: styledrop models fetch {which}"
            )
            continue
        base, own = loaded(which, names)
        refuse(base, [name for name in names if name not in own])
        if own:
            yield base, own
        del base


# ---- the sheets ----


def write_sheets(rows: Sequence[Row], pictures: Pictures, folder: Path) -> Iterator[Path]:
    """Write sheets with a row for each style, its reference first, and a column for each line of prompts."""
    from styledrop_cli.generation.output_folder import Batch, identity

    by_line: dict[int, list[int]] = {}
    for index, (line, _, _) in enumerate(pictures):
        by_line.setdefault(id(line), []).append(index)
    columns = list(by_line.values())
    most = max(map(len, columns))
    down = math.ceil(most / ACROSS)
    shape = down, math.ceil(most / down)
    wide, high = max(1, COLUMNS // shape[1]), max(1, ROWS // down)
    pages = [
        (rows[top : top + high], columns[left : left + wide])
        for top in range(0, len(rows), high)
        for left in range(0, len(columns), wide)
    ]
    for number, (some, shown) in enumerate(pages, 1):
        places = [(row.batch, index) for row in some for cell in shown for index in cell]
        drawn = b"".join(identity(batch.about(index)) for batch, index in places)
        said = {
            "prompt": " | ".join(dict.fromkeys(str(batch.about(index)["prompt"]) for batch, index in places)),
            "sheet_of": [batch.paths[index].name for batch, index in places],
            "settings_hash": hashlib.sha256(drawn).hexdigest()[:12],  # what has a name may be drawn otherwise
            "styledrop": __version__,
        }
        stem = "styles" if len(pages) == 1 else f"styles-{number}-of-{len(pages)}"
        image = _sheet(some, shown, pictures, shape)
        yield Batch(folder, [stem], [said].__getitem__).save(0, image)


def _sheet(rows: Sequence[Row], columns: Sequence[list[int]], pictures: Pictures, shape: tuple[int, int]) -> Image:
    """One page: the pictures of a line, by their numbers, in each cell."""
    from styledrop_cli.io.contact_sheet import GridCell, grid_sheet
    from styledrop_cli.io.images import from_base64, load_picture

    def lines() -> Iterator[list[list[Image]]]:
        for row in rows:
            try:
                yield [[from_base64(row.file.header.thumbnail)]]
            except PictureError:  # a merged or converted one may have none
                yield []
            for cell in columns:
                images = [load_picture(row.batch.paths[index]) for index in cell]
                yield [images[at : at + shape[1]] for at in range(0, len(images), shape[1])]

    seeds = sorted({seed for _, _, seed in pictures})
    told = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    cells = []
    for row in rows:
        cells.append(GridCell("", plain_words(row.file.header.style)))
        for cell in columns:
            text, prompt = pictures[cell[0]][0].text, row.wanted[cell[0]].prompt
            cells.append(GridCell("", plain_words(prompt) if prompt != text else ""))  # one of a line's variants
    return grid_sheet(
        lines(),
        cells,
        [("", row.name) for row in rows],
        [("the reference", ""), *((plain_words(pictures[cell[0]][0].text), "") for cell in columns)],
        shape,
        f"{len(rows)} style{'s' * (len(rows) > 1)}, {told}",
    )


def plain_words(text: str) -> str:
    """As much of a text as a column is wide."""
    return text if len(text) <= LONGEST_WORDS else f"{text[: LONGEST_WORDS - 1].rstrip()}…"
