"""Fetching base models from the hub into its ordinary cache.

Only what drawing and training need is fetched, and never a pickle. `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`
and `HF_HUB_OFFLINE` are huggingface_hub's to read; it is imported by the functions that need it, since pocket and a
folder do without.
"""

from __future__ import annotations

import difflib
import errno
import io
import json
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from styledrop_cli.base import hub
from styledrop_cli.base.cache import (
    cache_folder,
    index_of,
    object_in,
    placed,
    storage_of,
    text_encoder_of,
    wanted_from,
)
from styledrop_cli.base.layout import (
    FILES,
    INDEX,
    PRECISIONS,
    files_of,
    joined,
    known_family,
    lacks,
    model_folders,
    refuse_relative,
    site,
    sites,
)
from styledrop_cli.base.registry import ENCODERS, BaseSpec, lone_family
from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.io.files import file_hash
from styledrop_cli.progress import OnProgress, unheard

_COMMIT = re.compile("[0-9a-f]{40}")
_AGAIN = "the same command goes on where this one stopped"


def locate(model: str, on_progress: OnProgress = unheard, on_message: hub.OnMessage = lambda message: None) -> Path:
    """The local folder of `model`: what `hub.find` finds, or else what `fetch` brings; both say what they raise."""
    return hub.find(model) or fetch(model, on_progress=on_progress, on_message=on_message)


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


@dataclass(frozen=True)
class _Order:
    """Files of a repository, as they are at a commit, that a model needs; those that are weights come last."""

    repo: str
    commit: str
    files: list[_File]

    @property
    def snapshot(self) -> Path:
        """The folder that they come into."""
        return storage_of(self.repo) / "snapshots" / self.commit

    def is_here(self, file: _File) -> bool:
        """Whether a file needs no fetching; its sum may yet be wrong."""
        blob = storage_of(self.repo) / "blobs" / file.sha256 if file.sha256 else None
        return (self.snapshot / file.name).exists() or (blob is not None and blob.exists())


def fetch(
    model: str,
    *,
    precision: str = PRECISIONS[0],
    on_progress: OnProgress = unheard,
    on_message: hub.OnMessage = lambda message: None,
) -> Path:
    """Bring a model of the hub, by its name or as `owner/name`, into its cache; returns its folder in the snapshot.

    Parts that it has from other repositories come too; of a folder of one's own, they alone. What is there already is
    not fetched again, unless its sha256 is wrong. A file that was cut goes on where it stopped. A part that the
    repository has only in the other `precision` of weights is taken in that. Where the hub cannot be reached, a whole
    model of this precision that was fetched before is taken as it is. `on_progress` is told the share of all bytes that
    is there and "0.8 of 1.8 GB", `on_message` what was done otherwise than asked.

    Raises ModelError if there is no such repository, it may not be read, is no such model or has only pickles;
    StyledropError if there is no network, the hub refuses, the disk is too small, or a file came over damaged.
    """
    name, encoder = hub.split(model)
    repo = hub.repository(name)
    try:
        folder, orders = (
            _ordered(name, encoder, precision, on_message)
            if repo
            else _lacking(Path(name), encoder, precision, on_message)
        )
    except _UnreachableError as error:
        for folder in hub.folders_of(name) if repo else ():
            if precision in placed(folder, encoder).precisions:
                on_message(f"Warning: {error.message}; taking what was fetched before")
                return folder
        raise
    _refuse_small_disk(name, orders)
    meter = hub.Meter(sum(file.size for order in orders for file in order.files), on_progress)
    for order in orders:
        _bring_all(order, meter, on_message)
    meter.show()
    return folder


def _ordered(name: str, encoder: str | None, precision: str, on_message: hub.OnMessage) -> tuple[Path, list[_Order]]:
    """The folder that a model of the hub will have, and what is to be fetched for it, its own first."""
    row = hub.row_of_model(name)
    repo = row.repository
    commit, there = _asked(repo)
    folders = [row.folder] if row.folder else model_folders(there)
    if len(folders) > 1:
        hint = "Get the one that you want by other means, and name its folder."
        raise ModelError(f"{repo} holds several models, in {' and '.join(folders)}", hint)
    if not folders:
        raise lacks(repo, INDEX)
    inside = folders[0]
    refuse_relative(repo, has=lambda folder: any(one.startswith(f"{folder}/") for one in there))
    own, whole = sites(there.__contains__, inside), joined(inside, INDEX) in there
    if not row.name and (encoder or not whole):
        row = _described(repo, commit, there, joined(inside, INDEX) if whole else _config_in(own))
    text_encoder = text_encoder_of(name, row, encoder, "text_encoder" in own)
    beside = wanted_from(row, own, text_encoder, whole)
    if needed := [part for part, other in beside.items() if not other]:
        raise lacks(repo, joined(inside, f"{needed[0]}/{FILES[needed[0]][0]}"))
    names = [joined(inside, INDEX)] if whole else []
    for part, place in own.items():
        if part not in beside:
            names += files_of(repo, there, part, place, precision, on_message)
    mine = _Order(repo, commit, _weights_last(there[one] for one in names))
    return mine.snapshot / inside, [mine, *_borrowed(beside, precision, on_message)]


