"""How a command comes to its base model and its adapters."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styledrop_cli.adapters import library
from styledrop_cli.base.registry import BUNDLED
from styledrop_cli.cli.checks import ADAPTER
from styledrop_cli.cli.console import Screen
from styledrop_cli.errors import StyledropError, UsageError

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base
    from styledrop_cli.generation.pipeline import StyleMix

Shares = list[tuple[Path, float]]  # adapter files, each with its share


def located(screen: Screen, model: str | None, adapter: Path | None = None) -> str:
    """What `--model` names as a folder, fetched from the hub if need be; pocket stays pocket.

    Without a name it is the one that `adapter` was trained on, if that is a published one, or else pocket: a file from
    anywhere does not choose what is fetched. The text encoder is the one that the name says, or else that of the
    adapter's training; where one is said, what this returns ends in a plus sign and its name. Raises ModelError if
    there is no such model or adapter, StyledropError if the model cannot be fetched.
    """
    if adapter is not None:
        from styledrop_cli.adapters.header import read_header

        model = _as_trained(model, read_header(adapter).base)
    model = model or "pocket"
    if model == "pocket":
        return model
    from styledrop_cli.base import hub

    folder = hub.find(model)
    if folder is None:
        with screen.progress(f"fetching {model}") as move:
            from styledrop_cli.base.download import locate

            folder = locate(model, move, screen.say)
    return hub.as_read(folder, model)


def own_model(about: Mapping[str, Any]) -> str:
    """The name of the published base that an adapter's header tells `about`, with its text encoder; else pocket."""
    return _as_trained(None, about) or BUNDLED


def _as_trained(model: str | None, own: Mapping[str, Any]) -> str | None:
    """`model` with the text encoder of the base that an adapter calls its `own`; that base where none is named."""
    from styledrop_cli.base import hub
    from styledrop_cli.base.cache import family_at
    from styledrop_cli.base.registry import OWN_TEXT, PUBLISHED

    if model is None:
        model = own["name"] if own.get("name") in PUBLISHED else None
    if model is None or hub.split(model)[1]:
        return model
    spec = PUBLISHED.get(model) or (family_at(Path(model)) if Path(model).is_dir() else None)
    encoder = own.get("text_encoder")
    choice = spec is not None and encoder in (OWN_TEXT, *spec.encoders) and bool(spec.encoders)
    return f"{model}+{encoder}" if choice else model


@contextmanager
def loading(
    screen: Screen, model: str | None, device: str, adapter: Path | None = None
) -> Iterator[Callable[[], Base]]:
    """Find the base model, see `located`, and show that it is being loaded; what this yields loads it.

    What takes as long, importing libraries and reading adapters, is done in here too: before the base is loaded, if it
    may fail.
    """
    folder = located(screen, model, adapter)
    with screen.working("loading the base model"):
        from styledrop_cli.base.base import load_base
        from styledrop_cli.devices import pick_device

        yield lambda: load_base(folder, pick_device(device))


def load_to_draw(screen: Screen, model: str | None, device: str, adapter: Path | None) -> tuple[Base, StyleMix]:
    """The base model, and the one adapter that draws with it, or none."""
    with loading(screen, model, device, adapter) as load_base:
        mixture = read_mixture([(adapter, 1.0)] if adapter else [])
        return load_base(), mixture


def read_weighted(words: Sequence[str], what: str, kind: str = "adapter") -> tuple[list[Path], list[float] | None]:
    """`["a.safetensors:0.6", "b.safetensors:0.4"]` as files and numbers, or None if there are no numbers.

    The files are adapters, where the name of a style in the library stands for its file, or, if that is their `kind`,
    pictures and folders of them. Raises UsageError if a word is neither file nor style, a number is none, or only some
    have one; `what` it is, a share or a weight.
    """
    paths: list[Path] = []
    numbers: list[float] = []
    for word in words:
        # A colon may belong to the path: C:\a.safetensors.
        alone = library.names_adapter(word) if kind == "adapter" else _is_file_alone(word)
        name, number = (word, None) if alone else word.rpartition(":")[::2]
        if kind == "adapter" and not library.names_adapter(name):
            raise UsageError(
                f"'{name or word}' is no adapter file (*{ADAPTER}), and no style in the library",
                f"write a{ADAPTER}:0.6 b{ADAPTER}:0.4",
            )
        paths.append(library.find(name) if kind == "adapter" else Path(name))
        if number is not None:
            try:
                numbers.append(float(number))
            except ValueError:
                raise UsageError(f"'{number[:20]}' is no {what} of {name}", f"give a number: {name}:0.5") from None
    if numbers and len(numbers) != len(paths):
        raise UsageError(
            f"{len(numbers)} of {len(paths)} {kind}s have a {what}", f"give each one, or none: {paths[0]}:0.5"
        )
    return paths, numbers or None


def _is_file_alone(word: str) -> bool:
    """Whether a word names a picture without a number behind it: a file may have a colon in its name.

    What is there under the whole word is meant by it. Else what stands behind the last colon is a number, or has to be
    one if a file is there under what stands before it.
    """
    name, _, number = word.rpartition(":")
    if not name or os.path.exists(word):
        return True
    try:
        float(number)
    except ValueError:
        return not os.path.exists(name)
    return False


def keep(screen: Screen, file: Path, save_as: str | None, overwrite: bool, *, trained: bool = False) -> bool:
    """Copy a finished adapter `file` into the library as `save_as`, unless that is where it was written.

    `trained` is whether the folder of a training beside it is its own; that of another style, which it replaces, goes.
    Whether that went well, or nothing was to be done; if it did not, a warning says what to do: the file is there.
    """
    if save_as is None:
        return True
    if file == library.file_of(save_as):
        if not trained:
            library.drop_training(save_as)
        return True
    try:
        library.save(file, save_as, overwrite)
    except StyledropError as error:
        again = f"styledrop styles import {shlex.quote(str(file))} --name {save_as}"
        screen.warn(f"not kept as '{save_as}': {error.message}. The adapter itself is written; keep it with: {again}")
        return False
    screen.say(f"kept as '{save_as}' in the library")
    return True


def read_mixture(styles: Shares, thing: Path | None = None, gamma: float | None = None) -> StyleMix:
    """The adapter files of a mixture, read. UsageError: shares do not add up to 1. ModelError: a file is no adapter."""
    from styledrop_cli.adapters.header import load_adapter
    from styledrop_cli.generation.pipeline import GAMMA, StyleMix

    files = tuple((load_adapter(path), share) for path, share in styles)
    return StyleMix(files, load_adapter(thing) if thing else None, GAMMA if gamma is None else gamma)
