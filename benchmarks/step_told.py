"""Which step the weights of a base were trained to be told: its own masked loss, told it in two ways.

Networks of the Meissonic family are told at each step how far the drawing is. Upstream's pipeline tells them how many
steps are left; upstream's training script told them 1000 times the share that is masked; and which of the two the
published weights learnt with is not known. This hides parts of real pictures, as training does, and takes the
cross-entropy of what is hidden with the one and with the other, of the same parts. Adapters are trained with what
drawing tells in any case: they have to work there. Where a base clearly prefers the script's, ``told="masked"`` of its
row in base/registry.py makes both drawing and training tell that.

    python benchmarks/step_told.py --model meissonic --pictures FOLDER

The folder is one of captioned pictures (docs/guide/own_model.md); two dozen are enough for a difference that matters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from script import run_in_words
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.corpus.folder import read_corpus, read_pictures
from styledrop_cli.devices import NAMES, autocast, pick_device
from styledrop_cli.errors import UsageError
from styledrop_cli.judging.bootstrap import paired_interval
from styledrop_cli.sampling.masking import TOLD_OF_ALL, random_mask, steps_left
from styledrop_cli.training.loop import masked_cross_entropy

BANDS = ((0.0, 0.5), (0.5, 0.8), (0.8, 1.01))  # of the share that is masked, a column each


@dataclass(frozen=True)
class Losses:
    """Cross-entropy in nats a hidden token, ``[P,K]`` of P pictures hidden in K ways, told the one and the other."""

    masked: Tensor  # the share that was hidden
    script: Tensor
    drawing: Tensor

    @property
    def verdict(self) -> str:
        """Which of the two the weights prefer, with the 95 % interval of the mean difference."""
        difference = self.script - self.drawing
        low, high = paired_interval(difference)
        told = f"{float(difference.mean()):+.4f} [{low:+.4f}, {high:+.4f}] nats with the script's"
        if low <= 0 <= high:
            return f"no difference can be told: {told}"
        better = "what drawing tells" if low > 0 else "what upstream's training script tells"
        return f"the weights prefer {better}: {told}"

    def rows(self) -> list[tuple[str, list[float]]]:
        """Of each way of telling its name, and its means over all and over each of ``BANDS``."""
        inside = [(self.masked >= low) & (self.masked < high) for low, high in BANDS]
        return [
            (name, [float(loss.mean()), *(float(loss[band].mean()) for band in inside)])
            for name, loss in (
                ("as upstream's training script, 1000 x the share masked", self.script),
                ("as drawing tells it", self.drawing),
            )
        ]


@torch.no_grad()
def measure(base: Base, ids: Tensor, captions: Sequence[str], masks: int, seed: int = 0) -> Losses:
    """The losses of pictures as ``ids`` ``[P,H,W]``; each is hidden in ``masks`` ways, as training hides them.

    Raises UsageError for a base that is not told the step.
    """
    network, steps = base.transformer, base.sampling().steps
    draws = torch.Generator().manual_seed(seed)
    shares, losses = [], []
    for grid, caption in zip(ids, captions, strict=True):
        condition = base.condition([caption])
        if condition.at(1) is condition:
            raise UsageError(f"{base.name} is not told the step", "name one of the Meissonic family: --model meissonic")
        for hidden in random_mask(masks, grid.numel(), draws).view(masks, 1, *grid.shape).to(base.device):
            share = hidden.float().mean((1, 2))
            told = (TOLD_OF_ALL * share, base.told(steps_left(share, steps, base.schedule), steps))
            with autocast(base.device):
                each = [masked_cross_entropy(network, grid[None], hidden, condition.at(left)) for left in told]
            shares.append(float(share))
            losses.append([float(loss) for loss in each])
    table = torch.tensor(losses).view(len(ids), masks, 2)
    return Losses(torch.tensor(shares).view(len(ids), masks), *table.unbind(-1))


def main() -> None:
    """Print both losses and what follows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="meissonic")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of captioned pictures")
    parser.add_argument("--masks", type=int, default=8, help="in how many ways each picture is hidden")
    parser.add_argument("--device", choices=NAMES, default="auto")
    arguments = parser.parse_args()
    records = read_corpus(arguments.pictures, on_message=print)
    base = load_base(arguments.model, pick_device(arguments.device))
    pictures = read_pictures(records, base.sizes[0], print)
    ids = torch.cat([base.tokenizer.encode(one.to(base.device) / 255) for one in pictures.split(base.batch)])
    base.done_with("tokenizer")
    losses = measure(base, ids, [one.captions[0] for one in records], arguments.masks)
    print(f"{base.name}: cross-entropy of what is hidden of {len(ids)} pictures, {arguments.masks} times each, in nats")
    bands = [f"{low:.0%} to {min(high, 1):.0%}" for low, high in BANDS]
    print(f"{'told':56}{'all':>12}" + "".join(f"{band:>12}" for band in bands))
    for name, means in losses.rows():
        print(f"{name:56}" + "".join(f"{mean:12.4f}" for mean in means))
    print(losses.verdict)


if __name__ == "__main__":
    run_in_words(main)
