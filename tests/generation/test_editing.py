"""Given pictures changed: what stays stays bit for bit, what is to change is drawn by the ids beside it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import tiny
from conftest import Outcome, Run, draw
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base import base as base_module
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.registry import BATCH
from styledrop_cli.cli import edit as edit_module
from styledrop_cli.errors import UsageError
from styledrop_cli.generation import pipeline
from styledrop_cli.generation.editing import edit, seams
from styledrop_cli.generation.editing.edit import SUITS, Edit
from styledrop_cli.generation.editing.seams import joined, spread
from styledrop_cli.generation.editing.windows import MOST_SPOTS, Window, plan
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.io.images import load_transparency, read_png_settings, to_image, to_tensor

ALONE = StyleMix()
Way = Callable[..., Iterator[tuple[int, Image.Image]]]


def way(name: str) -> Way:
    """One way of editing: `(base, mixture, wanted, picture, how, on_step)`."""
    return lambda base, mixture, wanted, picture, how, *rest: Edit(name, picture, how, {}).draw(
        base, mixture, wanted, *rest
    )


inpaint, outpaint, restyle, resample, vary = map(way, SUITS)


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return load_base(str(tiny_model), tiny.CPU)


def wanted(base: Base, *seeds: int, prompt: str = "a cat", **options: Any) -> list[PictureRequest]:
    settings = base.sampling(**({"size": base.sizes[-1], "steps": 3} | options))
    return [PictureRequest(prompt, seed, settings) for seed in seeds]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ellipse(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask


def layer(area: Image.Image, colour: str) -> Image.Image:
    """A layer on which an `area` is painted, transparent elsewhere."""
    made = Image.new("RGBA", area.size, colour)
    made.putalpha(area)
    return made


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.array(image.convert("RGB"))


Calls = list[tuple[Tensor, Tensor]]


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The ids that were given to `sample`, and those that came back."""
    calls: Calls = []
    real = Base.sample

    def watched(self: Base, *rest: Any, ids: Tensor | None = None, **options: Any) -> Tensor:
        made = real(self, *rest, ids=ids, **options)
        assert ids is not None
        calls.append((ids, made))
        return made

    monkeypatch.setattr(Base, "sample", watched)
    return calls


# ---- where to draw ------------------------------------------------------------------------------


