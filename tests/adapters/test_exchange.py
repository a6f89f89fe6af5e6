"""LoRAs from diffusers and back: the same strength on either side, and each thing that can be wrong with a file."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import tiny
from conftest import Outcome, Run
from styledrop_cli.adapters import diffusers_lora
from styledrop_cli.adapters.file import open_adapter
from styledrop_cli.adapters.header import load_adapter, read_header
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.tensors import read_tensors
from styledrop_cli.judging import clip_scorer
from styledrop_cli.models.adapter import LoraAdapter, LoraConfig, at_strength
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.transformer import MaskedTransformer

WEIGHTS = Path(diffusers_lora.WEIGHTS)
SAID = "lora_adapter_metadata"
SITE = "transformer_layers.1.attn2.to_k"
CONV = "down_block.attention_blocks.0.attn1.to_v"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_published(tmp_path_factory.mktemp("models") / "published")


@pytest.fixture(scope="module")
def shapes(published: Path) -> Base:
    return diffusers_lora.published_base(str(published))


def network() -> MaskedTransformer:
    return tiny.transformer(tiny.PUBLISHED_TRANSFORMER)


def logits(adapter: AdapterFn | None, its: MaskedTransformer | None = None) -> Tensor:
    """Of made-up ids and prompts, read and worked on with the adapter."""
    its = its or network()
    condition = its.condition(*inputs()[1:], adapter)
    made: Tensor = its(inputs()[0], condition, adapter)
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, text, its summary and sizes, as both sides take them."""
    draws, config = tiny.generator(3), tiny.PUBLISHED_TRANSFORMER
    text = torch.randn(2, 7, config.encoder_hidden_size, generator=draws)
    pooled = torch.randn(2, config.cond_embed_dim, generator=draws)
    return tiny.ids(config, 2), text, pooled, torch.tensor([[256.0, 256, 0, 0, 6]]).expand(2, 5)


def merged(tensors: dict[str, Tensor], scale: float) -> MaskedTransformer:
    """The network with ``scale B A`` added to the weights themselves: the truth about a LoRA."""
    made = network()
    for name, a in tensors.items():
        if "lora_A" in name:
            module = name.removeprefix("transformer.").removesuffix(".lora_A.weight")
            made.get_submodule(module).weight += scale * tensors[name.replace("lora_A", "lora_B")] @ a  # type: ignore[operator]
    return made


def write(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, path: Path = WEIGHTS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, {"format": "pt"} | (metadata or {}))
    return path


def brought(shapes: Base, path: Path = WEIGHTS, alpha: float | None = None) -> tuple[LoraAdapter, list[str]]:
    """The adapter that a file becomes, read back from ours, and what was said of it."""
    said: list[str] = []
    out = Path("ours.safetensors")
    diffusers_lora.bring_in(
        diffusers_lora.read_lora(path), shapes, style="[V] style", alpha=alpha, output=out, on_message=said.append
    )
    adapter = open_adapter(shapes, load_adapter(out)).base
    assert isinstance(adapter, LoraAdapter)
    return adapter, said


# ---- the same on either side ----


