"""What each of several references brought: how often it was learnt from, how well, and how near pictures come to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from styledrop_cli.adapters.file import references_of
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base.base import Base
from styledrop_cli.report.grade import TOLD, Estimate, Graded, estimate
from styledrop_cli.report.history import Story
from styledrop_cli.settings import TrainSettings
from styledrop_cli.training.adapter import losses_of_each

MOST_TURNS = 1_000_000  # crops of a training that are counted: beyond, shares change no more


@dataclass(frozen=True)
class Brought:
    """One reference and one adapter that learnt from it.

    ``share`` in [0,1] is how many of all crops of the training were its own, None where that is not known: what was
    merged was not trained as it is. ``before`` and ``after`` are the training's loss on crops of it, without the
    adapter and with it. ``told`` and ``near`` are the likeness of style, in [-4,4], of the report's pictures to it
    alone, of those that were told the style in words and of the adapter's; at 0 they are no nearer than to pictures of
    other styles.
    """

    name: str
    content: str
    weight: float
    share: float | None
    before: float
    after: float
    told: Estimate
    near: Estimate


def brought(base: Base, story: Story, graded: Graded) -> dict[str, list[Brought]]:
    """Of each stage, by its name, what each of the references brought; nothing where there is only one."""
    if not graded.near:
        return {}
    found = {}
    for stage in story.stages:
        file = load_adapter(stage.file)
        examples, header, told = references_of(file), file.header, graded.near[TOLD]
        shares: list[float | None] = [None] * examples.references
        if not header.merged:
            step = header.step or header.settings.get("steps")
            batch = header.settings.get("batch_size", TrainSettings.batch_size)
            if type(step) is int and type(batch) is int and step * batch > 0:
                owners = examples.owners(torch.arange(min(step * batch, MOST_TURNS)))
                counts = torch.bincount(owners, minlength=examples.references)
                shares = (counts.double() / len(owners)).tolist()[: examples.references]
        weights = examples.weights or (1.0,) * examples.references
        losses, near = losses_of_each(base, file), graded.near[stage.name]
        found[stage.name] = [
            Brought(
                str(header.pictures[i].get("name", "")),
                examples.contents[i],
                weights[i],
                shares[i],
                *losses[i],
                estimate(told[..., i], told[..., i] - told[..., i]),
                estimate(near[..., i], near[..., i] - told[..., i]),
            )
            for i in range(min(examples.references, told.shape[-1]))
        ]
    return found
