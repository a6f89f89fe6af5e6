"""Time and memory beside diffusers' aMUSEd or Meissonic's parts, on random weights of their size: ``make against``.

Every figure comes from a process of its own in which one side works alone, and the sides take turns, so that a machine
that slows down slows both. Both find the weights in the system's file cache, and the waiting threads of both sleep soon
(GOMP_SPINCOUNT=1000, as ``styledrop`` sets it for itself). Printed are medians with the least and the most, and how
fast the machine multiplied matrices in between: tables compare only where these rates agree. Memory is the largest
resident set of a process, mapped weights included.

Upstream draws by ``AmusedPipeline`` and tunes as its ``train_amused.py`` does with one picture: LoRA, the text encoded
once, the picture in each step. Meissonic, which diffusers does not have, is put together from its parts
(``meissonic_upstream``), and tuned in the same way with its own script's numbers. We draw as ``generate`` does and
tune by ``train_adapter``, with our defaults. A Meissonic picture of 1024 px takes many minutes here: few steps are
drawn, and what all of them take is computed from the parts (``whole_picture``); at 512 px all are drawn.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "examples" / "watercolor.png"
PROMPT, SEED = "a cat in watercolor style", 7
GUIDANCE = {"amused": 10.0, "meissonic": 9.0}  # upstream's scale; our lambda_b is one less
RECIPES = {"amused": {"lr": 4e-4, "clip": math.inf}, "meissonic": {"lr": 1e-4, "clip": 10.0}}
# Model -> its family, its pixels, the steps that are drawn, and the tables that are printed.
MODELS = {
    "256": ("amused", 256, 12, ("draw", "parts", "train", "fast")),
    "512": ("amused", 512, 12, ("draw", "parts", "train", "fast")),
    "meissonic": ("meissonic", 1024, 4, ("draw", "parts", "train")),
    "meissonic-512": ("meissonic", 512, 48, ("draw", "fast")),
}
WHOLE = {"amused": 12, "meissonic": 48}  # steps of a picture
MASKED = 2 / math.pi  # of the ids, on average over the steps of the cosine schedule
STYLED = {"lambda_a": 2.0, "lambda_b": 5.0}  # three branches a step: adapter, base, negative
TUNED = {"amused": 4, "meissonic": 2}  # steps that are timed, after one that is not
PADDED = {"return_tensors": "pt", "padding": "max_length", "truncation": True, "max_length": 77}
SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 176, "in_channels": 48,
    "block_out_channels": 48, "block_num_heads": 3, "codebook_size": 256, "vocab_size": 320,
}  # fmt: skip
SMALL_MEISSONIC: dict[str, Any] = {
    "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 4,
    "axes_dims_rope": (4, 6, 6), "pooled_projection_dim": 64, "codebook_size": 256, "vocab_size": 320,
}  # fmt: skip
# Of each table its lines: title, job and variant, figure, and what ours over theirs should stay under.
KINDS_OF_CARD = [f"{number}{how}" for number in (1, 32) for how in ("", " compiled")]
TABLES: dict[str, list[tuple[str, str, str, str]]] = {
    "draw": [
        ("start, imports and loading, s", "draw", "load", ""), ("then one picture, s", "draw", "draw", "0.90"),
        ("both, s", "draw", "whole", ""), ("peak memory, GB", "draw", "peak", "0.75"),
    ],
    "parts": [
        ("text of two prompts, s", "parts", "text", ""), ("first step, two branches, s", "parts", "first", ""),
        ("step with half the ids known, s", "parts", "later", ""),
        ("choosing ids, all steps drawn, s", "parts", "choose", ""), ("ids to pixels, s", "parts", "decode", ""),
        ("a whole picture, computed from these, s", "parts", "picture", "0.90"),
    ],
    "train": [
        ("tuning step, fp32, s", "train:fp32", "step", "0.55; Meissonic 0.60"),
        ("of it encoding the picture, s", "train:fp32", "encode", ""),
        ("memory, fp32, GB", "train:fp32", "peak", "0.75"),
        ("tuning step, bf16, s", "train:bf16", "step", ""), ("memory, bf16, GB", "train:bf16", "peak", ""),
    ],
    "fast": [("picture in a style, three branches, s", "styled", "draw", "0.60")],
    "card": [
        *((f"batch {kind}: pictures a second", f"card:{kind}", "pictures", "") for kind in KINDS_OF_CARD),
        *((f"batch {kind}: share of the matmul rate", f"card:{kind}", "share", "") for kind in KINDS_OF_CARD),
        *((f"batch {kind}: memory, GB", f"card:{kind}", "memory", "") for kind in KINDS_OF_CARD),
        ("tuning, steps a second", "train:bf16", "rate", ""), ("memory, GB", "train:bf16", "memory", "ours under 8 GB"),
    ],
}  # fmt: skip
Options = argparse.Namespace
Figures = dict[str, float]


def clock() -> float:
    """Seconds, of the clock or of this process, once the card has nothing left to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.process_time() if "--processor-time" in sys.argv else time.perf_counter()


