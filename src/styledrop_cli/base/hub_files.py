"""Talking to the Hugging Face hub: what a repository holds, its files into the ordinary cache, and errors for people.

`HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are huggingface_hub's to read; it is imported
by the functions that need it, since pocket and a folder do without.
"""

from __future__ import annotations

import difflib
import errno
import io
import json
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from styledrop_cli.base import hub
from styledrop_cli.base.cache import cache_folder, storage_of
from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.io.files import file_hash

_COMMIT = re.compile("[0-9a-f]{40}")
_AGAIN = "the same command goes on where this one stopped"
MAIN = "main"  # the revision that is meant if none is named


@dataclass(frozen=True)
class Errand:
    """What is wanted of a repository, in the words of its errors.

    ``absent`` is what is wrong if there is no such repository, ``command`` brings it into the cache, ``known`` are
    names that it may have been meant for. What cannot be done is "``repo`` cannot be ``done`` https://huggingface.co",
    and what is not allowed "``repo`` may not be ``allowed``". ``token`` is what to do about that.
    """

    repo: str
    absent: str
    command: str
    known: Collection[str] = ()
    done: str = "fetched from"
    allowed: str = "read"
    token: str = "set HF_TOKEN to a token that may, or unset one that is old"


class UnreachableError(StyledropError):
    """There is no network, the hub does not answer, or it may not be asked."""


@dataclass(frozen=True)
class RemoteFile:
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


@dataclass(frozen=True)
class Order:
    """Files of a repository, as they are at a commit, that are wanted; those that are weights come last."""

    errand: Errand
    commit: str
    files: list[RemoteFile]
    revision: str | None = None

    @property
    def repo(self) -> str:
        """The repository."""
        return self.errand.repo

    @property
    def snapshot(self) -> Path:
        """The folder that they come into."""
        return storage_of(self.repo) / "snapshots" / self.commit

    def is_here(self, file: RemoteFile) -> bool:
        """Whether a file needs no fetching; its sum may yet be wrong."""
        blob = storage_of(self.repo) / "blobs" / file.sha256 if file.sha256 else None
        return (self.snapshot / file.name).exists() or (blob is not None and blob.exists())


def bring_all(
    order: Order, meter: hub.Meter, on_message: hub.OnMessage, on_file: Callable[[Path], None] = lambda path: None
) -> None:
    """Bring the files of an order into the cache; ``on_file`` is shown each as it comes, and may refuse it."""
    from huggingface_hub import hf_hub_download

    repo, commit, cache = order.repo, order.commit, cache_folder()
    with talking(order.errand):
        for file in order.files:
            meter.show()
            if file.sha256:
                _bring(order, file, file.sha256, meter, on_message)
            place = Path(hf_hub_download(repo, file.name, revision=commit, cache_dir=cache))
            if file.sha256 and not place.is_symlink():  # where no links can be made it was copied
                (storage_of(repo) / "blobs" / file.sha256).unlink(missing_ok=True)
            on_file(place)
            meter.done += file.size
        # Only now: `main` leads to what is whole.
        hf_hub_download(repo, order.files[0].name, revision=order.revision, cache_dir=cache)


def asked(errand: Errand, revision: str | None = None) -> tuple[str, dict[str, RemoteFile]]:
    """The commit of a repository and its files, by their names, as the hub tells; raises as ``talking`` does.

    The commit and the sums become names of files here, so they must be what they are called. Raises StyledropError
    where what the hub says makes no sense.
    """
    from huggingface_hub import HfApi, constants

    try:
        with talking(errand):
            about = HfApi().model_info(
                errand.repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        files = {
            one.rfilename: RemoteFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None)
            for one in about.siblings or ()
        }
        sound = _COMMIT.fullmatch(about.sha or "") and all(
            isinstance(one.name, str)
            and type(one.size) is int
            and one.size >= 0
            and (not one.sha256 or hub.SHA256.fullmatch(one.sha256))
            for one in files.values()
        )
    except (LookupError, TypeError, AttributeError, RecursionError):  # what the library makes of an odd answer
        sound = None
    if not sound:
        raise StyledropError(
            f"what {constants.ENDPOINT} says of {errand.repo} makes no sense",
            "if HF_ENDPOINT names a mirror, try another",
        )
    return str(about.sha), files


