"""The options that several commands share, each declared once, and what makes a function a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import typer
from typer.core import TyperCommand

from styledrop_cli.adapters import library
from styledrop_cli.base.registry import AMUSED, BUNDLED, POCKET_SPEC, PUBLISHED
from styledrop_cli.cli import checks
from styledrop_cli.cli.console import COMMON, helps
from styledrop_cli.cli.recipe import CONFIG, SAVE, Recipe, read_recipe
from styledrop_cli.environment import expanded
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import SUFFIXES
from styledrop_cli.io.palette import EXAMPLE, check_palette
from styledrop_cli.settings import PRESETS, Checked, Ranges, SampleSettings, TrainSettings, exact, preset_values


def option(
    text: str | None = None,
    *names: str,
    metavar: str | None = None,
    shown: str | bool = True,
    panel: str = "",
    **more: Any,
) -> Any:
    """An option with its help, or None: that of the setting of its name.

    `shown` is what the help says its default is, `panel` the part of the help it is in.
    """
    return typer.Option(*names, help=text, metavar=metavar, show_default=shown, rich_help_panel=panel or None, **more)


def flag(text: str | None, *names: str, **more: Any) -> Any:
    """A yes-or-no option, which needs no <bool> beside it in the help."""
    return option(text, *names, metavar="", **more)


def output(metavar: str, text: str, **more: Any) -> Any:
    """`--output`, for a file or a folder."""
    return option(text, "--output", "-o", metavar=metavar, **more)


def number(text: str) -> Any:
    """`--number`, of pictures."""
    return option(text, "--number", "-n")


def common(text: str, *names: str, **more: Any) -> Any:
    """An option that most commands have."""
    return option(text, *names, panel=COMMON, **more)


def range_of(ranges: Ranges, name: str) -> str | None:
    """What stands behind an option for a number, `<0 to 50>`; nothing where that would be too long to read."""
    shown = " to ".join(map(exact, ranges[name]))
    return f"<{shown}>" if len(shown) < 15 else None


def reach_of(name: str) -> str:
    """How far a scale goes on the bundled base, for the help: `<0 to 0.5 on pocket>`."""
    return f"<{exact(SampleSettings.RANGES[name][0])} to {exact(POCKET_SPEC.reach[name])} on {BUNDLED}>"


def by_base(name: str, *others: str) -> str:
    """The default of a training setting: pocket's, and that of the published bases, which `others` share."""
    ours, theirs = TrainSettings.defaults()[name], AMUSED.training[name]
    return f"{ours:g}; {theirs:g} for {' and '.join(('published base models', *others))}"


def recommended(name: str) -> str:
    """The default of a setting that an adapter's file recommends."""
    ours = SampleSettings.defaults()[name]
    theirs = AMUSED.sampling.get(name, ours)
    also = f" ({theirs:g} for amused-256 and amused-512)" if theirs != ours else ""
    return f"what the adapter recommends, or {ours:g}{also}"


MODEL = (
    f"The base model: pocket (bundled), {', '.join(PUBLISHED)}, a folder, or owner/name on the Hugging Face hub. "
    "+bundled or +laion behind those of Meissonic's kind chooses the text encoder."
)
SCORER = (
    "The CLIP that judges: clip (the base model's own), scorer (the bundled second one), or a model of open_clip, such "
    "as ViT-B-16/openai."
)
STYLE = 'The style in a few words: "watercolor", "melting golden 3d rendering".'
PROMPTS = "A file of prompts to draw, one a line."

Model = Annotated[str, common(MODEL, metavar="NAME|FOLDER")]
OwnModel = Annotated[str | None, common(MODEL, metavar="NAME|FOLDER", shown="the adapter's, or pocket")]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], common("Where to compute; auto takes a graphics card if there is one.")
]
FirstSeed = Annotated[int, common("Seed of the first picture; each further picture adds 1.", "--seed")]
Overwrite = Annotated[bool, flag("Replace the output if it already exists.", "--overwrite")]
Scorer = Annotated[str, option(SCORER, metavar="NAME")]
SecondScorer = Annotated[str | None, option(SCORER, metavar="NAME", shown="scorer")]
ADAPTER = "The adapter file, or the name of a saved style."


def adapters_like(incomplete: str) -> list[str]:
    """What the tab key makes of the beginning of an adapter: names of saved styles, then files and folders."""
    return _styles_like(incomplete) + _files_like(incomplete, (checks.ADAPTER,))


def files_like(incomplete: str) -> list[str]:
    """As `adapters_like`, where pictures may stand as well."""
    return _styles_like(incomplete) + _files_like(incomplete, (checks.ADAPTER, *SUFFIXES))


def _styles_like(incomplete: str) -> list[str]:
    return [name for name in library.names() if name.startswith(incomplete)]


