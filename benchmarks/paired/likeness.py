"""How well a measure of likeness knows a style: the true pictures of the held-out styles say what is like what.

After each reference, true pictures of other things in its style are ranked against pictures in other styles. A good
measure puts the style first. The raw cosine is misled by what the pictures show, most of all by the reference's own
thing in another style, which is what a leak looks like; the calibrated one should not be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paired.art import Art, Look
from paired.families import HELD_OUT
from paired.measures import markdown
from paired.renders import shrunk
from paired.rows import OUTLINES, PROMPTS, REFERENCE_SIZE, Reference
from styledrop_cli.base.base import Base
from styledrop_cli.devices import generator
from styledrop_cli.judging.csls import Calibration
from styledrop_cli.judging.scores import ClipScorer

# Against which pictures: of other held-out styles, of every other style, of the reference's own thing in these.
AGAINST = ("held-out styles", "all styles", "the reference's thing")
MEASURES = ("likeness", "csls")
OTHER_SEED = 31  # so that no two styles share their random parameters
BATCH = 64


@dataclass(frozen=True)
class Pictures:
    """Of one reference, all ``[N,3,S,S]`` in [0,1]: itself, true pictures in its style, and others by style.

    The last of each style's others shows the reference's own thing.
    """

    reference: Tensor
    true: Tensor
    others: Mapping[str, Tensor]


def pictures_of(reference: Reference, looks: Mapping[str, Look], art: Art, size: int) -> Pictures:
    """Draw them; the others take their outlines from the other family, so that no outline gives a style away."""
    things = [thing for thing in PROMPTS if thing in art.things]
    other = next(family for family in OUTLINES if family != reference.family)

    def drawn(look: Look, family: str, names: Sequence[str], seed: int) -> Tensor:
        ground = torch.ones(1, 3, REFERENCE_SIZE, REFERENCE_SIZE)
        parts = [
            look(art.rgba([(look.family or family, name)], REFERENCE_SIZE), ground, generator(seed)) for name in names
        ]
        return shrunk(torch.cat(parts), size)

    own = looks[reference.style.name]
    return Pictures(
        drawn(own, reference.family, [reference.thing], reference.seed),
        drawn(own, reference.family, things, reference.seed),
        {
            name: drawn(look, other, [*things, reference.thing], reference.seed + OTHER_SEED)
            for name, look in looks.items()
            if name != reference.style.name
        },
    )


def ranked_first(ours: Tensor, theirs: Tensor) -> float:
    """How often one of ``ours`` scores above one of ``theirs``, ties half counted: the area under the ROC curve."""
    above = (ours[:, None] > theirs[None]).float() + 0.5 * (ours[:, None] == theirs[None]).float()
    return float(above.mean())


def compare(
    base: Base,
    scorers: Mapping[str, ClipScorer],
    looks: Sequence[Look],
    references: Sequence[Reference],
    art: Art,
    on_progress: Callable[[float, str], None],
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """By CLIP, measure and kind of other pictures: ``ranked_first`` after each of ``references``, in order."""
    by_name = {look.name: look for look in looks}
    calibrations = {name: Calibration(clip_scorer) for name, clip_scorer in scorers.items()}
    found: dict[str, dict[str, dict[str, list[float]]]] = {
        clip_scorer: {measure: {kind: [] for kind in AGAINST} for measure in MEASURES} for clip_scorer in scorers
    }
    for place, reference in enumerate(references):
        on_progress(place / len(references), f"{reference.style.name}, {reference.thing}")
        shown = pictures_of(reference, by_name, art, base.sizes[0])
        for name, clip_scorer in scorers.items():
            wanted = _embeds(clip_scorer, shown.reference)
            true = _embeds(clip_scorer, shown.true)
            others = {style: _embeds(clip_scorer, pictures) for style, pictures in shown.others.items()}
            kinds = {
                AGAINST[0]: torch.cat([e for style, e in others.items() if style in HELD_OUT]),
                AGAINST[1]: torch.cat(list(others.values())),
                AGAINST[2]: torch.cat([e[-1:] for e in others.values()]),
            }
            for kind, these in kinds.items():
                raw = ranked_first((true @ wanted.T)[:, 0], (these @ wanted.T)[:, 0])
                calibration = calibrations[name]
                calibrated = ranked_first(calibration.likeness(true, wanted), calibration.likeness(these, wanted))
                found[name]["likeness"][kind].append(raw)
                found[name]["csls"][kind].append(calibrated)
    on_progress(1.0, f"{len(references)} references")
    return found


def table(found: Mapping[str, Mapping[str, Mapping[str, list[float]]]], references: Sequence[Reference]) -> str:
    """Means over the references of the development styles and of the report-only ones, in per cent, as markdown."""
    rows = []
    for group, development in (("development", True), ("report-only", False)):
        members = [i for i, reference in enumerate(references) if reference.style.development == development]
        if members:
            for clip_scorer, measures in found.items():
                for measure, kinds in measures.items():
                    shares = [100 * sum(kinds[kind][i] for i in members) / len(members) for kind in AGAINST]
                    rows.append([group, clip_scorer, measure, *(f"{share:.1f}" for share in shares)])
    return markdown(["styles", "by", "measure", *AGAINST], rows)


@torch.no_grad()
def _embeds(clip_scorer: ClipScorer, pictures: Tensor) -> Tensor:
    return torch.cat([clip_scorer.picture_embeds(chunk).float().cpu() for chunk in pictures.split(BATCH)])
