"""What a published model consists of: the files of a repository, by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from styledrop_cli.base.registry import FAMILIES, PUBLISHED, BaseSpec, family_of
from styledrop_cli.errors import ModelError

PRECISIONS = ("fp16", "fp32")  # the first is the smaller one and the default
INDEX = "model_index.json"
NEEDED = (
    INDEX,
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "transformer/config.json",
    "vqvae/config.json",
)
WELCOME = ("tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json")
# Each part and what its weights are called.
WEIGHTS = {
    "text_encoder": "model",
    "transformer": "diffusion_pytorch_model",
    "vqvae": "diffusion_pytorch_model",
}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def known_family(source: object, index: Mapping[str, Any]) -> BaseSpec:
    """The family of what ``source``'s index describes; raises ModelError if there is none."""
    if family := family_of(index):
        return family
    raise ModelError(
        f"{source} is a {index.get('_class_name', 'model without a class')}, which cannot be run here",
        f"Those that can are {', '.join(PUBLISHED)}, and what was made from them: {INDEX} then says "
        f"{' or '.join(known.pipelines[0] for known in FAMILIES)}.",
    )


def weights_in(names: Collection[str], part: str, precision: str) -> list[str]:
    """The files of `names` that hold a part's weights in one precision; none unless they are all among them."""
    stem = f"{part}/{WEIGHTS[part]}"
    infix = ".fp16" if precision == "fp16" else ""
    if (single := f"{stem}{infix}.safetensors") in names:
        return [single]
    indices = (f"{stem}.safetensors.index{infix}.json", f"{stem}{infix}.safetensors.index.json")
    index = next((name for name in indices if name in names), None)
    # Both places of the variant are in use: NAME.fp16-00001-of-00002.safetensors, and behind the numbers.
    shard = re.compile(rf"{re.escape(stem)}(\.fp16)?-\d+-of-(\d+)(\.fp16)?\.safetensors")
    found = {name: match for name in names if (match := shard.fullmatch(name))}
    shards = sorted(name for name, match in found.items() if bool(match[1] or match[3]) == bool(infix))
    return [index, *shards] if index and shards and len(shards) == int(found[shards[0]][2]) else []


def is_whole(names: Collection[str]) -> bool:
    """Whether a model can be loaded that consists of these files."""
    return all(name in names for name in NEEDED) and bool(precisions_of(names))


def precisions_of(names: Collection[str]) -> tuple[str, ...]:
    """The precisions in which every part is there, or all that it takes if there is none of that kind."""
    parts = [[precision for precision in PRECISIONS if weights_in(names, part, precision)] for part in WEIGHTS]
    if not all(parts):
        return ()
    return tuple(p for p in PRECISIONS if all(p in part for part in parts)) or PRECISIONS


def files_to_fetch(repo: str, names: Collection[str], precision: str, on_message: Callable[[str], None]) -> list[str]:
    """The files of a repository that are to be fetched, the small ones first.

    A part that it has only in the other precision is taken in that, and ``on_message`` is told. Raises ModelError where
    it is laid out otherwise, or has no weights that may be loaded.
    """
    if missing := [name for name in NEEDED if name not in names]:
        raise ModelError(
            f"{repo} does not have the files of a model that can be run here: it has no {missing[0]}",
            f"those that do are {' and '.join(spec.repository for spec in PUBLISHED.values())}, and what was made "
            "from them",
        )
    wanted = [*NEEDED, *(name for name in WELCOME if name in names)]
    for part in WEIGHTS:
        found = weights_in(names, part, precision)
        if not found and (other := next((p for p in PRECISIONS if weights_in(names, part, p)), None)):
            on_message(f"{repo} has no {precision} weights of its {part}: taking those in {other}")
            found = weights_in(names, part, other)
        if not found and (pickles := [n for n in names if n.startswith(f"{part}/") and n.endswith(PICKLES)]):
            raise ModelError(
                f"{repo} has the weights of its {part} as a pickle only ({pickles[0]}), which can run code of its own: "
                "it is not fetched",
                "ask its owner for safetensors: https://huggingface.co/spaces/safetensors/convert makes them",
            )
        if not found:
            raise ModelError(f"{repo} has no safetensors with the weights of its {part}", "fetch another model")
        wanted += found
    return wanted
