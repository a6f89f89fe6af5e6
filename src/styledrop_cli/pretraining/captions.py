"""The CLIP whose text tower the generator listens to."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styledrop_cli.base import POCKET, load_module, read_text_tokenizer
from styledrop_cli.checkpoints import save_part
from styledrop_cli.corpus import draw_captions, plain_contents, read_pictures, vocabulary
from styledrop_cli.devices import autocast
from styledrop_cli.images import atomic_write
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.pretraining.job import Job, Order, flipped, muon, split
from styledrop_cli.text import TextTokenizer, clip_merges, trim_merges, write_merges
from styledrop_cli.training import step_generator

# Pocket's sizes.
CLIP = ClipConfig(
    embed_dim=192,
    vocab_size=0,  # known once the captions have been read
    context_length=32,
    text_width=192,
    text_heads=3,
    text_layers=3,
    image_size=128,
    image_width=192,
    image_heads=3,
    image_layers=4,
)
FIRST_MERGES = 2500


class _ClipTask(nn.Module):
    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        pictures, tokens = batch
        return contrastive_loss(self.clip, pictures, tokens)


def contrastive_loss(clip: Clip, pictures: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's symmetric loss; captions that are equal count as each other's."""
    image = F.normalize(clip.picture_embeds(pictures).float(), dim=-1)
    text = F.normalize(clip.text_states(tokens)[1].float(), dim=-1)
    logits = clip.logit_scale.clamp(max=4.6052).exp() * image @ text.T
    same = (tokens[:, None] == tokens[None]).all(-1).float()
    same = same / same.sum(-1, keepdim=True)
    return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2


def clip_job(order: Order) -> Job:
    """Train a CLIP on pictures and captions."""
    out, device = order.out, order.device
    train, held = split(order.records)
    captions = [caption for r in order.records for caption in r.captions]
    # A base that was trained with a text tower needs that very tower: from then on only the picture tower learns.
    settled = (out / "transformer.safetensors").exists()
    source = out if settled else order.init_from
    if source is None:
        merges = trim_merges(clip_merges(POCKET / "merges.txt"), captions, FIRST_MERGES)
        tokenizer = TextTokenizer(merges, CLIP.context_length)
        clip = Clip(replace(CLIP, vocab_size=tokenizer.size))
    else:
        clip = load_module(source, "clip")
        tokenizer = read_text_tokenizer(source, clip.config)
    if not settled:
        write_merges(out / "merges.txt", tokenizer.merges)
        taught = (("words.txt", vocabulary(order.records)), ("contents.txt", plain_contents(order.records)))
        for name, lines in taught:
            atomic_write(out / name, "".join(f"{line}\n" for line in lines).encode())
    pictures, measured = read_pictures(train, 128), read_pictures(held[:256], 128)
    assert clip.visual is not None
    clip.requires_grad_(not settled)
    clip.visual.requires_grad_(True)
    task = _ClipTask(clip).to(device)
    held_tokens = tokenizer([r.captions[0] for r in held[:256]])

    def batches(step: int) -> tuple[Tensor, Tensor]:
        g = step_generator(order.seed, step)
        rows = torch.randint(len(train), (order.batch,), generator=g)
        views = pictures[rows].float() / 255
        x, y = torch.randint(-8, 9, (2,), generator=g).tolist()
        views = flipped(views.roll((x, y), (2, 3)), g)
        return views.to(device), tokenizer(draw_captions(train, rows, g)).to(device)

    def figure(task: nn.Module) -> str:
        with autocast(device):
            image = F.normalize(clip.picture_embeds(measured.to(device).float() / 255).float(), dim=-1)
            text = F.normalize(clip.text_states(held_tokens.to(device))[1].float(), dim=-1)
        scores = (image @ text.T).cpu()
        own = scores.diagonal()[:, None]
        return f"held-out: right caption first in {float((scores <= own).all(-1).float().mean()):.1%} of {len(own)}"

    return Job(task, muon(clip, 1.5e-3), batches, figure, lambda t: save_part(out, "clip", clip, clip.config))