def metadata_of(errand: Errand, commit: str, name: str) -> tuple[dict[str, str], list[str]]:
    """The metadata of a safetensors file on the hub, and what its tensors are called; nothing more of it is fetched.

    Raises ModelError for what is no such file, and as ``talking`` does.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import SafetensorsParsingError

    try:
        with talking(errand):
            found = HfApi().parse_safetensors_file_metadata(errand.repo, name, revision=commit)
        metadata = {key: value for key, value in (found.metadata or {}).items() if isinstance(value, str)}
        return metadata, [*found.tensors]
    except (SafetensorsParsingError, LookupError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise ModelError(f"{name} of {errand.repo} is no safetensors file", "Its owner has to push it anew.") from error


def _bring(order: Order, file: RemoteFile, sha256: str, meter: hub.Meter, on_message: hub.OnMessage) -> None:
    """See to it that the cache holds a large file, and that its sum is right.

    huggingface_hub (looked at in 2.4.0) deletes a file that was not finished, so that the next run begins it anew, and
    compares no sums of what comes by HTTP. So it is given a finished file, under the name that it looks for.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    repo, commit, storage = order.repo, order.commit, storage_of(order.repo)
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
                hub.delete(path)
        part = blob.with_name(f"{sha256}.incomplete")
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        url = hf_hub_url(repo, file.name, revision=commit)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        try:
            with _Growing(part, lambda length: meter.show(more=length)) as growing:
                http_get(url, growing, resume_size=growing.tell(), headers=headers, expected_size=file.size)
        except foreign() as error:
            if _is_page(part):
                part.unlink()
                raise _a_page(order.errand) from error
            raise
        meter.show(f"checking {file.part}", file.size)
        if (found := file_hash(part)) != sha256:
            part.unlink()
            raise StyledropError(
                f"{file.name} of {repo} came over damaged: its sha256 is {found[:12]}..., not {sha256[:12]}...",
                "it was deleted: the same command fetches it again",
            )
        part.replace(blob)


def _is_page(part: Path) -> bool:
    """Whether what came is a web page instead of weights."""
    with part.open("rb") as file:
        return re.match(rb"\s*<(!doctype html|html|head)\b", file.read(1000), re.IGNORECASE) is not None


def _a_page(errand: Errand) -> StyledropError:
    from huggingface_hub import constants

    done = errand.done.partition(" ")[0]
    return UnreachableError(
        f"{errand.repo} cannot be {done}: a web page comes instead of what {constants.ENDPOINT} should answer",
        "the network may want you to log in, or a proxy is in between: open a page in a browser, then try again",
    )


def refuse_small_disk(name: str, orders: list[Order]) -> None:
    """Raise StyledropError if the disk has less room than the files that are missing need."""
    needed = sum(file.size for order in orders for file in order.files if not order.is_here(file))
    begun = (part for order in orders for part in storage_of(order.repo).glob("blobs/*.incomplete"))
    needed -= sum(part.stat().st_size for part in begun)
    place = next(path for path in (cache_folder(), *cache_folder().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        unit, unit_name = hub.unit_of(needed)
        others = f", with its parts from {' and '.join(order.repo for order in orders[1:])}," if orders[1:] else ""
        raise StyledropError(
            f"{name}{others} needs {needed / unit:.1f} {unit_name}, and {free / unit:.1f} {unit_name} are free in "
            f"{place}",
            "make room there, or say with HF_HOME=FOLDER where there is more",
        )


@contextmanager
def talking(errand: Errand) -> Iterator[None]:
    """Talk to the hub without the library's own bars and remarks, and with errors for people.

    Raises ModelError if there is no such repository or it may not be read, StyledropError for anything else.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    shown, verbosity = not are_progress_bars_disabled(), logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity(logging.ERROR)
        disable_progress_bars()
        try:
            yield
        except foreign() as error:
            if isinstance(error, OSError) and error.filename:
                raise  # a file or a folder here
            raise _explained(error, errand) from error
        finally:
            logging.set_verbosity(verbosity)
            if shown:
                enable_progress_bars()


def foreign() -> tuple[type[Exception], ...]:
    """What may be raised on the way to the hub.

    Which library carries the requests has changed twice; its errors are those that the hub's own are made of.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, *HfHubHTTPError.__bases__)


def _explained(error: BaseException, errand: Errand) -> StyledropError:
    """What went wrong between here and the hub, and what to do about it."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo = errand.repo
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return UnreachableError(
            f"{repo} is not, or not wholly, in the cache, and HF_HUB_OFFLINE forbids to fetch it",
            f"say it once without HF_HUB_OFFLINE: {errand.command}",
        )
    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{repo} is gated: its owner lets in only who asked",
            f"accept the conditions at {constants.ENDPOINT}/{repo}, then set HF_TOKEN to a token of yours",
        )
    if isinstance(error, RepositoryNotFoundError):
        near = difflib.get_close_matches(repo, errand.known, n=1)
        return ModelError(
            errand.absent,
            f"did you mean {near[0]}?" if near else "check the spelling; for a private one set HF_TOKEN to your token",
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"{repo} has no such revision", f"see its branches, tags and commits at {_commits(repo)}")
    if status in (401, 403):
        how = "with the token that was sent" if get_token() else "without a token"
        return ModelError(f"{repo} may not be {errand.allowed} {how}", errand.token)
    if status:
        said = " ".join(str(getattr(error, "server_message", None) or "").split())[:200]
        return StyledropError(
            f"the hub answers {status} when asked for {repo}{f': {said}' * bool(said)}", f"try again later: {_AGAIN}"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StyledropError(f"the disk of {cache_folder()} is full", f"make room there: {_AGAIN}")
    if isinstance(error, json.JSONDecodeError):
        return _a_page(errand)
    words = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UnreachableError(
        f"{repo} cannot be {errand.done} {constants.ENDPOINT}: {words[:100]}",
        f"check the network: {_AGAIN}; HF_ENDPOINT names a mirror",
    )


def _commits(repo: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}/commits/{MAIN}"
