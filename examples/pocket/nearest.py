"""Which thing of a corpus stands for a word that no caption has: WordNet's nouns, added to things.jsonl as ``kinds``.

    python nearest.py my-pictures/things.jsonl index.jsonl wordnet/usr/share/wordnet

``wordnet`` is the unpacked Debian package ``wordnet-base``. A word stands for the thing that it is a kind of or, where
it is a kind of none, that shares its kind; of several the text encoder says which is nearer. The weights below were
chosen by benchmarks/outside_words_dev.txt; that WordNet's top is not counted was seen in outside_words.txt.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from styledrop_cli.base.known_things import read_things, write_things
from styledrop_cli.base.prompt_tokens import WordPieceTokenizer
from styledrop_cli.base.text_encoder import TextEncoder
from styledrop_cli.training.pretrain.text import published_encoder

SENSES = 3  # of a word, the commonest ones
UP, DOWN = 6, 1  # how far to what both are kinds of: from the word, from the thing
PER_SENSE, PER_UP, PER_DOWN = 0.2, 0.1, 0.3  # what the likeness loses by
LIKENESS = 2.0  # how much the encoder's cosine counts against WordNet's
FAR = 0.4  # beyond this loss a word stands for nothing
TOPS = 3  # the file of what everything is a kind of ("object", "animal"): to share that is nothing
# The files of WordNet's lexicographers that a thing of this kind is in.
FILES = {
    "animal": [5],
    "food": [13, 20],
    "plant": [20, 13],
    "person": [18],
    "body": [8],
    "communication": [10, 6],
    "phenomenon": [19, 11],
    "possession": [21, 6],
    "object": [17, 6],
    "location": [15, 17, 6],
    "shape": [25],
    "tool": [6],
    "artifact": [6],
    "vehicle": [6],
    "building": [6],
    "clothing": [6],
    "toy": [6],
    "musical instrument": [6],
    "furniture": [6],
}


class Nouns:
    """WordNet's nouns: the senses of a word, each with its file and what it is a kind of; no names of single ones."""

    def __init__(self, folder: Path) -> None:
        self.above: dict[str, list[str]] = {}
        self.file: dict[str, int] = {}
        self.senses: dict[str, list[str]] = {}
        single = set()
        for line in (folder / "data.noun").read_text().splitlines():
            if line.startswith(" "):
                continue
            fields = line.partition(" | ")[0].split()
            links = fields[4 + 2 * int(fields[3], 16) :]
            self.file[fields[0]] = int(fields[1])
            self.above[fields[0]] = [links[i + 1] for i, mark in enumerate(links) if mark == "@"]
            if "@i" in links:
                single.add(fields[0])
        for line in (folder / "index.noun").read_text().splitlines():
            if not line.startswith(" "):
                fields = line.split()
                self.senses[fields[0]] = [one for one in fields[-int(fields[2]) :] if one not in single]

    def climb(self, sense: str, most: int) -> dict[str, int]:
        """What a sense is a kind of, and how many steps up that is."""
        reached, level = {sense: 0}, [sense]
        for step in range(1, most + 1):
            level = [one for below in level for one in self.above[below] if one not in reached]
            reached |= {one: step for one in level if one not in reached}
        return reached


def main() -> None:
    """Add the kinds to a things.jsonl."""
    path, nouns = Path(sys.argv[1]), Nouns(Path(sys.argv[3]))
    things = read_things(path)
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        counted[entry["thing"]][entry["kind"].partition("/")[0]] += 1
    shared: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, thing in enumerate(things):
        files = [file for kind, _ in counted[thing.thing].most_common(1) for file in FILES.get(kind, [])]
        fit = [one for one in nouns.senses.get(thing.thing.replace(" ", "_"), []) if nouns.file[one] in files]
        for one, down in nouns.climb(fit[0], DOWN).items() if fit else ():
            if not down or nouns.file[one] != TOPS:
                shared[one].append((index, down))
    taken = {name.partition(" ")[2] if name.startswith(("a ", "an ")) else name for t in things for name in t.words}
    taken |= {thing.thing for thing in things}
    lost: dict[str, dict[int, float]] = {}
    for word, senses in nouns.senses.items():
        if not word.isalpha() or not word.isascii() or word in taken:
            continue
        losses: dict[int, float] = {}
        for rank, sense in enumerate(senses[:SENSES]):
            for one, up in nouns.climb(sense, UP).items():
                for index, down in shared.get(one, ()):
                    loss = PER_SENSE * rank + PER_UP * up + PER_DOWN * down
                    losses[index] = min(loss, losses.get(index, loss))
        if losses and min(losses.values()) <= FAR:
            lost[word] = losses
    network, pieces = published_encoder()
    encoder = TextEncoder(network, WordPieceTokenizer(pieces, network.config.context_length))
    places = embeds(encoder, [thing.words[0] for thing in things])
    found = embeds(encoder, [f"{'an' if word[0] in 'aeiou' else 'a'} {word}" for word in lost])
    kinds: dict[int, list[str]] = defaultdict(list)
    for (word, losses), likeness in zip(lost.items(), found @ places.T, strict=True):
        best = max(losses, key=lambda index: LIKENESS * float(likeness[index]) - losses[index])
        kinds[best].append(word)
    write_things(path, [replace(thing, kinds=tuple(sorted(kinds[i]))) for i, thing in enumerate(things)])
    print(f"{len(lost):,} words for {len(kinds)} of {len(things)} things")


def embeds(encoder: TextEncoder, texts: list[str]) -> torch.Tensor:
    """Their summaries ``[B,W]`` of length 1."""
    return torch.cat([F.normalize(encoder.encode(texts[at : at + 256])[1], dim=-1) for at in range(0, len(texts), 256)])


if __name__ == "__main__":
    main()
