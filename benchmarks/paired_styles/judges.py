"""Two small networks that say in which style a picture is drawn, and of what.

The benchmark trains them itself, on real renders of every style there is and on the same renders after the
tokenizer's round trip, so that blur alone is no style. They depend on the tokenizer and never on what draws; each seed
gives other pictures, other weights and other pictures held out, so that one judge can choose settings and another
grade what was chosen.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from art import FAMILIES, OPENMOJI, Art, Look, grounds, placed, recoloured
from families import HELD_OUT
from torch import Tensor, nn

from styledrop_cli import styles
from styledrop_cli.base import Base
from styledrop_cli.checkpoints import file_hash, load_strictly, read_tensors, save_tensors
from styledrop_cli.devices import autocast, generator

Say = Callable[[str], None]
CALL = 8  # pictures drawn together


@dataclass(frozen=True)
class JudgeSettings:
    """How the judges are made: ``renders`` pictures, looked at by each judge so many px wide.

    Texture needs more pixels than shape does.
    """

    renders: int = 7500
    tripped: float = 0.6  # the share that is seen after the round trip too
    style_side: int = 96
    style_width: int = 16
    style_passes: float = 3.5
    content_side: int = 64
    content_width: int = 24
    content_passes: float = 9
    batch: int = 64
    held_out: float = 0.12


class Judge(nn.Module):
    """Pictures ``[B,3,S,S]`` in [0,1] to features ``[B,8*width]`` and to logits ``[B,classes]``.

    It looks at them ``side`` px wide.
    """

    def __init__(self, classes: int, width: int, side: int) -> None:
        super().__init__()
        w, self.side = width, side

        def conv(inp: int, out: int, stride: int = 1) -> nn.Sequential:
            layers = nn.Conv2d(inp, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
            return nn.Sequential(*layers)

        self.body = nn.Sequential(
            conv(3, w, 2), conv(w, 2 * w), nn.MaxPool2d(2),
            conv(2 * w, 4 * w), conv(4 * w, 4 * w), nn.MaxPool2d(2),
            conv(4 * w, 8 * w), conv(8 * w, 8 * w),
        )  # fmt: skip
        self.head = nn.Linear(8 * w, classes)
        self.register_buffer("centre", torch.zeros(8 * w))  # the features' mean over styles, of pictures held out

    def features(self, pictures: Tensor) -> Tensor:
        """What the last layer sees."""
        small = shrunk(pictures, self.side) * 4 - 2
        seen: Tensor = self.body(small.contiguous(memory_format=torch.channels_last))
        return (0.5 * seen.mean((2, 3)) + 0.5 * seen.amax((2, 3))).float()

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(pictures))
        return out


@dataclass
class Examples:
    """Pictures uint8 ``[N,3,S,S]``, each one's look and thing, and whether it has been through the tokenizer."""

    pictures: Tensor
    look: Tensor
    thing: Tensor
    tripped: Tensor

    def where(self, rows: Tensor) -> Examples:
        """Those that ``rows`` [N] (bool) picks."""
        return Examples(self.pictures[rows], self.look[rows], self.thing[rows], self.tripped[rows])

    def at(self, side: int) -> Examples:
        """The same, ``side`` px wide."""
        if self.pictures.shape[-1] == side:
            return self
        parts = [_bytes(shrunk(p.float() / 255, side)) for p in self.pictures.split(256)]
        return Examples(torch.cat(parts), self.look, self.thing, self.tripped)

    def __len__(self) -> int:
        return len(self.pictures)


def shrunk(pictures: Tensor, side: int) -> Tensor:
    """Pictures ``[B,3,S,S]`` in [0,1], ``side`` px wide."""
    if pictures.shape[-1] == side:
        return pictures.float()
    return F.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True).clamp(0, 1)


@torch.no_grad()
def round_trip(base: Base, pictures: Tensor, exact: bool = False) -> Tensor:
    """What the tokenizer makes of pictures ``[B,3,S,S]`` in [0,1] of any size that it takes; ``exact``: in fp32."""
    with autocast(base.device, not exact):
        parts = [base.tokenizer.decode(base.tokenizer.encode(p.to(base.device))) for p in pictures.split(32)]
    return torch.cat(parts).float().cpu()


