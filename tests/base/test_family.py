"""Meissonic's relatives: transformers alone, parts from other repositories, a choice of text encoder; bad folders."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny
from amused_folder import clip_to_published
from conftest import Run
from styledrop_cli.adapters.header import read_header
from styledrop_cli.base import download, hub, registry
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.cache import name_of, storage_of
from styledrop_cli.base.published import NETWORKS, open_published
from styledrop_cli.base.registry import MEISSONIC, OWN_TEXT, PUBLISHED, lone_family
from styledrop_cli.errors import ModelError
from styledrop_cli.models.clip import Clip
from styledrop_cli.models.meissonic import MeissonicCondition, MeissonicConfig, MeissonicTransformer
from styledrop_cli.training.adapter import train_adapter

WEIGHTS = "diffusion_pytorch_model.safetensors"
COMMIT = "a" * 40
LAION = registry.ENCODERS["laion"]
CLIP, CODES = tiny.PUBLISHED_CLIP, tiny.PUBLISHED_TOKENIZER.num_vq_embeddings
SIZES: dict[str, Any] = {
    "codebook_size": CODES,
    "vocab_size": CODES + 8,
    "num_layers": 2,
    "num_single_layers": 4,
    "attention_head_dim": 8,
    "num_attention_heads": CLIP.embed_dim // 8,
    "joint_attention_dim": CLIP.text_width,
    "pooled_projection_dim": CLIP.embed_dim,
    "axes_dims_rope": [2, 2, 4],
    "downsample": True,
    "upsample": True,
}
MASK = SIZES["vocab_size"] - 1
PARTS = ("vqvae", "text_encoder", "tokenizer", "scheduler")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def edit(path: Path, **changes: Any) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()  # mapped files are never written over
    save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, path)


def write_transformer(place: Path, kind: str = "Transformer2DModel", seed: int = 0, **extra: Any) -> Path:
    """A transformer alone, of random weights, as it is published: no size of the grid in its description."""
    own = {"in_channels": 64, "patch_size": 1, "guidance_embeds": False, "_name_or_path": "../meissonic"}
    write_json(place / "config.json", {"_class_name": kind, "_diffusers_version": "0.30.2"} | own | SIZES | extra)
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in SIZES.items()}
    network = MeissonicTransformer(MeissonicConfig(**sizes))
    tiny.randomise(network, seed)
    save_file(network.state_dict(), place / WEIGHTS)
    return place


def write_muddit(folder: Path, sides: tuple[str, ...] = ("512", "1024")) -> Path:
    for side in sides:
        place = write_transformer(
            folder / side / "transformer", "SymmetricTransformer2DModel", tokenizer_vocab_size=49408, t5_dim=None
        )
        rewrite(place / WEIGHTS, lambda tensors: tensors | {"text_decoder.1.weight": torch.ones(4, 8)})
    return folder


def write_meissonic(folder: Path) -> Path:
    tiny.write_published(folder)
    shutil.rmtree(folder / "transformer")
    write_transformer(folder / "transformer", sample_size=8)
    about = {"_class_name": "Scheduler", "mask_token_id": MASK, "masking_schedule": "cosine"}
    write_json(folder / "scheduler" / "scheduler_config.json", about)
    classes = {part: list(names) for part, names in MEISSONIC.classes.items()}
    write_json(folder / "model_index.json", {"_class_name": "Pipeline", "_diffusers_version": "0.30.2"} | classes)
    return folder


def write_laion(folder: Path, **changed: Any) -> Path:
    """A whole CLIP as laion's is published: sizes of its towers inside, tensors of both."""
    network = Clip(CLIP)
    tiny.randomise(network, seed=5)
    vision = {"vision_model.post_layernorm.weight": torch.ones(8), "visual_projection.weight": torch.ones(8, 8)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in clip_to_published(network).items()}
        | vision
        | {"logit_scale": torch.tensor(4.6)},
        folder / "model.safetensors",
    )
    text = {
        "hidden_act": "quick_gelu", "hidden_size": CLIP.text_width, "intermediate_size": 4 * CLIP.text_width,
        "num_attention_heads": CLIP.text_heads, "num_hidden_layers": CLIP.text_layers, "vocab_size": CLIP.vocab_size,
        "max_position_embeddings": CLIP.context_length, "_name_or_path": "", "bos_token_id": 0,
    }  # fmt: skip
    write_json(
        folder / "config.json", {"model_type": "clip", "projection_dim": CLIP.embed_dim, "text_config": text} | changed
    )
    return folder