def masks(rng: random.Random, height: int, width: int) -> Tensor:
    """A mask of one of many kinds, something of it unknown."""
    unknown = torch.zeros(height, width, dtype=torch.bool)
    kind = rng.choice(["dot", "box", "boxes", "noise", "all", "frame", "all but a box"])
    if kind == "dot":
        unknown[rng.randrange(height), rng.randrange(width)] = True
    elif kind == "noise":
        unknown = torch.rand(height, width, generator=tiny.generator(rng.randrange(1000))) < rng.random()
        unknown[0, 0] = True
    elif kind == "all":
        unknown[:] = True
    elif kind == "frame":
        unknown[:] = True
        unknown[height // 4 : -height // 4, width // 4 : -width // 4] = False
    else:
        for _ in range(rng.randint(2, 12) if kind == "boxes" else 1):
            top, left = rng.randrange(height), rng.randrange(width)
            unknown[top : rng.randint(top + 1, height), left : rng.randint(left + 1, width)] = True
        if kind == "all but a box":
            unknown = ~unknown
            unknown[0, 0] = True
    return unknown


@pytest.mark.parametrize("seed", range(150))
def test_windows_draw_all_that_is_unknown_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    height, width = rng.randint(16, 200), rng.randint(16, 200)
    unknown = masks(rng, height, width)
    before = unknown.clone()
    most = min(height, width)
    made = plan(unknown, min(16, most), most)
    assert torch.equal(unknown, before)
    drawn = torch.zeros_like(unknown)
    for window in made:
        assert 0 <= window.left <= width - window.side and 0 <= window.top <= height - window.side
        assert min(16, most) <= window.side <= most
        assert window.target.shape == (window.side, window.side) and window.target.any()
        assert not (drawn[window.inside] & window.target).any()  # each pixel once
        drawn[window.inside] |= window.target
    assert torch.equal(drawn, unknown)
    assert len(made) <= MOST_SPOTS + 40 * math.ceil(max(height, width) / most)


def known_when_drawn(unknown: Tensor, made: list[Window]) -> list[float]:
    """The share of each window that is known when its turn comes."""
    missing, shares = unknown.clone(), []
    for window in made:
        shares.append(1 - float(missing[window.inside].float().mean()))
        missing[window.inside] &= ~window.target
    return shares


def test_a_long_side_is_drawn_from_what_is_known_outwards() -> None:
    unknown = torch.ones(64, 320, dtype=torch.bool)
    unknown[:, 256:] = False
    made = plan(unknown, 16, 64)
    assert [window.left for window in made] == sorted((window.left for window in made), reverse=True)
    assert min(known_when_drawn(unknown, made)) >= 0.5
    assert len(made) == 8


def test_nothing_known_begins_in_the_middle() -> None:
    unknown = torch.ones(64, 320, dtype=torch.bool)
    first, *rest = known_when_drawn(unknown, windows := plan(unknown, 16, 64))
    assert windows[0].left == 128 and first == 0
    assert min(rest) >= 0.5


def test_a_spot_has_a_window_around_it() -> None:
    unknown = torch.zeros(400, 500, dtype=torch.bool)
    unknown[200:260, 100:180] = True
    (window,) = plan(unknown, 16, 400)
    assert (window.left, window.top, window.side) == (80, 170, 120)
    unknown = torch.zeros(400, 500, dtype=torch.bool)
    unknown[0:4, 496:] = True
    (window,) = plan(unknown, 16, 400)  # in a corner, and no smaller than the base looks
    assert (window.left, window.top, window.side) == (484, 0, 16)


def test_spots_far_apart_have_windows_of_their_own() -> None:
    unknown = torch.zeros(200, 300, dtype=torch.bool)
    unknown[20:50, 20:50] = unknown[120:180, 220:280] = True
    made = plan(unknown, 16, 200)
    assert [window.side for window in made] == [90, 45]  # the larger one first


# ---- seams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_what_is_spread_keeps_what_is_known_and_stays_within_it(share: float) -> None:
    values = torch.rand(3, 37, 53, generator=tiny.generator())
    known = torch.rand(37, 53, generator=tiny.generator(1)) < share
    made = spread(values, known)
    assert torch.equal(made[:, known], values[:, known])
    assert made.min() >= values[:, known].min() - 1e-5 and made.max() <= values[:, known].max() + 1e-5


def test_what_is_spread_is_smooth() -> None:
    known = torch.zeros(32, 64, dtype=torch.bool)
    known[:, :8] = known[:, 56:] = True
    values = torch.linspace(0, 1, 64).expand(1, 32, 64)
    made = spread(values, known)
    assert (made - values).abs().max() < 0.12  # a ramp goes on between its ends
    assert made.diff(dim=-1).abs().max() < 0.05
    assert torch.equal(spread(values, torch.zeros_like(known)), torch.zeros(1, 32, 64))
    assert torch.equal(spread(values, torch.ones_like(known)), values)


def test_colours_join_at_the_seam() -> None:
    known = torch.zeros(64, 64, dtype=torch.bool)
    known[:, :20] = True
    view = torch.full((3, 64, 64), 0.55)
    made = joined(torch.full((3, 64, 64), 0.5), view, known, 4)  # a tokenizer's error: all of it is shifted
    torch.testing.assert_close(made, view, atol=1e-4, rtol=0)
    made = joined(torch.full((3, 64, 64), 0.1), view, known, 4)  # another thing: it joins near the seam alone
    assert (made[:, :, 20] - 0.55).abs().max() < 0.12
    torch.testing.assert_close(made[:, :, 25:], torch.full((3, 64, 39), 0.1 + seams.OFF), atol=1e-4, rtol=0)
    assert (made.diff(dim=-1).abs() < 0.15).all()


# ---- inpainting ---------------------------------------------------------------------------------

AREAS: dict[str, Callable[[tuple[int, int]], Image.Image]] = {
    "in the middle": lambda size: ellipse(size, (120, 60, 180, 130)),
    "in a corner": lambda size: ellipse(size, (270, 180, 330, 230)),
    "a dot": lambda size: ellipse(size, (100, 100, 101, 101)),
    "most of it": lambda size: ellipse(size, (0, 0, size[0], size[1])),
    "a long one": lambda size: ellipse(size, (10, 80, 290, 110)),
    "all": lambda size: Image.new("L", size, 255),
    "grey": lambda size: Image.new("RGB", size, (130, 130, 130)),
}


@pytest.mark.parametrize("area", AREAS)
def test_outside_the_mask_no_bit_changes_and_inside_all_is_new(base: Base, sampled: Calls, area: str) -> None:
    picture = noise(301, 207)
    mask = AREAS[area](picture.size)
    ((index, made),) = inpaint(base, ALONE, wanted(base, 1), picture, mask)
    assert (index, made.size, made.mode) == (0, (301, 207), "RGB")
    inside = pixels(mask)[..., 0] >= 128
    assert (pixels(made)[~inside] == pixels(picture)[~inside]).all()
    assert (pixels(made)[inside] != pixels(picture)[inside]).any(-1).mean() > 0.9  # a few are the same by chance
    assert sampled
    for given, drawn in sampled:
        known = given != base.mask_id
        assert torch.equal(drawn[known], given[known])
        assert (drawn != base.mask_id).all()


def test_ids_are_drawn_where_the_mask_touches_them_and_nowhere_else(base: Base, sampled: Calls) -> None:
    picture = noise(64, 64)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (31, 16, 64, 48))  # with one column of pixels into the second cell
    list(inpaint(base, ALONE, wanted(base, 0), picture, mask))
    ((given, _),) = sampled
    masked = given[0] == base.mask_id
    (window,) = plan(edit.check_mask(picture, mask), 16, 64)
    cell = window.side / base.grid
    rows, columns = (
        [math.floor((first - start) / cell) for start, first in ((window.top, 16), (window.left, 31))],
        [math.ceil((last - start) / cell) for start, last in ((window.top, 48), (window.left, 64))],
    )
    touched = torch.zeros_like(masked)
    touched[rows[0] : columns[0], rows[1] : columns[1]] = True
    assert torch.equal(masked, touched)