@pytest.mark.parametrize("targets", [("to_q", "to_k", "to_v"), ("to_out.0",), ("to_v", "to_out.0")])
def test_brought_in_it_is_what_was_trained(shapes: Base, targets: tuple[str, ...]) -> None:
    tensors = tiny.lora_tensors(2, targets)
    write(tensors)
    adapter, said = brought(shapes, alpha=3)
    assert not [line for line in said if "its alpha" in line]
    assert adapter.config == LoraConfig(2, 3.0, tuple(t.removesuffix(".0") for t in targets))
    assert (logits(adapter) - logits(None)).abs().max() > 0.1
    torch.testing.assert_close(logits(adapter), logits(None, merged(tensors, 3 / 2)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", ["", "transformer.", "base_model.model.", "base_model.model.transformer."])
def test_names_with_any_prefix(shapes: Base, prefix: str) -> None:
    write(tiny.lora_tensors(prefix=prefix))
    (adapter, _), tensors = brought(shapes), tiny.lora_tensors()
    assert torch.equal(adapter.a[SITE.replace(".", "/")], tensors[f"transformer.{SITE}.lora_A.weight"].T)
    assert torch.equal(adapter.b[CONV.replace(".", "/")], tensors[f"transformer.{CONV}.lora_B.weight"].T)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision(shapes: Base, kind: torch.dtype) -> None:
    tensors = {name: t.to(kind) for name, t in tiny.lora_tensors().items()}
    write(tensors)
    adapter, _ = brought(shapes)
    assert adapter.a[SITE.replace(".", "/")].dtype == torch.float32
    torch.testing.assert_close(
        logits(adapter), logits(None, merged({n: t.float() for n, t in tensors.items()}, 1)), atol=1e-5, rtol=1e-5
    )


def test_there_and_back_is_the_same_file_to_the_bit(shapes: Base) -> None:
    """Where alpha is the rank, that is: what is left alone is left out again."""
    tensors = {n: t for n, t in tiny.lora_tensors().items() if "transformer_layers" in n}
    write(tensors)
    adapter, _ = brought(shapes)
    back, metadata = diffusers_lora.lora_of(adapter)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert json.loads(metadata[SAID]) == {
        "transformer.r": 2,
        "transformer.lora_alpha": 2,
        "transformer.target_modules": list(
            dict.fromkeys(n.removeprefix("transformer.").rpartition(".lora_")[0] for n in tensors)
        ),
    }


def test_taken_out_the_strength_is_in_the_weights() -> None:
    adapter = LoraAdapter(LoraConfig(4, 7.0, ("to_k", "to_out")), network())
    tiny.randomise(adapter, 1)
    tensors, _ = diffusers_lora.lora_of(adapter.requires_grad_(False))
    assert f"transformer.{SITE.replace('to_k', 'to_out.0')}.lora_A.weight" in tensors
    torch.testing.assert_close(logits(adapter), logits(None, merged(tensors, 1)), atol=1e-5, rtol=1e-5)


def test_modules_that_are_not_trained_add_nothing(shapes: Base) -> None:
    tensors = {n: t for n, t in tiny.lora_tensors().items() if ".1.attn2." in n}
    write(tensors)
    adapter, said = brought(shapes)
    assert any("trains 3 of 30 modules; the others stay as they are" in line for line in said)
    assert not adapter.a[CONV.replace(".", "/")].any()
    assert at_strength(adapter, 1) is adapter
    torch.testing.assert_close(logits(adapter), logits(None, merged(tensors, 1)), atol=1e-5, rtol=1e-5)


def test_what_is_large_is_said(shapes: Base) -> None:
    write(tiny.lora_tensors(4))
    assert any("is 1.3% of the base" in line for line in brought(shapes)[1])
    write(tiny.lora_tensors(2))
    assert not any("of the base" in line for line in brought(shapes)[1])


# ---- alpha ----


def test_alpha_is_the_rank_where_nobody_says_it_and_that_is_said(shapes: Base) -> None:
    write(tiny.lora_tensors())
    adapter, said = brought(shapes)
    assert adapter.config.alpha == 2
    assert said[0].startswith("Warning: ")
    assert "--alpha 32" in said[0]


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_alpha_of_the_metadata(shapes: Base, prefix: str) -> None:
    about = {f"{prefix}r": 2, f"{prefix}lora_alpha": 5, f"{prefix}target_modules": ["to_q"]}
    write(tiny.lora_tensors(prefix=prefix), {SAID: json.dumps(about)})
    adapter, said = brought(shapes)
    assert adapter.config.alpha == 5
    assert not [line for line in said if "alpha" in line]
    assert brought(shapes, alpha=5)[0].config.alpha == 5
    with pytest.raises(UsageError, match="says that its alpha is 5, not 32"):
        brought(shapes, alpha=32)


def test_alpha_beside_a_file_of_peft(shapes: Base) -> None:
    path = write(tiny.lora_tensors(prefix="base_model.model."), path=Path("adapter_model.safetensors"))
    Path("adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6, "alpha_pattern": {}}))
    assert brought(shapes, path)[0].config.alpha == 6
    renamed = write(tiny.lora_tensors(prefix="base_model.model."), path=Path("mine.safetensors"))
    assert brought(shapes, renamed)[0].config.alpha == 6
    write(tiny.lora_tensors())
    assert brought(shapes)[0].config.alpha == 2  # the configuration is peft's, and this file is not


def test_alpha_by_the_root_of_the_rank(shapes: Base) -> None:
    write(tiny.lora_tensors(), {SAID: json.dumps({"lora_alpha": 5, "use_rslora": True})})
    assert brought(shapes)[0].config.alpha == pytest.approx(5 * math.sqrt(2))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[1]", "is no JSON object"),
        ('{"lora_alpha": "much"}', "its alpha is 'much', which is no positive number"),
        ('{"lora_alpha": true}', "no positive number"),
        ('{"lora_alpha": -1}', "no positive number"),
        ('{"lora_alpha": NaN}', "no positive number"),
        ('{"lora_alpha": 4, "alpha_pattern": {"to_q": 8}}', "strengths of their own"),
        ('{"lora_alpha": 4, "use_dora": true}', "use_dora True: DoRA also scales"),
    ],
)
def test_metadata_that_cannot_be_used(said: str, words: str) -> None:
    write(tiny.lora_tensors(), {SAID: said})
    with pytest.raises(ModelError, match=words):
        diffusers_lora.read_lora(WEIGHTS)


# ---- names ----

KOHYA = ("lora_down.weight", "lora_up.weight")
PEFT = ("lora_A.default.weight", "lora_B.default.weight")
OLDER = ("lora.down.weight", "lora.up.weight")


@pytest.mark.parametrize(
    ("prefix", "halves", "dots"),
    [
        ("lora_unet_", KOHYA, False),
        ("lora_transformer_", KOHYA, False),
        ("lycoris_", KOHYA, False),
        ("diffusion_model.", KOHYA, True),
        ("base_model.model.", PEFT, True),
        ("module._orig_mod.", PEFT, True),
        ("unet.", OLDER, True),
        ("transformer._orig_mod.", OLDER, True),
        ("transformer.", ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"), True),
        ("", ("lora_A", "lora_B"), True),
    ],
)
def test_names_of_other_programs(shapes: Base, prefix: str, halves: tuple[str, str], dots: bool) -> None:
    """All of them are read as the same LoRA; alphas beside the halves are honoured, equal ones and others."""
    tensors = tiny.lora_tensors(2, ("to_v", "to_out.0"), prefix="")
    wanted = merged(tensors, 3 / 2)
    made = {}
    for name, tensor in tensors.items():
        module, half = name.removesuffix(".weight").split(".lora_")
        module = prefix + (module if dots else module.replace(".", "_"))
        made[f"{module}.{halves[half == 'B']}"] = tensor
        made[f"{module}.alpha"] = torch.tensor(3.0, dtype=torch.float16)
    write(made)
    adapter, said = brought(shapes)
    assert adapter.config == LoraConfig(2, 3.0, ("to_v", "to_out"))
    assert not [line for line in said if "alpha" in line]
    torch.testing.assert_close(logits(adapter), logits(None, wanted), atol=1e-5, rtol=1e-5)


def test_names_of_the_oldest_diffusers(shapes: Base) -> None:
    tensors = tiny.lora_tensors(2, ("to_q", "to_out.0"), prefix="")
    write(
        {
            name.replace(".to_q.lora_", ".processor.to_q_lora.")
            .replace(".to_out.0.lora_", ".processor.to_out_lora.")
            .replace("_lora.A", "_lora.down")
            .replace("_lora.B", "_lora.up"): tensor
            for name, tensor in tensors.items()
        }
    )
    adapter, _ = brought(shapes)
    torch.testing.assert_close(logits(adapter), logits(None, merged(tensors, 1)), atol=1e-5, rtol=1e-5)


def test_each_modules_own_alpha(shapes: Base) -> None:
    tensors = tiny.lora_tensors(prefix="")
    modules = sorted({name.rpartition(".lora_")[0] for name in tensors})
    alphas = {module: float(1 + number % 3) for number, module in enumerate(modules)}
    write(tensors | {f"{module}.alpha": torch.tensor(alpha) for module, alpha in alphas.items()})
    adapter, _ = brought(shapes)
    scaled = {
        name: t * (alphas[name.rpartition(".lora_")[0]] / 2 if "lora_B" in name else 1) for name, t in tensors.items()
    }
    torch.testing.assert_close(logits(adapter), logits(None, merged(scaled, 1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", "Stable Diffusion's unet"),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "Stable Diffusion's unet"),
        ("diffusion_model.double_blocks.0.img_attn.qkv", "Flux's transformer"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "Flux's transformer"),
        ("transformer.transformer_blocks.0.attn.to_q", "a diffusion transformer"),
        ("blocks.0.self_attn.q", "a video model"),
        ("base_model.model.model.layers.0.self_attn.q_proj", "a language model"),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "a text encoder alone"),
    ],
)
def test_loras_of_other_networks_are_called_what_they_are(module: str, words: str) -> None:
    write({f"{module}.lora_A.weight": torch.ones(2, 8), f"{module}.lora_B.weight": torch.ones(8, 2)})
    with pytest.raises(ModelError, match=f"is a LoRA of {words}"):
        diffusers_lora.read_lora(WEIGHTS)


# ---- what a file says of itself ----

PEFTS = Path("adapter_model.safetensors")
PLAIN: dict[str, Any] = {  # as peft 0.21 writes it
    "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None,
    "auto_mapping": {"base_model_class": "UVit2DModel", "parent_library": "diffusers.models"},
    "base_model_name_or_path": "amused/published", "bias": "none", "corda_config": None, "ensure_weight_tying": False,
    "eva_config": None, "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True,
    "init_lora_weights": True, "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
    "loftq_config": {}, "lora_alpha": 6, "lora_bias": False, "lora_dropout": 0.1, "megatron_config": None,
    "megatron_core": "megatron.core", "modules_to_save": None, "peft_type": "LORA", "peft_version": "0.21.2",
    "qalora_group_size": 16, "r": 2, "rank_pattern": {}, "revision": None, "target_modules": ["to_k", "to_q", "to_v"],
    "target_parameters": None, "task_type": None, "trainable_token_indices": None, "use_dora": False,
    "use_qalora": False, "use_rslora": False,
}  # fmt: skip


def described(shapes: Base, **changes: Any) -> tuple[LoraAdapter, list[str]]:
    """What becomes of peft's file with this description."""
    write(tiny.lora_tensors(prefix="base_model.model."), path=PEFTS)
    Path("adapter_config.json").write_text(json.dumps(PLAIN | changes))
    return brought(shapes, PEFTS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        *({"init_lora_weights": way} for way in (False, "gaussian", "eva", "orthogonal")),
        {"layers_to_transform": [0, 1, 2]},
        {"corda_config": {"corda_method": "kpm"}, "eva_config": {"rho": 2.0}},
        {"of_next_year": None, "and_beyond": [], "unused": False},
        {"base_model_name_or_path": "/models/published/", "auto_mapping": None},
        {"base_model_name_or_path": "~/.cache/models--amused--published/snapshots/1a2b"},
    ],
)
def test_a_plain_description(shapes: Base, changes: dict[str, Any]) -> None:
    adapter, said = described(shapes, **changes)
    assert adapter.config.alpha == 6
    assert said == []


@pytest.mark.parametrize(
    ("changes", "words", "hint"),
    [
        *(
            ({"init_lora_weights": way}, f"init_lora_weights '{way}'.* alone it means nothing", hint)
            for way, hint in (
                *(
                    (way, "path_initial_model_for_weight_conversion")
                    for way in ("pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "PiSSA")
                ),
                ("loftq", "Train it again"),
            )
        ),
        ({"r": 16}, "its rank is 16, and its tensors have rank 2", "written with it"),
        ({"r": "2"}, "its rank is '2'", ""),
        *(({"peft_type": kind}, f"peft_type '{kind}'", "plain LoRA") for kind in ("LOHA", "LOKR", "IA3", "ADALORA")),
        ({"use_dora": True}, "use_dora True: DoRA", ""),
        ({"rank_pattern": {"to_q": 4}}, "rank_pattern .*ranks of their own", ""),
        ({"alpha_pattern": {"to_q": 4}}, "alpha_pattern .*strengths of their own", ""),
        ({"bias": "all"}, "bias 'all'", ""),
        ({"lora_bias": True}, "lora_bias True", ""),
        ({"modules_to_save": ["to_logits"]}, "modules_to_save", ""),
        ({"fan_in_fan_out": True}, "fan_in_fan_out True", ""),
        ({"layer_replication": [[0, 4]]}, "layer_replication", ""),
        (
            {"layers_to_transform": [0]},
            r"trains layers 0 \(layers_to_transform\), and there are tensors of .*\.1\.",
            "",
        ),
        ({"layers_to_transform": 5}, "trains layers 5 ", ""),
        ({"auto_mapping": {"base_model_class": "UNet2DConditionModel"}}, "trained on a UNet2DConditionModel", ""),
        ({"of_next_year": "yes"}, "of_next_year 'yes': that is not known here", "take it out"),
        (
            {"base_model_name_or_path": "runwayml/stable-diffusion-v1-5"},
            "trained on runwayml.*, not on publ",
            "--model",
        ),
        ({"base_model_name_or_path": "gpt2"}, "trained on gpt2, not on published", "--model"),
        ({"base_model_name_or_path": 7}, "its base is 7, which is no name", ""),
    ],
)
def test_a_description_that_changes_the_meaning(shapes: Base, changes: dict[str, Any], words: str, hint: str) -> None:
    with pytest.raises(ModelError, match=words) as error:
        described(shapes, **changes)
    assert hint in str(error.value.hint)
    assert not Path("ours.safetensors").exists()


def test_a_base_that_kohya_names(shapes: Base) -> None:
    write(tiny.lora_tensors(), {"ss_sd_model_name": "v1-5-pruned.safetensors"})
    with pytest.raises(ModelError, match=r"trained on v1-5-pruned.safetensors, not on published"):
        brought(shapes)


def test_a_base_in_a_folder_elsewhere_is_doubted(shapes: Base) -> None:
    _, said = described(shapes, base_model_name_or_path="/root/models/my amused")
    assert said == [f"Warning: {PEFTS} says that it was trained on /root/models/my amused; it is taken to be published"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"ss_network_module": "lycoris.kohya"}, "was made by lycoris.kohya"),
        ({"ss_network_dim": "16"}, "its rank is 16, and its tensors have rank 2"),
        ({"ss_network_alpha": "nan"}, "no positive number"),
        ({"rank": "4"}, "its rank is 4, and its tensors have rank 2"),
        ({"alpha": "6"}, "contradicts itself: its alpha is 3, and 6"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "was trained on sdxl_base_v1-0"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "was trained on stable-diffusion-v1"),
        ({"ss_network_alpha": "4", SAID: '{"lora_alpha": 8}'}, "contradicts itself"),
    ],
)
def test_what_kohya_says(shapes: Base, metadata: dict[str, str], words: str) -> None:
    plain = {"ss_network_module": "networks.lora", "ss_network_dim": "2", "ss_network_alpha": "3.0", "ss_epoch": "5"}
    write(tiny.lora_tensors(), plain)
    assert brought(shapes)[0].config.alpha == 3
    write(tiny.lora_tensors(), plain | metadata)
    with pytest.raises(ModelError, match=words):
        diffusers_lora.read_lora(WEIGHTS)
    alphas = {name.replace("lora_A.weight", "alpha"): torch.tensor(2.0) for name in tiny.lora_tensors() if "_A" in name}
    write(tiny.lora_tensors() | alphas, plain)
    with pytest.raises(ModelError, match="its alpha is 3, and its tensors say 2"):
        diffusers_lora.read_lora(WEIGHTS)


