"""LoRAs of published bases as diffusers, peft and kohya write them: read into adapters of ours, and written for them.

Such a file holds two halves of each module, ``lora_A [rank,in]`` and ``lora_B [out,rank]``, ours transposed. Upstream:
``examples/amused/train_amused.py`` and ``UVit2DModel.load_lora_adapter`` of diffusers, and Meissonic's
``train/train_meissonic.py``, whose network loads them by the same method. Both scripts leave alpha out of their files,
and what loads them takes it to be the rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from styledrop_cli.adapters.file import LARGEST_SHARE, open_adapter, share, write_adapter
from styledrop_cli.adapters.header import KEY, LARGEST_ADAPTER, AdapterFile, AdapterHeader, load_adapter, made_now
from styledrop_cli.adapters.lora_claims import ABOUT, PEFT_CONFIG, claims_of, refuse_other_base
from styledrop_cli.adapters.lora_names import (
    ALPHA,
    A,
    B,
    any_begins,
    family,
    is_of_text,
    other_kind,
    plain,
    read_name,
)
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.published import NETWORKS
from styledrop_cli.base.registry import AMUSED, PUBLISHED, BaseSpec
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.tensors import read_tensors, save_tensors
from styledrop_cli.models.adapter import LoraAdapter, LoraConfig
from styledrop_cli.models.layers import PROJECTIONS
from styledrop_cli.models.transformer import TokenTransformer
from styledrop_cli.settings import SampleSettings

WEIGHTS = "pytorch_lora_weights.safetensors"  # what diffusers calls such a file
OF_PEFT = "adapter_model.safetensors"  # what peft calls it
PREFIX = "transformer."
PROJECTION = re.compile(r"(?P<attention>.+)_(?P<name>to_[qkv]|to_out(?=_0$))(_0)?")


@dataclass(frozen=True)
class Lora:
    """Each module's halves, ``A [rank,in]`` and ``B [out,rank]`` in fp32, and what its file says, or None.

    That is alpha, and the name of the base.
    """

    source: str
    halves: dict[str, tuple[Tensor, Tensor]]
    rank: int
    alpha: float | None
    base: str | None = None


# ---- reading ----


def is_ours(path: Path) -> bool:
    """Whether a file is an adapter of ours; raises ModelError if it is no safetensors file at all."""
    return KEY in read_tensors(path, LARGEST_ADAPTER)[1]


def read_lora(path: Path, spec: BaseSpec = AMUSED) -> Lora:
    """Read a file of diffusers, peft or kohya, made for a base of the row ``spec``.

    Raises ModelError for anything but the halves of a LoRA of its transformer, a half that is missing, misshapen
    or not finite, ranks that differ, an untrained LoRA, and a description that the tensors contradict or that changes
    what they mean (see ``lora_claims``).
    """
    tensors, metadata = read_tensors(path, LARGEST_ADAPTER)
    source = str(path)
    found, alphas = _found(tensors, source, spec)
    ranks = sorted({a.shape[0] for a, _ in found.values()})
    if len(ranks) > 1:
        raise ModelError(
            f"the modules of {source} have different ranks: {', '.join(map(str, ranks))}",
            "Train it with one rank for all.",
        )
    if not any(a.any() and b.any() for a, b in found.values()):
        which = "lora_B" if not any(b.any() for _, b in found.values()) else "lora_A or lora_B"
        raise ModelError(
            f"{source} is untrained: {which} is all zeros in each of its modules, and it changes nothing",
            "Give a file that was saved after the training.",
        )
    of_peft = path.name == OF_PEFT or any(name.startswith("base_model.") for name in tensors)
    beside = path.with_name(PEFT_CONFIG) if of_peft else None
    claims = claims_of(path, metadata, beside, found, ranks[0], spec)
    said = set(alphas.values())
    if claims.alpha is not None and any(not math.isclose(alpha, claims.alpha, rel_tol=1e-3) for alpha in said):
        raise ModelError(
            f"{source} says that its alpha is {claims.alpha:g}, and its tensors say {max(said):g}", "Get it anew."
        )
    if len(said) > 1:  # each module's own strength goes into its own B
        found = {module: (a, b * (alphas[module] / ranks[0])) for module, (a, b) in found.items()}
        return Lora(source, found, ranks[0], float(ranks[0]), claims.base)
    return Lora(source, found, ranks[0], said.pop() if said else claims.alpha, claims.base)


def _found(
    tensors: Mapping[str, Tensor], source: str, spec: BaseSpec
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, float]]:
    """The halves by their modules' names, once nothing is wrong with them by themselves, and alphas that are there."""
    if any(".base_layer." in name for name in tensors):
        raise ModelError(
            f"{source} is a whole network with a LoRA inside", f"Give the LoRA alone: checkpoint-.../{WEIGHTS}."
        )
    text = [name for name in tensors if is_of_text(name)]
    parts: dict[str, dict[str, Tensor]] = {}
    problems = []
    for name in tensors.keys() - set(text):
        module, part = read_name(name) or (None, "")
        if module is None:
            problems.append(f"{name} is not known")
        elif part in parts.setdefault(module, {}):
            problems.append(f"{module} has more than one {part}")
        else:
            parts[module][part] = tensors[name]
    _refuse_others(tensors, text, parts, source, spec)
    alphas: dict[str, float] = {}
    for module, pair in parts.items():
        a, b, alpha = pair.get(A), pair.get(B), pair.get(ALPHA)
        if a is None or b is None:
            problems.append(f"{module} has {B if a is None else A} and no {A if a is None else B}")
        elif a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
            problems.append(f"the halves of {module} are {list(a.shape)} and {list(b.shape)}: that is no product")
        elif not (a.is_floating_point() and b.is_floating_point()):
            problems.append(f"{module} is of {a.dtype}, {b.dtype}")
        elif not (a.float().isfinite().all() and b.float().isfinite().all()):
            problems.append(f"{module} holds a value that is not finite")
        elif alpha is not None and not (alpha.numel() == 1 and 0 < alpha.item() < math.inf):
            problems.append(f"the alpha of {module} is no positive number")
        elif alpha is not None:
            alphas[module] = float(alpha)
    if alphas and len(alphas) < len(parts) and not problems:
        problems.append(f"{len(alphas)} of {len(parts)} modules say their alpha, and the others do not")
    _refuse(sorted(problems), source)
    return {module: (pair[A].float(), pair[B].float()) for module, pair in sorted(parts.items())}, alphas


