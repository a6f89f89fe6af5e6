"""Fetching base models from the hub into its ordinary cache.

Only what drawing and training need is fetched, and never a pickle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from styledrop_cli.base import hub
from styledrop_cli.base.cache import cache_folder, index_of, object_in, placed, text_encoder_of, wanted_from
from styledrop_cli.base.hub_files import (
    Errand,
    Order,
    RemoteFile,
    UnreachableError,
    asked,
    bring_all,
    refuse_small_disk,
    talking,
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
from styledrop_cli.errors import ModelError
from styledrop_cli.progress import OnProgress, unheard


def _errand(repo: str) -> Errand:
    return Errand(
        repo,
        f"there is no folder {repo} here, and no model of that name on the hub, or it is private",
        f"styledrop models fetch {repo}",
        known=hub.PUBLISHED.values(),
    )


def locate(model: str, on_progress: OnProgress = unheard, on_message: hub.OnMessage = lambda message: None) -> Path:
    """The local folder of `model`: what `hub.find` finds, or else what `fetch` brings; both say what they raise."""
    return hub.find(model) or fetch(model, on_progress=on_progress, on_message=on_message)


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
    except UnreachableError as error:
        for folder in hub.folders_of(name) if repo else ():
            if precision in placed(folder, encoder).precisions:
                on_message(f"Warning: {error.message}; taking what was fetched before")
                return folder
        raise
    refuse_small_disk(name, orders)
    meter = hub.Meter(sum(file.size for order in orders for file in order.files), on_progress)
    for order in orders:
        bring_all(order, meter, on_message, lambda path, repo=order.repo: _refuse_other(path, repo))  # type: ignore[misc]
    meter.show()
    return folder


def _ordered(name: str, encoder: str | None, precision: str, on_message: hub.OnMessage) -> tuple[Path, list[Order]]:
    """The folder that a model of the hub will have, and what is to be fetched for it, its own first."""
    row = hub.row_of_model(name)
    repo = row.repository
    commit, there = asked(_errand(repo))
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
    mine = Order(_errand(repo), commit, _weights_last(there[one] for one in names))
    return mine.snapshot / inside, [mine, *_borrowed(beside, precision, on_message)]


def _described(repo: str, commit: str, there: Collection[str], name: str) -> BaseSpec:
    """The family of a model without a row, by what its index or its transformer says: that file, a small one, comes."""
    from huggingface_hub import hf_hub_download

    if name not in there:
        raise lacks(repo, INDEX)
    with talking(_errand(repo)):
        said = object_in(Path(hf_hub_download(repo, name, revision=commit, cache_dir=cache_folder())))
    family = known_family(repo, said) if name.endswith(INDEX) else lone_family(said)
    if family is None:
        raise lacks(repo, INDEX)
    return family


def _config_in(own: Mapping[str, str]) -> str:
    """The description of a transformer without a pipeline, among the parts that a repository has."""
    return joined(own["transformer"], FILES["transformer"][0]) if "transformer" in own else INDEX


def _lacking(folder: Path, encoder: str | None, precision: str, on_message: hub.OnMessage) -> tuple[Path, list[Order]]:
    """A folder of one's own, and what is to be fetched of the parts that it lacks."""
    return folder, _borrowed(placed(folder, encoder).missing, precision, on_message)


def _borrowed(beside: Mapping[str, str], precision: str, on_message: hub.OnMessage) -> list[Order]:
    """What is to be fetched of parts (part: repository) that come from other repositories."""
    orders = []
    for repo in dict.fromkeys(repo for repo in beside.values() if repo):
        parts = [part for part, other in beside.items() if other == repo]
        commit, there = asked(_errand(repo))
        names = []
        for part in parts:
            place = site(there.__contains__, part, alone=repo in ENCODERS.values())
            if place is None:
                raise lacks(repo, f"{part}/{FILES[part][0]}")
            names += files_of(repo, there, part, place, precision, on_message)
        on_message(f"also taking the {', '.join(parts)} of {repo}")
        orders.append(Order(_errand(repo), commit, _weights_last(there[name] for name in names)))
    return orders


def _refuse_other(path: Path, repo: str) -> None:
    """Raise ModelError as soon as the index of another kind of model has come."""
    if path.name == INDEX:
        known_family(repo, index_of(path.parent))


def _weights_last(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    return sorted(files, key=lambda file: file.name.endswith(".safetensors"))
