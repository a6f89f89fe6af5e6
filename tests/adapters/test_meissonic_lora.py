"""LoRAs of Meissonic from peft and upstream's training script, and back: the same logits on either side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import tiny
from conftest import Run
from meissonic_upstream import UpstreamTransformer
from styledrop_cli.adapters import diffusers_lora
from styledrop_cli.adapters.file import open_adapter
from styledrop_cli.adapters.header import load_adapter, read_header
from styledrop_cli.base.base import Base
from styledrop_cli.base.registry import AMUSED, MEISSONIC
from styledrop_cli.cli import load
from styledrop_cli.errors import ModelError
from styledrop_cli.io.tensors import read_tensors
from styledrop_cli.models.adapter import LoraAdapter, LoraConfig
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.meissonic import MeissonicTransformer

WEIGHTS = Path(diffusers_lora.WEIGHTS)
CONFIG = tiny.PUBLISHED_MEISSONIC
PROJECTIONS = ("to_q", "to_k", "to_v")  # upstream's script adapts these
LEFT = 3


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_meissonic(tmp_path_factory.mktemp("models") / "published")


@pytest.fixture(scope="module")
def shapes(published: Path) -> Base:
    return diffusers_lora.published_base(str(published))


def network() -> MeissonicTransformer:
    made = MeissonicTransformer(CONFIG)
    tiny.randomise(made)
    return made.requires_grad_(False).eval()


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, text, its summary and sizes, as both sides take them."""
    draws = tiny.generator(3)
    ids = torch.randint(CONFIG.vocab_size, (2, 8, 8), generator=draws)
    words = torch.randn(2, 7, CONFIG.joint_attention_dim, generator=draws)
    summary = torch.randn(2, CONFIG.pooled_projection_dim, generator=draws)
    return ids, words, summary, torch.tensor([[16.0, 16, 0, 0, 6]]).expand(2, -1)


def logits(adapter: AdapterFn | None, its: MeissonicTransformer | None = None) -> Tensor:
    its = its or network()
    ids, *said = inputs()
    return its(ids, its.condition(*said).at(LEFT), adapter)


def merged(tensors: dict[str, Tensor], scale: float) -> MeissonicTransformer:
    """The network with ``scale B A`` added to the weights themselves: the truth about a LoRA."""
    made = network()
    for name, a in tensors.items():
        if "lora_A" in name:
            module = made.get_submodule(name.removesuffix(".lora_A.weight"))
            module.weight += scale * tensors[name.replace("lora_A", "lora_B")] @ a  # type: ignore[operator]
    return made


def lora(rank: int = 2, targets: tuple[str, ...] = PROJECTIONS) -> dict[str, Tensor]:
    """Halves by the names of modules alone."""
    return tiny.lora_tensors(rank, targets, network(), prefix="")


def write(tensors: dict[str, Tensor], prefix: str = "", metadata: dict[str, str] | None = None) -> Path:
    named = {f"{prefix}{name}": t.contiguous() for name, t in tensors.items()}
    save_file(named, WEIGHTS, {"format": "pt"} | (metadata or {}))
    return WEIGHTS


def brought(shapes: Base, path: Path = WEIGHTS, alpha: float | None = None) -> tuple[LoraAdapter, list[str]]:
    """The adapter that a file becomes, read back from ours, and what was said of it."""
    said: list[str] = []
    out = Path("ours.safetensors")
    whole = diffusers_lora.read_lora(path, shapes.spec)
    diffusers_lora.bring_in(whole, shapes, style="[V] style", alpha=alpha, output=out, on_message=said.append)
    adapter = open_adapter(shapes, load_adapter(out)).base
    assert isinstance(adapter, LoraAdapter)
    return adapter, said


@pytest.mark.parametrize("targets", [PROJECTIONS, ("to_v", "to_out.0")])
@pytest.mark.parametrize("prefix", ["unet.", "unet._orig_mod.", "transformer.", "base_model.model."])
def test_brought_in_it_is_what_was_trained(shapes: Base, targets: tuple[str, ...], prefix: str) -> None:
    """Upstream's script writes ``unet.``, and ``_orig_mod.`` where it compiled the network."""
    tensors = lora(2, targets)
    write(tensors, prefix)
    adapter, said = brought(shapes, alpha=32)
    assert not [line for line in said if "its alpha" in line]
    assert adapter.config == LoraConfig(2, 32.0, tuple(t.removesuffix(".0") for t in targets))
    blocks = CONFIG.num_layers + CONFIG.num_single_layers
    assert len(adapter.a) == (3 * blocks if targets == PROJECTIONS else blocks + CONFIG.num_layers)
    assert (logits(adapter) - logits(None)).abs().max() > 0.1
    torch.testing.assert_close(logits(adapter), logits(None, merged(tensors, 16)), atol=1e-4, rtol=1e-4)


