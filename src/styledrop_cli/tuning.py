"""Learning a style: from reference pictures to an adapter file (StyleDrop, arXiv 2306.00983, 3.2)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli import __version__
from styledrop_cli.base import Base
from styledrop_cli.checkpoints import FORMAT, AdapterFile, build_config, load_strictly, save_adapter
from styledrop_cli.devices import autocast, generator
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.images import contact_sheet, load_picture, save_png, square, thumbnail_base64, to_image, to_tensor
from styledrop_cli.models.adapter import AdapterConfig, BottleneckAdapter
from styledrop_cli.models.transformer import Condition
from styledrop_cli.sampling.masking import random_mask
from styledrop_cli.settings import SampleSettings, TrainSettings
from styledrop_cli.text import with_style, words
from styledrop_cli.training import Budget, Loop, Progress, masked_cross_entropy, step_generator

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_SHARE = 0.01  # of the base's parameters
SMALLEST_CROP = 0.75  # of the picture's side
POOR_PSNR = 17.0  # dB: below this, a reconstruction no longer looks like the picture
UNSURE = 0.25  # of the guesses' probability
NAMELESS = "a picture"
# Mirrored, these would be wrong.
LETTERED = frozenset("letter letters logo text word words number numbers digit sign wordmark monogram alphabet".split())
PREVIEWS = ("a cat", "a teapot", "a house", "a rocket")


@dataclass(frozen=True)
class TrainResult:
    """What ``train_adapter`` did: the file, the content texts used, how well the tokenizer shows the pictures (dB)."""

    path: Path
    content_texts: list[str]
    reconstruction_psnr: float
    seconds: float


class _AdapterTask(nn.Module):
    """The frozen base inside, the adapter beside it."""

    def __init__(self, base: Base, adapter: BottleneckAdapter, condition: Condition) -> None:
        super().__init__()
        self.transformer = base.transformer
        self.adapter = adapter
        self.condition = condition

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        ids, masked, rows = batch
        return masked_cross_entropy(self.transformer, ids, masked, self.condition.select(rows), self.adapter, 0.1)


def train_adapter(
    base: Base,
    *,
    pictures: list[Path],
    style: str,
    contents: list[str] | None = None,
    settings: TrainSettings,
    output: Path,
    on_step: Callable[[int, int, float], None] = lambda step, total, loss: None,
    on_message: Callable[[str], None] = lambda message: None,
) -> TrainResult:
    """Train an adapter on ``pictures`` and write it to ``output``.

    ``contents`` says what each picture shows, in order; without it the bundled CLIP guesses. Previews go to a folder
    beside the output, ``<output>.run/``. Raises PictureError for an unreadable picture, UsageError for contents
    that do not match the pictures or an adapter of 1 % of the base or more.
    """
    started = time.monotonic()
    images = [load_picture(path) for path in pictures]
    if contents is not None and len(contents) != len(images):
        raise UsageError(f"{len(images)} pictures but {len(contents)} contents", "Give one for each picture, in order.")
    if contents is None:
        contents = [guess_content(base, image, path, on_message) for image, path in zip(images, pictures, strict=True)]
    for content in contents:
        if unknown := base.unknown_words(content):
            named = ", ".join(f"'{word}'" for word in unknown)
            on_message(f"Warning: {base.name} does not know {named}; name the content in plainer words (--content).")
    adapter = new_adapter(base, settings)
    quality = [base.reconstruct(image).psnr for image in images]
    for path, value in zip(pictures, quality, strict=True):
        if value < POOR_PSNR:
            on_message(
                f"Warning: {base.name} can show {path.name} only roughly ({value:.1f} dB; below {POOR_PSNR:.0f} fine "
                "detail is lost). A simpler or larger crop of the picture, or a larger base (--model), shows it better."
            )
    prompts = [with_style(content, style) for content in contents]
    draws = generator(settings.seed)
    views, owners = tokenize_views(base, images, contents, settings.views, draws)
    task = _AdapterTask(base, adapter, base.condition(prompts)).to(base.device)

    def batches(step: int) -> tuple[Tensor, Tensor, Tensor]:
        g = step_generator(settings.seed, step)
        # Every reference in turn, so that a small batch leaves none out.
        owner = (torch.arange(settings.batch_size) + step * settings.batch_size) % len(images)
        rows = owner * settings.views + torch.randint(settings.views, (settings.batch_size,), generator=g)
        ids = views[rows].long()
        masked = random_mask(len(ids), ids[0].numel(), g).view(ids.shape)
        return ids.to(base.device), masked.to(base.device), owners[rows].to(base.device)

    loop = Loop(
        task,
        [torch.optim.Adam(adapter.parameters(), lr=settings.lr)],
        batches,
        budget=Budget(steps=settings.steps),
        device=base.device,
    )
    run_folder = output.with_name(output.name + ".run")

    def after_step(progress: Progress) -> None:
        on_step(progress.step, settings.steps, progress.loss)
        if settings.preview_every and progress.step % settings.preview_every == 0:
            _preview(base, adapter, style, settings, run_folder / f"step-{progress.step:05d}.png")

    loop.run(after_step)
    seconds = time.monotonic() - started
    header = describe(base, adapter, pictures, images, contents, style, settings, loop.progress.loss, quality)
    tensors = {f"adapter.{n}": t for n, t in adapter.state_dict().items()}
    tensors |= {"views.ids": views, "views.picture": owners}
    save_adapter(output, tensors, header, modelspec(header))
    return TrainResult(output, contents, min(quality), seconds)


def new_adapter(base: Base, settings: TrainSettings) -> BottleneckAdapter:
    """A fresh adapter for ``base``; raises UsageError if it would be 1 % of the base or more."""
    sizes = base.transformer.config
    config = AdapterConfig(sizes.num_hidden_layers, sizes.hidden_size, settings.width, settings.shared)
    adapter = BottleneckAdapter(config)
    adapter.initialise(generator(settings.seed))
    own, whole = (sum(p.numel() for p in m.parameters()) for m in (adapter, base.transformer))
    if own >= LARGEST_SHARE * whole:
        raise UsageError(
            f"an adapter of width {settings.width} is {own / whole:.1%} of the base", "Choose a smaller width."
        )
    return adapter


def open_adapter(base: Base, file: AdapterFile) -> BottleneckAdapter:
    """The adapter that ``file`` holds, ready for ``base``; raises ModelError if it belongs to another base."""
    header = file.header
    about = header["base"]
    if about.get("hash") != base.hash:
        raise ModelError(
            f"{file.path} was trained on another base ({about.get('name', 'unnamed')}) than this one ({base.name})",
            "Choose its base with --model, or train it again on this one.",
        )
    if header["kind"] != "bottleneck":
        raise ModelError(f"{file.path} is an adapter of kind '{header['kind']}', which is not known here")
    adapter = BottleneckAdapter(build_config(AdapterConfig, header["config"], str(file.path)))
    own = {n.removeprefix("adapter."): t for n, t in file.tensors.items() if n.startswith("adapter.")}
    load_strictly(adapter, own, str(file.path))
    return adapter.requires_grad_(False).eval().to(base.device)


@torch.no_grad()
def tokenize_views(
    base: Base, images: list[Image], contents: list[str], views: int, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random crops of each picture as ids, int16 ``[P*views,H,W]``, and the picture each is of, ``[P*views]``.

    Crops cover at least 3/4 of the side; half of them are mirrored, but not where the content names letters or a
    logo. The first view of each picture is the whole of it. Each is tokenized once.
    """
    side = base.grid * base.tokenizer.config.factor
    parts = []
    for image, content in zip(images, contents, strict=True):
        whole = to_tensor(square(image, 2 * side))
        mirror = not LETTERED & set(words(content))
        crops = [_random_crop(whole, side, mirror and i > 0, i == 0, draws) for i in range(views)]
        for chunk in torch.stack(crops).split(16):
            parts.append(base.tokenizer.encode(chunk.to(base.device)).to("cpu", torch.int16))
    owners = torch.arange(len(images)).repeat_interleave(views)
    return torch.cat(parts), owners


