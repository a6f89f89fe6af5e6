"""Writes a folder as aMUSEd's and Meissonic's are published, which upstream reads too: for comparisons and tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styledrop_cli.base.amused import (
    CLIP_BLOCK,
    CLIP_LAYER,
    CLIP_PACKED,
    CLIP_SIZES,
    FIXED,
    clip_pairs,
)
from styledrop_cli.base.layout import INDEX, WEIGHTS
from styledrop_cli.base.meissonic import SIDE
from styledrop_cli.base.prompt_tokens import vocabulary_of, write_merges
from styledrop_cli.base.registry import AMUSED, MEISSONIC
from styledrop_cli.errors import ModelError
from styledrop_cli.io.files import write_json
from styledrop_cli.io.tensors import save_tensors
from styledrop_cli.models.clip import Clip
from styledrop_cli.models.meissonic import MeissonicTransformer
from styledrop_cli.models.tokenizer import ImageTokenizer
from styledrop_cli.models.transformer import MaskedTransformer


def clip_to_published(clip: Clip) -> dict[str, Tensor]:
    """Our text encoder's tensors under upstream's names."""
    own = clip.state_dict()
    made = {theirs: own[ours] for theirs, ours in clip_pairs(clip.config.text_layers).items()}
    made["text_projection.weight"] = own["text_projection"].T
    for layer in range(clip.config.text_layers):
        for kind in ("weight", "bias"):
            parts = own[f"{CLIP_BLOCK.format(layer)}attn.in_proj_{kind}"].chunk(3)
            made |= {f"{CLIP_LAYER.format(layer)}{n}.{kind}": p for n, p in zip(CLIP_PACKED, parts, strict=True)}
    return made


def write_random(path: Path, shapes: Mapping[str, Tensor], seed: int = 0) -> None:
    """Write a safetensors file of random weights that all have a say, one at a time; ``shapes`` hold no values."""
    kinds = {torch.float32: "F32", torch.float16: "F16"}
    about: dict[str, Any] = {}
    end = 0
    for name, t in shapes.items():
        begin, end = end, end + t.numel() * t.element_size()
        about[name] = {"dtype": kinds[t.dtype], "shape": list(t.shape), "data_offsets": [begin, end]}
    header = json.dumps({"__metadata__": {"format": "pt"}} | about).encode()
    header += b" " * (-len(header) % 8)
    draws = torch.Generator().manual_seed(seed)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name, t in shapes.items():
            values = torch.randn(t.shape, generator=draws)
            values *= 0.2 if t.ndim < 2 else t[0].numel() ** -0.5
            if t.ndim < 2 and name.endswith("weight"):  # a norm's
                values += 1
            file.write(values.to(t.dtype).numpy().tobytes())


def save_published(
    folder: Path,
    transformer: MaskedTransformer | MeissonicTransformer,
    tokenizer: ImageTokenizer,
    clip: Clip,
    merges: list[tuple[str, str]],
    *,
    half: bool = False,
) -> None:
    """Write a folder that ``open_published`` and upstream's ``AmusedPipeline.from_pretrained`` read.

    That of a ``MeissonicTransformer`` is as Meissonic's are. ``half`` writes upstream's fp16 variant. A transformer
    that is mere shapes (on the device "meta") gets random weights, which are never in memory all at once. Raises
    ModelError for sizes that upstream does not have (pocket's own).
    """
    family = MEISSONIC if isinstance(transformer, MeissonicTransformer) else AMUSED
    codes = asdict(tokenizer.config)
    if codes.pop("patch_size") != 1 or codes.pop("linear_path") or codes.pop("levels"):
        raise ModelError("a tokenizer with patches, a linear path or levels has no place in the published layout")
    levels, text = len(tokenizer.config.block_out_channels), clip.config
    fixed = {name: value for name, value in FIXED["vqvae"].items() if value is not None}
    configs = {
        "transformer": transformer_sizes(transformer),
        "vqvae": codes
        | fixed
        | {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels},
        "text_encoder": {
            "architectures": ["CLIPTextModelWithProjection"],
            "model_type": "clip_text_model",
            "hidden_act": "quick_gelu" if text.quick_gelu else "gelu",
            "intermediate_size": 4 * text.text_width,
            "layer_norm_eps": 1e-5,
            # Upstream's pooling looks for the highest id where the end token is said to be 2 (transformers CLIPText).
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        }
        | {theirs: getattr(text, ours) for theirs, ours, _ in CLIP_SIZES},
    }
    tensors = {
        "transformer": transformer.state_dict(),
        "vqvae": tokenizer.state_dict(),
        "text_encoder": clip_to_published(clip),
    }
    for part, weights in tensors.items():
        (library, name), stem = family.classes[part], WEIGHTS[part]
        said = {"_class_name": name} if library != "transformers" else {}
        write_json(folder / part / "config.json", said | configs[part])
        held = {n: t.half() for n, t in weights.items()} if half else weights
        path = folder / part / f"{stem}{'.fp16' if half else ''}.safetensors"
        if all(t.is_meta for t in held.values()):
            write_random(path, held)
        else:
            save_tensors(path, held, {"format": "pt"})
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "!" if family is MEISSONIC else "<|endoftext|>"
    about = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": text.context_length}
    write_json(folder / "tokenizer" / "vocab.json", vocabulary_of(merges))
    write_merges(folder / "tokenizer" / "merges.txt", merges, version=True)
    write_json(folder / "tokenizer" / "special_tokens_map.json", special)
    write_json(folder / "tokenizer" / "tokenizer_config.json", about)
    scheduler = {"_class_name": family.classes["scheduler"][1], "mask_token_id": transformer.config.mask_id}
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler | {"masking_schedule": "cosine"})
    index = {"_class_name": family.pipelines[0], "_diffusers_version": "0.25.0"}
    write_json(folder / INDEX, index | {part: list(names) for part, names in family.classes.items()})


def transformer_sizes(transformer: MaskedTransformer | MeissonicTransformer) -> dict[str, Any]:
    """What ``transformer/config.json`` says; raises ModelError for learned positions, which upstream does not have."""
    sizes = asdict(transformer.config)
    if isinstance(transformer, MeissonicTransformer):
        if sizes["sample_size"] == SIDE * (1 + sizes["downsample"]):  # upstream's file does not hold it
            del sizes["sample_size"]
        return sizes | {"in_channels": 64, "patch_size": 1, "guidance_embeds": False}
    if sizes.pop("positions") or type(transformer) is not MaskedTransformer:
        raise ModelError("a transformer with learned positions has no place in the published layout")
    return sizes | {name: value for name, value in FIXED["transformer"].items() if value is not None}
