"""LoRAs of aMUSEd as diffusers and peft write them: read into adapters of ours, and written so that they load there.

Such a file holds two halves of each module, ``lora_A [rank,in]`` and ``lora_B [out,rank]``, ours transposed. Upstream:
``examples/amused/train_amused.py`` and ``UVit2DModel.load_lora_adapter`` of diffusers. The example leaves alpha out of
its files, and what loads them takes it to be the rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from styledrop_cli import __version__
from styledrop_cli.adapters import LARGEST_SHARE, open_adapter, share, write_adapter
from styledrop_cli.base import Base, load_base
from styledrop_cli.checkpoints import (
    FORMAT,
    HEADER_KEY,
    LARGEST_ADAPTER,
    AdapterFile,
    load_adapter,
    read_tensors,
    save_tensors,
)
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.files import file_hash, parse_json, read_bytes
from styledrop_cli.models.adapter import PROJECTIONS, LoraAdapter, LoraConfig
from styledrop_cli.models.transformer import MaskedTransformer
from styledrop_cli.settings import PUBLISHED, SampleSettings

WEIGHTS = "pytorch_lora_weights.safetensors"  # what diffusers calls such a file
OF_PEFT, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # what peft does, and where it says alpha
ABOUT = "lora_adapter_metadata"  # the entry of a file's metadata in which newer releases of diffusers say alpha
PREFIX = "transformer."
PREFIXES = ("base_model.model.", PREFIX)
HALF = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
PROJECTION = re.compile(r"(?P<attention>.+)\.(?P<name>to_q|to_k|to_v|to_out(?=\.0))(\.0)?")


@dataclass(frozen=True)
class Lora:
    """Each module's halves, ``A [rank,in]`` and ``B [out,rank]`` in fp32, and alpha where the file says it."""

    source: str
    halves: dict[str, tuple[Tensor, Tensor]]
    rank: int
    alpha: float | None


# ---- reading ----


def is_ours(path: Path) -> bool:
    """Whether a file is an adapter of ours; raises ModelError if it is a pickle or no safetensors file at all."""
    return HEADER_KEY in read_tensors(path, LARGEST_ADAPTER)[1]


def read_lora(path: Path) -> Lora:
    """Read a file of diffusers or peft.

    Raises ModelError for a pickle, anything but the halves of a transformer's LoRA, a half that is missing or misshapen
    or not finite, ranks that differ, and an alpha that is not one number.
    """
    tensors, metadata = read_tensors(path, LARGEST_ADAPTER)
    found, source = _found(tensors, str(path)), str(path)
    ranks = sorted({a.shape[0] for a, _ in found.values()})
    if len(ranks) > 1:
        raise ModelError(
            f"the modules of {source} have different ranks: {', '.join(map(str, ranks))}",
            "Train it with one rank for all.",
        )
    return Lora(source, found, ranks[0], _alpha(path, metadata, ranks[0]))


def _found(tensors: Mapping[str, Tensor], source: str) -> dict[str, tuple[Tensor, Tensor]]:
    """The halves by their modules' names, once nothing is wrong with them by themselves."""
    if any(".base_layer." in name for name in tensors):
        raise ModelError(
            f"{source} is a whole network with a LoRA inside", f"Give the LoRA alone: checkpoint-.../{WEIGHTS}."
        )
    halves: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name, tensor in tensors.items():
        match = HALF.fullmatch(name)
        if match is None or name.startswith("text_encoder."):
            unknown.append(name)
            continue
        module = match["module"]
        for prefix in PREFIXES:
            module = module.removeprefix(prefix)
        pair = halves.setdefault(module, {})
        if match["half"] in pair:
            unknown.append(name)
        pair[match["half"]] = tensor
    if not halves:
        raise ModelError(f"{source} holds no LoRA of a transformer", f"diffusers' example of aMUSEd writes {WEIGHTS}.")
    text = [name for name in unknown if name.startswith("text_encoder.")]
    if text:
        raise ModelError(
            f"{source} trains the text encoder too ({len(text)} tensors), which always stays as it is here",
            "Train it without --train_text_encoder.",
        )
    problems = [f"{name} is not known" for name in unknown]
    for module, pair in halves.items():
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None:
            problems.append(f"{module} has lora_{'B' if a is None else 'A'} and no lora_{'A' if a is None else 'B'}")
        elif a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
            problems.append(f"the halves of {module} are {list(a.shape)} and {list(b.shape)}: that is no product")
        elif not (a.is_floating_point() and b.is_floating_point()):
            problems.append(f"{module} is of {a.dtype}, {b.dtype}")
        elif not (a.float().isfinite().all() and b.float().isfinite().all()):
            problems.append(f"{module} holds a value that is not finite")
    _refuse(problems, source)
    return {module: (pair["A"].float(), pair["B"].float()) for module, pair in halves.items()}


