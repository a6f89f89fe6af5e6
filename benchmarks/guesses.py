"""How far a base's guess of what a picture shows can be trusted: ``python benchmarks/guesses.py``.

``train`` guesses it where nobody says it. Here the same guess is made of pictures that nothing was trained on: icons of
families that no base of ours has seen, on white and on coloured grounds, the same redrawn in styles that none has seen,
and the reference pictures in ``examples/``. The last line says from which confidence on the guess is right often enough
to be taken: ``base/registry.py`` holds that number as ``guess_from``.
"""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import torch
from torch import Tensor

from paired.families import HELD_OUT
from paired.measures import markdown
from paired.openmoji import fetch, icons_of, render
from parts import INDEX, ROOT, UNSEEN, icons_by_thing, names_of
from script import run_in_words
from styledrop_cli.adapters.examples import best_guesses
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.registry import BUNDLED, POCKET
from styledrop_cli.corpus.styles.canvas import Canvas
from styledrop_cli.devices import generator, pick_device
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import write_json
from styledrop_cli.io.images import load_cutout, load_picture, square, to_tensor

WANTED = 0.8  # share of guesses that must be right
FEWEST = 30  # guesses that a share is worth something for
BOUNDS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
SIZE = 256
Guesses = list[tuple[float, bool]]  # how sure, and whether it was right


def judged(base: Base, pictures: Tensor, wanted: list[str]) -> Guesses:
    """The guesses for pictures ``[B,3,S,S]`` in [0,1] that show what is ``wanted``."""
    return [(sure, guess == right) for (guess, sure), right in zip(best_guesses(base, pictures), wanted, strict=True)]


def of_icons(base: Base, folder: Path, work: Path, index: Path, every: int) -> dict[str, Guesses]:
    """Guesses of unseen families' icons, by how they are shown: on white, on colours, redrawn in unseen styles.

    Of the things that the base was taught every so-manieth is taken.
    """
    icons, names = icons_by_thing(index), dict([*names_of(folder).items()][::every])
    found: dict[str, Guesses] = {}
    draws = generator(0)
    for family in UNSEEN:
        drawn = icons_of(fetch(work, family))
        chosen = {names[t]: icon for t in names for icon in icons.get(t, [])[:1] if icon in drawn}
        render(drawn, [i for i in chosen.values() if not (work / family / f"{i}.png").exists()], work / family)
        rgba = torch.stack([load_cutout(work / family / f"{icon}.png", SIZE) for icon in chosen.values()])
        for part, wanted in zip(rgba.split(16), batched(list(chosen), 16), strict=True):
            white = torch.ones(len(part), 3, SIZE, SIZE)
            colour = torch.rand(len(part), 3, 1, 1, generator=draws).expand(-1, -1, SIZE, SIZE)
            for what, ground in (("on white", white), ("on a colour", colour)):
                shown = part[:, :3] * part[:, 3:] + ground * (1 - part[:, 3:])
                found.setdefault(f"icons {what}", []).extend(judged(base, shown, wanted))
            for style in HELD_OUT.values():
                if style.draw is not None:
                    shown = style.draw(Canvas(part, white, draws)).expand(len(part), 3, SIZE, SIZE).clamp(0, 1)
                    found.setdefault(f"icons as {style.text}", []).extend(judged(base, shown, wanted))
    return found


def batched(some: list[str], count: int) -> list[list[str]]:
    """``some`` in parts of ``count``."""
    return [some[i : i + count] for i in range(0, len(some), count)]


def of_files(base: Base, named: list[tuple[Path, str]]) -> Guesses:
    """The guesses of picture files, each with what it shows."""
    pictures = torch.stack([to_tensor(square(load_picture(path), SIZE)) for path, _ in named])
    return judged(base, pictures, [content for _, content in named])


def share(guesses: Guesses, bound: float) -> str:
    """How many of the guesses at least as sure as ``bound`` are right, and of how many."""
    taken = [right for sure, right in guesses if sure >= bound]
    return f"{sum(taken) / len(taken):.0%} of {len(taken)}" if taken else "none"


def trusted_from(by_kind: dict[str, Guesses]) -> float | None:
    """The least of ``BOUNDS`` above which, of the kind of picture that is worst, ``WANTED`` guesses are right."""
    for bound in BOUNDS:
        kinds = [[right for sure, right in guesses if sure >= bound] for guesses in by_kind.values()]
        if all(sum(taken) >= WANTED * len(taken) for taken in kinds if taken) and sum(map(len, kinds)) >= FEWEST:
            return bound
    return None


def run() -> None:
    """Everything the command does; raises StyledropError."""
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = made.add_argument
    add("--model", default=BUNDLED, help="pocket, or a model folder")
    add("--index", type=Path, default=INDEX, help="which drawings show what (default: pocket's list)")
    add("--every", type=int, default=1, help="take only every so-manieth thing")
    add("--work", type=Path, default=Path("styledrop-bench"), help="icons are kept here")
    add("--picture", nargs=2, action="append", default=[], metavar=("FILE", "CONTENT"), help="a picture more")
    add("-o", "--output", type=Path, help="file for the figures")
    options = made.parse_args()
    base = load_base(options.model, pick_device("cpu"))
    if not base.contents:
        raise UsageError(f"{base.name} guesses nothing: it has no names of things", "Name another --model.")
    folder = POCKET if options.model == BUNDLED else Path(options.model)
    by_kind = of_icons(base, folder, options.work, options.index, options.every)
    references = runpy.run_path(str(ROOT / "examples" / "show.py"))["REFERENCES"]
    files = [(ROOT / "examples" / name, content) for name, content, _ in references]
    by_kind["reference pictures"] = of_files(base, files + [(Path(file), content) for file, content in options.picture])
    rows = [[f"{bound:.1%}", *(share(guesses, bound) for guesses in by_kind.values())] for bound in BOUNDS]
    print(markdown(["at least as sure as", *by_kind], rows))
    bound = trusted_from(by_kind)
    print(f"\nguess_from of {base.name}: {bound}" + ("" if bound is not None else ", no guess is to be taken"))
    if options.output:
        write_json(options.output, {"model": base.name, "base": base.hash, "guess_from": bound, "guesses": by_kind})


if __name__ == "__main__":
    run_in_words(run)