# ---- what a file must not be ----


def without(tensors: dict[str, Tensor]) -> None:
    del tensors[f"transformer.{SITE}.lora_B.weight"]


def without_a(tensors: dict[str, Tensor]) -> None:
    del tensors[f"transformer.{SITE}.lora_A.weight"]


def other_rank(tensors: dict[str, Tensor]) -> None:
    tensors[f"transformer.{SITE}.lora_A.weight"] = torch.ones(3, 128)
    tensors[f"transformer.{SITE}.lora_B.weight"] = torch.ones(128, 3)


def no_product(tensors: dict[str, Tensor]) -> None:
    tensors[f"transformer.{SITE}.lora_A.weight"] = torch.ones(3, 128)


def no_rank(tensors: dict[str, Tensor]) -> None:
    for name in list(tensors):
        tensors[name] = torch.ones(0, 128) if "lora_A" in name else torch.ones(128, 0)


def convolution(tensors: dict[str, Tensor]) -> None:
    tensors[f"transformer.{SITE}.lora_A.weight"] = torch.ones(2, 128, 1, 1)


def whole_numbers(tensors: dict[str, Tensor]) -> None:
    tensors[f"transformer.{SITE}.lora_A.weight"] = torch.ones(2, 128, dtype=torch.int64)


def not_finite(tensors: dict[str, Tensor]) -> None:
    tensors[f"transformer.{SITE}.lora_B.weight"][3, 1] = math.inf


