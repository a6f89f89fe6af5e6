"""The report as one HTML file that needs nothing else: pictures, plots and words stand in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from styledrop_cli import __version__
from styledrop_cli.adapters.file import original_of, references_of
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base.base import Base
from styledrop_cli.io.images import jpeg_bytes, load_picture, square, to_image
from styledrop_cli.judging.meaning import Meaning
from styledrop_cli.report import plots
from styledrop_cli.report.grade import BASE, MEASURES, TOLD, Estimate, Graded, also_chose
from styledrop_cli.report.history import Stage, Story, parent_of
from styledrop_cli.report.references import Brought

if TYPE_CHECKING:
    pass

PICTURE, REFERENCE = 85, 90  # JPEG qualities
REFERENCE_SIDE = 384
LOST = 0.5  # of how surely the base shows the subject: with less, it is mostly gone


@dataclass(frozen=True)
class Grader:
    """Who graded: its ``name``, and whether it is the very CLIP that chose checkpoints and picks."""

    name: str
    chose: bool


def write_page(
    base: Base,
    story: Story,
    graded: Graded,
    grader: Grader,
    commands: Sequence[str],
    parts: Mapping[str, Sequence[Brought]],
) -> str:
    """The HTML of the report; ``parts`` are what each reference brought, by the name of the stage."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("styledrop_cli.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    found = graded.estimates()
    curves = {stage.name: stage.curve for stage in story.stages if stage.curve is not None}
    page = environment.get_template("page.html").render(
        style=story.style,
        references=_references(base, story),
        stages=[_of_stage(stage, before) for stage, before in zip(story.stages, [None, *story.stages], strict=False)],
        verdicts=[_verdict(stage.name, found[stage.name]) for stage in story.stages],
        rounds=story.verdict,
        kept=story.best,
        measures=[{"name": name, "about": about, "up": up} for name, about, up in MEASURES],
        table=[_line(row, of) for row, of in found.items()],
        parts=parts,
        told=TOLD,
        prompts=[_strip(graded, place) for place in range(len(graded.prompts))],
        seeds=graded.seeds,
        grader=grader,
        also_chose=also_chose(story, graded.prompts),
        plot=_plot(plots.text_against_style(found, plain=2)),
        losses=_plot(plots.losses(curves)) if curves else None,
        checkpoints=[_plot(plots.checkpoints(c, name)) for name, c in curves.items() if c.checkpoints],
        unreadable=[error.message for error in story.unreadable],
        commands=commands,
        base=base.name,
        version=__version__,
        identity=hashlib.sha256(f"{[stage.hash for stage in story.stages]} {graded.seeds}".encode()).hexdigest()[:16],
        number=len(graded.prompts) * len(graded.seeds),
    )
    return str(page)


# ---- what the page shows ----


def _references(base: Base, story: Story) -> list[dict[str, str]]:
    """The pictures learnt from: the files themselves where they are at hand, else what the tokens show of them."""
    header = story.stages[0].header
    examples = references_of(load_adapter(story.stages[0].file))
    shown = base.pictures(examples.whole.long().to(base.device), base.sizes[-1])
    made = []
    for picture, about, content in zip(shown, header.pictures, examples.contents, strict=False):
        original = original_of(about, [story.place.parent, story.stages[0].file.parent])
        image = original or to_image(picture.cpu())
        made.append(
            {
                "src": _address(jpeg_bytes(square(image, REFERENCE_SIDE), REFERENCE)),
                "content": content,
                "name": str(about.get("name", "")),
                "sha256": str(about.get("sha256", "")),
                "said": "the picture itself" if original else "as the base model's tokens show it",
            }
        )
    return made


def _of_stage(stage: Stage, before: Stage | None) -> dict[str, Any]:
    header = stage.header
    return {
        "name": stage.name,
        "hash": stage.hash,
        **{name: getattr(header, name) for name in ("created", "feedback", "kind", "base", "recommended")},
        "parent": parent_of(stage, before),
        "references": len(header.pictures),
        "picks": [
            {"prompt": p.prompt, "seed": p.seed, "src": _address(_small(p.file)) if p.file else ""} for p in stage.picks
        ],
        "settings": {name: value for name, value in header.settings.items() if value is not None},
    }


def _small(path: Path) -> bytes:
    image = load_picture(path)
    return jpeg_bytes(square(image, min(128, min(image.size))), PICTURE)


def _strip(graded: Graded, place: int) -> dict[str, Any]:
    """One prompt: of each row the pictures of all seeds, with their scores."""

    def tile(row: str, k: int, seed: int) -> dict[str, Any]:
        scores = {name: float(values[place, k]) for name, values in graded.cells[row].items()}
        src = _address(jpeg_bytes(graded.pictures[row][place, k], PICTURE))
        return {"src": src, "seed": seed, "scores": scores}

    rows = [{"name": row, "tiles": [tile(row, *one) for one in enumerate(graded.seeds)]} for row in graded.cells]
    return {"prompt": graded.prompts[place], "rows": rows}


def _line(row: str, of: Mapping[str, Estimate]) -> dict[str, Any]:
    cells = []
    for name, _, up in MEASURES:
        one = of[name]
        better = (one.difference > 0) == up
        verdict = "" if row == TOLD or not one.sure else "better" if better else "worse"
        cells.append({"of": one, "verdict": verdict})
    return {"name": row, "cells": cells, "told": row == TOLD, "plain": row in (BASE, TOLD)}


def _verdict(name: str, of: Mapping[str, Estimate]) -> str:
    """A sentence that says what this adapter brings, and only what the pictures can tell.

    Where most of the subject is gone, more style is no gain, and that is said first.
    """
    sure, unsure = [], []
    for measure, what in (("csls", "style"), ("text", "text"), ("object", "the subject"), ("leak", "leak")):
        one = of[measure]
        if not one.sure:
            unsure.append(what)
            continue
        way = "more" if one.difference > 0 else "less"
        sure.append(f"{way} {what} ({one.difference:+.2f}, {one.difference_low:+.2f} to {one.difference_high:+.2f})")
    none = "no difference that these pictures can tell"
    placed = Meaning(of["seen"].mean, of["way"].mean).words
    parts = [", ".join(sure), f"{none} in {', '.join(unsure)}" if unsure else ""] if sure else [none]
    subject = of["object"]
    told = subject.mean - subject.difference
    lost = "what was asked for is mostly lost" if subject.sure and subject.mean < LOST * told else ""
    return f"{name}: {placed}. Against the style in words: {'; '.join(filter(None, [lost, *parts]))}."


def _plot(plot: plots.Plot) -> dict[str, str]:
    """As a picture of its own: side by side in one page, the parts of two drawings would share their names."""
    return {
        "src": _address(plot.wide.encode(), "svg+xml"),
        "narrow": _address(plot.narrow.encode(), "svg+xml"),
        "said": plot.said,
    }


def _address(data: bytes, kind: str = "jpeg") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
