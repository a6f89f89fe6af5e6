"""The names of base models: what `--model` may say."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from styledrop_cli.base import registry
from styledrop_cli.base.registry import BUNDLED
from styledrop_cli.errors import ModelError

PUBLISHED = {name: spec.repository for name, spec in registry.PUBLISHED.items()}
_REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)


def repository(model: str) -> str | None:
    """The repository that `model` names: a published name's, or itself if it reads `owner/name`; None if it is local.

    What exists here goes before what the hub may have by the same name.

    Raises:
        ModelError: it is neither; the hint says what it may have been meant for.
    """
    if model == BUNDLED or Path(model).is_dir():
        return None
    if not Path(model).exists():
        if model in PUBLISHED:
            return PUBLISHED[model]
        if _REPOSITORY.fullmatch(model):
            return model
    hint = f"Use --model {BUNDLED}, {', '.join(PUBLISHED)}, a folder, or owner/name on the hub."
    if meant := difflib.get_close_matches(model.lower(), [BUNDLED, *PUBLISHED], n=1):
        hint = f"Did you mean {meant[0]}? {hint}"
    raise ModelError(f"{model} is not a model folder (no config.json in it)", hint)
