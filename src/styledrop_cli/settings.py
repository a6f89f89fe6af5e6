"""What a run can be told, with its defaults. Standard library only, so that ``--help`` can show them at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from itertools import product
from typing import Any, ClassVar

from styledrop_cli.errors import UsageError

LARGEST_SEED = 2**63 - 1
Ranges = dict[str, tuple[float, float]]


def exact(number: float) -> str:
    """A number as messages show it, to its last digit and without an exponent: "9,223,372,036,854,775,807", "0.001"."""
    if isinstance(number, int) or not math.isfinite(number):
        return f"{number:,}"
    return f"{Decimal(repr(number)).normalize():,f}"


def seeds_from(first: int, number: int) -> range:
    """``number`` seeds that count on from the ``first``; UsageError if they go beyond ``LARGEST_SEED``."""
    if first + number - 1 > LARGEST_SEED:
        raise UsageError(
            f"there are no {number:,} seeds from {first} on: the largest is {exact(LARGEST_SEED)}",
            "say a smaller seed, or fewer pictures",
        )
    return range(first, first + number)


class _Checked:
    """Refuses values outside ``RANGES``, all of them in one message; a whole number for a float becomes one."""

    RANGES: ClassVar[Ranges] = {}

    def __post_init__(self) -> None:
        problems = []
        for name, (low, high) in self.RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                problems.append(f"{name} must be between {exact(low)} and {exact(high)}, not {value}")
        if problems:
            raise UsageError("; ".join(problems))
        for field in fields(self):  # type: ignore[arg-type]
            if isinstance(field.default, float) and isinstance(value := getattr(self, field.name), int):
                object.__setattr__(self, field.name, float(value))

    @classmethod
    def defaults(cls) -> dict[str, object]:
        """Every setting's default, by name."""
        return {f.name: f.default for f in fields(cls)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class SampleSettings(_Checked):
    """How pictures are drawn.

    ``steps`` of parallel decoding, whose ``order`` says which ids are kept at each: those that the network is surest
    of, by "confidence" and chance, or places spread evenly over the picture, in "halton" order (``sampling.decoding``).
    ``temperature`` is how much chance there is in confidence (StyleDrop: 4.5), and has no say in the other;
    ``strength`` is how much of the adapter there is: 0 none, 1 as it was trained. ``lambda_a`` pushes towards the
    adapter's style, ``lambda_b`` towards the prompt (StyleDrop eq. 4); with ``ramp`` both grow linearly over the steps
    (Muse). Tokens less than ``plausible`` times as likely as the likeliest are not drawn, whatever the scales make of
    them. A token is drawn among the ``top_k`` likeliest (0: all) and, of these, the fewest that make up ``top_p``.
    At the end a token that is less than ``correct`` times as likely there as the likeliest is replaced by it.
    ``negative`` is the text to move away from. ``noise`` is one number a "position" or one a "token", upstream's way.
    ``precision`` "bf16" draws a published base faster where the processor has bfloat16, and not to upstream's numbers.
    ``size`` is the pictures' side in pixels, ``seed`` the first picture's; those after it count on.

    Guidance takes up to three passes a step. With ``guidance_every`` n the two beside the adapted one run at every n-th
    step, and what they said is held between. From ``guidance_from`` to ``guidance_to``, shares of the way, there is
    guidance at all; without it the adapted pass is alone (arXiv 2404.07724).

    The larger size is enlarged plainly or, with ``superres_steps``, drawn by super-resolution, with scales of its own
    (StyleDrop, Table S3: 1 and 0). Pocket's is sharper and a little harder to recognise, so it is not the default. It
    draws only tokens at least ``superres_plausible`` times as likely as the likeliest: what is seen small leaves little
    to chance, and chance frays edges.
    """

    steps: int = 12
    temperature: float = 2.0
    strength: float = 1.0
    lambda_a: float = 0.0
    lambda_b: float = 1.5
    ramp: bool = True
    plausible: float = 0.03
    negative: str = ""
    noise: str = "position"
    order: str = "halton"
    top_k: int = 0
    top_p: float = 0.8
    correct: float = 0.1
    precision: str = "fp32"
    guidance_every: int = 3
    guidance_from: float = 0.0
    guidance_to: float = 1.0
    size: int = 256
    seed: int = 0
    superres_steps: int = 0
    superres_lambda_a: float = 0.0
    superres_lambda_b: float = 0.0
    superres_plausible: float = 0.5

    RANGES: ClassVar[Ranges] = {
        "steps": (1, 256),
        "temperature": (0, 100),
        "strength": (0, 10),
        "lambda_a": (0, 50),
        "lambda_b": (0, 50),
        "plausible": (0, 1),
        "top_k": (0, 1_000_000),
        "top_p": (0, 1),
        "correct": (0, 1),
        "guidance_every": (1, 256),
        "guidance_from": (0, 1),
        "guidance_to": (0, 1),
        "size": (1, 8192),
        "seed": (0, LARGEST_SEED),
        "superres_steps": (0, 256),
        "superres_lambda_a": (0, 50),
        "superres_lambda_b": (0, 50),
        "superres_plausible": (0, 1),
    }
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        "noise": ("position", "token"),
        "order": ("confidence", "halton"),
        "precision": ("fp32", "bf16"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in self.CHOICES.items():
            if getattr(self, name) not in choices:
                what = f"there is no {name} called '{getattr(self, name)}'"
                raise UsageError(what, f"Choose {' or '.join(choices)}.")
        if self.guidance_from > self.guidance_to:
            raise UsageError(
                f"guidance_from {exact(self.guidance_from)} is after guidance_to {exact(self.guidance_to)}"
            )


# Settings that go together, by the name of `generate --preset`. "fast" was chosen on pocket (docs/lab/tuning.md);
# "paper" is StyleDrop's (Table S3, base model).
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"steps": 8, "guidance_every": 4, "precision": "bf16"},
    "paper": {
        "steps": 36,
        "order": "confidence",
        "temperature": 4.5,
        "lambda_a": 2.0,
        "lambda_b": 5.0,
        "ramp": False,
        "plausible": 0.0,
        "top_p": 1.0,
        "correct": 0.0,
        "guidance_every": 1,
    },
}


