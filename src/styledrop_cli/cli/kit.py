"""`styledrop kit`: a brand's list of assets, drawn in its style at the sizes that it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from styledrop_cli import __version__
from styledrop_cli.cli import checks, console, drawing, load, options
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.kit_file import SIDES, read_kit
from styledrop_cli.io.files import read_json, write_json

MANIFEST = "kit.json"
LARGEST_MANIFEST = 200_000_000  # bytes: what is said of as many pictures as one list may ask for
COLUMNS = 6


def kit(
    adapter: options.AdapterFile,
    assets: Annotated[
        Path, typer.Argument(metavar="FILE", help="The list of assets, a TOML file; see examples/brand.toml.")
    ],
    *,
    output: Annotated[Path | None, options.output("FOLDER", "The folder for the pictures.", shown="FILE-kit")] = None,
    colours: options.Colours,
    ready: options.Assets,
    model: options.OwnModel = None,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """Draw a brand's list of assets: names, prompts, sizes, variants.

    An asset in the file has a name and a prompt and, if needed, size =
    "1024x512", number, best (draw that many and keep the clearest), fit =
    "cover", transparent = true, style, seed, lambda_b, ... Values above the first asset hold for
    all. Also writes a contact sheet, and kit.json for scripts; pictures that
    the base model's CLIP takes for something else are marked weak in both.
    What is in the folder already is not drawn again.

      styledrop kit adapter.safetensors examples/brand.toml -o brand
    """
    checks.refuse_no_adapter(adapter, "styledrop kit adapter.safetensors brand.toml")
    palette = colours.checked()
    chosen = ready.checked()
    checks.refuse_outside(size=(ready.size, *SIDES))
    size = chosen.pop("size", None)
    listed = [
        replace(asset, size=asset.size or (size and (size, size)), options=chosen | dict(asset.options))
        for asset in read_kit(assets)
    ]
    folder = Path(f"{assets.stem}-kit") if output is None else output
    checks.refuse_unwritable(folder)
    _refuse_manifest(folder / MANIFEST)
    base, mixture = load.load_to_draw(screen, model, device, adapter)
    from styledrop_cli.base.prompt_tokens import quoted
    from styledrop_cli.generation.kit import enlarged, manifest_entry, things_of, weak_ones

    screen.warn_of_lines(base, {asset.name: [asset.prompt] for asset in listed})
    drawing.say_roughly(screen, base, "kit")
    if larger := enlarged(base, listed):
        screen.say(
            f"{base.name} draws {base.sizes[-1]} px; larger pictures are enlarged, and no sharper: {quoted(larger)}"
        )
    blind = any(asset.best > 1 for asset in listed) and drawing.is_blind(screen, base)
    things = [thing for asset in listed for thing in things_of(base, mixture, asset, palette, not blind, screen.say)]
    known = base.contents or list(dict.fromkeys(asset.prompt for asset in listed))
    collection, result = drawing.collect(screen, base, mixture, things, folder, known)
    made = [manifest_entry(collection, index, path) for index, path in enumerate(collection.paths)]
    weak = weak_ones(base, collection, known)
    if weak:
        names = quoted([made[index]["name"] for index in weak])
        screen.warn(f"hard to recognise: {names}; try another seed, a larger best, or lambda_b = 3 for them")
    svgs = drawing.finish(screen, collection.paths, ready)
    made = [
        {**one, "weak": index in weak} | ({"svg": svgs[path]["svg"].name} if path in svgs else {})
        for index, (one, path) in enumerate(zip(made, collection.paths, strict=True))
    ]
    with screen.working("laying out a sheet"):
        labels = [
            f"{one['name']} · {one['size'][0]} x {one['size'][1]}{' · weak' if one['weak'] else ''}" for one in made
        ]
        sheets = list(collection.sheets("kit", labels, mixture.style, COLUMNS))
    manifest = {"adapter": adapter.name, "model": base.name, "styledrop": __version__, "assets": made}
    write_json(folder / MANIFEST, manifest)
    pictures_of = [{**one, "path": path} for one, path in zip(made, collection.paths, strict=True)]
    shown = [*collection.paths, *(one["svg"] for one in svgs.values()), *sheets, folder / MANIFEST]
    screen.result({"pictures": pictures_of, "sheets": sheets, "manifest": folder / MANIFEST} | result, shown)


def _refuse_manifest(path: Path) -> None:
    """Refuse, with a UsageError, to write over a file that is not ours."""
    try:
        ours = not path.exists() or "styledrop" in read_json(path, LARGEST_MANIFEST)
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise UsageError(f"{path} is there already, and was not written by this command", "choose a folder with -o")
