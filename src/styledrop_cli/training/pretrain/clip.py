"""The two CLIPs of a model folder, and the text encoder that they and the generator read with.

In a folder with a ``text`` part both CLIPs are heads: on that encoder, and on a frozen EfficientNet trained on
photographs; in one without, the generator listens to ``clip``'s own text tower. ``scorer`` is smaller and was taught
apart: it grades what ``clip`` chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.base.folder import load_module, load_text, read_byte_pairs, text_part
from styledrop_cli.base.prompt_tokens import (
    BytePairTokenizer,
    TextTokenizer,
    clip_merges,
    read_merges,
    trim_merges,
    words,
    write_merges,
)
from styledrop_cli.base.registry import POCKET
from styledrop_cli.base.text_encoder import TextEncoder
from styledrop_cli.corpus.folder import Record, draw_captions, plain_contents, read_pictures, vocabulary
from styledrop_cli.devices import autocast
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write
from styledrop_cli.io.tensors import save_part
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.head_clip import HeadClip, HeadClipConfig, means
from styledrop_cli.training.distributed import all_gather, is_first
from styledrop_cli.training.loop import step_generator
from styledrop_cli.training.pretrain.encoded import encoded
from styledrop_cli.training.pretrain.features import published_features
from styledrop_cli.training.pretrain.job import Job, Order, flipped, muon, picked, remembered, split
from styledrop_cli.training.pretrain.records import WORK

FIRST_MERGES = 2500
MEASURED = 256  # held-out pictures


def moved(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A batch moved by up to 8 pixels, wrapping around the edges; half of its pictures mirrored."""
    x, y = torch.randint(-8, 9, (2,), generator=generator).tolist()
    return flipped(pictures.roll((x, y), (2, 3)), generator)


