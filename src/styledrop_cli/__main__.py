"""`python -m styledrop_cli` is `styledrop`."""

from __future__ import annotations

from styledrop_cli.cli.app import main

if __name__ == "__main__":
    main()
