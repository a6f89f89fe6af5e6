"""Where a base model comes from: the bundled one, a folder, or the hub's ordinary cache, into which it is fetched.

Published weights are a repository in the layout of aMUSEd (amused/amused-256): `model_index.json`, a tokenizer and
three parts, each with a config and its weights. Only what drawing and training need is fetched, and never a pickle.
`HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are huggingface_hub's to read.

huggingface_hub is imported by the functions that need it: pocket and a folder do without.
"""

from __future__ import annotations

import difflib
import errno
import io
import os
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from styledrop_cli.errors import ModelError, StyledropError, UsageError
from styledrop_cli.files import read_json, read_text

BUNDLED = "pocket"
PUBLISHED = {"amused-256": "amused/amused-256", "amused-512": "amused/amused-512"}
PRECISIONS = ("fp16", "fp32")  # the first is the smaller one and the default

INDEX, PIPELINE = "model_index.json", "AmusedPipeline"
NEEDED = (
    INDEX,
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "transformer/config.json",
    "vqvae/config.json",
)
WELCOME = ("tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json")
# Each part and what its weights are called.
WEIGHTS = {
    "text_encoder": "model",
    "transformer": "diffusion_pytorch_model",
    "vqvae": "diffusion_pytorch_model",
}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHA256 = re.compile("[0-9a-f]{64}")  # what the cache calls a large file; small ones have shorter names
COMMIT = re.compile("[0-9a-f]{40}")
SOME = "0" * 64  # a sum in place of none

REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
AGAIN = "the same command goes on where this one stopped"

OnProgress = Callable[[float, str], None]
OnMessage = Callable[[str], None]


def _unheard(*_: object) -> None:
    """For who does not listen."""


# ---- names ------------------------------------------------------------------------------------


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
        if REPOSITORY.fullmatch(model):
            return model
    hint = f"Use --model {BUNDLED}, {', '.join(PUBLISHED)}, a folder, or owner/name on the hub."
    if meant := difflib.get_close_matches(model.lower(), [BUNDLED, *PUBLISHED], n=1):
        hint = f"Did you mean {meant[0]}? {hint}"
    raise ModelError(f"{model} is not a model folder (no config.json in it)", hint)


def locate(model: str, on_progress: OnProgress = _unheard, on_message: OnMessage = _unheard) -> Path:
    """The local folder of `model`: what `find` finds, or else what `fetch` brings.

    Raises:
        ModelError: there is no such model, or it is not what it should be.
        StyledropError: it cannot be fetched.
    """
    if folder := find(model):
        return folder
    return fetch(repository(model) or model, on_progress=on_progress, on_message=on_message)


def find(model: str) -> Path | None:
    """The local folder of `model`, without a network; None if it is on the hub and not, or not wholly, in the cache.

    `pocket` is the bundled folder, an existing folder is itself. Of several whole snapshots in the cache it is that
    of `main`, or else the newest.

    Raises:
        ModelError: it is no model's name, no folder and no `owner/name`.
    """
    repo = repository(model)
    if repo is None:
        return Path(__file__).parent / BUNDLED if model == BUNDLED else Path(model)
    return next((folder for folder in _snapshots(_storage(repo)) if _is_whole(_names(folder))), None)


def name_of(folder: Path) -> str:
    """What a model's folder is called: a published name, or the repository's of a snapshot in the cache."""
    if folder.parent.name != "snapshots":
        return folder.resolve().name
    repo = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return next((name for name, known in PUBLISHED.items() if known == repo), repo)


# ---- what a model consists of ------------------------------------------------------------------


def _weights(names: Collection[str], part: str, precision: str) -> list[str]:
    """The files of `names` that hold a part's weights in one precision; none unless they are all among them."""
    stem = f"{part}/{WEIGHTS[part]}"
    infix = ".fp16" if precision == "fp16" else ""
    if (single := f"{stem}{infix}.safetensors") in names:
        return [single]
    indices = (f"{stem}.safetensors.index{infix}.json", f"{stem}{infix}.safetensors.index.json")
    index = next((name for name in indices if name in names), None)
    # Both places of the variant are in use: NAME.fp16-00001-of-00002.safetensors, and behind the numbers.
    shard = re.compile(rf"{re.escape(stem)}(\.fp16)?-\d+-of-(\d+)(\.fp16)?\.safetensors")
    found = {name: match for name in names if (match := shard.fullmatch(name))}
    shards = sorted(name for name, match in found.items() if bool(match[1] or match[3]) == bool(infix))
    return [index, *shards] if index and shards and len(shards) == int(found[shards[0]][2]) else []


