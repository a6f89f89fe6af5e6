"""What the report shows and counts: every row's pictures of the same prompts and seeds, and what a CLIP says of them.

What chose must not grade. So the prompts are none that a checkpoint, a pick or a round was chosen by, the seeds are
others too, and the CLIP is the second one, which has neither drawn nor picked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path

import torch
from torch import Tensor

from styledrop_cli.base.base import Base
from styledrop_cli.errors import UsageError
from styledrop_cli.feedback.pool import Plan, Pool
from styledrop_cli.feedback.rounds import GRADED, SUBJECTS
from styledrop_cli.io.tensors import load_adapter
from styledrop_cli.judging.bootstrap import paired_interval
from styledrop_cli.judging.csls import Calibration
from styledrop_cli.judging.evaluate import PLAIN_EACH, PLAIN_SEED, References, judge_of
from styledrop_cli.judging.probes import PROBES
from styledrop_cli.judging.scores import ClipScorer, scores
from styledrop_cli.report.history import Story
from styledrop_cli.settings import SampleSettings, seeds_from

# None of these chooses anything anywhere.
PROMPTS = (
    "a guitar", "a butterfly", "a mushroom", "a pineapple", "a penguin", "a crab", "a crown", "a motorcycle",
    "a volcano", "a snowman", "an octopus", "a candle",
)  # fmt: skip
BASE, TOLD = "base", "style in words"  # the rows without an adapter; the second is what all others are held against
# Of each measure: its name, what it says, and whether more of it is better.
MEASURES = (
    ("text", "CLIP's cosine of the picture with the prompt, the style left out: the paper's Text", True),
    ("object", "how surely it shows what was asked for, among everything that the base knows", True),
    ("shape", "whether its contours are where the base draws them", True),
    ("likeness", "CLIP's cosine of the picture with the reference: the paper's Style, which copying raises too", True),
    ("csls", "the likeness of the style alone: above 0 it is nearer to the reference than to any other style", True),
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
    """P prompts, K seeds. ``cells`` holds ``[P,K]`` by row and measure, ``pictures`` uint8 ``[P,K,3,S,S]`` by row."""

    prompts: list[str]
    seeds: list[int]
    cells: dict[str, dict[str, Tensor]]
    pictures: dict[str, Tensor]

    @property
    def rows(self) -> list[str]:
        """The rows' names, the base first."""
        return list(self.cells)

    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """Of each row and measure."""
        made: dict[str, dict[str, Estimate]] = {}
        for row, of in self.cells.items():
            made[row] = {}
            for name, values in of.items():
                apart = values - self.cells[TOLD][name]
                made[row][name] = Estimate(
                    float(values.mean()), *paired_interval(values), float(apart.mean()), *paired_interval(apart)
                )
        return made


def free_prompts(base: Base, story: Story) -> list[str]:
    """The report's own prompts, as far as the base knows them and nothing was chosen or learnt by them.

    Raises UsageError if there are none.
    """
    used = {*story.used, *PROBES, *SUBJECTS, *GRADED}
    free = [p for p in (*PROMPTS, *base.contents) if (not base.contents or p in base.contents) and p not in used]
    chosen = list(dict.fromkeys(free))[: len(PROMPTS)]
    if not chosen:
        raise UsageError(
            f"everything that {base.name} knows was used to choose by",
            "Name prompts that were not, a line each: --prompts FILE",
        )
    return chosen


def also_chose(story: Story, prompts: Sequence[str]) -> list[str]:
    """Those of ``prompts`` by which something was chosen or learnt, too."""
    used = {*story.used, *PROBES, *SUBJECTS, *GRADED}
    return [prompt for prompt in prompts if prompt in used]


def grade(
    base: Base,
    story: Story,
    clip_scorer: ClipScorer,
    *,
    prompts: Sequence[str],
    number: int,
    seed: int,
    folder: Path,
    on_progress: Callable[[str, float, str], None] = lambda what, share, note: None,
) -> Graded:
    """Draw ``number`` pictures of each prompt by every row, in ``folder``, and have ``clip_scorer`` grade them.

    The rows are the base, the base told the style in words, and every adapter at the scales that it recommends. The
    same call goes on where a stopped one was. Raises ModelError for an adapter of another base or without references.
    """
    references = References.of_adapter(base, load_adapter(story.stages[0].file))
    calibration = Calibration(clip_scorer, lambda share, note: on_progress("looking at other styles", share, note))
    judge = judge_of(base, clip_scorer, references, prompts, calibration)
    drawn_so = base.sampling()

    def plan(style: str, adapter: Path | None, sampling: SampleSettings, each: int, first: int, where: Path) -> Plan:
        return Plan(tuple(prompts), each, first, style, relpath(adapter, where) if adapter else "", sampling)

    rows: list[tuple[str, str, Path | None, SampleSettings]] = [
        (BASE, "", None, drawn_so),
        (TOLD, story.style, None, drawn_so),
    ]
    for stage in story.stages:
        rows.append((stage.name, story.style, stage.file, base.sampling(**stage.header["recommended"])))
    work = len(rows) * number + PLAIN_EACH
    done = 0

    def move(ready: int) -> None:
        of = work * len(prompts)
        on_progress("drawing", (done + ready) / of, f"{done + ready}/{of}")

    def draw(name: str, made: Plan) -> Pool:
        return Pool(base, folder / name, made)

    plain_plan = plan(story.style, None, drawn_so, PLAIN_EACH, PLAIN_SEED, folder / "plain")
    plain = draw("plain", plain_plan).draw(judge, move)
    done += len(plain_plan)
    beside = plain.seen.means(len(prompts), number)
    cells: dict[str, dict[str, Tensor]] = {}
    pictures: dict[str, Tensor] = {}
    shape = (len(prompts), number)
    for place, (row, style, adapter, sampling) in enumerate(rows):
        where = f"row-{place}"
        made = plan(style, adapter, sampling, number, seed, folder / where)
        drawn = draw(where, made).draw(judge, move)
        done += len(made)
        found = scores(drawn.seen, beside)
        values = {
            "text": drawn.seen.text,
            "object": drawn.seen.object,
            "shape": torch.tensor([s.shape for s in found]),
            "likeness": drawn.seen.style,
            "csls": drawn.seen.csls,
            "leak": torch.tensor([s.leak for s in found]),
        }
        cells[row] = {name: value.view(shape) for name, value in values.items()}
        pictures[row] = drawn.pictures.unflatten(0, shape)
    return Graded(list(prompts), list(seeds_from(seed, number)), cells, pictures)
