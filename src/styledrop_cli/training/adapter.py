"""Adapter tuning (StyleDrop, arXiv 2306.00983, 3.2): from pictures to an adapter file that has learnt their style.

The generator stays frozen. An adapter beside it is trained to predict the hidden ids of the pictures, given the prompt
"<content> in <style> style". Picks of a round of feedback are learnt from in the same way (3.3), and so is an object
(3.4), whose prompt is its name.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from styledrop_cli.adapters.examples import TrainingViews, guess_content, tokenize_views
from styledrop_cli.adapters.file import (
    describe,
    new_adapter,
    new_superres_adapter,
    of_pictures,
    open_adapter,
    own_tensors,
    references_of,
    tensors_of,
    weights_said,
    write_adapter,
)
from styledrop_cli.adapters.header import AdapterFile, load_adapter, write_trained
from styledrop_cli.base import fidelity
from styledrop_cli.base.base import Base
from styledrop_cli.base.known_things import FILLERS
from styledrop_cli.base.prompt_tokens import with_style, words
from styledrop_cli.devices import autocast, cast_once, generator
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.files import atomic_write, real_place, remove_parts, temporary_name
from styledrop_cli.io.images import OnMessage, load_reference, quietly, save_png, to_image
from styledrop_cli.io.run_folder import Run, alone_in
from styledrop_cli.io.run_names import CHECKPOINT, SUPERRES, any_of, run_of
from styledrop_cli.io.tensors import load_strictly, read_tensors, save_tensors, tensors_hash
from styledrop_cli.judging.probes import STEPS, Probes, Samples
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.models.superres import SuperResTransformer
from styledrop_cli.sampling.masking import random_mask, steps_left
from styledrop_cli.settings import ALL_LAYERS, OBJECT, STYLE, UNKNOWN_CONTENT, TrainSettings, checked_weights
from styledrop_cli.training.distributed import (
    LostProcessError,
    is_first,
    rank_and_world_size,
    uninterrupted,
    wait_for_everyone,
)
from styledrop_cli.training.loop import Budget, Loop, Progress, hidden, masked_cross_entropy, step_generator

LABEL_SMOOTHING = 0.1
# The standard error of the difference of two mean totals, each over eight test pictures that spread by 0.35. Of
# checkpoints that are no further apart the last is taken: it has more style.
TIE_MARGIN = 0.17
SAVE_EVERY = 25  # steps
TIMED_STEPS, TIMED_VIEWS = 3, 8  # by which it is foreseen how long a training takes
MEASURED_VIEWS = 16  # crops of each reference, by which it is measured how well it was learnt
LOSSES = 500  # points of the loss curve, at most about
CURVE = "curve.json"
SHEET = "samples-{:07d}"  # of a person's own prompts
OnStep = Callable[[int, int, float], None]  # the step that was taken, of how many, and its loss


@dataclass(frozen=True)
class TrainResult:
    """What a training made: the adapter file at ``path``, which is the checkpoint at ``step``.

    ``content_texts`` is what the pictures were taken to show, ``reconstruction_psnr`` how well the tokenizer shows the
    worst of them (dB), ``compared`` whether test pictures chose the step.
    """

    path: Path
    content_texts: list[str]
    reconstruction_psnr: float
    step: int
    seconds: float
    compared: bool = False


class _AdapterTask(nn.Module):
    """The loss of an adapter: cross-entropy of the frozen network's hidden ids.

    ``part`` is the network, ``transformer`` or ``superres``; ``prompts`` are what the P pictures show. Without an
    adapter it is the network's own loss.
    """

    def __init__(self, base: Base, part: str, adapter: Adapter | None, prompts: list[str]) -> None:
        super().__init__()
        self.adapter = adapter
        self._steps, self._schedule = base.sampling().steps, base.schedule
        self._told = base.told
        self._text = base.text_states(prompts, base.parts.get(part))
        self._condition = None
        if adapter is None or not adapter.reads_text:  # then a prompt is read once
            with torch.no_grad():
                read = base.parts.get(part).condition(*self._text)
                self._condition = base.parts.get(part).ahead(read, base.all_told(self._steps))
        for name in ("clip", "tokenizer", part):  # not needed any more
            base.done_with(name)
        self.network = cast_once(base.parts.get(part), base.device)
        if self.network is not base.parts.get(part):
            base.done_with(part)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> Tensor:
        """``ids`` and ``masked`` ``[B,H,W]``, the picture of each ``[B]`` and, for super-resolution, ``low_res``."""
        ids, masked, pictures, low_res = batch
        condition = (self._condition or self.network.condition(*self._text, self.adapter)).select(pictures)
        if low_res is not None:
            assert isinstance(self.network, SuperResTransformer)
            condition = self.network.beside(condition, low_res, self.adapter)
        left = steps_left(masked.float().mean((1, 2)), self._steps, self._schedule)
        condition = condition.at(self._told(left, self._steps))
        return masked_cross_entropy(self.network, ids, masked, condition, self.adapter, LABEL_SMOOTHING)


def train_adapter(
    base: Base,
    *,
    pictures: list[Path],
    style: str,
    contents: list[str] | None = None,
    weights: Sequence[float] | None = None,
    settings: TrainSettings,
    output: Path,
    sample_prompts: Sequence[str] = (),
    fresh: bool = False,
    on_step: OnStep = lambda step, total, loss: None,
    on_message: OnMessage = quietly,
) -> TrainResult:
    """Train an adapter on ``pictures`` and write it to ``output``.

    ``contents`` says what each picture shows; without it ``guess_content`` does. ``weights`` say how often each is
    learnt from beside the others, 0.001 to 1000; without them all are alike. For an object (``settings.learn``)
    they are its names, and ``style`` is empty. Work in progress lies in ``<output>.run/``: the same call goes on where
    an interrupted one stopped, to the same weights, unless ``fresh``. Checkpoints (adapter files, each with a sheet of
    test pictures, and one of ``sample_prompts``, which have no style and choose nothing) and ``curve.json`` (losses,
    scores of the checkpoints, which was chosen) stay there. Of several
    processes (``distributed.together``) all call it, and rank 0 alone writes.

    Raises PictureError for a picture that is unreadable or fully transparent, UsageError for contents or weights that
    do not match the pictures, weights out of range, an object without a name or with a style, an adapter of 1 % of the
    base or more, an unfinished run with other settings, or more processes than pictures a step; LostProcessError if one
    of several dies.
    """
    started = time.monotonic()
    if settings.learn == OBJECT and (style.strip() or not contents):
        raise UsageError("an object has a name to be called by, its content, and no style")
    each = checked_weights(weights, [path.name for path in pictures])
    images = [load_reference(path, on_message) for path in pictures]
    if contents is None:
        contents = [guess_content(base, image, path, on_message) for image, path in zip(images, pictures, strict=True)]
    elif len(contents) != len(images):
        raise UsageError(f"{len(images)} pictures but {len(contents)} contents", "Give one for each picture, in order.")
    contents = [base.text_tokenizer.cut(content, style, on_message) for content in contents]
    _warn_of_contents(base, contents, settings, on_message)
    if settings.checkpoints and base.clip.visual is None:
        on_message(f"Warning: the CLIP of {base.name} sees no pictures: none are compared, and the last step is taken")
    adapter = new_adapter(base.transformer, settings)
    seen = [base.reconstruct(image) for image in images]
    quality = [one.psnr for one in seen]
    for path, one in zip(pictures, seen, strict=True):
        if lost := fidelity.warning(base.name, path.name, one.edges):
            on_message(f"Warning: {lost}")
    superres = None
    if base.superres is not None and settings.superres_steps:
        superres = new_superres_adapter(base.superres, settings)
    draws, large = generator(settings.seed), base.superres is not None  # the same crops, whether or not it is trained
    views = tokenize_views(base, images, contents, settings.views, draws, large, superres is not None)
    about = of_pictures(pictures, images, quality, each)
    training = _Training(
        base,
        TrainingViews(views, contents, len(images), each),
        style,
        settings,
        adapter,
        superres,
        {"superres": superres.stored_config if superres is not None else None} | about,
        [base.text_tokenizer.cut(prompt, style, on_message) for prompt in sample_prompts],
    )
    step = training.into(output, [p["sha256"] for p in about["pictures"]], fresh, on_step, on_message)
    return TrainResult(output, contents, min(quality), step, time.monotonic() - started, training.compares)


def _warn_of_contents(base: Base, contents: list[str], settings: TrainSettings, on_message: OnMessage) -> None:
    """Warn of words that the base was never taught; the name of an object may have such words beside a known one."""
    for content in dict.fromkeys(contents):
        named = settings.learn == OBJECT and base.words.intersection(words(content)) - FILLERS
        if content != UNKNOWN_CONTENT and not named:
            for remark in base.remarks([content], so="name the content in plainer words (--content)."):
                on_message(f"Warning: {remark}")


def train_on_picks(
    base: Base,
    parent: AdapterFile,
    *,
    ids: Tensor,
    contents: list[str],
    settings: TrainSettings,
    output: Path,
    about: dict[str, Any],
    on_step: OnStep = lambda step, total, loss: None,
    on_message: OnMessage = quietly,
) -> TrainResult:
    """Train a new adapter on the references of ``parent`` and on picked ids ``[N,H,W]``, and write it to ``output``.

    A round of feedback (StyleDrop, 3.3). ``contents`` are the picks' prompts without their style. The adapter of
    super-resolution is taken over from ``parent``; ``about`` joins the header. Resumed as ``train_adapter`` is.
    Raises ModelError if ``parent`` holds no views of its references, UsageError if it learnt an object, and as
    ``train_adapter`` does.
    """
    started = time.monotonic()
    header = parent.header
    examples = references_of(parent).with_picks(ids, contents)
    kept: dict[str, Any] = {"superres": header.superres, "pictures": header.pictures, "thumbnail": header.thumbnail}
    kept |= weights_said(header.weights)
    adapter = new_adapter(base.transformer, settings)
    training = _Training(base, examples, header.style, settings, adapter, None, kept | about)
    training.beside |= {n: t for n, t in parent.tensors.items() if n.startswith("superres.")}
    step = training.into(output, [tensors_hash(examples.views)], False, on_step, on_message)
    return TrainResult(output, examples.contents, 0.0, step, time.monotonic() - started)


def foresee(base: Base, settings: TrainSettings, pictures: int) -> float:
    """About how many seconds ``train_adapter`` takes here for so many pictures: a little of each part of it is timed.

    Raises UsageError for an adapter of 1 % of the base or more, and for more processes than pictures a step.
    """
    adapter = new_adapter(base.transformer, settings)
    superres = new_superres_adapter(base.superres, settings) if base.superres and settings.superres_steps else None
    blank = to_image(torch.full((3, base.sizes[0], base.sizes[0]), 0.5))
    few = min(settings.views, TIMED_VIEWS)
    began = time.monotonic()
    draws, large = generator(settings.seed), base.superres is not None
    views = tokenize_views(base, [blank], [UNKNOWN_CONTENT], few, draws, large, superres is not None)
    tokenized = time.monotonic()
    examples = TrainingViews(views, [UNKNOWN_CONTENT], 1)
    training = _Training(base, examples, "", replace(settings, steps=1 + TIMED_STEPS), adapter, superres, {})
    compared = time.monotonic() - tokenized  # the base's test pictures
    seconds = (tokenized - began) / few * settings.views * pictures + (1 + settings.checkpoints) * compared
    if superres is not None:
        seconds += settings.superres_steps * training.seconds_a_step("superres", superres)
    return seconds + settings.steps * training.seconds_a_step("transformer", adapter)


@torch.no_grad()
def losses_of_each(base: Base, file: AdapterFile) -> list[tuple[float, float]]:
    """Of each reference in ``file`` the training's loss on some crops of it: without the adapter, and with it.

    Both with the same masks, and the label smoothing of training. Raises as ``references_of`` and ``open_adapter`` do.
    """
    examples, header = references_of(file), file.header
    owners, all_ids = examples.views["views.picture"], examples.views["views.ids"]
    prompts = [with_style(content, header.style) for content in examples.contents[: examples.references]]
    found: list[list[float]] = []
    for adapter in (None, open_adapter(base, file).base):
        task, means = _AdapterTask(base, "transformer", adapter, prompts).to(base.device), []
        for picture in range(examples.references):
            ids = all_ids[owners == picture][:MEASURED_VIEWS].long()
            masked = random_mask(len(ids), ids[0].numel(), step_generator(0, picture)).view(ids.shape)
            total = 0.0
            for part, hidden_ones in zip(ids.split(base.batch), masked.split(base.batch), strict=True):
                one = torch.full((len(part),), picture, device=base.device)
                with autocast(base.device):
                    loss = task((part.to(base.device), hidden_ones.to(base.device), one, None))
                total += float(loss) * int(hidden_ones.sum())
            means.append(total / int(masked.sum()))
        found.append(means)
    return list(zip(*found, strict=True))


class _Training:
    """One training: its networks, what they learn from and, once it has begun, its run folder."""

    def __init__(
        self,
        base: Base,
        examples: TrainingViews,
        style: str,
        settings: TrainSettings,
        adapter: Adapter,
        superres: Adapter | None,
        about: dict[str, Any],
        sample_prompts: Sequence[str] = (),
    ) -> None:
        if settings.batch_size < (processes := rank_and_world_size()[1]):
            raise UsageError(
                f"{processes} processes cannot share steps of so few pictures: {settings.batch_size}",
                "Start no more processes than that.",
            )
        self._base, self._settings, self._adapter, self._superres = base, settings, adapter, superres
        self._examples = examples
        self._header = describe(base, adapter, examples.contents, style, settings).with_values(**about)
        self.beside = dict(examples.views)  # what stands in the file beside the adapter
        self._scored = settings.checkpoints > 0 and base.clip.visual is not None
        sampling = base.sampling(steps=STEPS, lambda_a=settings.lambda_a, lambda_b=settings.lambda_b)
        # Rank 0 draws the test pictures, while the others wait.
        self._probes = Probes(base, examples, style, sampling) if self._scored and is_first() else None
        self._samples = None
        if sample_prompts and is_first():
            as_drawn = replace(sampling, steps=base.sampling().steps, size=base.sizes[-1])
            self._samples = Samples(base, sample_prompts, style, as_drawn)
        count = settings.checkpoints if self._scored else 1
        if sample_prompts:
            count = settings.checkpoints or TrainSettings.checkpoints
        self._points = {max(1, round(settings.steps * (i + 1) / count)) for i in range(count)}
        self._curve: dict[str, Any] = {"losses": [], "checkpoints": [], "chosen": None}
        self._prompts = [with_style(content, style) for content in examples.contents]
        self._loop = self._new_loop("transformer", adapter, settings.lr, settings.steps)

    def _new_loop(self, part: str, adapter: Adapter, rate: float, steps: int) -> Loop:
        base, settings, views = self._base, self._settings, self._examples.views
        is_superres = part == "superres"
        ids, owners = views["views.superres" if is_superres else "views.ids"], views["views.picture"]

        def batches(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
            g = step_generator(settings.seed, step)
            rows = self._examples.rows(torch.arange(settings.batch_size) + step * settings.batch_size, g)
            batch = ids[rows].long()
            masked = random_mask(len(batch), batch[0].numel(), g).view(batch.shape)
            low_res = views["views.ids"][rows].long().to(base.device) if is_superres else None
            return batch.to(base.device), masked.to(base.device), owners[rows].to(base.device), low_res

        return Loop(
            _AdapterTask(base, part, adapter, self._prompts).to(base.device),
            [torch.optim.Adam(adapter.parameters(), lr=rate)],
            batches,
            budget=Budget(steps=steps),
            device=base.device,
            weight=hidden,
        )

    def seconds_a_step(self, part: str, adapter: Adapter) -> float:
        """How long a step takes, found out by a few; the first one is not counted."""
        times: list[float] = []
        self._new_loop(part, adapter, 0.0, 1 + TIMED_STEPS).run(lambda now: times.append(now.seconds))
        return (times[-1] - times[0]) / TIMED_STEPS

    def into(self, output: Path, sources: list[str], fresh: bool, on_step: OnStep, on_message: OnMessage) -> int:
        """Train, or go on, beside ``output`` and write it; the step of the checkpoint that was chosen.

        ``sources`` are hashes of what is learnt from.
        """
        header, device = self._header, self._base.device
        folder = run_of(output)
        alike = [1.0] * self._examples.references
        settings = {
            "base": header.base,
            "pictures": sources,
            "contents": header.contents,
            "style": header.style,
            "weights": header.weights or alike,
            **header.settings,
        }
        with alone_in(folder) if is_first() else nullcontext():
            if is_first():
                place = real_place(output)
                remove_parts(place.parent, escape(temporary_name(place.name)))
                own = (*(any_of(name) for name in (CHECKPOINT, SHEET)), CURVE, SUPERRES)
                unsaid = {"learn": STYLE, "choose_scales": True, "weights": alike, "layers": ALL_LAYERS}
                self._run = Run.begin(folder, settings, fresh=fresh, own=own, unsaid=unsaid)
            else:
                self._run = Run(folder, settings)
            wait_for_everyone(device)  # until what was left of an earlier run is gone
            try:
                step = self._train(on_step, on_message)
            except LostProcessError as error:
                saved = [path.stem.rpartition("-")[2] for path in self._run.states()]
                raise LostProcessError(
                    f"The same command goes on from step {int(saved[0])}." if saved else "The same command starts anew."
                ) from error
            if is_first():
                atomic_write(output, self._checkpoint_file(step).read_bytes())
                self._run.finish()
            wait_for_everyone(device)  # until the file is written
            return step

    def _checkpoint_file(self, step: int) -> Path:
        return self._run.folder / f"{CHECKPOINT.format(step)}.safetensors"

    def _train(self, on_step: OnStep, on_message: OnMessage) -> int:
        """Train to the end, from where the run folder stands; the step of the checkpoint that was chosen."""
        first = 0
        if self._superres is not None:
            first = self._settings.superres_steps
            self._train_superres(self._superres, lambda now: on_step(now.step, self._settings.steps + first, now.loss))

        def after_step(progress: Progress) -> None:
            self._record_loss()
            on_step(first + progress.step, self._settings.steps + first, progress.loss)
            if is_first() and progress.step in self._points:
                self._checkpoint()
            if is_first() and progress.step % SAVE_EVERY == 0:
                self._save()

        try:
            self._resume(on_message)
            self._loop.run(after_step)
        except KeyboardInterrupt:
            if (step := self._loop.progress.step) and is_first():
                with uninterrupted():  # a launcher sends Ctrl-C twice
                    self._save()
                on_message(f"stopped at step {step} of {self._settings.steps}; the same command goes on from there")
            raise
        if not is_first():
            return self._loop.progress.step
        chosen = self._curve["chosen"] = self._choose()
        self._run.write(CURVE, self._curve)
        if self._probes is not None and self._settings.choose_scales:
            self._choose_scales(self._probes, self._checkpoint_file(chosen), on_message)
        return chosen

    def _train_superres(self, adapter: Adapter, on_step: Callable[[Progress], None]) -> None:
        """Train super-resolution's adapter, or read the one that an interrupted run had finished.

        It comes first, so that every checkpoint is a whole adapter file. It takes seconds, and the same seed gives the
        same weights: interrupted, it starts over.
        """
        path = self._run.folder / SUPERRES
        try:
            saved, about = read_tensors(path)
            whole = about.get("sha256") == tensors_hash(saved)
        except ModelError:
            saved, whole = {}, False
        if whole:
            load_strictly(adapter, own_tensors(saved, "superres."), str(path))
        else:
            self._new_loop("superres", adapter, self._settings.superres_lr, self._settings.superres_steps).run(on_step)
            saved = tensors_of(adapter, "superres.")
            if is_first():
                save_tensors(path, saved, {"sha256": tensors_hash(saved)})
        self.beside |= {n: t.detach() for n, t in tensors_of(adapter, "superres.").items()}

    def _resume(self, on_message: OnMessage) -> None:
        """Go on from the newest state that is whole, if there is any."""
        for state in self._run.states():
            try:
                self._loop.resume(state)
            except ModelError as error:
                on_message(f"Warning: {error}; going on from the one before")
                continue
            step = self._loop.progress.step
            losses, checkpoints = _sound_curve(self._run.read(CURVE), scored=self._scored)
            self._curve["losses"] = [point for point in losses if point[0] <= step]
            done = [c for c in checkpoints if c["step"] <= step and self._checkpoint_file(c["step"]).exists()]
            self._curve["checkpoints"] = done
            on_message(f"going on from step {step} of {self._settings.steps}")
            if is_first() and step in self._points and step not in [c["step"] for c in done]:
                self._checkpoint()  # the interruption came between the step and its test pictures
            return

    def _record_loss(self) -> None:
        """Enter the loss of the newest step into the curve, once."""
        progress, losses = self._loop.progress, self._curve["losses"]
        due = progress.step % max(1, self._settings.steps // LOSSES) == 0
        if due and (not losses or losses[-1][0] < progress.step):
            losses.append([progress.step, round(progress.loss, 4)])

    def _save(self) -> None:
        self._record_loss()
        self._run.write(CURVE, self._curve)
        self._run.save_state(self._loop.progress.step, self._loop.save)

    def _checkpoint(self) -> None:
        """Write the adapter as it is, and what it draws."""
        progress = self._loop.progress
        entry: dict[str, Any] = {"step": progress.step, "loss": round(progress.loss, 4)}
        if self._probes is not None:
            scores, sheet = self._probes.measure(self._adapter)
            named = asdict(scores) | {"total": scores.total}
            entry["scores"] = {name: round(value, 4) for name, value in named.items()}
            save_png(sheet, self._run.folder / f"{CHECKPOINT.format(progress.step)}.png")
        if self._samples is not None:
            sheet = self._samples.sheet(self._adapter, progress.step)
            save_png(sheet, self._run.folder / f"{SHEET.format(progress.step)}.png")
        write_adapter(
            self._checkpoint_file(progress.step), self._adapter, self._header.with_values(**entry), self.beside
        )
        self._curve["checkpoints"].append(entry)

    @property
    def compares(self) -> bool:
        """Whether test pictures choose the step."""
        return self._scored and not self._settings.last

    def _choose(self) -> int:
        """The step of the last checkpoint that is as good as the best, as far as the test pictures can tell."""
        checkpoints = self._curve["checkpoints"]
        if not self.compares:
            return int(checkpoints[-1]["step"])
        best = max(c["scores"]["total"] for c in checkpoints)
        return max(int(c["step"]) for c in checkpoints if c["scores"]["total"] >= best - TIE_MARGIN)

    def _choose_scales(self, probes: Probes, checkpoint: Path, on_message: OnMessage) -> None:
        """Let a checkpoint recommend the pair of scales at which it draws the test pictures best."""
        values, gain, (low, high) = probes.best_scales(open_adapter(self._base, load_adapter(checkpoint)).base)
        if values == {name: getattr(self._settings, name) for name in values}:
            return
        write_trained(checkpoint, values)
        said = ", ".join(f"{name} {value:g}" for name, value in values.items())
        on_message(
            f"the test pictures are best at {said}: their balance is {gain:.3f} ({low:.3f} to {high:.3f}) higher than "
            "at the usual scales; the file recommends these"
        )


def _sound_curve(curve: Any, scored: bool) -> tuple[list[list[Any]], list[dict[str, Any]]]:
    """The losses and the checkpoints of a curve's file; none if it is not as it was written."""
    try:
        sound = all(type(step) is int and isinstance(loss, float) for step, loss in curve["losses"]) and all(
            type(one["step"]) is int and (not scored or math.isfinite(one["scores"]["total"]))
            for one in curve["checkpoints"]
        )
        return (curve["losses"], curve["checkpoints"]) if sound else ([], [])
    except (TypeError, KeyError, ValueError):
        return [], []
