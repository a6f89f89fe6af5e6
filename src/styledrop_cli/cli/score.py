"""`styledrop score`: how good pictures are, by CLIP."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from styledrop_cli.cli import checks, console, load, options
from styledrop_cli.cli.options import flag, option
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import names_apart
from styledrop_cli.io.palette import KEEP, Palette, check_palette

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base
    from styledrop_cli.judging.evaluate import References
    from styledrop_cli.judging.found import Broken, Found
    from styledrop_cli.judging.picture_files import Picture, Row
    from styledrop_cli.judging.scores import ClipScorer

    Group = tuple[References | None, list[Picture]]

MOST = 40  # pictures that the table shows one by one
BROKEN = 5  # of those that cannot be read, how many are named


def score(
    pictures: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURE|FOLDER...", help="The pictures; of a folder, those directly in it."),
    ],
    *,
    prompt: Annotated[
        str | None,
        option("The prompt that all of them were drawn for, without the style.", shown="what each picture file says"),
    ] = None,
    reference: Annotated[
        list[Path] | None,
        option(
            "A picture whose style they should have, or an adapter, also a saved style. Repeat it for several.",
            metavar="FILE",
            **options.of_any_file,
            shown="the adapter that each picture file names",
        ),
    ] = None,
    content: Annotated[
        list[str] | None, option("What each reference picture shows, in their order.", shown="unknown")
    ] = None,
    palette: Annotated[
        str | None,
        option(
            "Colours that they should have, as generate takes them: also measure how near they are.",
            metavar="keep|PICTURE|COLOURS",
            shown="what each picture file says",
        ),
    ] = None,
    scorer: options.Scorer = "clip",
    as_csv: Annotated[bool, flag("Print every picture as CSV.", "--csv")] = False,
    model: options.Model = "pocket",
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """See how good pictures are: what they show, their style, and what they copy.

    text and likeness are cosines in CLIP's space, with the prompt and with the
    reference. csls is the likeness of the style alone: above 0, the picture is
    nearer to the reference than to any other style. object is how surely CLIP
    sees what the prompt says. shape and style compare the picture with what
    the base model draws without an adapter, leak is how much of the reference's
    content it copied, and total = object + shape + style - leak. What that is
    worth, seen and way say: seen is the share of pictures of other things that
    look less like the prompt, way how far the style is between the base model's
    own (0 %) and the reference's own (100 %). Pictures drawn by generate need no
    other argument as long as their adapter is at hand.

      styledrop score styledrop-out
      styledrop score cat.png --prompt "a cat" --reference ref.png
    """
    if as_csv and screen.as_json:
        raise UsageError("--csv and --json both say how to print", "leave one of them out")
    if prompt is not None:
        prompt = checks.typed_text(prompt, "--prompt", 'say what the pictures should show: "a cat"')
    if palette is not None:
        palette = checks.given_text(palette, "--palette").strip()
        check_palette(palette)
    contents = _check_references(reference or [], content)
    with screen.working("looking for pictures"):
        from styledrop_cli.judging.found import asked_of, by_adapter, find_pictures

        found, broken = find_pictures(pictures, screen.say)
    if not found:
        _fail(broken, screen)
    unsaid = [] if prompt else [one for one in found if not one.says("prompt")]
    if unsaid:
        more = f", nor do {len(unsaid) - 1:,} more" if len(unsaid) > 1 else ""
        raise UsageError(f"{unsaid[0].path} does not say what it was asked to show{more}", 'say it: --prompt "a cat"')
    with load.loading(screen, model, device) as load_base:
        from styledrop_cli.judging.clip_scorer import open_scorer

        base = load_base()
        clip_scorer = open_scorer(base, scorer)
        given = _given(base, reference, contents, screen) if reference else None
        groups = [(given, found)] if given else by_adapter(base, found, screen.say)
    asked = [(references, asked_of(some, prompt, references)) for references, some in groups]
    texts = list(dict.fromkeys(one.prompt for _, some in asked for one in some))
    for remark in base.remarks(texts, so="what it says of such pictures means little"):
        screen.warn(remark)
    palettes = _palettes(base, palette, reference or [], found)
    rows, unreadable = _scored(screen, base, clip_scorer, asked)
    from styledrop_cli.judging.picture_files import with_palettes

    scored = with_palettes([rows[one.path] for one in found if one.path in rows], palettes)
    _show(screen, scored, broken + unreadable, scorer, as_csv)


def _check_references(reference: list[Path], content: list[str] | None) -> list[str]:
    """What the reference pictures show, once all is found that can be wrong without the base model."""
    pictures = [path for path in reference if path.suffix != checks.ADAPTER]
    hint = "give one --content for each --reference picture, in their order, or none; an adapter knows its own"
    contents = checks.checked_contents(content, len(pictures), "reference picture", hint)
    checks.refuse_references(pictures)
    for path in reference:
        if path not in pictures:
            from styledrop_cli.adapters.header import read_header

            read_header(path)
    return contents


def _given(base: Base, reference: list[Path], contents: list[str], screen: console.Screen) -> References:
    """The references that --reference names."""
    from styledrop_cli.adapters.header import load_adapter
    from styledrop_cli.io.images import load_reference
    from styledrop_cli.judging.evaluate import References
    from styledrop_cli.judging.picture_files import contents_of

    pictures = [path for path in reference if path.suffix != checks.ADAPTER]
    parts = [References.of_adapter(base, load_adapter(path)) for path in reference if path not in pictures]
    if pictures:
        images = [load_reference(path, screen.say) for path in pictures]
        parts.append(References.of_pictures(base, images, contents or contents_of(base, images, pictures)))
    return References.joined(parts)


def _palettes(base: Base, said: str | None, reference: list[Path], found: Sequence[Found]) -> dict[Path, Palette]:
    """The palette of each picture, by its path: the one that is `said`, or what the files say, as far as they do.

    To keep colours, those of the adapters among the references are meant, or of the one that drew the picture.
    """
    from styledrop_cli.adapters.header import load_adapter
    from styledrop_cli.adapters.palette import palette_of
    from styledrop_cli.judging.found import adapter_of

    palettes: dict[Path, Palette] = {}
    if said is None:
        for one in found:
            with suppress(UsageError):  # a file from elsewhere may say anything
                palettes[one.path] = Palette.read(one.says("palette"))
        return palettes
    if said != KEEP:
        return dict.fromkeys((one.path for one in found), palette_of(said, base, []))
    given = [path for path in reference if path.suffix == checks.ADAPTER]
    made: dict[tuple[Path, ...], Palette] = {}
    for one in found:
        own = None if given else adapter_of(one)
        files = tuple(given) if own is None else (own,)
        if files not in made:
            made[files] = palette_of(said, base, [load_adapter(path) for path in files])
        palettes[one.path] = made[files]
    return palettes


def _scored(
    screen: console.Screen, base: Base, clip_scorer: ClipScorer, asked: Sequence[Group]
) -> tuple[dict[Path, Row], Broken]:
    """A row for each picture that could be read, by its path, and the others."""
    from styledrop_cli.judging.csls import Calibration
    from styledrop_cli.judging.picture_files import score_files

    with screen.progress("looking at other pictures") as move:
        calibration = Calibration(clip_scorer, move)
    rows: dict[Path, Row] = {}
    broken: Broken = []
    done, total = 0, sum(len(some) for _, some in asked)
    with screen.progress("scoring") as move:
        for references, some in asked:

            def on_progress(share: float, note: str, before: int = done, count: int = len(some)) -> None:
                move((before + share * count) / total, note)

            made = score_files(base, clip_scorer, some, references, on_progress, calibration)
            rows |= {row.picture.path: row for row in made.rows}
            broken += made.unreadable
            done += len(some)
    return rows, broken


# ---- what comes out ----


def _show(screen: console.Screen, rows: list[Row], broken: Broken, scorer: str, as_csv: bool) -> None:
    """Print it, and end with 1 where something could not be read."""
    from styledrop_cli.judging import meaning
    from styledrop_cli.judging.picture_files import means

    if not rows:
        _fail(broken, screen)

    def rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
        return {name: None if value is None else round(value, 4) for name, value in values.items()}

    mean = {**rounded(means(rows)), **meaning.mean([row.meaning for row in rows]).rounded()}
    listed = [
        {
            "picture": str(row.picture.path),
            "prompt": row.picture.prompt,
            **rounded(means([row])),
            "note": row.note,
            **row.meaning.rounded(),
        }
        for row in rows
    ]
    shown: RenderableType | list[str] = _table(rows, scorer)
    if as_csv:
        text = io.StringIO()
        writer = csv.DictWriter(
            text, ["picture", "prompt", *means(rows), "note", *meaning.NAMES, "verdict"], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(listed)
        shown = [text.getvalue().removesuffix("\n")]
    unreadable = [{"picture": str(path), "error": error.message} for path, error in broken]
    screen.result({"pictures": listed, "mean": mean, "scorer": scorer, "unreadable": unreadable}, shown)
    if not (as_csv or screen.as_json):
        about = [("seen", meaning.ABOUT_SEEN), ("way", meaning.ABOUT_WAY)]
        for name, said in about if rows[0].meaning.way is not None else about[:1]:
            screen.say(f"{name}: {said}", "dim")
        if "delta_e" in mean:
            from styledrop_cli.judging.palette import ABOUT

            screen.say(f"delta_e: {ABOUT}", "dim")
    if broken:
        _name(broken, screen)
        raise typer.Exit(1)


def _fail(broken: Broken, screen: console.Screen) -> NoReturn:
    """No picture can be read: the first error is the command's, the others are named."""
    _name(broken[1:], screen)
    raise broken[0][1]


