"""The prompts that pictures are chosen and compared by, in one place: what chooses must not grade.

A training's checkpoints, a round's picks, the choice among rounds and the report each have prompts of their own.
"""

from __future__ import annotations

from collections.abc import Collection

from styledrop_cli.base.base import Base

# Test pictures of a training: which checkpoint is taken.
PROBES = ("a cat", "a teapot", "a house", "a rocket", "a tree", "a fish", "an apple", "a car", "a flower", "a star")
# What a round's pool shows: subjects x settings (StyleDrop: 10 x 3).
SUBJECTS = (
    "a rabbit", "a lion", "a bird", "a horse", "a bus", "a chair", "a cup of coffee", "a mountain", "a robot",
    "a banana", "a frog", "a turtle", "a panda", "a duck", "a whale", "a bear", "a train", "a truck", "a ship",
    "a helicopter", "a sunflower", "a cactus", "a palm tree", "a carrot", "a hamburger", "a gift", "a camera",
    "an alarm clock", "a hammer", "a balloon",
)  # fmt: skip
SETTINGS = ("", " in the snow", " in a forest")
POOL_PROMPTS = 30
# What the rounds are compared by.
GRADED = (
    "a dog", "a bicycle", "an umbrella", "an owl", "a castle", "a strawberry", "an airplane", "an elephant",
    "a sailboat", "a key",
)  # fmt: skip
CHOOSING = frozenset((*PROBES, *SUBJECTS, *GRADED))
# What a report is drawn from: none of these chooses anything anywhere.
REPORT = (
    "a guitar", "a butterfly", "a mushroom", "a pineapple", "a penguin", "a crab", "a crown", "a motorcycle",
    "a volcano", "a snowman", "an octopus", "a candle",
)  # fmt: skip


def taught(base: Base, prompts: Collection[str]) -> list[str]:
    """Those of ``prompts`` that ``base`` was taught; where it was taught none of them, all that it was taught.

    A base that does not say what it was taught gets all of ``prompts``.
    """
    return [prompt for prompt in prompts if prompt in base.contents] or base.contents or list(prompts)


def probe_prompts(base: Base, contents: Collection[str], most: int) -> list[str]:
    """What a training is tested by: not the references' own ``contents``, unless ``base`` was taught nothing else."""
    known = taught(base, PROBES)
    return ([p for p in known if p not in contents] or known)[:most]


def pool_prompts(base: Base, contents: Collection[str]) -> list[str]:
    """What a round's pool shows: subjects x settings, but for the references' own ``contents``."""
    # A base that was taught single subjects draws them on a plain ground.
    settings = ("",) if base.contents else SETTINGS
    subjects = [s for s in taught(base, SUBJECTS) if s not in contents]
    return [subject + setting for subject in subjects[: POOL_PROMPTS // len(settings)] for setting in settings]


def graded_prompts(base: Base, used: Collection[str]) -> list[str]:
    """What the rounds are compared by: prompts of which nothing was picked, and none of the references'."""
    known = taught(base, GRADED)
    free = [p for p in known if p not in used] or [p for p in PROBES if p not in used]
    return (free or known)[: len(GRADED)]


def report_prompts(base: Base, used: Collection[str]) -> list[str]:
    """What a report is drawn from: known to ``base``, and nothing was chosen or learnt by them; maybe none."""
    known = [p for p in REPORT if p in base.contents or not base.contents]
    free = [p for p in dict.fromkeys((*known, *base.contents)) if p not in CHOOSING and p not in used]
    return free[: len(REPORT)]
