"""Which checkpoint of a training is the right one: a few fixed test pictures, scored at each.

The loss on the one reference falls for as long as one trains; what a person wants is the style without the
reference's content. So the same prompts and seeds are drawn at every checkpoint and compared with what the base
draws for them without the adapter. Of the one that is taken they are drawn at other scales, too: one reference comes
out best with more of its style, another with less.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from styledrop_cli.judging.sweep import Cell, best_of, gained
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.settings import SampleSettings

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 8  # test pictures
SAMPLES = 4  # pictures of each prompt of a person's own, with seeds from 0 on
STEPS = 12
# Lambda A and lambda B that are tried beside the usual pair: less of the prompt, which leaves more of the style, and
# more of it. More of lambda A scores higher, too, and adds stray dark blocks that the score does not see.
PAIRS = ((0.0, 0.75), (0.0, 3.0))


class Samples:
    """Pictures of a person's own prompts, drawn at each checkpoint as ``generate`` would draw them by default.

    Nothing is chosen by them. ``prompts`` have no style, ``sampling`` holds the scales and the size to draw with.
    """

    def __init__(self, base: Base, prompts: Sequence[str], style: str, sampling: SampleSettings) -> None:
        self._base, self._style = base, style
        texts = [with_style(prompt, style) for prompt in prompts]
        self._drawing = Drawing.of_each(prompts, texts, range(SAMPLES), sampling)

    def sheet(self, adapter: Adapter, step: int) -> Image:
        """A sheet of all prompts, a row of seeds each, as the adapter draws them at this ``step``."""
        drawing, size = replace(self._drawing, adapter=adapter), self._drawing.sampling.size
        images = []
        for shard in drawing.shards:
            for row in drawing.sample(self._base, shard).long().to(self._base.device):
                images.append(to_image(self._base.pictures(row[None], size)[0].float().cpu()))
        labels = [f"{prompt} · {seed}" for prompt, seed in zip(drawing.prompts, drawing.seeds, strict=True)]
        return contact_sheet(images, SAMPLES, labels, f"{self._style}, step {step}".removeprefix(", "))


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

    def best_scales(self, adapter: Adapter) -> tuple[dict[str, float], float, tuple[float, float]]:
        """The pair of scales that ``adapter`` draws best at, and how much more balance that has than the usual pair.

        The gain is a mean with its 95 % interval. Another pair is only taken if its gain is beyond chance, and if it
        keeps what was asked for as well as the usual one (``sweep.best_of``).
        """
        usual = self._drawing.sampling
        pairs = dict.fromkeys(((usual.lambda_a, usual.lambda_b), *PAIRS))
        cells = []
        for pair in pairs:
            sampling = replace(usual, lambda_a=pair[0], lambda_b=pair[1])
            own = replace(self._drawing, adapter=adapter, sampling=sampling)
            drawn = evaluate(self._base, self._judge, own, self._plain.measured)
            cells.append(Cell({"lambda_a": pair[0], "lambda_b": pair[1]}, drawn.pictures, drawn.scores))
        best = best_of(cells, cells[0], len(self.contents))[0] or 0
        gain, interval = gained(cells[best], cells[0], len(self.contents))
        return (cells[best].values if interval[0] > 0 else cells[0].values), gain, interval

    def _sheet(self, pictures: Tensor) -> Image:
        rows = [("base", self._plain.pictures), ("adapter", pictures)]
        images = [to_image(picture.float() / 255) for _, part in rows for picture in part]
        labels = [f"{content}, {who}" for who, _ in rows for content in self.contents]
        return contact_sheet(images, columns=len(self.contents), labels=labels, cell=128)