def _name(broken: Broken, screen: console.Screen) -> None:
    for _, error in broken[:BROKEN]:
        screen.warn(f"left out: {error.message}")
    if len(broken) > BROKEN:
        screen.warn(f"left out: {len(broken) - BROKEN:,} more that cannot be read")


def _table(rows: list[Row], scorer: str) -> Table:
    """A row for each picture, or for each prompt where these are many, and the mean of all."""
    from styledrop_cli.judging import meaning
    from styledrop_cli.judging.picture_files import means

    mean = means(rows)
    columns = [name for name, value in mean.items() if value is not None]
    prompts = list(dict.fromkeys(row.picture.prompt for row in rows))
    many = len(rows) > MOST
    title = f"{len(rows):,} pictures by {scorer}; --csv lists every one" if many else f"by {scorer}"
    if not many and len(prompts) == 1:  # else their names say it, as generate gives them
        title = f"{prompts[0]}, by {scorer}"
    table = Table(box=None, title_justify="left", title=Text(title), padding=(0, 1, 0, 0), pad_edge=False)
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
    for name in (*columns, *meaning.NAMES):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold", min_width=10)
    for head, members, note in lines:
        values = means(members)
        numbers = ["" if (value := values.get(name)) is None else f"{value:.2f}" for name in columns]
        placed = meaning.mean([row.meaning for row in members])
        words = ", ".join(filter(None, (placed.words, note)))
        table.add_row(*map(Text, (*head, *numbers, *placed.percent(), words)), style="bold" if members is rows else "")
    return table


def _counted(rows: list[Row]) -> str:
    """How many of a prompt's pictures are empty, and how many repeat another."""
    nothing = sum(row.note == "empty" for row in rows)
    alike = sum(bool(row.note) for row in rows) - nothing
    return ", ".join(f"{count} {what}" for count, what in ((nothing, "empty"), (alike, "alike")) if count)
