"""The options that most commands share."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from styledrop_cli.cli.console import Screen
from styledrop_cli.environment import expanded


class DeviceName(StrEnum):
    """What `--device` accepts."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


common = partial(typer.Option, rich_help_panel="Options of every command")
flag = partial(typer.Option, metavar="")  # a yes-or-no option needs no <bool> beside it in the help

Device = Annotated[DeviceName, common(help="Where to compute; auto takes the best there is.")]
Quiet = Annotated[bool, common("--quiet", "-q", metavar="", help="Say only what was written, and warnings.")]
Json = Annotated[bool, common("--json", metavar="", help="Print the result, or the error, as JSON, for scripts.")]
model_option = partial(
    common,
    metavar="NAME|FOLDER",
    help="The base model: pocket, which is bundled, amused-256, amused-512, a folder, or owner/name on the hub.",
)
Model = Annotated[str, model_option()]
OwnModel = Annotated[str | None, model_option(show_default="the adapter's own, or pocket")]
OwnStyle = Annotated[
    str | None,
    typer.Option(
        help='Say the style in other words than the adapter\'s own; an empty "" drops it.',
        show_default="the adapter's own",
    ),
]


class Command(TyperCommand):
    """A command whose usage line reads as it is typed: what it takes, then its options."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The pieces behind the command's name."""
        arguments = (one for one in self.params if one.param_type_name == "argument")
        return [*(one.metavar or one.name.upper() for one in arguments), "[OPTIONS]"]


def at_home(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the `~` of its paths replaced: in `--output=~/pictures` the shell leaves it.

    What is no path by its type is one if it begins so: a model's name, an adapter with its share.
    """

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(one) for one in value]
        if isinstance(value, Path):
            return Path(expanded(str(value)))
        return expanded(value) if isinstance(value, str) and value.startswith("~/") else value

    @wraps(command)
    def at_home_too(**values: Any) -> None:
        command(**{name: whole(value) for name, value in values.items()})

    return at_home_too


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that settings keep their own defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def located(screen: Screen, model: str | None, adapter: Path | None = None) -> str:
    """What `--model` names as a folder, fetched from the hub if need be; pocket stays pocket.

    Without a name it is the one that `adapter` was trained on, if that is a published one, or else pocket: a file from
    anywhere does not choose what is fetched.

    Raises:
        ModelError: there is no such model, or no such adapter.
        StyledropError: it cannot be fetched.
    """
    if model is None and adapter is not None:
        from styledrop_cli.base.hub import PUBLISHED
        from styledrop_cli.io.tensors import read_header

        own = str(read_header(adapter)["base"].get("name"))
        model = own if own in PUBLISHED else None
    model = model or "pocket"
    if model == "pocket":
        return model
    from styledrop_cli.base import hub

    if folder := hub.find(model):
        return str(folder)
    with screen.progress(f"fetching {model}") as move:
        return str(hub.locate(model, move, screen.say))
