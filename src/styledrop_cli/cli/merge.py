"""`styledrop merge`: several adapters made one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal as file_size

from styledrop_cli.cli import checks, console, load, options
from styledrop_cli.cli.train import say_how_to_draw
from styledrop_cli.settings import OBJECT

OUTPUT = Path("merged.safetensors")


def merge(
    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER[:WEIGHT]...",
            help="The adapters, of one kind and one base model, each with its weight: 1 is as it was trained, "
            "below 0 the opposite. Without weights all count alike, and add up to 1.",
            autocompletion=options.adapters_like,
        ),
    ],
    *,
    style: Annotated[
        str | None,
        options.option("The style in a few words, which are added to each prompt.", shown="the styles of all of them"),
    ] = None,
    output: Annotated[Path | None, options.output("FILE", "The adapter file to write.", shown=f"{OUTPUT}")] = None,
    save_as: options.SaveAs = None,
    overwrite: options.Overwrite = False,
    model: options.OwnModel = None,
    screen: console.Screen,
) -> None:
    """Make one adapter of several: it adds up what each of them does, at its weight.

    Bottleneck adapters merge with bottleneck adapters, LoRAs with LoRAs, of any
    size. The new file is as large as all of them together, and holds the
    reference pictures of all.

      styledrop merge a.safetensors:0.6 b.safetensors:0.4 -o both.safetensors
    """
    paths, weights = load.read_weighted(adapters, "weight")
    if style is not None:
        style = checks.typed_text(style, "--style", 'describe the style in a few words: "watercolor in gold"')
    output = checks.adapter_output(output, OUTPUT, save_as, overwrite)
    with screen.working("reading"):
        from styledrop_cli.adapters import merge as merge_module

        parts = merge_module.read_parts(paths, weights)
    with load.loading(screen, model, "cpu", paths[0]) as load_base:
        header = merge_module.merge(load_base(), parts, style=style, output=output, on_message=screen.say)
    screen.say(f"the adapter ({file_size(output.stat().st_size)}):")
    said = ("learns", "style", "contents", "kind", "config", "recommended", "merged")
    about = {name: getattr(header, name) for name in said}
    kept = load.keep(screen, output, save_as, overwrite)
    screen.result({"adapter": output, "saved_as": save_as if kept else None, **about}, [output])
    say_how_to_draw(
        screen, (kept and save_as) or output, model, header.contents[0] if header.learns == OBJECT else None
    )
    if not kept:
        raise typer.Exit(1)
