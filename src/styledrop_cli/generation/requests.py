"""From lines of prompts to the pictures that are wanted, and the names of their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from styledrop_cli.base.base import Base
from styledrop_cli.generation.lists.file_names import stem
from styledrop_cli.generation.lists.prompt_file import Line
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.generation.resolve import settings_of, within_reach
from styledrop_cli.settings import SampleSettings


def requests_of(
    base: Base,
    mixture: StyleMix,
    pictures: Sequence[tuple[Line, str, int]],
    chosen: Mapping[str, Any],
    style: str | None,
    pattern: str,
    on_message: Callable[[str], None],
) -> tuple[list[PictureRequest], list[str]]:
    """What each picture is to be, by its line, prompt and seed, and its file's name, by ``pattern`` without a suffix.

    A line's own settings and style go before those ``chosen`` for all, and its own ``style``.
    """
    cut = cache(lambda text, style: mixture.cut(base, text, style, on_message))  # thousands of pictures may share one
    made: dict[str, SampleSettings] = {}
    wanted: list[PictureRequest] = []
    stems: list[str] = []
    for index, (line, prompt, seed) in enumerate(pictures):
        own = {key: value for key, value in line.options.items() if key in SampleSettings.defaults() and key != "seed"}
        if repr(own) not in made:
            settings = settings_of(base, mixture, chosen, within_reach(base, own, on_message))
            made[repr(own)] = replace(settings, negative=cut(settings.negative, ""))
        its_style = line.options.get("style", style)
        said_style = mixture.style if its_style is None else its_style
        prompt = cut(prompt, its_style)
        wanted.append(PictureRequest(prompt, seed, made[repr(own)], its_style))
        called = line.options.get("name")
        stems.append(stem(pattern, prompt=prompt, seed=seed, index=index + 1, name=called, style=said_style))
    return wanted, stems
