"""Bringing a model from the hub into its cache: what was cut goes on, and every large file must have its sum."""

from __future__ import annotations

import difflib
import errno
import io
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from styledrop_cli.base.hub.cache import (
    SHA256,
    cache_folder,
    delete,
    files_in,
    pipeline_of,
    snapshots_in,
    storage_of,
)
from styledrop_cli.base.hub.layout import INDEX, PIPELINE, PRECISIONS, files_to_fetch, is_whole, precisions_of
from styledrop_cli.base.hub.names import PUBLISHED
from styledrop_cli.base.hub.progress import Meter, OnMessage, OnProgress, unheard
from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.io.files import file_hash

_COMMIT = re.compile("[0-9a-f]{40}")
_AGAIN = "the same command goes on where this one stopped"


class _UnreachableError(StyledropError):
    """There is no network, the hub does not answer, or it may not be asked."""


@dataclass(frozen=True)
class _File:
    """A file of a repository: its size in bytes, and its sha256 if it is large enough for the hub to have one."""

    name: str
    size: int
    sha256: str | None

    @property
    def part(self) -> str:
        """The part of the model that it belongs to."""
        return self.name.partition("/")[0]


class _Growing(io.BufferedWriter):
    """A file that is appended to, and that says how long it is whenever it grows."""

    def __init__(self, path: Path, on_length: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._on_length = on_length

    def write(self, data: Any) -> int:
        written = super().write(data)
        self._on_length(self.tell())
        return written


def fetch(
    repo: str,
    *,
    precision: str = PRECISIONS[0],
    on_progress: OnProgress = unheard,
    on_message: OnMessage = unheard,
) -> Path:
    """Bring a model of the hub into its ordinary cache; returns the snapshot's folder, named by the commit.

    What is there already is not fetched again, unless its sha256 is wrong. A file that was cut goes on where it
    stopped. A part that the repository has only in the other precision is taken in that. Where the hub cannot be
    reached, a whole model of this precision that was fetched before is taken as it is.

    Args:
        repo: `owner/name`.
        precision: `fp16` or `fp32`, of the weights' files.
        on_progress: told the share of all bytes that is there, in [0,1], and "0.8 of 1.8 GB".
        on_message: told what was done otherwise than asked; `Warning: ` goes before what may matter.

    Raises:
        ModelError: there is no such repository, it may not be read, is no such model or has only pickles.
        StyledropError: there is no network, the hub refuses, the disk is too small, or a file came over damaged.
    """
    cache = cache_folder()
    from huggingface_hub import hf_hub_download

    try:
        commit, there = _asked(repo)
    except _UnreachableError as error:
        for folder in snapshots_in(storage_of(repo)):
            names = files_in(folder)
            if is_whole(names) and precision in precisions_of(names):
                on_message(f"Warning: {error.message}; taking what was fetched before")
                return folder
        raise
    files = [there[name] for name in files_to_fetch(repo, there, precision, on_message)]
    folder = storage_of(repo) / "snapshots" / commit
    _refuse_small_disk(repo, [file for file in files if not (folder / file.name).exists()])
    meter = Meter(sum(file.size for file in files), on_progress)
    with _talking(repo):
        for file in files:
            meter.show()
            if file.sha256:
                _bring(repo, commit, file, file.sha256, meter, on_message)
            place = Path(hf_hub_download(repo, file.name, revision=commit, cache_dir=cache))
            if file.sha256 and not place.is_symlink():  # where no links can be made it was copied
                (storage_of(repo) / "blobs" / file.sha256).unlink(missing_ok=True)
            if file.name == INDEX and (kind := pipeline_of(folder)) != PIPELINE:
                raise ModelError(f"{repo} is no {PIPELINE} but a {kind}", "fetch a model that was made from aMUSEd")
            meter.done += file.size
        hf_hub_download(repo, INDEX, cache_dir=cache)  # only now: `main` leads to what is whole
    meter.over()
    return folder


def _asked(repo: str) -> tuple[str, dict[str, _File]]:
    """The commit of a repository and its files, by their names, as the hub tells.

    The commit and the sums become names of files here, so they must be what they are called.

    Raises:
        ModelError, StyledropError: as `_talking` does, and where what the hub says makes no sense.
    """
    from huggingface_hub import HfApi, constants

    try:
        with _talking(repo):
            about = HfApi().model_info(repo, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        files = {
            one.rfilename: _File(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None)
            for one in about.siblings or ()
        }
        sound = _COMMIT.fullmatch(about.sha or "") and all(
            isinstance(one.name, str)
            and type(one.size) is int
            and one.size >= 0
            and (not one.sha256 or SHA256.fullmatch(one.sha256))
            for one in files.values()
        )
    except (LookupError, TypeError, AttributeError, RecursionError):  # what the library makes of an odd answer
        sound = None
    if not sound:
        raise StyledropError(
            f"what {constants.ENDPOINT} says of {repo} makes no sense", "if HF_ENDPOINT names a mirror, try another"
        )
    return str(about.sha), files


def _bring(repo: str, commit: str, file: _File, sha256: str, meter: Meter, on_message: OnMessage) -> None:
    """See to it that the cache holds a large file, and that its sum is right.

    huggingface_hub itself, since version 2, begins a file anew that an earlier run left unfinished, and compares no
    sums. So it is given a finished one, under the name that it looks for.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    storage = storage_of(repo)
    blob = storage / "blobs" / sha256
    lock = cache_folder() / ".locks" / storage.name / f"{sha256}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        for path in (storage / "snapshots" / commit / file.name, blob):
            if path.exists():
                meter.show(f"checking {file.part}")
                if file_hash(path) == sha256:
                    return
                on_message(f"Warning: {file.name} in the cache is damaged: it is fetched again")
                delete(path)
        part = blob.with_name(f"{sha256}.incomplete")
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        url = hf_hub_url(repo, file.name, revision=commit)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        with _Growing(part, lambda length: meter.show(more=length)) as growing:
            while (begin := growing.tell()) < file.size:
                try:
                    http_get(url, growing, resume_size=begin, headers=headers, expected_size=file.size)
                except _foreign():
                    if growing.tell() <= begin:
                        raise  # else the connection was cut: it is taken up again for as long as something comes
                growing.flush()
                if _is_page(part, begin):
                    growing.truncate(begin)
                    raise _a_page(repo)
        meter.show(f"checking {file.part}", file.size)
        if (found := file_hash(part)) != sha256:
            part.unlink()
            raise StyledropError(
                f"{file.name} of {repo} came over damaged: its sha256 is {found[:12]}..., not {sha256[:12]}...",
                "it was deleted: the same command fetches it again",
            )
        part.replace(blob)


def _is_page(part: Path, begin: int) -> bool:
    """Whether what came from a place of a file on is a web page, which no weights are."""
    with part.open("rb") as file:
        file.seek(begin)
        return re.match(rb"\s*<(!doctype html|html|head)\b", file.read(1000), re.IGNORECASE) is not None


def _a_page(repo: str) -> StyledropError:
    from huggingface_hub import constants

    return _UnreachableError(
        f"{repo} cannot be fetched: a web page comes instead of what {constants.ENDPOINT} should answer",
        "the network may want you to log in, or a proxy is in between: open a page in a browser, then try again",
    )


def _refuse_small_disk(repo: str, missing: list[_File]) -> None:
    """Refuse to begin what will not fit.

    Raises:
        StyledropError: the disk has less room than the files that are missing need.
    """
    begun = sum(path.stat().st_size for path in storage_of(repo).glob("blobs/*.incomplete"))
    needed = sum(file.size for file in missing) - begun
    place = next(path for path in (cache_folder(), *cache_folder().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StyledropError(
            f"{repo} needs {_gigabytes(needed)}, and {_gigabytes(free)} are free in {place}",
            "make room there, or say with HF_HOME=FOLDER where there is more",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


@contextmanager
def _talking(repo: str) -> Iterator[None]:
    """Talk to the hub: without the library's own bars and remarks, and with errors for people.

    Raises:
        ModelError: there is no such repository, or it may not be read.
        StyledropError: anything else that goes wrong between here and there.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    shown, verbosity = not are_progress_bars_disabled(), logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity(logging.ERROR)
        disable_progress_bars()
        try:
            yield
        except _foreign() as error:
            if isinstance(error, OSError) and error.filename:
                raise  # a file or a folder here
            raise _explained(error, repo) from error
        finally:
            logging.set_verbosity(verbosity)
            if shown:
                enable_progress_bars()


def _foreign() -> tuple[type[Exception], ...]:
    """What may be raised on the way to the hub.

    Which library carries the requests has changed twice; its errors are those that the hub's own are made of.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, *HfHubHTTPError.__bases__)


def _explained(error: BaseException, repo: str) -> StyledropError:
    """What went wrong between here and the hub, and what to do about it."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return _UnreachableError(
            f"{repo} is not, or not wholly, in the cache, and HF_HUB_OFFLINE forbids to fetch it",
            f"say it once without HF_HUB_OFFLINE: styledrop models fetch {repo}",
        )
    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{repo} is gated: its owner lets in only who asked",
            f"accept the conditions at {constants.ENDPOINT}/{repo}, then set HF_TOKEN to a token of yours",
        )
    if isinstance(error, RepositoryNotFoundError):
        near = difflib.get_close_matches(repo, PUBLISHED.values(), n=1)
        return ModelError(
            f"there is no folder {repo} here, and no model of that name on the hub, or it is private",
            f"did you mean {near[0]}?" if near else "check the spelling; for a private one set HF_TOKEN to your token",
        )
    if status in (401, 403):
        how = "with the token that was sent" if get_token() else "without a token"
        return ModelError(f"{repo} may not be read {how}", "set HF_TOKEN to a token that may, or unset one that is old")
    if status:
        return StyledropError(f"the hub answers {status} when asked for {repo}", f"try again later: {_AGAIN}")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StyledropError(f"the disk of {cache_folder()} is full", f"make room there: {_AGAIN}")
    if isinstance(error, json.JSONDecodeError):
        return _a_page(repo)
    words = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _UnreachableError(
        f"{repo} cannot be fetched from {constants.ENDPOINT}: {words[:100]}",
        f"check the network: {_AGAIN}; HF_ENDPOINT names a mirror",
    )
