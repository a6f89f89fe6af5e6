"""The hub's ordinary cache: what is in it, whether it is sound, and how it is removed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from styledrop_cli.base.hub.layout import INDEX, PIPELINE, is_whole, precisions_of
from styledrop_cli.base.hub.names import PUBLISHED, repository
from styledrop_cli.base.hub.progress import Meter, OnProgress, unheard
from styledrop_cli.base.registry import BUNDLED, POCKET
from styledrop_cli.environment import expanded, read_by
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.files import file_hash, read_json, read_text, why_cut

SHA256 = re.compile("[0-9a-f]{64}")  # what the cache calls a large file; small ones have shorter names


def find(model: str) -> Path | None:
    """The local folder of `model`, without a network; None if it is on the hub and not, or not wholly, in the cache.

    `pocket` is the bundled folder, an existing folder is itself. Of several whole snapshots in the cache it is that
    of `main`, or else the newest.

    Raises:
        ModelError: it is no model's name, no folder and no `owner/name`.
    """
    repo = repository(model)
    if repo is None:
        return POCKET if model == BUNDLED else Path(model)
    return next((folder for folder in snapshots_in(storage_of(repo)) if is_whole(files_in(folder))), None)


def name_of(folder: Path) -> str:
    """What a model's folder is called: a published name, or the repository's of a snapshot in the cache."""
    if folder.parent.name != "snapshots":
        return folder.resolve().name
    repo = _repository_of(folder.parent.parent)
    return next((name for name, known in PUBLISHED.items() if known == repo), repo)


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
    found = []
    for storage in cache_folder().glob("models--*--*"):
        folders = [folder for folder in snapshots_in(storage) if pipeline_of(folder) == PIPELINE]
        if folders:
            folder = next((one for one in folders if is_whole(files_in(one))), folders[0])
            names = files_in(folder)
            about = (folder, _size(storage), precisions_of(names), is_whole(names))
            found.append(Cached(name_of(folder), _repository_of(storage), *about))
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
    pieces = sum(path.stat().st_size for path in storage_of(repo).glob("blobs/*.incomplete"))
    info = scan_cache_dir(cache_folder())
    # Revisions go by their commits alone, and a copied repository has those of its original.
    info = replace(info, repos=frozenset(one for one in info.repos if one.repo_id == repo))
    strategy = info.delete_revisions(*(revision.commit_hash for one in info.repos for revision in one.revisions))
    strategy.execute()
    return int(strategy.expected_freed_size) + pieces


def verify(folder: Path, on_progress: OnProgress = unheard) -> list[str]:
    """What is wrong with the large files of a model in the cache, by their sha256, a sentence each.

    The cache calls a large file by its sha256. A folder elsewhere, and a cache in which no links can be made, has no
    sums to compare: nothing is found wrong with it.
    """
    links = {path: _blob_of(path) for path in sorted(folder.rglob("*")) if path.is_symlink()}
    named = {path: blob for path, blob in links.items() if SHA256.fullmatch(blob.name)}
    problems = [f"{path.relative_to(folder)} is no longer there" for path in links if not path.exists()]
    sizes = {path: path.stat().st_size for path in named if path.exists()}
    meter = Meter(sum(sizes.values()), on_progress)
    for path, size in sizes.items():
        meter.show(f"checking {path.parent.name}")
        if (found := file_hash(path)) != named[path].name:
            expected = f"{named[path].name[:12]}..."
            problems.append(f"{path.relative_to(folder)} is damaged: its sha256 is {found[:12]}..., not {expected}")
        meter.done += size
    if sizes:
        meter.over()
    return problems


def cut_weights(folder: Path) -> list[str]:
    """Which of a model's weights are not whole, by the lengths that their own heads say, a sentence each.

    No more than the heads is read. A link that leads nowhere is one of them.
    """
    found = ((path, why_cut(path)) for path in sorted(folder.rglob("*.safetensors")))
    return [f"{path.relative_to(folder)} is not whole: {why}" for path, why in found if why]


def cache_folder() -> Path:
    """The folder of the hub's cache."""
    with read_by("huggingface_hub", "HF_"):
        from huggingface_hub import constants

    return Path(expanded(constants.HF_HUB_CACHE, "say where models are kept with HF_HOME=FOLDER")).resolve()


def storage_of(repo: str) -> Path:
    """The folder that the cache has, or would have, for a repository."""
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def _repository_of(storage: Path) -> str:
    """The repository that a folder of the cache is for."""
    return storage.name.removeprefix("models--").replace("--", "/")


def snapshots_in(storage: Path) -> list[Path]:
    """The snapshots of a repository, that of `main` first, then the newest."""
    folders = sorted(storage.glob("snapshots/*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    try:
        main = read_text(storage / "refs" / "main").strip()
    except (OSError, ValueError):
        main = ""
    return sorted(folders, key=lambda folder: folder.name != main)


def files_in(folder: Path) -> set[str]:
    """The files below a folder, as a repository names them; a link that leads nowhere is none."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def pipeline_of(folder: Path) -> str | None:
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


def delete(path: Path) -> None:
    """Delete a file of the cache, with the links that lead to it from `path`; what lies elsewhere stays."""
    while path.is_symlink():
        link, path = path, _blob_of(path)
        link.unlink()
    if cache_folder() in path.resolve().parents:
        path.unlink(missing_ok=True)
