"""`styledrop pull`: an adapter from the Hugging Face hub into the library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from styledrop_cli.adapters import library
from styledrop_cli.base.registry import BUNDLED, PUBLISHED
from styledrop_cli.base.upload import check_repository
from styledrop_cli.cli import checks, console, options
from styledrop_cli.cli.options import option
from styledrop_cli.cli.train import say_how_to_draw
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write, read_bytes

if TYPE_CHECKING:
    from styledrop_cli.adapters.pull import Found


def pull(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the hub.")],
    *,
    save_as: Annotated[
        str | None, option("What to call the style in the library.", metavar="NAME", shown="the repository's name")
    ] = None,
    output: Annotated[Path | None, options.output("FILE", "Write it to this file, and not into the library.")] = None,
    revision: Annotated[
        str | None, option("A branch, a tag or a commit of the repository.", metavar="NAME", shown="main")
    ] = None,
    file: Annotated[str | None, option("Which file of the repository, if it holds several adapters.")] = None,
    overwrite: options.Overwrite = False,
    screen: console.Screen,
) -> None:
    """Get an adapter from the Hugging Face hub, and keep it as a style.

    It is checked before it is kept. Its base model is not fetched now:
    generate does that, where it is a published one. For a private repository
    log in first: hf auth login.

      styledrop pull anna/ink
      styledrop generate ink "a cat"
    """
    check_repository(repo)
    if save_as is not None and output is not None:
        raise UsageError("--save-as and --output are two places", "leave out one of the two")
    name = save_as or repo.partition("/")[2]
    if output is not None:
        checks.refuse_output(output, overwrite, suffix=checks.ADAPTER)
    elif save_as is None and not library.is_name(name):
        raise UsageError(f"no style can be called '{name}'", "say what to call it with --save-as")
    else:
        library.file_of(name)
    with screen.working(f"asking for {repo}"):
        from styledrop_cli.adapters.header import load_adapter
        from styledrop_cli.adapters.pull import find_adapter, keep

        found = find_adapter(repo, revision, file, screen.say)
    with screen.progress(f"fetching {repo}") as move:
        if output is None:
            path = keep(found, name, overwrite, move, screen.say)
        else:
            path = output
            fetched = found.fetch(move, screen.say)
            load_adapter(fetched)
            atomic_write(path, read_bytes(fetched, None))
    _say_what_it_is(screen, found, path, None if output else name)


def _say_what_it_is(screen: console.Screen, found: Found, path: Path, name: str | None) -> None:
    from styledrop_cli.adapters.header import read_header

    header = read_header(path)
    base = str(header.base.get("name", "unnamed"))
    what = "the object" if header.is_object else "the style"
    screen.say(f"it draws {what} '{header.name}' with {base}")
    if base != BUNDLED and base not in PUBLISHED:
        screen.warn(
            f"{base} is a base model of its maker's own: without it, the adapter does not draw (--model FOLDER)"
        )
    about = {"repository": found.repo, "file": found.name, "commit": found.commit, "name": name}
    screen.result({"adapter": path, **about, "style": header.style, "base": base}, [path])
    say_how_to_draw(screen, Path(name) if name else path, None, header.name if header.is_object else None)