def _refuse_others(
    tensors: Mapping[str, Tensor], text: Sequence[str], modules: Collection[str], source: str, spec: BaseSpec
) -> None:
    """Raise ModelError for what is by its names no plain LoRA of a base of the row ``spec``; it says what it is."""
    if not tensors:
        raise ModelError(f"{source} holds no tensors", "Get it again, or give another file.")
    if kind := next((kind for name in tensors if (kind := other_kind(name))), None):
        raise ModelError(f"{source} is {kind}, and plain LoRAs alone are read here", "Train it as a plain LoRA.")
    ours = any_begins(modules, spec.lora_modules)
    told = _whose(modules)
    if text and not ours and not told:
        raise ModelError(
            f"{source} is a LoRA of a text encoder alone, which always stays as it is here",
            "Give the transformer's, trained without --train_text_encoder.",
        )
    if not modules:
        raise ModelError(
            f"{source} holds no LoRA: its {len(tensors)} tensors are called otherwise, the first {min(tensors)[:80]}",
            f"LoRAs as diffusers ({WEIGHTS}), peft and kohya write them are read here.",
        )
    if not ours:
        whose = f"is a LoRA of {told}" if told else f"is no LoRA of {spec.family}"
        raise ModelError(
            f"{source} {whose}: none of its {len(modules)} layers is in this base, the first is {min(modules)[:80]}",
            "A LoRA draws only with the model that it was trained on: name that with --model, or give one of "
            f"{spec.family}.",
        )
    if text:
        raise ModelError(
            f"{source} trains the text encoder too ({len(text)} tensors), which always stays as it is here",
            "Train it without --train_text_encoder.",
        )


def _whose(modules: Collection[str]) -> str | None:
    """The network that ``modules`` are of by their names, in words, if that can be told."""
    ours = (row.family for row in PUBLISHED.values() if any_begins(modules, row.lora_modules))
    return family(modules) or next(ours, None)


def _refuse(problems: list[str], source: str, hint: str | None = None) -> None:
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(f"{source} does not fit: {'; '.join(problems[:3])}{more}", hint)


