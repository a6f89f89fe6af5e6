"""The masked transformers, base and super-resolution, and the ids they learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from styledrop_cli.base.base import Base, is_grid, micro_conditions
from styledrop_cli.base.folder import Parts, load_module, load_text
from styledrop_cli.base.text_encoder import TextEncoder
from styledrop_cli.corpus.folder import Record, draw_captions, in_unknown_style, vocabulary
from styledrop_cli.devices import autocast
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.tensors import save_part
from styledrop_cli.models.superres import SuperResConfig, SuperResTransformer
from styledrop_cli.models.tokenizer import ImageTokenizer
from styledrop_cli.models.transformer import MaskedTransformer, TransformerConfig
from styledrop_cli.sampling.decoding import decode
from styledrop_cli.sampling.masking import random_mask
from styledrop_cli.settings import SampleSettings
from styledrop_cli.training.loop import hidden, masked_cross_entropy, step_generator
from styledrop_cli.training.pretrain.encoded import encoded
from styledrop_cli.training.pretrain.job import Job, Order, heard, muon, save_sheet, split
from styledrop_cli.training.pretrain.records import WORK, part_file

# Pocket's sizes.
BASE = TransformerConfig(
    codebook_size=1000,
    vocab_size=1001,
    hidden_size=256,
    num_hidden_layers=8,
    num_attention_heads=4,
    intermediate_size=640,
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
# How often a caption's style is replaced by words that are in no caption. So words that the base was never taught come
# to mean "some style": what a new style's name should mean until an adapter has learnt it.
STYLE_UNKNOWN = 0.25
Network = TypeVar("Network", bound=MaskedTransformer)
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
    def __init__(self, transformer: MaskedTransformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        ids, masked, text, pooled = batch
        micro = micro_conditions(self.transformer.config, len(ids), ids.device)
        condition = self.transformer.condition(text, pooled, micro)
        return masked_cross_entropy(self.transformer, ids, masked, condition)


def transformer_job(order: Order) -> Job:
    """Train the base's masked transformer on the ids of the folder's tokenizer, with its text encoder."""
    records, out, device = order.records, order.out, order.device
    train, held = split(records)
    transformer, text, image_tokenizer = _started("transformer", MaskedTransformer, BASE, order)
    grid = transformer.config.sample_size
    all_ids = cached_tokens(image_tokenizer, records, grid, out, device, order.call.check)
    is_held = torch.tensor([r.held_out for r in records])
    train_ids, held_ids = all_ids[~is_held].to(device), all_ids[is_held][:512].long()
    task = _BaseTask(transformer).to(device)
    g = torch.Generator().manual_seed(1)
    held_mask = random_mask(len(held_ids), grid**2, g).view(held_ids.shape)
    held_text = heard(text, [r.captions[0] for r in held[:512]], device)
    strange = sorted(text.tokenizer.whole_words() - set(vocabulary(records)))

    def batches(step: int) -> tuple[Tensor, ...]:
        g = step_generator(order.seed, step)
        rows = torch.randint(len(train), (order.batch,), generator=g)
        fates = torch.rand(order.batch, generator=g).tolist()
        texts = []
        for caption, fate in zip(draw_captions(train, rows, g), fates, strict=True):
            if fate < TEXT_DROPPED:
                caption = ""
            elif fate < TEXT_DROPPED + STYLE_UNKNOWN and strange:
                caption = in_unknown_style(caption, strange, g)
            texts.append(caption)
        masked = random_mask(order.batch, grid**2, g).view(order.batch, grid, grid)
        return train_ids[rows.to(device)].long(), masked.to(device), *heard(text, texts, device)

    def figure(task: nn.Module) -> str:
        return _held_out_loss(task, (held_ids, held_mask, *held_text), 64, device)

    def export(task: nn.Module) -> None:
        save_part(out, "transformer", folded(transformer), transformer.config)

    def sheet(task: nn.Module, path: Path) -> None:
        networks = Parts.of(transformer=folded(transformer).to(device), tokenizer=image_tokenizer, text=text.network)
        base = Base("in training", out, networks, text.tokenizer, device)
        prompts = [p for p in PROBES for _ in range(2)]
        ids = base.sample(prompts, list(range(len(prompts))), base.sampling())
        save_sheet(base.pictures(ids, 128), path, prompts)

    return Job(task, muon(transformer, 2e-3), batches, figure, export, sheet, hidden)


# -- super-resolution ---------------------------------------------------------------------

# Pocket's sizes: what is left of 40 MB.
SUPERRES = SuperResConfig(
    codebook_size=1000,
    vocab_size=1001,
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=256,
    in_channels=64,
    block_out_channels=96,
    num_res_blocks=1,
    block_num_heads=3,
    encoder_hidden_size=192,
    cond_embed_dim=192,
    micro_cond_encode_dim=16,
    micro_cond_embed_dim=80,
    sample_size=32,
    downsample=True,
    upsample=True,
    positions=16,
    low_res_codebook_size=1000,
    low_res_size=16,
    low_res_layers=2,
    low_res_context=False,
)
# Up to this share of the low-resolution ids is replaced at random while training: what a base draws has more errors
# than what a tokenizer reads (conditioning augmentation, arXiv 2106.15282).
MOST_NOISE = 0.1
SHEET_STEPS = 8


class _SuperResTask(nn.Module):
    def __init__(self, superres: SuperResTransformer) -> None:
        super().__init__()
        self.superres = superres

    def forward(self, batch: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        ids, masked, low_res, text, pooled = batch
        micro = micro_conditions(self.superres.config, len(ids), ids.device)
        condition = self.superres.beside(self.superres.condition(text, pooled, micro), low_res)
        return masked_cross_entropy(self.superres, ids, masked, condition)


def superres_job(order: Order) -> Job:
    """Train the super-resolution transformer on the ids of the folder's tokenizer, with its text encoder."""
    records, out, device = order.records, order.out, order.device
    train, held = split(records)
    superres, text, image_tokenizer = _started("superres", SuperResTransformer, SUPERRES, order)
    large, small = superres.config.sample_size, superres.config.low_res_size
    high, low = (
        cached_tokens(image_tokenizer, records, grid, out, device, order.call.check) for grid in (large, small)
    )
    is_held = torch.tensor([r.held_out for r in records])
    train_high, train_low = high[~is_held].to(device), low[~is_held]
    held_high, held_low = high[is_held][:128].long(), low[is_held][:128].long()
    task = _SuperResTask(superres).to(device)
    g = torch.Generator().manual_seed(1)
    held_mask = random_mask(len(held_high), large**2, g).view(held_high.shape)
    held_text = heard(text, [r.captions[0] for r in held[:128]], device)

    def batches(step: int) -> tuple[Tensor, ...]:
        g = step_generator(order.seed, step)
        rows = torch.randint(len(train), (order.batch,), generator=g)
        captions = draw_captions(train, rows, g)
        dropped = torch.rand(order.batch, generator=g) < TEXT_DROPPED
        texts = ["" if drop else c for c, drop in zip(captions, dropped.tolist(), strict=True)]
        masked = random_mask(order.batch, large**2, g).view(order.batch, large, large)
        noise = torch.rand(order.batch, 1, 1, generator=g) * MOST_NOISE
        seen = train_low[rows].long()
        other = torch.randint(superres.config.low_res_codebook_size, seen.shape, generator=g)
        seen = torch.where(torch.rand(seen.shape, generator=g) < noise, other, seen)
        ids = train_high[rows.to(device)].long()
        return ids, masked.to(device), seen.to(device), *heard(text, texts, device)

    def figure(task: nn.Module) -> str:
        return _held_out_loss(task, (held_high, held_mask, held_low, *held_text), 32, device)

    def export(task: nn.Module) -> None:
        save_part(out, "superres", folded(superres), superres.config)

    def sheet(task: nn.Module, path: Path) -> None:
        low_res, (states, summaries) = held_low[:8].to(device), held_text
        network = folded(superres).to(device)
        micro = micro_conditions(network.config, len(low_res), device)
        condition = network.beside(network.condition(states[:8], summaries[:8], micro), low_res)
        drawn = decode(
            torch.full((len(low_res), large, large), network.config.mask_id, device=device),
            lambda ids, masked, progress: network(ids, condition, where=masked),
            mask_id=network.config.mask_id,
            steps=SHEET_STEPS,
            temperature=SampleSettings().temperature,
            generator=[torch.Generator().manual_seed(i) for i in range(len(low_res))],
        )
        small_ones = F.interpolate(image_tokenizer.decode(low_res), scale_factor=2, mode="bicubic").clamp(0, 1)
        best = image_tokenizer.decode(held_high[:8].to(device))
        save_sheet(torch.cat([small_ones, image_tokenizer.decode(drawn), best]), path)

    return Job(task, muon(superres, 2e-3), batches, figure, export, sheet, hidden)


