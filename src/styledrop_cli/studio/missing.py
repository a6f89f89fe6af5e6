"""What the studio says of a picture, a job or a style that is not there, or not there yet."""

from __future__ import annotations

from styledrop_cli.errors import UsageError


class Missing(UsageError):  # noqa: N818
    """There is nothing of the name that somebody asks for."""
