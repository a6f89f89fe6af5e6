"""Which checkpoint of a training is the right one: a few fixed test pictures, scored at each.

The loss on the one reference falls for as long as one trains; what a person wants is the style without the
reference's content. So the same prompts and seeds are drawn at every checkpoint and compared with what the base
draws for them without the adapter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from styledrop_cli.adapters.examples import TrainingViews
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.images import to_image
from styledrop_cli.judging.evaluate import Drawing, References, evaluate, judge_of
from styledrop_cli.judging.prompts import probe_prompts
from styledrop_cli.judging.scores import Scores, mean
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.settings import SampleSettings

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 8  # test pictures
STEPS = 12


class Probes:
    """The test pictures of one training: fixed prompts and seeds, drawn by the base once and at each checkpoint."""

    def __init__(self, base: Base, examples: TrainingViews, style: str, sampling: SampleSettings) -> None:
        """``examples`` are what is learnt from; ``sampling`` holds the scales to draw with."""
        references = References.of_examples(base, examples)
        self.contents = probe_prompts(base, references.contents, MOST)
        self._base, self._judge = base, judge_of(base, base, references, self.contents, others=[])
        texts = [with_style(content, style) for content in self.contents]
        self._drawing = Drawing(self.contents, texts, list(range(len(texts))), sampling)
        self._plain = evaluate(base, self._judge, self._drawing)

    def measure(self, adapter: Adapter) -> tuple[Scores, Image]:
        """The scores of ``adapter`` and a sheet: the base's pictures, and the adapter's below."""
        drawn = evaluate(self._base, self._judge, replace(self._drawing, adapter=adapter), self._plain.measured)
        return mean(drawn.scores), self._sheet(drawn.pictures)

    def _sheet(self, pictures: Tensor) -> Image:
        rows = [("base", self._plain.pictures), ("adapter", pictures)]
        images = [to_image(picture.float() / 255) for _, part in rows for picture in part]
        labels = [f"{content}, {who}" for who, _ in rows for content in self.contents]
        return contact_sheet(images, columns=len(self.contents), labels=labels, cell=128)