# -- what both share ----------------------------------------------------------------------

Sizes = TypeVar("Sizes", bound=TransformerConfig)


def _started(
    part: str, make: Callable[[Sizes], Network], sizes: Sizes, order: Order
) -> tuple[Network, TextEncoder, ImageTokenizer]:
    """The network that a training starts with, new or from a model folder, and what it learns from."""
    tokenizer: ImageTokenizer = load_module(order.out, "tokenizer")
    text = load_text(order.out, device=order.device)
    if order.init_from is None:
        network = make(fitting(sizes, text, tokenizer))
        network.initialise(torch.Generator().manual_seed(order.seed))
    else:
        network = load_module(order.init_from, part)
    share_levels(network.requires_grad_(True), tokenizer.config.levels, warm=order.init_from is not None)
    return network, text, tokenizer.to(order.device)


def _held_out_loss(task: nn.Module, batch: tuple[Tensor, ...], rows: int, device: torch.device) -> str:
    """The mean loss of a held-out ``batch``, in so many ``rows`` at a time, in words."""
    losses = []
    for parts in zip(*(t.split(rows) for t in batch), strict=True):
        with autocast(device):
            losses.append(task(tuple(part.to(device) for part in parts)))
    return f"held-out cross-entropy {float(torch.stack(losses).mean()):.4f} nats a masked id"


