"""How long work will take is foreseen from its own second step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from styledrop_cli.progress import Forecast


def heard(shares: list[float], seconds: list[float], long: float, pieces: int = 1) -> list[tuple[int, float]]:
    """What a forecast tells of steps that end at these ``seconds``."""
    told: list[tuple[int, float]] = []
    clock: Iterator[float] = iter(seconds)
    forecast = Forecast(lambda steps, each: told.append((steps, each)), long, pieces, lambda: next(clock))
    for share in shares:
        forecast.step(share)
    return told


def test_the_second_step_tells_once() -> None:
    """The first step, which also reads what is needed, took 100 s, and has no say."""
    assert heard([1 / 48, 2 / 48, 3 / 48], [100, 108, 130], 60) == [(48, 8)]


def test_each_of_several_pictures() -> None:
    assert heard([1 / 96, 2 / 96], [0, 3], 60, pieces=2) == [(48, 3)]


@pytest.mark.parametrize(("shares", "seconds"), [([1 / 48, 2 / 48], [0, 1]), ([0.5], [500]), ([], [])])
def test_what_is_short_is_not_announced(shares: list[float], seconds: list[float]) -> None:
    assert heard(shares, seconds, 60) == []


def test_work_that_goes_on_from_the_middle() -> None:
    assert heard([0.5, 0.51], [0, 30], 1800) == [(100, 30)]