def preset_values(name: str | None) -> dict[str, Any]:
    """The settings of a preset, none without a name; UsageError for an unknown one."""
    if name is None:
        return {}
    if name not in PRESETS:
        raise UsageError(f"there is no preset called '{name}'", f"Choose one of {', '.join(PRESETS)}.")
    return dict(PRESETS[name])


# What an adapter's file may recommend of these.
RECOMMENDABLE = ("lambda_a", "lambda_b", "strength", "temperature", "steps")

STYLE, OBJECT = "style", "object"  # what an adapter learns

# Kinds of adapter and what fits each: ``width`` is the bottleneck's width, LoRA's rank or the number of text vectors.
KINDS: dict[str, dict[str, float]] = {
    "bottleneck": {"width": 8, "lr": 5e-3},
    "lora": {"width": 4, "lr": 5e-3},
    "prompt": {"width": 16, "lr": 2e-2},
}


@dataclass(frozen=True)
class TrainSettings(_Checked):
    """How an adapter is trained; ``of`` fills in what fits its kind.

    ``shared`` is whether all layers share one bottleneck (paper: width 4, shared, on a base a hundred times larger),
    ``targets`` the attention projections that LoRA updates. ``views`` augmented crops of each reference are tokenized
    once. At ``checkpoints`` points of the way test pictures are drawn, and the best point is what is written, unless
    ``last``. ``lambda_a`` and ``lambda_b`` are the scales that the file will recommend. The super-resolution
    transformer, where the base has one, gets an adapter of the same kind, trained for ``superres_steps`` at
    ``superres_lr`` (paper: 3.3 times the base's); 0 steps leave it out.

    ``learn`` is what the pictures have in common, ``STYLE`` or ``OBJECT`` (StyleDrop, 3.4). Checkpoints are compared by
    their style, so an object has none.
    """

    kind: str = "bottleneck"
    steps: int = 250
    lr: float = KINDS["bottleneck"]["lr"]
    batch_size: int = 8
    width: int = int(KINDS["bottleneck"]["width"])
    shared: bool = False
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v")
    views: int = 64
    seed: int = 0
    checkpoints: int = 5
    last: bool = False
    lambda_a: float = SampleSettings.lambda_a
    lambda_b: float = SampleSettings.lambda_b
    superres_steps: int = 100
    superres_lr: float = 5e-3
    learn: str = STYLE

    RANGES: ClassVar[Ranges] = {
        "steps": (1, 1_000_000),
        "lr": (1e-8, 1),
        "batch_size": (1, 4096),
        "width": (1, 4096),
        "views": (1, 100_000),
        "seed": (0, LARGEST_SEED),
        "checkpoints": (0, 100),
        "lambda_a": (0, 50),
        "lambda_b": (0, 50),
        "superres_steps": (0, 1_000_000),
        "superres_lr": (1e-8, 1),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learn not in (STYLE, OBJECT):
            raise UsageError(f"there is no learning of '{self.learn}'", f"Choose {STYLE} or {OBJECT}.")
        if self.learn == OBJECT and self.checkpoints:
            raise UsageError(
                f"checkpoints are compared by their style, of which an {OBJECT} has none", "Leave --checkpoints out."
            )

    @classmethod
    def of(cls, kind: str, **given: Any) -> TrainSettings:
        """The settings that fit ``kind``, with what is ``given`` in their place; UsageError for an unknown kind."""
        if kind not in KINDS:
            raise UsageError(f"there is no kind of adapter called '{kind}'", f"Choose one of {', '.join(KINDS)}.")
        suits = {"checkpoints": 0} if given.get("learn") == OBJECT else {}
        return cls(**({"kind": kind} | KINDS[kind] | suits | given))


SEEDS_OF_ROUND = 1000  # so far are the seeds of a round from those of the round before


@dataclass(frozen=True)
class RoundSettings(_Checked):
    """How rounds of feedback go.

    ``rounds`` are added to what was trained. Each draws ``per_prompt`` pictures of each prompt (StyleDrop: 64), keeps
    ``keep`` of them (0 is one a prompt), and trains a new adapter for ``steps`` on these and the references. The pool
    is drawn with ``pool_lambda_a`` more than the first adapter recommends: more style, and more to choose from. What
    was learnt from many things can be drawn more strongly without showing any of them: a round's adapter recommends
    ``lambda_a`` at least.
    """

    rounds: int = 1
    per_prompt: int = 8
    keep: int = 0
    steps: int = TrainSettings.steps
    pool_lambda_a: float = 0.25
    lambda_a: float = 0.25
    seed: int = 0

    RANGES: ClassVar[Ranges] = {
        "rounds": (1, 100),
        "per_prompt": (1, 1000),
        "keep": (0, 100_000),
        "pool_lambda_a": (0, 50),
        "lambda_a": (0, 50),
        "steps": (1, 1_000_000),
        "seed": (0, LARGEST_SEED),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        seeds_from(self.seed, SEEDS_OF_ROUND * self.rounds + self.per_prompt)


CHECKPOINT = "checkpoint"  # an axis of a sweep: its values are steps of the training


@dataclass(frozen=True)
class SweepSettings(_Checked):
    """What a sweep compares: ``prompts``, each with ``number`` seeds from ``seed`` on, at every combination of values.

    ``axes`` has the values by name, which is one of ``RECOMMENDABLE`` or ``CHECKPOINT``. An axis of one value just sets
    it. At most two have more: a sheet has rows and columns.
    """

    axes: Mapping[str, Sequence[float]]
    prompts: Sequence[str]
    number: int = 4
    seed: int = 0

    RANGES: ClassVar[Ranges] = {"number": (1, 1000), "seed": (0, LARGEST_SEED)}
    MOST_CELLS: ClassVar[int] = 64
    MOST_PICTURES: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        seeds_from(self.seed, self.number)
        several = self.several
        if len(several) > 2:
            raise UsageError(
                f"{', '.join(several[:-1])} and {several[-1]} all have several values",
                "a sheet has rows and columns: leave several values to two of them",
            )
        if not several:
            raise UsageError("one combination of settings is nothing to compare", "give one of them several values")
        cells = math.prod(map(len, self.axes.values()))
        pictures = cells * len(self.prompts) * self.number
        problems = []
        if cells > self.MOST_CELLS:
            problems.append(f"{cells:,} combinations of settings are too many: at most {self.MOST_CELLS}")
        if pictures > self.MOST_PICTURES:
            problems.append(f"{pictures:,} pictures are too many: at most {self.MOST_PICTURES:,}")
        if problems:
            raise UsageError("; ".join(problems), "give fewer values, prompts or seeds (--number)")

    @property
    def several(self) -> list[str]:
        """The axes with more than one value."""
        return [name for name, values in self.axes.items() if len(values) > 1]

    @property
    def combinations(self) -> list[dict[str, float]]:
        """Each combination of the axes' values, by their names; the last axis changes first."""
        return [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture of a prompt."""
        return list(seeds_from(self.seed, self.number))
