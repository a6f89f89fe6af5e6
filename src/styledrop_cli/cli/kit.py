"""`styledrop kit`: a brand's list of assets, drawn in its style at the sizes that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from styledrop_cli import __version__
from styledrop_cli.cli import checks, console, drawing, load, options
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.kit_file import Asset, read_kit
from styledrop_cli.io.files import read_json, write_json

if TYPE_CHECKING:
    from styledrop_cli.base.base import Base
    from styledrop_cli.generation.collection import Collection, Thing
    from styledrop_cli.generation.pipeline import StyleMix

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
    model: options.OwnModel = None,
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """Draw a brand's list of assets: names, prompts, sizes, variants.

    An asset in the file has a name and a prompt and, if needed, size =
    "1024x512", number, best (draw that many and keep the clearest), fit =
    "cover", style, seed, lambda_b, ... Values above the first asset hold for
    all. Also writes a contact sheet, and kit.json for scripts. What is in the
    folder already is not drawn again.

      styledrop kit adapter.safetensors examples/brand.toml -o brand
    """
    checks.refuse_no_adapter(adapter, "styledrop kit adapter.safetensors brand.toml")
    listed = read_kit(assets)
    folder = Path(f"{assets.stem}-kit") if output is None else output
    checks.refuse_unwritable(folder)
    _refuse_manifest(folder / MANIFEST)
    base, mixture = load.load_to_draw(screen, model, device, adapter)
    screen.warn_of_unknown(base, list(dict.fromkeys(asset.prompt for asset in listed)))
    _say_what_is_enlarged(screen, base, listed)
    blind = any(asset.best > 1 for asset in listed) and drawing.is_blind(screen, base)
    things = [thing for asset in listed for thing in _things(screen, base, mixture, asset, blind)]
    known = base.contents or list(dict.fromkeys(asset.prompt for asset in listed))
    collection, result = drawing.collect(screen, base, mixture, things, folder, known)
    made = [_manifest_entry(collection, index, path) for index, path in enumerate(collection.paths)]
    with screen.working("laying out a sheet"):
        labels = [f"{one['name']} · {one['size'][0]} x {one['size'][1]}" for one in made]
        sheets = list(collection.sheets("kit", labels, mixture.style, COLUMNS))
    manifest = {"adapter": adapter.name, "model": base.name, "styledrop": __version__, "assets": made}
    write_json(folder / MANIFEST, manifest)
    pictures_of = [{**one, "path": path} for one, path in zip(made, collection.paths, strict=True)]
    shown = [*collection.paths, *sheets, folder / MANIFEST]
    screen.result({"pictures": pictures_of, "sheets": sheets, "manifest": folder / MANIFEST} | result, shown)


def _refuse_manifest(path: Path) -> None:
    """Refuse, with a UsageError, to write over a file that is not ours."""
    try:
        ours = not path.exists() or "styledrop" in read_json(path, LARGEST_MANIFEST)
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise UsageError(f"{path} is there already, and was not written by this command", "choose a folder with -o")


def _things(screen: console.Screen, base: Base, mixture: StyleMix, asset: Asset, blind: bool) -> list[Thing]:
    """The pictures of an asset; each has seeds of its own."""
    from styledrop_cli.generation.collection import Thing
    from styledrop_cli.generation.extend import shaped
    from styledrop_cli.generation.pipeline import PictureRequest

    settings = drawing.settings_of(base, mixture, asset.options)
    cut = base.text_tokenizer.cut
    settings = replace(settings, negative=cut(settings.negative, "", screen.say))
    prompt = cut(asset.prompt, mixture.style if asset.style is None else asset.style, screen.say)
    each = 1 if blind else asset.best
    width, height = _size(base, asset)
    shape: dict[str, Any] = {}
    if (width, height) != (settings.size, settings.size):
        shape = {"width": width, "height": height} | ({"fit": asset.fit} if width != height else {})
    return [
        Thing(
            stem,
            drawing.candidates(PictureRequest(prompt, settings.seed + index * each, settings, asset.style), each),
            partial(shaped, width=width, height=height, fit=asset.fit) if shape else None,
            shape,
        )
        for index, stem in enumerate(asset.stems)
    ]


def _size(base: Base, asset: Asset) -> tuple[int, int]:
    return asset.size or (base.sizes[-1], base.sizes[-1])


def _say_what_is_enlarged(screen: console.Screen, base: Base, listed: Sequence[Asset]) -> None:
    """A remark, once, where an asset's picture is larger than the base draws."""
    from styledrop_cli.base.prompt_tokens import quoted

    def scaled_to(asset: Asset) -> int:
        return (max if asset.fit == "cover" else min)(_size(base, asset))

    if larger := [asset.name for asset in listed if scaled_to(asset) > base.sizes[-1]]:
        screen.say(
            f"{base.name} draws {base.sizes[-1]} px; larger pictures are enlarged, and no sharper: {quoted(larger)}"
        )


def _manifest_entry(collection: Collection, index: int, path: Path) -> dict[str, Any]:
    """What `kit.json` says of a picture."""
    said = collection.about(index)
    side = said["size"]
    own = ("prompt", "seed", "width", "height", "size", "adapter", "model", "styledrop")
    return {
        "name": collection.things[index].stem,
        "file": path.name,
        "prompt": said["prompt"],
        "seed": said["seed"],
        "size": [said.get("width", side), said.get("height", side)],
        "settings": {name: value for name, value in said.items() if name not in own},
    }
