"""`styledrop score`: how good pictures are, by CLIP."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from styledrop_cli.cli import checks, console, options
from styledrop_cli.errors import PictureError, StyledropError, UsageError
from styledrop_cli.io.files import NOT_READ, SUFFIXES, file_hash, names_apart
from styledrop_cli.io.text_files import plain

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base
    from styledrop_cli.judging.evaluate import References
    from styledrop_cli.judging.picture_files import Picture, Row

    Group = tuple[References | None, list["Found"]]

SHEET = re.compile(r"(sheet(-\d+)?|pool|step-\d+)\.png")  # what rounds and trainings call theirs; generate's say so
READERS = 2  # threads that look for what pictures say of themselves
MOST = 40  # pictures that the table shows one by one
BROKEN = 5  # of those that cannot be read, how many are named


@dataclass(frozen=True)
class Found:
    """A picture file, and what it says of itself."""

    path: Path
    settings: Mapping[str, Any]

    def says(self, name: str) -> str:
        """One of its settings, if it is a text."""
        value = self.settings.get(name)
        return plain(value) if isinstance(value, str) else ""


def score(
    pictures: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURE|FOLDER...", help="The pictures; of a folder, all that lie directly in it."),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What all of them were asked to show, without the style.", show_default="what each says of itself"
        ),
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="The picture whose style they should have, or an adapter; repeat it for several.",
            show_default="the adapter that each says it was drawn with",
        ),
    ] = None,
    content: Annotated[
        list[str] | None,
        typer.Option(help="What each reference picture shows, in their order.", show_default="guessed"),
    ] = None,
    scorer: Annotated[
        str,
        typer.Option(metavar="NAME", help="Who judges: clip, scorer, or a model of open_clip's as in ViT-B-16/openai."),
    ] = "clip",
    as_csv: Annotated[bool, options.flag("--csv", help="Print every picture as CSV.")] = False,
    model: options.Model = "pocket",
    device: options.Device = options.DeviceName.auto,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """See how good pictures are: what they show, their style, and what they copy.

    text and likeness are CLIP's cosines with the prompt and with the reference,
    csls the likeness of the style alone: above 0, it is nearer to the reference
    than to any other style. object is how surely it shows what was asked for,
    shape and style compare it with what the base draws without an adapter, leak
    is what it copied, and total = object + shape + style - leak. Pictures that
    generate drew need no other argument where their adapter is at hand.

      styledrop score styledrop-out
      styledrop score cat.png --prompt "a cat" --reference ref.png
    """
    screen = console.Screen(quiet, as_json)
    if as_csv and as_json:
        raise UsageError("--csv and --json both say how to print", "leave one of them out")
    if prompt is not None:
        prompt = checks.typed_text(prompt, "--prompt", 'say what the pictures should show: "a cat"')
    what = 'say what the reference shows: "a cat"'
    contents = [checks.typed_text(text, "a --content", what) for text in content or []]
    _check_references(reference or [], contents)
    found, broken = _found(pictures, screen)
    unsaid = [] if prompt else [one for one in found if not one.says("prompt")]
    if unsaid:
        more = f", nor do {len(unsaid) - 1:,} more" if len(unsaid) > 1 else ""
        raise UsageError(f"{unsaid[0].path} does not say what it was asked to show{more}", 'say it: --prompt "a cat"')
    base_folder = options.located(screen, model)
    with screen.working("waking up the base model"):
        from styledrop_cli.base.base import load_base
        from styledrop_cli.devices import pick_device
        from styledrop_cli.judging.clip_scorer import open_scorer
        from styledrop_cli.judging.picture_files import score_files

        base = load_base(base_folder, pick_device(device))
        clip_scorer = open_scorer(base, scorer)
        given = _given(base, reference, contents, screen) if reference else None
        groups: list[Group] = [(given, found)] if given else _by_adapter(base, found, screen)
    asked = [(references, _asked(some, prompt, references)) for references, some in groups]
    texts = list(dict.fromkeys(one.prompt for _, some in asked for one in some))
    for remark in base.remarks(texts, so="what it says of such pictures means little"):
        screen.warn(remark)
    calibration = None
    if any(references for references, _ in asked):
        from styledrop_cli.judging.csls import Calibration

        with screen.progress("looking at other styles") as move:
            calibration = Calibration(clip_scorer, move)
    rows: dict[Path, Row] = {}
    done = 0
    with screen.progress("scoring") as move:
        for references, some in asked:

            def on_progress(share: float, note: str, before: int = done, count: int = len(some)) -> None:
                move((before + share * count) / len(found), note)

            made = score_files(base, clip_scorer, some, references, on_progress, calibration)
            rows |= {row.picture.path: row for row in made.rows}
            broken += made.unreadable
            done += len(some)
    _show(screen, [rows[one.path] for one in found if one.path in rows], broken, scorer, as_csv)


# ---- what is scored ----


def _check_references(reference: list[Path], contents: list[str]) -> None:
    """Everything that can be wrong with the references without the base model, before it is loaded."""
    pictures = [path for path in reference if path.suffix != ".safetensors"]
    if contents and len(contents) != len(pictures):
        raise UsageError(
            f"reference pictures: {len(pictures)}, --content texts: {len(contents)}",
            "give one --content for each --reference picture, in their order, or none; an adapter knows its own",
        )
    if pictures:
        from styledrop_cli.io.images import load_reference

        for path in pictures:
            load_reference(path)
    for path in reference:
        if path not in pictures:
            from styledrop_cli.io.tensors import read_header

            read_header(path)


def _found(places: list[Path], screen: console.Screen) -> tuple[list[Found], list[tuple[Path, PictureError]]]:
    """The pictures at ``places`` without contact sheets, and those that cannot be read; at least one that can."""
    from styledrop_cli.io.images import read_png_settings

    files: dict[Path, tuple[Path, bool]] = {}
    others: list[Path] = []
    for place in places:
        if not place.exists():
            raise StyledropError(f"there is nothing at {place}", "check the spelling of the path")
        inside = place.is_dir()
        others += sorted(path for path in place.iterdir() if path.suffix.lower() in NOT_READ) if inside else []
        for path in sorted(filter(_is_picture, place.iterdir())) if inside else [place]:
            files.setdefault(path.resolve(), (path, inside))

    def read(path: Path) -> Mapping[str, Any] | PictureError:
        try:
            return read_png_settings(path) or {}
        except PictureError as error:
            return error

    if others:
        from styledrop_cli.corpus.folder import NOT_READ_HERE, told

        screen.warn(f"left out: {told({NOT_READ_HERE: others})}")
    found, broken, sheets = [], [], 0
    with ThreadPoolExecutor(READERS) as pool:
        settings = list(pool.map(read, [path for path, _ in files.values()]))
    for (path, inside), about in zip(files.values(), settings, strict=True):
        if isinstance(about, PictureError):
            broken.append((path, about))
        elif "seed" not in about if about else inside and SHEET.fullmatch(path.name):
            sheets += 1
        else:
            found.append(Found(path, about))
    if not found:
        _name(broken[1:], screen)
        if broken:
            raise broken[0][1]
        said = f"{places[0]} and {len(places) - 1} more" if len(places) > 1 else str(places[0])
        raise UsageError(
            f"there are no pictures to score in {said}{', only contact sheets' if sheets else ''}",
            f"name pictures, or a folder in which they lie ({', '.join(sorted(SUFFIXES))})",
        )
    if sheets:
        screen.say(f"contact sheets left out: {sheets}")
    return found, broken


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _asked(found: list[Found], prompt: str | None, references: References | None) -> list[Picture]:
    """What each was asked to show, or ``prompt``, without the style that was said behind it."""
    from styledrop_cli.judging.picture_files import Picture, without_style

    own = references.style if references else ""
    asked = []
    for one in found:
        style = one.says("style") if "style" in one.settings else own
        asked.append(Picture(one.path, without_style(without_style(prompt or one.says("prompt"), style), own), style))
    return asked


# ---- what it is compared with ----


def _given(base: Base, reference: list[Path], contents: list[str], screen: console.Screen) -> References:
    """The references that --reference names."""
    from styledrop_cli.io.images import load_reference
    from styledrop_cli.io.tensors import load_adapter
    from styledrop_cli.judging.evaluate import References
    from styledrop_cli.judging.picture_files import contents_of

    pictures = [path for path in reference if path.suffix != ".safetensors"]
    parts = [References.of_adapter(base, load_adapter(path)) for path in reference if path not in pictures]
    if pictures:
        images = [load_reference(path, screen.say) for path in pictures]
        parts.append(References.of_pictures(base, images, contents or contents_of(base, images, pictures)))
    return References.joined(parts)


def _by_adapter(base: Base, found: list[Found], screen: console.Screen) -> list[Group]:
    """The pictures by the adapter that drew them, as far as it is at hand; of the others it is said."""
    from styledrop_cli.base.prompt_tokens import quoted
    from styledrop_cli.io.tensors import load_adapter
    from styledrop_cli.judging.evaluate import References

    members: dict[Path | None, list[Found]] = {}
    look = cache(_adapter_at_hand)  # pictures of a folder are mostly by one
    for one in found:
        members.setdefault(_adapter_of(one, look), []).append(one)
    if without := members.get(None):
        absent = sorted({name for one in without if (name := one.says("adapter"))})
        screen.warn(
            f"{len(without):,} of {len(found):,} pictures have no reference{_absent(quoted(absent))}: only text and "
            "object are measured; say which it is with --reference FILE"
        )
    return [(References.of_adapter(base, load_adapter(path)) if path else None, some) for path, some in members.items()]


def _absent(names: str) -> str:
    return f" ({names} was not found)" if names else ""


def _adapter_of(one: Found, look: Callable[[str, str, Path], Path | None] | None = None) -> Path | None:
    """The adapter that a picture says it was drawn with, if it is at hand."""
    wanted = one.says("adapter_hash").partition("+")[0]
    return (look or _adapter_at_hand)(one.says("adapter"), wanted, one.path.resolve().parent)


def _adapter_at_hand(name: str, wanted: str, own: Path) -> Path | None:
    """An adapter by its ``name`` and the hash that is ``wanted``: here, in the picture's ``own`` folder or above it.

    A file of that name that has another hash is another adapter; the right one may be called otherwise by now. Pictures
    that say no hash are taken at their word.
    """
    if not name.endswith(".safetensors") or Path(name).name != name:
        return None
    folders = (Path(), own, own.parent)
    named = [path for folder in folders if (path := folder / name).is_file()]
    if not wanted:
        return named[0] if named else None
    others = (path for folder in folders for path in sorted(folder.glob("*.safetensors")) if _is_adapter(path))
    return next((path for path in chain(named, others) if file_hash(path).startswith(wanted)), None)


def _is_adapter(path: Path) -> bool:
    from styledrop_cli.io.tensors import read_header

    with suppress(StyledropError):
        return bool(read_header(path))
    return False


# ---- what comes out ----


def _show(
    screen: console.Screen, rows: list[Row], broken: list[tuple[Path, PictureError]], scorer: str, as_csv: bool
) -> None:
    """Print it, and end with 1 where something could not be read."""
    from styledrop_cli.judging.picture_files import COLUMNS, means

    if not rows:
        _name(broken[1:], screen)
        raise broken[0][1]

    def rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
        return {name: None if value is None else round(value, 4) for name, value in values.items()}

    mean = rounded(means(rows))
    listed = [
        {"picture": str(row.picture.path), "prompt": row.picture.prompt, **rounded(means([row])), "note": row.note}
        for row in rows
    ]
    shown: RenderableType | list[str] = _table(rows, scorer)
    if as_csv:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["picture", "prompt", *COLUMNS, "note"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
        shown = [text.getvalue().removesuffix("\n")]
    unreadable = [{"picture": str(path), "error": error.message} for path, error in broken]
    screen.result({"pictures": listed, "mean": mean, "scorer": scorer, "unreadable": unreadable}, shown)
    if broken:
        _name(broken, screen)
        raise typer.Exit(1)


def _name(broken: list[tuple[Path, PictureError]], screen: console.Screen) -> None:
    for _, error in broken[:BROKEN]:
        screen.warn(f"left out: {error.message}")
    if len(broken) > BROKEN:
        screen.warn(f"left out: {len(broken) - BROKEN:,} more that cannot be read")


def _table(rows: list[Row], scorer: str) -> Table:
    """A row for each picture, or for each prompt where these are many, and the mean of all."""
    from styledrop_cli.judging.picture_files import means

    mean = means(rows)
    columns = [name for name, value in mean.items() if value is not None]
    prompts = list(dict.fromkeys(row.picture.prompt for row in rows))
    many = len(rows) > MOST
    title = f"{len(rows):,} pictures by {scorer}; --csv lists every one" if many else f"by {scorer}"
    if not many and len(prompts) == 1:  # else their names say it, as generate gives them
        title = f"{prompts[0]}, by {scorer}"
    table = Table(box=None, title_justify="left", title=Text(title), padding=(0, 2, 0, 0), pad_edge=False)
    lines: list[tuple[list[str], Sequence[Row], str]] = []
    if many:
        table.add_column("prompt", overflow="fold")
        table.add_column("pictures", justify="right")
        for prompt in prompts:
            some = [row for row in rows if row.picture.prompt == prompt]
            lines.append(([prompt, f"{len(some):,}"], some, _counted(some)))
        lines.append((["mean", f"{len(rows):,}"], rows, ""))
    else:
        table.add_column("picture", overflow="fold")
        names = names_apart([row.picture.path for row in rows])
        lines += [([name], [row], row.note) for name, row in zip(names, rows, strict=True)]
        lines.append((["mean"], rows, ""))
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for head, members, note in lines:
        values = means(members)
        numbers = ["" if (value := values[name]) is None else f"{value:.3f}" for name in columns]
        table.add_row(*map(Text, (*head, *numbers, note)), style="bold" if members is rows else "")
    return table


def _counted(rows: list[Row]) -> str:
    """How many of a prompt's pictures are empty, and how many repeat another."""
    nothing = sum(row.note == "empty" for row in rows)
    alike = sum(bool(row.note) for row in rows) - nothing
    return ", ".join(f"{count} {what}" for count, what in ((nothing, "empty"), (alike, "alike")) if count)
