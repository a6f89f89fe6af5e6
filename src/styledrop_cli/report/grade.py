"""What the report shows and counts: every row's pictures of the same prompts and seeds, and what a CLIP says of them.

What chose must not grade. So the prompts are none that a checkpoint, a pick or a round was chosen by, the seeds are
others too, and the CLIP is the second one, which has neither drawn nor picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path

import torch
from torch import Tensor

from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base.base import Base
from styledrop_cli.errors import UsageError
from styledrop_cli.feedback.pool import Plan, Pool
from styledrop_cli.judging.bootstrap import paired_interval
from styledrop_cli.judging.evaluate import (
    DRAWN_TOGETHER,
    PLAIN_EACH,
    PLAIN_SEED,
    Evaluated,
    References,
    judge_of,
)
from styledrop_cli.judging.meaning import ABOUT_SEEN, ABOUT_WAY, meanings
from styledrop_cli.judging.prompts import CHOOSING, report_prompts
from styledrop_cli.judging.scores import ClipScorer, Measurements, StyleCalibration
from styledrop_cli.progress import Counter, OnProgress, unheard
from styledrop_cli.report.history import Story
from styledrop_cli.settings import SampleSettings, seeds_from

BASE, TOLD = "base", "style in words"  # the rows without an adapter; all others are compared with the second
# Of each measure: its name, what it says, and whether more of it is better.
MEASURES = (
    ("text", "CLIP's cosine of the picture with the prompt, the style left out: the paper's Text", True),
    ("object", "how surely it shows what was asked for, among everything that the base knows", True),
    ("shape", "whether its contours are where the base draws them", True),
    ("likeness", "CLIP's cosine of the picture with the reference: the paper's Style, which copying raises too", True),
    ("csls", "the likeness of the style alone: above 0 it is nearer to the reference than to any other style", True),
    ("seen", f"{ABOUT_SEEN} (1 is all of them)", True),
    ("way", f"{ABOUT_WAY}; 1 is all of it", True),
    ("leak", "how much of the reference's own content and tokens came along, above the base's", False),
)


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts and seeds with its 95 % interval, and the same of the difference to the row ``TOLD``."""

    mean: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float

    @property
    def sure(self) -> bool:
        """Whether the difference's interval leaves zero out."""
        return self.difference_low > 0 or self.difference_high < 0


@dataclass(frozen=True)
class Graded:
    """P prompts, K seeds. ``cells`` holds ``[P,K]`` by row and measure, ``pictures`` uint8 ``[P,K,3,S,S]`` by row.

    The rows begin with the base. ``near`` is the csls to each of R references, ``[P,K,R]`` by row, where R is above 1.
    """

    prompts: list[str]
    seeds: list[int]
    cells: dict[str, dict[str, Tensor]]
    pictures: dict[str, Tensor]
    near: dict[str, Tensor] = field(default_factory=dict)

    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """Of each row and measure."""
        return {
            row: {name: estimate(values, values - self.cells[TOLD][name]) for name, values in of.items()}
            for row, of in self.cells.items()
        }


def estimate(values: Tensor, apart: Tensor) -> Estimate:
    """Of a measure ``[P,K]`` and its difference ``[P,K]`` to the row ``TOLD``."""
    return Estimate(float(values.mean()), *paired_interval(values), float(apart.mean()), *paired_interval(apart))


def free_prompts(base: Base, story: Story) -> list[str]:
    """The report's own prompts, as far as the base knows them and nothing was chosen or learnt by them.

    Raises UsageError if there are none.
    """
    if not (free := report_prompts(base, story.used)):
        raise UsageError(
            f"everything that {base.name} knows was used to choose by",
            "Name prompts that were not, a line each: --prompts FILE",
        )
    return free


def also_chose(story: Story, prompts: Sequence[str]) -> list[str]:
    """Those of ``prompts`` by which something was chosen or learnt, too."""
    return [prompt for prompt in prompts if prompt in CHOOSING or prompt in story.used]


def grade(
    base: Base,
    story: Story,
    clip_scorer: ClipScorer,
    calibration: StyleCalibration,
    *,
    prompts: Sequence[str],
    number: int,
    seed: int,
    folder: Path,
    on_progress: OnProgress = unheard,
) -> Graded:
    """Draw ``number`` pictures of each prompt by every row, in ``folder``, and have ``clip_scorer`` grade them.

    The rows are the base, the base told the style in words, and every adapter at the scales that it recommends.
    ``calibration`` is the ``clip_scorer``'s own. The same call goes on where a stopped one was. Raises ModelError for
    an adapter of another base or without references.
    """
    references = References.of_adapter(base, load_adapter(story.stages[0].file))
    judge = judge_of(base, clip_scorer, references, prompts, calibration)
    shape, usual, style = (len(prompts), number), base.sampling(), story.style
    rows: list[tuple[str, str, Path | None, SampleSettings]] = [(BASE, "", None, usual), (TOLD, style, None, usual)]
    rows += [(s.name, style, s.file, base.sampling(**s.header.recommended)) for s in story.stages]
    counter = Counter(on_progress, (len(rows) * number + PLAIN_EACH) * len(prompts))

    def drawn(
        name: str, style: str, adapter: Path | None, sampling: SampleSettings, each: int, first: int,
        plain: Measurements | None = None,
    ) -> Evaluated:  # fmt: skip
        its_file = relpath(adapter, folder / name) if adapter else ""
        plan = Plan(tuple(prompts), each, first, style, its_file, sampling)
        return Pool(base, folder / name, plan).evaluate(judge, plain, counter.add)

    plain = drawn("plain", style, None, usual, PLAIN_EACH, PLAIN_SEED).measured.means(*shape)
    by_row = {
        row: drawn(f"row-{i}", said, file, sampling, number, seed, plain)
        for i, (row, said, file, sampling) in enumerate(rows)
    }
    cells = {
        row: {name: of.view(shape) for name, of in measures(one, plain, judge.own_csls).items()}
        for row, one in by_row.items()
    }
    pictures = {row: one.pictures.unflatten(0, shape) for row, one in by_row.items()}
    near = {}
    if len(references.shown) > 1:
        for row, one in by_row.items():
            parts = [judge.near(some.float().to(base.device) / 255) for some in one.pictures.split(DRAWN_TOGETHER)]
            near[row] = torch.cat(parts).cpu().unflatten(0, shape)
    return Graded(list(prompts), list(seeds_from(seed, number)), cells, pictures, near)


def measures(drawn: Evaluated, plain: Measurements, own: float) -> dict[str, Tensor]:
    """Each of ``MEASURES`` of N pictures, ``[N]``; ``plain`` and ``own`` are what ``meanings`` places them by."""
    measured, scores = drawn.measured, drawn.scores
    placed = meanings(measured, plain, own)
    return {
        "text": measured.text,
        "object": measured.object,
        "shape": torch.tensor([score.shape for score in scores]),
        "likeness": measured.likeness,
        "csls": measured.csls,
        "seen": measured.seen,
        "way": torch.tensor([one.way if one.way is not None else torch.nan for one in placed]),
        "leak": torch.tensor([score.leak for score in scores]),
    }
