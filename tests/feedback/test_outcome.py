"""What is said at the end of rounds of feedback."""

from __future__ import annotations

import pytest

from styledrop_cli.feedback.outcome import verdict
from styledrop_cli.judging.scores import Scores

NOISE = (0.02, -0.03, 0.01, 0.0, 0.04, -0.04)  # of three prompts, two seeds each


def pictures(thing: float, style: float, noise: tuple[float, ...] = NOISE) -> list[Scores]:
    return [Scores(thing + one, 0.9, style - one / 2, 0.05) for one in noise]


def said(*rounds: list[Scores], best: int, last: bool = False, start: int = 1) -> str:
    scored = {start + i: of for i, of in enumerate(rounds)}
    return verdict(scored, 3, best, last)


def test_a_gain_is_said_with_its_interval() -> None:
    words = said(pictures(0.5, 0.3), pictures(0.8, 0.4), pictures(0.6, 0.4), best=2)
    assert words.startswith("The rounds made it better: of round 1, its total is +0.40 (+0.40 to +0.40) beside")
    assert "Kept is round 1." in words and "base" not in words


def test_nothing_gained_is_said_and_what_is_kept() -> None:
    other = tuple(reversed(NOISE))
    words = said(pictures(0.5, 0.3), pictures(0.5, 0.3, other), best=1)
    assert words.startswith("The rounds brought nothing that is beyond chance: of round 1, its total is +0.00 (-0.0")
    assert "Kept is the adapter that they started from." in words


def test_what_was_made_worse_is_not_kept_unless_asked_for() -> None:
    start, later = pictures(0.9, 0.4), pictures(0.5, 0.3)
    assert "The rounds made it worse: even of the best of them, round 1," in said(start, later, best=1)
    assert "Kept is round 1, the last, as you asked." in said(start, later, best=2, last=True)


@pytest.mark.parametrize(("style", "won"), [(0.05, True), (0.0, True), (0.3, False)])
def test_a_style_that_is_not_there_is_said(style: float, won: bool) -> None:
    words = said(pictures(0.5, style), pictures(0.4, style), best=1)
    assert ("it is no nearer to your picture than the base without an adapter" in words) == won
    assert ("--base-only" in words) == won


def test_rounds_that_go_on_from_a_round_start_there() -> None:
    words = said(pictures(0.5, 0.3), pictures(0.8, 0.4), best=4, start=3)
    assert "of round 3" in words and "Kept is round 3" in words
