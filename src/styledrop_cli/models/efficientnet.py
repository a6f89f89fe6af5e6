"""EfficientNet-Lite0: what a network trained on photographs sees in a picture.

Its maps are the perceptual loss of the image tokenizer, and its weights the start of CLIP's picture tower. The
published batch normalisations are folded into the convolutions (``fold_published``), so that a block is convolutions
and ReLU6 alone.
Upstream: google/automl ``efficientnet-lite0`` (arXiv 1905.11946, without squeeze-and-excitation).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

# Of each stage: channels, blocks, kernel, stride of its first block, expansion.
STAGES = (
    (16, 1, 3, 1, 1),
    (24, 2, 3, 2, 6),
    (40, 2, 5, 2, 6),
    (80, 3, 3, 2, 6),
    (112, 3, 5, 1, 6),
    (192, 4, 5, 2, 6),
    (320, 1, 3, 1, 6),
)
STEM = 32
BATCH_NORM_EPS = 1e-3


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow's "SAME" does: with stride 2, one more below and to the right."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        down, right = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
        x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return F.conv2d(x, self.weight, self.bias, stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, project back; added to the input where the shapes allow it."""

    def __init__(self, inp: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inp * expansion
        self.expand = SameConv(inp, wide, 1) if expansion > 1 else None
        self.depthwise = SameConv(wide, wide, kernel, stride, groups=wide)
        self.project = SameConv(wide, out, 1)
        self.residual = inp == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(y)))
        return x + out if self.residual else out


class EfficientNet(nn.Module):
    """Pictures ``[B,3,H,W]`` in [-1,1] to maps of seven stages; ``stages`` may leave the last ones out."""

    def __init__(self, stages: int = len(STAGES)) -> None:
        super().__init__()
        self.channels = tuple(stage[0] for stage in STAGES[:stages])
        self.stem = SameConv(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        inp = STEM
        for out, blocks, kernel, stride, expansion in STAGES[:stages]:
            first = InvertedResidual(inp, out, kernel, stride, expansion)
            rest = (InvertedResidual(out, out, kernel, 1, expansion) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *rest))
            inp = out

    def features(self, pictures: Tensor) -> list[Tensor]:
        """One map ``[B,C,h,w]`` a stage; sides are halved by the stem and by stages 2, 3, 4 and 6."""
        x = F.relu6(self.stem(pictures))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def fold_published(tensors: Mapping[str, Tensor], stages: int = len(STAGES)) -> dict[str, Tensor]:
    """The published tensors as ``EfficientNet``'s: each convolution with its batch normalisation folded in.

    Raises KeyError if ``tensors`` are those of another network.
    """

    def folded(conv: str, norm: str) -> tuple[Tensor, Tensor]:
        gain = tensors[f"{norm}.weight"] * (tensors[f"{norm}.running_var"] + BATCH_NORM_EPS).rsqrt()
        bias = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain
        return tensors[f"{conv}.weight"] * gain[:, None, None, None], bias

    pairs = {"stem": folded("_conv_stem", "_bn0")}
    number = 0
    for stage, (_, blocks, _, _, expansion) in enumerate(STAGES[:stages]):
        for block in range(blocks):
            there, here = f"_blocks.{number}", f"stages.{stage}.{block}"
            if expansion > 1:
                pairs[f"{here}.expand"] = folded(f"{there}._expand_conv", f"{there}._bn0")
            pairs[f"{here}.depthwise"] = folded(f"{there}._depthwise_conv", f"{there}._bn1")
            pairs[f"{here}.project"] = folded(f"{there}._project_conv", f"{there}._bn2")
            number += 1
    weights = {f"{name}.weight": weight for name, (weight, _) in pairs.items()}
    return weights | {f"{name}.bias": bias for name, (_, bias) in pairs.items()}
