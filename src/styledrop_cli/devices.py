"""Where the arithmetic happens, and where randomness comes from."""

from __future__ import annotations

import importlib.util
import re
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TypeVar

import torch
from torch import nn

from styledrop_cli.errors import DeviceError

NAMES = ("auto", "cpu", "cuda", "mps")
# Dense bfloat16 FLOP/s of graphics cards, by words of their names, from their makers' data sheets; the first that fits.
CARDS = {
    "B200": 2250e12,
    "GH200|H200|H20": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100|H800": 989e12,
    "A100|A800": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G?": 125e12,
    "A40": 150e12,
    "RTX 6000 Ada": 364e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
LARGE_CARD = 20e9  # bytes of memory from which on a card is given large batches
Network = TypeVar("Network", bound=nn.Module)


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` is the first of cuda, mps, cpu that works here.

    Raises:
        DeviceError: the name is none of `NAMES`, or this machine has no such device.
    """
    works = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, here in works.items() if here)
    if name not in works:
        raise DeviceError(f"there is no device called '{name}'", f"choose one of {', '.join(NAMES)}")
    if not works[name]:
        raise DeviceError(f"this machine has no usable '{name}' device", _missing(name))
    return torch.device(name)


def _missing(name: str) -> str:
    if name == "cuda" and torch.version.cuda is None:
        return (
            "the installed PyTorch was built without CUDA: leave out --device, "
            "or install a CUDA build from https://pytorch.org"
        )
    return "leave out --device to use the best one there is, or say --device cpu"


def generator(seed: int) -> torch.Generator:
    """A seeded generator on the CPU.

    Noise is always drawn on the CPU and then moved, so one seed gives one picture everywhere.
    """
    return torch.Generator("cpu").manual_seed(seed)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic pays on `device`: CUDA cards, and processors with AMX, or AVX512-BF16 of AMD's.

    Intel's AVX512-BF16 does half as many products a second as its fp32 (measured on a Sapphire Rapids: matrix products
    of 2048 rows 166 and 324 GFLOP/s, convolutions 180 and 340), and AMD's twice as many.
    """
    if device.type == "cpu":
        about = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        intel = "Intel" in str(about.get("cpu_name", ""))
        return torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and not intel)
    return device.type == "cuda"


def autocast(device: torch.device, enabled: bool = True) -> AbstractContextManager[object]:
    """bfloat16 arithmetic where it pays; nothing at all elsewhere or when not `enabled`."""
    if not enabled or not fast_bfloat16(device):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@cache
def arithmetic_rate(device: torch.device) -> float:
    """The FLOP/s that `device` can do: of a known card as its maker says, else of matrix products, measured once."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = (rate for words, rate in CARDS.items() if re.search(rf"\b({words})\b", name))
        if rate := next(known, 0.0):
            return rate
    side = 1024 if device.type == "cpu" else 8192
    dtype = torch.bfloat16 if fast_bfloat16(device) else torch.float32
    matrix = torch.full((side, side), 0.5, dtype=dtype, device=device)
    took = []
    for _ in range(10):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waited for, also on a card
        took.append(time.perf_counter() - began)
    return 2 * side**3 / min(took)  # the others were disturbed


def is_large(device: torch.device) -> bool:
    """Whether `device` is a graphics card with memory for large batches."""
    return device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory >= LARGE_CARD


def can_compile(device: torch.device) -> bool:
    """Whether compiling a step for the card `device` can be relied on: its compiler is there, and one for C."""
    compilers = ("cc", "gcc", "clang")
    return (
        device.type == "cuda" and importlib.util.find_spec("triton") is not None and any(map(shutil.which, compilers))
    )


def place_pictures(pictures: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`pictures` on a card with twice the memory for them, so that no step waits for their way; else where they are."""
    if device.type != "cuda" or 2 * pictures.nbytes > torch.cuda.mem_get_info(device)[0]:
        return pictures
    return pictures.to(device)


def halve(network: nn.Module) -> None:
    """Give a network's matrices the type that `autocast` would give them at each step."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.bfloat16()  # each is copied as it is cast, never twice


def cast_once(network: Network, device: torch.device) -> Network:
    """A frozen network for many steps: a copy whose matrices have the type that `autocast` would give them at each."""
    if not fast_bfloat16(device) or any(one.dtype == torch.bfloat16 for one in network.parameters()):
        return network
    with torch.device("meta"):
        copied = type(network)(network.config)
    copied.load_state_dict(network.state_dict(), assign=True)
    halve(copied)
    kept = {name: t.clone() for name, t in copied.state_dict().items() if t.dtype != torch.bfloat16}
    copied.load_state_dict(kept, strict=False, assign=True)  # nothing holds on to the original's memory
    return copied.requires_grad_(False).eval()
