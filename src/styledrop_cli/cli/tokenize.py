"""`styledrop tokenize`: how well the image tokenizer can show a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from styledrop_cli.cli import checks, console, load, options
from styledrop_cli.cli.generate import OUTPUT


def tokenize(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture to look at.")],
    *,
    output: Annotated[Path, options.output("FOLDER", "The folder for the files.")] = OUTPUT,
    model: options.Model = "pocket",
    device: options.Device = "auto",
    screen: console.Screen,
) -> None:
    """See a picture as the base model sees it, what it shows, and how much is lost.

    Turns the middle square of the picture into tokens and back, and writes
    three files: the tokens' ids (.json), the square, and what came back. What
    the tokenizer cannot show, no adapter can learn.

      styledrop tokenize ref.png
    """
    from styledrop_cli.io.files import atomic_write, to_text
    from styledrop_cli.io.images import load_reference, save_png

    image = load_reference(picture, screen.say)
    checks.refuse_unwritable(output)
    files = {
        "ids": output / f"{picture.stem}-ids.json",
        "original": output / f"{picture.stem}-original.png",
        "reconstruction": output / f"{picture.stem}-reconstruction.png",
    }
    for file in files.values():
        checks.refuse_output(file, overwrite=True)
    with load.loading(screen, model, device) as load_base:
        from styledrop_cli.adapters.examples import guess, sure_guess
        from styledrop_cli.base import fidelity

        base = load_base()
        seen, shows, sure = base.reconstruct(image), guess(base, image), sure_guess(base, image)
    ids = seen.ids.tolist()
    name, meaning = fidelity.verdict(seen.edges)
    size = base.tokenizer.config.num_vq_embeddings
    header = {"model": base.name, "codebook_size": size, "psnr": round(seen.psnr, 2), "edges": round(seen.edges, 3)}
    header["verdict"] = name
    atomic_write(files["ids"], to_text(_as_json(header, ids)).encode())
    save_png(seen.original, files["original"])
    save_png(seen.shown, files["reconstruction"])
    different = len({value for row in ids for value in row})
    screen.say(f"{len(ids)} x {len(ids[0])} ids, {different} different ones of {size}")
    screen.say(f"{max(seen.edges, 0):.0%} of its edges are left ({seen.psnr:.1f} dB), {name}: {meaning}", "bold")
    if seen.edges < fidelity.FAIR:
        screen.say(fidelity.REMEDY)
    if sure:
        screen.say(f"it shows {sure[0]}, it seems ({sure[1]:.0%})")
    told = {"content": shows[0], "probability": round(shows[1], 3), "sure": sure is not None} if shows else None
    warning = fidelity.warning(base.name, picture.name, seen.edges) or None
    screen.result({**files, **header, "shows": told, "warning": warning}, list(files.values()))


def _as_json(header: dict[str, object], ids: list[list[int]]) -> str:
    """JSON with one row of the grid a line, so that a person can read it."""
    rows = ",\n    ".join(json.dumps(row) for row in ids)
    return json.dumps(header, indent=2)[:-2] + f',\n  "ids": [\n    {rows}\n  ]\n}}\n'
