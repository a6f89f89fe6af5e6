"""What the judges' opinions come to, and how sure one can be of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paired.judges import Judges
from styledrop_cli.judging.bootstrap import counts

# Cells are ``[S,R,P,K]``: styles, references of each, prompts, seeds.
MEASURES = ("style", "content", "top-5", "leak", "truth")
Cells = dict[str, Tensor]


def cells_of(
    judges: Judges, pictures: Tensor, true: Tensor, *, look: int, wanted: Sequence[int], reference: int
) -> Cells:
    """Judge pictures ``[N,3,S,S]`` of the things ``wanted`` [N], drawn in ``look`` after one of ``reference``.

    ``true`` ``[N,3,S,S]`` is what the style's own artist drew. Returns ``[N]`` of each measure:

    - ``style``, 0 or 1: the style judge takes it for the target style;
    - ``share``, in [0,1]: the probability that the judge gives the target style;
    - ``content`` and ``top-5``, 0 or 1: the content judge's first guess, or one of its first five, is the thing wanted;
    - ``leak``, 0 or 1: its first guess is the reference's thing;
    - ``truth``, in [-1,1]: the cosine of the style judge's features of it and of the true picture, both less the
      features' mean over styles.
    """
    seen, known = judges.see(pictures), judges.see(true)
    things = torch.tensor(wanted)
    first = seen.content.argmax(-1)
    five = seen.content.topk(min(5, seen.content.shape[1])).indices
    return {
        "style": (seen.style.argmax(-1) == look).float(),
        "share": seen.style[:, look],
        "content": (first == things).float(),
        "top-5": (five == things[:, None]).any(-1).float(),
        "leak": (first == reference).float(),
        "truth": (seen.features * known.features).sum(-1),
    }


@dataclass(frozen=True)
class Estimate:
    """A mean, and of its difference against another row the mean and the ends of the 95 % interval."""

    mean: float
    difference: float
    low: float
    high: float


def bootstrap(difference: Tensor, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of paired differences ``[S,R,P,K]``: row minus row in the same cell.

    With d_srp the mean over seeds, one draw is  m = sum_srp u_sr v_p d_srp / (S R P),  where u_s ~ Multinomial(R; 1/R)
    resamples each style's references and v ~ Multinomial(P; 1/P) the prompts, which all references share; the interval
    goes from the 2.5 to the 97.5 percentile of m (Efron & Tibshirani 1993, 13.3; styles are not resampled: they are
    those named).
    """
    S, R, P = difference.shape[:3]
    g = torch.Generator().manual_seed(seed)
    u = counts(draws * S, R, g).view(draws, S, R)
    v = counts(draws, P, g)
    means = torch.einsum("dsr,dp,srp->d", u, v, difference.double().mean(-1)) / (S * R * P)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return low, high


def estimates(
    cells: Mapping[str, Cells], styles: Sequence[int], base: str, against: str
) -> dict[str, dict[str, Estimate]]:
    """Of each row and measure, over some ``styles``; a leak is what the row's share exceeds that of ``base`` by."""
    out: dict[str, dict[str, Estimate]] = {}
    chosen = list(styles)
    for row, values in cells.items():
        out[row] = {}
        for name, value in values.items():
            difference = value[chosen] - cells[against][name][chosen]
            mean = value[chosen].mean()
            if name == "leak" and row != base:
                mean = mean - cells[base][name][chosen].mean()
            out[row][name] = Estimate(float(mean), float(difference.mean()), *bootstrap(difference))
    return out


def written(name: str, estimate: Estimate, interval: bool) -> str:
    """An estimate for a table: shares in per cent, the ends of the difference's interval in brackets."""
    scale, digits = (1.0, 2) if name == "truth" else (100.0, 0)
    number = f"{scale * estimate.mean + 0.0:.{digits}f}"
    if not interval:
        return number
    low, high = (f"{scale * end:+.{digits}f}" for end in (estimate.low, estimate.high))
    return f"{number} ({low} … {high})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as it is and as markdown."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [" | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in (header, *rows)]
    rule = "|".join("-" * (w + 2) for w in widths)
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])
