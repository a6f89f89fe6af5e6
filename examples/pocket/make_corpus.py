"""Make pocket's training corpus: openly licensed art, drawn in many styles, with captions.

One command makes everything again (see README.md beside this file):

    python make_corpus.py --out corpus

It fetches the packages that ``index.jsonl`` names, renders that list's drawings as cut-outs into ``corpus/art``, and
has the package's generator (``styledrop_cli.corpus.draw``, also ``styledrop pretrain corpus``) draw
``corpus/tok`` (every cut-out anywhere, for the image tokenizer) and ``corpus/train`` (what pocket is taught). What is
there already is kept, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))  # also when it is run from within a test

from sources import LETTERS, LICENCES, LOOKS, credit_table, fetch_art, take_art, write_letters

from styledrop_cli.cli.console import Screen
from styledrop_cli.corpus.cutouts import ART, INDEX, Cutout, read_art, read_index
from styledrop_cli.corpus.draw import Drawing, Recipe, captions_of, draw, write_corpus
from styledrop_cli.corpus.styles import STYLES
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.files import atomic_write, write_json
from styledrop_cli.io.images import save_png, to_image
from styledrop_cli.io.run_folder import alone_in

HERE = Path(__file__).resolve().parent
WIDE = 16  # pictures in a row of a contact sheet
SHOWN = ("cat", "teapot", "house", "rocket", "apple", "guitar", "tree", "automobile")
# All styled pictures are redrawn from one drawing of a thing, so that it has one outline: in several at once a small
# model blurs them. The index names it; this is the family whose look needs no name.
OUTLINES = ("fluent-emoji-flat", LETTERS)
# Left out of what the base learns: these hide the thing.
NOT_TAUGHT = ("sunset", "glitch")
# Mirrored writing would be wrong writing.
NEVER_MIRRORED = (
    "button letter digit number latin keycap sign symbol mark clock badge book blood note arrow question police "
    "ambulance engine calendar news left right map globe japanese"
).split()
RECIPES = {
    # The tokenizer sees every cut-out, the base the taught things in every style.
    "tok": Recipe(own=1, styled=1, wide=True, dense=2000),
    "train": Recipe(own=4, others=2, styled=1, mixed=4, coloured=3, placed=1, counted=1, paired=1),
}


def table(file: str) -> dict[str, list[str]]:
    """``thing: words; others`` of words.txt or kinds.txt, by thing."""
    lines = (HERE / file).read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(": ") for line in lines if line and not line.startswith("#")]
    return {name: [word.strip() for word in words.split(";")] for name, _, words in pairs}


def describe(cutouts: Sequence[Cutout], letters: dict[str, list[str]]) -> dict[str, Any]:
    """What ``art.json`` says of these cut-outs: how captions call their looks and the things among them."""
    shown = {cutout.thing for cutout in cutouts if not cutout.mono}
    words = {thing: called for thing, called in table("words.txt").items() if thing in shown} | letters
    looks = {cutout.look for cutout in cutouts} | {LETTERS}
    return {
        "families": {look: list(called) for look, called in LOOKS.items() if look in looks},
        "outlines": list(OUTLINES),
        "styles": [style for style in STYLES if style not in NOT_TAUGHT],
        "things": words,
        "kinds": {thing: kinds for thing, kinds in table("kinds.txt").items() if thing in words},
        "never_mirrored": NEVER_MIRRORED,
    }


def chosen(sets: str | None) -> list[Cutout]:
    """The cut-outs of index.jsonl in the ``sets`` named, comma separated; UsageError for a set that it has not."""
    cutouts = read_index(HERE / INDEX, LICENCES)
    if sets is None:
        return cutouts
    asked, known = sets.split(","), list(dict.fromkeys(folder(c) for c in cutouts))
    if unknown := [name for name in asked if name not in known]:
        raise UsageError(f"there is no set {unknown[0]!r} in {HERE / INDEX}", f"There are {', '.join(known)}.")
    return [cutout for cutout in cutouts if folder(cutout) in asked]


def folder(cutout: Cutout) -> str:
    """The set that a cut-out belongs to."""
    return cutout.file.partition("/")[0]


def write_art(cutouts: Sequence[Cutout], art: Path) -> None:
    """Write the index and ``art.json`` of what ``art`` holds of these cut-outs, A-Z and 0-9 with them.

    Raises UsageError where it holds none.
    """
    there = [cutout for cutout in cutouts if (art / cutout.file).is_file()]
    if not there:
        raise UsageError(f"{art} holds none of the cut-outs", "Make them first, with --parts art.")
    letters, lines = write_letters(art / LETTERS)
    files = {cutout.file for cutout in there}
    said = (HERE / INDEX).read_text(encoding="utf-8").splitlines()
    kept = [line for line in said if line.strip() and json.loads(line)["file"] in files]
    atomic_write(art / INDEX, ("\n".join([*kept, *(json.dumps(o, ensure_ascii=False) for o in lines)]) + "\n").encode())
    write_json(art / ART, describe(there, letters))


def write_sheet(art: Path, path: Path) -> None:
    """A contact sheet to look at before training: sixteen cut-outs of each set, then eight things in each style."""
    known, rng = read_art(art), random.Random(0)
    by_set: dict[str, list[Cutout]] = {}
    for cutout in known.cutouts:
        by_set.setdefault(folder(cutout), []).append(cutout)
    drawings = [
        Drawing("", (cutout,), None, rng.getrandbits(40), white=1.0)
        for of_set in by_set.values()
        for cutout in rng.sample(of_set, min(WIDE, len(of_set))) + of_set[:1] * (WIDE - len(of_set))
    ]
    things = [thing.outlines[0] for name, thing in known.things.items() if name in SHOWN] or known.cutouts[:8]
    drawings += [Drawing("", (cutout,), style, 100 * i) for i, style in enumerate(STYLES) for cutout in things[:8]]
    # One by one: together they would share line widths and tile sizes.
    images = [to_image(draw([drawing], known, torch.device("cpu"))[0].float() / 255) for drawing in drawings]
    save_png(contact_sheet(images, WIDE, [captions_of(d, known)[0] for d in drawings], cell=96), path)


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description="Make pocket's training corpus.")
    parser.add_argument("--out", type=Path, default=Path("corpus"), help="folder to write (default corpus)")
    parser.add_argument("--parts", default="art,tok,train", help="which parts, comma separated (default all)")
    parser.add_argument("--sets", help="which sets of index.jsonl, comma separated (default all)")
    parser.add_argument("--art", type=Path, metavar="TAR", help="take ready cut-outs from this tar, and fetch nothing")
    parser.add_argument("--icons", type=Path, help="folder of packages; what it lacks is fetched (default OUT/icons)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also write a contact sheet by set and by style")
    parser.add_argument("--credits", action="store_true", help="print who is to be credited, and do nothing else")
    options = parser.parse_args()
    screen = Screen()
    try:
        if options.credits:
            print(credit_table(chosen(options.sets)))
            return
        parts = options.parts.split(",")
        if unknown := [part for part in parts if part not in ("art", *RECIPES)]:
            raise UsageError(f"there is no part {unknown[0]!r}", f"There are art, {', '.join(RECIPES)}.")
        cutouts, art = chosen(options.sets), options.out / "art"
        if "art" in parts:
            with screen.progress("art") as move:
                if options.art:
                    problems = take_art(options.art, cutouts, art)
                else:
                    problems = fetch_art(cutouts, options.icons or options.out / "icons", art, options.workers, move)
            for problem in problems:
                screen.say(f"left out: {problem}")
        write_art(cutouts, art)
        if options.sheet:
            write_sheet(art, options.sheet)
        for part in (part for part in RECIPES if part in parts):
            draw_part(part, art, options, screen)
    except StyledropError as error:
        raise SystemExit(f"{error.message}\n{error.hint or ''}".strip()) from None


def draw_part(part: str, art: Path, options: argparse.Namespace, screen: Screen) -> None:
    """Draw ``tok`` or ``train``."""
    with alone_in(options.out / part), screen.progress(part) as move:
        number = write_corpus(
            art, options.out / part, RECIPES[part], seed=options.seed, device=torch.device(options.device),
            workers=options.workers, on_picture=lambda done, total: move(done / total, f"{done}/{total}"),
            on_message=screen.say,
        )  # fmt: skip
    screen.say(f"{part}: {number} pictures in {options.out / part}")


if __name__ == "__main__":
    main()
