"""What a run can be told, with its defaults. Standard library only, so that ``--help`` can show them at once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
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


def setting(default: Any, text: str, between: tuple[float, float] | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A setting, declared once: its default, what it is in a sentence, and which values it can have.

    A number is ``between`` two, a text may be one of ``choices``. Commands show the sentence, default and range.
    """
    return field(default=default, metadata={"text": text, "between": between, "choices": choices})


class Checked:
    """Refuses values that a setting cannot have, all of them in one message; a whole number for a float becomes one.

    ``RANGES``, ``CHOICES`` and ``HELP`` are what the fields declare, by name.
    """

    RANGES: ClassVar[Ranges] = {}
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {}
    HELP: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        declared = {name: one.metadata for name, one in vars(cls).items() if isinstance(one, Field)}
        for name, key in (("RANGES", "between"), ("CHOICES", "choices"), ("HELP", "text")):
            setattr(cls, name, getattr(cls, name) | {one: said[key] for one, said in declared.items() if said[key]})

    def __post_init__(self) -> None:
        problems, hint = [], None
        for name, (low, high) in self.RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                problems.append(f"{name} must be between {exact(low)} and {exact(high)}, not {value}")
        for name, choices in self.CHOICES.items():
            if getattr(self, name) not in choices:
                problems.append(f"there is no {name} called '{getattr(self, name)}'")
                hint = f"Choose {' or '.join(choices)}."
        if problems:
            raise UsageError("; ".join(problems), hint)
        for one in fields(self):  # type: ignore[arg-type]
            if isinstance(one.default, float) and isinstance(value := getattr(self, one.name), int):
                object.__setattr__(self, one.name, float(value))

    @classmethod
    def defaults(cls) -> dict[str, object]:
        """Every setting's default, by name."""
        return {f.name: f.default for f in fields(cls)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class SampleSettings(Checked):
    """How pictures are drawn.

    Guidance (StyleDrop eq. 4) takes up to three passes a step: ``lambda_a`` pushes towards the adapter's style,
    ``lambda_b`` towards the prompt. ``guard`` takes one more for each thing that a reference shows, and keeps it out
    (``sampling.guidance.combine``). With ``guidance_every`` n the passes beside the adapted one run at every n-th step,
    and what they said is held between. Outside ``guidance_from`` to ``guidance_to``, shares of the way, the
    adapted pass is alone (arXiv 2404.07724).

    The larger size is enlarged plainly or, with ``superres_steps``, drawn by super-resolution, with scales of its own
    (StyleDrop, Table S3: 1 and 0). Pocket's is sharper and a little harder to recognise, so it is not the default.
    What is seen small leaves little to chance, and chance frays edges: hence ``superres_plausible``.
    """

    steps: int = setting(12, "Drawing steps: more are slower and finer.", (1, 256))
    temperature: float = setting(
        2.0,  # StyleDrop: 4.5
        "Draw those parts first that the model is surest of, with this much chance in their order: low is uniform and "
        "safe, high is varied and wild.",
        (0, 100),
    )
    strength: float = setting(1.0, "How strongly the adapter acts: 0 not at all, 1 as it was trained.", (0, 10))
    lambda_a: float = setting(
        0.0, "Guidance towards the style. Too high, the content of the reference picture comes back.", (0, 50)
    )
    lambda_b: float = setting(
        1.5, "Guidance towards the prompt. Too high, the base model's own look comes back.", (0, 50)
    )
    guard: float = setting(
        0.0,
        "Keep what the adapter's reference shows out of the pictures; 0 does not. Not where the prompt asks for it.",
        (0, 2),
    )
    ramp: bool = setting(True, "Let both scales of guidance grow linearly over the steps (Muse).")
    plausible: float = setting(
        0.03,
        "Tokens less than this times as likely as the likeliest are not drawn, whatever guidance makes of them.",
        (0, 1),
    )
    negative: str = setting("", "What the pictures should not show.")
    noise: str = setting(
        "position",
        "Random numbers: one a position, or one a token, as upstream draws them.",
        choices=("position", "token"),
    )
    order: str = setting(
        "halton",
        "Which tokens a step keeps: those that the network is surest of, or places spread evenly over the picture.",
        choices=("confidence", "halton"),
    )
    top_k: int = setting(0, "Draw each token among so many of the likeliest; 0 is all.", (0, 1_000_000))
    top_p: float = setting(0.8, "Variety of each part: 0 draws the likeliest, 1 anything that is possible.", (0, 1))
    correct: float = setting(
        0.1,
        "At the end, a token less than this times as likely as the likeliest at its place is replaced by it.",
        (0, 1),
    )
    precision: str = setting(
        "fp32",
        "bf16 draws a published base faster where the processor has bfloat16, and not to upstream's numbers.",
        choices=("fp32", "bf16"),
    )
    guidance_every: int = setting(3, "Compute guidance at every n-th step, and hold it between.", (1, 256))
    guidance_from: float = setting(0.0, "Share of the steps before which there is no guidance.", (0, 1))
    guidance_to: float = setting(1.0, "Share of the steps after which there is no guidance.", (0, 1))
    size: int = setting(
        256,
        "Width and height of the pictures. pocket draws 256 and 128; what is larger than a base draws, up to 4096, "
        "is resampled.",
        (1, 8192),
    )
    seed: int = setting(0, "Seed of the first picture; each further picture adds 1.", (0, LARGEST_SEED))
    superres_steps: int = setting(
        0,
        "Steps of super-resolution, which draws the larger size sharper: 8 are enough. 0 only enlarges.",
        (0, 256),
    )
    superres_lambda_a: float = setting(0.0, "Guidance of super-resolution towards the style.", (0, 50))
    superres_lambda_b: float = setting(0.0, "Guidance of super-resolution towards the prompt.", (0, 50))
    transparent: bool = setting(
        False, "Take the ground out: what is connected to the border and like it becomes transparent, with soft edges."
    )
    holes: str = setting(
        "safe",
        "Areas of the ground's colour that a thing encloses are taken out, too: all, none, or where that is safe: "
        "on a ground that is not white.",
        choices=("safe", "all", "none"),
    )
    superres_plausible: float = setting(0.5, "As `plausible`, for super-resolution.", (0, 1))
    palette: str = setting(
        "",
        'Move the colours of the pictures to these: "#0b3d91,#f2c14e", names of CSS, the main ones of a picture, or '
        "keep, those of what the style was learnt from.",
    )
    palette_strength: float = setting(
        1.0, "How far colours are moved to the palette: at 0 not at all, at 1 flat areas have its colours.", (0, 1)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance_from > self.guidance_to:
            raise UsageError(
                f"guidance_from {exact(self.guidance_from)} is after guidance_to {exact(self.guidance_to)}"
            )


# Settings that go together, by the name of `generate --preset`. "fast" was chosen on pocket (docs/lab/tuning.md);
# "paper" is StyleDrop's (Table S3, base model). A base that takes more steps may have other values, `BaseSpec.presets`.
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
    "preview": {"steps": 6, "guidance_every": 2, "precision": "bf16"},
}


def preset_values(name: str | None) -> dict[str, Any]:
    """The settings of a preset, none without a name; UsageError for an unknown one."""
    if name is None:
        return {}
    if name not in PRESETS:
        raise UsageError(f"there is no preset called '{name}'", f"Choose one of {', '.join(PRESETS)}.")
    return dict(PRESETS[name])


VARIED = 0.5  # the share of a picture's ids that its variations draw anew

# What an adapter's file may recommend of these.
RECOMMENDABLE = ("lambda_a", "lambda_b", "strength", "temperature", "steps")

STYLE, OBJECT = "style", "object"  # what an adapter learns
UNKNOWN_CONTENT = "a picture"  # what a reference is taken to show where nobody says it
ALL_LAYERS, STYLE_LAYERS = "all", "style"  # where an adapter lies
WEIGHTS = (0.001, 1000.0)  # what a reference may count beside the others


def checked_weights(weights: Sequence[float] | None, names: Sequence[object]) -> tuple[float, ...]:
    """How much each of the references ``names`` counts, as they were given; empty where all count alike.

    Raises UsageError for another number of weights than of references, and for one outside ``WEIGHTS``.
    """
    if weights is None:
        return ()
    if len(weights) != len(names):
        raise UsageError(f"{len(names)} pictures but {len(weights)} weights", "Give one for each picture, in order.")
    least, most = WEIGHTS
    if wrong := [f"{exact(w)} ({name})" for name, w in zip(names, weights, strict=True) if not least <= w <= most]:
        raise UsageError(
            f"a picture's weight must be between {exact(least)} and {exact(most)}, not {', '.join(wrong)}",
            "At weight 2 a picture is learnt from twice as often as one at 1; leave out what is not to count.",
        )
    return tuple(map(float, weights)) if len(set(weights)) > 1 else ()


# Kinds of adapter and what fits each: ``width`` is the bottleneck's width, LoRA's rank or the number of text vectors.
KINDS: dict[str, dict[str, float]] = {
    "bottleneck": {"width": 8, "lr": 5e-3},
    "lora": {"width": 4, "lr": 5e-3},
    "prompt": {"width": 16, "lr": 2e-2},
}


@dataclass(frozen=True)
class TrainSettings(Checked):
    """How an adapter is trained; ``of`` fills in what fits its kind.

    ``views`` augmented crops of each reference are tokenized once. At ``checkpoints`` points of the way test pictures
    are drawn, and the best point is what is written, unless ``last``. Those of that point also choose the scales that
    the file recommends, with ``choose_scales``. With ``superres_steps`` the super-resolution transformer, where the
    base has one, gets an adapter of the same kind, trained at ``superres_lr`` (paper: 3.3 times the base's). Drawing
    does without super-resolution unless it is asked for, so training does, too.

    ``learn`` is what the pictures have in common, ``STYLE`` or ``OBJECT`` (StyleDrop, 3.4). Checkpoints are compared by
    their style, so an object has none.
    """

    kind: str = setting(
        "bottleneck", "What is trained: StyleDrop's bottleneck adapters, a LoRA, or learned text vectors."
    )
    steps: int = setting(
        250,
        "Training steps. More bring pictures closer to the reference, and leave less freedom in what they show.",
        (1, 1_000_000),
    )
    lr: float = setting(
        KINDS["bottleneck"]["lr"],
        "Learning rate. Too high, the reference's content is copied; too low, it learns slowly.",
        (1e-8, 1),
    )
    batch_size: int = setting(8, "Crops a step.", (1, 4096))
    width: int = setting(
        int(KINDS["bottleneck"]["width"]),
        "Width of the bottlenecks, rank of the LoRA, or number of text vectors.",
        (1, 4096),
    )
    shared: bool = setting(False, "Whether all layers share one bottleneck (the paper, on a base 100 times larger).")
    targets: tuple[str, ...] = setting(
        ("to_q", "to_k", "to_v"),
        "The attention's matrices that a LoRA changes: some of to_q, to_k, to_v and to_out, separated by commas.",
    )
    views: int = setting(64, "Augmented crops of each reference.", (1, 100_000))
    seed: int = setting(0, "The same seed trains the same.", (0, LARGEST_SEED))
    checkpoints: int = setting(
        5,
        "How many points of the training are compared by test pictures, which lie in FILE.run/; 0 draws none.",
        (0, 100),
    )
    last: bool = setting(False, "Keep the last step instead of the best.")
    lambda_a: float = setting(
        SampleSettings.lambda_a, "Guidance towards the style that the file recommends for drawing.", (0, 50)
    )
    lambda_b: float = setting(
        SampleSettings.lambda_b, "Guidance towards the prompt that the file recommends for drawing.", (0, 50)
    )
    choose_scales: bool = setting(
        True, "Whether the test pictures choose both scales of guidance; if not, the file recommends those above."
    )
    superres_steps: int = setting(
        0, "Training steps of super-resolution's own adapter; 0 leaves it out.", (0, 1_000_000)
    )
    superres_lr: float = setting(5e-3, "Learning rate of super-resolution's own adapter.", (1e-8, 1))
    learn: str = setting(STYLE, "What the pictures have in common: their style, or an object.")
    layers: str = setting(
        ALL_LAYERS,
        "The layers of the base that are adapted: all, style (those that carry style, where that was measured), or "
        "their numbers from 1 on, such as 4-6 or 1,3-5.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.layer_numbers  # which says what is wrong with them
        if self.learn not in (STYLE, OBJECT):
            raise UsageError(f"there is no learning of '{self.learn}'", f"Choose {STYLE} or {OBJECT}.")
        if self.learn == OBJECT and self.checkpoints:
            raise UsageError(
                f"checkpoints are compared by their style, of which an {OBJECT} has none", "Leave --checkpoints out."
            )

    @property
    def layer_numbers(self) -> tuple[int, ...]:
        """The numbers that ``layers`` names, in order, none for all.

        ``base.training`` puts numbers in the place of ``STYLE_LAYERS``; left in it, it stands for all. Raises
        UsageError for what names no layers.
        """
        if self.layers in (ALL_LAYERS, STYLE_LAYERS):
            return ()
        found: set[int] = set()
        for part in self.layers.split(","):
            ends = re.fullmatch(r"\s*([1-9]\d{0,2})(?:\s*-\s*([1-9]\d{0,2}))?\s*", part)
            first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
            if last < first:
                raise UsageError(
                    f"'{self.layers}' names no layers: '{part.strip()}' is neither a number from 1 on nor from-to",
                    f"Say numbers as 4-6 or 1,3-5, {STYLE_LAYERS} or {ALL_LAYERS}.",
                )
            found |= set(range(first, last + 1))
        return tuple(sorted(found))

    @classmethod
    def of(cls, kind: str, **given: Any) -> TrainSettings:
        """The settings that fit ``kind``, with what is ``given`` in their place; UsageError for an unknown kind."""
        if kind not in KINDS:
            raise UsageError(f"there is no kind of adapter called '{kind}'", f"Choose one of {', '.join(KINDS)}.")
        suits: dict[str, Any] = {"checkpoints": 0} if given.get("learn") == OBJECT else {}
        if {"lambda_a", "lambda_b"} & given.keys():
            suits["choose_scales"] = False
        return cls(**({"kind": kind} | KINDS[kind] | suits | given))


SUPERRES_STEPS = 100  # what super-resolution's own adapter is trained for if it is wanted

SEEDS_OF_ROUND = 1000  # so far are the seeds of a round from those of the round before


@dataclass(frozen=True)
class RoundSettings(Checked):
    """How rounds of feedback go.

    Each round draws ``per_prompt`` pictures of each prompt (StyleDrop: 64), keeps ``keep`` of them, and trains a new
    adapter for ``steps`` on these and the references. What was learnt from many things can be drawn more strongly
    without showing any of them: a round's adapter recommends ``lambda_a`` at least.
    """

    rounds: int = setting(1, "How many rounds of feedback to add.", (1, 100))
    per_prompt: int = setting(8, "How many pictures of each prompt to draw and pick from.", (1, 1000))
    keep: int = setting(0, "How many pictures to pick and train on.", (0, 100_000))  # 0: one of each prompt
    steps: int = setting(TrainSettings.steps, "Training steps of each round.", (1, 1_000_000))
    pool_lambda_a: float = setting(
        0.25, "How much more guidance towards the style than recommended the pool is drawn with.", (0, 50)
    )
    lambda_a: float = setting(0.25, "Guidance towards the style that a round's adapter recommends at least.", (0, 50))
    seed: int = setting(0, "The same seed draws and trains the same.", (0, LARGEST_SEED))

    def __post_init__(self) -> None:
        super().__post_init__()
        seeds_from(self.seed, SEEDS_OF_ROUND * self.rounds + self.per_prompt)


CHECKPOINT = "checkpoint"  # an axis of a sweep: its values are steps of the training


@dataclass(frozen=True)
class SweepSettings(Checked):
    """What a sweep compares: ``prompts``, each with ``number`` seeds from ``seed`` on, at every combination of values.

    ``axes`` has the values by name, which is one of ``RECOMMENDABLE`` or ``CHECKPOINT``. An axis of one value just sets
    it. At most two have more: a sheet has rows and columns.
    """

    axes: Mapping[str, Sequence[float]]
    prompts: Sequence[str]
    number: int = setting(4, "Pictures of each prompt in each cell.", (1, 1000))
    seed: int = setting(0, "Seed of the first picture; each further picture adds 1.", (0, LARGEST_SEED))

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
