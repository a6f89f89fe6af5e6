"""What comes out of a run: tables of every style and group of styles, and sheets of what was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from paired.families import HELD_OUT, HeldOut
from paired.measures import MEASURES, Cells, Estimate, estimates, markdown, written
from paired.rows import BASE, FIRST, PROMPTS, REAL, TOKENIZED, Reference, Studio, references
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.images import to_image

if TYPE_CHECKING:
    from PIL.Image import Image

Groups = dict[str, dict[str, dict[str, Estimate]]]  # of each group of styles, row and measure


@dataclass
class Measured:
    """Of each row: its cells ``[S,R,P,K]`` of each measure, and its first seed's pictures of each reference."""

    cells: dict[str, Cells] = field(default_factory=dict)
    pictures: dict[str, dict[Reference, Tensor]] = field(default_factory=dict)


# ---- tables -------------------------------------------------------------------------------------


def groups_of(styles: Sequence[HeldOut]) -> dict[str, list[int]]:
    """Every style alone, and the development and the report-only ones together: places in ``styles``."""
    groups = {style.name: [i] for i, style in enumerate(styles)}
    for name, development in (("development", True), ("report-only", False)):
        members = [i for i, style in enumerate(styles) if style.development == development]
        if len(members) > 1:
            groups[name] = members
    return groups


def tables(found: Groups, against: str) -> str:
    """The tables of all groups, in markdown."""
    parts = []
    for group, rows in found.items():
        lines = [
            [row, *(written(name, values[name], row != against) for name in MEASURES)] for row, values in rows.items()
        ]
        parts.append(f"**{group}**\n\n{markdown(['row', *MEASURES], lines)}\n")
    return "\n".join(parts)


def against_first(cells: Mapping[str, Cells], styles: Sequence[HeldOut]) -> str:
    """What a second round changes: its rows against round 1 instead of the base."""
    rows = {row: values for row, values in cells.items() if row == BASE or row.startswith("round")}
    found = {
        f"{group}, against {FIRST}": {
            row: values for row, values in estimates(rows, members, BASE, FIRST).items() if row != BASE
        }
        for group, members in groups_of(styles).items()
        if len(members) > 1 or len(styles) == 1
    }
    return tables(found, FIRST)


# ---- sheets -------------------------------------------------------------------------------------


def sheet(measured: Measured, studio: Studio, of_style: Sequence[Reference], things: Sequence[str]) -> Image:
    """Per reference a line of pictures for each row, the reference before them; the true ones come last."""
    images, labels = [], []
    rows = [row for row in measured.pictures if row not in (REAL, TOKENIZED)]
    rows += [REAL] if REAL in measured.pictures else []
    for reference in of_style:
        picture = to_image(studio.true(reference, [reference.thing])[0])
        for row in rows:
            images += [picture, *(to_image(p) for p in measured.pictures[row][reference])]
            words = [studio.art.words[thing] for thing in things]
            labels += [f"after {studio.art.words[reference.thing]}: {row}", *words]
    return contact_sheet(images, len(things) + 1, labels, of_style[0].style.name, cell=112)


def families_sheet(studio: Studio) -> Image:
    """What the held-out styles look like: two references' artists each, drawing the same things."""
    images, labels = [], []
    things = [thing for thing in PROMPTS if thing in studio.art.things][:8]
    for style in HELD_OUT.values():
        for reference in references(style, 2 if style.draw else 1, studio.art):
            images += [to_image(p) for p in studio.true(reference, things)]
            labels += [style.name, *[""] * (len(things) - 1)]
    return contact_sheet(images, len(things), labels, cell=112)
