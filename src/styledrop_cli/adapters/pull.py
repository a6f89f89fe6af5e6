"""Adapters on the Hugging Face hub: which file of a repository is one, and bringing it here.

A file is known by its header, of which alone is asked before anything is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from styledrop_cli.adapters import library
from styledrop_cli.adapters.header import KEY, LARGEST_ADAPTER, load_adapter
from styledrop_cli.adapters.library import SUFFIX
from styledrop_cli.base import hub
from styledrop_cli.base.cache import files_in, snapshots, storage_of
from styledrop_cli.base.hub_files import (
    Errand,
    Order,
    RemoteFile,
    UnreachableError,
    asked,
    bring_all,
    metadata_of,
    refuse_small_disk,
)
from styledrop_cli.base.layout import INDEX
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.files import file_hash, read_metadata
from styledrop_cli.io.tensors import CONFIG, reading
from styledrop_cli.progress import OnProgress, unheard

MOST = 20  # safetensors files of a repository whose headers are looked at
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
OnMessage = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """The adapter in a repository: its file there, and what brings it; ``path`` is where it lies already, or None."""

    repo: str
    name: str
    commit: str
    sha256: str | None
    order: Order | None = None
    path: Path | None = None

    def fetch(self, on_progress: OnProgress = unheard, on_message: OnMessage = lambda message: None) -> Path:
        """The file in the hub's cache, once it is there; raises StyledropError where it cannot be brought whole."""
        if self.order is None:
            assert self.path is not None
            return self.path
        refuse_small_disk(self.repo, [self.order])
        meter = hub.Meter(self.order.files[0].size, on_progress)
        bring_all(self.order, meter, on_message)
        meter.show()
        return self.order.snapshot / self.name


def find_adapter(
    repo: str,
    revision: str | None = None,
    file: str | None = None,
    on_message: OnMessage = lambda message: None,
) -> Found:
    """The one adapter in a repository, or the ``file`` of it, as it is at a ``revision``: a branch, a tag, a commit.

    Where the hub cannot be reached, it is the one that was fetched before.

    Raises ModelError if there is no such repository, it may not be read, or holds no adapter, UsageError if it holds
    several, StyledropError if the hub cannot be reached.
    """
    at = f" --revision {revision}" if revision else ""
    errand = Errand(repo, f"there is no model {repo} on the hub, or it is private", f"styledrop pull {repo}{at}")
    try:
        commit, there = asked(errand, revision)
        said = _Repository(repo, {name: one.size for name, one in there.items() if _is_inside(name)}, file)
        name = said.adapter(lambda one: metadata_of(errand, commit, one))
    except UnreachableError as error:
        for snapshot in _cached(repo, revision):
            if found := _in_cache(repo, snapshot, file):
                on_message(f"Warning: {error.message}; taking what was fetched before")
                return found
        raise
    remote: RemoteFile = there[name]
    return Found(repo, name, commit, remote.sha256, Order(errand, commit, [remote], revision))


def keep(
    found: Found,
    name: str,
    overwrite: bool = False,
    on_progress: OnProgress = unheard,
    on_message: OnMessage = lambda message: None,
) -> Path:
    """Bring an adapter into the library as ``name``, once it is sure that it is one; returns its file there.

    Nothing is fetched if it is there already. UsageError if another style has that name, unless ``overwrite``,
    ModelError for what is no adapter, StyledropError where it cannot be brought or written.
    """
    target = library.file_of(name)
    if target.is_file() and found.sha256 == file_hash(target):
        on_message(f"{name} is this adapter already")
        return target
    library.refuse_taken(name, overwrite)
    path = found.fetch(on_progress, on_message)
    load_adapter(path)
    return library.save(path, name, overwrite)


def _is_inside(name: str) -> bool:
    """Whether the name of a file stays inside the folder that its repository gets here."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


@dataclass(frozen=True)
class _Repository:
    """The files of a repository, with their sizes, and the one that was asked for."""

    repo: str
    sizes: Mapping[str, int]
    file: str | None

    def adapter(self, describe: Callable[[str], tuple[Mapping[str, str], Collection[str]]]) -> str:
        """The name of the adapter; ``describe`` tells a file's metadata and the names of its tensors."""
        names = self._candidates()
        about: dict[str, tuple[Mapping[str, str], Collection[str]]] = {}
        for name in names:
            if self.sizes[name] <= LARGEST_ADAPTER:
                about[name] = describe(name)
        ours = [name for name, (metadata, _) in about.items() if KEY in metadata]
        if len(ours) > 1:
            raise UsageError(
                f"{self.repo} holds {len(ours)} adapters: {', '.join(ours)}", f"say which with --file {ours[0]}"
            )
        if not ours:
            raise self._none(any(".lora" in one or "lora_" in one for _, tensors in about.values() for one in tensors))
        return ours[0]

    def _candidates(self) -> list[str]:
        if self.file is not None:
            if self.file not in self.sizes:
                raise UsageError(
                    f"{self.repo} has no file {self.file}", f"it has {', '.join(sorted(self.sizes)[:5]) or 'none'}"
                )
            return [self.file]
        names = sorted(name for name in self.sizes if name.endswith(SUFFIX))
        if len(names) > MOST and not self._is_model:
            raise UsageError(
                f"{self.repo} holds {len(names)} safetensors files", f"say which is the adapter: --file {names[0]}"
            )
        return names[:MOST]

    @property
    def _is_model(self) -> bool:
        return INDEX in self.sizes or CONFIG in self.sizes

    def _none(self, lora: bool) -> ModelError:
        """What the repository is instead."""
        what = f"{self.repo} holds no adapter of styledrop"
        if lora:
            return ModelError(
                f"{what}, but a LoRA of another program",
                "Download it there; 'styledrop convert' makes an adapter of a LoRA of aMUSEd or Meissonic.",
            )
        if self._is_model:
            return ModelError(f"{what}: it is a model", f"If it is a base model, draw with it: --model {self.repo}.")
        if pickles := sorted(name for name in self.sizes if name.endswith(PICKLES)):
            return ModelError(f"{what}, but {pickles[0]}, which can run code of its own", "Only safetensors are read.")
        empty = not any(not name.startswith(".git") for name in self.sizes)
        return ModelError(f"{self.repo} is empty" if empty else what, "Adapters are pushed with 'styledrop push'.")


def _cached(repo: str, revision: str | None) -> list[Path]:
    """The snapshots of a repository in the cache: those of a revision, or all, that of `main` first."""
    storage = storage_of(repo)
    if revision is None:
        return snapshots(storage)
    if not _is_inside(revision):
        return []
    try:
        commit = (storage / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    return [one for one in snapshots(storage) if one.name == commit]


def _in_cache(repo: str, snapshot: Path, file: str | None) -> Found | None:
    """The adapter in a snapshot; None if it is not there."""

    def describe(name: str) -> tuple[Mapping[str, str], Collection[str]]:
        with reading(snapshot / name):
            return read_metadata(snapshot / name), ()

    try:
        name = _Repository(repo, dict.fromkeys(files_in(snapshot), 0), file).adapter(describe)
    except (ModelError, UsageError):
        return None
    return Found(repo, name, snapshot.name, file_hash(snapshot / name), path=snapshot / name)
