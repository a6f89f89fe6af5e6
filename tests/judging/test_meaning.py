"""What scores mean: a rank among pictures of other things, and a place between the base's own and the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.io.contact_sheet import read_tiles
from styledrop_cli.judging.csls import BANK, SIDE, Calibration
from styledrop_cli.judging.evaluate import References, judge_of
from styledrop_cli.judging.meaning import Meaning, mean, meanings
from styledrop_cli.judging.scores import Measurements

NAN = float("nan")


def measurements(csls: list[float], seen: list[float]) -> Measurements:
    nothing = torch.zeros(len(csls))
    made = Measurements(*([nothing] * 7), contours=torch.zeros(len(csls), 256), seen=torch.tensor(seen))
    return replace(made, csls=torch.tensor(csls))


def test_the_way_begins_at_the_bases_own_and_ends_at_the_references_own() -> None:
    plain, now = measurements([-1.0] * 4, [1.0] * 4), measurements([-1.0, 0.0, 1.0, -2.0], [1.0, 0.9, 0.5, NAN])
    found = meanings(now, plain, 1.0)
    assert [one.way for one in found] == [0, 0.5, 1, -0.5]
    assert [one.words for one in found] == [
        "clear, style unchanged", "in doubt, much style", "not seen, much style", "style unchanged",
    ]  # fmt: skip
    assert found[0].percent() == ["100%", "0%"]
    assert found[3].percent() == ["", "-50%"]
    average = mean(found)
    assert (average.seen, average.way) == (pytest.approx(0.8), 0.25)


def test_it_stays_finite_where_the_base_is_as_near_as_the_reference() -> None:
    """And nothing is said of a way where nothing was calibrated, or there is no reference."""
    near = meanings(measurements([5.0, -5.0], [1.0, 1.0]), measurements([1.0, 1.0], [1.0, 1.0]), 1.0)
    assert [one.way for one in near] == [2, -2]
    for plain, own in ((None, 1.0), (measurements([1.0], [1.0]), NAN), (measurements([NAN], [NAN]), 1.0)):
        assert meanings(measurements([1.0], [0.97]), plain, own) == [Meaning(pytest.approx(0.97), None)]
    assert mean([]) == Meaning() and Meaning().words == ""


@pytest.fixture(scope="module")
def pocket() -> Base:
    return load_base("pocket", tiny.CPU)


def test_what_is_seen_is_a_share_of_the_bank(pocket: Base) -> None:
    """Counted by hand; and what a picture was drawn for is mostly seen in it, while another thing is not."""
    things = ["a basketball", "a ladybug", "a pretzel", "a skull", "a pear"]
    calibration, bank = Calibration(pocket), read_tiles(BANK, SIDE).flatten(0, 1)
    known = torch.cat([pocket.picture_embeds(part.float() / 255) for part in bank.split(64)])
    ids = pocket.sample(things, [0] * len(things), pocket.sampling(steps=8))
    shown, asked = pocket.picture_embeds(pocket.pictures(ids, 128)), pocket.text_embeds(things)
    right, wrong = calibration.seen(shown, asked), calibration.seen(shown, asked.roll(1, 0))
    by_hand = [float((known @ text < one @ text).double().mean()) for one, text in zip(shown, asked, strict=True)]
    assert right.tolist() == pytest.approx(by_hand, abs=2e-3)
    assert int((right > 0.95).sum()) >= 4
    assert int((wrong > 0.95).sum()) <= 1


def test_crops_of_the_reference_have_more_of_its_style_than_other_pictures(pocket: Base) -> None:
    """Which a judge knows without being shown any picture."""
    bank = read_tiles(BANK, SIDE)
    from styledrop_cli.io.images import to_image

    references = References.of_pictures(pocket, [to_image(bank[13, 0].float() / 255)], ["a cat"])
    calibration = Calibration(pocket)
    judge = judge_of(pocket, pocket, references, ["a dog"], calibration)
    own = pocket.picture_embeds(references.shown)
    others = pocket.picture_embeds(bank[[3, 5, 20], 4].float() / 255)
    assert judge.own_csls > float(calibration.likeness(others, own).max())
    assert judge.own_csls <= float(calibration.likeness(own, own).max()) + 1e-5
    assert not judge_of(pocket, pocket, references, ["a dog"]).own_csls > -9  # without a calibration it is not a number
