"""What is around a command: the folder that it is started in, and the environment."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from styledrop_cli.doctor.findings import NOTE, WRONG, Finding
from styledrop_cli.environment import LAUNCHED, is_on, whole_number
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import read_json, why_cut

TIMEOUTS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
# What decides how styledrop runs. Where it is read is in brackets if it is not here.
VARIABLES = (
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", *TIMEOUTS,  # (huggingface_hub)
    "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT",  # (OpenMP)
    "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK",  # (torch)
    *LAUNCHED, "PYTHONPATH", "TMPDIR", "NO_COLOR", "FORCE_COLOR", "STYLEDROP_TRACEBACK",
)  # fmt: skip
SECRET = re.compile("TOKEN|PROXY", re.IGNORECASE)  # what is set to it is never shown


def folder() -> Iterator[Finding]:
    """Whether commands can write where they are started, and what was begun there and not finished."""
    try:
        here = Path.cwd()
    except OSError:
        yield Finding("here", "folder", "the current folder is no longer there", WRONG, "cd to one that is")
        return
    free = shutil.disk_usage(here).free
    room = f"{here}, {free / 1e9:.1f} GB free"
    if problem := _unwritable(here):
        advice = "start from a folder of your own, or name another place with -o"
        yield Finding("here", "folder", f"{here} cannot be written to: {problem}", WRONG, advice)
    elif free < 50e6:
        yield Finding("here", "folder", room, WRONG, "make room: an adapter and its run folder take some 20 MB")
    else:
        yield Finding("here", "folder", room, *((NOTE, "the disk is nearly full") if free < 1e9 else ()))
    if problem := _unwritable(None):
        yield Finding(
            "here", "temporary files", f"cannot be written: {problem}", WRONG, "TMPDIR=FOLDER names another place"
        )
    yield from _runs(here)
    yield from _weights(here)


def _unwritable(folder: Path | None) -> str | None:
    """Why nothing can be written in a folder, or with None, where temporary files go; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"styledrop")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _weights(here: Path, shown: int = 6) -> Iterator[Finding]:
    """Adapters and other weights that are cut, here and one folder down."""
    found = (path for pattern in ("*.safetensors", "*/*.safetensors") for path in sorted(here.glob(pattern)))
    cut = [(path, why) for path in islice(found, 1000) if (why := why_cut(path))]
    for path, why in cut[:shown]:
        what = f"not whole: {why}"
        yield Finding("here", str(path.relative_to(here)), what, WRONG, "copy it here again, or make it anew")
    if len(cut) > shown:
        yield Finding("here", "other weights", f"{len(cut) - shown} more that are not whole", WRONG, "")


def _runs(here: Path, shown: int = 6) -> Iterator[Finding]:
    """Run folders that are not finished, here and one folder down."""
    found = (path for pattern in ("*/run.json", "*/*/run.json") for path in sorted(here.glob(pattern)))
    unfinished = 0
    for path in islice(found, 1000):
        name = str(path.parent.relative_to(here))
        try:
            finished = read_json(path)["finished"]
        except (OSError, ValueError, LookupError, TypeError):
            yield Finding("here", name, "its run.json is damaged", WRONG, "--fresh starts that command over")
            continue
        unfinished += not finished
        if not finished and unfinished <= shown:
            advice = "the command that began it goes on with it, and --fresh starts over"
            yield Finding("here", name, "begun and not finished", NOTE, advice)
    if unfinished > shown:
        yield Finding("here", "others", f"{unfinished - shown} more that are not finished", NOTE)


def environment() -> Iterator[Finding]:
    """The variables that are set, of those that matter; a secret's value is not shown."""
    for name in VARIABLES:
        value = os.environ.get(name)
        if value is None:
            continue
        if "://" in value and (address := urlsplit(value)).username is not None:
            value = value.replace(address.netloc, f"...@{address.netloc.rpartition('@')[2]}")
        shown = "set" if SECRET.search(name) else value if value else "set to nothing"
        remark = _remark(name, value)
        yield Finding("environment", name, shown, *((NOTE, remark) if remark else ()))


def _remark(name: str, value: str) -> str:
    """What a variable that is set to `value` does that may surprise; empty if nothing."""
    if name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") and not re.fullmatch(r"\s*[1-9]\d*(\s*,\s*[1-9]\d*)*\s*", value):
        return "no number of threads: it is ignored"
    if name == "OMP_WAIT_POLICY" and value.lower() == "active":
        return "threads that wait do not sleep: beside another busy program all is several times slower"
    if name == "GOMP_SPINCOUNT" and not (value.isdigit() and int(value) <= 100_000):
        return "threads that wait sleep late: beside another busy program all is several times slower"
    if name == "HF_HUB_OFFLINE" and is_on(name):
        return "published models that are not here are not fetched"
    if name in (*LAUNCHED, *TIMEOUTS):
        try:
            whole_number(name, 0)
        except UsageError:
            return "no whole number: unset it, for what reads it stops there"
    if name == "STYLEDROP_TRACEBACK" and is_on(name):
        return "errors are shown with all that led to them"
    return ""