def _random_crop(whole: Tensor, side: int, mirror: bool, complete: bool, draws: torch.Generator) -> Tensor:
    full = whole.shape[-1]
    scale, x, y, flip = torch.rand(4, generator=draws).tolist()
    size = full if complete else round(full * (SMALLEST_CROP + (1 - SMALLEST_CROP) * scale))
    left, top = round(x * (full - size)), round(y * (full - size))
    crop = whole[None, :, top : top + size, left : left + size]
    crop = F.interpolate(crop, size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0]
    return crop.flip(-1) if mirror and flip < 0.5 else crop


@torch.no_grad()
def guess_content(base: Base, image: Image, path: Path, on_message: Callable[[str], None]) -> str:
    """What a picture shows, by the bundled CLIP among the things it was taught; said aloud."""
    if not base.contents or base.clip.visual is None:
        on_message(
            f"Warning: {base.name} cannot guess what {path.name} shows; taking '{NAMELESS}'. Say it with --content."
        )
        return NAMELESS
    picture = to_tensor(square(image, base.clip.config.image_size))[None].to(base.device)
    shown = F.normalize(base.clip.picture_embeds(picture), dim=-1)
    texts = F.normalize(base.content_embeds, dim=-1)
    chances = (base.clip.logit_scale.exp() * shown @ texts.T).softmax(-1)[0]
    best = int(chances.argmax())
    guess = base.contents[best]
    if chances[best] < UNSURE:
        on_message(
            f"Warning: not sure what {path.name} shows (perhaps {guess}, {float(chances[best]):.0%}); "
            f"taking '{NAMELESS}'. Say it with --content."
        )
        return NAMELESS
    on_message(f"{path.name} shows {guess}, it seems ({float(chances[best]):.0%}); say otherwise with --content.")
    return guess


