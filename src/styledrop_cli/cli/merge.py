"""`styledrop merge`: several adapters made one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from styledrop_cli.cli import checks, console, options
from styledrop_cli.cli.train import draw_with
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import OBJECT

OUTPUT = Path("merged.safetensors")
SUFFIX = ".safetensors"


def merge(
    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER[:WEIGHT]...",
            help="The adapter files, all of one kind and one base, each with how much of it there is to be: 1 is as it "
            "was trained, less than 0 away from it. Without weights each has the same, and they add up to 1.",
        ),
    ],
    style: Annotated[
        str | None,
        typer.Option(
            help="The style in a few words. It is put into each prompt.", show_default="the styles of all of them"
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The adapter file to write.")] = OUTPUT,
    overwrite: Annotated[bool, options.flag("--overwrite", help="Replace the output if it is already there.")] = False,
    model: options.OwnModel = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Make one adapter of several: it adds what all of them would, each at its weight.

    Bottlenecks merge with bottlenecks, LoRAs with LoRAs, of any size. The file
    is as large as all of them together, and holds what they learnt from.

      styledrop merge a.safetensors:0.6 b.safetensors:0.4 -o both.safetensors
    """
    screen = console.Screen(quiet, as_json)
    paths, weights = _parsed(adapters)
    if style is not None:
        style = checks.typed_text(style, "--style", 'describe the style in a few words: "watercolor in gold"')
    checks.refuse_output(output, overwrite)
    if output.suffix != SUFFIX:
        raise UsageError(f"the adapter's name {output} does not end in {SUFFIX}", "name it so with -o")
    with screen.working("reading"):
        from styledrop_cli.adapters import merge as merge_module
        from styledrop_cli.base.base import load_base
        from styledrop_cli.devices import pick_device

        parts = merge_module.read_parts(paths, weights)
    base_folder = options.located(screen, model, paths[0])
    with screen.working("merging"):
        base = load_base(base_folder, pick_device("cpu"))
        header = merge_module.merge(base, parts, style=style, output=output, on_message=screen.say)
    screen.say(f"the adapter ({console.file_size(output.stat().st_size)}):")
    about = {name: header[name] for name in ("learns", "style", "contents", "kind", "config", "recommended", "merged")}
    screen.result({"adapter": output, **about}, [output])
    screen.say(draw_with(output, model, header["contents"][0] if header["learns"] == OBJECT else None), "dim")


def _parsed(words: list[str]) -> tuple[list[Path], list[float] | None]:
    """The files and their weights, or None where none is given: a weight stands behind the last colon of a word.

    Raises UsageError for what is no adapter's name, and where only some have a weight.
    """
    paths: list[Path] = []
    weights: list[float] = []
    for word in words:
        name, colon, tail = word.rpartition(":")
        try:
            weight = float(tail) if colon else None
        except ValueError:
            if name.endswith(SUFFIX):
                raise UsageError(f"'{tail[:20]}' is no weight of {name}", f"give a number: {name}:0.5") from None
            weight = None  # a colon of the path itself
        path = word if weight is None else name
        if not path.endswith(SUFFIX):
            raise UsageError(f"'{path}' is no adapter file (*{SUFFIX})", "name adapters alone")
        paths.append(Path(path))
        weights += [] if weight is None else [weight]
    if weights and len(weights) != len(paths):
        raise UsageError(
            f"{len(weights)} of {len(paths)} adapters have a weight", f"give each one, or none: {paths[0]}:0.5"
        )
    return paths, weights or None
