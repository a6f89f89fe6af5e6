"""The library of styles: adapters kept by name, in a folder of this user's own.

The folder is all there is: a style called ``ink`` is its file ``ink.safetensors``. Imports no torch, so that commands
can tell a style's name from a prompt at once.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from styledrop_cli.environment import expanded
from styledrop_cli.errors import ModelError, StyledropError, UsageError
from styledrop_cli.io.files import atomic_write, named_anew, read_bytes, writing
from styledrop_cli.io.run_names import RUN, run_of

SUFFIX = ".safetensors"
VARIABLE = "STYLEDROP_STYLES"  # another folder for the library
ANY = f"Name an adapter file (*{SUFFIX}), or a style of 'styledrop styles list'."
LONGEST = 60  # characters of a name
# Letters of any script and digits, and inside also what file systems, shells and hubs let through.
NAME = re.compile(rf"[^\W_](?:[\w.-]{{0,{LONGEST - 2}}}\w)?")
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # no file can be called so on Windows


def folder() -> Path:
    """The folder of the library; it need not be there. UsageError for a user without a home folder."""
    if chosen := os.environ.get(VARIABLE, "").strip():
        return Path(expanded(chosen, f"unset {VARIABLE}, or name the folder in full"))
    from platformdirs import user_data_path

    try:
        return user_data_path("styledrop", appauthor=False) / "styles"
    except RuntimeError:
        raise UsageError("this user has no home folder to keep styles in", f"set HOME, or {VARIABLE}") from None


def names() -> list[str]:
    """The names of all styles in the library, in the order of the alphabet; none where it cannot be read."""
    try:
        return sorted(one.stem for one in folder().iterdir() if one.suffix == SUFFIX and is_name(one.stem))
    except (OSError, UsageError):
        return []


def is_name(word: str) -> bool:
    """Whether a style may be called so."""
    return bool(NAME.fullmatch(word)) and not word.endswith(SUFFIX) and not RESERVED.fullmatch(word)


def name_from(text: str) -> str:
    """The name of a style made of a text, such as that of a file: what a name cannot hold becomes "-".

    UsageError where nothing is left of it.
    """
    made = re.sub(r"[^\w.-]+", "-", text).strip("-._")[:LONGEST].strip("-._")
    file_of(made)
    return made


def file_of(name: str) -> Path:
    """The file of the style called ``name``, whether it is there or not; UsageError for what no style can be called."""
    if not is_name(name):
        raise UsageError(
            f"'{name[:LONGEST]}' cannot be the name of a style",
            f"use letters, digits, - and _, at most {LONGEST}: ink-on-paper",
        )
    return folder() / f"{name}{SUFFIX}"


def is_saved(word: str) -> bool:
    """Whether a style called so is in the library."""
    try:
        return is_name(word) and file_of(word).is_file()
    except (OSError, UsageError):  # the folder cannot be looked into, or this user has none
        return False


def names_adapter(word: str) -> bool:
    """Whether ``word`` stands for an adapter, and is no prompt: a file ``*.safetensors``, or a style in the library."""
    return word.endswith(SUFFIX) or is_saved(word)


def find(word: str) -> Path:
    """The adapter file that ``word`` stands for: the name of a style in the library, or the path of a file.

    What ends in .safetensors or has folders in it is a path. ModelError if it is neither a style nor a file.
    """
    path = Path(expanded(word))
    if word.endswith(SUFFIX) or len(path.parts) > 1:
        return path
    if is_saved(word):
        return file_of(word)
    if path.is_file():
        return path
    raise ModelError(f"there is no style called '{word[:LONGEST]}', and no such file", nearest(word) or ANY)


def refuse_taken(name: str, overwrite: bool) -> None:
    """Raise UsageError for a name that no style can have, or that one has already unless ``overwrite``."""
    if file_of(name).exists() and not overwrite:
        raise UsageError(
            f"there is a style called '{name}' already",
            f"take another name, or say --overwrite to replace it; 'styledrop inspect {name}' shows what it is",
        )


def refuse_unfinished(name: str) -> None:
    """Raise UsageError for a name under which a training works, or was stopped half way."""
    _refuse_busy(name)
    if run_of(file_of(name)).exists():
        raise UsageError(
            f"a training for a style called '{name}' was stopped half way",
            f"go on with it by its own command, or drop it: styledrop styles remove {name}",
        )


def save(source: Path, name: str, overwrite: bool = False) -> Path:
    """Copy the adapter file ``source`` into the library as ``name``, whole or not at all; returns the file there.

    What ``source`` holds is not looked at. UsageError if the name is taken, also by another process meanwhile, unless
    ``overwrite``; ModelError if ``source`` cannot be read, StyledropError if the library cannot be written.
    """
    refuse_taken(name, overwrite)
    target = file_of(name)
    if not overwrite:
        refuse_unfinished(name)
    elif target.exists() and source.exists() and source.samefile(target):
        return target
    try:
        data = read_bytes(source, None)
    except OSError as error:
        raise ModelError(f"cannot read {source}: {error.strerror or error}") from None
    _refuse_busy(name)
    with _changing(target):
        if not atomic_write(target, data, new=not overwrite):
            refuse_taken(name, overwrite)
        drop_training(name)
    return target


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """As ``writing`` a file of the library: StyledropError says that the library may be elsewhere."""
    try:
        with writing(path):
            yield
    except UsageError:  # a name that is taken
        raise
    except StyledropError as error:
        hint = (error.hint or "").replace("choose another place with -o", f"set {VARIABLE} to another folder")
        raise StyledropError(error.message, hint) from None


def drop_training(name: str) -> None:
    """Remove the folder of the training of a style that is another one now."""
    shutil.rmtree(run_of(file_of(name)), ignore_errors=True)


def rename(old: str, new: str) -> Path:
    """Call the style ``old`` ``new`` from now on, with the folder of its training; returns its file.

    UsageError if there is no style ``old``, one that is called ``new`` already, or a training that works on either.
    """
    source, target = style_of(old), file_of(new)
    refuse_taken(new, overwrite=False)
    refuse_unfinished(new)
    _refuse_busy(old)
    with _changing(target):
        if not named_anew(source, target):
            refuse_taken(new, overwrite=False)
        if run_of(source).exists():
            run_of(source).replace(run_of(target))
    return target


def remove(name: str) -> int:
    """Delete a style with the folder of its training, also one that was stopped half way; returns the freed bytes.

    UsageError if there is nothing of that name, or a training works on it at this moment.
    """
    freed, file = removable(name), file_of(name)
    _refuse_busy(name)
    with _changing(file):
        file.unlink(missing_ok=True)
        if run_of(file).exists():
            shutil.rmtree(run_of(file))
    return freed


def removable(name: str) -> int:
    """How many bytes ``remove`` would free; UsageError if there is nothing of that name."""
    if not run_of(file_of(name)).is_dir():
        style_of(name)
    return size(name)


def size(name: str) -> int:
    """How many bytes a style takes, with the folder of its training."""
    file = file_of(name)
    parts = [file, *run_of(file).rglob("*")]
    return sum(part.stat().st_size for part in parts if part.is_file())


def unfinished() -> list[str]:
    """The names of styles whose training was stopped half way: their file is not there yet."""
    try:
        found = sorted(one.name.removesuffix(SUFFIX + RUN) for one in folder().glob(f"*{SUFFIX}{RUN}"))
    except (OSError, UsageError):
        return []
    return [name for name in found if is_name(name) and not is_saved(name)]


def called(file: Path) -> str:
    """What a person calls an adapter file: the name of a style in the library, or else its path."""
    return file.stem if is_name(file.stem) and is_saved(file.stem) and file_of(file.stem) == file else str(file)


def beside(file: Path, name: str) -> Path:
    """Where what is made of an adapter file lies: beside it, or in the working folder if it is one of the library."""
    return Path(name) if called(file) == file.stem else file.with_name(name)


def file_or_place(word: str) -> Path:
    """The file of a style in the library, or else the path that ``word`` is: of a picture, a folder, an adapter."""
    return file_of(word) if is_saved(word) else Path(expanded(word))


def style_of(name: str) -> Path:
    """The file of a style that is in the library; UsageError if there is none of that name."""
    if not is_saved(name):
        raise UsageError(f"there is no style called '{name[:LONGEST]}'", nearest(name) or ANY)
    return file_of(name)


def _refuse_busy(name: str) -> None:
    """Raise UsageError, naming the process, where a training works on a style of that name."""
    from styledrop_cli.io import run_folder  # its locks take time to import

    run_folder.refuse_busy(run_of(file_of(name)))


def nearest(word: str) -> str | None:
    """A hint at the style whose name is nearest to ``word``; None if there is none like it."""
    near = get_close_matches(word.lower(), names(), 1)
    return f"Did you mean {near[0]}? 'styledrop styles list' shows all that are saved." if near else None
