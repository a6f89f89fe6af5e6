"""The hub's cache, and where the parts of a published model lie: in its folder, or in that of another repository.

A model is named by a folder: a snapshot in the cache, a folder of one's own, or one in either where there are several.
Nothing here needs a network or torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from styledrop_cli.base.layout import (
    FILES,
    INDEX,
    holds,
    model_folders,
    precisions_of,
    site,
    sites,
)
from styledrop_cli.base.registry import ENCODERS, OURS, OWN_TEXT, BaseSpec, family_of, lone_family, row_at
from styledrop_cli.environment import expanded, read_by
from styledrop_cli.errors import ModelError
from styledrop_cli.io.files import read_json, read_text


def cache_folder() -> Path:
    """The folder of the hub's cache."""
    with read_by("huggingface_hub", "HF_"):
        from huggingface_hub import constants

    return Path(expanded(constants.HF_HUB_CACHE, "say where models are kept with HF_HOME=FOLDER")).resolve()


def storage_of(repo: str) -> Path:
    """The folder that the cache has, or would have, for a repository."""
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def repository_of(storage: Path) -> str:
    """The repository that a folder of the cache is for."""
    return storage.name.removeprefix("models--").replace("--", "/")


def snapshots(storage: Path) -> list[Path]:
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


def object_in(path: Path) -> dict[str, Any]:
    """What a file of JSON says; nothing if it is no object, or cannot be read."""
    try:
        about = read_json(path)
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def index_of(folder: Path) -> dict[str, Any]:
    """What a model says that it is; nothing if it does not."""
    return object_in(folder / INDEX)


def address(folder: Path) -> tuple[str, str] | None:
    """The repository of a folder in the cache, and which of its folders it is; None for any other."""
    for snapshot, inside in ((folder, ""), (folder.parent, folder.name)):
        if snapshot.parent.name == "snapshots":
            return repository_of(snapshot.parent.parent), inside
    return None


def name_of(folder: Path) -> str:
    """What a model's folder is called: a published name, or the repository's of a snapshot in the cache."""
    found = address(folder)
    if found is None:
        return folder.resolve().name
    row = row_at(*found)
    return row.name if row else found[0]


def models_in(storage: Path) -> list[list[Path]]:
    """The folders of each model of a repository, one a snapshot, that of `main` first; most repositories have one."""
    by_place: dict[str, list[Path]] = {}
    for snapshot in snapshots(storage):
        for place in model_folders(files_in(snapshot)):
            by_place.setdefault(place, []).append(snapshot / place)
    return list(by_place.values())


# ---- a model's folder ----


def transformer_in(folder: Path) -> Path:
    """Where a model's transformer says what it is: in a folder of its own or, where it is alone, directly."""
    name = FILES["transformer"][0]
    own = folder / "transformer" / name
    return own if own.is_file() else folder / name


def root_of(folder: Path) -> tuple[Path, str]:
    """The folder in which a model's parts lie, and where in it they lie first: others may share those beside it."""
    beside = not (folder / INDEX).is_file() and transformer_in(folder).parent != folder
    return (folder.parent, folder.name) if beside else (folder, "")


def is_lone(folder: Path) -> bool:
    """Whether a folder holds a transformer without a pipeline around it, in a folder of its own or directly."""
    if (folder / INDEX).is_file():
        return False
    path = transformer_in(folder)
    return path.parent != folder or "_class_name" in object_in(path)


def family_at(folder: Path) -> BaseSpec | None:
    """The row of a folder in the cache, or else the family that it says it is of; None if it is of none."""
    if (found := address(folder)) and (row := row_at(*found)):
        return row
    if not is_lone(folder):
        return family_of(index_of(folder))
    return lone_family(object_in(transformer_in(folder)))


@dataclass(frozen=True)
class Placed:
    """Where the parts of a model lie, by their names.

    ``found`` has the folders, ``beside`` the repositories of those that are from another, ``missing`` the repositories
    of those that are not here ("": it should be in the model's own folder). ``text_encoder`` is the name of the one
    that it reads with, "" where there is no choice.
    """

    found: Mapping[str, Path]
    beside: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    text_encoder: str = ""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those in which every part is there; none if a part is missing, or not whole."""
        held = {part: [one.name for one in place.iterdir() if one.is_file()] for part, place in self.found.items()}
        return () if self.missing else precisions_of(held)


def text_encoder_of(source: str, spec: BaseSpec, asked: str | None, own: bool) -> str:
    """The name of the text encoder to read with; "" where a base has no choice.

    It is what is ``asked`` for, else what suits a base that has a row, or that has none of its ``own``. Raises
    ModelError for one that the base cannot read with.
    """
    if asked and asked not in (OWN_TEXT, *spec.encoders):
        known = " or ".join(f"+{name}" for name in (OWN_TEXT, *spec.encoders))
        hint = f"Leave +{asked} out{f', or say {known}' if spec.encoders else ''}."
        raise ModelError(f"{source} has no text encoder called {asked}", hint)
    return "" if not spec.encoders else asked or (spec.text_encoder if spec.name or not own else OWN_TEXT)


def wanted_from(spec: BaseSpec, own: Mapping[str, object], text_encoder: str, whole: bool) -> dict[str, str]:
    """The repositories of the parts that do not come from a model's own folder; "" for one that should.

    ``own`` are the parts that it has, and ``whole`` says that it has an index, and so must have them all.
    """
    taken = {part: "" if whole else spec.companions.get(part, "") for part in FILES if part not in own}
    if text_encoder in spec.encoders:
        taken["text_encoder"] = spec.encoders[text_encoder]
    return taken


def placed(folder: Path, asked: str | None = None) -> Placed:
    """Where the parts of the model in ``folder`` lie; ``asked`` names the text encoder that it is to be read with.

    Raises ModelError for a text encoder that it cannot be read with.
    """
    spec = family_at(folder) or OURS
    root, inside = root_of(folder)
    own = {part: root / place for part, place in sites(lambda name: (root / name).is_file(), inside).items()}
    whole = (folder / INDEX).is_file()
    text_encoder = text_encoder_of(name_of(folder), spec, asked, "text_encoder" in own)
    beside = wanted_from(spec, own, text_encoder, whole)
    found = {part: place for part, place in own.items() if part not in beside}
    missing = {}
    for part, repo in beside.items():
        place = companion(repo, part) if repo else None
        if place is None:
            missing[part] = repo
        else:
            found[part] = place
    if not whole and not spec.companions:
        missing["transformer"] = ""  # a pipeline of which the index has not come yet
    return Placed(found, {part: repo for part, repo in beside.items() if repo}, missing, text_encoder)


def companion(repo: str, part: str) -> Path | None:
    """The folder in the cache of a part of a repository, if it is whole; a text encoder's own has it at its root."""
    for snapshot in snapshots(storage_of(repo)):
        place = site(lambda name, at=snapshot: (at / name).is_file(), part, alone=repo in ENCODERS.values())  # type: ignore[misc]
        if place is not None and holds([one.name for one in (snapshot / place).iterdir() if one.is_file()], part):
            return snapshot / place
    return None