def magnitude(tensors: dict[str, Tensor]) -> None:
    tensors[f"transformer.{SITE}.lora_magnitude_vector"] = torch.ones(128)


def of_the_text(tensors: dict[str, Tensor]) -> None:
    tensors["text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"] = torch.ones(2, 16)


def only_of_the_text(tensors: dict[str, Tensor]) -> None:
    tensors.clear()
    of_the_text(tensors)


def whole_network(tensors: dict[str, Tensor]) -> None:
    tensors["transformer_layers.0.attn1.to_q.base_layer.weight"] = torch.ones(128, 128)


def of_stable_diffusion(tensors: dict[str, Tensor]) -> None:
    tensors.clear()
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors |= {f"{name}.lora_down.weight": torch.ones(4, 320), f"{name}.lora_up.weight": torch.ones(320, 4)}
    tensors["lora_unet_mid_block_resnets_0_conv1.lora_down.weight"] = torch.ones(4, 320, 3, 3)
    tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"] = torch.ones(4, 320)


def of_nobody(tensors: dict[str, Tensor]) -> None:
    tensors.clear()
    tensors |= {"head.proj.lora_A.weight": torch.ones(2, 8), "head.proj.lora_B.weight": torch.ones(8, 2)}


def whole_weights(tensors: dict[str, Tensor]) -> None:
    tensors.clear()
    tensors["transformer_layers.0.attn1.to_q.weight"] = torch.ones(128, 128)


