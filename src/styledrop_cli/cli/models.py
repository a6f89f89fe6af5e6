"""`styledrop models`: the base models there are, what they know, and the cache that holds the published ones."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.filesize import decimal as file_size
from rich.table import Table
from rich.text import Text

from styledrop_cli.base.registry import BUNDLED, POCKET, PUBLISHED
from styledrop_cli.cli import console, options
from styledrop_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from styledrop_cli.base.hub import Cached


def models(
    what: Annotated[
        Literal["list", "things", "fetch", "check", "remove"],
        typer.Argument(
            metavar="WHAT",
            help="list shows what there is, things what a model knows by name, fetch downloads a model, check looks "
            "whether it is sound, remove deletes it from the cache.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help=f"pocket, {', '.join(PUBLISHED)}, a folder, or owner/name on the hub; not for list."
        ),
    ] = None,
    *,
    precision: Annotated[
        Literal["fp16", "fp32"] | None,
        options.option("Which weights to fetch; fp32 takes twice the download.", shown="fp16"),
    ] = None,
    find: Annotated[str | None, options.option("Only the things that are called by this.", metavar="WORD")] = None,
    yes: Annotated[bool, options.flag("Remove without asking.", "--yes", "-y")] = False,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """List, fetch, check and remove base models, and see what they know.

    pocket is bundled. The published models (aMUSEd and Meissonic) are
    downloaded by fetch, or when --model first names one. They are kept in the
    cache of the Hugging Face hub (HF_HOME), which other programs share. fetch
    continues an interrupted download, repairs damaged files, and prints the
    folder. things lists what a model was taught by name, a name a line in a
    pipe; what is not among them it draws badly or not at all.

      styledrop models list
      styledrop models things pocket --find cat
      styledrop models check pocket
    """
    if (precision and what != "fetch") or (yes and what != "remove"):
        raise UsageError("--precision is for fetch, --yes for remove", f"leave it out: styledrop models {what}")
    if find is not None and what != "things":
        raise UsageError("--find is for things", f"leave it out: styledrop models {what}")
    if what == "list":
        if name:
            raise UsageError(f"list shows all models, not only {name}", "leave the name out")
        _list(screen)
        return
    if what == "things":
        _things(name or BUNDLED, find, screen)
        return
    if name is None:
        raise UsageError(f"models {what} needs a name", f"say which: styledrop models {what} amused-256")
    if what == "fetch":
        _fetch(name, precision or "fp16", screen)
    elif what == "remove":
        _remove(name, yes, screen)
    else:
        _check(name, device, screen)


# ---- list ----


def _list(screen: console.Screen) -> None:
    """Show pocket, the published models, and what else of their kind is in the cache."""
    from styledrop_cli.base import hub

    size = sum(path.stat().st_size for path in POCKET.iterdir())
    rows: list[dict[str, Any]] = [_row(BUNDLED, "bundled", size, ("fp16",), POCKET)]
    found = {one.name: one for one in hub.cached()}
    for name in dict.fromkeys([*PUBLISHED, *found]):
        if one := found.get(name):
            rows.append(_row(name, one.state, one.size, one.precisions, one.folder) | _beside(one))
        else:
            rows.append(_row(name, "not fetched", 0, (), None))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("model", "", "size", "precision"):
        table.add_column(column, no_wrap=True, justify="right" if column == "size" else "left")
    table.add_column("folder", overflow="fold")
    for row in rows:
        size_of = file_size(row["size"]) if row["size"] else ""
        cells = (row["name"], row["state"], size_of, ", ".join(row["precisions"]), str(row["folder"] or ""))
        table.add_row(*map(Text, cells))
    screen.result({"models": rows}, table)
    for row in rows:
        if borrowed := row.get("beside"):
            reads = f"; it reads with the text encoder '{row['text_encoder']}'"
            screen.say(f"{row['name']} also needs {_in_words(borrowed)}{reads}", "dim")
    if any(row["state"] == "in part" for row in rows):
        screen.say("complete what is there in part:  styledrop models fetch NAME", "dim")


def _row(name: str, state: str, size: int, precisions: tuple[str, ...], folder: Path | None) -> dict[str, Any]:
    return {"name": name, "state": state, "size": size, "precisions": list(precisions), "folder": folder}


def _beside(one: Cached) -> dict[str, Any]:
    """What a model's row says of parts from other repositories, which have rows of their own."""
    if not one.text_encoder:
        return {}
    return {"text_encoder": one.text_encoder, "beside": dict(one.beside)}


def _in_words(beside: Mapping[str, str]) -> str:
    """Parts and the repositories that they come from, for a sentence."""
    repos = dict.fromkeys(beside.values())
    parts = ((", ".join(part for part in beside if beside[part] == repo), repo) for repo in repos)
    return " and ".join(f"the {names} of {repo}" for names, repo in parts)


# ---- things ----