def _files_like(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    folder, _, begun = incomplete.rpartition("/")
    try:
        there = sorted(Path(expanded(f"{folder}/" if folder or incomplete.startswith("/") else ".")).iterdir())
    except (OSError, UsageError):
        return []
    shown = [one for one in there if one.name.startswith(begun) and not one.name.startswith(".")]
    named = [f"{one.name}/" if one.is_dir() else one.name for one in shown]
    return [incomplete[: len(incomplete) - len(begun)] + name for name in named if name.endswith((*suffixes, "/"))]


# How a word becomes an adapter file, and what the tab key offers for it; and where a picture or folder may stand, too.
of_adapter = {"parser": library.find, "autocompletion": adapters_like}
of_any_file = {"parser": library.file_or_place, "autocompletion": files_like}
AdapterFile = Annotated[Path, typer.Argument(metavar="ADAPTER", help=ADAPTER, **of_adapter)]
SaveAs = Annotated[
    str | None,
    option(
        "Keep the adapter in the library under this name, which then stands for it in every command: styledrop "
        "generate NAME. It is written nowhere else, unless -o says so.",
        "--save-as",
        metavar="NAME",
        autocompletion=_styles_like,
    ),
]
OwnStyle = Annotated[
    str | None,
    option(
        'Other words for the style than the adapter\'s own; "" leaves it out of the prompt.', shown="the adapter's own"
    ),
]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How pictures are drawn. None stands for what was not given."""

    PANEL: ClassVar = "How it draws"
    SETTINGS: ClassVar = SampleSettings

    preset: Annotated[
        str | None,
        option(
            "A set of settings: fast takes about two thirds of the time, paper draws as StyleDrop does, on pocket with "
            "scales of its own, preview is a rough first look in few steps. Options given beside it override it.",
            metavar="|".join(PRESETS),
            shown=False,
        ),
    ] = None
    negative: Annotated[str | None, option(shown='what suits the base model; "" is nothing')] = None
    strength: Annotated[float | None, option(metavar=reach_of("strength"), shown=recommended("strength"))] = None
    lambda_a: Annotated[float | None, option(metavar=reach_of("lambda_a"), shown=recommended("lambda_a"))] = None
    lambda_b: Annotated[float | None, option(metavar=reach_of("lambda_b"), shown=recommended("lambda_b"))] = None
    guard: Annotated[float | None, option(shown=exact(SampleSettings.guard))] = None
    steps: Annotated[int | None, option(shown=recommended("steps"))] = None

    def checked(self, seed: int) -> tuple[str | None, dict[str, Any]]:
        """The name of the preset, and the values that were given, by the names of `SampleSettings`.

        Raises UsageError if there is no such preset, or for a value that a setting cannot have.
        """
        values = given(**vars(self)) | {"seed": seed}
        values.pop("preset", None)
        if self.negative is not None:
            hint = "say in a few words what the pictures should not show"
            said = self.negative.strip() and checks.typed_text(self.negative, "--negative", hint)
            values["negative"] = said
        SampleSettings(**(preset_values(self.preset) | values))
        return self.preset, values


@dataclass(frozen=True, kw_only=True)
class Colours:
    """The palette of what is drawn. None stands for what was not given."""

    PANEL: ClassVar = "Colours"
    SETTINGS: ClassVar = SampleSettings

    palette: Annotated[str | None, option(metavar="keep|PICTURE|COLOURS", shown="the colours as they are drawn")] = None
    palette_strength: Annotated[float | None, option(shown=f"{SampleSettings.palette_strength:g}")] = None

    def checked(self) -> dict[str, Any]:
        """What was given, by the names of `SampleSettings`.

        Raises UsageError for what is no palette, for a strength out of range, and for one without a palette.
        """
        values = given(**vars(self))
        SampleSettings(**{name: value for name, value in values.items() if name != "palette"})
        if "palette" in values:
            values["palette"] = checks.given_text(values["palette"], "--palette").strip()
            check_palette(values["palette"])
        elif values:
            raise UsageError("--palette-strength belongs to --palette, which was not given", f"say --palette {EXAMPLE}")
        return values


@dataclass(frozen=True, kw_only=True)
class Assets:
    """Pictures ready to be used: their size, without their ground, as SVG. None stands for what was not given."""

    PANEL: ClassVar = "Ready to use"
    SETTINGS: ClassVar = SampleSettings
    RANGES: ClassVar = {"svg_colours": (2, 64)}

    size: Annotated[
        int | None,
        option(
            "Width and height of the pictures. What is larger than the base model draws, up to 4096, is resampled from "
            "its largest.",
            metavar="PIXELS",
            shown="the largest that the base model draws",
        ),
    ] = None
    transparent: Annotated[bool, flag(None, "--transparent")] = False
    holes: Annotated[
        str | None, option(metavar="|".join(SampleSettings.CHOICES["holes"]), shown=SampleSettings.holes)
    ] = None
    svg: Annotated[
        bool,
        flag(
            "Also write an SVG file beside each picture: few flat colours, for logos and flat art, at any size. Needs "
            'pip install "styledrop[svg]".',
            "--svg",
        ),
    ] = False
    svg_colours: Annotated[int | None, option("How many colours an SVG has at most.", shown="16")] = None

    def checked(self) -> dict[str, Any]:
        """The values that were given, by the names of `SampleSettings`.

        Raises UsageError for a value that a setting cannot have, and for what has no use alone; StyledropError where
        what makes SVG files is missing.
        """
        checks.refuse_outside(svg_colours=(self.svg_colours, *self.RANGES["svg_colours"]))
        values = given(size=self.size, holes=self.holes, transparent=self.transparent or None)
        SampleSettings(**values)
        for value, other in ((self.holes, "transparent"), (self.svg_colours, "svg")):
            if value is not None and not getattr(self, other):
                name = "holes" if other == "transparent" else "svg-colours"
                raise UsageError(f"--{name} {value} says nothing without --{other}", f"say --{other} too")
        if self.svg:
            from styledrop_cli.generation.svg import need_vtracer

            need_vtracer()
        return values


class Command(TyperCommand):
    """A command whose usage line reads as it is typed: what it takes, then its options."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The pieces behind the command's name."""
        arguments = (one for one in self.params if one.param_type_name == "argument")
        return [*(one.metavar or one.name.upper() for one in arguments), "[OPTIONS]"]


def _recipe_options() -> list[inspect.Parameter]:
    """`--config` and `--save-config`, and Typer's own knowledge of what was given."""
    config = common(
        "Take the options from this recipe, a TOML file; those given beside it override it.",
        "--config",
        metavar="FILE",
    )
    config.is_eager, config.callback = True, read_recipe
    save = common("Write the options given here into a recipe, for --config.", "--save-config", metavar="FILE")
    kinds: dict[str, Any] = {
        CONFIG: Annotated[Path | None, config],
        SAVE: Annotated[Path | None, save],
        "context": typer.Context,
    }
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in kinds.items()]