def _is_whole(names: Collection[str]) -> bool:
    """Whether a model can be loaded that consists of these files."""
    return all(name in names for name in NEEDED) and bool(_precisions(names))


def _precisions(names: Collection[str]) -> tuple[str, ...]:
    """The precisions in which every part is there, or all that it takes if there is none of that kind."""
    parts = [[precision for precision in PRECISIONS if _weights(names, part, precision)] for part in WEIGHTS]
    if not all(parts):
        return ()
    return tuple(p for p in PRECISIONS if all(p in part for part in parts)) or PRECISIONS


def _wanted(repo: str, names: Collection[str], precision: str, on_message: OnMessage) -> list[str]:
    """The files of a repository that are to be fetched, the small ones first.

    Raises:
        ModelError: it is laid out otherwise, or has no weights that may be loaded.
    """
    if missing := [name for name in NEEDED if name not in names]:
        raise ModelError(
            f"{repo} is not laid out as aMUSEd is: it has no {missing[0]}",
            f"models that fit are {' and '.join(PUBLISHED.values())}, and what was made from them",
        )
    wanted = [*NEEDED, *(name for name in WELCOME if name in names)]
    for part in WEIGHTS:
        for one in sorted(PRECISIONS, key=lambda one: one != precision):
            if found := _weights(names, part, one):
                if one != precision:
                    on_message(f"{repo} has no {precision} weights of its {part}: taking those in {one}")
                wanted += found
                break
        else:
            pickles = [name for name in names if name.startswith(f"{part}/") and name.endswith(PICKLES)]
            if pickles:
                raise ModelError(
                    f"{repo} has the weights of its {part} as a pickle only ({pickles[0]}), which can run code of "
                    "its own: it is not fetched",
                    "ask its owner for safetensors: https://huggingface.co/spaces/safetensors/convert makes them",
                )
            raise ModelError(f"{repo} has no safetensors with the weights of its {part}", "fetch another model")
    return wanted


# ---- the cache --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cached:
    """A model in the hub's cache: `size` bytes of all that is there of it, whatever brought it.

    `folder` is the snapshot that is loaded, `commit` its name; `precisions` are those in which every part is there.
    """

    name: str
    repo: str
    folder: Path
    size: int
    precisions: tuple[str, ...]
    whole: bool

    @property
    def commit(self) -> str:
        """The commit of the repository that the folder shows."""
        return self.folder.name


def cached() -> list[Cached]:
    """The models in the layout of aMUSEd that lie in the hub's cache, wholly or in part, by name."""
    own_names = {repo: name for name, repo in PUBLISHED.items()}
    found = []
    for storage in cache_folder().glob("models--*--*"):
        folders = [folder for folder in _snapshots(storage) if _pipeline(folder) == PIPELINE]
        if folders:
            folder = next((one for one in folders if _is_whole(_names(one))), folders[0])
            names = _names(folder)
            repo = storage.name.removeprefix("models--").replace("--", "/")
            about = (folder, _size(storage), _precisions(names), _is_whole(names))
            found.append(Cached(own_names.get(repo, repo), repo, *about))
    return sorted(found, key=lambda one: one.name)