def fitting(sizes: Sizes, text: TextEncoder, tokenizer: ImageTokenizer) -> Sizes:
    """The ``sizes`` with the widths of this text encoder and the codebook of this tokenizer."""
    codes = tokenizer.config.num_vq_embeddings
    fit = replace(
        sizes,
        codebook_size=codes,
        vocab_size=codes + 1,
        encoder_hidden_size=text.width,
        cond_embed_dim=text.summary_width,
    )
    return replace(fit, low_res_codebook_size=codes) if isinstance(fit, SuperResConfig) else fit


def share_levels(transformer: MaskedTransformer, levels: tuple[int, ...], warm: bool) -> None:
    """Let the tables of codes share what follows from the codes' levels; ``warm`` leaves the tables as they are."""
    if not levels:
        return
    for module in (transformer.embed.embeddings, transformer.mlm_layer.conv2):
        parametrize.register_parametrization(module, "weight", LevelFeatures(levels, transformer.config.in_channels))
        if warm:
            nn.init.zeros_(module.parametrizations["weight"][0].mix)  # type: ignore[union-attr,index]


def folded(transformer: Network) -> Network:
    """The same network with plain tables, on the CPU."""
    # Not a copy without its parametrizations: copies share the class, and the original would lose them too.
    plain = type(transformer)(transformer.config)
    state = {n: t for n, t in transformer.state_dict().items() if ".parametrizations." not in n}
    tables = {n: m for n, m in transformer.named_modules() if parametrize.is_parametrized(m)}
    plain.load_state_dict(state | {f"{n}.weight": m.weight for n, m in tables.items()})
    return plain.eval()


def cached_tokens(
    tokenizer: ImageTokenizer,
    records: list[Record],
    grid: int,
    out: Path,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """The ids of every picture as int16 ``[R,grid,grid]``, encoded once for a corpus, tokenizer and size."""
    codes = tokenizer.config.num_vq_embeddings
    return encoded(
        lambda pictures: tokenizer.encode(pictures).to(torch.int16),
        records,
        grid * tokenizer.config.factor,
        out / WORK / f"tokens-{grid}.safetensors",
        file_hash(part_file(out, "tokenizer")),
        device,
        check,
        lambda ids: is_grid(ids, grid, codes),
    )
