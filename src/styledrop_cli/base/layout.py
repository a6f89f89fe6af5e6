"""What a published model consists of: its parts, and the files of each by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from styledrop_cli.base.registry import FAMILIES, OTHERS, PUBLISHED, BaseSpec, family_of
from styledrop_cli.errors import ModelError

PRECISIONS = ("fp16", "fp32")  # the first is the smaller one and the default
INDEX = "model_index.json"
# Each part and the small files that it must have: it lies where the first of them does.
FILES = {
    "scheduler": ("scheduler_config.json",),
    "text_encoder": ("config.json",),
    "tokenizer": ("vocab.json", "merges.txt"),
    "transformer": ("config.json",),
    "vqvae": ("config.json",),
}
INSTEAD = {"tokenizer": ("tokenizer.json",)}  # what newer releases write in place of those
NEEDED = (INDEX, *(f"{part}/{name}" for part, names in FILES.items() for name in names))
WELCOME = {"tokenizer": ("special_tokens_map.json", "tokenizer_config.json")}
# Each part that has weights, and what they are called.
WEIGHTS = {
    "text_encoder": "model",
    "transformer": "diffusion_pytorch_model",
    "vqvae": "diffusion_pytorch_model",
}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def known_family(source: object, index: Mapping[str, Any]) -> BaseSpec:
    """The family of what ``source``'s index describes; raises ModelError if there is none, or it has other parts."""
    family = family_of(index)
    if family is None:
        raise ModelError(
            f"{source} is a {index.get('_class_name', 'model without a class')}, which cannot be run here",
            f"Those that can are {', '.join(PUBLISHED)}, and what was made from them: {INDEX} then says "
            f"{' or '.join(dict.fromkeys(known.pipelines[0] for known in FAMILIES))}.",
        )
    others = [name for name, said in index.items() if isinstance(said, list) and any(said) and name not in FILES]
    if others:
        raise ModelError(
            f"{source} has a part beside those of {' and '.join(family.pipelines)}: {others[0]} "
            f"({'.'.join(map(str, index[others[0]]))}); it is another network, which cannot be run here",
            f"Those that can are {', '.join(PUBLISHED)}, and what was made from them.",
        )
    return family


def refuse_relative(source: object, repository: str = "", has: Callable[[str], bool] = lambda folder: False) -> None:
    """Raise ModelError for a model that looks like a known family's and draws otherwise.

    It is told by its ``repository``, or by a folder that it ``has`` and no other.
    """
    for other, (what, folder) in OTHERS.items():
        if repository == other or (folder and has(folder)):
            raise ModelError(
                f"{source} is {what}: it cannot be run here", f"Those that can are {', '.join(PUBLISHED)}."
            )


def joined(folder: str, name: str) -> str:
    """The name of a file in a folder of a repository; "" is its root."""
    return f"{folder}/{name}" if folder else name


def site(has: Callable[[str], bool], part: str, inside: str = "", *, alone: bool = False) -> str | None:
    """The folder of a repository that ``has`` a part; None if there is none.

    A model may lie in a folder ``inside`` the repository, and share parts at the root with others. ``alone``: what lies
    in that folder itself may be the part, too.
    """
    markers = (FILES[part][0], *INSTEAD.get(part, ()))
    places = [joined(inside, part), part, *([inside] if alone else [])]
    return next((place for place in places if any(has(joined(place, name)) for name in markers)), None)


def sites(has: Callable[[str], bool], inside: str = "") -> dict[str, str]:
    """The parts of a model, and the folders in which they lie; a transformer may be at the root, without a folder."""
    whole = has(joined(inside, INDEX))
    found = {part: site(has, part, inside, alone=part == "transformer" and not whole) for part in FILES}
    return {part: place for part, place in found.items() if place is not None}


def model_folders(names: Collection[str]) -> list[str]:
    """The folders of a repository in which models lie: "" is its root; several where it has more than one."""
    if INDEX in names or "transformer" in sites(names.__contains__):
        return [""]
    # A repository's words become a folder here: a plain one, one level down.
    found = (re.fullmatch(r"(\w[\w-]*)/transformer/config\.json", name) for name in names)
    return sorted({match[1] for match in found if match})


def in_folder(names: Collection[str], folder: str) -> set[str]:
    """The names of the files that lie in a folder itself."""
    prefix = joined(folder, "")
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix) and "/" not in name[len(prefix) :]}


def weights_in(names: Collection[str], part: str, precision: str) -> list[str]:
    """The files, of the ``names`` in a part's folder, with its weights in one precision; none unless all are there."""
    stem = WEIGHTS[part]
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


def small_files(names: Collection[str], part: str) -> tuple[str, ...] | None:
    """The small files of a part, of the ``names`` in its folder; None if one is missing."""
    either = (FILES[part], INSTEAD.get(part, FILES[part]))
    return next((files for files in either if all(name in names for name in files)), None)


def holds(names: Collection[str], part: str) -> bool:
    """Whether the ``names`` in a folder are a whole part."""
    weights = part not in WEIGHTS or any(weights_in(names, part, precision) for precision in PRECISIONS)
    return weights and small_files(names, part) is not None


def precisions_of(held: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The precisions in which every part is there, or all that it takes if there is none of that kind.

    ``held`` are the names in the folder of each part. None: a part is missing, or not whole.
    """
    if not all(part in held and holds(held[part], part) for part in FILES):
        return ()
    parts = [[precision for precision in PRECISIONS if weights_in(held[part], part, precision)] for part in WEIGHTS]
    return tuple(p for p in PRECISIONS if all(p in part for part in parts)) or PRECISIONS


def files_of(
    repo: str, names: Collection[str], part: str, place: str, precision: str, on_message: Callable[[str], None]
) -> list[str]:
    """The files of a repository that are to be fetched for a part, which lies in the folder ``place``.

    A part that it has only in the other precision is taken in that, and ``on_message`` is told. Raises ModelError where
    a file is missing, or there are no weights that may be loaded.
    """
    there = in_folder(names, place)
    small = small_files(there, part)
    if small is None:
        raise lacks(repo, joined(place, next(name for name in FILES[part] if name not in there)))
    wanted = [*small, *(name for name in WELCOME.get(part, ()) if name in there)]
    if part in WEIGHTS:
        found = weights_in(there, part, precision)
        if not found and (other := next((p for p in PRECISIONS if weights_in(there, part, p)), None)):
            on_message(f"{repo} has no {precision} weights of its {part}: taking those in {other}")
            found = weights_in(there, part, other)
        if not found and (pickles := [name for name in sorted(there) if name.endswith(PICKLES)]):
            raise ModelError(
                f"{repo} has the weights of its {part} as a pickle only ({joined(place, pickles[0])}), which can run "
                "code of its own: it is not fetched",
                "ask its owner for safetensors: https://huggingface.co/spaces/safetensors/convert makes them",
            )
        if not found:
            raise ModelError(f"{repo} has no safetensors with the weights of its {part}", "fetch another model")
        wanted += found
    return [joined(place, name) for name in wanted]


def lacks(repo: str, name: str) -> ModelError:
    """The error for a repository that is no model of a known layout, because a file is missing."""
    known = dict.fromkeys(spec.repository for spec in PUBLISHED.values())
    return ModelError(
        f"{repo} does not have the files of a model that can be run here: it has no {name}",
        f"those that do are {' and '.join(known)}, and what was made from them",
    )
