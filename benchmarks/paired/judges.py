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
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paired.art import Art, Look
from paired.families import HELD_OUT
from paired.renders import Examples, examples, shrunk
from styledrop_cli.base.base import Base
from styledrop_cli.corpus import styles
from styledrop_cli.devices import autocast, generator
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.tensors import load_strictly, read_tensors, save_tensors

Say = Callable[[str], None]
# What a judge depends on besides its settings: these here, and the training styles.
CODE = ("art.py", "families.py", "judges.py", "renders.py")
RENDERING = 0.6  # the share of a judge's making that its pictures take


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

    centre: Tensor

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
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stubs leave it out

    def features(self, pictures: Tensor) -> Tensor:
        """What the last layer sees."""
        small = shrunk(pictures, self.side) * 4 - 2
        seen: Tensor = self.body(small.contiguous(memory_format=torch.channels_last))
        return (0.5 * seen.mean((2, 3)) + 0.5 * seen.amax((2, 3))).float()

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(pictures))
        return out


def fit(judge: Judge, seen: Examples, labels: Tensor, passes: float, batch: int, seed: int, hues: bool) -> None:
    """Train ``judge`` to tell ``labels`` [N]; ``hues`` also swaps colours, which says that colour is no clue."""
    draws = generator(seed)
    steps = max(1, round(passes * len(seen) / batch))
    optimizer = torch.optim.AdamW(judge.parameters(), lr=4e-3, weight_decay=0.02)
    # Up over a fifth of the steps, down to nothing over the others.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.2 * steps + 1), 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    judge.train()
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


@dataclass(frozen=True)
class Judges:
    """Both judges, what they tell apart, and how well they do on pictures that were held out (``accuracy``)."""

    style: Judge
    content: Judge
    looks: list[str]
    things: list[str]
    accuracy: dict[str, float]

    def see(self, pictures: Tensor) -> Measurements:
        """Look at pictures ``[B,3,S,S]`` in [0,1]."""
        features, style = opinions(self.style, pictures)
        return Measurements(
            F.normalize(features - self.style.centre, dim=-1), style, opinions(self.content, pictures)[1]
        )


@dataclass(frozen=True)
class Measurements:
    """Of each picture: the style's features, centred and of length 1, ``[B,F]``, and both judges' probabilities."""

    features: Tensor
    style: Tensor
    content: Tensor


def judges_file(
    art: Art, all_looks: Sequence[Look], base: Base, work: Path, seed: int, settings: JudgeSettings
) -> tuple[Path, dict[str, Any]]:
    """Where the judges of a ``seed`` are kept, and all that they depend on: the file's name is a hash of it."""
    code = [*(Path(__file__).with_name(name) for name in CODE), *Path(styles.__file__).parent.glob("*.py")]
    depends = {
        "art": art.hash,
        "code": [file_hash(path) for path in sorted(code)],
        "tokenizer": file_hash(base.folder / "tokenizer.safetensors"),
        "looks": [look.name for look in all_looks],
        "things": art.things,
        "settings": asdict(settings),
        "seed": seed,
    }
    return work / "judges" / f"{hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]}.safetensors", depends


