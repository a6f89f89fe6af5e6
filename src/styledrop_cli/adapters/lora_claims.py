"""What a LoRA's file says of itself, checked against its tensors: an allow-list, as there is one for the tensors.

It is said by peft's ``adapter_config.json``, by diffusers in an entry of the file's metadata, and by kohya in several.
What changes what the tensors mean is honoured or refused by name; so is what is not known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from styledrop_cli.adapters.lora_names import plain
from styledrop_cli.base.registry import BaseSpec
from styledrop_cli.errors import ModelError
from styledrop_cli.io.files import parse_json, read_bytes

PEFT_CONFIG = "adapter_config.json"  # peft's description, beside its file
ABOUT = "lora_adapter_metadata"  # diffusers' entry of a file's metadata
# What is read; then what says nothing of the tensors' meaning (a training's own, or of use with another entry only).
READ = (
    "r", "lora_alpha", "use_rslora", "layers_to_transform", "base_model_name_or_path", "auto_mapping",
)  # fmt: skip
HARMLESS = (
    "task_type", "peft_version", "revision", "inference_mode", "lora_dropout",
    "target_modules", "exclude_modules", "layers_pattern",  # the tensors themselves show which
    "megatron_core", "qalora_group_size", "runtime_config", "eva_config", "corda_config", "lora_ga_config",
    "loftq_config", "ensure_weight_tying",
)  # fmt: skip
# Of the rest, what a plain LoRA says beside nothing at all (null, false, 0, or an empty text or list).
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal", "mica"),  # they leave the base's weights as they are
}
# Why what else they say is refused.
REASONS = {
    "peft_type": "that is an adapter of another kind, and plain LoRAs alone are read here",
    "bias": "it trains the base's biases too, which always stay as they are here",
    "lora_bias": "it has biases of its own",
    "modules_to_save": "it trains whole modules too, which always stay as they are here",
    "trainable_token_indices": "it trains words of the vocabulary too",
    "target_parameters": "it trains more than modules",
    "rank_pattern": "it gives its modules ranks of their own, and one for all is read here",
    "alpha_pattern": "it gives its modules strengths of their own, and one for all is read here",
    "use_dora": "DoRA also scales what it is added to, and so gives its modules strengths of their own",
    "use_qalora": "its halves are of another form",
    "use_bdlora": "its halves are of another form",
    "fan_in_fan_out": "its network keeps its matrices transposed, as no base here does",
    "layer_replication": "it adds layers to its network",
    "alora_invocation_tokens": "it is at work behind certain words only",
}
# How peft begins a training so that the base's own weights change, and what can be done about it.
_EXPORT = (
    "Export it from peft as a plain LoRA: save_pretrained(FOLDER, path_initial_model_for_weight_conversion=INITIAL), "
    "INITIAL being the adapter as it was saved before the training."
)
CHANGING = {
    "pissa": _EXPORT,
    "olora": _EXPORT,
    "corda": _EXPORT,
    "lora_ga": _EXPORT,
    "loftq": "Train it again on the base as it is published: without init_lora_weights.",
}
# Entries of a file's metadata that say its rank, alpha and base, by whichever program: numbers as texts.
RANKS = ("ss_network_dim", "network_dim", "lora_rank", "rank")
ALPHAS = ("ss_network_alpha", "network_alpha", "lora_alpha", "alpha")
BASES = ("base_model_name_or_path", "ss_sd_model_name")
PLAIN_MODULES = re.compile(r"networks\.lora(_\w+)?")  # kohya's modules that make plain LoRAs


@dataclass(frozen=True)
class Claims:
    """What a file says that its tensors do not: alpha, as ``alpha / rank`` is the strength, and its base's name."""

    alpha: float | None = None
    base: str | None = None


def claims_of(
    path: Path, metadata: Mapping[str, str], beside: Path | None, modules: Collection[str], rank: int, spec: BaseSpec
) -> Claims:
    """Read what is said of the file at ``path``, whose tensors are of these ``modules`` and this ``rank``.

    It is to be of a base of the row ``spec``, and is said in the file's ``metadata`` and in the file ``beside`` it, if
    there is one.
    Raises ModelError for what is damaged, what the tensors contradict, and what is not plain or not known.
    """
    said, source = _described(path, metadata, beside)
    for name, value in said.items():
        _refuse_unplain(source, name, value)
    _refuse_other_network(source, said.get("auto_mapping"), spec)
    _refuse_other_layers(source, said.get("layers_to_transform"), modules)
    _refuse_other_rank(source, said.get("r"), rank)
    alpha, base = _alpha(source, said.get("lora_alpha"), rank, bool(said.get("use_rslora"))), _base(said, metadata)
    if base is not None and not isinstance(base, str):
        raise ModelError(f"{source} says that its base is {base!r:.40}, which is no name")
    alphas = [alpha, *_of_metadata(path, metadata, rank, spec)]
    known = sorted({one for one in alphas if one is not None})
    if known and not math.isclose(known[0], known[-1], rel_tol=1e-6):
        raise ModelError(f"{path} contradicts itself: its alpha is {known[0]:g}, and {known[-1]:g}", "Get it anew.")
    return Claims(known[0] if known else None, base)


def _base(said: Mapping[str, Any], metadata: Mapping[str, str]) -> Any:
    """What is said to be the base, if anything is."""
    return next((one for name in BASES if (one := said.get(name) or metadata.get(name))), None)