def examples(art: Art, all_looks: Sequence[Look], base: Base, settings: JudgeSettings, seed: int) -> Examples:
    """Things in every look, placed, coloured and grounded at random; outlines come from any family.

    A held-out style comes up three times as often as a training style and an art family twice: those are the ones to
    be told from all others. A style's lengths are drawn once per call, so that calls are small.
    """
    rng, draws = random.Random(f"judge {seed}"), generator(seed)
    size, side = base.sizes[0], max(settings.style_side, settings.content_side)
    taught = set(styles.STYLES)
    weights = [1 if look.name in taught else 2 if look.name in FAMILIES else 3 for look in all_looks]
    parts: list[tuple[Tensor, int, list[int], bool]] = []
    for number, look in enumerate(all_looks):
        count = round(settings.renders * weights[number] / sum(weights))
        names: list[int] = []
        while len(names) < count:
            names += rng.sample(range(len(art.things)), len(art.things))
        for start in range(0, count, CALL):
            things = names[start : min(start + CALL, count)]
            families = [look.family or rng.choice([*FAMILIES, OPENMOJI]) for _ in things]
            # References are drawn at twice the tokenizer's size and shrunk.
            large = size * (2 if look.name in HELD_OUT and rng.random() < 0.4 else 1)
            rgba = art.rgba([(f, art.things[t]) for f, t in zip(families, things, strict=True)], large)
            rgba = recoloured(placed(rgba, 0.72, draws), 0.25, draws)
            drawn = shrunk(look(rgba, grounds(len(things), large, 0.6, draws), draws), size)
            parts.append((_bytes(shrunk(drawn, side)), number, things, False))
            if rng.random() < settings.tripped:
                parts.append((_bytes(shrunk(round_trip(base, drawn), side)), number, things, True))
    return Examples(
        torch.cat([p for p, _, _, _ in parts]),
        torch.tensor([look for p, look, _, _ in parts for _ in range(len(p))]),
        torch.tensor([t for _, _, things, _ in parts for t in things]),
        torch.tensor([trip for p, _, _, trip in parts for _ in range(len(p))]),
    )


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8)


def fit(judge: Judge, seen: Examples, labels: Tensor, passes: float, batch: int, seed: int, hues: bool) -> None:
    """Train ``judge`` to tell ``labels`` [N]; ``hues`` also swaps colours, which says that colour is no clue."""
    draws = generator(seed)
    steps = max(1, round(passes * len(seen) / batch))
    optimizer = torch.optim.AdamW(judge.parameters(), lr=4e-3, weight_decay=0.02)
    # Up over a fifth of the steps, down to nothing over the others.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.2 * steps + 1), 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    judge.to(memory_format=torch.channels_last).train()
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.cat((order, torch.randperm(len(seen), generator=draws)))
        rows, order = order[:batch], order[batch:]
        with autocast(torch.device("cpu")):
            logits = judge(_varied(seen.pictures[rows].float() / 255, hues, draws))
        loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    judge.eval().requires_grad_(False)


