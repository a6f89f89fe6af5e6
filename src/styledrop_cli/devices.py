"""Where the arithmetic happens, and where randomness comes from."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from styledrop_cli.errors import DeviceError
from styledrop_cli.models.transformer import MaskedTransformer

NAMES = ("auto", "cpu", "cuda", "mps")


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


def cast_once(network: MaskedTransformer, device: torch.device) -> MaskedTransformer:
    """A frozen network for many steps: a copy whose matrices have the type that `autocast` would give them at each."""
    if not fast_bfloat16(device) or network.encoder_proj.weight.dtype == torch.bfloat16:
        return network
    with torch.device("meta"):
        copied = type(network)(network.config)
    copied.load_state_dict(network.state_dict(), assign=True)
    for module in copied.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.bfloat16()  # each is copied as it is cast, never twice
    kept = {name: t.clone() for name, t in copied.state_dict().items() if t.dtype != torch.bfloat16}
    copied.load_state_dict(kept, strict=False, assign=True)  # nothing holds on to the original's memory
    return copied.requires_grad_(False).eval()
