"""Meissonic of stock parts: what upstream's code computes, put together from diffusers and transformers alone.

There is no Meissonic in diffusers, but each of its parts is there. The network was compared with upstream's own file
(github.com/viiika/Meissonic, ``src/transformer.py``): no difference at all. For comparisons and tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from styledrop_cli.models.meissonic import MeissonicConfig

LONGEST = 77  # tokens of a prompt


class UpstreamTransformer(nn.Module):
    """The network, under the published names. ``diffusers`` is that module; its number type is that of its weights."""

    def __init__(self, diffusers: Any, config: MeissonicConfig) -> None:
        super().__init__()
        parts = diffusers.models
        flux, norms = parts.transformers.transformer_flux, parts.normalization
        width, heads, head = config.hidden_size, config.num_attention_heads, config.attention_head_dim

        def norm() -> nn.Module:
            made: nn.Module = norms.RMSNorm(width, 1e-6, True)
            return made

        self.pos_embed = flux.FluxPosEmbed(10000, list(config.axes_dims_rope))
        self.time_text_embed = parts.embeddings.CombinedTimestepTextProjEmbeddings(width, width)
        self.cond_embed = parts.embeddings.TimestepEmbedding(1280 + width, width, sample_proj_bias=False)
        self.context_embedder = nn.Linear(config.joint_attention_dim, width)
        self.encoder_proj_layer_norm = norm()
        uvit = parts.unets.uvit_2d
        self.embed = uvit.UVit2DConvEmbed(width, width, config.vocab_size, True, 1e-6, False)
        self.project_to_hidden_norm, self.project_to_hidden = norm(), nn.Linear(width, width, bias=False)
        self.transformer_blocks = nn.ModuleList(
            flux.FluxTransformerBlock(width, heads, head) for _ in range(config.num_layers)
        )
        self.single_transformer_blocks = nn.ModuleList(
            flux.FluxSingleTransformerBlock(width, heads, head) for _ in range(config.num_single_layers)
        )
        self.project_from_hidden_norm, self.project_from_hidden = norm(), nn.Linear(width, width, bias=False)
        self.mlm_layer = uvit.ConvMlmLayer(width, width, False, True, 1e-6, config.codebook_size)
        fold = {"kernel_size": 2, "padding": 0, "norm_type": "rms_norm", "eps": 1e-6, "bias": False}
        self.down_block, self.up_block = nn.Module(), nn.Module()
        self.down_block.downsample = self.up_block.upsample = None
        if config.downsample:
            resnet = parts.resnet
            self.down_block.downsample = resnet.Downsample2D(
                width, use_conv=True, name="Conv2d_0", elementwise_affine=True, **fold
            )
            self.up_block.upsample = resnet.Upsample2D(
                width, use_conv_transpose=True, name="conv", interpolate=False, elementwise_affine=True, **fold
            )
        self.waves = parts.embeddings.get_timestep_embedding

    def forward(self, ids: Tensor, words: Tensor, summary: Tensor, micro: Tensor, step: Tensor) -> Tensor:
        """Ids ``[B,H,W]`` and, of each, text, micro-conditions and ``step`` (``[B]`` or ``[1]``) to ``[B,H,W,K]``."""
        kind = self.context_embedder.weight.dtype
        waves = self.waves(micro.flatten(), 256, flip_sin_to_cos=True, downscale_freq_shift=0)
        pooled = self.cond_embed(torch.cat((summary, waves.reshape(len(ids), -1)), 1).to(kind))
        told = self.time_text_embed(step.to(kind) * 1000, pooled)
        text = self.encoder_proj_layer_norm(self.context_embedder(words.to(kind)))
        x = self.embed(ids)
        x = x if self.down_block.downsample is None else self.down_block.downsample(x)
        side = x.shape[-2:]
        image = self.project_to_hidden(self.project_to_hidden_norm(x.flatten(2).transpose(1, 2)))
        axes = [torch.arange(size, device=ids.device) for size in (1, *side)]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        turn = self.pos_embed(torch.cat((torch.zeros(text.shape[1], 3, device=ids.device), places)))
        for block in (*self.transformer_blocks, *self.single_transformer_blocks):
            text, image = block(image, text, told, turn)
        x = self.project_from_hidden(self.project_from_hidden_norm(image)).transpose(1, 2).unflatten(2, side)
        x = x if self.up_block.upsample is None else self.up_block.upsample(x)
        out: Tensor = self.mlm_layer(x)
        return out.permute(0, 2, 3, 1)


class UpstreamPipeline:
    """A published folder as stock parts read it, and pictures as upstream's pipeline draws them.

    The network is told how many steps are left after each or, with ``fraction``, that number by all: Muddit's pipeline.
    """

    fraction = False

    def __init__(self, diffusers: Any, transformers: Any, folder: Path, *, half: bool = False) -> None:
        variant = {"variant": "fp16", "torch_dtype": torch.float32} if half else {}
        self.tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
        clip = transformers.CLIPTextModelWithProjection
        self.text_encoder = clip.from_pretrained(folder / "text_encoder", **variant)
        self.vqvae = diffusers.VQModel.from_pretrained(folder / "vqvae", **variant)
        about = json.loads((folder / "scheduler/scheduler_config.json").read_text())
        about.pop("_class_name")
        self.scheduler = diffusers.AmusedScheduler(**about)
        said = json.loads((folder / "transformer/config.json").read_text())
        sizes = {name: value for name, value in said.items() if name in MeissonicConfig.__dataclass_fields__}
        with torch.device("meta"):
            self.transformer = UpstreamTransformer(diffusers, MeissonicConfig(**sizes))
        weights = "diffusion_pytorch_model" + ".fp16" * half
        tensors = load_file(folder / f"transformer/{weights}.safetensors")
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        self.transformer.load_state_dict(tensors, assign=True)
        # Its frequencies are no weights: what was made without memory is made again.
        parts = diffusers.models.transformers.transformer_flux
        self.transformer.pos_embed = parts.FluxPosEmbed(10000, list(said["axes_dims_rope"]))
        for module in (self.text_encoder, self.vqvae, self.transformer):
            module.requires_grad_(False).eval()

    def tokens(self, texts: list[str]) -> Tensor:
        """Token ids ``[B,T]``, padded."""
        length = min(LONGEST, self.text_encoder.config.max_position_embeddings)
        padded = {"padding": "max_length", "truncation": True, "max_length": length}
        made: Tensor = self.tokenizer(texts, return_tensors="pt", **padded).input_ids
        return made

    def text(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """States before the last layer ``[B,T,E]``, and summaries ``[B,P]``."""
        said = self.text_encoder(
            self.tokens(texts).to(self.text_encoder.device), return_dict=True, output_hidden_states=True
        )
        return said.hidden_states[-2], said.text_embeds

    def ids(
        self,
        prompt: str,
        negative: str = "",
        *,
        side: int,
        steps: int,
        guidance: float,
        generator: torch.Generator,
        number: int = 1,
    ) -> Tensor:
        """Ids ``[number,side,side]`` of one prompt."""
        words, summary = self.text([negative] * number + [prompt] * number)
        pixels = side * 2 ** (len(self.vqvae.config.block_out_channels) - 1)
        micro = torch.tensor([[pixels, pixels, 0, 0, 6]], dtype=words.dtype, device=words.device)
        ids = torch.full((number, side, side), self.scheduler.config.mask_token_id, device=words.device)
        self.scheduler.set_timesteps(steps, (2, 0))
        for left in self.scheduler.timesteps:
            told = (left[None] / steps if self.fraction else left[None]).to(words.device)
            both = self.transformer(ids.repeat(2, 1, 1), words, summary, micro.expand(2 * number, -1), told)
            without, with_ = both.chunk(2)
            logits = (without + guidance * (with_ - without)).permute(0, 3, 1, 2)
            ids = self.scheduler.step(logits, left, ids, generator=generator).prev_sample
        return ids

    def pictures(self, ids: Tensor) -> Tensor:
        """Ids ``[B,H,W]`` to ``[B,3,...]`` in [0,1]."""
        shape = (*ids.shape, self.vqvae.config.latent_channels)
        made: Tensor = self.vqvae.decode(ids, force_not_quantize=True, shape=shape).sample
        return made.clip(0, 1)

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B,3,...]`` in [0,1] to ids ``[B,H,W]``."""
        latents = self.vqvae.encode(pictures).latents
        made: Tensor = self.vqvae.quantize(latents)[2][2].view(len(latents), *latents.shape[2:])
        return made