def snapshot(repo: str, commit: str = COMMIT) -> Path:
    """Where the cache keeps a repository."""
    folder = storage_of(repo) / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's cache is a folder of the test, and there is no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture
def lender(cache: Path) -> Path:
    """Meissonic and laion's text encoder in the cache."""
    write_laion(snapshot(LAION))
    return write_meissonic(snapshot("MeissonFlow/Meissonic"))


def load(model: str | Path) -> Base:
    return load_base(str(model), tiny.CPU)


# ---- where parts come from ----


@pytest.mark.parametrize(("name", "side"), [("muddit-512", 32), ("muddit-1024", 64)])
def test_muddit(lender: Path, name: str, side: int) -> None:
    write_muddit(snapshot("MeissonFlow/Muddit"))
    base = load(name)
    assert (base.name, base.spec, base.grid) == (name, PUBLISHED[name], side)
    assert base.folder == hub.find(name) == snapshot("MeissonFlow/Muddit") / name.partition("-")[2]
    assert base.text_encoder == OWN_TEXT and base.sampling().steps == 64
    assert base.transformer.config.downsample
    own = load("meissonic+bundled")
    assert torch.equal(base.text.encode(["a cat"])[0], own.text.encode(["a cat"])[0])


def test_muddit_is_told_the_share_of_steps_that_is_left(lender: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_muddit(snapshot("MeissonFlow/Muddit"), ("512",))
    told: list[float] = []
    at = MeissonicCondition.at

    def noted(self: MeissonicCondition, left: Any) -> MeissonicCondition:
        told.append(float(left))
        return at(self, left)

    monkeypatch.setattr(MeissonicCondition, "at", noted)
    base = load("muddit-512")
    ids = base.sample(["a cat"], [1], base.sampling(steps=4))
    assert list(dict.fromkeys(told)) == [0.75, 0.5, 0.25, 0.0]  # by each branch of a step
    assert ids.shape == (1, 32, 32)


def test_muddit_is_trained_as_it_is_told_while_drawing(
    lender: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_muddit(snapshot("MeissonFlow/Muddit"), ("512",))
    told: list[Tensor] = []
    at = MeissonicCondition.at

    def noted(self: MeissonicCondition, left: Any) -> MeissonicCondition:
        told.append(torch.as_tensor(left))
        return at(self, left)

    monkeypatch.setattr(MeissonicCondition, "at", noted)
    base = load("muddit-512")
    settings = base.training("lora", steps=3, views=2, width=1)
    output = Path("muddit.safetensors")
    train_adapter(base, pictures=[picture], style="ink", contents=["a cat"], settings=settings, output=output)
    values = torch.cat(told)
    assert len(values) == 3 and bool(((values >= 0) & (values < 1)).all())
    assert torch.equal((values * 64).round() / 64, values)  # the shares that 64 steps have


def test_a_tensor_of_muddits_captions_is_skipped_and_no_other(lender: Path) -> None:
    folder = write_muddit(snapshot("MeissonFlow/Muddit"), ("512",)) / "512"
    load(folder).transformer  # noqa: B018
    rewrite(folder / "transformer" / WEIGHTS, lambda tensors: tensors | {"text_decoder.2.weight": torch.ones(4)})
    with pytest.raises(ModelError, match=r"text_decoder\.2\.weight is not known"):
        load(folder).transformer  # noqa: B018
    write_transformer(folder / "transformer", "SymmetricTransformer2DModel", tokenizer_vocab_size=9, t5_dim=4096)
    with pytest.raises(ModelError, match="t5_dim is 4096"):
        load(folder)
    place = write_transformer(lender / "transformer", sample_size=8)
    rewrite(place / WEIGHTS, lambda tensors: tensors | {"text_decoder.1.weight": torch.ones(4)})
    with pytest.raises(ModelError, match=r"text_decoder\.1\.weight is not known"):  # it is Muddit's alone
        load(lender).transformer  # noqa: B018


def test_parts_of_muddits_own_go_before_those_of_meissonic(lender: Path) -> None:
    folder = write_muddit(snapshot("MeissonFlow/Muddit"), ("512",))
    shutil.copytree(lender / "scheduler", folder / "scheduler")
    edit(folder / "scheduler" / "scheduler_config.json", masking_schedule="linear")
    assert load("muddit-512").schedule == "linear"


@pytest.mark.parametrize("name", ["maskfocus-geneval", "maskfocus-hps"])
def test_a_transformer_at_the_root_of_its_repository(lender: Path, name: str) -> None:
    row = PUBLISHED[name]
    write_transformer(snapshot(row.repository), seed=3)
    base = load(name)
    assert (base.name, base.spec, base.text_encoder, base.grid) == (name, row, "laion", 64)
    assert base.sampling().lambda_b == 4.0 and base.training().lambda_b == 4.0
    assert base.hash != load(lender).hash
    assert load(row.repository).hash == base.hash


def test_a_folder_of_one_s_own_with_a_transformer_alone(lender: Path, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "mine", sample_size=8)
    base = load(folder)
    assert (base.name, base.text_encoder, base.sizes) == ("mine", "laion", (16,))
    assert load(f"{folder}+bundled").text_encoder == OWN_TEXT
    assert base.pictures(base.sample(["a cat"], [1], base.sampling(steps=2)), 16).shape == (1, 3, 16, 16)
    shutil.copytree(lender / "vqvae", folder / "vqvae")  # and a part of its own goes before Meissonic's
    shutil.rmtree(lender / "vqvae")
    assert load(folder).tokenizer.config == tiny.PUBLISHED_TOKENIZER


def test_what_a_folder_of_one_s_own_lacks_is_named(cache: Path, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "mine", sample_size=8)
    assert hub.find(str(folder)) is None
    with pytest.raises(
        ModelError, match="has the scheduler of MeissonFlow/Meissonic, which is not.*in the cache"
    ) as said:
        open_published(folder)
    assert f"styledrop models fetch {folder}" in str(said.value.hint)
    with pytest.raises(Exception, match="MeissonFlow/Meissonic is not, or not wholly, in the cache"):
        load(folder)


def test_what_is_lent_must_be_whole(lender: Path) -> None:
    write_transformer(snapshot("zghhui/Meissonic_MaskFocus_HPS"))
    assert hub.find("maskfocus-hps")
    held = (lender / "vqvae" / WEIGHTS).rename(lender / "weights")
    assert hub.find("maskfocus-hps") is None
    held.rename(lender / "vqvae" / WEIGHTS)
    (snapshot(LAION) / "model.safetensors").unlink()
    assert hub.find("maskfocus-hps") is None and hub.find("maskfocus-hps+bundled")


# ---- the text encoder ----


def test_the_text_encoder_that_is_named_is_read_with(lender: Path, tmp_path: Path) -> None:
    own, laions = load("meissonic+bundled"), load("meissonic")
    assert (own.text_encoder, laions.text_encoder) == ("bundled", "laion")
    assert own.identity == laions.identity | {"text_encoder": "bundled"}
    one, other = (base.text.encode(["a cat"]) for base in (own, laions))
    assert not torch.equal(one[0], other[0])
    wanted = Clip(CLIP)
    tiny.randomise(wanted, seed=5)
    assert torch.equal(laions.clip.text_projection, wanted.text_projection)
    assert load(shutil.copytree(lender, tmp_path / "copy")).text_encoder == OWN_TEXT  # a folder as it is
    assert load(f"{tmp_path / 'copy'}+laion").text_encoder == "laion"


def test_older_and_spare_descriptions_of_a_clip(lender: Path) -> None:
    place = snapshot(LAION)
    said = json.loads((place / "config.json").read_text())
    write_laion(place, text_config={"hidden_act": "gelu"}, text_config_dict=said["text_config"])
    assert load("meissonic").clip.config == replace(CLIP, quick_gelu=True)
    write_laion(place, text_config=said["text_config"] | {"hidden_size": 2 * CLIP.text_width})
    with pytest.raises(ModelError):
        load("meissonic")


def test_a_text_encoder_that_is_none(lender: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="meissonic has no text encoder called t5") as said:
        load("meissonic+t5")
    assert "say +bundled or +laion" in str(said.value.hint)
    for model in ("pocket+laion", f"{tiny.write_published(tmp_path / 'amused')}+laion"):
        with pytest.raises(ModelError, match="has no text encoder called laion"):
            load(model)
    folder = Path("a+laion")
    assert load(write_meissonic(folder)).name == "a+laion"  # what exists goes by its name


def test_an_adapter_is_drawn_with_the_text_encoder_of_its_training(lender: Path, picture: Path, styledrop: Run) -> None:
    short = ("--style", "ink", "--content", "a cat", "--steps", "1", "--width", "1")
    for model, output in (("meissonic", "laions.safetensors"), ("meissonic+bundled", "own.safetensors")):
        trained = styledrop("train", picture, *short, "--model", model, "-o", output)
        assert trained.code == 0, trained.err
    encoders = {name: read_header(Path(f"{name}.safetensors")).base["text_encoder"] for name in ("laions", "own")}
    assert encoders == {"laions": "laion", "own": "bundled"}
    assert re.search(r"text_encoder +bundled", styledrop("inspect", "own.safetensors").out)
    draw = ("generate", "own.safetensors", "a dog", "--steps", "1", "-o", "out", "--json")
    for more in ((), ("--model", "meissonic"), ("--model", str(lender))):
        drawn = styledrop(*draw, *more)
        assert drawn.code == 0, drawn.err
        assert json.loads(drawn.out)["settings"]["text_encoder"] == "bundled"
    refused = styledrop(*draw, "--model", "meissonic+laion")
    assert refused.code == 1
    assert "(meissonic with the text encoder bundled) than this one (meissonic with laion)" in refused.err
    assert "+bundled" in refused.err
    merged = styledrop("merge", "own.safetensors", "laions.safetensors", "-o", "merged.safetensors")
    assert merged.code == 1 and "another base" in merged.err


# ---- number types, shards, bad files ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_either_kind(lender: Path, dtype: torch.dtype) -> None:
    exact = load(lender)
    ids = exact.sample(["a cat"], [1], exact.sampling(steps=2))
    assert exact.parts.known["transformer"].mapped
    for part, name in (("transformer", WEIGHTS), ("vqvae", WEIGHTS), ("text_encoder", "model.safetensors")):
        rewrite(lender / part / name, lambda tensors: {n: t.to(dtype) for n, t in tensors.items()})
    small = load(lender)
    assert {tensor.dtype for tensor in small.transformer.state_dict().values()} == {torch.float32}
    assert not small.parts.known["transformer"].mapped  # it was converted, and is kept
    assert small.sample(["a cat"], [1], small.sampling(steps=2)).shape == ids.shape


def test_shards_at_the_root(lender: Path, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "mine", sample_size=8)
    before = load(folder).hash
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    (folder / WEIGHTS).unlink()
    names, held = sorted(tensors), {}
    for number in (1, 2):
        file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        part = names[number - 1 :: 2]
        save_file({name: tensors[name] for name in part}, folder / file)
        held |= dict.fromkeys(part, file)
    write_json(folder / f"{WEIGHTS}.index.json", {"weight_map": held})
    assert load(folder).hash == before
    (folder / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="1 of 2 shards are missing"):
        load(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-64])


def narrower_text(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    write_laion(folder / "text_encoder", text_config={"hidden_act": "gelu", "hidden_size": 8, "intermediate_size": 32})


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a download that was cut": (lambda f: cut(f / "transformer" / WEIGHTS), "is not a whole safetensors file"),
    "weights that have not come": (lambda f: (f / "vqvae" / WEIGHTS).unlink(), "holds no weights"),
    "an index that names a part which is not there": (
        lambda f: shutil.rmtree(f / "vqvae"),
        r"vqvae/config\.json is missing",
    ),
    "EditMGT": (
        lambda f: edit(f / "model_index.json", llm_encoder=["transformers", "Gemma2ForCausalLM"]),
        r"has a part beside those of Pipeline: llm_encoder \(transformers\.Gemma2ForCausalLM\); it is another network",
    ),
    "a transformer of another class": (
        lambda f: edit(f / "model_index.json", transformer=["transformer", "FluxTransformer2DModel"]),
        "the transformer of .* is transformer.FluxTransformer2DModel, and Transformer2DModel is wanted",
    ),
    "a setting of another network": (
        lambda f: edit(f / "transformer" / "config.json", llm_dim=2304),
        "unknown settings: llm_dim",
    ),
    "tensors of another network": (
        lambda f: rewrite(f / "transformer" / WEIGHTS, lambda t: t | {"llm_embedder.weight": torch.ones(4)}),
        r"llm_embedder\.weight is not known",
    ),
    "a scheduler of another base": (
        lambda f: edit(f / "scheduler" / "scheduler_config.json", mask_token_id=2025),
        f"masks by 2025, cosine; {MASK} and",
    ),
    "an image tokenizer of another base": (
        lambda f: edit(f / "vqvae" / "config.json", num_vq_embeddings=CODES - 8),
        "do not fit: it is not so that the transformer's ids are the tokenizer's",
    ),
    "a text encoder of another base": (narrower_text, "it is not so that the transformer's text is its CLIP's"),
    "a vocabulary of another base": (
        lambda f: edit(f / "tokenizer" / "vocab.json", zebra=1),
        "does not go with its merges",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_folder_is_refused_before_any_work(lender: Path, tmp_path: Path, styledrop: Run, what: str) -> None:
    spoil, words = BAD[what]
    folder = shutil.copytree(lender, tmp_path / "bad")
    spoil(folder)
    refused = styledrop("generate", "--base-only", "a cat", "--model", folder, "--steps", "1", "-o", "out")
    assert refused.code == 1
    assert re.search(words, " ".join(refused.err.split())), refused.err
    assert "Traceback" not in refused.err and not list(Path().glob("out/*.png"))
    checked = styledrop("models", "check", folder)
    assert checked.code == 1
    assert re.search(words, " ".join((checked.out + checked.err).split()))


def test_a_transformer_of_another_kind_alone(tmp_path: Path) -> None:
    write_json(
        tmp_path / "flux" / "config.json", {"_class_name": "FluxTransformer2DModel", "axes_dims_rope": [16, 56, 56]}
    )
    with pytest.raises(ModelError, match=r"flux/config\.json describes a FluxTransformer2DModel"):
        load(tmp_path / "flux")
    write_json(
        tmp_path / "pixart" / "transformer" / "config.json", {"_class_name": "Transformer2DModel", "num_layers": 28}
    )
    with pytest.raises(
        ModelError, match="describes a Transformer2DModel, which is no transformer that can be run here"
    ):
        load(tmp_path / "pixart")


# What the hub's files say of sizes.
SAID: dict[str, Any] = {
    "_diffusers_version": "0.30.2", "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56], "codebook_size": 8192,
    "guidance_embeds": False, "in_channels": 64, "joint_attention_dim": 1024, "num_attention_heads": 8,
    "num_layers": 14, "num_single_layers": 28, "patch_size": 1, "pooled_projection_dim": 1024, "vocab_size": 8256,
}  # fmt: skip
LARGE_TEXT = {
    "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "max_position_embeddings": 77, "vocab_size": 49408, "layer_norm_eps": 1e-5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "folds"),
    [
        ("meissonic", "Transformer2DModel", True),
        ("monetico", "Transformer2DModel", False),
        ("muddit-512", "SymmetricTransformer2DModel", True),
        ("muddit-1024", "SymmetricTransformer2DModel", True),
    ],
)
def test_published_descriptions(tmp_path: Path, name: str, kind: str, folds: bool) -> None:
    row = PUBLISHED[name]
    more = {"tokenizer_vocab_size": 49408, "t5_dim": None} if row.folder else {}
    place = tmp_path / row.folder / "transformer"
    write_json(place / "config.json", SAID | {"_class_name": kind, "downsample": folds, "upsample": folds} | more)
    assert lone_family(json.loads((place / "config.json").read_text())) is not None
    found = asdict(NETWORKS[kind].config(place))
    sizes = {key: value for key, value in found.items() if value != getattr(MeissonicConfig(), key)}
    assert (sizes, registry.row_of(row, sizes)) == (row.sizes, row)


def test_published_text_encoders_are_of_one_size(tmp_path: Path) -> None:
    write_json(tmp_path / "own" / "config.json", LARGE_TEXT | {"projection_dim": 1024, "eos_token_id": 2})
    whole = {"architectures": ["CLIPModel"], "projection_dim": 1024, "text_config": LARGE_TEXT, "vision_config": {}}
    write_json(tmp_path / "laion" / "config.json", whole)
    own = NETWORKS["CLIPTextModelWithProjection"].config(tmp_path / "own")
    assert own == NETWORKS["CLIPModel"].config(tmp_path / "laion")
    assert (own.text_width, own.embed_dim, own.quick_gelu) == (1024, 1024, False)


def test_names_of_a_repository_s_folders(tmp_path: Path) -> None:
    place = tmp_path / "models--MeissonFlow--Muddit" / "snapshots" / COMMIT
    assert name_of(place / "512") == "muddit-512"
    assert name_of(tmp_path / "models--me--mine" / "snapshots" / COMMIT / "512") == "me/mine"


# ---- commands ----


def test_list_says_what_comes_from_where(lender: Path, styledrop: Run) -> None:
    write_muddit(snapshot("MeissonFlow/Muddit"))
    listed = styledrop("models", "list", "--json")
    rows = {row["name"]: row for row in json.loads(listed.out)["models"]}
    assert set(rows) == {"pocket", *PUBLISHED, LAION}
    muddit = rows["muddit-512"]
    assert muddit["state"] == "fetched" and muddit["beside"] == dict.fromkeys(PARTS, "MeissonFlow/Meissonic")
    assert (muddit["text_encoder"], rows["meissonic"]["text_encoder"]) == ("bundled", "laion")
    assert rows["meissonic"]["beside"] == {"text_encoder": LAION}
    assert muddit["size"] < rows["meissonic"]["size"] and rows[LAION]["size"] > 10_000
    assert rows["maskfocus-hps"]["state"] == "not fetched"
    said = " ".join(styledrop("models", "list").err.split())
    assert f"meissonic also needs the text_encoder of {LAION}; it reads with the text encoder 'laion'" in said


def test_check_reads_what_comes_from_elsewhere(lender: Path, styledrop: Run) -> None:
    write_transformer(snapshot("zghhui/Meissonic_MaskFocus_HPS"))
    sound = styledrop("models", "check", "maskfocus-hps", "--json")
    assert sound.code == 0, sound.err
    about = json.loads(sound.out)
    assert about["text_encoder"] == "laion" and about["beside"]["vqvae"] == "MeissonFlow/Meissonic"
    rewrite(lender / "vqvae" / WEIGHTS, lambda t: t | {"decoder.conv_in.bias": t["decoder.conv_in.bias"] * torch.nan})
    broken = styledrop("models", "check", "maskfocus-hps")
    assert broken.code == 1 and "decoder.conv_in.bias holds a value that is not finite" in broken.out


def test_one_of_two_models_of_a_repository_is_removed(lender: Path, styledrop: Run) -> None:
    write_muddit(snapshot("MeissonFlow/Muddit"))
    assert styledrop("models", "remove", "muddit-512", "--yes").code == 0
    assert hub.find("muddit-512") is None and hub.find("muddit-1024")
    assert styledrop("models", "remove", LAION, "--yes").code == 0
    assert hub.find("meissonic") is None and hub.find("meissonic+bundled")
    with pytest.raises(ModelError, match="MeissonFlow/Muddit holds several models") as said:
        hub.find("MeissonFlow/Muddit")
    assert "--model muddit-512 or muddit-1024" in str(said.value.hint)


def test_a_folder_of_editmgt(lender: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(lender, tmp_path / "editor")
    write_json(folder / "llm_encoder" / "config.json", {"model_type": "gemma2"})
    with pytest.raises(ModelError, match="editor is EditMGT, which edits pictures .* cannot be run here"):
        load(folder)


@pytest.mark.parametrize(("repo", "what"), [("WeiChow/EditMGT", "Gemma 2"), ("Yuanzhi/DiMO", "in one step")])
def test_relatives_that_draw_otherwise(repo: str, what: str) -> None:
    with pytest.raises(ModelError, match=f"{repo} is .*{what}.*: it cannot be run here"):
        download.locate(repo)
