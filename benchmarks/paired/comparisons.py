"""What is compared: settings and styles, read from the words of a command line."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paired.families import HELD_OUT, HeldOut
from styledrop_cli.base.base import Base
from styledrop_cli.errors import UsageError
from styledrop_cli.settings import RoundSettings, SampleSettings, TrainSettings

DEFAULT = "default"
# Names that both kinds of settings have, and whose is meant where nothing is said.
MEANT = {"steps": "train", "seed": "train", "lambda_a": "sample", "lambda_b": "sample"}
KINDS: dict[str, type[TrainSettings] | type[SampleSettings] | type[RoundSettings]] = {
    "train": TrainSettings,
    "sample": SampleSettings,
    "round": RoundSettings,
}
Values = dict[str, list[Any]]  # of each setting, `train.steps`, what is tried


@dataclass(frozen=True)
class Combination:
    """One row of a comparison: what differs from the defaults, in words, and all settings."""

    name: str
    training: TrainSettings
    sampling: SampleSettings
    feedback: RoundSettings


# ---- settings -----------------------------------------------------------------------------------


def read_values(given: Sequence[str]) -> Values:
    """``["steps=150,250"]`` as ``{"train.steps": [150, 250]}``; raises UsageError for unknown names and odd values."""
    found: Values = {}
    for text in given:
        name, _, values = text.partition("=")
        kind, _, bare = name.strip().replace("-", "_").rpartition(".")
        kind = kind or MEANT.get(bare) or next((k for k, of in KINDS.items() if bare in of.defaults()), "")
        if kind not in KINDS or bare not in KINDS[kind].defaults():
            known = sorted({one for of in KINDS.values() for one in of.defaults()})
            raise UsageError(f"there is no setting called '{name}'", _nearest(bare, known))
        if (kind, bare) == ("sample", "seed"):
            raise UsageError("the pictures' seeds are counted, not set", "Say how many with --seeds.")
        default = KINDS[kind].defaults()[bare]
        try:
            found[f"{kind}.{bare}"] = [_value(value.strip(), default) for value in values.split(",")]
        except ValueError:
            raise UsageError(f"--set {text}: {bare} takes values like {_written(default)}") from None
    return found


def _value(text: str, default: object) -> Any:
    """``text`` as a value of the default's type; ValueError if it is none."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(default, tuple):
        return tuple(text.split("+"))
    if isinstance(default, int | float | str):
        return type(default)(text)
    raise ValueError(text)


def _written(value: object) -> str:
    """A value as ``--set`` takes it."""
    if isinstance(value, tuple):
        return "+".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the names that are spelled like ``name``, or all of them."""
    spelled = {one.lower(): one for one in known}
    near = [f"'{spelled[match]}'" for match in difflib.get_close_matches(name.lower(), spelled)]
    return f"Did you mean {' or '.join(near)}?" if near else f"Choose among {', '.join(spelled.values())}."


def comparing(values: Values) -> bool:
    """Whether settings are compared: one of them has several values."""
    return any(len(options) > 1 for options in values.values())


def combinations(values: Values, base: Base, size: int, one_at_a_time: bool) -> list[Combination]:
    """The base's default at a size, then every combination of values, or every value alone; each once."""
    if one_at_a_time:
        fixed = {name: options[0] for name, options in values.items() if len(options) == 1}
        chosen = [fixed | {n: v} for n, options in values.items() for v in options if len(options) > 1]
    else:
        chosen = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
    made: dict[object, Combination] = {}
    for one in ({}, *chosen):
        combination = _combination(one, base, size)
        made.setdefault((combination.training, combination.sampling, combination.feedback), combination)
    return list(made.values())


def _combination(chosen: Mapping[str, Any], base: Base, size: int) -> Combination:
    def part(kind: str) -> dict[str, Any]:
        return {name.partition(".")[2]: v for name, v in chosen.items() if name.startswith(f"{kind}.")}

    given = part("train")
    training = base.training(given.pop("kind", TrainSettings.kind), **given)
    # An adapter is drawn with at the scales that its file recommends.
    recommended = {"lambda_a": training.lambda_a, "lambda_b": training.lambda_b, "size": size}
    sampling = base.sampling(**(recommended | part("sample")))
    words = " ".join(f"{_shown(n)}={_written(v)}" for n, v in chosen.items())
    return Combination(words or DEFAULT, training, sampling, RoundSettings(**part("round")))


def _shown(name: str) -> str:
    kind, _, bare = name.partition(".")
    return bare if MEANT.get(bare, kind) == kind else name


# ---- styles -------------------------------------------------------------------------------------


def chosen_styles(text: str | None, values: Values) -> list[HeldOut]:
    """``development``, ``report``, ``all`` or names between commas; all if nothing is said.

    Raises UsageError for another name, and for report-only styles where settings are compared.
    """
    everything = list(HELD_OUT.values())
    groups = {
        "all": everything,
        "development": [s for s in everything if s.development],
        "report": [s for s in everything if not s.development],
    }
    text = text or ("development" if comparing(values) else "all")
    chosen = groups.get(text.strip().lower()) or _named(text.split(","), [*groups, *HELD_OUT])
    if comparing(values) and not all(style.development for style in chosen):
        raise UsageError(
            "settings are compared on the development styles only",
            "Say --styles development, or give each setting one value.",
        )
    return chosen


def _named(wanted: Iterable[str], choices: Sequence[str]) -> list[HeldOut]:
    by_name = {name.lower(): style for name, style in HELD_OUT.items()}
    names = [name.strip().lower() for name in wanted]
    for name in names:
        if name not in by_name:
            raise UsageError(f"there is no held-out style called '{name}'", _nearest(name, choices))
    return [by_name[name] for name in dict.fromkeys(names)]
