"""styledrop: one picture in, a style out. Text-to-image generation in any style (StyleDrop)."""

from __future__ import annotations

from styledrop_cli.errors import DeviceError, ModelError, PictureError, StyledropError, UsageError

__version__ = "0.1.0"

__all__ = [
    "DeviceError",
    "ModelError",
    "PictureError",
    "StyledropError",
    "UsageError",
    "__version__",
]
