"""Layers that work in strips: what comes is what the whole at once gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import tiny
from styledrop_cli.models import strips
from styledrop_cli.models.tokenizer import ImageTokenizer, TokenizerConfig, doubling

SIZES = TokenizerConfig((8, 16, 16), 2, 8, 6, 32, 4)


@pytest.fixture
def tokenizer() -> ImageTokenizer:
    made = ImageTokenizer(SIZES)
    tiny.randomise(made)
    return made.requires_grad_(False).eval()


def grid(*shape: int) -> torch.Tensor:
    return torch.randn(2, *shape, generator=tiny.generator(4))


@torch.no_grad()
def same_in_strips(make: Callable[[], torch.Tensor]) -> None:
    """What ``make`` makes is the same in strips of two rows, of some, and of all."""
    whole, sizes = make(), (2**6, 2**9, 2**30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "LARGE", 0)
        for numbers in sizes:
            patch.setattr(strips, "STRIP", numbers)
            torch.testing.assert_close(make(), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(12, 8), (4, 20), (20, 4)])
def test_pixels_and_latents(tokenizer: ImageTokenizer, height: int, width: int) -> None:
    codes, shown = grid(6, height // 4, width // 4), grid(3, height, width).sigmoid()
    same_in_strips(lambda: tokenizer.pixels(codes))
    same_in_strips(lambda: tokenizer.latents(shown))


@pytest.mark.parametrize("height", [2, 6, 14])
def test_each_layer(height: int) -> None:
    x = grid(8, height, 10)
    norm, plain, point = nn.GroupNorm(4, 8), nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 6, 1)
    step, weight = nn.Conv2d(8, 6, 3, stride=2), doubling(torch.randn(6, 8, 3, 3, generator=tiny.generator()))
    tiny.randomise(norm)
    same_in_strips(lambda: strips.convolve(plain, x, norm))
    same_in_strips(lambda: strips.convolve(point, x))
    same_in_strips(lambda: strips.halve(step, x))
    same_in_strips(lambda: strips.double(weight, None, x))


def test_a_map_is_written_over_and_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    x, norm, layer = grid(8, 14, 10), nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 3, padding=1)
    monkeypatch.setattr(strips, "LARGE", 0)
    monkeypatch.setattr(strips, "STRIP", 2**9)
    with torch.no_grad():
        whole = layer(torch.nn.functional.silu(norm(x)))
        added = strips.convolve(layer, x, norm, into=torch.ones_like(x), add=True)
        over = x.clone()
        assert strips.convolve(layer, over, norm, into=over) is over
    torch.testing.assert_close(added, whole + 1, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(over, whole, atol=1e-5, rtol=1e-5)


def test_what_learns_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "LARGE", 0)
    assert not strips.is_large(grid(8, 4, 4))
    with torch.no_grad():
        assert strips.is_large(grid(8, 4, 4))


def test_no_strip_holds_more_than_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest thing that a layer is given at once has at most ``STRIP`` numbers, with the rows around it."""
    monkeypatch.setattr(strips, "LARGE", 0)
    monkeypatch.setattr(strips, "STRIP", 8 * 10 * 4)
    seen: list[int] = []
    own = torch.nn.functional.conv2d

    def watched(x: torch.Tensor, *rest: object, **more: object) -> torch.Tensor:
        seen.append(x.shape[2])
        return own(x, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "conv2d", watched)
    with torch.no_grad():
        strips.convolve(nn.Conv2d(8, 6, 3, padding=1), grid(8, 14, 10)[:1])
    assert seen == [4] * 7
