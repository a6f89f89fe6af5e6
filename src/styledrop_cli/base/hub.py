"""Which base models are here: the bundled one, a folder, or what lies in the hub's ordinary cache.

Nothing here needs a network; `download` brings what is missing.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from styledrop_cli.base import registry
from styledrop_cli.base.cache import (
    address,
    cache_folder,
    companion,
    family_at,
    is_lone,
    models_in,
    name_of,
    placed,
    repository_of,
    snapshots,
    storage_of,
    text_encoder_of,
)
from styledrop_cli.base.layout import (
    FILES,
    refuse_relative,
)
from styledrop_cli.base.registry import BUNDLED, LENDERS, POCKET, BaseSpec
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.files import file_hash, why_cut
from styledrop_cli.progress import OnProgress, unheard

OnMessage = Callable[[str], None]
PUBLISHED = {name: spec.repository for name, spec in registry.PUBLISHED.items()}
REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
SHA256 = re.compile("[0-9a-f]{64}")


def split(model: str) -> tuple[str, str | None]:
    """What `--model` says: a model and, behind a plus sign, the text encoder to read with, or None."""
    name, plus, encoder = model.rpartition("+")
    return (name, encoder) if plus and not Path(model).exists() else (model, None)


def repository(model: str) -> str | None:
    """The repository that `model` names: a published name's, or itself if it reads `owner/name`; None if it is local.

    What exists here goes before what the hub may have by the same name. Raises ModelError if it is neither, and the
    hint says what it may have been meant for; and if several models are in that repository, or one that cannot be run.
    """
    if model == BUNDLED or Path(model).is_dir():
        return None
    if not Path(model).exists():
        if model in PUBLISHED:
            return PUBLISHED[model]
        if REPOSITORY.fullmatch(model):
            refuse_relative(model, model)
            if several := [row.name for row in registry.PUBLISHED.values() if row.repository == model and row.folder]:
                raise ModelError(f"{model} holds several models", f"Say which: --model {' or '.join(several)}.")
            return model
    hint = f"Use --model {BUNDLED}, {', '.join(PUBLISHED)}, a folder, or owner/name on the hub."
    if meant := difflib.get_close_matches(model.lower(), [BUNDLED, *PUBLISHED], n=1):
        hint = f"Did you mean {meant[0]}? {hint}"
    raise ModelError(f"{model} is not a model folder (no config.json in it)", hint)


def find(model: str) -> Path | None:
    """The local folder of `model`, without a network; None if it is on the hub and not, or not wholly, in the cache.

    Wholly is with the parts that come from other repositories, which a folder of one's own may need too. Of several
    whole snapshots in the cache it is that of `main`, or else the newest. Raises ModelError as `repository`, and for a
    text encoder that the model cannot be read with.
    """
    name, encoder = split(model)
    if repository(name):
        return next((folder for folder in folders_of(name) if placed(folder, encoder).precisions), None)
    if name == BUNDLED:
        if encoder:
            text_encoder_of(BUNDLED, registry.OURS, encoder, own=True)
        return POCKET
    folder = Path(name)
    return None if (encoder or is_lone(folder)) and any(placed(folder, encoder).missing.values()) else folder


def as_read(folder: Path, model: str) -> str:
    """What names the model in a `folder` with the text encoder that `model` asks for."""
    encoder = split(model)[1]
    return f"{folder}+{encoder}" if encoder else str(folder)


def folders_of(name: str) -> Iterator[Path]:
    """The folders in the cache of a model of the hub, whole or not, that of `main` first."""
    row = row_of_model(name)
    models = models_in(storage_of(row.repository))
    if row.folder or len(models) == 1:
        yield from (folder for folders in models for folder in folders if row.folder in ("", folder.name))


def row_of_model(name: str) -> BaseSpec:
    """The row of a model of the hub; of one without, a row with its repository alone."""
    repo = repository(name) or name
    return registry.PUBLISHED.get(name) or registry.row_at(repo) or BaseSpec(repository=repo)


@dataclass(frozen=True)
class Cached:
    """A model in the hub's cache: `size` bytes of all that is there of it, whatever brought it.

    `folder` is the snapshot that is loaded; `precisions` are those in which every part is there. `beside` are the
    repositories of the parts that it has from others, which are entries of their own. Of these some are no models, or
    not here as such: `lent` are the parts that others can have.
    """

    name: str
    repo: str
    folder: Path
    size: int
    precisions: tuple[str, ...]
    beside: Mapping[str, str] = field(default_factory=dict)
    text_encoder: str = ""
    lent: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it can be loaded."""
        return bool(self.precisions)

    @property
    def state(self) -> str:
        """How much of it is there, in words."""
        return "fetched" if self.whole else f"{', '.join(self.lent)} for others" if self.lent else "in part"


