"""The options that several commands share, each declared once, and what makes a function a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from styledrop_cli.cli import checks
from styledrop_cli.cli.console import COMMON
from styledrop_cli.environment import expanded
from styledrop_cli.settings import (
    PRESETS,
    PUBLISHED,
    RoundSettings,
    SampleSettings,
    TrainSettings,
    exact,
    preset_values,
)

DRAWS = "How it draws"  # a panel of the help


class DeviceName(StrEnum):
    """What `--device` accepts."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


common = partial(typer.Option, rich_help_panel=COMMON)
flag = partial(typer.Option, metavar="")  # a yes-or-no option needs no <bool> beside it in the help


def output(metavar: str, text: str, **more: Any) -> Any:
    """`--output`, for a file or a folder."""
    return typer.Option("--output", "-o", metavar=metavar, help=text, **more)


def setting(
    text: str, of: type[SampleSettings | TrainSettings | RoundSettings], name: str, *names: str, **more: Any
) -> Any:
    """An option for the number called `name` among the settings `of` a kind; the help shows its range."""
    shown = " to ".join(exact(bound) for bound in of.RANGES[name])
    return typer.Option(*names, help=text, metavar=f"<{shown}>" if len(shown) < 15 else None, **more)


def drawn(text: str, name: str, default: str | None = None) -> Any:
    """An option for a number among the settings of drawing; without a `default`, the adapter recommends it."""
    default = default or f"what the adapter recommends, or {SampleSettings.defaults()[name]:g}"
    return setting(text, SampleSettings, name, rich_help_panel=DRAWS, show_default=default)


def by_base(name: str, *others: str) -> str:
    """The default of a training setting: pocket's, and that of the published bases, which `others` share."""
    ours, theirs = TrainSettings.defaults()[name], PUBLISHED["training"][name]
    *first, last = ["amused-256", "amused-512", *others]
    return f"{ours:g}; {theirs:g} for {', '.join(first)} and {last}"


model_option = partial(
    common,
    metavar="NAME|FOLDER",
    help="The base model: pocket (bundled), amused-256, amused-512, a folder, or owner/name on the Hugging Face hub.",
)
scorer_option = partial(
    typer.Option,
    metavar="NAME",
    help="The CLIP that judges: clip (the base model's own), scorer (the bundled second one), or a model of open_clip, "
    "such as ViT-B-16/openai.",
)
style_words = partial(typer.Option, help='The style in a few words: "watercolor", "melting golden 3d rendering".')

Model = Annotated[str, model_option()]
OwnModel = Annotated[str | None, model_option(show_default="the adapter's, or pocket")]
Device = Annotated[DeviceName, common(help="Where to compute; auto takes a graphics card if there is one.")]
FirstSeed = Annotated[int, common("--seed", help="Seed of the first picture; each further picture adds 1.")]
Overwrite = Annotated[bool, flag("--overwrite", help="Replace the output if it already exists.")]
Number = Annotated[int, typer.Option("--number", "-n", help="How many pictures to draw of each prompt.")]
Scorer = Annotated[str, scorer_option()]
SecondScorer = Annotated[str | None, scorer_option(show_default="scorer")]
AdapterFile = Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter file.")]
OwnStyle = Annotated[
    str | None,
    typer.Option(
        help='Other words for the style than the adapter\'s own; "" leaves it out of the prompt.',
        show_default="the adapter's own",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How pictures are drawn. None stands for what was not given."""

    preset: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PRESETS),
            help="A set of settings: fast takes about two thirds of the time, paper has StyleDrop's values. Options "
            "given beside it override it.",
            show_default=False,
            rich_help_panel=DRAWS,
        ),
    ] = None
    negative: Annotated[str, typer.Option(help="What the pictures should not show.", rich_help_panel=DRAWS)] = ""
    strength: Annotated[
        float | None, drawn("How strongly the adapter acts: 0 not at all, 1 as it was trained.", "strength")
    ] = None
    lambda_a: Annotated[
        float | None,
        drawn("Guidance towards the style. Too high, the content of the reference picture comes back.", "lambda_a"),
    ] = None
    lambda_b: Annotated[
        float | None,
        drawn("Guidance towards the prompt. Too high, the base model's own look comes back.", "lambda_b"),
    ] = None
    steps: Annotated[int | None, drawn("Drawing steps: more are slower and finer.", "steps")] = None

    def checked(self, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of the preset, and those that were given, by the names of `SampleSettings`.

        Raises:
            UsageError: there is no such preset, or one of the values is none that it can have.
        """
        values = given(**vars(self)) | {"seed": seed}
        values.pop("preset", None)
        if self.negative.strip():
            hint = "say in a few words what the pictures should not show"
            values["negative"] = checks.typed_text(self.negative, "--negative", hint)
        preset = preset_values(self.preset)
        SampleSettings(**values)
        return preset, values


class Command(TyperCommand):
    """A command whose usage line reads as it is typed: what it takes, then its options."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The pieces behind the command's name."""
        arguments = (one for one in self.params if one.param_type_name == "argument")
        return [*(one.metavar or one.name.upper() for one in arguments), "[OPTIONS]"]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as Typer takes it.

    A parameter whose type is a dataclass stands for the options that are its fields. The `~` of paths is replaced,
    which a shell leaves in `--output=~/pictures`; a text that begins so (a model's name, an adapter with its share) is
    a path, too.
    """
    types = get_type_hints(function, include_extras=True)
    groups = {name: group for name, group in types.items() if isinstance(group, type) and is_dataclass(group)}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            own = get_type_hints(groups[name], include_extras=True)
            options = [(field.name, own[field.name], field.default) for field in fields(groups[name])]
        else:
            options = [(name, types[name], parameter.default)]
        parameters += [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for option, annotation, default in options
        ]

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(one) for one in value]
        if isinstance(value, Path):
            return Path(expanded(str(value)))
        return expanded(value) if isinstance(value, str) and value.startswith("~/") else value

    @wraps(function)
    def run(**values: Any) -> None:
        values = {name: whole(value) for name, value in values.items()}
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(**values, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def given(**values: Any) -> dict[str, Any]:
    """The values that were given, so that settings keep their own defaults for the others."""
    return {name: value for name, value in values.items() if value is not None}
