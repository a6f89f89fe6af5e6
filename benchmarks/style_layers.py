"""Which layers of a base carry a style, and which the reference's content: adapters drawn with some of their layers.

An adapter adds to what each layer makes. Here one that was trained in all layers is drawn with one of them left out,
and with one of them alone, by the same seeds; and judging's scores say what that costs or leaves: the thing asked for,
the style, the reference's own content. No adapter is trained anew, so a base is measured in minutes.

    python benchmarks/style_layers.py adapter.safetensors other.safetensors --sheet layers.png

Give several adapters, of styles that no setting is reported on: what one style needs another may not. What follows goes
into ``style_layers`` of the base's row in base/registry.py, and is what ``train --layers style`` adapts.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from paired.measures import markdown
from script import run_in_words
from styledrop_cli.adapters.file import open_adapter
from styledrop_cli.adapters.header import AdapterFile, load_adapter
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.devices import NAMES, pick_device
from styledrop_cli.errors import UsageError
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.images import save_png, to_image
from styledrop_cli.judging.bootstrap import paired_interval
from styledrop_cli.judging.clip_scorer import open_scorer
from styledrop_cli.judging.evaluate import Drawing, Evaluated, References, evaluate, judge_of
from styledrop_cli.judging.prompts import probe_prompts
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.models.transformer import TokenTransformer
from styledrop_cli.settings import TrainSettings

ALL = "all layers"
MEASURES = ("object", "shape", "style", "leak")


class InLayers(Adapter):
    """An adapter at the sites of some ``layers`` alone, by their numbers; those outside of all layers stay."""

    def __init__(self, adapter: Adapter, network: TokenTransformer, layers: Collection[int]) -> None:
        super().__init__()
        self.kind, self.config, self.reads_text = adapter.kind, adapter.config, adapter.reads_text  # type: ignore[misc]
        self._adapter = adapter
        self._sites = {site.name for site in network.sites if not site.layer or site.layer in layers}

    def forward(self, site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        """What the adapter makes of it, or the very same value."""
        return self._adapter(site, module, source, value) if site in self._sites else value


@dataclass(frozen=True)
class Row:
    """Some layers, by name, and what was drawn with them: scores ``[A,P,K]`` of A adapters, P prompts and K seeds."""

    name: str
    layers: tuple[int, ...]
    scores: dict[str, Tensor]
    pictures: list[Tensor]  # of each adapter [P*K,3,S,S]


def rows_of(last: int, chosen: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """All of ``last`` layers, all but each, each alone, and those ``chosen``, as ``train --layers`` takes them."""
    every = tuple(range(1, last + 1))
    rows = {ALL: every}
    if not chosen:
        rows |= {f"without {layer}": tuple(one for one in every if one != layer) for layer in every}
        rows |= {f"only {layer}": (layer,) for layer in every}
    return rows | {f"only {text}": TrainSettings(layers=text).layer_numbers or every for text in chosen}


def measure(
    base: Base, files: Sequence[AdapterFile], chosen: Sequence[str], scorer: str, number: int, most: int
) -> list[Row]:
    """Draw and score every row: ``most`` prompts, ``number`` seeds each, with each adapter.

    Raises UsageError for layers that the base has not.
    """
    network, last = base.transformer, max(site.layer for site in base.transformer.sites)
    wanted = rows_of(last, chosen)
    if beyond := [name for name, layers in wanted.items() if max(layers) > last]:
        raise UsageError(f"'{beyond[0]}' names a layer that {base.name} has not", f"It has 1 to {last}.")
    drawn: dict[str, list[Evaluated]] = {name: [] for name in wanted}
    for file in files:
        references = References.of_adapter(base, file)
        prompts = probe_prompts(base, references.contents, most)
        judge = judge_of(base, open_scorer(base, scorer), references, prompts)
        texts = [with_style(prompt, references.style) for prompt in prompts]
        drawing = Drawing.of_each(prompts, texts, range(number), replace(references.sampling, size=base.sizes[0]))
        plain = evaluate(base, judge, drawing).measured
        adapter = open_adapter(base, file).base
        if adapter.config.layers:
            raise UsageError(f"{file.path} is in some layers only", "Give adapters that were trained in all of them.")
        for name, layers in wanted.items():
            some = InLayers(adapter, network, layers)
            drawn[name].append(evaluate(base, judge, replace(drawing, adapter=some), plain))
            print(f"{file.path.name}, {name}", flush=True)
    shape = (len(files), -1, number)

    def scores_of(each: Sequence[Evaluated], measured: str) -> Tensor:
        return torch.tensor([getattr(score, measured) for one in each for score in one.scores]).view(shape)

    return [
        Row(name, wanted[name], {m: scores_of(each, m) for m in MEASURES}, [one.pictures for one in each])
        for name, each in drawn.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """Means of each row and, in brackets, the 95 % interval of the difference against all layers."""
    lines = []
    for row in rows:
        cells = []
        for name in MEASURES:
            mean = f"{float(row.scores[name].mean()):.2f}"
            # An adapter's prompts are resampled as prompts are: there are too few adapters to resample.
            low, high = paired_interval((row.scores[name] - rows[0].scores[name]).flatten(0, 1))
            cells.append(mean if row is rows[0] else f"{mean} ({low:+.2f} … {high:+.2f})")
        lines.append([row.name, *cells])
    return markdown(["row", *MEASURES], lines)


def sheet(rows: Sequence[Row], files: Sequence[AdapterFile], number: int) -> list[list[Tensor]]:
    """The first seed's pictures, a line for each row, of one adapter after the other."""
    return [list(row.pictures[i][::number]) for i in range(len(files)) for row in rows]


def main() -> None:
    """Print the table and, if asked, write a sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("adapters", type=Path, nargs="+", help="adapter files, trained in all layers")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--layers", action="append", default=[], help="only these, in place of one at a time: 4-6")
    parser.add_argument("--scorer", default="scorer", help="the CLIP that judges")
    parser.add_argument("--prompts", type=int, default=8, help="things drawn with each adapter, 8 at most")
    parser.add_argument("--number", type=int, default=1, help="pictures of each thing")
    parser.add_argument("--sheet", type=Path, help="write what was drawn to this PNG")
    parser.add_argument("--device", choices=NAMES, default="auto")
    arguments = parser.parse_args()
    base = load_base(arguments.model, pick_device(arguments.device))
    files = [load_adapter(path) for path in arguments.adapters]
    rows = measure(base, files, arguments.layers, arguments.scorer, arguments.number, arguments.prompts)
    print(table(rows))
    if arguments.sheet:
        lines = sheet(rows, files, arguments.number)
        images = [to_image(picture.float() / 255) for line in lines for picture in line]
        names = [row.name for _ in files for row in rows]
        labels = [label for name, line in zip(names, lines, strict=True) for label in (name, *[""] * (len(line) - 1))]
        save_png(contact_sheet(images, len(lines[0]), labels, cell=112), arguments.sheet)


if __name__ == "__main__":
    run_in_words(main)