def _things(name: str, find: str | None, screen: console.Screen) -> None:
    """Print what a model knows by name, or what of it is called by the word `find`."""
    from styledrop_cli.base import hub
    from styledrop_cli.base.known_things import known_in

    folder = hub.find(name)
    if folder is None:
        raise ModelError(f"{name} is not here", f"fetch it: styledrop models fetch {shlex.quote(name)}")
    known = known_in(folder)
    if not known.names:
        raise ModelError(
            f"{name} does not say what it was taught", "it was trained on pictures of everything: try your word"
        )
    shown = known.names if find is None else known.called(find)
    if not shown:
        meant = known.meant(find or "")
        raise ModelError(
            f"{name} knows nothing that is called '{find}'",
            f"did you mean {meant}?"
            if meant
            else f"see all that it knows: styledrop models things {shlex.quote(name)}",
        )
    groups = _groups(shown)
    if screen.out.is_terminal:
        shown_as: list[RenderableType] = []
        for group, names in groups.items():
            shown_as += [f"\n{group} ({len(names)})", Columns(map(Text, names), (0, 2), equal=True, column_first=True)]
        screen.say(
            f"{name} knows {len(known.names):,} things by name{f', {len(shown):,} of them so called' * bool(find)}"
        )
        screen.result({"model": name, "things": groups}, Group(*shown_as))
    else:
        screen.result({"model": name, "things": groups}, [one for names in groups.values() for one in names])


def _groups(names: list[str]) -> dict[str, list[str]]:
    """Names in groups: things by the first letter of what they are, then letters, then numbers."""
    by_group: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda one: one.removeprefix("a ").removeprefix("an ").lower()):
        noun = name.removeprefix("a ").removeprefix("an ").removeprefix("the ")
        special = next((f"{kind}s" for kind in ("letter", "number") if noun.startswith(f"{kind} ")), None)
        by_group.setdefault(special or noun[:1].upper(), []).append(name)
    last = ("letters", "numbers")
    return {group: by_group[group] for group in sorted(by_group, key=lambda one: (one in last, one))}


# ---- fetch ----


def _fetch(name: str, precision: str, screen: console.Screen) -> None:
    """Bring a model here, and print its folder."""
    from styledrop_cli.base import hub
    from styledrop_cli.base.download import fetch

    here, repo = hub.find(name), hub.repository(hub.split(name)[0])
    if repo is None and here is not None:
        folder = here
        screen.say(f"{name} is here already")
    else:
        with screen.progress(f"fetching {name}") as move:
            folder = fetch(name, precision=precision, on_progress=move, on_message=screen.say)
        screen.say(f'draw with it:  styledrop generate --model {shlex.quote(name)} --base-only "a cat"', "dim")
    snapshot = folder.parent if folder.parent.parent.name == "snapshots" else folder
    about = {"repository": repo, "commit": snapshot.name, "precision": precision} if repo else {}
    screen.result({"model": name, "folder": folder, **about}, [folder])


# ---- check ----


def _check(name: str, device: str, screen: console.Screen) -> None:
    """Print what is wrong with a model that is here; exit code 1 if anything is."""
    from styledrop_cli.base import hub
    from styledrop_cli.base.cache import placed

    folder = hub.find(name)
    if folder is None:
        raise ModelError(
            f"{name} is not, or not wholly, in the cache", f"fetch it: styledrop models fetch {shlex.quote(name)}"
        )
    where = placed(folder, hub.split(name)[1])
    with screen.progress(f"checking {name}") as move:
        problems = hub.verify(folder, move, [where.found[part] for part in where.beside])
    if not problems:
        problems += _acceptance(hub.as_read(folder, name), device, screen)
    said: dict[str, Any] = (
        {"text_encoder": where.text_encoder, "beside": dict(where.beside)} if where.text_encoder else {}
    )
    if where.text_encoder:
        screen.say(f"it reads with the text encoder '{where.text_encoder}'", "dim")
    if where.beside:
        screen.say(f"it has {_in_words(where.beside)}", "dim")
    about = {"model": name, "folder": folder, **said, "problems": problems}
    screen.result(about, problems or [f"{name} is sound: {folder}"])
    if problems:
        if hub.repository(hub.split(name)[0]):
            screen.say(f"fetch it again:  styledrop models fetch {shlex.quote(name)}", "dim")
        raise typer.Exit(1)


def _acceptance(model: str, device: str, screen: console.Screen) -> list[str]:
    """What is wrong with the model when it is used, a sentence each; what could not be looked at is said aloud."""
    from styledrop_cli.base.acceptance import problems
    from styledrop_cli.base.base import load_base
    from styledrop_cli.devices import pick_device

    with screen.working("reading every weight, and drawing"):
        try:
            base = load_base(model, pick_device(device))
        except ModelError as error:
            return [error.message]
        found, looked_at = problems(base)
    if not found:
        screen.say(looked_at)
    return found


# ---- remove ----


def _remove(name: str, yes: bool, screen: console.Screen) -> None:
    """Delete a model from the cache; asks first, unless it was told not to."""
    from styledrop_cli.base import hub

    one = hub.in_cache(name)
    if one and not yes:
        size = file_size(one.size)
        if not sys.stdin.isatty():
            raise UsageError(
                f"nobody is here to confirm that {name} ({size}) is to be removed", "confirm it with --yes"
            )
        if not typer.confirm(f"Remove {name} ({size}) from the cache?", err=True):
            screen.say(f"{name} stays")
            raise typer.Exit(1)
    freed = hub.remove(name)
    screen.say(f"{file_size(freed)} are free again")
    screen.result({"model": name, "freed": freed}, [])
