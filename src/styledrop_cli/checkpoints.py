"""Our files: parts of a base model and adapters, as safetensors whose headers say what they are.

A base model is a folder: ``config.json`` (name, sizes of each part), one safetensors file a part, ``merges.txt``
(text vocabulary), ``words.txt`` (the words it was taught) and a model card. An adapter is one file. Everything is
read strictly: a missing, extra or misshapen tensor is an error, never a guess.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from styledrop_cli.errors import ModelError
from styledrop_cli.images import atomic_write
from styledrop_cli.settings import OBJECT, RECOMMENDABLE, SampleSettings

CONFIG = "config.json"
HEADER_KEY = "styledrop"
FORMAT = 1
LARGEST_SIZE = 1_000_000  # of a dimension of a network
# What every adapter's header holds, and of what type; tuning.py writes it.
HEADER = {"kind": str, "config": dict, "base": dict, "style": str, "contents": list, "recommended": dict}
SCALES = {name: SampleSettings.RANGES[name] for name in RECOMMENDABLE}
Config = TypeVar("Config")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file in one atomic step; tensors are made contiguous and moved to the CPU."""
    whole = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    atomic_write(path, save(whole, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file and its metadata; raises ModelError for anything that is no whole safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error})", "It may be cut short, or another kind of file."
        ) from error


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str, *, finite: bool = True) -> None:
    """Give ``tensors`` to ``module``; raises ModelError naming what is missing, extra, misshapen or not finite.

    Not ``finite`` leaves the values unread: those of a mapped file stay on the disk until they are used.
    """
    own = module.state_dict()
    problems = [f"{n} is missing" for n in own if n not in tensors]
    problems += [f"{n} is not known" for n in tensors if n not in own]
    problems += [
        f"{n} has shape {list(t.shape)}, expected {list(own[n].shape)}"
        for n, t in tensors.items()
        if n in own and own[n].shape != t.shape
    ]
    if not problems and finite:
        problems = [f"{n} holds a value that is not finite" for n, t in tensors.items() if not t.isfinite().all()]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(f"{source} does not fit: {'; '.join(problems[:3])}{more}")
    module.load_state_dict({n: t.to(own[n].dtype) for n, t in tensors.items()}, assign=True)  # also to a meta module