def _refuse(problems: list[str], source: str, hint: str | None = None) -> None:
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(f"{source} does not fit: {'; '.join(problems[:3])}{more}", hint)


def _alpha(path: Path, metadata: Mapping[str, str], rank: int) -> float | None:
    """What a file's metadata, or for peft's the configuration beside it, say of alpha; None where neither does."""
    beside = path.with_name(PEFT_CONFIG)
    text = metadata.get(ABOUT)
    try:
        if text is None and path.name == OF_PEFT and beside.is_file():
            text = read_bytes(beside).decode("utf-8", "replace")
        said = parse_json(text) if text is not None else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"what {path} says of itself is damaged: {error}") from error
    if not isinstance(said, dict):
        raise ModelError(f"what {path} says of itself is damaged: it is no JSON object")
    said = {name.removeprefix(PREFIX): value for name, value in said.items()}
    alpha = said.get("lora_alpha")
    if alpha is None:
        return None
    if said.get("alpha_pattern") or said.get("use_dora"):
        raise ModelError(f"{path} gives its modules strengths of their own, which cannot be kept here")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not (math.isfinite(alpha) and alpha > 0):
        raise ModelError(f"{path} says that its alpha is {alpha!r:.40}, which is no positive number")
    return float(alpha) * (math.sqrt(rank) if said.get("use_rslora") else 1)


# ---- the two ways ----


def published_base(folder: str) -> Base:
    """The base in a ``folder``, its transformer mere shapes; raises ModelError if it is not in the published layout."""
    base = load_base(folder, torch.device("cpu"))
    if base.published is None:
        raise ModelError(
            f"{base.name} has no equivalent in diffusers: its LoRAs stay here, and others do not fit it",
            "Choose a published base with --model: amused-256 or amused-512.",
        )
    with torch.device("meta"):
        return base.having(transformer=MaskedTransformer(base.published.transformer))


def adapter_of(lora: Lora, alpha: float, network: MaskedTransformer) -> tuple[LoraAdapter, list[str]]:
    """An adapter for ``network`` (shapes are enough), and the modules that ``lora`` leaves alone: they get zeros.

    Raises ModelError for a module that is no attention projection of ``network``, and for shapes that are not its own.
    """
    matches = {module: PROJECTION.fullmatch(module) for module in lora.halves}
    others = [f"{module} is no projection of an attention" for module, match in matches.items() if match is None]
    _refuse(others, lora.source, "Train it on those alone: --lora_target_modules to_q to_k to_v (and to_out.0).")
    sites = {f"{match['attention']}.{match['name']}": module for module, match in matches.items() if match}
    targets = tuple(name for name in PROJECTIONS if any(site.endswith(f".{name}") for site in sites))
    if lora.rank > network.config.hidden_size:
        raise ModelError(f"{lora.source} has rank {lora.rank}: more than the base's own matrices have")
    adapter = LoraAdapter(LoraConfig(lora.rank, alpha, targets), network)
    problems = []
    for site, module in sites.items():
        name = site.replace(".", "/")
        if name not in adapter.a:
            problems.append(f"the base has no {module}")
            continue
        a, b = (half.T for half in lora.halves[module])
        if a.shape != adapter.a[name].shape or b.shape != adapter.b[name].shape:
            wanted = f"{adapter.a[name].shape[0]} to {adapter.b[name].shape[1]}"
            problems.append(f"{module} goes from {a.shape[0]} to {b.shape[1]}, and the base's from {wanted}")
            continue
        adapter.a[name].data, adapter.b[name].data = a.contiguous(), b.contiguous()
    _refuse(problems, lora.source, "Choose the base that it was trained on with --model.")
    left = [name.replace("/", ".") for name in adapter.a if name.replace("/", ".") not in sites]
    return adapter.requires_grad_(False).eval(), left


