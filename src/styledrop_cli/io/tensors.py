"""Our files: parts of a base model and adapters, as safetensors whose headers say what they are.

A base model is a folder: ``config.json`` (name, sizes of each part), one safetensors file a part, the text vocabulary
(``merges.txt``, or ``vocab.txt``), ``words.txt`` (the words it was taught) and a model card. An adapter is one file.
Everything is read strictly: a missing, extra or misshapen tensor is an error, never a guess.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.io import file_kinds
from styledrop_cli.io.files import (
    atomic_write,
    read_bytes,
    read_json,
    read_metadata,
    to_text,
    write_json,
)

CONFIG = "config.json"
FORMAT = 1
LARGEST_SIZE = 1_000_000  # of a dimension of a network
MOST_LAYERS = 256  # of a network, and blocks in one of its stages
SPARE = 1_000_000  # numbers that making a network may take beside those of its file
MOST_STEPS = 10**9  # of a training
# What an optimizer knows of each parameter: so many steps, or tensors of its shape.
OPTIMIZERS = {
    "Adam": ("step", "exp_avg", "exp_avg_sq"),
    "AdamW": ("step", "exp_avg", "exp_avg_sq"),
    "Muon": ("momentum_buffer",),
}
Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)


# ---- safetensors files -------------------------------------------------------------------------


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file in one atomic step; tensors are made contiguous and moved to the CPU.

    All weights and states are written here. Raises StyledropError, and writes nothing, if a value is not finite.
    """
    whole = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    if bad := [name for name, t in whole.items() if not t.isfinite().all()]:
        raise StyledropError(
            f"{path} is not written: {len(bad)} of its {len(whole)} tensors hold values that are not finite, the first "
            f"is {bad[0]}",
            "What was saved before is whole. Where it was learnt: train it anew, with a lower learning rate, other "
            "pictures or another --seed.",
        )
    if metadata is not None:
        metadata = {to_text(key): to_text(value) for key, value in metadata.items()}
    atomic_write(path, save(whole, metadata))


@contextmanager
def reading(path: Path, what: str = "file") -> Iterator[None]:
    """As ``file_kinds.reading``, where more than the head of the file is read. All weights are opened in here."""
    with file_kinds.reading(path, what):
        try:
            yield
        except SafetensorError as error:
            raise ValueError(str(error)) from error