def test_kohyas_names(shapes: Base) -> None:
    tensors = lora(2, ("to_k", "to_out.0"))
    ends = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}
    named = {}
    for name, tensor in tensors.items():
        module, half = name.split(".lora_")
        named[f"lora_unet_{module.replace('.', '_')}.{ends[half]}"] = tensor
    write(named)
    torch.testing.assert_close(logits(brought(shapes)[0]), logits(None, merged(tensors, 1)), atol=1e-5, rtol=1e-5)


def test_there_and_back_is_the_same_file_to_the_bit(shapes: Base) -> None:
    tensors = {f"transformer.{name}": t for name, t in lora(2, (*PROJECTIONS, "to_out.0")).items()}
    write(tensors)
    back, _ = diffusers_lora.lora_of(brought(shapes)[0])
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_alpha_that_is_not_said(shapes: Base) -> None:
    write(lora())
    assert "Meissonic take 32 unless told otherwise (--alpha 32: 16 times" in brought(shapes)[1][0]


@pytest.mark.parametrize(
    "module",
    [
        "transformer_blocks.0.attn.add_q_proj",
        "transformer_blocks.1.attn.to_add_out",
        "transformer_blocks.0.ff.net.2",
        "transformer_blocks.0.norm1.linear",
        "single_transformer_blocks.0.proj_mlp",
        "single_transformer_blocks.3.proj_out",
    ],
)
def test_what_is_not_adapted_here_is_refused(shapes: Base, module: str) -> None:
    made = network().get_submodule(module)
    assert isinstance(made, torch.nn.Linear)
    halves = {"A": torch.ones(2, made.in_features), "B": torch.ones(made.out_features, 2)}
    write(lora() | {f"{module}.lora_{half}.weight": tensor for half, tensor in halves.items()})
    with pytest.raises(ModelError, match=f"{module} is no projection of an attention that is adapted here") as error:
        brought(shapes)
    assert "--lora_target_modules to_q to_k to_v" in str(error.value.hint)
    assert not Path("ours.safetensors").exists()


def test_one_stream_has_no_way_out(shapes: Base) -> None:
    name = "single_transformer_blocks.0.attn.to_out.0.lora_"
    write(lora() | {f"{name}A.weight": torch.ones(2, 16), f"{name}B.weight": torch.ones(16, 2)})
    with pytest.raises(ModelError, match=r"the base has no single_transformer_blocks\.0\.attn\.to_out\.0"):
        brought(shapes)


def test_a_lora_of_flux_has_the_same_names_and_other_shapes(shapes: Base) -> None:
    write({name: torch.ones(2, 48) if "lora_A" in name else torch.ones(48, 2) for name in lora()})
    with pytest.raises(ModelError, match="goes from 48 to 48, and the base's from 16 to 16"):
        brought(shapes)


def test_loras_of_the_one_family_are_told_from_the_others() -> None:
    write(tiny.lora_tensors())
    with pytest.raises(ModelError, match="is a LoRA of aMUSEd: none of its 30 layers is in this base"):
        diffusers_lora.read_lora(WEIGHTS, MEISSONIC)
    write(lora())
    with pytest.raises(ModelError, match="or one like it such as Meissonic's: none of its 18 layers") as error:
        diffusers_lora.read_lora(WEIGHTS, AMUSED)
    assert "--model" in str(error.value.hint)
    for metadata in (
        {"lora_adapter_metadata": json.dumps({"auto_mapping": {"base_model_class": "UVit2DModel"}})},
        {"ss_base_model_version": "flux1"},
    ):
        write(lora(), metadata=metadata)
        with pytest.raises(ModelError, match=r"trained on (a UVit2DModel, and Meissonic's|flux1)"):
            diffusers_lora.read_lora(WEIGHTS, MEISSONIC)


# ---- the command ----


def test_there_and_back_by_command(styledrop: Run, published: Path) -> None:
    tensors = lora()
    write(tensors, "unet.")
    to = ("--model", published)
    code, out, err = styledrop("convert", WEIGHTS, "--style", "[V] style", "--alpha", "4", *to)
    assert (code, out) == (0, "adapter.safetensors\n"), err
    assert read_header(Path(out.strip())).recommended == {"lambda_a": 0.0, "lambda_b": 8.0}
    code, out, err = styledrop("convert", "adapter.safetensors", *to)
    assert code == 0, err
    assert "set guidance_scale to 9" in err
    back = read_tensors(Path(out.strip()))[0]
    name = "single_transformer_blocks.1.attn.to_v.lora_"
    assert torch.equal(back[f"transformer.{name}A.weight"], tensors[f"{name}A.weight"])
    assert torch.equal(back[f"transformer.{name}B.weight"], 2 * tensors[f"{name}B.weight"])
    code, out, err = styledrop("convert", "adapter.safetensors", "-o", "again")  # a folder chooses no base by itself
    assert code == 2 and "was trained on published, which is a base of your own" in err and "--model" in err
    code, _, err = styledrop("generate", "adapter.safetensors", "a cat", "--steps", "2", "--quiet", *to)
    assert code == 0, err