def _preview(base: Base, adapter: BottleneckAdapter, style: str, settings: TrainSettings, path: Path) -> None:
    """A sheet from fixed seeds: the base above, with the adapter below."""
    prompts = [with_style(content, style) for content in PREVIEWS]
    sampling = SampleSettings(lambda_a=settings.lambda_a, lambda_b=settings.lambda_b)
    seeds = list(range(len(prompts)))
    with autocast(base.device):
        ids = torch.cat([base.sample(prompts, seeds, sampling, a) for a in (None, adapter)])
        pictures = base.pictures(ids, base.sizes[0])
    labels = [f"{content}, {who}" for who in ("base", "adapter") for content in PREVIEWS]
    save_png(contact_sheet([to_image(p.float().cpu()) for p in pictures], columns=len(prompts), labels=labels), path)


def describe(
    base: Base,
    adapter: BottleneckAdapter,
    pictures: list[Path],
    images: list[Image],
    contents: list[str],
    style: str,
    settings: TrainSettings,
    loss: float,
    quality: list[float],
) -> dict[str, Any]:
    """The header of an adapter file: everything needed to use it, and to know where it came from."""
    return {
        "format": FORMAT,
        "kind": "bottleneck",
        "config": asdict(adapter.config),
        "base": {"name": base.name, "hash": base.hash},
        "style": " ".join(style.split()),
        "contents": contents,
        "pictures": [
            {
                "name": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "width": image.width,
                "height": image.height,
                "psnr": round(psnr, 2),
            }
            for path, image, psnr in zip(pictures, images, quality, strict=True)
        ],
        "settings": asdict(settings),
        "recommended": {"lambda_a": settings.lambda_a, "lambda_b": settings.lambda_b},
        "steps": settings.steps,
        "seed": settings.seed,
        "loss": round(loss, 4),
        "thumbnail": thumbnail_base64(images[0]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "styledrop": __version__,
    }


def modelspec(header: dict[str, Any]) -> dict[str, str]:
    """The flat keys of the Stability AI model metadata standard, which other tools show."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"styledrop-{header['base']['name']}/{header['kind']}",
        "modelspec.implementation": "styledrop",
        "modelspec.title": header["style"],
        "modelspec.description": f"StyleDrop adapter for '{header['style']}', learnt from {len(header['pictures'])} "
        "picture(s)",
        "modelspec.usage_hint": f'styledrop generate FILE "{with_style("a cat", header["style"])}"',
        "modelspec.date": header["created"],
        "modelspec.thumbnail": header["thumbnail"],
        "modelspec.resolution": "256x256",
    }
