"""Published folders: which base one holds, and its networks.

A folder holds ``model_index.json`` and a folder each for the transformer, the image tokenizer (``vqvae``), the text
encoder, its ``tokenizer`` and the ``scheduler`` (upstream: diffusers ``DiffusionPipeline.save_pretrained``).
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from styledrop_cli.base import amused, meissonic
from styledrop_cli.base.folder import Opened, Part, refuse_misfits
from styledrop_cli.base.hub import name_of
from styledrop_cli.base.layout import INDEX, WEIGHTS, known_family
from styledrop_cli.base.published_files import Network, fingerprint, is_mapped, read_object, read_weights, weight_files
from styledrop_cli.base.registry import BaseSpec, is_class, row_of
from styledrop_cli.errors import ModelError
from styledrop_cli.io.tensors import load_strictly, network_of
from styledrop_cli.sampling.masking import SCHEDULES

NETWORKS = amused.NETWORKS | meissonic.NETWORKS  # by the class that the folder names
PARTS = {"transformer": "transformer", "tokenizer": "vqvae", "clip": "text_encoder"}  # our names to upstream's


def is_published(folder: Path) -> bool:
    """Whether a folder has the published layout."""
    return (folder / INDEX).is_file()


def open_published(folder: Path) -> Opened:
    """Read what a published folder says of itself, and look that its weights are there.

    Raises ModelError for a missing or damaged description, a class or a setting that is not its family's, a missing
    file or shard, weights that are pickles, and parts that do not fit.
    """
    index = read_object(folder / INDEX)
    family = known_family(folder, index)
    for part, (library, name) in family.classes.items():
        if not is_class(index.get(part), library, name):
            raise ModelError(f"the {part} of {folder} is {_class_of(index.get(part))}, and {name} is wanted")
        if part in WEIGHTS:
            weight_files(folder, part)
    parts = {name: _part(folder, theirs, family) for name, theirs in PARTS.items()}
    transformer = parts["transformer"].config
    scheduler = read_object(folder / "scheduler" / "scheduler_config.json")
    schedule = scheduler.get("masking_schedule", "cosine")
    if scheduler.get("mask_token_id") != transformer.mask_id or schedule not in tuple(SCHEDULES):
        raise ModelError(
            f"the scheduler of {folder} masks by {scheduler.get('mask_token_id')}, {schedule}; "
            f"{transformer.mask_id} and {' or '.join(SCHEDULES)} are known"
        )
    defaults = asdict(type(transformer)())
    spec = row_of(family, {name: value for name, value in asdict(transformer).items() if value != defaults[name]})
    refuse_misfits(folder, **{name: part.config for name, part in parts.items()})
    tokenizer = amused.read_text_vocabulary(folder, parts["clip"].config)
    return Opened(name_of(folder), spec, parts, tokenizer, partial(fingerprint, folder), schedule)


def _class_of(entry: object) -> str:
    return ".".join(map(str, entry)) if isinstance(entry, list) else "missing"


def _part(folder: Path, part: str, family: BaseSpec) -> Part:
    network = NETWORKS[family.classes[part][1]]
    config = network.config(folder / part)
    return Part(config, partial(_load, folder, part, network, config), is_mapped(folder, part))


def _load(folder: Path, part: str, network: Network, config: Any, finite: bool = False) -> nn.Module:
    """A part's network, in fp32. fp32 files stay mapped: a tensor is read from the disk when it is first used."""
    source = str(folder / part)
    tensors = network.rename(read_weights(folder, part), config)
    module = network_of(lambda: network.make(config), source)
    load_strictly(module, tensors, source, finite=finite)
    return module.requires_grad_(False).eval()