def test_each_window_knows_what_those_before_it_drew(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[int], Tensor]] = []
    real = Base.sample

    def watched(self: Base, prompts: list[str], seeds: list[int], *rest: Any, ids: Tensor, **options: Any) -> Tensor:
        calls.append((seeds, ids))
        return real(self, prompts, seeds, *rest, ids=ids, **options)

    monkeypatch.setattr(Base, "sample", watched)
    list(inpaint(base, ALONE, wanted(base, 5, 6), noise(160, 40), Image.new("L", (160, 40), 255)))
    (seeds, first), *rest = calls
    assert len(rest) > 2 and seeds == [5, 6]
    assert (first == base.mask_id).all()
    assert all(0.25 <= (ids != base.mask_id).float().mean() < 1 for _, ids in rest)
    assert len({seed for seeds, _ in calls for seed in seeds}) == 2 * len(calls)  # each with noise of its own


def test_what_lies_under_the_mask_has_no_say(base: Base) -> None:
    picture, mask = draw(120, 90), ellipse((120, 90), (40, 20, 100, 70))
    other = picture.copy()
    other.paste(noise(120, 90), mask=mask)
    ((_, one),), ((_, two),) = (inpaint(base, ALONE, wanted(base, 4), each, mask) for each in (picture, other))
    assert one.tobytes() == two.tobytes()


def test_seeds_alone_decide(base: Base) -> None:
    picture, mask = draw(120, 90), ellipse((120, 90), (40, 20, 100, 70))
    seeds = range(BATCH + 2)
    together = {index: image.tobytes() for index, image in inpaint(base, ALONE, wanted(base, *seeds), picture, mask)}
    assert list(together) == list(seeds)
    assert len(set(together.values())) == len(seeds)
    for index in (0, 3, BATCH + 1):
        ((_, image),) = inpaint(base, ALONE, wanted(base, index), picture, mask)
        assert image.tobytes() == together[index]


def test_a_mask_that_does_not_fit(base: Base) -> None:
    with pytest.raises(UsageError, match="the mask is 64 x 96 px, the picture 96 x 64 px"):
        inpaint(base, ALONE, wanted(base, 0), draw(), Image.new("L", (64, 96), 255))
    with pytest.raises(UsageError, match="nowhere white: there is nothing to draw"):
        inpaint(base, ALONE, wanted(base, 0), draw(), Image.new("L", (96, 64), 120))


def test_all_is_drawn_by_the_same_settings(base: Base) -> None:
    differ = wanted(base, 0) + wanted(base, 1, steps=2)
    with pytest.raises(ValueError):
        list(restyle(base, ALONE, differ, draw(), 0.5))


