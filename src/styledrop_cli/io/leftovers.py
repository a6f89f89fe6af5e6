"""What finished work leaves behind and nobody needs to go on: found, and removed.

Adapters, pictures, sheets and records (JSON, recipes) are never among it: what a run was, and what it drew, stay. A
training's checkpoints are only where the adapter that was chosen among them still lies beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from styledrop_cli.io.files import read_json
from styledrop_cli.io.run_folder import MANIFEST, STATES, alone_in
from styledrop_cli.io.run_names import CHECKPOINT, IDS, RUN, SUPERRES, TABLE, any_of

TRAINED = f".safetensors{RUN}"  # what the folder of a training ends in, beside its adapter
CHECKPOINTS = f"{any_of(CHECKPOINT)}.safetensors"  # the one that was chosen is the adapter
SHARDS = f"**/{any_of(IDS)}"  # drawn to pick from and to compare; picks are kept as pictures


@dataclass(frozen=True)
class Leftovers:
    """The ``files`` of a ``folder`` that can go; ``finished`` is whether its work is done, or was stopped half way."""

    folder: Path
    files: list[Path]
    finished: bool

    @property
    def size(self) -> int:
        """How many bytes they take."""
        return sum(path.stat().st_size for path in self.files)

    def remove(self) -> None:
        """Remove them; UsageError if another process works in the folder."""
        with alone_in(self.folder):
            for path in self.files:
                path.unlink(missing_ok=True)


def leftovers_in(place: Path) -> Iterator[Leftovers]:
    """What can go in each folder of a run in ``place`` and its folders, by name; links are not followed."""
    for manifest in sorted(place.rglob(MANIFEST)):
        folder = manifest.parent
        if any(one.is_symlink() for one in (manifest, folder)):
            continue
        try:
            about = read_json(manifest)
        except (OSError, ValueError):
            continue
        if not isinstance(about, dict) or not isinstance(about.get("settings"), dict):
            continue  # another program's
        finished = bool(about.get("finished"))
        patterns = [STATES]
        if folder.name.endswith(TRAINED):
            adapter_is_there = folder.with_name(folder.name.removesuffix(RUN)).exists()
            patterns += [SUPERRES, CHECKPOINTS] if finished and adapter_is_there else [SUPERRES]
        elif "per_prompt" in about["settings"]:
            patterns.append(SHARDS)
            finished = (folder / TABLE).exists()
        files = {path for one in patterns for path in folder.glob(one) if path.is_file() and not path.is_symlink()}
        if files:
            yield Leftovers(folder, sorted(files), finished)