def typical(
    take: Callable[[], object], number: int = 3, of: Callable[[list[float]], float] = statistics.median
) -> float:
    """Seconds that a call takes, the median of several after one that is not counted."""
    ends = [(take(), clock())[1] for _ in range(number + 1)]
    return of([b - a for a, b in pairwise(ends)])


def matmul_rate(n: int = 1536, dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """FLOP a second of a large square matrix product, the best of twelve."""
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    return 2 * n**3 / typical(lambda: a @ b, 12, min)


def make_model(o: Options, side: str, variant: str) -> Figures:
    """Write a folder of random weights as the model's are published; every weight has a say."""
    from amused_folder import save_published
    from styledrop_cli.base.prompt_tokens import clip_merges, vocabulary_of
    from styledrop_cli.base.registry import POCKET
    from styledrop_cli.models.clip import Clip, ClipConfig
    from styledrop_cli.models.meissonic import MeissonicConfig, MeissonicTransformer
    from styledrop_cli.models.tokenizer import ImageTokenizer, TokenizerConfig
    from styledrop_cli.models.transformer import MaskedTransformer, TransformerConfig

    merges, size = clip_merges(POCKET / "merges.txt"), ClipConfig().vocab_size
    letters, known = list(vocabulary_of([]))[:256], set(merges)  # without CLIP's own, any others fill the vocabulary
    others = ((a, b + "</w>") for a in letters for b in letters if (a, b + "</w>") not in known)
    merges += [next(others) for _ in range(size - len(vocabulary_of(merges)))]
    codes = TokenizerConfig((32,) * 5, 1, num_vq_embeddings=256) if o.small else TokenizerConfig()
    text: dict[str, Any] = {}
    network: MeissonicTransformer | MaskedTransformer
    with torch.device("meta"):  # the values are drawn while they are written
        if o.family == "meissonic":
            sizes = {"sample_size": o.pixels // 16} | (SMALL_MEISSONIC if o.small else {})
            network = MeissonicTransformer(MeissonicConfig(**sizes))
            text = {"embed_dim": network.config.hidden_size, "text_width": 1024, "text_heads": 16, "text_layers": 24}
        else:
            large = {"sample_size": 32, "downsample": True, "upsample": True} if o.pixels == 512 else {}
            network = MaskedTransformer(TransformerConfig(**(large | (SMALL if o.small else {}))))
            text["quick_gelu"] = True
        text |= {"text_layers": 2} if o.small else {}
        parts = network, ImageTokenizer(codes), Clip(ClipConfig(**text))
    unfinished = o.folder.with_suffix(".part")  # written over where an earlier one was cut short
    save_published(unfinished, *parts, merges)
    unfinished.rename(o.folder)
    return {}


# ---- the sides: the same calls of both ----


class Side:
    """A model in memory, and what is taken from it. ``empty`` and ``half`` are ids ``[1,S,S]`` that masks hide."""

    def prepare(self, o: Options, codes: int, side: int, mask_id: int) -> None:
        """Keep what all parts are measured on."""
        self.steps, self.mask_id, self.codes, self.device = o.steps, mask_id, codes, torch.device(o.device)
        self.family, self.guidance = o.family, GUIDANCE[o.family]
        draws = torch.Generator().manual_seed(SEED)
        self.ids = torch.randint(codes, (1, side, side), generator=draws)
        self.half = self.ids.masked_fill(torch.rand(self.ids.shape, generator=draws) < 0.5, mask_id)
        self.empty = torch.full_like(self.ids, mask_id)
        self.logits = 3 * torch.randn(1, codes, side, side, generator=draws)


class Upstream(Side):
    """Diffusers' pipeline, as its documentation loads it."""

    def __init__(self, o: Options) -> None:
        from diffusers import AmusedPipeline

        dtype = torch.bfloat16 if o.device == "cuda" else torch.float32
        self.pipe = AmusedPipeline.from_pretrained(o.folder, torch_dtype=dtype).to(o.device)
        self.pipe.set_progress_bar_config(disable=True)
        sizes = self.pipe.transformer.config
        self.prepare(o, sizes.codebook_size, sizes.sample_size, self.pipe.scheduler.config.mask_token_id)
        self.micro = torch.tensor([[16.0 * sizes.sample_size, 16.0 * sizes.sample_size, 0, 0, 6]])

    @property
    def network(self) -> Any:
        return self.pipe.transformer

    def pictures(self, number: int = 1) -> Tensor:
        draws = torch.Generator().manual_seed(SEED)
        call = {"num_inference_steps": self.steps, "generator": draws, "output_type": "np"}
        return torch.from_numpy(self.pipe([PROMPT] * number, **call).images)

    def text(self, prompts: tuple[str, ...] = ("", PROMPT)) -> dict[str, Tensor]:
        rows = [self.pipe.tokenizer([p], **PADDED).input_ids.to(self.pipe.device) for p in prompts]
        said = [self.pipe.text_encoder(row, return_dict=True, output_hidden_states=True) for row in rows]
        states = torch.cat([s.hidden_states[-2] for s in said])
        return {"pooled_text_emb": torch.cat([s.text_embeds for s in said]), "encoder_hidden_states": states}

    def told(self, text: Any, ids: Tensor) -> Tensor:
        """What the network says of ids ``[B,H,W]``: ``[B,H,W,K]``."""
        micro = self.micro.to(ids.device).expand(len(ids), -1)
        made: Tensor = self.network(ids, micro_conds=micro, **text).permute(0, 2, 3, 1)
        return made

    def step(self, text: Any, ids: Tensor) -> Tensor:
        negative, positive = self.told(text, torch.cat([ids] * 2)).chunk(2)
        guided: Tensor = negative + self.guidance * (positive - negative)
        return guided

    def choose(self) -> None:
        scheduler, ids, draws = self.pipe.scheduler, self.empty, torch.Generator().manual_seed(SEED)
        scheduler.set_timesteps(self.steps, (2, 0))
        for when in scheduler.timesteps:
            ids = scheduler.step(model_output=self.logits, timestep=when, sample=ids, generator=draws).prev_sample

    def decode(self) -> Tensor:
        shape = (*self.ids.shape, self.pipe.vqvae.config.latent_channels)
        return self.pipe.vqvae.decode(self.ids, force_not_quantize=True, shape=shape).sample


class UpstreamMeissonic(Upstream):
    """Meissonic put together from diffusers' parts."""

    def __init__(self, o: Options) -> None:
        import diffusers
        import transformers
        from diffusers.models.transformers import transformer_flux

        from meissonic_upstream import UpstreamPipeline
        from styledrop_cli.base.registry import MEISSONIC

        assert transformer_flux  # diffusers loads it when it is asked for
        self.pipe = UpstreamPipeline(diffusers, transformers, o.folder)
        for module in (self.pipe.text_encoder, self.pipe.vqvae, self.pipe.transformer):
            module.to(o.device, torch.bfloat16 if o.device == "cuda" and module is not self.pipe.vqvae else None)
        self.side, self.negative = o.pixels // 16, str(MEISSONIC.sampling["negative"])
        codes = self.pipe.vqvae.config.num_vq_embeddings
        self.prepare(o, codes, self.side, self.pipe.scheduler.config.mask_token_id)
        self.micro = torch.tensor([[float(o.pixels), float(o.pixels), 0, 0, 6]])

    @torch.no_grad()
    def pictures(self, number: int = 1) -> Tensor:
        how = {"side": self.side, "steps": self.steps, "guidance": self.guidance, "number": number}
        ids = self.pipe.ids(PROMPT, self.negative, generator=torch.Generator().manual_seed(SEED), **how)
        return self.pipe.pictures(ids).permute(0, 2, 3, 1).cpu()

    def text(self, prompts: tuple[str, ...] | None = None) -> tuple[Tensor, Tensor]:
        return self.pipe.text(list(prompts or (self.negative, PROMPT)))

    def told(self, text: Any, ids: Tensor) -> Tensor:
        micro, left = self.micro.to(ids.device).expand(len(ids), -1), torch.tensor([24], device=ids.device)
        made: Tensor = self.network(ids, *text, micro, left)
        return made


class Ours(Side):
    """Our base, as ``generate`` has it: its networks are mapped, and read when they are first used."""

    def __init__(self, o: Options) -> None:
        from styledrop_cli.base.base import load_base

        self.base = load_base(str(o.folder), torch.device(o.device))
        sizes = self.base.parts.config("transformer")
        self.prepare(o, sizes.codebook_size, sizes.sample_size, sizes.mask_id)
        self.by_place = self.logits.permute(0, 2, 3, 1).contiguous()

    @property
    def network(self) -> Any:
        return self.base.transformer

    def pictures(self, number: int = 1, adapter: Any = None, **settings: Any) -> Tensor:
        sampling, seeds = self.base.sampling(**({"steps": self.steps} | settings)), range(SEED, SEED + number)
        ids = self.base.sample([PROMPT] * number, list(seeds), sampling, adapter)
        self.base.done_with("transformer")
        return self.base.pictures(ids, self.base.sizes[0]).permute(0, 2, 3, 1).cpu()

    def text(self) -> Callable[[Tensor, Tensor, float], Tensor]:
        settings = self.base.sampling(steps=WHOLE[self.family], lambda_b=self.guidance - 1)
        return self.base.guide([PROMPT], settings)

    def step(self, text: Callable[[Tensor, Tensor, float], Tensor], ids: Tensor) -> Tensor:
        return text(ids, ids == self.mask_id, 0.5)

    def choose(self) -> None:
        from styledrop_cli.sampling.decoding import decode

        how = {"mask_id": self.mask_id, "steps": self.steps, "temperature": 2.0, "noise": "token"}
        draws = [torch.Generator().manual_seed(SEED)]
        decode(self.empty, lambda ids, masked, progress: self.by_place[masked], generator=draws, **how)

    def decode(self) -> Tensor:
        return self.base.pictures(self.ids, self.base.sizes[0])


def open_side(o: Options, side: str) -> Any:
    """The model, as one of ``SIDES`` has it."""
    if side == "ours":
        return Ours(o)
    return UpstreamMeissonic(o) if o.family == "meissonic" else Upstream(o)


SIDES = ("upstream", "ours")

# ---- what is measured ----


def draw(o: Options, side: str, variant: str) -> Figures:
    """The first picture of a process; ``loaded`` is a time of day."""
    model = open_side(o, side)
    loaded, started = time.time(), clock()
    made = model.pictures()
    seconds = clock() - started
    torch.save(made, o.drawn / f"{side}.pt")
    return {"loaded": loaded, "draw": seconds}


@torch.no_grad()
def parts(o: Options, side: str, variant: str) -> Figures:
    """What a picture's time goes into. Ours counts to the text all that follows from it alone, in upstream's steps."""
    model = open_side(o, side)
    text, again = model.text(), 3 if o.family == "amused" else 1
    figures = {
        "text": typical(model.text, again),
        "first": typical(lambda: model.step(text, model.empty), again),
        "later": typical(lambda: model.step(text, model.half), again),
        "choose": typical(model.choose, again),
        "decode": typical(model.decode, again),
    }
    return figures | {"picture": whole_picture(o, figures)}


def whole_picture(o: Options, figures: Figures) -> float:
    """Seconds of a picture: a step takes the longer the more ids are masked, in equal measure, and on average 0.64 are.

    Not for aMUSEd, whose first step is no measure of the others.
    """
    if o.family == "amused":
        return math.nan
    step = figures["later"] + (MASKED - 0.5) / 0.5 * (figures["first"] - figures["later"])
    whole = WHOLE[o.family]
    return figures["text"] + whole * (step + figures["choose"] / o.steps) + figures["decode"]


def styled(o: Options, side: str, variant: str) -> Figures:
    """A picture of ours with an adapter and both scales, plainly or by the preset that ``side`` names."""
    from styledrop_cli.adapters.file import new_adapter

    model, draws = Ours(o), torch.Generator().manual_seed(SEED)
    adapter = new_adapter(model.base.transformer, model.base.training("bottleneck", **o.width)).requires_grad_(False)
    for parameter in adapter.parameters():
        parameter.normal_(std=0.02, generator=draws)  # a fresh one changes nothing
    preset = {} if side == "plain" else model.base.preset(side)
    started = clock()
    model.pictures(1, adapter.to(o.device), **(STYLED | preset))
    return {"draw": clock() - started}


def train_upstream(o: Options, variant: str) -> Figures:
    """A step by ``train_amused.py``'s recipe: batch 1, LoRA of rank 16; Meissonic's own script clips the gradient."""
    from peft import LoraConfig, inject_adapter_in_model

    model, device = open_side(Options(**vars(o) | {"device": "cpu"}), "upstream"), torch.device(o.device)
    vq, text_encoder, network, recipe = model.pipe.vqvae, model.pipe.text_encoder, model.network, RECIPES[o.family]
    inject_adapter_in_model(LoraConfig(r=16, lora_alpha=32, target_modules=["to_q", "to_k", "to_v"]), network)
    network.to(device).train()
    text_encoder.requires_grad_(False).to(device, torch.bfloat16 if variant == "bf16" else torch.float32)
    vq.requires_grad_(False).to(device)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe["lr"], weight_decay=1e-2)
    picture = torch.rand(1, 3, o.pixels, o.pixels, device=device)  # what it shows takes no time
    with torch.no_grad():
        given = model.text((PROMPT,))

    @torch.no_grad()
    def encode() -> Tensor:
        return vq.quantize(vq.encode(picture).latents)[2][2].reshape(1, -1)

    def step() -> float:
        with torch.no_grad():
            tokens = encode()
            share = torch.cos(torch.rand(1, device=device) * math.pi * 0.5)
            count = (tokens.shape[1] * share).round().clamp(min=1)
            hidden = torch.rand(tokens.shape, device=device).argsort(dim=-1) < count[:, None]
            ids = torch.where(hidden, model.mask_id, tokens).view(model.ids.shape)
            labels = torch.where(hidden, tokens, -100)
        with torch.autocast(device.type, torch.bfloat16, enabled=variant == "bf16"):
            logits = model.told(given, ids)
        loss = F.cross_entropy(logits.float().reshape(-1, model.codes), labels.view(-1), ignore_index=-100)
        loss.backward()
        if recipe["clip"] < math.inf:
            torch.nn.utils.clip_grad_norm_(trained, recipe["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return {"step": typical(step, o.tuned), "encode": typical(encode, 1)}


def train_ours(o: Options, variant: str) -> Figures:
    """Seconds from step to step of a short training, from the picture file to the adapter file."""
    from styledrop_cli import devices
    from styledrop_cli.training import adapter as adapter_training

    if variant == "fp32":  # also where bfloat16 is faster
        fast = devices.fast_bfloat16
        for module in [m for m in sys.modules.values() if vars(m).get("fast_bfloat16") is fast]:
            vars(module)["fast_bfloat16"] = lambda device: False
    base, ends = Ours(o).base, list[float]()
    with tempfile.TemporaryDirectory() as folder:
        adapter_training.train_adapter(
            base,
            pictures=[PICTURE],
            style="watercolor",
            contents=["a cat"],
            settings=base.training("bottleneck", steps=1 + o.tuned, views=2, checkpoints=0, **o.width),
            output=Path(folder, "adapter.safetensors"),
            on_step=lambda step, total, loss: ends.append(clock()),
        )
    return {"step": statistics.median(b - a for a, b in pairwise(ends))}


def train(o: Options, side: str, variant: str) -> Figures:
    """A tuning step with one picture, in fp32 or bf16."""
    figures = {"upstream": train_upstream, "ours": train_ours}[side](o, variant)
    return figures | {"rate": 1 / figures["step"]}


def card(o: Options, side: str, variant: str) -> Figures:
    """Pictures a second on a card, and how near that comes to its matrix products; "32" or "32 compiled" at once."""
    model, (number, _, compiled) = open_side(o, side), variant.partition(" ")
    network = model.network
    with FlopCounterMode(display=False) as counter:
        model.pictures(int(number))
    if compiled:
        network.compile()
    seconds = typical(lambda: model.pictures(int(number)))
    peak = matmul_rate(8192, torch.bfloat16, o.device)
    return {"pictures": int(number) / seconds, "share": counter.get_total_flops() / seconds / peak}


# ---- processes and tables ----


def in_a_process(o: Options, job: str) -> Figures:
    """Do a job in a process of its own; what it prints."""
    for path in o.folder.rglob("*.safetensors"):  # into the file cache
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
    quiet = {"GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": str(o.threads), "HF_HUB_OFFLINE": "1"}
    command, started = [sys.executable, __file__, *sys.argv[1:], "--child", job], time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet, check=False)
    if done.returncode and not job.endswith("compiled"):  # which not every card and system can
        raise SystemExit(f"{job} failed:\n{done.stderr}")
    figures: Figures = {} if done.returncode else json.loads(done.stdout.splitlines()[-1])
    if "loaded" in figures:
        figures["load"] = figures.pop("loaded") - started
        figures["whole"] = figures["load"] + figures["draw"]
    return figures


def spread(values: list[float]) -> str:
    """The median, and the least and the most beside it."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-"


def print_table(o: Options, table: str, rates: list[float]) -> None:
    """Do the jobs of a table in turn, as often as there are runs, and print it."""
    from styledrop_cli.devices import fast_bfloat16

    sides = ("plain", "fast") if table == "fast" else SIDES
    rows = [row for row in TABLES[table] if "bf16" not in row[1] or fast_bfloat16(torch.device(o.device))]
    jobs = dict.fromkeys(f"{side}/{job}" for _, job, _, _ in rows for side in sides)
    found: dict[tuple[str, str], list[float]] = {}
    for job in [*jobs] * o.runs:
        for name, value in (figures := in_a_process(o, job)).items():
            if not math.isnan(value):
                found.setdefault((job, name), []).append(value)
        rates.append(matmul_rate() / 1e9)
        print(job, {name: round(value, 2) for name, value in figures.items()}, file=sys.stderr)
    print(f"\n| | {sides[0]} | {sides[1]} | ratio | aim |\n|---|---|---|---|---|")
    for title, job, figure, aim in rows:
        left, right = (found.get((f"{side}/{job}", figure), []) for side in sides)
        ratio = f"{statistics.median(right) / statistics.median(left):.2f}" if left and right else "-"
        print(f"| {title} | {spread(left)} | {spread(right)} | {ratio} | {aim} |")
    if table == "draw":
        theirs, own = (torch.load(o.drawn / f"{side}.pt") for side in sides)
        apart = (theirs - own).abs()
        share = float((apart.amax(-1) > 1 / 255).float().mean())
        print(f"\nThe two pictures differ by {float(apart.max()):.1e} of 1 at most, {share:.1%} of pixels visibly")


JOBS = {"make": make_model, "draw": draw, "parts": parts, "styled": styled, "train": train, "card": card}


def main() -> None:
    """Print the tables, or be one of their processes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="256", help="aMUSEd's pixels, or another (default 256)")
    parser.add_argument("--threads", type=int, default=2, help="of the processor, for both sides (default 2)")
    parser.add_argument("--runs", type=int, default=3, help="processes behind each figure (default 3)")
    parser.add_argument("--only", nargs="+", choices=TABLES, help="these tables")
    parser.add_argument("--steps", type=int, help="of drawing (default 12; 4 of meissonic, 48 of meissonic-512)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the process's seconds, where others use the machine as well",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--small", action="store_true", help="tiny networks, to try this script")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    o = parser.parse_args()
    o.family, o.pixels, steps, tables = MODELS[o.model]
    o.steps, o.tuned = o.steps or steps, TUNED[o.family]
    name = f"{o.family}-{o.pixels}-random{'-small' if o.small else ''}"
    o.folder, o.drawn = ROOT / "build" / name, ROOT / "build" / "against"
    o.width = {"width": 1} if o.small else {}  # of adapters, which stay under 1 % of what they adapt
    torch.set_num_threads(o.threads)
    if o.child:
        job, _, variant = o.child.partition(":")
        side, _, what = job.partition("/")
        figures = JOBS[what](o, side, variant)
        unit = 1 if platform.system() == "Darwin" else 1024
        figures["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
        if o.device == "cuda":
            figures["memory"] = torch.cuda.max_memory_reserved() / 1e9
        print(json.dumps(figures))
    elif o.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA card here")
    else:
        o.drawn.mkdir(parents=True, exist_ok=True)
        if not o.folder.exists():
            in_a_process(o, "none/make")
        rates: list[float] = []
        machine = torch.cuda.get_device_name() if o.device == "cuda" else f"{os.cpu_count()} {platform.machine()} cores"
        libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "peft"))
        print(f"{name} on {machine}, {o.threads} threads, {libraries}; runs: {o.runs}", flush=True)
        for table in o.only or (["card"] if o.device == "cuda" else tables):
            print_table(o, table, rates)
        print(f"\nfp32 matrix products of 1536 meanwhile, GFLOP/s: {spread(rates)}")


if __name__ == "__main__":
    main()