def test_progress_ends_at_the_end(base: Base) -> None:
    picture = noise(100, 40)
    for change in (
        lambda on: inpaint(base, ALONE, wanted(base, *range(BATCH + 1)), picture, Image.new("L", (100, 40), 255), on),
        lambda on: restyle(base, ALONE, wanted(base, *range(BATCH + 1)), picture, 0.5, on),
        lambda on: resample(base, ALONE, wanted(base, *range(BATCH + 1)), picture, 7, on),
    ):
        shares: list[float] = []
        list(change(shares.append))
        assert shares == sorted(shares) and len(set(shares)) > 3
        assert shares[-1] == pytest.approx(1) and max(shares) <= 1


# ---- outpainting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sides",
    [(10, 0, 0, 0), (0, 10, 0, 0), (0, 0, 10, 0), (0, 0, 0, 10), (7, 20, 1, 64), (150, 0, 9, 0), (0, 0, 0, 256)],
)
@pytest.mark.parametrize("size", [(64, 64), (97, 64)])
def test_sides_are_added_and_the_picture_stays(
    base: Base, sampled: Calls, sides: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    picture = noise(*size)
    left, top, right, bottom = sides
    ((_, made),) = outpaint(base, ALONE, wanted(base, 2), picture, sides)
    assert made.size == (size[0] + left + right, size[1] + top + bottom)
    box = (left, top, left + size[0], top + size[1])
    assert made.crop(box).tobytes() == picture.tobytes()
    whole = pixels(made).astype(int)
    whole[top : top + size[1], left : left + size[0]] = -1
    assert whole[whole >= 0].std() > 1  # something is drawn there
    for given, drawn in sampled:
        known = given != base.mask_id
        assert torch.equal(drawn[known], given[known])


def test_a_little_around_a_picture_is_drawn_with_the_picture_in_the_middle(base: Base, sampled: Calls) -> None:
    list(outpaint(base, ALONE, wanted(base, 0), noise(64, 64), (32, 0, 0, 0)))
    ((given, _),) = sampled
    known = given[0] != base.mask_id
    assert torch.equal(known, known.flip(0)) and torch.equal(known, known.flip(1)) and known.sum() == 4


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ((0, 0, 0, 0), "nothing to draw"),
        ((-1, 0, 5, 0), "0 to 256 pixels, 4 times this picture's shorter side, not -1"),
        ((0, 0, 0, 100_000), "not 100,000"),
    ],
)
def test_sides_that_cannot_be(base: Base, sides: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        outpaint(base, ALONE, wanted(base, 0), draw(), sides)


def test_a_canvas_that_is_too_large() -> None:
    with pytest.raises(UsageError, match="30,000 x 4,000 px are too many: at most 24,000,000 pixels in all"):
        edit.check_sides(Image.new("L", (18_000, 4_000)), (0, 0, 12_000, 0))


# ---- restyling ----------------------------------------------------------------------------------


def test_restyling_by_nothing_keeps_all_ids(base: Base, sampled: Calls) -> None:
    picture = draw(120, 90)
    ((_, made),) = restyle(base, ALONE, wanted(base, 5), picture, 0.0)
    assert sampled == []
    assert made.tobytes() == base.reconstruct(picture).shown.tobytes()


def test_restyling_by_everything_is_a_fresh_drawing(base: Base) -> None:
    them = wanted(base, 5, 6)
    fresh = dict(pipeline.draw(base, ALONE, them))
    for index, made in restyle(base, ALONE, them, draw(), 1.0):
        assert made.size == (32, 32)
        assert made.tobytes() == fresh[index].tobytes()


def test_restyling_masks_a_share_by_the_seed(base: Base, sampled: Calls) -> None:
    list(restyle(base, ALONE, wanted(base, *range(8)), draw(), 0.6))
    list(restyle(base, ALONE, wanted(base, 3), draw(), 0.6))
    (given, drawn), (alone, alone_drawn) = sampled
    masked = given == base.mask_id
    assert (masked.flatten(1).sum(1) == 10).all()  # of 16
    assert len({tuple(row.flatten().tolist()) for row in masked}) > 4
    assert torch.equal(drawn[~masked], given[~masked])
    assert torch.equal(given[3], alone[0]) and torch.equal(drawn[3], alone_drawn[0])


def test_what_is_masked_is_not_what_the_noise_says(base: Base, sampled: Calls) -> None:
    """By the same numbers, what is masked would be drawn from the first of the probabilities alone."""
    list(restyle(base, ALONE, wanted(base, 0), draw(), 0.5))
    masked = sampled[0][0][0] == base.mask_id
    first = torch.rand(16, generator=tiny.generator(0)).view(4, 4)
    assert not torch.equal(masked, first < first.flatten().sort().values[8])


# ---- without a mask -----------------------------------------------------------------------------


def test_resampling_changes_masked_ids_alone(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Tensor] = []
    made: list[Tensor] = []
    real = edit.decode

    def watched(ids: Tensor, *rest: Any, **options: Any) -> Tensor:
        given.append(ids)
        made.append(real(ids, *rest, **options))
        return made[-1]

    monkeypatch.setattr(edit, "decode", watched)
    options = {"top_k": 3, "guidance_every": 3}
    them = wanted(base, 1, 2, **options)
    pictures = dict(resample(base, ALONE, them, draw(), 12))
    assert len(given) == len(made) == 12
    before = base.reconstruct(draw()).ids.expand(2, -1, -1)
    for ids, after in zip(given, made, strict=True):
        masked = ids == base.mask_id
        assert (masked.flatten(1).sum(1) == 1).all()  # 8 % of 16
        assert torch.equal(ids[~masked], before[~masked]) and torch.equal(after[~masked], before[~masked])
        before = after
    assert any((one[0] != one[1]).any() for one in (ids == base.mask_id for ids in given))  # each picture its own
    assert (before != base.reconstruct(draw()).ids).any()
    assert pictures[0].tobytes() == to_image(base.pictures(made[-1][:1], 32)[0]).tobytes()


def test_resampling_goes_by_the_seed(base: Base) -> None:
    def drawn(*seeds: int, iterations: int = 10, **options: Any) -> list[bytes]:
        them = wanted(base, *seeds, **options)
        return [image.tobytes() for _, image in resample(base, ALONE, them, draw(), iterations)]

    both = drawn(1, 2)
    assert both == [*drawn(1), *drawn(2)]
    assert both[0] != both[1]
    # A guide that remembers is asked for other ids each time; there is no way through the steps.
    assert both == drawn(1, 2, guidance_every=4) == drawn(1, 2, guidance_from=0.2, guidance_to=0.4)
    assert both == drawn(1, 2, ramp=True) == drawn(1, 2, ramp=False)


# ---- the command --------------------------------------------------------------------------------

QUICK = ("--steps", "2", "-q", "--json")
LEARNT: list[bytes] = []


@pytest.fixture
def adapter(styledrop: Run, picture: Path, tiny_model: Path) -> Path:
    """An adapter of the tiny model, a few steps old."""
    path = Path("w.safetensors")
    if not LEARNT:
        learn = ("--style", "watercolor", "--content", "a cat", "--steps", "4", "--checkpoints", "0", "-q")
        assert styledrop("train", picture, *learn, "-o", path, "--model", tiny_model).code == 0
        LEARNT.append(path.read_bytes())
    path.write_bytes(LEARNT[0])
    return path


@pytest.fixture
def mask(picture: Path) -> Path:
    path = Path("mask.png")
    ellipse((96, 64), (30, 10, 60, 40)).save(path)
    return path


MODES: dict[str, tuple[tuple[str, ...], tuple[int, int]]] = {
    "inpaint": (("--mask", "mask.png"), (96, 64)),
    "outpaint": (("--outpaint", "left=20,bottom=4"), (116, 68)),
    "restyle": (("--restyle", "0.5"), (32, 32)),
    "mask-free": (("--mask-free", "--iterations", "5"), (32, 32)),
}


def options_of(mode: str) -> tuple[str, ...]:
    """A mode and what makes it quick."""
    return *MODES[mode][0], *(QUICK[2:] if mode == "mask-free" else QUICK)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("styled", [False, True])
def test_each_way_of_editing(
    styledrop: Run, mask: Path, adapter: Path, tiny_model: Path, mode: str, styled: bool
) -> None:
    command = ("edit", "ref.png", "a dog", *options_of(mode), "-n", "2", "--seed", "7", "--model", tiny_model)
    command = (*command, "--adapter", adapter) if styled else command
    code, out, err = styledrop(*command)
    assert code == 0, err
    result = json.loads(out)
    assert [one["path"] for one in result["pictures"]] == [f"styledrop-out/ref-a-dog-{seed}.png" for seed in (7, 8)]
    assert result["sheets"] == ["styledrop-out/sheet.png"] and result["drawn"] == 2
    for seed, one in zip((7, 8), result["pictures"], strict=True):
        said = read_png_settings(Path(one["path"])) or {}
        assert (said["edit"], said["picture"], said["prompt"], said["seed"]) == (mode, "ref.png", "a dog", seed)
        assert len(said["picture_sha256"]) == 64 and ("mask_sha256" in said) == (mode == "inpaint")
        assert said["style"] == ("watercolor" if styled else "")
        assert said["adapter"] == ("w.safetensors" if styled else None)
        assert said["top_k"] == (3 if mode == "mask-free" else 0)
        assert said["lambda_b"] == {"inpaint": 3.5, "outpaint": 0.0, "restyle": 1.5, "mask-free": 3.0}[mode]
        assert said["order"] == ("halton" if mode == "mask-free" else "confidence")
        with Image.open(one["path"]) as image:
            assert image.size == MODES[mode][1]
    before = {path.name: path.read_bytes() for path in Path("styledrop-out").iterdir()}
    again = json.loads(styledrop(*command).out)
    assert again["drawn"] == 0
    assert {path.name: path.read_bytes() for path in Path("styledrop-out").iterdir()} == before


def test_adapters_have_a_say(styledrop: Run, mask: Path, adapter: Path, tiny_model: Path) -> None:
    plain = StyleMix.of(load_adapter(adapter))
    base = load_base(str(tiny_model), tiny.CPU)
    them = [replace(one, settings=replace(one.settings, strength=10.0)) for one in wanted(base, *range(6))]
    for mixture in (plain, ALONE):
        made = [image.tobytes() for _, image in restyle(base, mixture, them, draw(), 1.0)]
        fresh = [image.tobytes() for _, image in pipeline.draw(base, mixture, them)]
        assert made == fresh
    assert [i.tobytes() for _, i in restyle(base, plain, them, draw(), 1.0)] != made


def test_another_mask_or_picture_is_another_edit(styledrop: Run, mask: Path, tiny_model: Path) -> None:
    command = ("edit", "ref.png", "a dog", "--mask", mask, "-n", "1", *QUICK, "--model", tiny_model)
    assert json.loads(styledrop(*command).out)["drawn"] == 1
    assert json.loads(styledrop(*command).out)["drawn"] == 0
    ellipse((96, 64), (30, 10, 61, 40)).save(mask)
    result = json.loads(styledrop(*command).out)
    assert (result["drawn"], result["pictures"][0]["path"]) == (1, "styledrop-out/ref-a-dog-0-2.png")
    draw(96, 64).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("ref.png")
    assert json.loads(styledrop(*command).out)["drawn"] == 1


def test_what_is_transparent_is_drawn(styledrop: Run, tiny_model: Path) -> None:
    picture = draw(80, 50).convert("RGBA")
    hole = Image.new("L", (80, 50), 255)
    hole.paste(0, (10, 10, 40, 40))
    picture.putalpha(hole)
    picture.save("hole.png")
    assert (load := load_transparency(Path("hole.png"))) and load.getbbox() == (10, 10, 40, 40)
    code, out, err = styledrop("edit", "hole.png", "a dog", "-n", "1", "--steps", "2", "--model", tiny_model)
    assert code == 0, err
    assert "22% of hole.png is drawn anew" in err
    with Image.open(out.strip()) as made:
        new, old = pixels(made), pixels(draw(80, 50))
    assert (new[:, 40:] == old[:, 40:]).all() and (new[10:40, 10:40] != old[10:40, 10:40]).any(-1).mean() > 0.9
    picture.putalpha(254)
    picture.save("nearly.png")
    assert load_transparency(Path("nearly.png")) is None
    refused(styledrop("edit", "nearly.png", "a dog"), 2, "nothing says what to change in nearly.png")


def test_a_mask_may_be_painted_on_a_transparent_layer(styledrop: Run, mask: Path, tiny_model: Path) -> None:
    with Image.open(mask) as area:
        layers = {"RGBA": layer(area, "white"), "LA": layer(area, "white").convert("LA"), "P": area.quantize(2)}
    layers["P"].info["transparency"] = layers["P"].getpixel((0, 0))
    command = ("edit", "ref.png", "a dog", "-n", "1", *QUICK, "--model", tiny_model)
    drawn = {}
    for name in (plain := "L", *layers):
        if name != plain:
            layers[name].save(mask)
        code, out, err = styledrop(*command, "--mask", mask, "-o", name)
        assert code == 0, err
        with Image.open(json.loads(out)["pictures"][0]["path"]) as made:
            drawn[name] = made.tobytes()
    assert set(drawn) == {"L", "RGBA", "LA", "P"} and len(set(drawn.values())) == 1


@pytest.mark.parametrize("mode", MODES)
def test_what_of_a_picture_is_not_applied_is_said(styledrop: Run, mask: Path, tiny_model: Path, mode: str) -> None:
    draw().save("ref.png", icc_profile=b"none")
    code, _, err = styledrop("edit", "ref.png", "a dog", *options_of(mode), "-n", "1", "--model", tiny_model)
    assert code == 0 and err.count("Warning: the colour profile in ref.png is damaged") == 1


@pytest.mark.parametrize("mode", ["restyle", "mask-free"])
def test_a_middle_square_is_said_aloud(styledrop: Run, picture: Path, tiny_model: Path, mode: str) -> None:
    command = ("edit", "ref.png", "a dog", *(one for one in options_of(mode) if one not in ("-q", "--json")), "-n", "1")
    code, _, err = styledrop(*command, "--model", tiny_model)
    assert code == 0, err
    assert "ref.png is not square: its middle, 64 x 64 px, is taken" in err
    draw(64, 64).save("ref.png")
    assert "not square" not in styledrop(*command, "--model", tiny_model).err


def test_all_sides_alike(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    code, out, err = styledrop(
        "edit", "ref.png", "a dog", "--outpaint", "6", "-n", "1", *QUICK, "--model", tiny_model, "--lambda-b", "2"
    )
    assert code == 0, err
    result = json.loads(out)
    assert result["settings"]["sides"] == {"left": 6, "top": 6, "right": 6, "bottom": 6}
    assert result["settings"]["lambda_b"] == 2
    assert result["sheets"] == []
    with Image.open(result["pictures"][0]["path"]) as image:
        assert image.size == (108, 76)


def test_a_published_base(styledrop: Run, mask: Path) -> None:
    folder = tiny.write_published(Path("published"))
    for mode in MODES:
        code, out, err = styledrop("edit", "ref.png", "a dog", *options_of(mode), "-n", "2", "--model", folder)
        assert code == 0, err
        said = json.loads(out)["settings"]
        assert said["lambda_b"] == (3 if mode == "mask-free" else 9)


def refused(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "Error: " in outcome.err and "Traceback" not in outcome.err and "unexpected" not in outcome.err
    for word in words:
        assert word in outcome.err


BAD: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
    (("ref.png", "a dog"), 2, ("nothing says what to change in ref.png", "say --mask mask.png, --outpaint left=64")),
    (("ref.png", "a dog", "--mask", "mask.png", "--restyle", "0.5"), 2, ("--mask and --restyle are 2 changes",)),
    (("ref.png", "a dog", "--mask-free", "--outpaint", "8"), 2, ("--outpaint and --mask-free are 2 changes",)),
    (("ref.png", "a dog", "--mask", "other.png"), 2, ("the mask is 20 x 30 px, the picture 96 x 64 px",)),
    (("ref.png", "a dog", "--mask", "black.png"), 2, ("the mask is nowhere white", "0% of white", "Paint white")),
    (("ref.png", "a dog", "--mask", "grey.png"), 2, ("the mask is nowhere white", "its brightest is 47% of white")),
    (("ref.png", "a dog", "--mask", "strokes.png"), 2, ("nowhere white", "what is black or transparent stays")),
    (("ref.png", "a dog", "--mask", "clear.png"), 2, ("the mask is nowhere white",)),
    (("ref.png", "a dog", "--mask", "white.png"), 2, ("the mask white.png is white all over", "--restyle 1")),
    (("clear.png", "a dog"), 2, ("clear.png is transparent all over: nothing of the picture would stay",)),
    (("ref.png", "a dog", "--mask", "none.png"), 1, ("there is no picture at none.png",)),
    (("ref.png", "a dog", "--mask", "words.png"), 1, ("words.png is not a picture",)),
    (("none.png", "a dog", "--outpaint", "8"), 1, ("there is no picture at none.png",)),
    (("none.png", "a dog"), 1, ("there is no picture at none.png",)),
    (("words.png", "a dog", "--restyle", "0.5"), 1, ("words.png is not a picture",)),
    (("ref.png", "a dog", "--outpaint", "abc"), 2, ("--outpaint abc does not say how many pixels", "left=64")),
    (("ref.png", "a dog", "--outpaint", ""), 2, ("does not say how many pixels",)),
    (("ref.png", "a dog", "--outpaint", "left=8,left=9"), 2, ("does not say how many pixels",)),
    (("ref.png", "a dog", "--outpaint", "up=8"), 2, ("does not say how many pixels",)),
    (("ref.png", "a dog", "--outpaint", "left=8;top=9"), 2, ("does not say how many pixels",)),
    (("ref.png", "a dog", "--outpaint", "left=0"), 2, ("no side gets any pixels: there is nothing to draw",)),
    (("ref.png", "a dog", "--outpaint", "left=-5"), 2, ("a side gets 0 to 256 pixels", "not -5")),
    (("ref.png", "a dog", "--outpaint", "-5"), 2, ("a side gets 0 to 256 pixels", "not -5")),
    (("ref.png", "a dog", "--outpaint", "100000"), 2, ("a side gets 0 to 256 pixels", "not 100,000")),
    (("ref.png", "a dog", "--outpaint", "top=99999999999999"), 2, ("does not say how many pixels",)),
    (("ref.png", "a dog", "--restyle", "1.5"), 2, ("--restyle must be between 0 and 1, not 1.5",)),
    (("ref.png", "a dog", "--restyle", "-0.1"), 2, ("--restyle must be between 0 and 1, not -0.1",)),
    (("ref.png", "a dog", "--restyle", "0.5", "--iterations", "9"), 2, ("--iterations belongs to --mask-free",)),
    (("ref.png", "a dog", "--mask-free", "--steps", "9"), 2, ("--steps does not act on --mask-free", "--iterations")),
    (("ref.png", "a dog", "--mask-free", "--iterations", "0"), 2, ("--iterations must be between 1 and 1,000, not 0",)),
    (("ref.png", "a dog", "-n", "101", "--outpaint", "8"), 2, ("--number must be between 1 and 100, not 101",)),
    (("ref.png", "--outpaint", "8"), 2, ("there is nothing to draw", 'styledrop edit ref.png "a cat"')),
    (("ref.png", "", "--outpaint", "8"), 2, ("a prompt is empty",)),
    (("ref.png", "?!", "--outpaint", "8"), 2, ("a prompt says nothing",)),
    (("ref.png", "a", "dog", "--outpaint", "8"), 2, ("put each prompt in quotes",)),
    (("ref.png", "a dog", "a cat", "--outpaint", "8"), 2, ("2 prompts, and a picture takes one: a dog, a cat",)),
    (("ref.png", "a dog", "--outpaint", "8", "--preset", "slow"), 2, ("no preset called 'slow'",)),
    (("ref.png", "a dog", "--outpaint", "8", "--style", "?"), 2, ("--style says nothing",)),
    (("ref.png", "a dog", "--outpaint", "8", "--negative", "?"), 2, ("--negative says nothing",)),
    (("ref.png", "a dog", "--outpaint", "8", "-o", "words.png"), 2, ("words.png is a file",)),
    (("ref.png", "a dog", "--outpaint", "8", "--adapter", "none.safetensors"), 1, ("none.safetensors",)),
    (("ref.png", "a dog", "--outpaint", "8", "--adapter", "ref.png"), 1, ("ref.png",)),
]


@pytest.mark.parametrize(("arguments", "code", "words"), BAD, ids=[" ".join(one[0])[:60] for one in BAD])
def test_bad_edits(
    styledrop: Run,
    mask: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)  # said before the base is loaded
    Image.new("L", (20, 30), 255).save("other.png")
    Image.new("L", (96, 64)).save("black.png")
    Image.new("L", (96, 64), 120).save("grey.png")
    Image.new("L", (96, 64), 250).save("white.png")
    Image.new("RGBA", (96, 64), (255, 255, 255, 0)).save("clear.png")
    layer(ellipse((96, 64), (30, 10, 60, 40)), "black").save("strokes.png")
    Path("words.png").write_text("these are words")
    before = sorted(Path().iterdir())
    refused(styledrop("edit", *arguments), code, *words)
    assert sorted(Path().iterdir()) == before


def test_a_large_mask_costs_no_more_than_its_windows() -> None:
    """Planning goes by cells and sums, not by pixels: a photograph takes a moment."""
    unknown = torch.zeros(3000, 4000, dtype=torch.bool)
    unknown[100:2900, 200:3900:7] = True
    made = plan(unknown, 128, 3000)
    assert len(made) < 10
    assert to_tensor(Image.new("L", (4, 4), 255)).min() == 1
    assert edit_module.MOST_OF_EACH <= 100
