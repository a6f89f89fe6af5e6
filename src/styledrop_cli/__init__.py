"""styledrop: one picture in, a style out. Text-to-image generation in any style (StyleDrop)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from styledrop_cli.errors import DeviceError, ModelError, PictureError, StyledropError, UsageError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from styledrop_cli.api import Picture, StyleDrop, pull

__all__ = [
    "DeviceError",
    "ModelError",
    "Picture",
    "PictureError",
    "StyleDrop",
    "StyledropError",
    "UsageError",
    "__version__",
    "pull",
]


def __getattr__(name: str) -> Any:
    """``StyleDrop``, ``Picture`` and ``pull``, imported when they are asked for: they take torch along."""
    if name in ("StyleDrop", "Picture", "pull"):
        from styledrop_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