def test_what_cannot_fit_is_refused_before_anything_is_fetched(styledrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "located", lambda *given: pytest.fail("nothing is fetched for this"))
    write(lora())
    for more in ((), ("--model", "amused-512")):
        code, _, err = styledrop("convert", WEIGHTS, "--style", "x", *more)
        assert code == 1 and "such as Meissonic's" in err
    write(tiny.lora_tensors())
    code, _, err = styledrop("convert", WEIGHTS, "--style", "x", "--model", "meissonic")
    assert code == 1 and "is a LoRA of aMUSEd" in err


# ---- beside diffusers and peft ----


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Makes upstream's network of diffusers' parts, as its class is derived, with the same weights."""
    pytest.importorskip("peft")
    diffusers = tiny.stock_parts("ModelMixin", "VQModel")
    mixin = tiny.beside_torchvision("diffusers.loaders", "PeftAdapterMixin").PeftAdapterMixin

    class Theirs(UpstreamTransformer, diffusers.ModelMixin, mixin):  # type: ignore[misc,valid-type,name-defined]
        pass

    def make() -> Any:
        made = Theirs(diffusers, CONFIG)
        made.load_state_dict(network().state_dict())
        return made.requires_grad_(False).eval()

    return make


def their_logits(made: Any) -> Tensor:
    out: Tensor = made(*inputs(), torch.tensor([LEFT]))
    return out


def trained(made: Any, rank: int = 4, alpha: int = 8, targets: tuple[str, ...] = PROJECTIONS) -> Any:
    """Adapted as upstream's script does it, after two steps."""
    from peft import LoraConfig as TheirConfig

    torch.manual_seed(0)
    made.add_adapter(TheirConfig(r=rank, lora_alpha=alpha, target_modules=list(targets)))
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=3e-2)
    labels = torch.randint(CONFIG.codebook_size, inputs()[0].shape, generator=tiny.generator(4))
    for _ in range(2):
        torch.nn.functional.cross_entropy(their_logits(made).flatten(0, 2), labels.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return made.eval()


def alike(made: Tensor, wanted: Tensor, record: Any) -> None:
    difference = float((made - wanted).abs().max())
    record("max |difference| of the logits", difference)
    assert (wanted - logits(None)).abs().max() > 0.1
    assert difference <= 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parity
@pytest.mark.parametrize("targets", [PROJECTIONS, ("to_k", "to_out.0")])
def test_parity_of_what_peft_trains(theirs: Any, shapes: Base, targets: tuple[str, ...], record_property: Any) -> None:
    import peft

    made = trained(theirs(), targets=targets)
    with torch.no_grad():
        halves = peft.get_peft_model_state_dict(made)
        assert {name.split(".attn.")[1].split(".lora_")[0] for name in halves} == set(targets)
        write(halves, "unet.")  # as upstream's script names them, without alpha
        alike(logits(brought(shapes, alpha=8)[0]), their_logits(made), record_property)
        made.save_lora_adapter(".")  # as diffusers does, with it
        adapter, said = brought(shapes)
        assert not [line for line in said if "alpha" in line]
        alike(logits(adapter), their_logits(made), record_property)
        wrapped = peft.PeftModel(theirs(), peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(targets)))
        peft.set_peft_model_state_dict(wrapped, {f"base_model.model.{name}": t for name, t in halves.items()})
        wrapped.save_pretrained(".")
        said_of_base = Path("adapter_config.json")
        about = json.loads(said_of_base.read_text())
        about["auto_mapping"] = {"base_model_class": "Transformer2DModel", "parent_library": "src.transformer"}
        said_of_base.write_text(json.dumps(about))
        adapter, _ = brought(shapes, Path(diffusers_lora.OF_PEFT))
        alike(logits(adapter), their_logits(made), record_property)


@pytest.mark.parity
@pytest.mark.parametrize("targets", [PROJECTIONS, ("to_k", "to_out")])
@torch.no_grad()
def test_parity_of_what_is_taken_out(theirs: Any, targets: tuple[str, ...], record_property: Any) -> None:
    adapter = LoraAdapter(LoraConfig(4, 7.0, targets), network())
    tiny.randomise(adapter, 1)
    tensors, metadata = diffusers_lora.lora_of(adapter.requires_grad_(False))
    for about in (metadata, {}):  # strength is in the weights, whatever a loader makes of alpha
        write(tensors, metadata=about)
        made = theirs()
        made.load_lora_adapter(".", weight_name=diffusers_lora.WEIGHTS, prefix="transformer")
        alike(their_logits(made), logits(adapter), record_property)
