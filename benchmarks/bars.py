"""What a base draws, in figures: ``python benchmarks/bars.py``. ``parts.py`` measures what it is made of.

Three things: how many of the taught things are recognised in what the base draws, beside what is recognised in real
pictures after the tokenizer's round trip; whether super-resolution keeps what is recognised; and whether words that no
thing is called by land on the things they are a kind of.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paired.art import FAMILIES, Art, Look, load_art, looks
from paired.judges import Judges, JudgeSettings, load_judges
from paired.measures import markdown
from paired.renders import round_trip
from paired.rows import drawn
from script import run_in_words
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.devices import autocast, generator, pick_device
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.files import write_json
from styledrop_cli.io.images import save_png, to_image
from styledrop_cli.settings import SampleSettings

WORDS = Path(__file__).parent / "outside_words.txt"
# Where the base is asked for things: two of its families and some of its styles.
STYLES = ("fluent-emoji", "fluent-emoji-flat", "watercolor", "line-drawing")
OUTLINES = "fluent-emoji-flat"  # of procedural styles

Figures = dict[str, float]


# ---- the base -------------------------------------------------------------------------------------


def recognised(judges: Judges, pictures: Tensor, things: Sequence[str]) -> Tensor:
    """Of each picture ``[B,3,S,S]``: whether the content judge's first guess is its thing, ``[B]``."""
    first = judges.see(pictures).content.argmax(-1)
    return (first == torch.tensor([judges.things.index(t) for t in things])).float()


def taught_things(base: Base, judges: Judges, art: Art, all_looks: dict[str, Look], things: list[str]) -> Figures:
    """Shares recognised in what the base draws, and in real pictures after the round trip, in ``STYLES``."""
    sampling, found = SampleSettings(size=base.sizes[0]), {}
    shares = []
    for style in STYLES:
        look = all_looks[style]
        made = drawn(base, [PictureRequest(art.words[t], 0, sampling, look.text) for t in things], StyleMix())
        rgba = art.rgba([(look.family or OUTLINES, t) for t in things], sampling.size)
        white, draws = torch.ones(1, 3, sampling.size, sampling.size), generator(0)
        real = torch.cat([look(part, white.expand(len(part), -1, -1, -1), draws) for part in rgba.split(16)])
        shares.append([float(recognised(judges, p, things).mean()) for p in (made, round_trip(base, real))])
        found[f"base, {look.text}: top-1"], found[f"real, tokenized, {look.text}: top-1"] = shares[-1]
        print(f"  {look.text}: drawn {shares[-1][0]:.1%}, real after the tokenizer {shares[-1][1]:.1%}")
    ours, ceiling = np.mean(shares, 0)
    return found | {"base: top-1 as a share of the ceiling": float(ours / max(ceiling, 1e-6))}


@torch.no_grad()
def enlarged(base: Base, judges: Judges, art: Art, all_looks: dict[str, Look], things: list[str]) -> Figures:
    """Shares recognised at the larger size, the same ids enlarged by super-resolution and without it."""
    if base.superres is None:
        return {}
    settings, side = SampleSettings(superres_steps=8), base.sizes[1]
    shares = []
    for style in STYLES:
        prompts = [with_style(art.words[t], all_looks[style].text) for t in things]
        made: list[list[Tensor]] = [[], []]
        for start in range(0, len(prompts), 16):
            chunk = prompts[start : start + 16]
            seeds = [0] * len(chunk)
            with autocast(base.device):
                ids = base.sample(chunk, seeds, settings)
                for way, grid in enumerate((base.refine(ids, chunk, seeds, settings), ids)):
                    made[way].append(base.pictures(grid, side).float())
        shares.append([float(recognised(judges, torch.cat(parts), things).mean()) for parts in made])
    refined, plain = np.mean(shares, 0)
    return {"by super-resolution: top-1": float(refined), "the same ids enlarged plainly: top-1": float(plain)}


def read_outside(path: Path) -> list[tuple[str, list[str]]]:
    """Lines ``a corgi: dog-face`` as words and the things accepted for them."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [(words.strip(), things.split()) for words, _, things in (line.partition(":") for line in lines)]


def outside_words(base: Base, judges: Judges, seeds: int, output: Path | None) -> Figures:
    """The share of pictures, asked for by a word outside the names, that are taken for an accepted thing."""
    asked = read_outside(WORDS)
    style, sampling = FAMILIES[OUTLINES], SampleSettings(size=base.sizes[0])
    wanted = [PictureRequest(words, seed, sampling, style) for words, _ in asked for seed in range(seeds)]
    pictures = drawn(base, wanted, StyleMix())
    guesses = [judges.things[i] for i in judges.see(pictures).content.argmax(-1).tolist()]
    right = np.array([[g in accepted for g in guesses[i * seeds :][:seeds]] for i, (_, accepted) in enumerate(asked)])
    known = np.array([not base.unknown_words(words) for words, _ in asked])
    if output is not None:
        labels = [f"{words}: {guesses[i * seeds]}" for i, (words, _) in enumerate(asked)]
        images = [to_image(p) for p in pictures[::seeds]]
        save_png(contact_sheet(images, 10, labels, "words outside the names", cell=112), output / "outside-words.png")
    found = {"words outside the names: top-1 accepted": float(right.mean())}
    # A kind that stood in some caption is one thing, a word that the base has never met another.
    for what, rows in (("met in a caption", known), ("never met", ~known)):
        if rows.any():
            found[f"  {rows.sum()} of them {what}: top-1 accepted"] = float(right[rows].mean())
    return found


def run() -> None:
    """Everything the command does; raises StyledropError."""
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = made.add_argument
    add("--model", default="pocket", help="pocket, or a model folder")
    add("--art", type=Path, default=Path("corpus/art"), help="folder of rendered art (default corpus/art)")
    add("--openmoji", type=Path, help="OpenMoji's icon package; without it, it is fetched with npm")
    add("--work", type=Path, default=Path("styledrop-bench"), help="judges are kept here")
    add("--every", type=int, default=1, help="draw only every so-manieth thing")
    add("--seeds", type=int, default=2, help="pictures of each word outside the names (default 2)")
    add("-o", "--output", type=Path, help="folder for the figures and a sheet")
    options = made.parse_args()
    for name in ("every", "seeds"):
        if not 1 <= getattr(options, name) <= 100:
            raise UsageError(f"--{name} must be between 1 and 100, not {getattr(options, name)}")
    base = load_base(options.model, pick_device("cpu"))
    art, everything = load_art(options.art, options.openmoji, options.work), looks()
    judges = load_judges(art, everything, base, options.work, 0, JudgeSettings(), print)
    by_name = {look.name: look for look in everything}
    figures = taught_things(base, judges, art, by_name, art.things[:: options.every])
    figures |= enlarged(base, judges, art, by_name, art.things[:: 2 * options.every])
    figures |= outside_words(base, judges, options.seeds, options.output)
    lines = [[name, f"{value:.1%}" if "top-1" in name else f"{value:.2f}"] for name, value in figures.items()]
    print(f"\n{markdown(['what', 'figure'], lines)}")
    if options.output:
        write_json(options.output / "bars.json", {"model": base.name, "base": base.hash, "figures": figures})


if __name__ == "__main__":
    run_in_words(run)