def _described(repo: str, commit: str, there: Collection[str], name: str) -> BaseSpec:
    """The family of a model without a row, by what its index or its transformer says: that file, a small one, comes."""
    from huggingface_hub import hf_hub_download

    if name not in there:
        raise lacks(repo, INDEX)
    with _talking(repo):
        said = object_in(Path(hf_hub_download(repo, name, revision=commit, cache_dir=cache_folder())))
    family = known_family(repo, said) if name.endswith(INDEX) else lone_family(said)
    if family is None:
        raise lacks(repo, INDEX)
    return family


def _config_in(own: Mapping[str, str]) -> str:
    """The description of a transformer without a pipeline, among the parts that a repository has."""
    return joined(own["transformer"], FILES["transformer"][0]) if "transformer" in own else INDEX


def _lacking(folder: Path, encoder: str | None, precision: str, on_message: hub.OnMessage) -> tuple[Path, list[_Order]]:
    """A folder of one's own, and what is to be fetched of the parts that it lacks."""
    return folder, _borrowed(placed(folder, encoder).missing, precision, on_message)


def _borrowed(beside: Mapping[str, str], precision: str, on_message: hub.OnMessage) -> list[_Order]:
    """What is to be fetched of parts (part: repository) that come from other repositories."""
    orders = []
    for repo in dict.fromkeys(repo for repo in beside.values() if repo):
        parts = [part for part, other in beside.items() if other == repo]
        commit, there = _asked(repo)
        names = []
        for part in parts:
            place = site(there.__contains__, part, alone=repo in ENCODERS.values())
            if place is None:
                raise lacks(repo, f"{part}/{FILES[part][0]}")
            names += files_of(repo, there, part, place, precision, on_message)
        on_message(f"also taking the {', '.join(parts)} of {repo}")
        orders.append(_Order(repo, commit, _weights_last(there[name] for name in names)))
    return orders


def _weights_last(files: Iterable[_File]) -> list[_File]:
    return sorted(files, key=lambda file: file.name.endswith(".safetensors"))


def _bring_all(order: _Order, meter: hub.Meter, on_message: hub.OnMessage) -> None:
    """Bring the files of an order into the cache."""
    from huggingface_hub import hf_hub_download

    repo, commit, cache = order.repo, order.commit, cache_folder()
    with _talking(repo):
        for file in order.files:
            meter.show()
            if file.sha256:
                _bring(repo, commit, file, file.sha256, meter, on_message)
            place = Path(hf_hub_download(repo, file.name, revision=commit, cache_dir=cache))
            if file.sha256 and not place.is_symlink():  # where no links can be made it was copied
                (storage_of(repo) / "blobs" / file.sha256).unlink(missing_ok=True)
            if place.name == INDEX:
                known_family(repo, index_of(place.parent))
            meter.done += file.size
        hf_hub_download(repo, order.files[0].name, cache_dir=cache)  # only now: `main` leads to what is whole


def _asked(repo: str) -> tuple[str, dict[str, _File]]:
    """The commit of a repository and its files, by their names, as the hub tells.

    The commit and the sums become names of files here, so they must be what they are called. Raises StyledropError
    where what the hub says makes no sense.
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
            and (not one.sha256 or hub.SHA256.fullmatch(one.sha256))
            for one in files.values()
        )
    except (LookupError, TypeError, AttributeError, RecursionError):  # what the library makes of an odd answer
        sound = None
    if not sound:
        raise StyledropError(
            f"what {constants.ENDPOINT} says of {repo} makes no sense", "if HF_ENDPOINT names a mirror, try another"
        )
    return str(about.sha), files


def _bring(repo: str, commit: str, file: _File, sha256: str, meter: hub.Meter, on_message: hub.OnMessage) -> None:
    """See to it that the cache holds a large file, and that its sum is right.

    huggingface_hub (looked at in 2.4.0) deletes a file that was not finished, so that the next run begins it anew, and
    compares no sums of what comes by HTTP. So it is given a finished file, under the name that it looks for.
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
                hub.delete(path)
        part = blob.with_name(f"{sha256}.incomplete")
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        url = hf_hub_url(repo, file.name, revision=commit)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        try:
            with _Growing(part, lambda length: meter.show(more=length)) as growing:
                http_get(url, growing, resume_size=growing.tell(), headers=headers, expected_size=file.size)
        except _foreign() as error:
            if _is_page(part):
                part.unlink()
                raise _a_page(repo) from error
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


def _a_page(repo: str) -> StyledropError:
    from huggingface_hub import constants

    return _UnreachableError(
        f"{repo} cannot be fetched: a web page comes instead of what {constants.ENDPOINT} should answer",
        "the network may want you to log in, or a proxy is in between: open a page in a browser, then try again",
    )


def _refuse_small_disk(name: str, orders: list[_Order]) -> None:
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
def _talking(repo: str) -> Iterator[None]:
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
        near = difflib.get_close_matches(repo, hub.PUBLISHED.values(), n=1)
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