def untrained(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensor.zero_()


def other_names_of_one(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith(f"transformer.{SITE}.")]:
        tensors[name.replace("transformer.", "unet.", 1)] = tensors[name].clone()


def no_alpha(tensors: dict[str, Tensor]) -> None:
    tensors[f"{SITE}.alpha"] = torch.tensor(-1.0)


def some_alphas(tensors: dict[str, Tensor]) -> None:
    tensors[f"transformer.{SITE}.alpha"] = torch.tensor(1.0)


def loha(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_mid_block_attn_to_q.hada_w1_a"] = torch.ones(4, 320)


def lokr(tensors: dict[str, Tensor]) -> None:
    tensors[f"lycoris_{SITE.replace('.', '_')}.lokr_w1"] = torch.ones(4, 4)


def with_biases(tensors: dict[str, Tensor]) -> None:
    tensors[f"base_model.model.{SITE}.lora_B.bias"] = torch.ones(128)


def empty(tensors: dict[str, Tensor]) -> None:
    tensors.clear()


def twice(tensors: dict[str, Tensor]) -> None:
    tensors[f"{SITE}.lora_A.weight"] = torch.ones(2, 128)


def feed_forward(tensors: dict[str, Tensor]) -> None:
    tensors["transformer.transformer_layers.0.ff.net.2.lora_A.weight"] = torch.ones(2, 768)
    tensors["transformer.transformer_layers.0.ff.net.2.lora_B.weight"] = torch.ones(128, 2)


def bare_to_out(tensors: dict[str, Tensor]) -> None:
    for half in "AB":
        shape = (2, 128) if half == "A" else (128, 2)
        tensors[f"transformer.{SITE.replace('to_k', 'to_out')}.lora_{half}.weight"] = torch.ones(shape)


def another_layer(tensors: dict[str, Tensor]) -> None:
    for half in "AB":
        name = f"transformer.{SITE}.lora_{half}.weight"
        tensors[name.replace("layers.1", "layers.21")] = tensors[name].clone()


def other_sizes(tensors: dict[str, Tensor]) -> None:
    tensors[f"transformer.{SITE}.lora_A.weight"] = torch.ones(2, 1024)


def too_large(tensors: dict[str, Tensor]) -> None:
    for name in list(tensors):
        del tensors[name]
    tensors[f"transformer.{SITE}.lora_A.weight"] = torch.ones(1000, 128)
    tensors[f"transformer.{SITE}.lora_B.weight"] = torch.ones(128, 1000)


BAD: list[tuple[Callable[[dict[str, Tensor]], None], str]] = [
    (without, f"{SITE} has lora_A and no lora_B"),
    (without_a, f"{SITE} has lora_B and no lora_A"),
    (other_rank, "have different ranks: 2, 3"),
    (no_product, rf"{SITE} are \[3, 128\] and \[128, 2\]"),
    (no_rank, "that is no product"),
    (convolution, rf"{SITE} are \[2, 128, 1, 1\]"),
    (whole_numbers, f"{SITE} is of torch.int64"),
    (not_finite, f"{SITE} holds a value that is not finite"),
    (magnitude, "is a DoRA"),
    (of_the_text, "trains the text encoder too"),
    (only_of_the_text, "is a LoRA of a text encoder alone"),
    (whole_network, "is a whole network with a LoRA inside"),
    (of_stable_diffusion, "is a LoRA of Stable Diffusion's unet: none of its 2 layers is in this base"),
    (of_nobody, "is no LoRA of aMUSEd: none of its 1 layers is in this base, the first is head.proj"),
    (whole_weights, "holds no LoRA: its 1 tensors are called otherwise, the first transformer_layers.0.attn1.to_q.wei"),
    (empty, "holds no tensors"),
    (untrained, "is untrained: lora_B is all zeros in each of its modules"),
    (twice, f"{SITE} has more than one lora_A"),
    (other_names_of_one, f"{SITE} has more than one lora_[AB]"),
    (no_alpha, f"the alpha of {SITE} is no positive number"),
    (some_alphas, "1 of 30 modules say their alpha, and the others do not"),
    (loha, "is a LoHa, and plain LoRAs alone are read here"),
    (lokr, "is a LoKr"),
    (with_biases, "is a LoRA with biases of its own"),
    (feed_forward, "transformer_layers.0.ff.net.2 is no projection of an attention"),
    (bare_to_out, "attn2.to_out is no projection of an attention"),
    (another_layer, "the base has no transformer_layers.21.attn2.to_k"),
    (other_sizes, f"{SITE} goes from 1024 to 128, and the base's from 128 to 128"),
    (too_large, "has rank 1000: more than the base's own matrices have"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
def test_bad_files(shapes: Base, spoil: Callable[[dict[str, Tensor]], None], words: str) -> None:
    tensors = tiny.lora_tensors()
    spoil(tensors)
    write(tensors)
    with pytest.raises(ModelError, match=words):
        brought(shapes)
    assert not Path("ours.safetensors").exists()


# ---- the command ----


def refused(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "unexpected" not in outcome.err
    for word in words:
        assert word in outcome.err


def test_there_and_back_by_command(styledrop: Run, published: Path) -> None:
    write(tiny.lora_tensors())
    to = ("--model", published)
    code, out, err = styledrop("convert", WEIGHTS, "--style", " [V]  style", "--alpha", "4", *to)
    assert (code, out) == (0, "adapter.safetensors\n"), err
    assert "rank 2, alpha 4, to_q, to_k, to_v" in err
    assert "Warning" not in err
    assert f'styledrop generate adapter.safetensors "a cat" --model {published}' in err
    header = read_header(Path("adapter.safetensors")).to_json()
    assert header["kind"] == "lora"
    assert header["config"] == {"rank": 2, "alpha": 4.0, "targets": ["to_q", "to_k", "to_v"]}
    assert header["base"] == {"name": "published", "hash": load_base(str(published), tiny.CPU).hash}
    assert (header["style"], header["contents"], header["pictures"]) == ("[V] style", [], [])
    assert header["recommended"] == {"lambda_a": 0.0, "lambda_b": 9.0}
    assert header["source"]["name"] == diffusers_lora.WEIGHTS
    metadata = read_tensors(Path("adapter.safetensors"))[1]
    assert metadata["modelspec.description"].endswith(f"brought from {diffusers_lora.WEIGHTS}")

    code, out, err = styledrop("convert", "adapter.safetensors", *to)
    made = Path("adapter-diffusers") / WEIGHTS
    assert (code, out) == (0, f"{made}\n"), err
    assert "'a cat in [V] style', and set guidance_scale to 10" in err
    assert 'load_lora_adapter("adapter-diffusers"' in err
    tensors, first = read_tensors(made)[0], tiny.lora_tensors()
    assert tensors.keys() == first.keys()
    name = f"transformer.{SITE}.lora_"
    assert torch.equal(tensors[f"{name}A.weight"], first[f"{name}A.weight"])
    assert torch.equal(tensors[f"{name}B.weight"], 2 * first[f"{name}B.weight"])

    code, out, err = styledrop("convert", made, "--style", "[V] style", "-o", "again.safetensors", "--json", *to)
    assert code == 0, err
    assert json.loads(out)["alpha"] == 2
    one, other = (load_adapter(Path(n)).tensors for n in ("adapter.safetensors", "again.safetensors"))
    name = f"adapter.b.{SITE.replace('.', '/')}"
    assert torch.equal(other[name], 2 * one[name])


def test_what_was_trained_here(styledrop: Run, picture: Path, published: Path) -> None:
    words = ("--style", "watercolor", "--content", "a cat", "--kind", "lora", "--rank", "2", "--targets", "to_k,to_out")
    to = ("--model", published, "--quiet")
    assert styledrop("train", picture, *words, "--steps", "2", "-o", "lora.safetensors", *to).code == 0
    code, out, err = styledrop("convert", "lora.safetensors", "-o", "there/deeper", *to)
    assert (code, out) == (0, f"there/deeper/{WEIGHTS}\n"), err
    refused(styledrop("convert", "lora.safetensors", "-o", "there/deeper", *to), 2, "already there", "--overwrite")
    assert styledrop("convert", "lora.safetensors", "-o", "there/deeper", "--overwrite", *to).code == 0
    assert styledrop("convert", out.strip(), "--style", "watercolor", "-o", "back.safetensors", *to).code == 0
    one, other = (
        open_adapter(load_base(str(published), tiny.CPU), load_adapter(Path(n))).base
        for n in ("lora.safetensors", "back.safetensors")
    )
    torch.testing.assert_close(logits(other), logits(one), atol=1e-5, rtol=1e-5)


def test_what_can_be_done_with_one_that_was_brought_in(
    styledrop: Run, published: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing, and looking at it. What needs its pictures says that they are not there."""
    judge = load_base(str(tiny_model), tiny.CPU)  # the published CLIP reads text only
    monkeypatch.setattr(clip_scorer, "open_scorer", lambda base, name: judge)
    write(tiny.lora_tensors())
    to = ("--model", published, "--quiet")
    assert styledrop("convert", WEIGHTS, "--style", "[V]", *to).code == 0
    code, out, err = styledrop("inspect", "adapter.safetensors")
    assert code == 0, err
    assert "[V]" in out and diffusers_lora.WEIGHTS in out
    code, out, err = styledrop("generate", "adapter.safetensors", "a cat", "-n", "2", "--steps", "2", *to)
    assert code == 0, err
    said = "was brought from elsewhere, without the pictures that it was trained on"
    for command in (
        ("iterate", "adapter.safetensors"),
        ("report", "adapter.safetensors"),
        ("score", "styledrop-out"),
        ("sweep", "adapter.safetensors", "a cat"),
    ):
        refused(styledrop(*command, *to), 1, said, "Hint: ")


def test_the_wrong_base(styledrop: Run, published: Path, tmp_path: Path, tiny_model: Path) -> None:
    write(tiny.lora_tensors())
    into = ("convert", WEIGHTS, "--style", "x", "-o", "a.safetensors", "--model")
    for model in ("pocket", tiny_model):
        refused(styledrop(*into, model), 1, "has no equivalent in diffusers", "amused-256")
    assert styledrop(*into, published).code == 0
    other = tiny.write_published(tmp_path / "other", seed=1)
    refused(styledrop("convert", "a.safetensors", "--model", other), 1, "was trained on another base", "--model")
    half = tiny.write_published(tmp_path / "half", half=True)
    assert styledrop("convert", "a.safetensors", "--model", half).code == 0


def test_adapters_that_stay(styledrop: Run, picture: Path, published: Path) -> None:
    train = ("train", picture, "--style", "x", "--content", "a cat", "--steps", "1", "--quiet", "--width", "1")
    assert styledrop(*train, "-o", "b.safetensors", "--model", published).code == 0
    refused(styledrop("convert", "b.safetensors"), 1, "of kind 'bottleneck'", "--kind lora")
    of_pocket = replace(load_adapter(Path("b.safetensors")), path=Path("p.safetensors"))
    of_pocket.header.base["name"] = "pocket"
    tiny.write_adapter(of_pocket.path, of_pocket.tensors, of_pocket.header.to_json())
    refused(styledrop("convert", "p.safetensors"), 1, "trained on pocket", "--kind lora --model amused-256")


@pytest.mark.parametrize("name", ["pytorch_lora_weights.bin", "lora.pt", "lora.ckpt"])
def test_pickles(styledrop: Run, name: str) -> None:
    torch.save(tiny.lora_tensors(), name)
    refused(styledrop("convert", name, "--style", "x"), 1, "is a pickle, which may run any code: it is not opened")


def test_what_is_wrong_with_a_command(styledrop: Run, published: Path) -> None:
    refused(styledrop("convert", "nowhere.safetensors", "--style", "x"), 1, "there is no file nowhere.safetensors")
    Path("text.safetensors").write_text("words")
    refused(
        styledrop("convert", "text.safetensors", "--style", "x"),
        1,
        "is not a safetensors file: it is text that begins 'words'",
    )
    Path("checkpoint-1").mkdir()
    refused(styledrop("convert", "checkpoint-1", "--style", "x"), 2, "is a folder", f"checkpoint-1/{WEIGHTS}")
    write(tiny.lora_tensors())
    refused(styledrop("convert", WEIGHTS), 2, "does not say what style it draws", "--style")
    refused(styledrop("convert", WEIGHTS, "--style", " . "), 2, "says nothing")
    refused(styledrop("convert", WEIGHTS, "--style", "x", "-o", "a.bin"), 2, "does not end in .safetensors")
    refused(styledrop("convert", WEIGHTS, "--style", "x", "-o", "checkpoint-1"), 2, "checkpoint-1 is a folder")
    to = ("--model", published)
    assert styledrop("convert", WEIGHTS, "--style", "x", *to).code == 0
    refused(styledrop("convert", WEIGHTS, "--style", "x", *to), 2, "is already there", "--overwrite")
    code, _, err = styledrop("convert", WEIGHTS, "--style", "x", "--overwrite", *to)
    assert (code, "Warning: " in err) == (0, True)
    for more in (("--style", "x"), ("--alpha", "2")):
        refused(styledrop("convert", "adapter.safetensors", *more, *to), 2, "leave --style and --alpha out")
    refused(styledrop("convert", "adapter.safetensors", "-o", "text.safetensors", *to), 2, "is a file")


def test_an_adapter_that_changes_nothing(shapes: Base) -> None:
    write(tiny.lora_tensors())
    brought(shapes)
    own = diffusers_lora.read_own(Path("ours.safetensors"))
    zeros = replace(own, tensors={name: torch.zeros_like(t) for name, t in own.tensors.items()})
    with pytest.raises(ModelError, match="all zeros"):
        diffusers_lora.take_out(zeros, shapes, Path("out.safetensors"))


# ---- beside diffusers and peft ----


@pytest.fixture(scope="module")
def upstream() -> Any:
    """diffusers, which finds peft."""
    pytest.importorskip("peft")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tiny.beside_torchvision("diffusers", "UVit2DModel")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"diffusers cannot be imported: {error}")


def their_network(upstream: Any) -> Any:
    """Upstream's transformer with the same weights."""
    names = {name: value for name, value in vars(tiny.PUBLISHED_TRANSFORMER).items() if name != "positions"}
    made = upstream.UVit2DModel(**names)
    made.load_state_dict(network().state_dict())
    return made.requires_grad_(False)


def their_logits(theirs: Any) -> Tensor:
    made: Tensor = theirs(*inputs()).permute(0, 2, 3, 1)
    return made


def trained(upstream: Any, rank: int = 4, alpha: int = 8, targets: tuple[str, ...] = ("to_q", "to_k", "to_v")) -> Any:
    """Upstream's transformer, adapted as the example does it, after two steps of its loop."""
    from peft import LoraConfig as TheirConfig

    theirs = their_network(upstream)
    torch.manual_seed(0)
    theirs.add_adapter(TheirConfig(r=rank, lora_alpha=alpha, target_modules=list(targets)))
    theirs.train()
    optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=3e-2)
    ids, *rest = inputs()
    labels = torch.randint(24, ids.shape, generator=tiny.generator(4)).where(ids == ids.max(), -100)
    for _ in range(2):
        torch.nn.functional.cross_entropy(theirs(ids, *rest), labels, ignore_index=-100).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return theirs.eval()


def alike(made: Tensor, wanted: Tensor, record: Any) -> None:
    difference = float((made - wanted).abs().max())
    record("max |difference| of the logits", difference)
    assert difference <= 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parity
@pytest.mark.parametrize("targets", [("to_q", "to_k", "to_v"), ("to_k", "to_out.0")])
@torch.no_grad()
def test_parity_of_what_the_example_writes(
    upstream: Any, shapes: Base, targets: tuple[str, ...], record_property: Any
) -> None:
    from diffusers.loaders import AmusedLoraLoaderMixin
    from peft.utils import get_peft_model_state_dict

    with torch.enable_grad():
        theirs = trained(upstream, targets=targets)
    AmusedLoraLoaderMixin.save_lora_weights(".", transformer_lora_layers=get_peft_model_state_dict(theirs))
    assert SAID not in read_tensors(WEIGHTS)[1]
    adapter, _ = brought(shapes, alpha=8)
    assert (their_logits(theirs) - logits(None)).abs().max() > 0.1
    alike(logits(adapter), their_logits(theirs), record_property)
    # Without --alpha it is what upstream itself makes of its file: half of it.
    again = their_network(upstream)
    again.load_lora_adapter(".", weight_name=diffusers_lora.WEIGHTS, prefix="transformer")
    adapter, said = brought(shapes)
    assert "does not say its alpha" in said[0]
    alike(logits(adapter), their_logits(again), record_property)


@pytest.mark.parity
@torch.no_grad()
def test_parity_of_files_that_say_alpha(upstream: Any, shapes: Base, record_property: Any) -> None:
    import peft

    with torch.enable_grad():
        theirs = trained(upstream)
    theirs.save_lora_adapter(".")
    adapter, said = brought(shapes)
    assert not [line for line in said if "alpha" in line]
    alike(logits(adapter), their_logits(theirs), record_property)

    wrapped = peft.PeftModel(
        their_network(upstream), peft.LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_k", "to_v"])
    )
    halves = peft.get_peft_model_state_dict(theirs)
    peft.set_peft_model_state_dict(wrapped, {f"base_model.model.{name}": t for name, t in halves.items()})
    wrapped.save_pretrained(".")
    path = Path("adapter_model.safetensors")
    assert all(name.startswith("base_model.model.") for name in read_tensors(path)[0])
    alike(logits(brought(shapes, path)[0]), their_logits(theirs), record_property)


@pytest.mark.parity
@pytest.mark.parametrize("targets", [("to_q", "to_k", "to_v"), ("to_k", "to_out")])
@pytest.mark.parametrize("said", [True, False], ids=["said", "not said"])
@torch.no_grad()
def test_parity_of_what_is_taken_out(
    upstream: Any, shapes: Base, targets: tuple[str, ...], said: bool, record_property: Any
) -> None:
    config = LoraConfig(4, 7.0, targets)
    adapter = LoraAdapter(config, network())
    tiny.randomise(adapter, 1)
    tensors, metadata = diffusers_lora.lora_of(adapter.requires_grad_(False))
    write(tensors, metadata if said else {})
    theirs = their_network(upstream)
    theirs.load_lora_adapter(".", weight_name=diffusers_lora.WEIGHTS, prefix="transformer")
    assert (their_logits(theirs) - logits(None)).abs().max() > 0.1
    alike(their_logits(theirs), logits(adapter), record_property)
    write(tensors, metadata)
    again, _ = brought(shapes)
    assert replace(again.config, alpha=7.0) == config
    alike(logits(again), logits(adapter), record_property)
