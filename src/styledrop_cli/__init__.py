"""styledrop: one picture in, a style out. Text-to-image generation in any style (StyleDrop)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from styledrop_cli.errors import DeviceError, ModelError, PictureError, StyledropError, UsageError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from styledrop_cli.api import Picture, StyleDrop, load, pull, save, styles

__all__ = [
    "DeviceError",
    "ModelError",
    "Picture",
    "PictureError",
    "StyleDrop",
    "StyledropError",
    "UsageError",
    "__version__",
    "load",
    "pull",
    "save",
    "styles",
]


def __getattr__(name: str) -> Any:
    """``StyleDrop`` and what else is of ``api``, imported when it is asked for: it takes torch along."""
    if name in ("StyleDrop", "Picture", "load", "pull", "save", "styles"):
        from styledrop_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