def load_judges(
    art: Art,
    all_looks: Sequence[Look],
    base: Base,
    work: Path,
    seed: int,
    settings: JudgeSettings,
    say: Say,
    on_progress: Callable[[float, str], None] = lambda share, note: None,
) -> Judges:
    """The judges of a ``seed``: read from the work folder, or trained and written there.

    What they learn from, and the judge that is done first, are kept beside them until both are done: a run that was
    cut goes on there.
    """
    names, things = [look.name for look in all_looks], art.things
    path, depends = judges_file(art, all_looks, base, work, seed, settings)
    parts = path.with_suffix(".parts")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        style = Judge(len(names), settings.style_width, settings.style_side)
        content = Judge(len(things), settings.content_width, settings.content_side)
    if path.exists():
        tensors, about = read_tensors(path)
        for judge, prefix in ((style, "style."), (content, "content.")):
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            _load(judge, own, path)
        return Judges(style, content, names, things, json.loads(about["accuracy"]))
    say(f"judge {seed} is trained, once for this art and this tokenizer, and kept in {path.parent}")
    shown = examples(
        art,
        all_looks,
        base,
        renders=settings.renders,
        tripped=settings.tripped,
        side=max(settings.style_side, settings.content_side),
        seed=seed,
        folder=parts,
        on_progress=lambda share, note: on_progress(RENDERING * share, note),
    )
    accuracy = _teach(style, content, shown, names, settings, seed, say, parts, on_progress)
    both = {"style": style, "content": content}
    tensors = {f"{name}.{key}": t for name, judge in both.items() for key, t in judge.state_dict().items()}
    save_tensors(path, tensors, {"accuracy": json.dumps(accuracy), "depends": json.dumps(depends)})
    shutil.rmtree(parts, ignore_errors=True)
    return Judges(style, content, names, things, accuracy)


def _load(judge: Judge, tensors: dict[str, Tensor], path: Path) -> None:
    """Have ``judge`` know what it had learnt when its ``tensors`` were written to ``path``."""
    load_strictly(judge, tensors, str(path))
    # As it was while it learnt: another layout adds up in another order.
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    judge.eval().requires_grad_(False)


def _teach(
    style: Judge,
    content: Judge,
    shown: Examples,
    looks: list[str],
    settings: JudgeSettings,
    seed: int,
    say: Say,
    parts: Path,
    on_progress: Callable[[float, str], None],
) -> dict[str, float]:
    """Train both judges, find the style's centre, and return how well they do on what they were not shown."""
    started = time.monotonic()

    def lap(what: str) -> None:
        say(f"judge {seed}: {what} ({time.monotonic() - started:.0f} s)")

    draws = generator(seed + 1000)
    # The style judge is tested on things it has never seen, the content judge on things in a style it has not seen
    # them in; all parameters are random besides.
    things = content.head.out_features
    unseen_thing = torch.rand(things, generator=draws) < settings.held_out
    unseen_pair = torch.rand(len(looks), things, generator=draws) < settings.held_out
    held = {"style": unseen_thing[shown.thing], "content": unseen_pair[shown.look, shown.thing]}
    accuracy = {}
    lap(f"{len(shown)} pictures of {things} things in {len(looks)} styles")
    for what, judge, passes, labels in (
        ("style", style, settings.style_passes, shown.look),
        ("content", content, settings.content_passes, shown.thing),
    ):
        seen, away = shown.at(judge.side), held[what]
        on_progress(RENDERING if what == "style" else RENDERING + (1 - RENDERING) / 3, f"the {what} judge learns")
        path = parts / f"{what}.safetensors"
        if path.exists():
            _load(judge, read_tensors(path)[0], path)
        else:
            fit(judge, seen.where(~away), labels[~away], passes, settings.batch, seed, hues=what == "content")
            save_tensors(path, judge.state_dict(), {})
        for kind, rows in (("real", away & ~shown.tripped), ("tokenized", away & shown.tripped)):
            accuracy[f"{what}, {kind}"] = right(judge, seen.where(rows), labels[rows])
        lap(f"{what}: " + ", ".join(f"{v:.1%} {k.split(', ')[1]}" for k, v in accuracy.items() if k.startswith(what)))
    unknown = shown.where(held["style"])
    features, chances = opinions(style, unknown.pictures)
    apart = torch.tensor([looks.index(name) for name in HELD_OUT])
    ours, guess = torch.isin(unknown.look, apart), chances.argmax(-1)
    accuracy["held-out styles known"] = float((guess == unknown.look)[ours].float().mean())
    accuracy["others taken for one"] = float(torch.isin(guess, apart)[~ours].float().mean())
    # Styles weigh alike, however often each comes up.
    style.centre.copy_(torch.stack([features[unknown.look == i].mean(0) for i in unknown.look.unique()]).mean(0))
    return accuracy