def lora_of(adapter: LoraAdapter) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata that diffusers loads as ``adapter``: its strength is in ``B``, so that alpha is the rank.

    Modules that are all zeros, as ``adapter_of`` leaves them, are left out.
    """
    rank, scale = adapter.config.rank, adapter.config.alpha / adapter.config.rank
    tensors, modules = {}, []
    for name, a in adapter.a.items():
        b = adapter.b[name]
        if a.any() or b.any():
            module = name.replace("/", ".") + (".0" if name.endswith("/to_out") else "")
            modules.append(module)
            tensors[f"{PREFIX}{module}.lora_A.weight"] = a.T
            tensors[f"{PREFIX}{module}.lora_B.weight"] = scale * b.T
    about = {"r": rank, "lora_alpha": rank, "target_modules": modules}
    said = json.dumps({f"{PREFIX}{name}": value for name, value in about.items()}, indent=2, sort_keys=True)
    return tensors, {"format": "pt", ABOUT: said}


# ---- files ----


def bring_in(
    lora: Lora,
    base: Base,
    *,
    style: str,
    alpha: float | None,
    output: Path,
    on_message: Callable[[str], None],
) -> dict[str, Any]:
    """Write ``lora`` as an adapter for ``base``, as ``published_base`` opens it; returns the header.

    ``alpha`` is what it was trained with, where its file does not say it. Raises UsageError where the file says
    another one, ModelError as ``adapter_of`` does.
    """
    if alpha is not None and lora.alpha is not None and not math.isclose(alpha, lora.alpha, rel_tol=1e-6):
        raise UsageError(f"{lora.source} says that its alpha is {lora.alpha:g}, not {alpha:g}", "leave --alpha out")
    known = lora.alpha if lora.alpha is not None else alpha
    adapter, left = adapter_of(lora, known or float(lora.rank), base.transformer)
    if known is None:
        on_message(
            f"Warning: {lora.source} does not say its alpha; it is taken to be its rank, {lora.rank}, as diffusers "
            "takes it. Diffusers' example trains with 32 unless told otherwise "
            f"(--alpha 32: {32 / lora.rank:g} times as strong), and with 1 in its recipe for 512 px (--alpha 1)"
        )
    if left:
        on_message(
            f"{lora.source} trains {len(lora.halves)} of {len(lora.halves) + len(left)} modules; the others stay as "
            "they are"
        )
    if share(adapter, base.transformer) >= LARGEST_SHARE:
        on_message(
            f"Warning: {lora.source} is {share(adapter, base.transformer):.1%} of the base; beyond 1 % it may copy "
            "its picture"
        )
    path = Path(lora.source)
    header = {
        "format": FORMAT,
        "kind": adapter.kind,
        "config": asdict(adapter.config),
        "base": {"name": base.name, "hash": base.hash},
        "style": style,
        "contents": [],
        "recommended": {"lambda_a": SampleSettings.lambda_a, "lambda_b": PUBLISHED["sampling"]["lambda_b"]},
        "pictures": [],
        "source": {"name": path.name, "sha256": file_hash(path)},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "styledrop": __version__,
    }
    write_adapter(output, adapter, header, {})
    return header


def read_own(path: Path) -> AdapterFile:
    """An adapter of ours that may be taken elsewhere; raises ModelError if it is of another kind, or pocket's."""
    file = load_adapter(path)
    if file.header["base"].get("name") == "pocket":
        raise ModelError(
            f"{path} was trained on pocket, which has no equivalent in diffusers",
            "Train one on a published base: 'styledrop train ... --kind lora --model amused-256'.",
        )
    if file.header["kind"] != LoraAdapter.kind:
        raise ModelError(
            f"{path} is an adapter of kind '{file.header['kind']}', which diffusers does not have",
            "It has LoRAs: 'styledrop train ... --kind lora'.",
        )
    return file


def take_out(file: AdapterFile, base: Base, output: Path) -> None:
    """Write the LoRA in ``file`` for diffusers; raises ModelError if it does not belong to ``base``."""
    adapter = open_adapter(base, file).base
    assert isinstance(adapter, LoraAdapter)
    tensors, metadata = lora_of(adapter)
    if not tensors:
        raise ModelError(f"{file.path} is all zeros: it changes nothing")
    save_tensors(output, tensors, metadata)
