"""The crossed bootstrap: what it holds for sure, and that it is about right."""

from __future__ import annotations

import pytest
import torch

import tiny
from styledrop_cli.judging.bootstrap import paired_interval


def test_laws() -> None:
    cells = torch.randn(7, 4, generator=tiny.generator())
    low, high = paired_interval(cells)
    assert low < float(cells.mean()) < high
    assert paired_interval(cells) == (low, high)  # nothing but the numbers decides
    shifted = paired_interval(cells + 3)
    assert shifted == pytest.approx((low + 3, high + 3), abs=1e-6)
    assert paired_interval(2 * cells) == pytest.approx((2 * low, 2 * high), abs=1e-6)


def test_what_there_is_no_doubt_about_has_no_width() -> None:
    assert paired_interval(torch.full((5, 3), 0.25)) == pytest.approx((0.25, 0.25))
    assert paired_interval(torch.tensor([[0.5]])) == pytest.approx((0.5, 0.5))


def test_prompts_that_differ_count_as_prompts_and_not_as_pictures() -> None:
    """Twenty seeds of two prompts say little: the prompts are what differs."""
    apart = torch.tensor([[0.0], [1.0]]).expand(2, 20)
    assert paired_interval(apart) == pytest.approx((0, 1))
    low, high = paired_interval(apart.T.contiguous().view(20, 2))
    assert (low, high) == pytest.approx((0, 1))  # nor do seeds that differ


def test_it_covers_about_95_of_100() -> None:
    inside = 0
    for trial in range(200):
        g = tiny.generator(trial)
        prompts, seeds, rest = (torch.randn(*shape, generator=g) for shape in ((12, 1), (1, 12), (12, 12)))
        low, high = paired_interval(prompts + 0.5 * seeds + rest, draws=400)
        inside += low <= 0 <= high
    assert 175 <= inside <= 200
