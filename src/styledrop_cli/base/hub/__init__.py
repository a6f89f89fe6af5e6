"""Where a base model comes from: the bundled one, a folder, or the hub's ordinary cache, into which it is fetched.

Published weights are a repository in the layout of aMUSEd (amused/amused-256): `model_index.json`, a tokenizer and
three parts, each with a config and its weights. Only what drawing and training need is fetched, and never a pickle.
`HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are huggingface_hub's to read.

huggingface_hub is imported by the functions that need it: pocket and a folder do without.
"""

from __future__ import annotations

from pathlib import Path

from styledrop_cli.base.hub.cache import (
    Cached,
    cache_folder,
    cached,
    cut_weights,
    find,
    name_of,
    remove,
    verify,
)
from styledrop_cli.base.hub.fetching import fetch
from styledrop_cli.base.hub.names import PUBLISHED, repository
from styledrop_cli.base.hub.progress import OnMessage, OnProgress, unheard
from styledrop_cli.base.registry import BUNDLED, POCKET

__all__ = [
    "BUNDLED", "POCKET", "PUBLISHED", "Cached",
    "cache_folder", "cached", "cut_weights", "fetch", "find", "locate", "name_of", "remove", "repository", "verify",
]  # fmt: skip


def locate(model: str, on_progress: OnProgress = unheard, on_message: OnMessage = unheard) -> Path:
    """The local folder of `model`: what `find` finds, or else what `fetch` brings.

    Raises:
        ModelError: there is no such model, or it is not what it should be.
        StyledropError: it cannot be fetched.
    """
    if folder := find(model):
        return folder
    return fetch(repository(model) or model, on_progress=on_progress, on_message=on_message)