def zoomed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture at a size (0.8 to 1.25), place and contrast of its own; half of them mirrored."""
    rows = len(pictures)
    size, across, down, contrast = torch.rand(4, rows, generator=generator)
    scale, nothing = 0.8 * 1.5625**size, torch.zeros(rows)
    places = torch.stack([scale, nothing, 0.2 * across - 0.1, nothing, scale, 0.2 * down - 0.1], 1).view(rows, 2, 3)
    grid = F.affine_grid(places.to(pictures.device), list(pictures.shape), align_corners=False)
    views = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    contrasts = (0.7 + 0.6 * contrast)[:, None, None, None].to(pictures.device)
    return flipped((0.5 + contrasts * (views - 0.5)).clamp(0, 1), generator)


@dataclass(frozen=True)
class Recipe:
    """What differs between the CLIPs of a model folder."""

    sizes: ClipConfig  # the vocabulary's is known once the captions have been read
    rate: float
    views: Callable[[Tensor, torch.Generator], Tensor]  # pictures [B,3,S,S] in [0,1] as the training shows them
    seed: int  # added to the order's


# Pocket's.
RECIPES = {
    "clip": Recipe(
        ClipConfig(
            embed_dim=192,
            vocab_size=0,
            context_length=32,
            text_width=192,
            text_heads=3,
            text_layers=3,
            image_size=128,
            image_width=192,
            image_heads=3,
            image_layers=4,
        ),
        rate=1.5e-3,
        views=moved,
        seed=0,
    ),
    "scorer": Recipe(
        ClipConfig(
            embed_dim=96,
            vocab_size=0,
            context_length=32,
            text_width=64,
            text_heads=2,
            text_layers=2,
            image_size=64,
            patch_size=8,
            image_width=96,
            image_heads=2,
            image_layers=3,
        ),
        rate=4e-3,
        views=zoomed,
        seed=1_000_000,
    ),
}


# The same where the folder has a text encoder. The scorer reads other maps of EfficientNet than the CLIP does.
HEADS = {
    "clip": HeadClipConfig(),
    "scorer": HeadClipConfig(
        embed_dim=96, head_width=96, head_layers=1, head_heads=2, stages=6, pooled=5, image_width=384
    ),
}
HEAD_RATE = 1e-3
# Noise on a picture's means while heads are trained, in standard deviations: without it they overfit.
NOISE = 0.4


class _ClipTask(nn.Module):
    def __init__(self, clip: Clip | HeadClip) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, batch: tuple[Tensor, ...]) -> Tensor:
        pictures, tokens, *states = batch
        return contrastive_loss(self.clip, pictures, tokens, *states)


def contrastive_loss(clip: Clip | HeadClip, pictures: Tensor, tokens: Tensor, states: Tensor | None = None) -> Tensor:
    """CLIP's symmetric loss; a picture's right captions are all that equal its own.

    A head reads the ``states`` of the tokens, and of pictures what its tower makes ``comparable``. Every picture is
    compared with every caption, those of other processes too.
    """
    image = F.normalize(_picture_embeds(clip, pictures).float(), dim=-1)
    text = F.normalize(_text_embeds(clip, tokens, states).float(), dim=-1)
    (image, text), tokens = all_gather(torch.stack([image, text], 1)).unbind(1), all_gather(tokens)
    logits = clip.logit_scale.clamp(max=4.6052).exp() * image @ text.T
    same = (tokens[:, None] == tokens[None]).all(-1).float()
    same = same / same.sum(-1, keepdim=True)
    return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2


def _picture_embeds(clip: Clip | HeadClip, pictures: Tensor) -> Tensor:
    return clip.picture_embeds(pictures) if isinstance(clip, Clip) else clip.visual.read(pictures)


def _text_embeds(clip: Clip | HeadClip, tokens: Tensor, states: Tensor | None) -> Tensor:
    if isinstance(clip, Clip):
        return clip.text_states(tokens)[1]
    assert states is not None
    return clip.text_embeds(states)


def clip_job(order: Order) -> Job:
    """Train the CLIP on pictures and captions.

    Where the folder has no text encoder, this also writes the vocabulary and the lists of what was taught. Once a base
    was trained with its text tower, only the picture tower is trained further. Raises UsageError if the CLIP should
    then start from other weights.
    """
    if text_part(order.out) == "text":
        return _head_job("clip", order)
    settled = (order.out / "transformer.safetensors").exists()
    if settled and order.init_from not in (None, order.out):
        raise UsageError(
            f"{order.out} holds a base that listens to its own CLIP, which another one's weights would replace",
            "Leave --init-from out to train that CLIP's picture tower, or make the new CLIP in another folder.",
        )
    source = order.out if settled else order.init_from
    if source is None:
        captions = [caption for r in order.records for caption in r.captions]
        merges = trim_merges(clip_merges(POCKET / "merges.txt"), captions, FIRST_MERGES)
        tokenizer = BytePairTokenizer(merges, RECIPES["clip"].sizes.context_length)
        clip = Clip(replace(RECIPES["clip"].sizes, vocab_size=tokenizer.size))
    else:
        clip = load_module(source, "clip")
        tokenizer = read_byte_pairs(source, clip.config)
    if not settled and is_first():
        write_merges(order.out / "merges.txt", tokenizer.merges)
        write_taught(order.out, order.records)
    clip.requires_grad_(not settled)
    assert clip.visual is not None
    clip.visual.requires_grad_(True)
    return _own_job("clip", order, clip, tokenizer)


def write_taught(folder: Path, records: list[Record], more: Iterable[str] = ()) -> None:
    """Write the lists of what a base is taught: words (also those of ``more`` texts) and names of what is shown."""
    known = {word for text in more for word in words(text)} | set(vocabulary(records))
    for name, lines in (("words.txt", sorted(known)), ("contents.txt", plain_contents(records))):
        atomic_write(folder / name, "".join(f"{line}\n" for line in lines).encode())


def _head_job(part: str, order: Order) -> Job:
    """Train a head on the folder's frozen text encoder, and its picture tower."""
    text, recipe = load_text(order.out, order.device), RECIPES[part]
    if order.init_from is None:
        torch.manual_seed(order.seed + recipe.seed)
        clip = HeadClip(replace(HEADS[part], text_width=text.width))
        clip.visual.network = published_features(clip.config.stages)
    else:
        clip = load_module(order.init_from, part)
        if not isinstance(clip, HeadClip) or clip.config.text_width != text.width:
            raise UsageError(
                f"the {part} of {order.init_from} does not read with the text encoder of {order.out}",
                "Leave --init-from out, or start that folder's text from the same model.",
            )
    clip.requires_grad_(True)
    tower, size = clip.visual.to(order.device), clip.config.image_size
    tower.network.requires_grad_(False)
    whole = published_features().to(order.device)  # each CLIP reads some of its maps
    seen = encoded(
        lambda pictures: means(whole.features(pictures * 2 - 1)).half(),
        order.records,
        size,
        order.out / WORK / f"seen-{size}.safetensors",
        f"{size}",
        order.device,
        order.call.check,
    )[:, tower.own]
    if order.init_from is None:
        tower.fit(seen)
    held = torch.tensor([r.held_out for r in order.records])
    shown, measured = seen[~held].to(order.device), seen[held][:MEASURED].to(order.device)

    def views(rows: Tensor, generator: torch.Generator) -> Tensor:
        comparable = tower.comparable(shown[rows.to(shown.device)].float())
        return comparable + NOISE * torch.randn(comparable.shape, generator=generator).to(comparable.device)

    optimizer = torch.optim.AdamW(
        [p for p in clip.parameters() if p.requires_grad], lr=HEAD_RATE, betas=(0.9, 0.98), weight_decay=0.05
    )
    return _job(part, order, clip, text.tokenizer, [optimizer], views, tower.comparable(measured.float()), text)