# ---- the two ways ----


def published_base(folder: str) -> Base:
    """The base in a ``folder``, its transformer mere shapes; raises ModelError if it is not in the published layout."""
    base = load_base(folder, torch.device("cpu"))
    if not base.spec.lora_modules:
        raise ModelError(
            f"{base.name} has no equivalent in diffusers: its LoRAs stay here, and others do not fit it",
            f"Choose a published base with --model: {', '.join(PUBLISHED)}.",
        )
    with torch.device("meta"):
        network = NETWORKS[base.spec.classes["transformer"][1]]
        return base.having(transformer=network.make(base.parts.config("transformer")))


def adapter_of(lora: Lora, alpha: float, network: TokenTransformer) -> tuple[LoraAdapter, list[str]]:
    """An adapter for ``network`` (shapes are enough), and the modules that ``lora`` leaves alone: they get zeros.

    Raises ModelError for a module that is no attention projection of ``network``, and for shapes that are not its own.
    """
    matches = {module: PROJECTION.fullmatch(plain(module)) for module in lora.halves}
    others = [
        f"{module} is no projection of an attention that is adapted here"
        for module, match in matches.items()
        if match is None
    ]
    _refuse(others, lora.source, "Train it on those alone: --lora_target_modules to_q to_k to_v (and to_out.0).")
    sites = {f"{match['attention']}_{match['name']}": module for module, match in matches.items() if match}
    targets = tuple(name for name in PROJECTIONS if any(site.endswith(f"_{name}") for site in sites))
    if lora.rank > network.config.hidden_size:
        raise ModelError(f"{lora.source} has rank {lora.rank}: more than the base's own matrices have")
    adapter = LoraAdapter(LoraConfig(lora.rank, alpha, targets), network)
    problems = []
    names = {name.replace("/", "_"): name for name in adapter.a}
    for site, module in sites.items():
        name = names.get(site, "")
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
    left = [name.replace("/", ".") for site, name in names.items() if site not in sites]
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
) -> AdapterHeader:
    """Write ``lora`` as an adapter for ``base``, as ``published_base`` opens it; returns the header.

    ``alpha`` is what it was trained with, where its file does not say it. Raises UsageError where the file says
    another one, ModelError as ``adapter_of`` does.
    """
    if alpha is not None and lora.alpha is not None and not math.isclose(alpha, lora.alpha, rel_tol=1e-6):
        raise UsageError(f"{lora.source} says that its alpha is {lora.alpha:g}, not {alpha:g}", "leave --alpha out")
    if lora.base is not None and (doubt := refuse_other_base(lora.source, lora.base, base.name)):
        on_message(f"Warning: {doubt}")
    known = lora.alpha if lora.alpha is not None else alpha
    adapter, left = adapter_of(lora, known or float(lora.rank), base.transformer)
    if known is None:
        on_message(
            f"Warning: {lora.source} does not say its alpha; it is taken to be its rank, {lora.rank}, as diffusers "
            f"takes it. The training scripts of diffusers and of Meissonic take 32 unless told otherwise (--alpha 32: "
            f"{32 / lora.rank:g} times as strong), and diffusers' recipe for amused-512 takes 1 (--alpha 1)"
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
    header = AdapterHeader.new(
        kind=adapter.kind,
        config=adapter.stored_config,
        base=base.identity,
        style=style,
        contents=[],
        recommended={"lambda_a": SampleSettings.lambda_a, "lambda_b": base.spec.sampling["lambda_b"]},
        pictures=[],
        source={"name": path.name, "sha256": file_hash(path)},
        **made_now(),
    )
    write_adapter(output, adapter, header, {})
    return header


def read_own(path: Path) -> AdapterFile:
    """An adapter of ours that may be taken elsewhere; raises ModelError if it is of another kind, or pocket's."""
    file = load_adapter(path)
    if file.header.base.get("name") == "pocket":
        raise ModelError(
            f"{path} was trained on pocket, which has no equivalent in diffusers",
            "Train one on a published base: 'styledrop train ... --kind lora --model amused-256'.",
        )
    if file.header.kind != LoraAdapter.kind:
        raise ModelError(
            f"{path} is an adapter of kind '{file.header.kind}', which diffusers does not have",
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
