"""Collections: many subjects, each the best of several pictures of it, into one folder and onto one sheet.

The base's own CLIP says which picture shows a subject best. Only that one is kept, with the seed that draws it again.
A subject whose picture is there already is not drawn again (see ``output_folder``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import words
from styledrop_cli.generation import pipeline
from styledrop_cli.generation.output_folder import (
    Batch,
    about,
    about_mixture,
    identity,
    paths_there,
    said_in,
    write_sheets,
)
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.io.images import to_tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def sees_pictures(base: Base) -> bool:
    """Whether the base's CLIP can see pictures, and so choose: a published one reads only texts."""
    return base.clip.visual is not None


class Chooser:
    """Judges with the base's own CLIP what a picture shows, among the texts ``known``: what it might show instead.

    Without ``colours`` it sees all in grey, for what is asked for in no colour: a CLIP that was taught a letter in red
    prefers a picture with red in it.
    """

    def __init__(self, base: Base, known: Sequence[str], colours: bool = True) -> None:
        self._base, self._known, self._colours = base, list(known), colours
        self._said = [set(words(text)) for text in known]
        self._texts = base.text_embeds(self._known) if self._known else torch.empty(0)

    @torch.no_grad()
    def chances(self, pictures: Sequence[Image], prompt: str) -> Tensor:
        """How surely each of N pictures shows the prompt and nothing else that is known, ``[N]`` in [0,1]."""
        asked = set(words(prompt))
        # "a red cat" is "a cat" too: a text with no words beside the prompt's is no other answer.
        others = [index for index, said in enumerate(self._said) if not said <= asked]
        texts = self._base.text_embeds([prompt])
        if others:
            texts = torch.cat([texts, self._texts[others]])
        shown = torch.stack([to_tensor(one) for one in pictures]).to(self._base.device)
        if not self._colours:
            shown = shown.mean(1, keepdim=True).expand_as(shown)
        return self._base.chances(self._base.picture_embeds(shown), texts)[:, 0].float().cpu()


@dataclass(frozen=True)
class Thing:
    """One picture of a collection: the best of ``candidates``, which differ by their seeds alone.

    ``stem`` names its file. ``shape`` brings the chosen picture to another shape, of which its file says ``more``.
    """

    stem: str
    candidates: Sequence[PictureRequest]
    shape: Callable[[Image], Image] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class Collection:
    """The pictures of all ``things`` that are to lie in ``folder``, by number."""

    def __init__(self, base: Base, mixture: StyleMix, things: Sequence[Thing], folder: Path) -> None:
        self.things, self.folder = things, folder
        self._base, self._mixture = base, mixture
        self._drawn_by = about_mixture(base, mixture)
        found = ((index, self._find(index)) for index in range(len(things)))
        self._made = {index: one for index, one in found if one}  # which candidate, and where it is

    @property
    def missing(self) -> list[int]:
        """The things that are yet to be drawn."""
        return [index for index in range(len(self.things)) if index not in self._made]

    @property
    def paths(self) -> list[Path]:
        """Where each picture is, once none is missing."""
        return [self._made[index][1] for index in range(len(self.things))]

    def wanted(self, index: int) -> PictureRequest:
        """The candidate that was chosen, once a picture is there."""
        return self.things[index].candidates[self._made[index][0]]

    def about(self, index: int, candidate: int | None = None) -> dict[str, Any]:
        """What the file of a picture says if this ``candidate`` is chosen; by default, the one that was."""
        thing = self.things[index]
        wanted = self.wanted(index) if candidate is None else thing.candidates[candidate]
        of = {"best_of": len(thing.candidates)} if len(thing.candidates) > 1 else {}
        return {**about(self._base, wanted, self._mixture, self._drawn_by), **of, **thing.more}

    def _find(self, index: int) -> tuple[int, Path] | None:
        """A thing's picture that is there already: which of the candidates it is, and where."""
        thing = self.things[index]
        possible = [identity(self.about(index, candidate)) for candidate in range(len(thing.candidates))]
        for path in paths_there(self.folder, thing.stem, self.about(index, 0)):
            if (said := identity(said_in(path))) in possible:
                return possible.index(said), path
        return None

    def _as_drawn(self, wanted: PictureRequest) -> PictureRequest:
        """A candidate as it is judged, and shaped if it is chosen: not enlarged yet, and on its ground."""
        size = pipeline.drawn_size(self._base, wanted.settings)
        return replace(wanted, settings=replace(wanted.settings, size=size, transparent=False))

    def draw(
        self, chooser: Chooser | None, on_step: Callable[[float], None] = lambda share: None
    ) -> Iterator[tuple[int, Image]]:
        """Draw what is missing, yielding ``(which thing, its picture)`` as it is written.

        The ``chooser`` is needed where there are several candidates; among equally likely ones the first is taken.
        ``on_step`` is told what share in [0,1] of all steps is taken. Raises as ``pipeline.draw`` does.
        """
        missing = self.missing
        whose = [(index, candidate) for index in missing for candidate in range(len(self.things[index].candidates))]
        wanted = [self._as_drawn(self.things[index].candidates[candidate]) for index, candidate in whose]
        drawn: dict[int, dict[int, Image]] = {}
        for place, image in pipeline.draw(self._base, self._mixture, wanted, on_step):
            index, candidate = whose[place]
            thing, pictures = self.things[index], drawn.setdefault(index, {})
            pictures[candidate] = image
            if len(pictures) < len(thing.candidates):
                continue
            del drawn[index]
            every = [pictures[candidate] for candidate in range(len(pictures))]
            best = int(chooser.chances(every, wanted[place].prompt).argmax()) if chooser and len(every) > 1 else 0
            picture = thing.shape(every[best]) if thing.shape else every[best]
            picture = pipeline.finished(self._base, picture, thing.candidates[best].settings)
            said = self.about(index, best)
            # Only now is it sure what the picture says of itself, and so which of the names is its own.
            self._made[index] = best, Batch(self.folder, [thing.stem], [said].__getitem__).save(0, picture)
            yield index, picture

    def sheets(self, name: str, labels: Sequence[str], title: str, columns: int) -> Iterator[Path]:
        """Sheets of all pictures, see ``output_folder.write_sheets``."""
        return write_sheets(self._base, self.folder, name, self.paths, self.about, labels, title, columns)
