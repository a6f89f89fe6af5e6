"""The masked transformer, and the ids it learns from."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from styledrop_cli.base import Base, load_module, micro_conditions, read_text_tokenizer
from styledrop_cli.checkpoints import file_hash, read_tensors, save_part, save_tensors
from styledrop_cli.corpus import Record, draw_captions, read_pictures
from styledrop_cli.devices import autocast
from styledrop_cli.models.clip import Clip
from styledrop_cli.models.tokenizer import ImageTokenizer
from styledrop_cli.models.transformer import MaskedTransformer, TransformerConfig
from styledrop_cli.pretraining.job import Job, Order, muon, save_sheet, split
from styledrop_cli.sampling.masking import random_mask
from styledrop_cli.settings import SampleSettings
from styledrop_cli.training import masked_cross_entropy, step_generator

# Pocket's sizes.
BASE = TransformerConfig(
    codebook_size=1000,
    vocab_size=1001,
    hidden_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    intermediate_size=512,
    in_channels=128,
    block_out_channels=192,
    num_res_blocks=1,
    block_num_heads=3,
    encoder_hidden_size=192,
    cond_embed_dim=192,
    micro_cond_encode_dim=16,
    micro_cond_embed_dim=80,
    sample_size=16,
    downsample=True,
    upsample=True,
    positions=8,
)
TEXT_DROPPED = 0.1
PROBES = (
    "a cat in watercolor painting style",
    "a teapot in 3d rendering style",
    "a rocket in flat design style",
    "a house in line drawing style",
    "a red apple",
    "a dog in oil painting style",
    "a guitar in cartoon style",
    "a tree in pixel art style",
)


class LevelFeatures(nn.Module):
    """Adds to a table of codes what follows from each code's level along every axis of the quantizer.

    Neighbouring codes so share what they learn; ``remove_parametrizations`` folds it into the plain table.
    """

    def __init__(self, levels: tuple[int, ...], dim: int) -> None:
        super().__init__()
        grid = torch.cartesian_prod(*(torch.arange(n) for n in levels)).view(-1, len(levels))
        onehots = [F.one_hot(grid[:, axis], n).float() for axis, n in enumerate(levels)]
        values = [(grid[:, [axis]] / (n - 1) * 2 - 1) for axis, n in enumerate(levels)]
        features = torch.cat([*onehots, *values], 1)
        self.features: Tensor
        self.register_buffer("features", features)
        self.mix = nn.Parameter(0.02 * torch.randn(features.shape[1], dim))

    def forward(self, table: Tensor) -> Tensor:
        """``[R,dim]`` or ``[R,dim,1,1]`` with R at least the number of codes."""
        shared = self.features @ self.mix
        shared = F.pad(shared, (0, 0, 0, len(table) - len(shared)))
        return table + shared.view(table.shape)


class _BaseTask(nn.Module):
    def __init__(self, transformer: MaskedTransformer, clip: Clip) -> None:
        super().__init__()
        self.transformer = transformer
        self.clip = clip.requires_grad_(False)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        ids, masked, tokens = batch
        with torch.no_grad():
            text, pooled = self.clip.text_states(tokens)
        micro = micro_conditions(self.transformer.config, len(ids), ids.device)
        condition = self.transformer.condition(text, pooled, micro)
        return masked_cross_entropy(self.transformer, ids, masked, condition)


def transformer_job(order: Order) -> Job:
    """Train the masked transformer, with the tokenizer and the text tower of the same folder."""
    records, out, device = order.records, order.out, order.device
    train, held = split(records)
    image_tokenizer: ImageTokenizer = load_module(out, "tokenizer")
    clip: Clip = load_module(out, "clip")
    text_tokenizer = read_text_tokenizer(out, clip.config)
    if order.init_from is None:
        transformer = MaskedTransformer(BASE)
        transformer.initialise(torch.Generator().manual_seed(order.seed))
    else:
        transformer = load_module(order.init_from, "transformer")
    transformer.requires_grad_(True)
    levels, config = image_tokenizer.config.levels, transformer.config
    if levels:
        for module in (transformer.embed.embeddings, transformer.mlm_layer.conv2):
            parametrize.register_parametrization(module, "weight", LevelFeatures(levels, config.in_channels))
            if order.init_from is not None:
                nn.init.zeros_(module.parametrizations["weight"][0].mix)  # type: ignore[union-attr,index]
    grid = config.sample_size
    cache = out / ".training" / "tokens.safetensors"
    all_ids = _cached_tokens(image_tokenizer.to(device), records, grid, cache, out, device)
    is_held = torch.tensor([r.held_out for r in records])
    train_ids, held_ids = all_ids[~is_held], all_ids[is_held][:512].long()
    task = _BaseTask(transformer, clip).to(device)
    g = torch.Generator().manual_seed(1)
    held_mask = random_mask(len(held_ids), grid**2, g).view(held_ids.shape)
    held_tokens = text_tokenizer([r.captions[0] for r in held[:512]])

    def batches(step: int) -> tuple[Tensor, Tensor, Tensor]:
        g = step_generator(order.seed, step)
        rows = torch.randint(len(train), (order.batch,), generator=g)
        captions = draw_captions(train, rows, g)
        dropped = torch.rand(order.batch, generator=g) < TEXT_DROPPED
        texts = ["" if drop else c for c, drop in zip(captions, dropped.tolist(), strict=True)]
        masked = random_mask(order.batch, grid**2, g).view(order.batch, grid, grid)
        return train_ids[rows].long().to(device), masked.to(device), text_tokenizer(texts).to(device)

    def figure(task: nn.Module) -> str:
        losses = []
        for ids, mask, tokens in zip(held_ids.split(64), held_mask.split(64), held_tokens.split(64), strict=True):
            with autocast(device):
                losses.append(task((ids.to(device), mask.to(device), tokens.to(device))))
        return f"held-out cross-entropy {float(torch.stack(losses).mean()):.4f} nats a masked id"

    def folded(task: nn.Module) -> MaskedTransformer:
        # Not a copy with its parametrizations removed: copies share the class, and the original would lose them too.
        plain = MaskedTransformer(config)
        state = {n: t for n, t in transformer.state_dict().items() if ".parametrizations." not in n}
        tables = {n: m for n, m in transformer.named_modules() if parametrize.is_parametrized(m)}
        plain.load_state_dict(state | {f"{n}.weight": m.weight for n, m in tables.items()})
        return plain.eval().to(device)

    def export(task: nn.Module) -> None:
        save_part(out, "transformer", folded(task), config)

    def sheet(task: nn.Module, path: Path) -> None:
        base = Base(
            "in training", out, folded(task), image_tokenizer, None, clip, text_tokenizer, frozenset(), [], device
        )
        prompts = [p for p in PROBES for _ in range(2)]
        ids = base.sample(prompts, list(range(len(prompts))), SampleSettings())
        save_sheet(base.pictures(ids, 128), path, prompts)

    return Job(task, muon(transformer, 2e-3), batches, figure, export, sheet)


@torch.no_grad()
def _cached_tokens(
    tokenizer: ImageTokenizer, records: list[Record], grid: int, cache: Path, out: Path, device: torch.device
) -> Tensor:
    """Every picture's ids as int16 ``[R,grid,grid]``, encoded once a corpus and tokenizer."""
    key = f"{file_hash(out / 'tokenizer.safetensors')} {len(records)} {records[0].path} {records[-1].path}"
    if cache.exists():
        tensors, metadata = read_tensors(cache)
        if metadata.get("key") == key:
            return tensors["ids"]
    side, parts = grid * tokenizer.config.factor, []
    for start in range(0, len(records), 1024):
        pictures = read_pictures(records[start : start + 1024], side)
        for chunk in pictures.split(64):
            with autocast(device):
                parts.append(tokenizer.encode(chunk.to(device).float() / 255).to("cpu", torch.int16))
    ids = torch.cat(parts)
    save_tensors(cache, {"ids": ids}, {"key": key})
    return ids
