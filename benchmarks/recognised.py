"""How many of the things that a base was taught can be recognised in what it draws.

Each thing is drawn in several styles by the base alone, and a CLIP names it among all things. With ``--corpus`` the
same CLIP names held-out real pictures after a round trip through the tokenizer, which is as far as any base could come.
The CLIP is the base's own, or that of ``--judge``, by which bases can be compared; it saw the same art as the base, so
read figures against each other and not as truth.

``--outside INDEX`` draws the words of ``outside_words.txt`` too, by which no thing is called; right is any of the
things accepted for a word. The index, ``examples/pocket/index.jsonl``, says which those are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from outside_words import HERE, accepted, things_called
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.corpus.folder import read_corpus, read_pictures
from styledrop_cli.devices import autocast, pick_device
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.images import save_png, to_image
from styledrop_cli.settings import SampleSettings

STYLES = ("3d rendering", "flat design", "cartoon", "watercolor painting", "line drawing", "")
NEVER = 1_000_000  # the place of a thing that no judge can name


@torch.no_grad()
def ranks(judge: Base, pictures: Tensor, wanted: list[str]) -> list[int]:
    """The place, from 0, of each picture's own content among all that the judge knows."""
    scores = judge.picture_embeds(pictures) @ judge.content_embeds.T
    own = scores[torch.arange(len(wanted)), [judge.contents.index(w) for w in wanted]]
    return (scores > own[:, None]).sum(-1).tolist()


@torch.no_grad()
def outside(base: Base, judge: Base, index: Path) -> tuple[list[int], list[tuple[Tensor, str]]]:
    """Of each word the best place, from 0, of a thing accepted for it; and the pictures with their words."""
    names = {thing.thing: thing.words[0] for thing in judge.things if thing.words[0] in judge.contents}
    asked = accepted(HERE / "outside_words.txt", things_called(index, set(names)))
    prompts = [word for word, _ in asked]
    with autocast(base.device):
        ids = base.sample(prompts, [0] * len(prompts), base.sampling())
        pictures = base.pictures(ids, base.sizes[0]).float()
    order = (judge.picture_embeds(pictures) @ judge.content_embeds.T).argsort(-1, descending=True).tolist()
    named = [[judge.contents[i] for i in row] for row in order]
    right = [{names[thing] for thing in things} for _, things in asked]
    best = [min(map(row.index, wanted), default=NEVER) for row, wanted in zip(named, right, strict=True)]
    return best, list(zip(pictures, prompts, strict=True))


def share(places: list[int], best: int) -> str:
    """The share of places among the best, in words."""
    return f"{sum(p < best for p in places) / len(places):.1%}"


def main() -> None:
    """Print the figures and, if asked, write a sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--judge", help="the model whose CLIP names what is drawn, if not --model")
    parser.add_argument("--outside", type=Path, metavar="INDEX", help="words outside the names; a sheet shows these")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--every", type=int, default=1, help="draw only every so-manieth thing")
    arguments = parser.parse_args()
    base = load_base(arguments.model, pick_device("cpu"))
    judge = load_base(arguments.judge, base.device) if arguments.judge else base
    known = set(judge.contents)
    contents = [content for content in base.contents if content in known][:: arguments.every]
    places: dict[str, list[int]] = {}
    drawn = []
    for style in STYLES:
        for start in range(0, len(contents), 48):
            chunk = contents[start : start + 48]
            prompts = [with_style(c, style) for c in chunk]
            with autocast(base.device):
                ids = base.sample(prompts, list(range(len(chunk))), SampleSettings())
                pictures = base.pictures(ids, base.sizes[0]).float()
            places.setdefault(style, []).extend(ranks(judge, pictures, chunk))
            drawn.extend(zip(pictures, chunk, strict=True))
    everything = [p for ps in places.values() for p in ps]
    print(
        f"drawn, {len(everything)} pictures: right thing first {share(everything, 1)}, in five {share(everything, 5)}"
    )
    for style, ps in places.items():
        print(f"  {style or 'no style named':22} first {share(ps, 1):>6}, in five {share(ps, 5):>6}")
    if arguments.outside:
        ps, of_words = outside(base, judge, arguments.outside)
        print(f"{len(ps)} words outside the names: accepted first {share(ps, 1)}, in five {share(ps, 5)}")
        drawn = of_words
    if arguments.corpus:
        records = [r for r in read_corpus(arguments.corpus) if r.held_out]
        named = [(r, min(r.captions, key=len).partition(" in ")[0].partition(" on ")[0]) for r in records]
        named = [(r, name) for r, name in named if name in known]
        real = read_pictures([r for r, _ in named], base.sizes[0]).float() / 255
        tripped = torch.cat([base.tokenizer.decode(base.tokenizer.encode(p)) for p in real.split(32)])
        for what, pictures in (("real, held out", real), ("real after the tokenizer", tripped)):
            ps = ranks(judge, pictures, [name for _, name in named])
            print(f"{what}, {len(ps)} pictures: right thing first {share(ps, 1)}, in five {share(ps, 5)}")
    if arguments.sheet:
        shown = drawn[:: max(1, len(drawn) // 96)][:96]
        images = [to_image(p) for p, _ in shown]
        save_png(contact_sheet(images, columns=12, labels=[c for _, c in shown], cell=128), arguments.sheet)


if __name__ == "__main__":
    main()
