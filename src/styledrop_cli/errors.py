"""The one family of errors this project raises on purpose.

    StyledropError          something failed                             exit code 1
    ├── UsageError          an option, a value or a path is wrong        exit code 2
    │   └── DeviceError     the device asked for is not here
    ├── PictureError        a picture cannot be read
    └── ModelError          a model folder or an adapter file is wrong or broken

Each carries what happened (`message`) and what to do about it (`hint`). The library only raises;
`cli/console.py` is the one place that prints them and turns them into an exit code.
"""

from __future__ import annotations

INTERRUPTED = 130  # the exit code that shells expect of a program stopped by Ctrl-C


class StyledropError(Exception):
    """Something went wrong that a person can understand; `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(StyledropError):
    """A wrong option or value, or an output that is already there."""

    exit_code = 2


class DeviceError(UsageError):
    """The device that was asked for does not exist on this machine."""


class PictureError(StyledropError):
    """A picture is missing, unreadable or cut short."""


class ModelError(StyledropError):
    """A model folder or an adapter file is missing, broken or does not fit."""