def _varied(pictures: Tensor, hues: bool, draws: torch.Generator) -> Tensor:
    """A batch moved by a few pixels, mirrored half of the time, and a little brighter or darker."""
    B, side = len(pictures), pictures.shape[-1]
    reach = max(1, side // 20)
    x, y = torch.randint(2 * reach + 1, (2,), generator=draws).tolist()
    padded = F.pad(pictures, (reach,) * 4, mode="replicate")[..., y : y + side, x : x + side]
    flip = torch.rand(B, 1, 1, 1, generator=draws) < 0.5
    moved = torch.where(flip, padded.flip(-1), padded)
    if hues and torch.rand((), generator=draws) < 0.3:
        moved = moved[:, torch.randperm(3, generator=draws)]
    gain = 0.85 + 0.3 * torch.rand(B, 1 if not hues else 3, 1, 1, generator=draws)
    return (moved * gain).clamp(0, 1)


@torch.no_grad()
def opinions(judge: Judge, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Features ``[B,F]`` and probabilities ``[B,classes]`` for pictures ``[B,3,S,S]``, uint8 or in [0,1]."""
    parts = []
    for chunk in pictures.split(256):
        seen = chunk.float() / 255 if chunk.dtype == torch.uint8 else chunk
        with autocast(torch.device("cpu")):
            parts.append(judge.features(seen))
    features = torch.cat(parts)
    return features, judge.head(features).softmax(-1)


def right(judge: Judge, shown: Examples, labels: Tensor) -> float:
    """The share of pictures whose label is the judge's first guess."""
    if not len(shown):
        return float("nan")
    return float((opinions(judge, shown.pictures)[1].argmax(-1) == labels).float().mean())


@dataclass
class Judges:
    """Both judges, what they tell apart, and how well they do on pictures that were held out (``accuracy``)."""

    style: Judge
    content: Judge
    looks: list[str]
    things: list[str]
    accuracy: dict[str, float]

    def see(self, pictures: Tensor) -> Seen:
        """Look at pictures ``[B,3,S,S]`` in [0,1]."""
        features, style = opinions(self.style, pictures)
        return Seen(F.normalize(features - self.style.centre, dim=-1), style, opinions(self.content, pictures)[1])


@dataclass
class Seen:
    """Of each picture: the style's features, centred and of length 1, ``[B,F]``, and both judges' probabilities."""

    features: Tensor
    style: Tensor
    content: Tensor


def load_judges(
    art: Art, all_looks: Sequence[Look], base: Base, work: Path, seed: int, settings: JudgeSettings, say: Say
) -> Judges:
    """The judges of a ``seed``: read from the work folder, or trained and written there.

    A file's name is a hash of all they depend on: the art, the styles' code, the tokenizer, the settings.
    """
    names, things = [look.name for look in all_looks], art.things
    code = [Path(__file__), *Path(__file__).parent.glob("[af]*.py"), *Path(styles.__file__).parent.glob("*.py")]
    depends = {
        "art": art.hash,
        "code": [file_hash(path) for path in sorted(code)],
        "tokenizer": file_hash(base.folder / "tokenizer.safetensors"),
        "looks": names,
        "things": things,
        "settings": asdict(settings),
        "seed": seed,
    }
    path = work / "judges" / f"{hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        style = Judge(len(names), settings.style_width, settings.style_side)
        content = Judge(len(things), settings.content_width, settings.content_side)
    if path.exists():
        tensors, about = read_tensors(path)
        for judge, prefix in ((style, "style."), (content, "content.")):
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            load_strictly(judge, own, str(path))
            judge.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        return Judges(style, content, names, things, json.loads(about["accuracy"]))

    started = time.monotonic()

    def lap(what: str) -> None:
        say(f"judge {seed}: {what} ({time.monotonic() - started:.0f} s)")

    shown = examples(art, all_looks, base, settings, seed)
    lap(f"{len(shown)} pictures of {len(things)} things in {len(names)} styles")
    draws = generator(seed + 1000)
    # The style judge is tested on things it has never seen, the content judge on things in a style it has not seen
    # them in; all parameters are random besides.
    unseen_thing = torch.rand(len(things), generator=draws) < settings.held_out
    unseen_pair = torch.rand(len(names), len(things), generator=draws) < settings.held_out
    held = {"style": unseen_thing[shown.thing], "content": unseen_pair[shown.look, shown.thing]}
    accuracy = {}
    for what, judge, passes, labels in (
        ("style", style, settings.style_passes, shown.look),
        ("content", content, settings.content_passes, shown.thing),
    ):
        seen, away = shown.at(judge.side), held[what]
        fit(judge, seen.where(~away), labels[~away], passes, settings.batch, seed, hues=what == "content")
        for kind, rows in (("real", away & ~shown.tripped), ("tokenized", away & shown.tripped)):
            accuracy[f"{what}, {kind}"] = right(judge, seen.where(rows), labels[rows])
        lap(f"{what}: " + ", ".join(f"{v:.1%} {k.split(', ')[1]}" for k, v in accuracy.items() if k.startswith(what)))
    away = shown.where(held["style"])
    features, chances = opinions(style, away.pictures)
    apart = torch.tensor([names.index(name) for name in HELD_OUT])
    ours, guess = torch.isin(away.look, apart), chances.argmax(-1)
    accuracy["held-out styles known"] = float((guess == away.look)[ours].float().mean())
    accuracy["others taken for one"] = float(torch.isin(guess, apart)[~ours].float().mean())
    # Styles weigh alike, however often each comes up.
    style.centre.copy_(torch.stack([features[away.look == i].mean(0) for i in away.look.unique()]).mean(0))
    tensors = {f"{n}.{k}": t for n, j in (("style", style), ("content", content)) for k, t in j.state_dict().items()}
    save_tensors(path, tensors, {"accuracy": json.dumps(accuracy), "depends": json.dumps(depends)})
    return Judges(style, content, names, things, accuracy)
