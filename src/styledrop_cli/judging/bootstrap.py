"""How sure a mean over prompts and seeds is."""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS = 2000


def paired_interval(difference: Tensor, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of ``difference`` ``[P,K]``: one row's score less another's, cell by cell.

    P prompts were drawn with the same K seeds, so both are resampled and crossed: with u ~ Multinomial(P; 1/P) and
    v ~ Multinomial(K; 1/K), one draw is  m = sum_pk u_p v_k d_pk / (P K),  and the interval goes from the 2.5 to the
    97.5 percentile of m (Owen 2007, "The pigeonhole bootstrap": a little too wide rather than too narrow). What there
    is only one of is not resampled, and its chance is not in the interval. Scores themselves do as well as differences.
    """
    prompts, seeds = difference.shape
    g = torch.Generator().manual_seed(seed)
    u, v = counts(draws, prompts, g), counts(draws, seeds, g)
    means = torch.einsum("dp,dk,pk->d", u, v, difference.double()) / (prompts * seeds)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return low, high


def mean_with_interval(values: Tensor, prompts: int) -> tuple[float, tuple[float, float]]:
    """The mean of ``values`` ``[P*K]`` of P ``prompts``, one prompt after the other, and its ``paired_interval``."""
    return float(values.mean()), paired_interval(values.unflatten(0, (prompts, -1)))


def counts(rows: int, n: int, g: torch.Generator) -> Tensor:
    """How often each of ``n`` comes up in ``n`` draws with replacement, ``[rows,n]``."""
    drawn = torch.randint(n, (rows, n), generator=g)
    return torch.zeros(rows, n, dtype=torch.double).scatter_add_(1, drawn, torch.ones(rows, n, dtype=torch.double))
