"""How programs name the tensors of a LoRA: read in one way, whoever wrote them, or called what they are.

A name is a prefix (who holds the network), the module, and which tensor of the module's LoRA it is. kohya's names have
underscores for the module's dots; ``plain`` is what both have in common.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

A, B, ALPHA = "lora_A", "lora_B", "alpha"
# What stands before the module, any number of times, and what stands anywhere because something was wrapped.
_PREFIX = re.compile(
    r"(?:base_model\.(?:model\.)?|model\.|module\.|transformer\.|unet\.|diffusion_model\.|lora_unet_|lora_transformer_"
    r"|lycoris_|_orig_mod\.)+"
)
_WRAPPED = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|processor)\.")
_TEXT = re.compile(r"(?:base_model\.model\.)?(?:text_encoder(?:_\d)?[._]|te\d?[._]|lora_te\d?_|text_model\.)")
# The tensor at the end of a name, by who writes it so.
_TENSORS = tuple(
    (re.compile(r"(?P<module>.+?)" + end), tensor)
    for end, tensor in (
        (r"\.lora_A(?:\.\w+)?(?:\.weight)?", A),  # diffusers, and peft with the name of its adapter
        (r"\.lora_B(?:\.\w+)?(?:\.weight)?", B),
        (r"(?:[._]lora|\.lora_linear_layer)[._]down\.weight", A),  # kohya, and diffusers in its older releases
        (r"(?:[._]lora|\.lora_linear_layer)[._]up\.weight", B),
        (r"\.alpha", ALPHA),
    )
)
# What a tensor tells that is of no plain LoRA.
_OTHER_KINDS = tuple(
    (re.compile(r"(?:.+[._])?" + part), kind)
    for part, kind in (
        (r"hada_\w+(?:\..+)?", "a LoHa"),
        (r"lokr_\w+(?:\..+)?", "a LoKr"),
        (r"lora_mid\.weight", "a LoCon of convolutions"),
        (r"(?:oft|boft|vera|ia3)_\w+(?:\..+)?", "an adapter of another kind (OFT, BOFT, VeRA or IA3)"),
        (r"lora_E(?:\..+)?|ranknum(?:\..+)?", "an AdaLoRA"),
        (r"lora_magnitude_vector(?:\..+)?|dora_scale", "a DoRA, which also scales what it is added to"),
        (r"lora_B(?:\.\w+)?\.bias", "a LoRA with biases of its own"),
        (r"lora_embedding_[AB](?:\..+)?", "a LoRA of an embedding"),
        (r"modules_to_save\..+", "a LoRA with whole modules beside it"),
        (r"diff(?:_b)?", "a whole difference of weights"),
    )
)
# Whose modules they are, by ``plain`` names; the first that fits counts.
_FAMILIES = tuple(
    (re.compile(part), family)
    for part, family in (
        (
            r"(?:down|up)_blocks_\d+_(?:attentions|resnets|\w+samplers)|mid_block_(?:attentions|resnets)"
            r"|(?:input|output)_blocks_\d|middle_block_\d",
            "Stable Diffusion's unet",
        ),
        (
            r"double_blocks_\d|single_blocks_\d|single_transformer_blocks_\d",
            "Flux's transformer, or one like it such as Meissonic's",
        ),
        (
            r"joint_blocks_\d|transformer_blocks_\d",
            "a diffusion transformer such as Stable Diffusion 3's or Meissonic's",
        ),
        (r"blocks_\d+_(?:self|cross)_attn|blocks_\d+_ffn", "a video model such as Wan's"),
        (r"encoder_layers?_\d+_|encoder_block_\d", "an encoder of text or pictures"),
        (r"layers_\d+_(?:self_attn|mlp|attention|feed_forward)|h_\d+_(?:attn|mlp)", "a language model"),
    )
)


def read_name(name: str) -> tuple[str, str] | None:
    """The module that a tensor belongs to, and which of its LoRA it is (``A``, ``B``, ``ALPHA``); None if neither.

    The module is without what holds the network: ``transformer_layers.1.attn2.to_k``.
    """
    for pattern, tensor in _TENSORS:
        if match := pattern.fullmatch(name):
            module = _WRAPPED.sub("", match["module"])
            module = module[found.end() :] if (found := _PREFIX.match(module)) else module
            older = ".processor." in name and module.endswith(".to_out")  # which leaves out that it is the first
            return f"{module}.0" if older else module, tensor
    return None


def plain(module: str) -> str:
    """A module's name in the form that all programs have in common."""
    return module.replace(".", "_")


def is_of_text(name: str) -> bool:
    """Whether a tensor belongs to a text encoder's LoRA."""
    return bool(_TEXT.match(name))


def other_kind(name: str) -> str | None:
    """What a tensor's name tells that it belongs to, if that is no plain LoRA and can be told."""
    return next((kind for pattern, kind in _OTHER_KINDS if pattern.fullmatch(name)), None)


def any_begins(modules: Iterable[str], pattern: str) -> bool:
    """Whether any of ``modules`` begins, in the common form, as ``pattern`` says: as those of a base do."""
    return any(re.match(pattern, plain(module)) for module in modules)


def family(modules: Iterable[str]) -> str | None:
    """The network that ``modules`` are of by their names, in words, if that can be told."""
    names = [plain(module) for module in modules]
    return next((told for pattern, told in _FAMILIES if any(pattern.search(name) for name in names)), None)
