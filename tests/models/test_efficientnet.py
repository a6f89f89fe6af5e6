"""EfficientNet-Lite0: the published network, its batch normalisations folded in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tiny
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.models.efficientnet import BATCH_NORM_EPS, STAGES, STEM, EfficientNet, SameConv, fold_published
from styledrop_cli.training.pretrain import features


def published(stages: int) -> dict[str, torch.Tensor]:
    """Random tensors under the published names."""
    g = tiny.generator()
    tensors: dict[str, torch.Tensor] = {}

    def conv(name: str, norm: str, out: int, inp: int, kernel: int) -> None:
        tensors[f"{name}.weight"] = torch.randn(out, inp, kernel, kernel, generator=g) / (inp * kernel**2) ** 0.5
        for kind in ("weight", "running_var"):
            tensors[f"{norm}.{kind}"] = 0.5 + torch.rand(out, generator=g)
        for kind in ("bias", "running_mean"):
            tensors[f"{norm}.{kind}"] = torch.randn(out, generator=g)

    conv("_conv_stem", "_bn0", STEM, 3, 3)
    number, inp = 0, STEM
    for out, blocks, kernel, _, expansion in STAGES[:stages]:
        for _ in range(blocks):
            there, wide = f"_blocks.{number}", inp * expansion
            if expansion > 1:
                conv(f"{there}._expand_conv", f"{there}._bn0", wide, inp, 1)
            conv(f"{there}._depthwise_conv", f"{there}._bn1", wide, 1, kernel)
            conv(f"{there}._project_conv", f"{there}._bn2", out, wide, 1)
            number, inp = number + 1, out
    return tensors


def plainly(tensors: dict[str, torch.Tensor], x: torch.Tensor, stages: int) -> torch.Tensor:
    """The published network written out: convolution, padded as TensorFlow does, and batch normalisation."""

    def normed(x: torch.Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = tensors[f"{conv}.weight"]
        kernel = weight.shape[-1]
        missing = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
        x = F.conv2d(F.pad(x, (missing // 2, missing - missing // 2) * 2), weight, stride=stride, groups=groups)
        of_norm = (tensors[f"{norm}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *of_norm, eps=BATCH_NORM_EPS)

    x = F.relu6(normed(x, "_conv_stem", "_bn0", 2))
    number = 0
    for _, blocks, _, stride, expansion in STAGES[:stages]:
        for block in range(blocks):
            there, y = f"_blocks.{number}", x
            if expansion > 1:
                y = F.relu6(normed(y, f"{there}._expand_conv", f"{there}._bn0"))
            here = stride if block == 0 else 1
            y = F.relu6(normed(y, f"{there}._depthwise_conv", f"{there}._bn1", here, y.shape[1]))
            y = normed(y, f"{there}._project_conv", f"{there}._bn2")
            x = x + y if block else y
            number += 1
    return x


def test_folded_it_says_what_the_published_network_says() -> None:
    tensors = published(4)
    network = EfficientNet(4)
    network.load_state_dict(fold_published(tensors, 4))
    pictures = torch.rand(2, 3, 48, 48, generator=tiny.generator()) * 2 - 1
    maps = network.features(pictures)
    assert [m.shape[1] for m in maps] == list(network.channels) == [16, 24, 40, 80]
    assert [m.shape[-1] for m in maps] == [24, 12, 6, 3]
    torch.testing.assert_close(maps[-1], plainly(tensors, pictures, 4), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 2), (6, 3, 1), (6, 1, 1)]
)
def test_same_padding_keeps_the_side_or_halves_it(side: int, kernel: int, stride: int) -> None:
    conv = SameConv(1, 1, kernel, stride)
    assert conv(torch.zeros(1, 1, side, side)).shape[-1] == -(-side // stride)


def test_tensors_of_another_network_are_not_taken() -> None:
    tensors = published(2)
    del tensors["_blocks.2._depthwise_conv.weight"]
    with pytest.raises(KeyError):
        fold_published(tensors, 2)


def test_the_published_weights_are_asked_for_by_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PACKAGE", "no_such_package_anywhere")
    with pytest.raises(UsageError, match="EfficientNet"):
        features.published_features()


def test_the_published_weights_tell_things_apart() -> None:
    """A disc is more like a disc of another colour than like a square of its own."""
    network = features.published_features()
    line = torch.linspace(-1, 1, 64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    disc, square = (x**2 + y**2 < 0.4).float(), ((x.abs() < 0.56) & (y.abs() < 0.56)).float()
    red, blue = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1), torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1)
    pictures = torch.stack([1 - disc * (1 - red), 1 - disc * (1 - blue), 1 - square * (1 - red)])
    seen = F.normalize(network.features(pictures * 2 - 1)[-2].mean((2, 3)), dim=-1)
    assert seen[0] @ seen[1] > seen[0] @ seen[2]


def test_a_package_of_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "FILE", "__init__.py")
    with pytest.raises(ModelError, match="EfficientNet"):
        features.published_features()