def remove(model: str) -> int:
    """Delete what the cache has of `model`; returns how many bytes that were.

    Raises:
        UsageError: it is bundled or a folder of one's own.
        ModelError: the cache has no such model.
    """
    from huggingface_hub import scan_cache_dir

    repo = repository(model)
    if repo is None:
        own = "comes with the program" if model == BUNDLED else "is a folder of your own, not the cache's"
        raise UsageError(f"{model} {own}", "only what was fetched is removed: styledrop models list shows it")
    if not any(one.repo == repo for one in cached()):
        raise ModelError(f"{model} is not in the cache", "styledrop models list shows what is")
    pieces = sum(path.stat().st_size for path in _storage(repo).glob("blobs/*.incomplete"))
    info = scan_cache_dir(cache_folder())
    # Revisions go by their commits alone, and a copied repository has those of its original.
    info = replace(info, repos=frozenset(one for one in info.repos if one.repo_id == repo))
    strategy = info.delete_revisions(*(revision.commit_hash for one in info.repos for revision in one.revisions))
    strategy.execute()
    return int(strategy.expected_freed_size) + pieces


def verify(folder: Path, on_progress: OnProgress = _unheard) -> list[str]:
    """What is wrong with the large files of a model in the cache, by their sha256, a sentence each.

    The cache calls a large file by its sha256. A folder elsewhere, and a cache in which no links can be made, has no
    sums to compare: nothing is found wrong with it.
    """
    from styledrop_cli.checkpoints import file_hash

    links = {path: _blob_of(path) for path in sorted(folder.rglob("*")) if path.is_symlink()}
    named = {path: blob for path, blob in links.items() if SHA256.fullmatch(blob.name)}
    problems = [f"{path.relative_to(folder)} is no longer there" for path in links if not path.exists()]
    sizes = {path: path.stat().st_size for path in named if path.exists()}
    meter = _Meter(sum(sizes.values()), on_progress)
    for path, size in sizes.items():
        meter.show(f"checking {path.parent.name}")
        if (found := file_hash(path)) != named[path].name:
            expected = f"{named[path].name[:12]}..."
            problems.append(f"{path.relative_to(folder)} is damaged: its sha256 is {found[:12]}..., not {expected}")
        meter.done += size
    if sizes:
        meter.over()
    return problems


def cache_folder() -> Path:
    """The folder of the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser().resolve()


def _storage(repo: str) -> Path:
    """The folder that the cache has, or would have, for a repository."""
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def _snapshots(storage: Path) -> list[Path]:
    """The snapshots of a repository, that of `main` first, then the newest."""
    folders = sorted(storage.glob("snapshots/*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    try:
        main = read_text(storage / "refs" / "main").strip()
    except (OSError, ValueError):
        main = ""
    return sorted(folders, key=lambda folder: folder.name != main)


def _names(folder: Path) -> set[str]:
    """The files below a folder, as a repository names them; a link that leads nowhere is none."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _pipeline(folder: Path) -> str | None:
    """What a model says that it is; None if it does not."""
    try:
        about = read_json(folder / INDEX)
    except (OSError, ValueError):
        return None
    return about.get("_class_name") if isinstance(about, dict) else None


def _size(storage: Path) -> int:
    """Bytes of the files of a repository in the cache; one that several snapshots show counts once."""
    return sum(path.stat().st_size for path in {path.resolve() for path in storage.rglob("*") if path.is_file()})


def _blob_of(link: Path) -> Path:
    """Where a link leads, one step."""
    return link.parent / os.readlink(link)


def _delete(path: Path) -> None:
    """Delete a file of the cache, with the links that lead to it from `path`; what lies elsewhere stays."""
    while path.is_symlink():
        link, path = path, _blob_of(path)
        link.unlink()
    if cache_folder() in path.resolve().parents:
        path.unlink(missing_ok=True)


# ---- fetching ---------------------------------------------------------------------------------


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


