"""Base models: the bundled one, one that is named, and those that were fetched."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from styledrop_cli.base import hub
from styledrop_cli.doctor.asking import BASE, Answer, in_words
from styledrop_cli.doctor.findings import NOTE, WRONG, Finding
from styledrop_cli.environment import is_on
from styledrop_cli.errors import StyledropError
from styledrop_cli.io.files import file_hash

SUMS = "SHA256SUMS"  # of the bundled weights; written by sha256sum


def bundled(answers: Mapping[str, Answer]) -> Iterator[Finding]:
    """Whether the bundled base is as it was shipped, and loads."""
    folder = hub.find(hub.BUNDLED)
    assert folder is not None
    again = "install styledrop again; in a checkout: git checkout src/styledrop_cli/pocket"
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    except OSError:
        yield Finding("models", hub.BUNDLED, f"there is no {folder / SUMS}", WRONG, again)
        return
    problems, size = [], 0
    for line in lines:
        wanted, _, name = line.partition("  ")
        try:
            found = file_hash(folder / name)
            size += (folder / name).stat().st_size
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror}")
            continue
        if found != wanted:
            problems.append(f"{name} is damaged: its sha256 is {found[:12]}..., not {wanted[:12]}...")
    said = answers.get(f"{BASE}{folder}", {})
    if not problems and "error" in said:
        problems.append(str(said["error"]))
    if problems:
        yield Finding("models", hub.BUNDLED, "; ".join(problems), WRONG, again)
    else:
        loaded = "whole, and it loads" if said else "whole; not loaded without torch"
        yield Finding("models", hub.BUNDLED, f"{loaded} ({size / 1e6:.0f} MB, bundled)")


def located(model: str) -> tuple[Path | None, list[Finding]]:
    """The folder of the model that was named; None where it is not here, with what is to be said of that."""
    try:
        folder = hub.find(model)
    except ImportError:  # huggingface_hub
        return None, [Finding("models", model, "not looked for without huggingface_hub", NOTE)]
    except StyledropError as error:
        return None, [Finding("models", model, error.message, WRONG, error.hint or "")]
    if folder:
        return folder, []
    fetch = f"styledrop models fetch {shlex.quote(model)}"
    if is_on("HF_HUB_OFFLINE"):
        return None, [Finding("models", model, "not here, and HF_HUB_OFFLINE forbids to fetch it", WRONG, fetch)]
    return None, [Finding("models", model, "not here yet: it is fetched when it is first named", NOTE, fetch)]


def named(model: str, folder: Path, answers: Mapping[str, Answer]) -> Iterator[Finding]:
    """Whether the model that was named loads."""
    said = answers.get(f"{BASE}{folder}")
    if said is None:
        yield Finding("models", model, f"{folder}; not loaded without torch", NOTE)
    elif "error" in said:
        check = f"styledrop models check {shlex.quote(model)}"
        yield Finding("models", model, str(said["error"]), WRONG, f"{check} says more, fetch brings a published one")
    else:
        sides = " and ".join(f"{side} px" for side in said["sizes"])
        yield Finding("models", model, f"it loads, and draws {sides}: {folder}")


def fetched(thorough: bool) -> Iterator[Finding]:
    """The published models in the hub's cache, whole or not, and how much room there is for more."""
    try:
        found, cache = hub.cached(), hub.cache_folder()
    except Exception as error:  # a broken huggingface_hub has its own row
        yield Finding("models", "fetched", f"not looked for: {in_words(error)}", NOTE)
        return
    for one in found:
        fetch = f"styledrop models fetch {shlex.quote(one.name)}"
        about = f"{one.size / 1e9:.2f} GB, {', '.join(one.precisions) or 'no weights'}: {one.folder}"
        if not one.whole:
            yield Finding("models", one.name, f"only in part, {about}", NOTE, f"{fetch} brings the rest")
        elif problems := hub.cut_weights(one.folder) or (hub.verify(one.folder) if thorough else []):
            yield Finding("models", one.name, "; ".join(problems), WRONG, f"{fetch} brings it anew")
        else:
            sums = ", its sums are right" if thorough else ""
            yield Finding("models", one.name, f"whole{sums}, {about}")
    there = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(there).free
    room = f"{cache}, {free / 1e9:.1f} GB free"
    if not os.access(there, os.W_OK):
        yield Finding("models", "cache", f"{room}, may not be written to", NOTE, "HF_HOME=FOLDER names another place")
    elif not found and free < 2e9:
        little = "a published model takes 1.8 GB: HF_HOME=FOLDER names another place"
        yield Finding("models", "cache", room, NOTE, little)
    else:
        yield Finding("models", "cache", room)
