"""What every script here ends with."""

from __future__ import annotations

import sys
from collections.abc import Callable

from styledrop_cli.errors import StyledropError


def run_in_words(run: Callable[[], None]) -> None:
    """Run a script; an error of ours is said in words, and is its exit code."""
    try:
        run()
    except StyledropError as error:
        print(f"Error: {error.message}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
