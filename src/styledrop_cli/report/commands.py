"""The commands that make it all again, as they are typed."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from styledrop_cli.feedback.liked import NAME as LIKED
from styledrop_cli.generation.lists.wildcards import escaped
from styledrop_cli.io.run_names import ROUNDS
from styledrop_cli.io.text_files import CONTROLS
from styledrop_cli.report.history import Stage, Story
from styledrop_cli.settings import SUPERRES_STEPS, RoundSettings, TrainSettings

# The settings that have an option of their name.
TRAIN = ("kind", "steps", "lr", "width", "targets", "layers", "checkpoints", "last", "lambda_a", "lambda_b", "seed")
ROUND = ("per_prompt", "keep", "steps", "seed")
FEEDBACK = ("clip", "human", "terminal", "random")


def commands(story: Story, prompts: Sequence[str], built_in: Sequence[str], model: str, report: str) -> list[str]:
    """A command a line, from the reference to this report; lines that begin with # say what no command says.

    ``prompts`` is empty or a file's name, ``built_in`` the prompts that rounds take by themselves, ``model`` is what
    --model was given.
    """
    adapter, base = "adapter.safetensors", [] if model == "pocket" else ["--model", model]
    first = story.stages[0]
    if first.header.number == 1:
        make = _merging if first.header.merged else _training
        lines = make(first, [*base, "-o", adapter])
    else:
        adapter = first.file.name
        lines = ["# what came before is not here: this adapter is of a later round"]
    target = adapter
    if len(story.stages) > 1:
        target = f"adapter{ROUNDS}"
        lines += _rounds(story, adapter, built_in, [*base, "-o", target])
    asked = ["--prompts", "prompts.txt"] if prompts else []
    if prompts:
        lines.append(f"# prompts.txt holds, a line each: {' / '.join(map(escaped, prompts))}")
    lines.append(_line("report", [target, *asked, *base, *report.split()]))
    # A file's words may hold the end of a line, and what stood behind it would be a command of its own.
    return [CONTROLS.sub(" ", line) for line in lines]


def _merging(stage: Stage, rest: list[str]) -> list[str]:
    parts = [one for one in stage.header.merged if isinstance(one, dict)]
    words = [f"{one.get('name')}:{one.get('weight')}" for one in parts]
    return [_line("merge", [*words, "--style", escaped(str(stage.header.style)), *rest])]


def _training(stage: Stage, rest: list[str]) -> list[str]:
    header, settings = stage.header, stage.header.settings
    pictures = [str(p.get("name", "reference.png")) for p in header.pictures]
    weights = [f":{weight:g}" for weight in header.weights] or [""] * len(pictures)
    named = [f"{name}{weight}" for name, weight in zip(pictures, weights, strict=True)]
    words = [*named, "--style", escaped(str(header.style))]
    for content in header.contents[: len(pictures)]:
        words += ["--content", escaped(str(content))]
    usual = asdict(TrainSettings.of(str(settings.get("kind", TrainSettings.kind))))
    usual["kind"] = TrainSettings.kind
    finer = settings.get("superres_steps") == SUPERRES_STEPS  # that many have an option of another name
    rest = ["--superres", *rest] if finer else rest
    given, unsaid = _options({n: v for n, v in settings.items() if not finer or n != "superres_steps"}, usual, TRAIN)
    return [*unsaid, _line("train", [*words, *given, *rest])]


def _rounds(story: Story, adapter: str, built_in: Sequence[str], rest: list[str]) -> list[str]:
    settings, later = story.rounds or {}, story.stages[1:]
    lines, words = [], [adapter, "--rounds", str(len(later))]
    who = [str(stage.header.feedback) for stage in later]
    if who == [LIKED]:
        stage = later[0]
        words = [adapter]
        for number in range(1, len(stage.picks) + 1):
            words += ["--liked", str(stage.file.parent / "picks" / f"{number:04d}.png")]
        return [_line("iterate", [*words, *_options(settings, asdict(RoundSettings()), ROUND)[0], *rest])]
    if set(who) <= set(FEEDBACK):
        if set(who) != {"clip"}:
            words += ["--feedback", ",".join(who)]
    else:
        lines.append(f"# picked by {', '.join(who)}: the numbers are in each round's picks.json")
        for stage in later:
            words += ["--picks", f"picks-{stage.header.number}.txt"]
    asked = [str(prompt) for prompt in settings.get("prompts", [])]
    if asked and asked != list(built_in):
        lines.append(f"# subjects.txt holds, a line each: {' / '.join(map(escaped, asked))}")
        words += ["--prompts", "subjects.txt"]
    given, unsaid = _options(settings, asdict(RoundSettings()), ROUND)
    return [*lines, *unsaid, _line("iterate", [*words, *given, *rest])]


def _options(
    settings: Mapping[str, Any], usual: Mapping[str, Any], names: Collection[str]
) -> tuple[list[str], list[str]]:
    """Options for what differs from the defaults, and a remark for each difference that has no option."""
    words: list[str] = []
    unsaid: list[str] = []
    for name, value in settings.items():
        value = tuple(value) if isinstance(value, list) else value
        if name not in usual or value == usual[name]:
            continue
        if name not in names:
            unsaid.append(f"# {name} was {value}, for which there is no option")
        elif value is not False:
            words.append(f"--{name.replace('_', '-')}")
            if value is not True:
                words.append(",".join(map(str, value)) if isinstance(value, tuple) else f"{value}")
    return words, unsaid


def _line(command: str, words: Sequence[str]) -> str:
    return f"styledrop {command} {shlex.join(words)}"