def cached() -> list[Cached]:
    """The models in the cache that can be run here, and what lends them parts, whole or not, by name."""
    found = []
    for storage in cache_folder().glob("models--*--*"):
        repo, models = repository_of(storage), models_in(storage)
        known = [folders for folders in models if family_at(folders[0])]
        for folders in known:
            each = [(folder, placed(folder)) for folder in folders]
            folder, one = next((pair for pair in each if pair[1].precisions), each[0])
            size = _size([storage] if len(known) == 1 else folders)
            about_it = (size, one.precisions, one.beside, one.text_encoder)
            found.append(Cached(name_of(folder), repo, folder, *about_it))
        if not known and repo in LENDERS and (there := snapshots(storage)):
            lent = tuple(part for part in FILES if companion(repo, part))
            found.append(Cached(name_of(there[0]), repo, there[0], _size([storage]), (), lent=lent))
    return sorted(found, key=lambda one: one.name)


def _size(folders: Iterable[Path]) -> int:
    """The bytes of what lies in folders of the cache, each file once: snapshots are links where those can be made."""
    files = (path.resolve() for folder in folders for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in set(files))


def remove(model: str) -> int:
    """Delete what the cache has of `model`; returns how many bytes that were.

    Parts that it has from other repositories stay, as others may need them. Raises UsageError if it is bundled or a
    folder of one's own, ModelError if the cache has no such model.
    """
    found = in_cache(model)
    if found is None:
        raise ModelError(f"{model} is not in the cache", "styledrop models list shows what is")
    storage = storage_of(found.repo)
    if sum(one.repo == found.repo for one in cached()) == 1:
        shutil.rmtree(storage)
        return found.size
    folders = list(folders_of(found.name))
    theirs = {path.resolve() for folder in folders for path in folder.rglob("*") if path.is_file()}
    for folder in folders:
        shutil.rmtree(folder)
    # What is the same in two models, such as a description, lies there once.
    others = {path.resolve() for path in storage.glob("snapshots/**/*") if path.is_file()}
    for path in theirs - others:
        if storage in path.parents:
            path.unlink(missing_ok=True)
    return found.size


def in_cache(model: str) -> Cached | None:
    """What the cache has of `model`; raises UsageError if it is bundled or a folder of one's own."""
    name, _ = split(model)
    if repository(name) is None:
        own = "comes with the program" if name == BUNDLED else "is a folder of your own, not the cache's"
        raise UsageError(f"{name} {own}", "only what was fetched is removed: styledrop models list shows it")
    row = row_of_model(name)
    return next((one for one in cached() if one.name == (row.name or row.repository)), None)


def verify(folder: Path, on_progress: OnProgress = unheard, beside: Iterable[Path] = ()) -> list[str]:
    """What is wrong with the large files of a model in the cache, by their sha256, a sentence each.

    The cache calls a large file by its sha256, so no network is needed. A folder elsewhere, and a cache in which no
    links can be made, has no sums to compare: nothing is found wrong with it. `beside` are the folders of the parts
    that it has from other repositories.
    """
    links = {path: folder for path in sorted(folder.rglob("*")) if path.is_symlink()}
    for place in beside:
        top = place if (address(place) or ("", place.name))[1] == "" else place.parent
        links |= {path: top for path in sorted(place.glob("*")) if path.is_symlink()}
    problems = [f"{path.relative_to(top)} is no longer there" for path, top in links.items() if not path.exists()]
    sums = {path: _blob_of(path).name for path in links if path.exists() and SHA256.fullmatch(_blob_of(path).name)}
    meter = Meter(sum(path.stat().st_size for path in sums), on_progress)
    for path, wanted in sums.items():
        meter.show(f"checking {path.parent.name}")
        if (found := file_hash(path)) != wanted:
            problems.append(
                f"{path.relative_to(links[path])} is damaged: its sha256 is {found[:12]}..., not {wanted[:12]}..."
            )
        meter.done += path.stat().st_size
    if sums:
        meter.show()
    return problems


def cut_weights(folder: Path) -> list[str]:
    """Which of a model's weights are not whole, by the lengths that their own heads say, a sentence each.

    No more than the heads is read. A link that leads nowhere is one of them.
    """
    found = ((path, why_cut(path)) for path in sorted(folder.rglob("*.safetensors")))
    return [f"{path.relative_to(folder)} is not whole: {why}" for path, why in found if why]


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


class Meter:
    """How far many files are, by their bytes."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self.total, self.done, self._on_progress = total, 0, on_progress

    def show(self, note: str = "", more: int = 0) -> None:
        """Report what is done, and `more` bytes of what is not; `note` stands for the amount."""
        done = min(self.done + more, self.total)
        unit, name = unit_of(self.total)
        share = done / self.total if self.total else 1.0
        self._on_progress(share, note or f"{done / unit:.1f} of {self.total / unit:.1f} {name}")


def unit_of(size: int) -> tuple[float, str]:
    """In what a number of bytes is said."""
    return next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB"))
