"""Standard output and standard error: who reads them may go away at any time, and work goes on without them."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class _Written(io.FileIO):
    """The raw end of a standard stream. Once nothing can be written to it, what follows goes nowhere.

    That nobody reads any more (`styledrop ... | head`) is no error. That a device is full is one, where it was to hold
    what was asked for; remarks in passing are only lost.
    """

    def __init__(self, number: int, *, asked_for: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._asked_for, self._terminal = asked_for, os.isatty(number)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # Whatever else writes there goes nowhere, too: libraries, processes begun from here, Python when it ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            # A pipe, a socket, or a terminal that was closed (EIO).
            gone = isinstance(error, ConnectionError) or self._terminal
            if self._asked_for and not gone:
                raise
            return len(data)


def _written_as_well_as_can_be(error: UnicodeError) -> tuple[str | bytes, int]:
    """A file's name that is no text goes out as it came in; for a letter that a terminal has not stands "?"."""
    with suppress(UnicodeError):
        return codecs.lookup_error("surrogateescape")(error)
    return codecs.lookup_error("replace")(error)


AS_WELL_AS_CAN_BE = "styledrop"
codecs.register_error(AS_WELL_AS_CAN_BE, _written_as_well_as_can_be)


def open_streams() -> None:
    """Make the standard streams such that no command ends because of its reader; those that were closed go nowhere."""
    for number in range(3):  # or the next file that is opened would be taken for a standard stream
        with suppress(OSError):
            if not _is_open(number):
                os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # an answer that is no text is a wrong one
    sys.stdout = _opened(sys.stdout, asked_for=True)
    sys.stderr = _opened(sys.stderr, asked_for=False)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _opened(stream: TextIO | None, *, asked_for: bool) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO:  # a console of Windows has letters of its own
        stream.reconfigure(errors=AS_WELL_AS_CAN_BE)
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Written(raw.fileno(), asked_for=asked_for)),
        encoding=stream.encoding,
        errors=AS_WELL_AS_CAN_BE,  # a terminal without UTF-8 is no reason to fail
        line_buffering=stream.line_buffering or stream.write_through,
    )
