"""What ``test_processes`` starts as one process of several: ``styledrop``'s commands, in fp32, on parts of tiny sizes.

``parts CORPUS -o FOLDER`` trains all parts of a base, one after the other, for a few steps.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import tiny
from styledrop_cli import devices
from styledrop_cli.cli.app import main
from styledrop_cli.training import loop as training_loop
from styledrop_cli.training.distributed import is_first, take_place, together
from styledrop_cli.training.loop import Budget
from styledrop_cli.training.pretrain import run as pretraining


def prepare(patches: pytest.MonkeyPatch) -> None:
    """In bfloat16, sums over other rows would be rounded elsewhere."""
    tiny.shrink_pretraining(patches)
    for module in (devices, training_loop):
        patches.setattr(module, "fast_bfloat16", lambda device: False)


def train_parts(corpus: Path, out: Path) -> dict[str, list[float]]:
    """The losses of each part's first steps."""
    found: dict[str, list[float]] = {}
    for part in pretraining.PARTS:
        losses: list[float] = []
        pretraining.run(
            part,
            corpus,
            out,
            budget=Budget(steps=4),
            device=tiny.CPU,
            batch_size=4,
            on_step=lambda progress, losses=losses: losses.append(progress.loss),  # type: ignore[misc]
        )
        found[part] = losses
    return found


if __name__ == "__main__":
    prepare(pytest.MonkeyPatch())
    if sys.argv[1] != "parts":
        main(sys.argv[1:])
    corpus, out = Path(sys.argv[2]), Path(sys.argv[4])
    with together(take_place(), tiny.CPU):
        losses = train_parts(corpus, out)
        if is_first():
            (out / "losses.json").write_text(json.dumps(losses), encoding="utf-8")
