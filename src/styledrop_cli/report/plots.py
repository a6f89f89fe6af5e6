"""The report's plots, as SVG: each for wide screens and for phones, dark where the reader's screen is."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from styledrop_cli.report.grade import Estimate
from styledrop_cli.report.history import Curve

INK, SOFT, LINE = "#1b1b1b", "#6b6b6b", "#d6d6d6"
# Told apart by everyone (Okabe and Ito); the rows without an adapter are grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREYS = ("#9a9a9a", "#5c5c5c")
# What a dark ground asks for instead.
DARK = {INK: "#f0f0f0", SOFT: "#a8a8a8", LINE: "#404040", GREYS[1]: "#c9c9c9", COLOURS[0]: "#4a9fe0"}
WIDE, NARROW = 6.4, 3.4  # inches: 72 points, which browsers show as 96 px


@dataclass(frozen=True)
class Plot:
    """A drawing for wide screens and one for phones, and what it shows in words for who cannot see it."""

    wide: str
    narrow: str
    said: str


class Draw(Protocol):
    """Draws into empty ``axes``; a legend has at most so many ``columns``."""

    def __call__(self, axes: Any, *, columns: int) -> None: ...


def text_against_style(found: Mapping[str, Mapping[str, Estimate]], plain: int) -> Plot:
    """Each row as a cross: calibrated style to the right, text upwards.

    The arms are the 95 % intervals of the paired differences. The first ``plain`` rows have no adapter.
    """
    said = "Text against style: " + "; ".join(_said(row, of) for row, of in found.items())
    return _drawn(partial(_text_against_style, found, plain), 4.4, said)


def _text_against_style(found: Mapping[str, Mapping[str, Estimate]], plain: int, axes: Any, *, columns: int) -> None:
    before: tuple[float, float] | None = None
    for place, (row, of) in enumerate(found.items()):
        x, y = of["csls"], of["text"]
        colour = GREYS[place] if place < plain else COLOURS[(place - plain) % len(COLOURS)]
        look = {"fmt": "o", "color": colour, "markersize": 7, "elinewidth": 1.5, "capsize": 3}
        axes.errorbar(x.mean, y.mean, xerr=_arms(x), yerr=_arms(y), label=row, **look)
        if before is not None:
            arrow = {"arrowstyle": "->", "color": LINE, "shrinkA": 8, "shrinkB": 8}
            axes.annotate("", (x.mean, y.mean), before, arrowprops=arrow, zorder=0)
        before = (x.mean, y.mean)
    axes.set(xlabel="style: calibrated likeness (csls)", ylabel="text: cosine with the prompt")
    axes.margins(x=0.12, y=0.12)
    # Beside each other in a legend: rounds lie close together, and their names would cover each other and the arms.
    _legend(axes, min(3, columns))


def losses(curves: Mapping[str, Curve]) -> Plot:
    """The training losses over the steps, each smoothed over a tenth of its points."""
    ends = "; ".join(f"{name} ends at {curve.losses[-1][1]:.2f}" for name, curve in curves.items())
    return _drawn(partial(_losses, curves), 3.2, f"Training loss: {ends}")


def _losses(curves: Mapping[str, Curve], axes: Any, *, columns: int) -> None:
    for place, (name, curve) in enumerate(curves.items()):
        steps = [step for step, _ in curve.losses]
        values = [loss for _, loss in curve.losses]
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
        axes.plot(steps, _smooth(values, max(1, len(values) // 10)), color=colour, linewidth=1.8, label=name)
    axes.set(xlabel="step", ylabel="loss (nats a masked id)")
    if len(curves) > 1:
        _legend(axes, columns)


def checkpoints(curve: Curve, name: str) -> Plot:
    """The scores of the test pictures at each checkpoint, and which one was chosen."""
    return _drawn(partial(_checkpoints, curve), 3.2, f"Checkpoints of {name}; step {curve.chosen} was taken")


def _checkpoints(curve: Curve, axes: Any, *, columns: int) -> None:
    steps = [point.step for point in curve.checkpoints]
    colours = (INK, *COLOURS)
    for place, score in enumerate(("total", "object", "shape", "style", "leak")):
        values = [point.scores[score] for point in curve.checkpoints]
        width = 1.4 if place else 2.2
        axes.plot(steps, values, "o-", color=colours[place], linewidth=width, markersize=4, label=score)
    if curve.chosen is not None:
        axes.axvline(curve.chosen, color=SOFT, linestyle=":", linewidth=1.2)
        where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "right"}
        axes.annotate("taken", (curve.chosen, 1), (-4, -10), color=SOFT, fontsize=9, **where)
    axes.set(xlabel="step", ylabel="mean score of the test pictures")
    _legend(axes, columns)


def _arms(of: Estimate) -> list[list[float]]:
    """How far the interval of the paired difference reaches to either side."""
    return [[of.difference - of.difference_low], [of.difference_high - of.difference]]


def _said(row: str, of: Mapping[str, Estimate]) -> str:
    return f"{row} has text {of['text'].mean:.3f} and style {of['csls'].mean:.3f}"


def _smooth(values: Sequence[float], window: int) -> list[float]:
    """Running means, over fewer values at either end."""
    half = window // 2
    parts = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(part) / len(part) for part in parts]


def _legend(axes: Any, columns: int) -> None:
    """Names above the axes, where they cover nothing, in the colour of all words."""
    axes.legend(frameon=False, fontsize=9, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), labelcolor=INK)


def _drawn(draw: Draw, height: float, said: str) -> Plot:
    """What ``draw`` draws, ``height`` inches high, on a wide screen and on a phone."""
    return Plot(_svg(draw, WIDE, height, 5), _svg(draw, NARROW, height, 2), said)


def _svg(draw: Draw, width: float, height: float, columns: int) -> str:
    """One drawing; without pyplot's global state, and imported here, because matplotlib takes half a second."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=SOFT, labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    draw(axes, columns=columns)
    svg = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "styledrop"}):  # the same names each time
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _with_dark(svg.getvalue())


def _with_dark(svg: str) -> str:
    """The drawing with its greys as variables of its style sheet, which has others for a dark screen."""
    light, dark = ({f"--c{i}": pair[k] for i, pair in enumerate(DARK.items())} for k in (0, 1))
    for name, colour in light.items():
        svg = svg.replace(colour, f"var({name})")
    sheets = (f":root{{{';'.join(map(':'.join, one.items()))}}}" for one in (light, dark))
    style = "<style>{}@media screen and (prefers-color-scheme: dark){{{}}}</style>".format(*sheets)
    head = svg.index(">", svg.index("<svg")) + 1
    return svg[:head] + style + svg[head:]
