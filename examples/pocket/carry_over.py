"""Carry a trained base over to another text encoder, or another image tokenizer, so that it need not begin anew.

    python examples/pocket/carry_over.py OLD NEW CORPUS
    styledrop pretrain base CORPUS -o NEW --init-from NEW/carried --rate 0.5

OLD is a whole model folder, NEW one with a tokenizer and a text encoder. What the two make of the same pictures and
captions is compared, and least squares turn OLD's readers of text, and its tables of codes if these differ, into NEW's.
Then these alone are trained for some minutes, on things that OLD knows, while all between them is frozen: what it has
learnt of drawing is still there, and would be lost if it had to follow rough tables. The result lies in
``NEW/carried``.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from styledrop_cli.base.base import micro_conditions
from styledrop_cli.base.folder import load_module, load_text
from styledrop_cli.base.prompt_tokens import words
from styledrop_cli.base.text_encoder import TextEncoder
from styledrop_cli.corpus.folder import Record, read_corpus, read_pictures
from styledrop_cli.io.tensors import save_part
from styledrop_cli.models.layers import sinusoidal
from styledrop_cli.models.superres import SuperResTransformer
from styledrop_cli.models.tokenizer import ImageTokenizer
from styledrop_cli.models.transformer import MaskedTransformer
from styledrop_cli.training.loop import Budget, Loop
from styledrop_cli.training.pretrain.job import Job, Order
from styledrop_cli.training.pretrain.transformers import LevelFeatures, fitting, superres_job, transformer_job

PICTURES, CAPTIONS, AT_ONCE = 2500, 6000, 100
MINUTES, BATCH, RATE = 7.0, 64, 2e-3  # of the training of what was carried over
READERS, TABLES = ("encoder_proj", "cond_embed.linear_1"), ("embed.", "mlm_layer.", "low_res.embeddings")
SHRINK = 15  # a code that was met so often counts as much as what its levels say
RIDGE = 1e-4
PART = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")  # words and signs, as both vocabularies part a text
CPU = torch.device("cpu")
T = TypeVar("T")


def solve(inputs: Tensor, wanted: Tensor) -> Tensor:
    """The matrix that makes ``wanted`` ``[N,O]`` of ``inputs`` ``[N,I]`` with the least error: ``[I,O]``."""
    x, y = inputs.double(), wanted.double()
    gram = x.T @ x
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    return torch.linalg.solve(gram, x.T @ y).float()


class SameCodes:
    """Both tokenizers give the same codes: tables stay."""

    @staticmethod
    def carried(table: Tensor) -> Tensor:
        """The table itself."""
        return table


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
    for word in PART.findall(text.lower()):
        spelled = ""
        while spelled != word:
            if at == len(pieces):
                return []
            spelled += pieces[at].replace("</w>", "").replace("##", "")
            at += 1
        places.append(at)
    return [*places, at + 1] if at + 1 < encoder.tokenizer.context_length else []


def carry(old: MaskedTransformer, new: MaskedTransformer, codes: Codes | SameCodes, readers: Readers) -> None:
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


def settle(job: Job, network: MaskedTransformer, carried: tuple[str, ...]) -> None:
    """Train what was ``carried`` over, by the beginnings of its names, and nothing else."""
    chosen = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(carried))
        chosen += [parameter] * parameter.requires_grad
    optimizer = torch.optim.AdamW(chosen, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    Loop(job.task, [optimizer], job.batches, budget=Budget(minutes=MINUTES), device=CPU, weight=job.weight).run(
        lambda now: print(f"\r{now.share:.0%}  loss {now.loss:.2f}", end="", flush=True)
    )
    print(f"\n{job.figure(job.task)}")
    job.export(job.task)


@torch.no_grad()
def begun(old: Path, new: Path, records: list[Record], known: Callable[[str], bool]) -> tuple[str, ...]:
    """Write ``NEW/carried`` with what least squares make of the networks; returns the beginnings of what is new."""
    draws = torch.Generator().manual_seed(0)

    def some(things: Sequence[T], count: int) -> list[T]:
        return [things[i] for i in torch.randperm(len(things), generator=draws)[:count].tolist()]

    tokenizers: list[ImageTokenizer] = [load_module(folder, "tokenizer") for folder in (old, new)]
    pictures = read_pictures(some(records, PICTURES), 128) / 255
    same = torch.equal(*(one.encode(pictures[:AT_ONCE]) for one in tokenizers))
    codes = SameCodes() if same else Codes(*tokenizers, pictures)
    captions = sorted({caption for record in records for caption in record.captions if known(caption)})
    texts = [load_text(folder, device=CPU) for folder in (old, new)]
    readers = Readers(*texts, ["", *some(captions, CAPTIONS)])
    shutil.copytree(new, new / "carried", ignore=shutil.ignore_patterns(".*", "carried"), dirs_exist_ok=True)
    for part, make in (("transformer", MaskedTransformer), ("superres", SuperResTransformer)):
        network = load_module(old, part).float()
        made = make(fitting(network.config, texts[1], tokenizers[1]))
        carry(network, made, codes, readers)
        save_part(new / "carried", part, made, made.config)
    return READERS if same else READERS + TABLES


def main() -> None:
    """Carry over, and settle."""
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    old, new, corpus = map(Path, sys.argv[1:])
    taught = set((old / "words.txt").read_text(encoding="utf-8").split())
    records = read_corpus(corpus)

    def known(caption: str) -> bool:
        return taught.issuperset(words(caption))

    new_parts = begun(old, new, records, known)
    carried = new / "carried"
    shown = [record for record in records if all(map(known, record.captions))]
    order = Order(shown, carried, carried, BATCH, 0, CPU)
    for job in (transformer_job(order), superres_job(order)):
        network = next(part for part in job.task.children() if isinstance(part, MaskedTransformer))
        print(f"{type(network).__name__}, on {len(shown)} pictures:")
        settle(job, network, new_parts)


if __name__ == "__main__":
    main()
