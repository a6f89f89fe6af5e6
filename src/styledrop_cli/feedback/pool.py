"""A pool of pictures to choose from: drawn into a folder, shard by shard, and measured while it is drawn.

What is on disk is the state: a shard that is there is not drawn again, whoever drew it. So a killed run goes on where
it was, and several processes (``accelerate launch``) share a pool without a word to each other.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from os.path import normpath
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from styledrop_cli.adapters.file import open_adapter
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base.base import Base, is_grid
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.io.files import file_hash, read_json, write_json
from styledrop_cli.io.run_names import IDS
from styledrop_cli.io.tensors import build_config, read_tensors, save_tensors
from styledrop_cli.judging.evaluate import Drawing, Evaluated, Take, evaluate
from styledrop_cli.judging.scores import Judge, Measurements
from styledrop_cli.settings import RoundSettings, SampleSettings, seeds_from
from styledrop_cli.training.distributed import PATIENCE, Place, wait_for_others

LARGEST_POOL = 1_000_000  # pictures
PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What a pool is made of: ``per_prompt`` pictures of each of ``prompts``, prompt by prompt.

    ``style`` goes behind each prompt; the i-th picture of a prompt has seed ``seed`` + i. ``adapter`` is the file to
    draw with, seen from the pool's folder, or empty for the base alone.
    """

    RANGES: ClassVar[dict[str, tuple[float, float]]] = RoundSettings.RANGES

    prompts: tuple[str, ...]
    per_prompt: int
    seed: int
    style: str
    adapter: str
    sampling: SampleSettings

    def __len__(self) -> int:
        return len(self.prompts) * self.per_prompt

    @property
    def drawing(self) -> Drawing:
        """Its pictures, but for the adapter that draws them."""
        texts = [with_style(prompt, self.style) for prompt in self.prompts]
        return Drawing.of_each(self.prompts, texts, seeds_from(self.seed, self.per_prompt), self.sampling)

    @classmethod
    def read(cls, folder: Path) -> Plan | None:
        """The plan of a pool's folder; None if there is none, or not a whole one."""
        try:
            about = read_json(folder / PLAN)
            sampling = build_config(SampleSettings, about["sampling"], PLAN)
            plan = build_config(cls, {**about, "sampling": sampling}, PLAN)
        except (OSError, ValueError, TypeError, KeyError, StyledropError):
            return None
        return plan if len(plan) <= LARGEST_POOL else None


class Pool:
    """A plan's pictures in a folder of their own."""

    def __init__(self, base: Base, folder: Path, plan: Plan) -> None:
        self._base, self._folder, self._plan, self._drawing = base, folder, plan, plan.drawing
        # What a shard is known by to be of this plan, drawn with the adapter as it is now, wherever that lies.
        self._adapter = Path(normpath(folder / plan.adapter)) if plan.adapter else None
        drawn_with = file_hash(self._adapter) if self._adapter else ""
        known = [asdict(plan) | {"adapter": drawn_with}, drawn_with]
        before = [asdict(plan), drawn_with]  # as shards were marked while the place counted, too
        self._mark, *self._marks = (hashlib.sha256(json.dumps(one).encode()).hexdigest() for one in (known, before))

    def evaluate(
        self,
        judge: Judge,
        plain: Measurements | None = None,
        on_drawn: Callable[[int], None] = lambda count: None,
        share: Place = (0, 1),
    ) -> Evaluated:
        """Draw what is missing, and measure and score all of it, as ``judging.evaluate`` does.

        ``share`` is this process's number among how many: the others' shards are waited for. Raises ModelError for an
        adapter of another base.
        """
        write_json(self._folder / PLAN, asdict(self._plan))

        def draw(take: Take) -> None:
            there: set[int] = set()

            def found(first: int, ids: Tensor) -> None:
                there.add(first)
                take(first, ids)

            def left() -> list[slice]:
                for shard in self._drawing.shards:
                    if shard.start not in there and (ids := self._read(shard)) is not None:
                        found(shard.start, ids)
                return [shard for shard in self._drawing.shards if shard.start not in there]

            own = self._own(share)
            slowest = self._draw([shard for shard in left() if shard in own], found, share[0])
            wait_for_others(lambda: len(left()), max(PATIENCE, 2 * slowest))
            # From the end: a process that is only slow goes on from the beginning.
            self._draw(left()[::-1], found, share[0])

        return evaluate(self._base, judge, self._drawing, plain, draw=draw, on_drawn=on_drawn)

    def help(self, share: Place) -> None:
        """Draw this process's share of what is missing."""
        self._draw([s for s in self._own(share) if self._read(s) is None], lambda first, ids: None, share[0])

    def _own(self, share: Place) -> list[slice]:
        """The shards that this process draws."""
        return self._drawing.shards[share[0] :: share[1]]

    def _draw(self, shards: Sequence[slice], done: Take, process: int) -> float:
        """Draw those of ``shards`` that nobody has drawn by then; how many seconds the slowest took.

        ``process`` is the number of this one, for the files to tell who drew them.
        """
        if not shards:
            return 0.0
        adapter = open_adapter(self._base, load_adapter(self._adapter)).base if self._adapter else None
        drawing = replace(self._drawing, adapter=adapter)
        slowest = 0.0
        for shard in shards:
            began = time.monotonic()
            if (ids := self._read(shard)) is None:
                ids = drawing.sample(self._base, shard)
                about = {"plan": self._mark, "process": str(process)}
                save_tensors(self._folder / IDS.format(shard.start), {"ids": ids}, about)
                slowest = max(slowest, time.monotonic() - began)
            done(shard.start, ids)
        return slowest

    def _read(self, shard: slice) -> Tensor | None:
        """The ids of a shard, if it is there, whole and of this plan."""
        try:
            tensors, about = read_tensors(self._folder / IDS.format(shard.start))
        except ModelError:
            return None
        ids, count = tensors.get("ids"), len(self._drawing.prompts[shard])
        whole = ids is not None and len(ids) == count and is_grid(ids, self._base.grid, self._base.codes)
        return ids if whole and about.get("plan") in (self._mark, *self._marks) else None