def read_tensors(path: Path, most: int | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file by their names, in that order, in memory, and its metadata.

    Raises ModelError for anything that is no whole safetensors file, or is larger than ``most`` bytes.
    """
    with reading(path):
        metadata = read_metadata(path)
        tensors = load(read_bytes(path, most))
        return {name: tensors[name] for name in sorted(tensors)}, metadata


SCALE = ".scale"  # behind the name of a matrix that is stored in whole numbers: the tensor of its rows' scales


def in_eight_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each matrix as int8 ``[R,C]`` and, named with ``SCALE``, what a row's numbers are times, fp16 ``[R,1]``.

    The rest becomes fp16. Half the size of fp16; for a frozen network, whose weights nobody trains further. MiniLM's
    summaries of 5,168 names and captions keep a cosine of 0.9995 with those of its fp32 weights, 0.9975 the least.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            made[name] = tensor.half()
            continue
        scale = (tensor.float().abs().amax(1, keepdim=True) / 127).clamp(min=2**-24).half()
        made[name] = (tensor.float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
        made[name + SCALE] = scale
    return made


def from_eight_bits(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """What ``in_eight_bits`` made, as fp32 matrices again; other tensors stay as they are.

    Raises ModelError for int8 rows without a scale each.
    """
    made = dict(tensors)
    for name in [name for name, tensor in tensors.items() if tensor.dtype == torch.int8]:
        rows, scale = made[name], made.pop(name + SCALE, None)
        fits = scale is not None and scale.is_floating_point() and scale.shape == (len(rows) if rows.ndim else 0, 1)
        if scale is None or not fits:
            raise ModelError(f"{source} is damaged: the rows of {name} have no scale each")
        made[name] = rows.float() * scale.float()
    return made


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors, names and values, as hex: safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().to("cpu").contiguous().flatten().view(torch.uint8)
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


# ---- networks and their sizes ------------------------------------------------------------------


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
    if not isinstance(values, Mapping):
        raise ModelError(f"{source} is no list of settings: {values!r:.40}")
    types = get_type_hints(kind)
    unknown = sorted(set(values) - {f.name for f in fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise ModelError(
            f"{source} has unknown settings: {', '.join(unknown)}",
            "Another version of styledrop may have made it: use that one, or make it again with this one.",
        )
    ranges = getattr(kind, "RANGES", {})
    for name, value in values.items():
        most = int(ranges[name][1]) if name in ranges else _most(name)
        if not _is_a(types[name], value, most):
            what = {int: f"whole number up to {most:,}", float: "number", bool: "yes or no", str: "text"}
            raise ModelError(f"{source}: {name} is no {what.get(types[name], 'list of such')}: {value!r:.40}")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ModelError(f"{source}: {error}") from error


def _most(name: str) -> int:
    """How large a size of this name may be."""
    return MOST_LAYERS if "layers" in name or "blocks" in name else LARGEST_SIZE


def _is_a(kind: Any, value: Any, most: int) -> bool:
    """Whether JSON's ``value`` is one of this type, and as a size at most so large."""
    if get_origin(kind) is tuple:
        of = get_args(kind)[0]
        listed = isinstance(value, list | tuple) and (of is str or len(value) <= MOST_LAYERS)
        return listed and all(_is_a(of, one, most) for one in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind and (kind is not int or 0 <= value <= most)


class _Room(TorchFunctionMode):
    """Lets no more numbers be made than there is room for; first weights are not drawn, for they are replaced."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self._left = numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func in (torch.empty, torch.zeros, torch.ones, torch.randn):
            self._left -= math.prod(args[0] if isinstance(args[0], tuple) else args)
            if self._left < 0:
                raise ValueError("its file holds fewer numbers")
        return func(*args, **kwargs)


def network_of(make: Callable[[], Network], source: str, room: int | None = None) -> Network:
    """What ``make`` makes: a network whose file has ``room`` numbers or, where that is not said, mere shapes.

    A file may promise any size: nothing is allocated for it beyond that. Raises ModelError for sizes that no network
    has. (Mere shapes are not for what starts often: torch loads its compiler to do arithmetic with them.)
    """
    try:
        with torch.device("meta") if room is None else _Room(2 * room + SPARE):
            return make()
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise ModelError(f"{source} has sizes that no network has: {error}") from error


# ---- the folder of a base model ----------------------------------------------------------------


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's ``config.json``; raises ModelError if there is none or it is not ours."""
    path = folder / CONFIG
    try:
        config = read_json(path)
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is not a model folder (no {CONFIG} in it)", "Use --model pocket, or a folder made by 'pretrain'."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or not isinstance(config.get("parts"), dict):
        raise ModelError(f"{path} is not a styledrop model of format {FORMAT}")
    return config


def save_part(folder: Path, part: str, module: nn.Module, config: Any, *, eight_bits: bool = False) -> None:
    """Write a part as fp16, or in ``eight_bits``, and enter its sizes into ``config.json``, made if it is not there.

    Raises as ``save_tensors`` does, also if a weight is too large for fp16.
    """
    if eight_bits:
        tensors = in_eight_bits(module.state_dict())
    else:
        tensors = {n: t.half() if t.is_floating_point() else t for n, t in module.state_dict().items()}
    save_tensors(folder / f"{part}.safetensors", tensors, {"format": "pt", "part": part})
    new: dict[str, Any] = {"format": FORMAT, "name": folder.name, "parts": {}}
    there = read_config(folder) if (folder / CONFIG).exists() else new
    there["parts"][part] = asdict(config)
    write_json(folder / CONFIG, there)


# ---- the state of an optimizer -----------------------------------------------------------------


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as named tensors: no pickle, so a checkpoint is a safetensors file."""
    state: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            state[f"{index}.{name}"] = torch.as_tensor(value)
    return state


def refuse_other_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a packed ``state`` with which this optimizer could not take a step."""
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    known = OPTIMIZERS.get(type(optimizer).__name__, ())
    whole = {f"{index}.{name}" for index in range(len(shapes)) for name in known}
    numbers = {key.partition(".")[0] for key in state}
    if other := sorted(set(state) ^ {key for key in whole if key.partition(".")[0] in numbers}):
        raise ValueError(f"the optimizer's {', '.join(other[:3])}")
    for key, value in state.items():
        index, _, name = key.partition(".")
        if value.shape != (() if name == "step" else shapes[int(index)]) or not value.isfinite().all():
            raise ValueError(f"the optimizer's {key} is {list(value.shape)}, of which not all need be finite")
        if name == "step" and not 0 <= value < MOST_STEPS:
            raise ValueError(f"the optimizer's {key} is {value}")


def unpack_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Restore what ``pack_optimizer`` wrote."""
    whole: dict[str, Any] = optimizer.state_dict()
    for key, value in state.items():
        index, name = key.split(".", 1)
        state_of: dict[str, Any] = whole["state"].setdefault(int(index), {})
        state_of[name] = value
    optimizer.load_state_dict(whole)