def command(function: Callable[..., None], recipe: bool = False) -> Callable[..., None]:
    """`function` as Typer takes it, with `recipe` also read from and written into recipes.

    A parameter whose type is a dataclass stands for the options that are its fields; its `PANEL` and `RANGES`, if it
    has any, are those of its options. An option without a help of its own, and one without a range, has those of the
    setting of its name in the class `SETTINGS`. A parameter that is a `Recipe` gets what was given.

    The `~` of paths is replaced, which a shell leaves in `--output=~/pictures`; a text that begins so (a model's name,
    an adapter with its share) is a path, too.
    """
    types = get_type_hints(function, include_extras=True)
    groups = {name: group for name, group in types.items() if isinstance(group, type) and is_dataclass(group)}
    given_to = [name for name, group in groups.items() if group is Recipe]
    groups = {name: group for name, group in groups.items() if name not in given_to}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in given_to:
            continue
        single = parameter.replace(annotation=types[name], kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += _options_of(groups[name]) if name in groups else [single]

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(one) for one in value]
        if isinstance(value, Path):
            return Path(expanded(str(value)))
        return expanded(value) if isinstance(value, str) and value.startswith("~/") else value

    if recipe:
        parameters += _recipe_options()

    @wraps(function)
    def run(**values: Any) -> None:
        context, saved = values.pop("context", None), whole(values.pop(SAVE, None))
        values.pop(CONFIG, None)
        values |= {name: Recipe.of(context) for name in given_to}
        if saved is not None:
            checks.refuse_output(saved, overwrite=True, suffix=".toml", option="--save-config")
        values = {name: whole(value) for name, value in values.items()}
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(**values, **made)
        if saved is not None and not helps():
            Recipe.of(context).write(saved)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _options_of(group: Any) -> Iterator[inspect.Parameter]:
    """The options that a dataclass stands for."""
    types, settings = get_type_hints(group, include_extras=True), getattr(group, "SETTINGS", Checked)
    ranges = settings.RANGES | getattr(group, "RANGES", {})
    for field in fields(group):
        kind, declared = types[field.name].__origin__, copy(types[field.name].__metadata__[0])
        declared.help = declared.help or settings.HELP[field.name]
        declared.rich_help_panel = getattr(group, "PANEL", None) or declared.rich_help_panel
        if field.name in ranges and declared.metavar is None:
            declared.metavar = range_of(ranges, field.name)
        annotation = Annotated[kind, declared]  # type: ignore[valid-type]
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation
        )


def given(**values: Any) -> dict[str, Any]:
    """The values that were given, so that settings keep their own defaults for the others."""
    return {name: value for name, value in values.items() if value is not None}