def _described(path: Path, metadata: Mapping[str, str], beside: Path | None) -> tuple[dict[str, Any], str]:
    """The description by peft's names, empty where there is none, and where it stands."""
    text, source = metadata.get(ABOUT), str(path)
    try:
        if text is None and beside is not None and beside.is_file():
            source, text = str(beside), read_bytes(beside).decode("utf-8", "replace")
        said = parse_json(text) if text is not None else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"what {source} says of itself is damaged: {error}") from error
    if not isinstance(said, dict):
        raise ModelError(f"what {source} says of itself is damaged: it is no JSON object")
    return {name.removeprefix("transformer.").removeprefix("unet."): value for name, value in said.items()}, source


def _refuse_unplain(source: str, name: str, value: Any) -> None:
    if name in READ or name in HARMLESS or not value or value in PLAIN.get(name, ()):
        return
    shown = f"{source} says {name[:60]} {value!r:.60}"
    if name == "init_lora_weights":
        hint = next((CHANGING[one] for one in CHANGING if str(value).lower().startswith(one)), _EXPORT)
        raise ModelError(f"{shown}: so begun, it changes the base's own weights, and alone it means nothing", hint)
    if name in REASONS:
        raise ModelError(f"{shown}: {REASONS[name]}", "Train it as a plain LoRA.")
    raise ModelError(
        f"{shown}: that is not known here, and may change what the LoRA means",
        f"If you know that it changes nothing, take it out of {PEFT_CONFIG}.",
    )


def _refuse_other_network(source: str, mapping: Any, spec: BaseSpec) -> None:
    own = spec.classes["transformer"][1]
    network = mapping.get("base_model_class") if isinstance(mapping, dict) else mapping
    if network and network != own:
        raise ModelError(
            f"{source} says that it was trained on a {network!s:.60}, and {spec.family}'s transformer is a {own}",
            "It draws only with the model that it was trained on.",
        )


def _refuse_other_layers(source: str, said: Any, modules: Collection[str]) -> None:
    """Raise ModelError for tensors of layers that the description leaves out: it is another file's."""
    if said is None or said == []:
        return
    listed = [str(one) for one in (said if isinstance(said, list) else [said])]
    for module in modules:
        number = re.search(r"_(\d+)_", plain(module))
        if number and number[1] not in listed:
            raise ModelError(
                f"{source} says that it trains layers {', '.join(listed)[:40]} (layers_to_transform), and there are "
                f"tensors of {module}",
                "Give it what was written with it.",
            )


def _refuse_other_rank(source: str, said: Any, rank: int) -> None:
    if said is not None and (type(said) is not int or said != rank):
        raise ModelError(
            f"{source} says that its rank is {said!r:.40}, and its tensors have rank {rank}: how strong it is to be "
            "(alpha by rank) cannot be told",
            "Give it what was written with it: the file and its description are of two trainings, or one was changed.",
        )


def _alpha(source: str, alpha: Any, rank: int, by_root: bool = False) -> float | None:
    if alpha is None:
        return None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not (math.isfinite(alpha) and alpha > 0):
        raise ModelError(f"{source} says that its alpha is {alpha!r:.40}, which is no positive number")
    return float(alpha) * (math.sqrt(rank) if by_root else 1)


def _of_metadata(path: Path, metadata: Mapping[str, str], rank: int, spec: BaseSpec) -> list[float | None]:
    """Alpha, as entries of kohya and others say it; raises ModelError for what they say besides."""
    module = metadata.get("ss_network_module", "")
    if module and not PLAIN_MODULES.fullmatch(module):
        raise ModelError(
            f"{path} was made by {module[:60]} (ss_network_module), and plain LoRAs alone are read here",
            "Train it as a plain LoRA.",
        )
    for number in (_number(metadata.get(name)) for name in RANKS):
        if number is not None:
            _refuse_other_rank(str(path), int(number) if number.is_integer() else number, rank)
    architecture = metadata.get("modelspec.architecture", "").partition("/")[0]
    base = metadata.get("ss_base_model_version") or architecture or None
    if base and spec.family.lower() not in base.lower():
        raise ModelError(
            f"{path} says that it was trained on {base[:60]}", "It draws only with the model that it was trained on."
        )
    return [_alpha(str(path), _number(metadata.get(name)), rank) for name in ALPHAS]


def _number(text: str | None) -> float | None:
    """A number that is said as a text; None for none, and for words as they stand where it was changed."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def refuse_other_base(source: str, said: str, name: str) -> str | None:
    """A warning where a file ``said`` a folder elsewhere as its base and not ``name``, which may yet be the same.

    Raises ModelError where it says another model of the hub.
    """
    hub = re.search(r"models--([^/\\]+)[/\\]snapshots", said)  # in the hub's cache
    model = hub[1].replace("--", "/") if hub else said.rstrip("/\\")
    last, own = (re.split(r"[/\\]", one)[-1].lower() for one in (model, name))
    if last == own:
        return None
    if hub or re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", model, re.ASCII):
        raise ModelError(
            f"{source} says that it was trained on {model[:100]}, not on {name}",
            f"Choose that with --model. If {name} is that model under another name, name its folder so, or take "
            f"base_model_name_or_path out of {PEFT_CONFIG}.",
        )
    return f"{source} says that it was trained on {said[:100]}; it is taken to be {name}"