def build_config(kind: type[Config], values: Mapping[str, Any], source: str) -> Config:
    """A config dataclass from JSON; unknown keys, values of another type and impossible sizes are ModelErrors."""
    types = get_type_hints(kind)
    unknown = sorted(set(values) - {f.name for f in fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise ModelError(f"{source} has unknown settings: {', '.join(unknown)}")
    for name, value in values.items():
        if types[name] is int and not (type(value) is int and abs(value) <= LARGEST_SIZE):
            raise ModelError(f"{source}: {name} is no whole number up to {LARGEST_SIZE:,}: {value!r:.40}")
        if types[name] is float and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ModelError(f"{source}: {name} is no number: {value!r:.40}")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise ModelError(f"{source}: {error}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's ``config.json``; raises ModelError if there is none or it is not ours."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is not a model folder (no {CONFIG} in it)", "Use --model pocket, or a folder made by 'pretrain'."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or not isinstance(config.get("parts"), dict):
        raise ModelError(f"{path} is not a styledrop model of format {FORMAT}")
    return config


def save_part(folder: Path, part: str, module: nn.Module, config: Any) -> None:
    """Write a part as fp16 and enter its sizes into ``config.json``, which is made if it is not there."""
    tensors = {n: t.half() if t.is_floating_point() else t for n, t in module.state_dict().items()}
    save_tensors(folder / f"{part}.safetensors", tensors, {"format": "pt", "part": part})
    new: dict[str, Any] = {"format": FORMAT, "name": folder.name, "parts": {}}
    there = read_config(folder) if (folder / CONFIG).exists() else new
    there["parts"][part] = asdict(config)
    write_json(folder / CONFIG, there)


def load_part(folder: Path, part: str, module: nn.Module) -> None:
    """Fill ``module`` from ``folder/part.safetensors``, strictly."""
    path = folder / f"{part}.safetensors"
    tensors, _ = read_tensors(path)
    load_strictly(module, tensors, str(path))


def write_json(path: Path, value: object) -> None:
    """Write readable JSON in one atomic step."""
    atomic_write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def file_hash(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors, names and values, as hex: safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().to("cpu").contiguous().flatten().view(torch.uint8)
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as named tensors: no pickle, so a checkpoint is a safetensors file."""
    state: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            state[f"{index}.{name}"] = torch.as_tensor(value)
    return state


def unpack_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Restore what ``pack_optimizer`` wrote."""
    whole: dict[str, Any] = optimizer.state_dict()
    for key, value in state.items():
        index, name = key.split(".", 1)
        state_of: dict[str, Any] = whole["state"].setdefault(int(index), {})
        state_of[name] = value
    optimizer.load_state_dict(whole)


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as read: its header (see ``tuning.py`` for the keys), its tensors, and where it came from."""

    path: Path
    header: dict[str, Any]
    tensors: dict[str, Tensor]


def save_adapter(path: Path, tensors: Mapping[str, Tensor], header: dict[str, Any], extra: dict[str, str]) -> None:
    """Write an adapter; ``extra`` are flat metadata keys that other tools read (modelspec)."""
    metadata = {"format": "pt", HEADER_KEY: json.dumps(header, ensure_ascii=False), **extra}
    save_tensors(path, tensors, metadata)


def write_recommended(path: Path, values: Mapping[str, float], source: Path | None = None) -> None:
    """Let the adapter file at ``path`` recommend ``values``, beside what it recommends already; atomically.

    All else stays as it is, the tensors to the bit. With ``source``, another checkpoint of its training, it becomes
    that one.
    """
    recommended = read_header(path)["recommended"] | dict(values)
    tensors, metadata = read_tensors(source or path)
    header = _header(path, metadata) | {"recommended": recommended}
    metadata |= {HEADER_KEY: json.dumps(header, ensure_ascii=False)}
    _header(path, metadata)  # nothing is written that could not be read
    save_tensors(path, tensors, metadata)


def read_header(path: Path) -> dict[str, Any]:
    """What an adapter file says of itself; raises ModelError if it says nothing or is no safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return _header(path, file.metadata() or {})
    except FileNotFoundError as error:
        raise ModelError(f"there is no adapter file {path}") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error})", "It may be cut short, or another kind of file."
        ) from error


def is_object(header: Mapping[str, Any]) -> bool:
    """Whether an adapter learnt an object; files of before there was that choice hold styles."""
    return header.get("learns") == OBJECT


def load_adapter(path: Path) -> AdapterFile:
    """Read an adapter file whole; raises ModelError as ``read_header`` does, and for values that are not finite."""
    header = read_header(path)
    tensors, _ = read_tensors(path)
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise ModelError(f"{path} is damaged: {bad[0]} holds a value that is not finite")
    return AdapterFile(path, header, tensors)


def _header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if HEADER_KEY not in metadata:
        raise ModelError(
            f"{path} was not written by styledrop: its header has no '{HEADER_KEY}' entry",
            "Give an adapter made by 'styledrop train'.",
        )
    try:
        header = json.loads(metadata[HEADER_KEY])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the header of {path} is damaged: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelError(f"{path} is an adapter of another format", "Update styledrop, or train it again.")
    wrong = [name for name, kind in HEADER.items() if not isinstance(header.get(name), kind)]
    scales = header.get("recommended", {})
    if not wrong and not all(_recommendable(*item) for item in scales.items()):
        wrong = ["recommended"]
    if wrong:
        raise ModelError(f"the header of {path} is damaged: {', '.join(wrong)} missing or of the wrong kind")
    return header


def _recommendable(name: str, value: object) -> bool:
    if name not in SCALES or not isinstance(value, int | float) or isinstance(value, bool):
        return False
    least, most = SCALES[name]
    whole = isinstance(value, int) or not isinstance(SampleSettings.defaults()[name], int)
    return whole and least <= value <= most
