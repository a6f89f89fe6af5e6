"""What the trainings of all parts of a base model have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from styledrop_cli.base.text_encoder import TextEncoder
from styledrop_cli.corpus.folder import Record, read_pictures
from styledrop_cli.devices import autocast, place_pictures
from styledrop_cli.errors import UsageError
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.images import save_png, to_image
from styledrop_cli.training.loop import rows
from styledrop_cli.training.pretrain.throughput import Call

READ_AT_ONCE = 4096  # pictures
MOST_KEPT = 400_000  # captions whose states are kept


@dataclass(frozen=True)
class Order:
    """What to train on and where to: records, model folder and, for a new training, whose weights to start from.

    ``call`` is asked between pieces of long work whether it is over. ``corpus`` is the folder of the records. With
    ``keep_codes`` a tokenizer's codes stay what they are: it learns to decode alone.
    """

    records: list[Record]
    out: Path
    init_from: Path | None
    batch: int
    seed: int
    device: torch.device
    call: Call = field(default_factory=Call)
    corpus: Path = Path()
    say: Callable[[str], None] = lambda text: None
    keep_codes: bool = False

    def pictures(self, records: list[Record], size: int) -> Tensor:
        """The pictures as uint8 ``[R,3,size,size]``, on the device if that is a card with room for them.

        Raises UsageError if each shows a single colour, and as ``read_pictures`` does.
        """
        whole = torch.empty(len(records), 3, size, size, dtype=torch.uint8)
        flat = True
        for start in range(0, len(records), READ_AT_ONCE):
            self.call.check()
            read = read_pictures(records[start : start + READ_AT_ONCE], size, self.say)
            whole[start : start + len(read)] = read
            flat = flat and torch.equal(read.amax((2, 3)), read.amin((2, 3)))
        if flat and records:
            raise UsageError(
                f"each of the {len(records)} pictures to learn from shows a single colour, the first is "
                f"{records[0].path}: there is nothing in them to learn",
                "Name a folder of pictures that show something.",
            )
        return place_pictures(whole, self.device)


@dataclass
class Job:
    """How a part is trained: task, optimizers and batches as ``loop.Loop`` takes them, and what is written of it.

    ``figure`` measures it on what is held out, ``export`` writes the part, ``sheet`` pictures. ``progress`` is told
    before each step which share of the training is done.
    """

    task: nn.Module
    optimizers: list[torch.optim.Optimizer]
    batches: Callable[[int], Any]
    figure: Callable[[nn.Module], str]
    export: Callable[[nn.Module], None]
    sheet: Callable[[nn.Module, Path], None] | None = None
    weight: Callable[[Any], int] = rows
    progress: Callable[[float], None] = lambda share: None


def split(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """The records to train on, and those held out."""
    return [r for r in records if not r.held_out], [r for r in records if r.held_out]


def heard(text: TextEncoder, texts: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """States ``[B,T,W]`` and summaries ``[B,P]`` of ``B`` texts, in fp32."""
    with autocast(device):
        states, summaries = text.encode(texts)
    return states.float(), summaries.float()


def remembered(text: TextEncoder, device: torch.device) -> Callable[[list[str]], Tensor]:
    """A function like ``heard``, of the states alone, that keeps them in fp16: about 10 kB a caption."""
    kept: dict[str, Tensor] = {}

    def states(texts: list[str]) -> Tensor:
        if len(kept) > MOST_KEPT:
            kept.clear()
        if new := [one for one in dict.fromkeys(texts) if one not in kept]:
            for one, row in zip(new, heard(text, new, device)[0], strict=True):
                kept[one] = row[: int((row != 0).any(-1).sum())].half()
        return pad_sequence([kept[one] for one in texts], batch_first=True).float()

    return states


def picked(pictures: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """The ``rows`` of ``pictures``, on ``device`` if that is a card, where augmenting them is faster."""
    chosen = pictures[rows.to(pictures.device)]
    return chosen.to(device) if device.type == "cuda" else chosen


def halved(pictures: Tensor) -> Tensor:
    """uint8 pictures at half size, in [0,1]."""
    return F.avg_pool2d(pictures.float() / 255, 2)


def flipped(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures mirrored."""
    flips = torch.rand(len(pictures), generator=generator) < 0.5
    return torch.where(flips[:, None, None, None].to(pictures.device), pictures.flip(-1), pictures)


def adamw(task: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW for everything that is trained."""
    trained = [p for p in task.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)


def muon(module: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers, AdamW for embeddings and everything else (arXiv 2502.16982)."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and "embedding" not in name and "parametrizations" not in name
            (matrices if hidden else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save_sheet(pictures: Tensor, path: Path, labels: list[str] | None = None) -> None:
    """Write pictures ``[B,3,S,S]`` as a contact sheet."""
    images = [to_image(p) for p in pictures.float().cpu()]
    save_png(contact_sheet(images, columns=8, labels=labels, cell=128), path)