def scorer_job(order: Order) -> Job:
    """Train the second, smaller CLIP: from its own seed, with its own views, in the same vocabulary.

    Raises ModelError if there is no first one yet, and UsageError if ``init_from`` has another vocabulary.
    """
    if text_part(order.out) == "text":
        return _head_job("scorer", order)
    first: Clip = load_module(order.out, "clip")
    tokenizer = read_byte_pairs(order.out, first.config)
    recipe = RECIPES["scorer"]
    if order.init_from is None:
        torch.manual_seed(order.seed + recipe.seed)
        scorer = Clip(replace(recipe.sizes, vocab_size=tokenizer.size, context_length=tokenizer.context_length))
    else:
        scorer = load_module(order.init_from, "scorer")
        if read_merges(order.init_from / "merges.txt") != tokenizer.merges:
            raise UsageError(
                f"the scorer of {order.init_from} was taught in another text vocabulary than {order.out} has",
                "Leave --init-from out, or start that folder's CLIP from the same model.",
            )
        tokenizer = read_byte_pairs(order.init_from, scorer.config)
    return _own_job("scorer", order, scorer.requires_grad_(True), tokenizer)


def _own_job(part: str, order: Order, clip: Clip, tokenizer: TextTokenizer) -> Job:
    """Train those towers of a CLIP that are not frozen."""
    train, held = split(order.records)
    recipe, size = RECIPES[part], clip.config.image_size
    pictures, measured = order.pictures(train, size), read_pictures(held[:MEASURED], size).float() / 255

    def views(rows: Tensor, generator: torch.Generator) -> Tensor:
        return recipe.views(picked(pictures, rows, order.device).float() / 255, generator)

    return _job(part, order, clip, tokenizer, muon(clip, recipe.rate), views, measured)


def _job(
    part: str,
    order: Order,
    clip: Clip | HeadClip,
    tokenizer: TextTokenizer,
    optimizers: list[torch.optim.Optimizer],
    views: Callable[[Tensor, torch.Generator], Tensor],
    measured: Tensor,
    text: TextEncoder | None = None,
) -> Job:
    """``views`` is what the loss reads of the training pictures at given rows, ``measured`` of the held-out ones."""
    device = order.device
    train, held = split(order.records)
    states = None if text is None else remembered(text, device)

    def read(texts: list[str]) -> tuple[Tensor, ...]:
        tokens = tokenizer(texts).to(device)
        return (tokens,) if states is None else (tokens, states(texts))

    held_texts = read([r.captions[0] for r in held[:MEASURED]])

    def batches(step: int) -> tuple[Tensor, ...]:
        g = step_generator(order.seed + RECIPES[part].seed, step)
        rows = torch.randint(len(train), (order.batch,), generator=g)
        return views(rows, g).to(device), *read(draw_captions(train, rows, g))

    def figure(task: nn.Module) -> str:
        with autocast(device):
            image = F.normalize(_picture_embeds(clip, measured.to(device)).float(), dim=-1)
            caption = F.normalize(_text_embeds(clip, held_texts[0], held_texts[-1]).float(), dim=-1)
        scores = (image @ caption.T).cpu()
        own = scores.diagonal()[:, None]
        return f"held-out: right caption first in {float((scores <= own).all(-1).float().mean()):.1%} of {len(own)}"

    task = _ClipTask(clip).to(device)
    return Job(task, optimizers, batches, figure, lambda t: save_part(order.out, part, clip, clip.config))