class _Meter:
    """How far many files are, by their bytes."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self.total, self.done, self._on_progress = total, 0, on_progress

    def show(self, note: str = "", more: int = 0) -> None:
        """Report what is done, and `more` bytes of what is not; `note` stands for the amount."""
        done = min(self.done + more, self.total)
        self._on_progress(done / self.total if self.total else 0.0, note or self._amount(done))

    def over(self) -> None:
        """Report that all of it is done."""
        self._on_progress(1.0, self._amount(self.total))

    def _amount(self, done: int) -> str:
        unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if self.total >= u), (1e3, "kB"))
        return f"{done / unit:.1f} of {self.total / unit:.1f} {name}"


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
    on_progress: OnProgress = _unheard,
    on_message: OnMessage = _unheard,
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
    from huggingface_hub import hf_hub_download

    try:
        commit, there = _asked(repo)
    except _UnreachableError as error:
        for folder in _snapshots(_storage(repo)):
            names = _names(folder)
            if _is_whole(names) and precision in _precisions(names):
                on_message(f"Warning: {error.message}; taking what was fetched before")
                return folder
        raise
    files = [there[name] for name in _wanted(repo, there, precision, on_message)]
    folder = _storage(repo) / "snapshots" / commit
    _refuse_small_disk(repo, [file for file in files if not (folder / file.name).exists()])
    meter = _Meter(sum(file.size for file in files), on_progress)
    with _hub(repo):
        for file in files:
            meter.show()
            if file.sha256:
                _bring(repo, commit, file, file.sha256, meter, on_message)
            place = Path(hf_hub_download(repo, file.name, revision=commit, cache_dir=cache_folder()))
            if file.sha256 and not place.is_symlink():  # where no links can be made it was copied
                (_storage(repo) / "blobs" / file.sha256).unlink(missing_ok=True)
            if file.name == INDEX and (kind := _pipeline(folder)) != PIPELINE:
                raise ModelError(f"{repo} is no {PIPELINE} but a {kind}", "fetch a model that was made from aMUSEd")
            meter.done += file.size
        hf_hub_download(repo, INDEX, cache_dir=cache_folder())  # only now: `main` leads to what is whole
    meter.over()
    return folder


def _asked(repo: str) -> tuple[str, dict[str, _File]]:
    """The commit of a repository and its files, by their names, as the hub tells.

    The commit and the sums become names of files here, so they must be what they are called.

    Raises:
        ModelError, StyledropError: as `_hub` does, and where what the hub says makes no sense.
    """
    from huggingface_hub import HfApi, constants

    try:
        with _hub(repo):
            about = HfApi().model_info(repo, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        files = {
            one.rfilename: _File(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None)
            for one in about.siblings or ()
        }
        sound = COMMIT.fullmatch(about.sha or "") and all(
            isinstance(one.name, str)
            and type(one.size) is int
            and one.size >= 0
            and SHA256.fullmatch(one.sha256 or SOME)
            for one in files.values()
        )
    except (LookupError, TypeError, AttributeError, RecursionError):  # what the library makes of an odd answer
        sound = None
    if not sound:
        raise StyledropError(
            f"what {constants.ENDPOINT} says of {repo} makes no sense", "if HF_ENDPOINT names a mirror, try another"
        )
    return str(about.sha), files


def _bring(repo: str, commit: str, file: _File, sha256: str, meter: _Meter, on_message: OnMessage) -> None:
    """See to it that the cache holds a large file, and that its sum is right.

    huggingface_hub itself, since version 2, begins a file anew that an earlier run left unfinished, and compares no
    sums. So it is given a finished one, under the name that it looks for.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    from styledrop_cli.checkpoints import file_hash

    storage = _storage(repo)
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
                _delete(path)
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
        meter.show(f"checking {file.part}", file.size)
        if (found := file_hash(part)) != sha256:
            part.unlink()
            raise StyledropError(
                f"{file.name} of {repo} came over damaged: its sha256 is {found[:12]}..., not {sha256[:12]}...",
                "it was deleted: the same command fetches it again",
            )
        part.replace(blob)


def _refuse_small_disk(repo: str, missing: list[_File]) -> None:
    """Refuse to begin what will not fit.

    Raises:
        StyledropError: the disk has less room than the files that are missing need.
    """
    begun = sum(path.stat().st_size for path in _storage(repo).glob("blobs/*.incomplete"))
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
def _hub(repo: str) -> Iterator[None]:
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
        return StyledropError(f"the hub answers {status} when asked for {repo}", f"try again later: {AGAIN}")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StyledropError(f"the disk of {cache_folder()} is full", f"make room there: {AGAIN}")
    words = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _UnreachableError(
        f"{repo} cannot be fetched from {constants.ENDPOINT}: {words[:100]}",
        f"check the network: {AGAIN}; HF_ENDPOINT names a mirror",
    )
