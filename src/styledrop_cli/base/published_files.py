"""The files of a published folder: descriptions as JSON, and weights as safetensors, whole or in shards.

Weights are in fp32, fp16 or bf16, and memory-mapped, so that what is never used is never read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from styledrop_cli.base.layout import PICKLES, WEIGHTS
from styledrop_cli.errors import ModelError
from styledrop_cli.io.files import read_json, read_metadata
from styledrop_cli.io.tensors import reading


@dataclass(frozen=True)
class Network:
    """How a published part becomes a network of ours.

    ``config`` reads its sizes from the folder of the part, ``make`` makes the network of those sizes, and ``rename``
    gives its tensors our names. All three raise ModelError, or leave it to the strict load.
    """

    config: Callable[[Path], Any]
    make: Callable[[Any], nn.Module]
    rename: Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]] = lambda tensors, config: dict(tensors)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; raises ModelError for anything else."""
    try:
        found = read_json(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing", "Fetch the model again: 'styledrop models fetch' says how.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} does not hold what it should: a JSON object")
    return found


def read_settings(path: Path, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """A part's settings but for the ``fixed`` ones, which must have that value or be left out (None: any value)."""
    found = {k: v for k, v in read_object(path).items() if not k.startswith("_")}
    for name, wanted in fixed.items():
        value = found.pop(name, wanted)
        if wanted is not None and value != wanted:
            raise ModelError(f"{path}: {name} is {value!r}, and only {wanted!r} can be run here")
    return found


def weight_files(place: Path, part: str) -> list[Path]:
    """The safetensors files in the folder ``place`` that hold a part's weights, fp32 where there are both.

    Raises ModelError where there are none, where a shard is missing, or where there are only pickles.
    """
    stem = WEIGHTS[part]
    for precision in ("", ".fp16"):
        if (whole := place / f"{stem}{precision}.safetensors").exists():
            return [whole]
        if (index := place / f"{stem}.safetensors.index{precision}.json").exists():
            return _shards(index)
    pickled = sorted(path.name for path in place.glob("*") if path.suffix in PICKLES)
    if pickled:
        raise ModelError(
            f"{place} holds its weights as a pickle ({pickled[0]}), which may run any code: it is not opened",
            "Get the safetensors version.",
        )
    raise ModelError(f"{place} holds no weights ({stem}.safetensors or {stem}.fp16.safetensors)")


def _shards(index: Path) -> list[Path]:
    held = read_object(index).get("weight_map")
    if not isinstance(held, dict) or not held:
        raise ModelError(f"{index} does not say which files hold the weights")
    names = sorted({str(name) for name in held.values()})
    outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if outside:
        raise ModelError(f"{index} names {outside[0]!r}, which is no safetensors file beside it")
    missing = [name for name in names if not os.path.isfile(index.parent / name)]  # nor one of too long a name
    if missing:
        raise ModelError(
            f"{index.parent} is not whole: {len(missing)} of {len(names)} shards are missing, the first is {missing[0]}"
        )
    return [index.parent / name for name in names]


def is_mapped(place: Path, part: str) -> bool:
    """Whether loading a part costs nothing: its numbers are fp32, and stay on the disk until they are used.

    Raises ModelError as ``weight_files`` does, and for a file that is not whole.
    """
    return all(tensor.dtype == torch.float32 for tensor in read_weights(place, part).values() if tensor.ndim)


def read_weights(place: Path, part: str) -> dict[str, Tensor]:
    """A part's tensors by upstream's names, mapped from their files; raises ModelError as ``weight_files`` does."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(place, part):
        with reading(path):
            read_metadata(path)
            with safe_open(path, "pt") as file:
                tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def fingerprint(place: Path) -> str:
    """What an adapter remembers of the transformer in the folder ``place``: the same for fp32 and fp16 files.

    A sha256 over the names and shapes of all tensors, the vectors, and the first numbers of each matrix.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(read_weights(place, "transformer").items()):
        some = tensor.flatten()[: tensor.numel() if tensor.ndim == 1 else 8].half()
        digest.update(f"{name}{list(tensor.shape)}".encode() + some.numpy().tobytes())
    return digest.hexdigest()
