"""Training a base model from a folder of captioned pictures, one part at a time.

Order: ``tokenizer``, then ``decoder`` (its enlargement), ``clip`` (which needs only pictures and captions) and
``base`` (which needs the tokenizer and the CLIP's text tower). Each part is written into the same model folder.
Pocket, the bundled base, is what this makes of the corpus in ``examples/pocket``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from styledrop_cli.base import POCKET, Base, load_module, micro_conditions, read_text_tokenizer
from styledrop_cli.checkpoints import file_hash, read_tensors, save_part, save_tensors
from styledrop_cli.corpus import Record, plain_contents, read_corpus, read_pictures, vocabulary
from styledrop_cli.devices import autocast
from styledrop_cli.errors import UsageError
from styledrop_cli.images import contact_sheet, save_png, to_image
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.tokenizer import EnlargedDecoder, ImageTokenizer, TokenizerConfig, psnr, scalar_quantize
from styledrop_cli.models.transformer import MaskedTransformer, TransformerConfig
from styledrop_cli.sampling.masking import random_mask
from styledrop_cli.settings import SampleSettings
from styledrop_cli.text import TextTokenizer, clip_merges, trim_merges, write_merges
from styledrop_cli.training import Budget, Loop, Progress, masked_cross_entropy, step_generator

# Pocket's sizes, which a fresh part starts with; '--init-from' takes those of the folder it names.
TOKENIZER = TokenizerConfig(
    block_out_channels=(64, 144),
    layers_per_block=1,
    latent_channels=32,
    vq_embed_dim=4,
    num_vq_embeddings=1000,
    norm_num_groups=16,
    patch_size=4,
    linear_path=True,
    levels=(8, 5, 5, 5),
)
ENLARGED_CHANNELS = 48
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
FIRST_MERGES = 2500
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
BATCH = {"tokenizer": 16, "decoder": 8, "clip": 128, "base": 64}
CRITIC_SHARE = 0.5  # of the reconstruction's pull on the pixels
SAVE_EVERY = 120.0  # seconds
SHEET_EVERY = 300.0


@dataclass
class Job:
    """One part being trained: the module, its optimizers, its batches and its held-out figure."""

    task: nn.Module
    optimizers: list[torch.optim.Optimizer]
    batches: Callable[[int], Any]
    figure: Callable[[nn.Module], str]
    export: Callable[[nn.Module], None]
    sheet: Callable[[nn.Module, Path], None] | None = None


def run(
    part: str,
    corpus: Path,
    out: Path,
    *,
    budget: Budget,
    device: torch.device,
    batch_size: int | None = None,
    init_from: Path | None = None,
    resume: bool = False,
    compiled: bool = False,
    seed: int = 0,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_message: Callable[[str], None] = lambda message: None,
) -> None:
    """Train ``part`` on ``corpus`` and write it into the model folder ``out``.

    The part on disk is renewed every two minutes, so stopping at any time leaves a usable result, and ``resume``
    goes on exactly from the newest checkpoint. ``init_from`` is a model folder whose part is the starting point.
    ``compiled`` compiles the step first: a minute or two later, 1.4 times as fast on a CPU; needs a C++ compiler.
    Raises UsageError for an unusable corpus or a missing earlier part.
    """
    if part not in BATCH:
        raise UsageError(f"there is no part called '{part}'", f"Choose one of {', '.join(BATCH)}.")
    records = read_corpus(corpus, captions=part in ("clip", "base"))
    on_message(f"{len(records)} pictures, {sum(r.held_out for r in records)} of them held out")
    state = out / ".training" / f"{part}.safetensors"
    if state.exists() and not resume:
        raise UsageError(f"{state} is the checkpoint of an unfinished training", "Add --resume, or delete it.")
    torch.manual_seed(seed)
    maker = {"tokenizer": _tokenizer, "decoder": _decoder, "clip": _clip, "base": _base}[part]
    size = batch_size or BATCH[part]
    job = maker(records, out, init_from, size, seed, device)
    loop = Loop(job.task, job.optimizers, job.batches, budget=budget, device=device, average=0.999, compiled=compiled)
    if resume and state.exists():
        loop.resume(state)
        on_message(f"going on from step {loop.progress.step}")
    marks = {"save": loop.progress.seconds, "sheet": loop.progress.seconds}

    def save() -> None:
        with _averaged(loop):
            job.export(job.task)
            on_message(f"step {loop.progress.step}, {loop.progress.seconds:.0f} s: {job.figure(job.task)}")
        loop.save(state)

    def after_step(progress: Progress) -> None:
        on_step(progress)
        if progress.seconds - marks["save"] > SAVE_EVERY:
            marks["save"] = progress.seconds
            save()
        if job.sheet is not None and progress.seconds - marks["sheet"] > SHEET_EVERY:
            marks["sheet"] = progress.seconds
            with _averaged(loop):
                job.sheet(job.task, out / ".training" / f"{part}-{progress.step:06d}.png")

    try:
        loop.run(after_step)
    finally:
        if loop.progress.step:
            save()
    state.unlink()


@contextmanager
def _averaged(loop: Loop) -> Iterator[None]:
    """The task with its averaged weights, for measuring and writing."""
    trained = {n: p.detach().clone() for n, p in loop.trained.items()}
    for name, parameter in loop.trained.items():
        parameter.data.copy_(loop.averaged[name])
    try:
        with torch.no_grad():
            loop.task.eval()
            yield
    finally:
        loop.task.train()
        for name, parameter in loop.trained.items():
            parameter.data.copy_(trained[name])


def _split(records: list[Record]) -> tuple[list[Record], list[Record]]:
    return [r for r in records if not r.held_out], [r for r in records if r.held_out]


# ---------------------------------------------------------------------------------------------- image tokenizer


class _TokenizerTask(nn.Module):
    def __init__(self, tokenizer: ImageTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, pictures: Tensor) -> Tensor:
        latents = self.tokenizer.latents(pictures).float()
        levels = self.tokenizer.config.levels
        half = torch.tensor([(n - 1) / 2 for n in levels], device=latents.device)[:, None, None]
        # Beyond the grid the clamp lets no gradient through; this pulls the latents back.
        outside = F.relu(latents.abs() - half).mean()
        return reconstruction_loss(self.tokenizer.pixels(scalar_quantize(latents, levels)), pictures) + 0.1 * outside


def reconstruction_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Absolute and squared error of pixels, and absolute error of their differences: outlines stay sharp."""
    made, wanted = made.float(), wanted.float()
    edges = sum((made.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    return F.l1_loss(made, wanted) + 2 * F.mse_loss(made, wanted) + 0.5 * edges


def patch_basis(pictures: Tensor, factor: int, numbers: int) -> tuple[Tensor, Tensor]:
    """Mean ``[P]`` and leading principal directions times deviation ``[numbers,P]`` of patches, P = 3*factor**2."""
    patches = F.unfold(pictures, factor, stride=factor).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    _, spread, directions = torch.pca_lowrank(patches - mean, q=numbers + 4, center=False)
    deviation = spread[:numbers] / len(patches) ** 0.5
    return mean, directions[:, :numbers].T * deviation[:, None]


def start_from_patches(tokenizer: ImageTokenizer, pictures: Tensor) -> None:
    """Make a fresh tokenizer the best linear one: PCA of patches in and out, the convolutions adding nothing yet."""
    config = tokenizer.config
    assert tokenizer.linear_in is not None and tokenizer.linear_out is not None
    mean, basis = patch_basis(pictures, config.factor, config.vq_embed_dim)
    # Two deviations reach the edge of the grid.
    scale = torch.tensor([(n - 1) / 4 for n in config.levels])[:, None]
    inward = basis / basis.pow(2).sum(1, keepdim=True) * scale
    shape = tokenizer.linear_in.weight.shape
    with torch.no_grad():
        tokenizer.linear_in.weight.copy_(inward.view(shape))
        tokenizer.linear_in.bias.copy_(-(inward @ mean))  # type: ignore[union-attr]
        tokenizer.linear_out.weight.copy_((basis / scale).view(shape))
        for index in range(3):  # one bias a colour: the mean over the patch
            tokenizer.linear_out.bias[index] = mean.view(3, -1)[index].mean()  # type: ignore[index]
        for conv in (tokenizer.quant_conv, tokenizer.decoder.conv_out):
            conv.weight.zero_()
            conv.bias.zero_()  # type: ignore[union-attr]


def _tokenizer(
    records: list[Record], out: Path, init_from: Path | None, batch: int, seed: int, device: torch.device
) -> Job:
    train, held = _split(records)
    tokenizer: ImageTokenizer = ImageTokenizer(TOKENIZER) if init_from is None else load_module(init_from, "tokenizer")
    pictures = read_pictures(train, 256)
    measured = _halved(read_pictures(held[:256], 256))
    if init_from is None:
        start_from_patches(tokenizer, _halved(pictures[:: max(1, len(pictures) // 400)]))
    task = _TokenizerTask(tokenizer.requires_grad_(True)).to(device)
    tokenizer.quantize.requires_grad_(False)

    def batches(step: int) -> Tensor:
        g = step_generator(seed, step)
        chosen = pictures[torch.randint(len(pictures), (batch,), generator=g)]
        near = batch // 4  # a quarter of the batch at twice the scale, as for 32x32 ids at 256 px
        x, y = torch.randint(129, (2,), generator=g).tolist()
        views = torch.cat([_halved(chosen[near:]), chosen[:near, :, y : y + 128, x : x + 128] / 255])
        return _flipped(views, g).to(device)

    def figure(task: nn.Module) -> str:
        with autocast(device):
            made = torch.cat([tokenizer.decode(tokenizer.encode(p.to(device))) for p in measured.split(32)])
        return f"held-out PSNR {psnr(made.cpu(), measured):.2f} dB at 128 px"

    def sheet(task: nn.Module, path: Path) -> None:
        show = measured[:16].to(device)
        _save_sheet(torch.cat([show, tokenizer.decode(tokenizer.encode(show))]), path)

    return Job(
        task,
        [_adamw(task, 1e-3)],
        batches,
        figure,
        lambda t: save_part(out, "tokenizer", tokenizer, tokenizer.config),
        sheet,
    )


def _halved(pictures: Tensor) -> Tensor:
    """uint8 pictures at half size, in [0,1]."""
    return F.avg_pool2d(pictures.float() / 255, 2)


def _flipped(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures mirrored."""
    flips = torch.rand(len(pictures), generator=generator) < 0.5
    return torch.where(flips[:, None, None, None], pictures.flip(-1), pictures)


def _adamw(task: nn.Module, rate: float) -> torch.optim.Optimizer:
    trained = [p for p in task.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)


def _muon(module: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers, AdamW for embeddings and everything else (arXiv 2502.16982)."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and "embedding" not in name and "parametrizations" not in name
            (matrices if hidden else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _save_sheet(pictures: Tensor, path: Path, labels: list[str] | None = None) -> None:
    images = [to_image(p) for p in pictures.float().cpu()]
    save_png(contact_sheet(images, columns=8, labels=labels, cell=128), path)


class PatchCritic(nn.Module):
    """Tells real from decoded patches, ``[B,3,S,S]`` to ``[B,1,S/8,S/8]`` (the discriminator of VQGAN, 2012.09841)."""

    def __init__(self, channels: tuple[int, ...] = (32, 64, 96)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inp = 3
        for out in channels:
            conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(inp, out, 4, stride=2, padding=1))
            layers += [conv, nn.LeakyReLU(0.2)]
            inp = out
        self.layers = nn.Sequential(*layers, nn.Conv2d(inp, 1, 3, padding=1))

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.layers(pictures * 2 - 1).float()
        return out


class _DecoderTask(nn.Module):
    def __init__(self, tokenizer: ImageTokenizer, decoder: EnlargedDecoder) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)
        self.decoder = decoder
        self.critic = PatchCritic()

    def forward(self, pictures: Tensor) -> Tensor:
        with torch.no_grad():
            latents = self.tokenizer.latents(F.avg_pool2d(pictures, 2)).float()
            codes = scalar_quantize(latents, self.tokenizer.config.levels)
        made = self.decoder.pixels(codes).float()
        loss = reconstruction_loss(made, pictures)
        fooled = -self._judged(made)
        critic = F.relu(1 - self.critic(pictures)).mean() + F.relu(1 + self.critic(made.detach())).mean()
        # VQGAN's adaptive weight, taken at the pixels: the critic never outweighs the reconstruction.
        (pull,) = torch.autograd.grad(loss, made, retain_graph=True)
        (push,) = torch.autograd.grad(fooled, made, retain_graph=True)
        weight = CRITIC_SHARE * pull.norm() / (push.norm() + 1e-8)
        total: Tensor = loss + weight.detach() * fooled + critic
        return total

    def _judged(self, made: Tensor) -> Tensor:
        """The critic's mean opinion, with gradient to the picture but not to the critic."""
        self.critic.requires_grad_(False)
        opinion: Tensor = self.critic(made).mean()
        self.critic.requires_grad_(True)
        return opinion


def _decoder(
    records: list[Record], out: Path, init_from: Path | None, batch: int, seed: int, device: torch.device
) -> Job:
    train, held = _split(records)
    tokenizer: ImageTokenizer = load_module(out, "tokenizer")
    if init_from is None:
        decoder = EnlargedDecoder(
            replace(tokenizer.config, block_out_channels=(ENLARGED_CHANNELS, *tokenizer.config.block_out_channels))
        )
        decoder.warm_start(tokenizer)
        nn.init.zeros_(decoder.decoder.conv_out.weight)
    else:
        decoder = load_module(init_from, "decoder")
    task = _DecoderTask(tokenizer, decoder.requires_grad_(True)).to(device)
    pictures, measured = read_pictures(train, 256), read_pictures(held[:128], 256) / 255

    def batches(step: int) -> Tensor:
        g = step_generator(seed, step)
        chosen = pictures[torch.randint(len(pictures), (batch,), generator=g)]
        return _flipped(chosen / 255, g).to(device)

    def decoded(pictures: Tensor) -> Tensor:
        ids = tokenizer.encode(F.avg_pool2d(pictures.to(device), 2))
        return decoder.decode(ids, tokenizer.quantize.embedding.weight)

    def figure(task: nn.Module) -> str:
        with autocast(device):
            made = torch.cat([decoded(p) for p in measured.split(32)])
        return f"held-out PSNR {psnr(made.cpu(), measured):.2f} dB at 256 px from 16x16 ids"

    def sheet(task: nn.Module, path: Path) -> None:
        _save_sheet(torch.cat([measured[:8], decoded(measured[:8]).cpu()]), path)

    def export(task: nn.Module) -> None:
        save_part(out, "decoder", decoder, decoder.config)

    optimizers: list[torch.optim.Optimizer] = [
        _adamw(decoder, 5e-4),
        torch.optim.Adam(task.critic.parameters(), lr=5e-4, betas=(0.5, 0.9)),
    ]
    return Job(task, optimizers, batches, figure, export, sheet)


# -------------------------------------------------------------------------------------------------------- CLIP


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


def _clip(records: list[Record], out: Path, init_from: Path | None, batch: int, seed: int, device: torch.device) -> Job:
    train, held = _split(records)
    captions = [caption for r in records for caption in r.captions]
    # A base that was trained with a text tower needs that very tower: from then on only the picture tower learns.
    settled = (out / "transformer.safetensors").exists()
    source = out if settled else init_from
    if source is None:
        merges = trim_merges(clip_merges(POCKET / "merges.txt"), captions, FIRST_MERGES)
        tokenizer = TextTokenizer(merges, CLIP.context_length)
        clip = Clip(replace(CLIP, vocab_size=tokenizer.size))
    else:
        clip = load_module(source, "clip")
        tokenizer = read_text_tokenizer(source, clip.config)
    if not settled:
        out.mkdir(parents=True, exist_ok=True)
        write_merges(out / "merges.txt", tokenizer.merges)
    for name, lines in (("words.txt", vocabulary(records)), ("contents.txt", plain_contents(records))):
        (out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    pictures, measured = read_pictures(train, 128), read_pictures(held[:256], 128)
    assert clip.visual is not None
    clip.requires_grad_(not settled)
    clip.visual.requires_grad_(True)
    task = _ClipTask(clip).to(device)
    held_tokens = tokenizer([r.captions[0] for r in held[:256]])

    def batches(step: int) -> tuple[Tensor, Tensor]:
        g = step_generator(seed, step)
        rows = torch.randint(len(train), (batch,), generator=g)
        views = pictures[rows].float() / 255
        x, y = torch.randint(-8, 9, (2,), generator=g).tolist()
        views = _flipped(views.roll((x, y), (2, 3)), g)
        return views.to(device), tokenizer(_captions(train, rows, g)).to(device)

    def figure(task: nn.Module) -> str:
        with autocast(device):
            image = F.normalize(clip.picture_embeds(measured.to(device).float() / 255).float(), dim=-1)
            text = F.normalize(clip.text_states(held_tokens.to(device))[1].float(), dim=-1)
        scores = (image @ text.T).cpu()
        own = scores.diagonal()[:, None]
        return f"held-out: right caption first in {float((scores <= own).all(-1).float().mean()):.1%} of {len(own)}"

    return Job(task, _muon(clip, 1.5e-3), batches, figure, lambda t: save_part(out, "clip", clip, clip.config))


def _captions(records: list[Record], rows: Tensor, generator: torch.Generator) -> list[str]:
    choice = torch.rand(len(rows), generator=generator)
    picked = [records[row].captions for row in rows.tolist()]
    return [captions[int(c * len(captions))] for captions, c in zip(picked, choice.tolist(), strict=True)]


# -------------------------------------------------------------------------------------------- masked transformer


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


def _base(records: list[Record], out: Path, init_from: Path | None, batch: int, seed: int, device: torch.device) -> Job:
    train, held = _split(records)
    image_tokenizer: ImageTokenizer = load_module(out, "tokenizer")
    clip: Clip = load_module(out, "clip")
    text_tokenizer = read_text_tokenizer(out, clip.config)
    if init_from is None:
        transformer = MaskedTransformer(BASE)
        transformer.initialise(torch.Generator().manual_seed(seed))
    else:
        transformer = load_module(init_from, "transformer")
    transformer.requires_grad_(True)
    levels, config = image_tokenizer.config.levels, transformer.config
    if levels:
        for module in (transformer.embed.embeddings, transformer.mlm_layer.conv2):
            parametrize.register_parametrization(module, "weight", LevelFeatures(levels, config.in_channels))
            if init_from is not None:
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
        g = step_generator(seed, step)
        rows = torch.randint(len(train), (batch,), generator=g)
        captions = _captions(train, rows, g)
        dropped = torch.rand(batch, generator=g) < TEXT_DROPPED
        texts = ["" if drop else c for c, drop in zip(captions, dropped.tolist(), strict=True)]
        masked = random_mask(batch, grid**2, g).view(batch, grid, grid)
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
        _save_sheet(base.pictures(ids, 128), path, prompts)

    return Job(task, _muon(transformer, 2e-3), batches, figure, export, sheet)


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
