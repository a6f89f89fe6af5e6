"""A pool of pictures to choose from: drawn into a folder, shard by shard, and looked at while it is drawn.

What is on disk is the state: a shard that is there is not drawn again, whoever drew it. So a killed run goes on where
it was, and several processes (``accelerate launch``) share a pool without a word to each other.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from os.path import normpath
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from styledrop_cli.adapters.file import open_adapter
from styledrop_cli.base.base import Base, is_grid
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.devices import autocast
from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.io.files import file_hash, read_json, write_json
from styledrop_cli.io.tensors import build_config, load_adapter, read_tensors, save_tensors
from styledrop_cli.judging.evaluate import DRAWN_TOGETHER
from styledrop_cli.judging.scores import Judge, Measurements, thumbnails
from styledrop_cli.settings import RoundSettings, SampleSettings, seeds_from
from styledrop_cli.training.distributed import PATIENCE, Place, wait_for_others

MOST = 1_000_000  # pictures of a pool
PLAN = "plan.json"
IDS = "ids-{:05d}.safetensors"


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
    def of_each(self) -> list[str]:
        """The prompt of each picture, in order."""
        return [prompt for prompt in self.prompts for _ in range(self.per_prompt)]

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture, in order."""
        return [*seeds_from(self.seed, self.per_prompt)] * len(self.prompts)

    @classmethod
    def read(cls, folder: Path) -> Plan | None:
        """The plan of a pool's folder; None if there is none, or not a whole one."""
        try:
            about = read_json(folder / PLAN)
            sampling = build_config(SampleSettings, about["sampling"], PLAN)
            plan = build_config(cls, {**about, "sampling": sampling}, PLAN)
        except (OSError, ValueError, TypeError, KeyError, StyledropError):
            return None
        return plan if len(plan) <= MOST else None


@dataclass(frozen=True)
class Drawn:
    """N pictures: ``ids`` ``[N,h,w]``, ``pictures`` uint8 ``[N,3,S,S]``, what was ``seen``, ``small`` thumbnails."""

    ids: Tensor
    pictures: Tensor
    seen: Measurements
    small: Tensor


class Pool:
    """A plan's pictures in a folder of their own."""

    def __init__(self, base: Base, folder: Path, plan: Plan) -> None:
        self._base, self._folder, self._plan = base, folder, plan
        self._starts = range(0, len(plan), DRAWN_TOGETHER)
        # What a shard is known by to be of this plan, drawn with the adapter as it is now, wherever that lies.
        self._adapter = Path(normpath(folder / plan.adapter)) if plan.adapter else None
        drawn_with = file_hash(self._adapter) if self._adapter else ""
        known = [asdict(plan) | {"adapter": drawn_with}, drawn_with]
        before = [asdict(plan), drawn_with]  # as shards were marked while the place counted, too
        self._mark, *self._marks = (hashlib.sha256(json.dumps(one).encode()).hexdigest() for one in (known, before))

    def draw(self, judge: Judge, on_progress: Callable[[int], None], share: Place = (0, 1)) -> Drawn:
        """Draw what is missing, look at all of it, and return it; ``on_progress`` hears how many are there.

        Looking at one shard goes on beside the drawing of the next. ``share`` is this process's number among how many:
        the others' shards are waited for. Raises ModelError for an adapter of another base.
        """
        write_json(self._folder / PLAN, asdict(self._plan))
        looks: dict[int, Future[Drawn]] = {}
        with ThreadPoolExecutor(1) as pool:

            def take(start: int, ids: Tensor) -> None:
                looks[start] = pool.submit(self._look, start, ids, judge)
                on_progress(sum(min(DRAWN_TOGETHER, len(self._plan) - s) for s in looks))

            def left() -> int:
                for start in self._starts:
                    if start not in looks and (ids := self._read(start)) is not None:
                        take(start, ids)
                return len(self._starts) - len(looks)

            left()
            own = [start for start in self._starts if start // DRAWN_TOGETHER % share[1] == share[0]]
            slowest = self._draw([start for start in own if start not in looks], take, share[0])
            wait_for_others(left, max(PATIENCE, 2 * slowest))
            # From the end: who is only slow goes on from the beginning.
            self._draw([start for start in reversed(self._starts) if start not in looks], take, share[0])
            parts = [looks[start].result() for start in self._starts]
        return Drawn(
            torch.cat([p.ids for p in parts]),
            torch.cat([p.pictures for p in parts]),
            Measurements.cat([p.seen for p in parts]),
            torch.cat([p.small for p in parts]),
        )

    def help(self, share: Place) -> None:
        """Draw this process's share of what is missing."""
        own = [start for start in self._starts if start // DRAWN_TOGETHER % share[1] == share[0]]
        self._draw([start for start in own if self._read(start) is None], lambda start, ids: None, share[0])

    @torch.no_grad()
    def _draw(self, starts: Sequence[int], done: Callable[[int, Tensor], None], process: int) -> float:
        """Draw those of ``starts`` that nobody has drawn by then; how many seconds the slowest took.

        ``process`` is the number of this one, for the files to tell who drew them.
        """
        if not starts:
            return 0.0
        plan, base = self._plan, self._base
        adapter = open_adapter(base, load_adapter(self._adapter)).base if self._adapter else None
        texts = [with_style(prompt, plan.style) for prompt in plan.of_each]
        slowest = 0.0
        for start in starts:
            began = time.monotonic()
            if (ids := self._read(start)) is None:
                rows = slice(start, start + DRAWN_TOGETHER)
                with autocast(base.device):
                    ids = base.sample(texts[rows], plan.seeds[rows], plan.sampling, adapter).to("cpu", torch.int16)
                about = {"plan": self._mark, "process": str(process)}
                save_tensors(self._folder / IDS.format(start), {"ids": ids}, about)
                slowest = max(slowest, time.monotonic() - began)
            done(start, ids)
        return slowest

    def _read(self, start: int) -> Tensor | None:
        try:
            tensors, about = read_tensors(self._folder / IDS.format(start))
        except ModelError:
            return None
        ids, count = tensors.get("ids"), min(DRAWN_TOGETHER, len(self._plan) - start)
        whole = ids is not None and len(ids) == count and is_grid(ids, self._base.grid, self._base.codes)
        return ids if whole and about.get("plan") in (self._mark, *self._marks) else None

    @torch.no_grad()
    def _look(self, start: int, ids: Tensor, judge: Judge) -> Drawn:
        base = self._base
        with autocast(base.device):
            pictures = base.pictures(ids.long().to(base.device), base.sizes[0]).float()
        seen = judge.see(pictures, ids, self._plan.of_each[start : start + DRAWN_TOGETHER])
        return Drawn(ids, (pictures * 255).round().to("cpu", torch.uint8), seen, thumbnails(pictures))
