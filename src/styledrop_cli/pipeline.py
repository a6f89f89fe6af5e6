"""From prompts, a base and perhaps an adapter to pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from styledrop_cli.adapters import open_adapter
from styledrop_cli.base import Base
from styledrop_cli.checkpoints import AdapterFile
from styledrop_cli.errors import UsageError
from styledrop_cli.images import to_image
from styledrop_cli.settings import SampleSettings
from styledrop_cli.text import with_style

if TYPE_CHECKING:
    from PIL.Image import Image


def generate(
    base: Base,
    adapter: AdapterFile | None,
    *,
    prompts: list[str],
    count: int,
    settings: SampleSettings,
    style: str | None = None,
    on_step: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[str, int, Image]]:
    """Draw ``count`` pictures of each prompt, yielding ``(prompt, seed, picture)`` as they are done.

    The adapter's own style text is appended to each prompt; ``style`` replaces it, empty leaves it out. The i-th
    picture of every prompt has seed ``settings.seed + i`` and does not depend on its neighbours. ``on_step`` is told
    after each step what share in [0,1] of all pictures' steps is taken. Raises ModelError if the adapter is not this
    base's, UsageError for a size that the base does not draw, or not by super-resolution.
    """
    if settings.size not in base.sizes:
        known = " or ".join(str(s) for s in base.sizes)
        raise UsageError(f"{base.name} draws {known} px, not {settings.size}", f"Choose --size {base.sizes[-1]}.")
    if settings.superres_steps and (base.superres is None or settings.size != base.sizes[-1]):
        why = (
            "has no super-resolution" if base.superres is None else f"draws {settings.size} px without super-resolution"
        )
        raise UsageError(f"{base.name} {why}", "Leave --superres-steps out.")
    opened = open_adapter(base, adapter) if adapter is not None else None
    if style is None:
        style = str(adapter.header.get("style", "")) if adapter is not None else ""
    work = [(prompt, settings.seed + i) for prompt in prompts for i in range(count)]
    for start in range(0, len(work), base.batch):
        chunk = work[start : start + base.batch]
        texts = [with_style(prompt, style) for prompt, _ in chunk]
        seeds = [seed for _, seed in chunk]

        def step_taken(step: int, ids: Tensor, start: int = start, number: int = len(chunk)) -> None:
            on_step((start + number * (step + 1) / settings.steps) / len(work))

        ids = base.sample(texts, seeds, settings, opened.base if opened else None, step_taken)
        if settings.superres_steps:
            ids = base.refine(ids, texts, seeds, settings, opened.superres if opened else None)
        base.done_with("transformer")
        for (prompt, seed), row in zip(chunk, ids, strict=True):
            # One by one: a convolution over another batch size rounds differently, and the bytes should not change.
            yield prompt, seed, to_image(base.pictures(row[None], settings.size)[0].cpu())
        base.done_with("tokenizer")
