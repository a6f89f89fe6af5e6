"""Published models: which base one is, and its networks.

A folder holds ``model_index.json`` and a folder each for the transformer, the image tokenizer (``vqvae``), the text
encoder, its ``tokenizer`` and the ``scheduler`` (upstream: diffusers ``DiffusionPipeline.save_pretrained``). Of some
relatives there is the transformer alone: ``base.cache`` says where their other parts are.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from styledrop_cli.base import amused, meissonic
from styledrop_cli.base.cache import Placed, address, family_at, is_lone, name_of, placed, transformer_in
from styledrop_cli.base.folder import Opened, Part, refuse_misfits
from styledrop_cli.base.layout import FILES, INDEX, WEIGHTS, known_family, refuse_relative
from styledrop_cli.base.published_files import Network, fingerprint, is_mapped, read_object, read_weights, weight_files
from styledrop_cli.base.registry import BaseSpec, is_class, row_of
from styledrop_cli.devices import halve
from styledrop_cli.errors import ModelError
from styledrop_cli.io.tensors import load_strictly, network_of
from styledrop_cli.sampling.masking import SCHEDULES

NETWORKS = amused.NETWORKS | meissonic.NETWORKS  # by the class that the folder names
PARTS = {"transformer": "transformer", "tokenizer": "vqvae", "clip": "text_encoder"}  # our names to upstream's


def is_published(folder: Path) -> bool:
    """Whether a folder has the published layout, or holds a published transformer alone."""
    return (folder / INDEX).is_file() or is_lone(folder)


def open_published(folder: Path, text_encoder: str | None = None) -> Opened:
    """Read what a published model says of itself, and look that its weights are there.

    ``text_encoder`` is the name of the one to read with, None for the one that suits. Raises ModelError for a missing
    or damaged description, a class or a setting that is not its family's, a missing part, file or shard, weights that
    are pickles, parts that do not fit, and a text encoder that is not known.
    """
    family = _family(folder)
    found = placed(folder, text_encoder)
    _refuse_missing(folder, found)
    places = found.found
    for part in WEIGHTS:
        weight_files(places[part], part)
    parts = {name: _part(places[theirs], theirs, family) for name, theirs in PARTS.items()}
    transformer = parts["transformer"].config
    scheduler = read_object(places["scheduler"] / "scheduler_config.json")
    schedule = scheduler.get("masking_schedule", "cosine")
    if scheduler.get("mask_token_id") != transformer.mask_id or schedule not in tuple(SCHEDULES):
        raise ModelError(
            f"the scheduler of {folder} masks by {scheduler.get('mask_token_id')}, {schedule}; "
            f"{transformer.mask_id} and {' or '.join(SCHEDULES)} are known"
        )
    defaults = asdict(type(transformer)())
    sizes = {name: value for name, value in asdict(transformer).items() if value != defaults[name]}
    spec = family if family.name else row_of(family, sizes)
    refuse_misfits(folder, **{name: part.config for name, part in parts.items()})
    tokenizer = amused.read_text_vocabulary(places["tokenizer"], parts["clip"].config)
    identity = partial(fingerprint, places["transformer"])
    return Opened(name_of(folder), spec, parts, tokenizer, identity, schedule, found.text_encoder)


def _family(folder: Path) -> BaseSpec:
    """The row or family of a folder; raises ModelError where there is none, or a part is of another class."""
    refuse_relative(folder, (address(folder) or ("",))[0], lambda name: (folder / name).is_dir())
    family = family_at(folder)
    if is_lone(folder):
        if family is None:
            place = transformer_in(folder)
            raise ModelError(
                f"{place} describes a {read_object(place).get('_class_name')}, which is no transformer that can be run "
                "here",
                f"A model's folder holds {INDEX}, or a transformer of Meissonic's kind alone.",
            )
        return family
    index = read_object(folder / INDEX)
    known = known_family(folder, index)
    for part, (library, name) in known.classes.items():
        if not is_class(index.get(part), library, name):
            raise ModelError(f"the {part} of {folder} is {_class_of(index.get(part))}, and {name} is wanted")
    return family if family is not None and family.name else known


def _refuse_missing(folder: Path, found: Placed) -> None:
    """Raise ModelError where a part is neither in the folder nor, if it is from another repository, in the cache."""
    for part, repo in found.missing.items():
        name = f"{part}/{FILES[part][0]}"
        if not repo:
            raise ModelError(f"{folder / name} is missing", "Fetch the model again: 'styledrop models fetch' says how.")
        raise ModelError(
            f"{folder} has the {part} of {repo}, which is not, or not wholly, in the cache",
            f"Fetch what it lacks: styledrop models fetch {shlex.quote(str(folder))}",
        )


def _class_of(entry: object) -> str:
    return ".".join(map(str, entry)) if isinstance(entry, list) else "missing"


def _part(place: Path, part: str, family: BaseSpec) -> Part:
    kind = family.classes[part][1]
    if part == "text_encoder" and "text_config" in read_object(place / FILES[part][0]):
        kind = "CLIPModel"  # another publisher's, with a tower for pictures
    network = NETWORKS[kind]
    config = network.config(place)
    return Part(config, partial(_load, place, part, network, config), is_mapped(place, part))


def _load(
    place: Path, part: str, network: Network, config: Any, finite: bool = False, halved: bool = False
) -> nn.Module:
    """A part's network, in fp32. fp32 files stay mapped: a tensor is read from the disk when it is first used.

    ``halved``: its matrices are in bfloat16 and were never in fp32, see ``devices.halve``.
    """
    source = str(place)
    tensors = network.rename(read_weights(place, part), config)
    module = network_of(lambda: network.make(config), source)
    if halved:
        halve(module)
    load_strictly(module, tensors, source, finite=finite)
    return module.requires_grad_(False).eval()
