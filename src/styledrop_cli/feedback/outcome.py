"""What rounds of feedback came to, in plain sentences: what they brought, what is kept, and whether it is any use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from styledrop_cli.judging.bootstrap import mean_with_interval
from styledrop_cli.judging.scores import Scores, mean


def called(number: int) -> str:
    """What people are told of the adapter with this ``number``: the rounds of feedback count from 1.

    Number 1 is the adapter that `train` made, which no feedback has changed yet; 0 is the base alone.
    """
    return f"round {number - 1}" if number > 1 else ("base", "start")[number]


def verdict(scored: Mapping[int, Sequence[Scores]], prompts: int, best: int, last: bool) -> str:
    """What the rounds brought and what is best now.

    ``scored`` are the scores of the same P ``prompts`` and K seeds by round, that of the start first, each against the
    base's own picture of the same seed. ``best`` is the round that is kept, the ``last`` because that was asked for.
    """
    start, *rounds = scored
    said = []
    if rounds:
        top = max(rounds, key=lambda number: (mean(scored[number]).total, -number))
        gain, (low, high) = mean_with_interval(_totals(scored[top]) - _totals(scored[start]), prompts)
        amount = f"its total is {gain:+.2f} ({low:+.2f} to {high:+.2f}) beside the start's"
        if low > 0:
            said.append(f"The rounds made it better: of {called(top)}, {amount}.")
        elif high < 0:
            said.append(f"The rounds made it worse: even of the best of them, {called(top)}, {amount}.")
        else:
            said.append(f"The rounds brought nothing that is beyond chance: of {called(top)}, {amount}.")
    if best == start:
        said.append("Kept is the adapter that they started from.")
    else:
        said.append(f"Kept is {called(best)}{', the last, as you asked' if last else ''}.")
    gain, (low, high) = mean_with_interval(_styles(scored[best]), prompts)
    if low <= 0:
        said.append(
            f"Yet it is no nearer to your picture than the base without an adapter ({gain:+.2f}, {low:+.2f} to "
            f"{high:+.2f}), which shows things better: try generate --base-only, or train for more steps."
        )
    return " ".join(said)


def _totals(some: Sequence[Scores]) -> Tensor:
    return torch.tensor([one.total for one in some])


def _styles(some: Sequence[Scores]) -> Tensor:
    return torch.tensor([one.style - one.leak for one in some])
