"""Carry a trained base over to another image tokenizer and another text encoder, so that it need not begin anew.

    python carry_over.py OLD NEW CORPUS
    styledrop pretrain base CORPUS -o NEW --init-from NEW/begun

OLD is a whole model folder, NEW one with a tokenizer and a text encoder. What the two make of the same pictures and
captions is compared, and least squares turn OLD's tables of codes and its readers of text into NEW's. That is rough,
but everything between stays: a base that has learnt to draw goes on from there. The result lies in ``NEW/begun``.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from styledrop_cli.base.base import micro_conditions
from styledrop_cli.base.folder import load_module, load_text
from styledrop_cli.base.text_encoder import TextEncoder
from styledrop_cli.corpus.folder import read_corpus, read_pictures
from styledrop_cli.io.tensors import save_part
from styledrop_cli.models.layers import sinusoidal
from styledrop_cli.models.superres import SuperResTransformer
from styledrop_cli.models.tokenizer import ImageTokenizer
from styledrop_cli.models.transformer import MaskedTransformer
from styledrop_cli.training.pretrain.transformers import LevelFeatures, fitting

PICTURES, CAPTIONS, AT_ONCE = 2500, 6000, 100
SHRINK = 15  # a code that was met so often counts as much as what its levels say
RIDGE = 1e-4
WORD = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")
CPU = torch.device("cpu")


def solve(inputs: Tensor, wanted: Tensor) -> Tensor:
    """The matrix that makes ``wanted`` ``[N,O]`` of ``inputs`` ``[N,I]`` with the least error: ``[I,O]``."""
    x, y = inputs.double(), wanted.double()
    gram = x.T @ x
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    return torch.linalg.solve(gram, x.T @ y).float()


class Codes:
    """Which codes the old and the new tokenizer give the same places of pictures, ``[N]`` each."""

    def __init__(self, old: ImageTokenizer, new: ImageTokenizer, pictures: Tensor) -> None:
        parts = pictures.split(AT_ONCE)
        self.old, self.new = (torch.cat([one.encode(p).flatten() for p in parts]) for one in (old, new))
        levels = LevelFeatures(new.config.levels, 1).features
        self.features = torch.cat([levels, torch.ones(len(levels), 1)], 1)

    def carried(self, table: Tensor) -> Tensor:
        """A table of the old codes ``[K,D]`` as one of the new: by a code's levels, and where it was met by itself."""
        wanted, inputs = table[self.old], self.features[self.new]
        matrix = solve(inputs, wanted)
        met = torch.bincount(self.new, minlength=len(self.features))[:, None]
        rest = torch.zeros(len(self.features), table.shape[1]).index_add_(0, self.new, wanted - inputs @ matrix)
        return self.features @ matrix + rest / (met + SHRINK)


class Readers:
    """Matrices from the new text encoder's states and summaries to the old one's."""

    def __init__(self, old: TextEncoder, new: TextEncoder, captions: list[str]) -> None:
        states: list[tuple[Tensor, Tensor]] = []
        summaries: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(captions), AT_ONCE):
            texts = captions[start : start + AT_ONCE]
            (before, was), (after, now) = old.encode(texts), new.encode(texts)
            summaries.append((now, was))
            for row, text in enumerate(texts):
                one, two = (word_places(encoder, text) for encoder in (old, new))
                if one and two and len(one) == len(two):
                    states.append((after[row, two], before[row, one]))
        self.state = solve(*(torch.cat(side) for side in zip(*states, strict=True)))
        inputs, wanted = (torch.cat(side) for side in zip(*summaries, strict=True))
        self.summary = solve(torch.cat([inputs, torch.ones(len(inputs), 1)], 1), wanted)


def word_places(encoder: TextEncoder, text: str) -> list[int]:
    """Where the state of each word stands: of its last piece, between those of the start and of the end."""
    pieces, places, at = encoder.tokenizer.pieces(text), [0], 0
    for word in WORD.findall(text.lower()):
        spelled = ""
        while spelled != word:
            if at == len(pieces):
                return []
            spelled += pieces[at].replace("</w>", "").replace("##", "")
            at += 1
        places.append(at)
    return [*places, at + 1] if at + 1 < encoder.tokenizer.context_length else []


def carry(old: MaskedTransformer, new: MaskedTransformer, codes: Codes, readers: Readers) -> None:
    """Fill ``new``, which differs from ``old`` in its codes and text alone."""
    state, size = dict(old.state_dict()), old.config.codebook_size
    for name in ("embed.embeddings.weight", "mlm_layer.conv2.weight", "low_res.embeddings.weight"):
        if name in state:
            table = state[name].flatten(1)
            shape = (-1, *state[name].shape[1:])
            state[name] = torch.cat([codes.carried(table[:size]), table[size:]]).view(shape)
    state["encoder_proj.weight"] = state["encoder_proj.weight"] @ readers.state.T
    # The summary's constant goes where the sizes are read, which are the same for every picture.
    first, width = state["cond_embed.linear_1.weight"], old.config.cond_embed_dim
    text, sizes = first[:, :width], first[:, width:]
    seen = sinusoidal(micro_conditions(old.config, 1, CPU).flatten(), old.config.micro_cond_encode_dim).flatten()
    sizes = sizes + torch.outer(text @ readers.summary[-1], seen) / (seen @ seen)
    state["cond_embed.linear_1.weight"] = torch.cat([text @ readers.summary[:-1].T, sizes], 1)
    new.load_state_dict(state)


@torch.no_grad()
def main() -> None:
    """Write ``NEW/begun``."""
    old, new, corpus = map(Path, sys.argv[1:])
    begun = new / "begun"
    records = read_corpus(corpus)
    draws = torch.Generator().manual_seed(0)
    shown = [records[i] for i in torch.randperm(len(records), generator=draws)[:PICTURES].tolist()]
    tokenizers: list[ImageTokenizer] = [load_module(folder, "tokenizer") for folder in (old, new)]
    codes = Codes(*tokenizers, read_pictures(shown, 128) / 255)
    known = set((old / "words.txt").read_text(encoding="utf-8").split())
    captions = sorted({c for r in records for c in r.captions if known.issuperset(WORD.findall(c.lower()))})
    chosen = [captions[i] for i in torch.randperm(len(captions), generator=draws)[:CAPTIONS].tolist()]
    texts = [load_text(folder, device=CPU) for folder in (old, new)]
    readers = Readers(*texts, ["", *chosen])
    for part, make in (("transformer", MaskedTransformer), ("superres", SuperResTransformer)):
        network = load_module(old, part).float()
        made = make(fitting(replace(network.config), texts[1], tokenizers[1]))
        carry(network, made, codes, readers)
        save_part(begun, part, made, made.config)
        print(f"{part}: {begun}")
    shutil.copyfile(new / "tokenizer.safetensors", begun / "tokenizer.safetensors")


if __name__ == "__main__":
    main()
