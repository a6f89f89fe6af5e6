"""Several adapters made one file that draws as all of them together would, each at its weight.

What adapters of one kind add to a network's values is summed, which their own form can hold exactly: LoRA's ranks and
the bottlenecks' widths stand side by side. Learned text vectors have a softmax each, whose sum no one softmax gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from styledrop_cli.adapters.examples import TrainingViews
from styledrop_cli.adapters.file import (
    bases_apart,
    examples_of,
    is_one_base,
    open_adapter,
    share,
    tensors_of,
    weights_said,
    write_adapter,
)
from styledrop_cli.adapters.header import AdapterFile, AdapterHeader, load_adapter, made_now
from styledrop_cli.base.base import Base
from styledrop_cli.base.prompt_tokens import ROOM
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.files import file_hash, names_apart
from styledrop_cli.models.adapter import (
    Adapter,
    BottleneckAdapter,
    BottleneckConfig,
    LoraAdapter,
    LoraConfig,
    PromptAdapter,
)
from styledrop_cli.models.layers import PROJECTIONS
from styledrop_cli.models.transformer import TokenTransformer
from styledrop_cli.settings import OBJECT, STYLE, WEIGHTS, SampleSettings, exact

HEAVIEST = 10.0  # a weight's distance from 0
NEARLY_ONE = 0.005  # how far from 1 weights add up that are rounded thirds
SIZES = ("width", "rank")  # what an adapter's configuration calls how large it is


@dataclass(frozen=True)
class Part:
    """An adapter and its weight in what is merged: 1 is as it was trained, less than 0 is away from it."""

    file: AdapterFile
    weight: float


# ---- the sum of several adapters ----


@torch.no_grad()
def sum_of(parts: Sequence[tuple[Adapter, float]], network: TokenTransformer) -> Adapter:
    """One adapter of ``network`` that adds to a value the weighted sum of what the ``parts`` add to it.

    They are of one kind, in any sizes and on any targets. Raises TypeError for others, and a kind that has no sum.
    """
    loras = [(adapter, weight) for adapter, weight in parts if isinstance(adapter, LoraAdapter)]
    bottlenecks = [(adapter, weight) for adapter, weight in parts if isinstance(adapter, BottleneckAdapter)]
    made: Adapter
    if len(loras) == len(parts):
        made = _sum_of_loras(loras, network)
    elif len(bottlenecks) == len(parts):
        made = _sum_of_bottlenecks(bottlenecks, network)
    else:
        raise TypeError(f"no sum of {', '.join(adapter.kind for adapter, _ in parts)}")
    return made.requires_grad_(False).eval()


def _sum_of_loras(parts: Sequence[tuple[LoraAdapter, float]], network: TokenTransformer) -> LoraAdapter:
    """``x (A1 B1 w1 s1 + A2 B2 w2 s2) = x [A1 A2] [B1 w1 s1; B2 w2 s2]``, ``s`` being alpha by rank; its own is 1.

    A site that one of them leaves alone has zeros in its place.
    """
    rank = sum(adapter.config.rank for adapter, _ in parts)
    targets = tuple(name for name in PROJECTIONS if any(name in adapter.config.targets for adapter, _ in parts))
    made = LoraAdapter(LoraConfig(rank, float(rank), targets, _layers_of(parts)), network)
    start = 0
    for adapter, weight in parts:
        own = slice(start, start + adapter.config.rank)
        for site, a in adapter.a.items():
            made.a[site][:, own] = a
            made.b[site][own] = weight * (adapter.config.alpha / adapter.config.rank) * adapter.b[site]
        start = own.stop
    return made


def _sum_of_bottlenecks(
    parts: Sequence[tuple[BottleneckAdapter, float]], network: TokenTransformer
) -> BottleneckAdapter:
    """``w1 GELU(h D1) U1 + w2 GELU(h D2) U2 = GELU(h [D1 D2]) [w1 U1; w2 U2]``, none of it shared by the layers."""
    width = sum(adapter.config.width for adapter, _ in parts)
    made = BottleneckAdapter(BottleneckConfig(width, False, _layers_of(parts)), network)
    start = 0
    for adapter, weight in parts:
        own = slice(start, start + adapter.config.width)
        for site in adapter.adapted:
            down, up = made.matrices(site)
            its_down, its_up = adapter.matrices(site)
            down[:, own], up[own] = its_down, weight * its_up
        start = own.stop
    return made


def _layers_of(parts: Sequence[tuple[Adapter, float]]) -> tuple[int, ...]:
    """All layers that one of several adapters is in, as a configuration names them."""
    each = [adapter.config.layers for adapter, _ in parts]
    return tuple(sorted(set().union(*each))) if all(each) else ()


# ---- files ----


def read_parts(paths: Sequence[Path], weights: Sequence[float] | None = None) -> list[Part]:
    """The adapters to merge; without ``weights`` each has the same, and they add up to 1.

    Raises UsageError for a weight of 0, beyond ``HEAVIEST`` or not finite, ModelError for a file that is no adapter,
    and for adapters whose kind has no sum, of two kinds or two bases, or of which only some learnt an object.
    """
    if weights is None:
        weights = [1 / len(paths)] * len(paths)
    for path, weight in zip(paths, weights, strict=True):
        if not (math.isfinite(weight) and 0 < abs(weight) <= HEAVIEST):
            between = f"between {exact(-HEAVIEST)} and {exact(HEAVIEST)} and not 0"
            raise UsageError(
                f"the weight of {path} must be {between}, and is {exact(weight)}", "1 is as it was trained."
            )
    parts = [Part(load_adapter(path), weight) for path, weight in zip(paths, weights, strict=True)]
    first = parts[0].file
    others = [part.file for part in parts[1:]]
    named = " ".join(f"--mix {part.file.path}:{part.weight:.3g}" for part in parts)
    mix = f"Mix them as they draw, whatever their kinds: styledrop generate {named} ..."
    for file in (first, *others):
        if file.header.kind == PromptAdapter.kind:
            raise ModelError(
                f"{file.path} is an adapter of kind '{PromptAdapter.kind}', and these do not merge: each has a softmax "
                "of its own",
                mix,
            )
    for file in others:
        kinds, bases = ([getattr(one.header, name) for one in (first, file)] for name in ("kind", "base"))
        if kinds[0] != kinds[1]:
            raise ModelError(
                f"{first.path} is an adapter of kind '{kinds[0]}' and {file.path} of kind '{kinds[1]}': only those of "
                "one kind merge",
                mix,
            )
        if not is_one_base(*bases):
            its, own = bases_apart(*bases)
            raise ModelError(
                f"{first.path} was trained on another base ({its}) than {file.path} ({own})",
                "Train one of them again on the other's base.",
            )
        if first.header.is_object != file.header.is_object:
            style, thing = (file, first) if first.header.is_object else (first, file)
            raise ModelError(
                f"{thing.path} learnt an object and {style.path} a style: merged, either would lose",
                f"Draw the one in the other: styledrop generate {style.path} ... --object {thing.path}",
            )
    return parts


def merge(
    base: Base,
    parts: Sequence[Part],
    *,
    style: str | None,
    output: Path,
    on_message: Callable[[str], None] = lambda message: None,
) -> AdapterHeader:
    """Write ``parts``, as ``read_parts`` gives them, as one adapter file; returns its header.

    ``style`` is said instead of the styles of all. The pictures and views of all go along, references first, so that
    what needs them takes the file too; if one was brought from elsewhere and has none, none do. A file without an
    adapter for super-resolution adds nothing there.

    Raises ModelError for an adapter of another base than ``base`` or without its views, UsageError for a style too long
    to be read, or one that is said of objects.
    """
    files = [part.file for part in parts]
    headers = [file.header for file in files]
    objects = headers[0].is_object
    if objects and style is not None:
        raise UsageError("objects have no style", "leave --style out")
    style = "" if objects else style or joined_styles([str(header.style) for header in headers])
    try:
        base.text_tokenizer.cut(ROOM, style)
    except UsageError as error:
        raise UsageError(error.message, 'Say it in fewer words: --style "..."') from None
    total = sum(part.weight for part in parts)
    if abs(total - 1) > NEARLY_ONE:
        what, how = "objects" if objects else "styles", "stronger" if total > 1 else "weaker"
        on_message(f"Warning: the weights add up to {total:.3g}, not 1: the {what} come out {how}")
    opened = [(open_adapter(base, part.file), part.weight) for part in parts]
    adapter = sum_of([(one.base, weight) for one, weight in opened], base.transformer)
    finer = [(one.superres, weight) for one, weight in opened if one.superres is not None]
    superres = sum_of(finer, base.superres) if finer and base.superres is not None else None
    elsewhere = [header.source for header in headers if header.source and not header.pictures]
    examples = None if elsewhere else _joined(files)
    name, size = next((name, size) for name, size in adapter.stored_config.items() if name in SIZES)
    on_message(f"{adapter.kind}, {name} {size}: {share(adapter, base.transformer):.1%} of the base")
    # What is trained on it, a round of feedback, is trained as the first was.
    settings = {"settings": headers[0].settings} if headers[0].settings else {}
    header = AdapterHeader.new(
        kind=adapter.kind,
        config=adapter.stored_config,
        base=headers[0].base,
        merged=[
            {
                "name": name,
                "weight": part.weight,
                "style": part.file.header.style,
                "sha256": file_hash(part.file.path),
            }
            for name, part in zip(names_apart([part.file.path for part in parts]), parts, strict=True)
        ],
        learns=OBJECT if objects else STYLE,
        style=style,
        contents=examples.contents if examples else [],
        recommended=recommended_by(parts),
        **made_now(),
        superres=superres.stored_config if superres is not None else None,
        pictures=[picture for one in headers for picture in one.pictures] if examples else [],
        **weights_said(examples.weights if examples else ()),
        **settings,
        **({"thumbnail": headers[0].thumbnail} if examples else {"source": elsewhere[0]}),
    )
    beside = dict(examples.views) if examples else {}
    if superres is not None:
        beside |= tensors_of(superres, "superres.")
    write_adapter(output, adapter, header, beside)
    return header


def joined_styles(styles: Sequence[str]) -> str:
    """Styles as one text, each said once: ``watercolor, ink and flat illustration``."""
    said = list(dict.fromkeys(" ".join(style.split()).removeprefix("in ") for style in styles if style.strip()))
    return " and ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else "".join(said)


def recommended_by(parts: Sequence[Part]) -> dict[str, float]:
    """The mean of each value that all files recommend, by how much of each file there is."""
    values = [part.file.header.recommended for part in parts]
    total = sum(abs(part.weight) for part in parts)
    means: dict[str, float] = {}
    for name in values[0]:
        if all(name in one for one in values):
            mean = sum(abs(part.weight) * one[name] for part, one in zip(parts, values, strict=True)) / total
            means[name] = round(mean) if isinstance(SampleSettings.defaults()[name], int) else round(mean, 6)
    return means


def _joined(files: Sequence[AdapterFile]) -> TrainingViews:
    """What all of them learnt from: first the references of each, then what was picked for each."""
    parts = [examples_of(file) for file in files]
    references = sum(part.references for part in parts)
    given, picked = 0, references
    owners: list[Tensor] = []
    for part in parts:
        own = part.views["views.picture"]
        owners.append(own + torch.where(own < part.references, given, picked - part.references))
        given += part.references
        picked += len(part.contents) - part.references
    order = torch.cat(owners).argsort(stable=True)
    views = {"views.picture": torch.cat(owners)[order]}
    for name in ("views.ids", "views.superres"):
        found = [file.tensors[name] for file in files if name in file.tensors]
        if len(found) == len(files):
            if len({one.shape[1:] for one in found}) > 1 or sum(map(len, found)) != len(order):
                raise ModelError(f"{name} of {files[0].path} and the others do not fit together")
            views[name] = torch.cat(found)[order]
    contents = [content for part in parts for content in part.contents[: part.references]]
    contents += [content for part in parts for content in part.contents[part.references :]]
    return TrainingViews(views, contents, references, _joined_weights(parts))


def _joined_weights(parts: Sequence[TrainingViews]) -> tuple[float, ...]:
    """Of all references: within a file they keep their proportions, and its references count 1 in the mean.

    So no file counts less because its weights are small numbers, and one without weights counts as it always did.
    """
    if not any(part.weights for part in parts):
        return ()
    each = []
    for part in parts:
        own = part.weights or (1.0,) * part.references
        each += [min(max(one * len(own) / sum(own), WEIGHTS[0]), WEIGHTS[1]) for one in own]
    return tuple(each)
