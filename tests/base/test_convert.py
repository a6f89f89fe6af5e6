"""Published folders: read strictly, mapped from the disk, drawn with and trained on; and what is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from amused_folder import save_published
from conftest import Run
from styledrop_cli import devices
from styledrop_cli.adapters.header import read_header
from styledrop_cli.base import acceptance, registry, sample
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.cache import name_of
from styledrop_cli.base.layout import files_of
from styledrop_cli.base.prompt_tokens import vocabulary_of
from styledrop_cli.base.published import open_published
from styledrop_cli.base.published_files import weight_files
from styledrop_cli.base.registry import AMUSED
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.images import load_picture
from styledrop_cli.judging import clip_scorer
from styledrop_cli.models.clip import Clip
from styledrop_cli.models.tokenizer import ImageTokenizer
from styledrop_cli.models.transformer import TransformerConfig
from styledrop_cli.settings import KINDS

WEIGHTS = "diffusion_pytorch_model"
SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_published(tmp_path / "amused")


@pytest.fixture
def base(folder: Path) -> Base:
    return load_base(str(folder), tiny.CPU)


def shard(place: Path, stem: str = WEIGHTS, precision: str = "") -> list[Path]:
    """Replace a part's weights by two shards and their index, as upstream names them."""
    whole = place / f"{stem}{precision}.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    halves = [names[::2], names[1::2]]
    files = [f"{stem}{precision}-{i + 1:05d}-of-00002.safetensors" for i in range(2)]
    for file, half in zip(files, halves, strict=True):
        save_file({name: tensors[name] for name in half}, place / file)
    held = {name: file for file, half in zip(files, halves, strict=True) for name in half}
    (place / f"{stem}.safetensors.index{precision}.json").write_text(json.dumps({"weight_map": held}))
    return [place / file for file in files]


def edit(path: Path, **changes: Any) -> None:
    said = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in said.items() if v is not None}))


def as_one_file(place: Path) -> None:
    """Write a vocabulary as newer releases do: one file, and what is special beside it."""
    merges = [line for line in (place / "merges.txt").read_text().splitlines() if line and not line.startswith("#")]
    model = {"vocab": json.loads((place / "vocab.json").read_text()), "merges": [one.split() for one in merges]}
    (place / "tokenizer.json").write_text(json.dumps({"model": model}))
    (place / "special_tokens_map.json").rename(place / "tokenizer_config.json")
    for name in ("vocab.json", "merges.txt"):
        (place / name).unlink()


def test_the_vocabulary_as_newer_releases_write_it(folder: Path, base: Base) -> None:
    texts = ["a cat", "a small teapot in watercolor style!"]
    wanted = base.text_tokenizer(texts)
    as_one_file(folder / "tokenizer")
    assert torch.equal(load_base(str(folder), tiny.CPU).text_tokenizer(texts), wanted)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    fetched = files_of("owner/name", names, "tokenizer", "tokenizer", "fp32", print)
    assert sorted(fetched) == ["tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"]
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer/vocab.json is missing"):
        load_base(str(folder), tiny.CPU)


# ---- what is read ----


def test_a_published_base_draws_as_upstream_does_by_default(base: Base) -> None:
    assert base.sizes == (16,)
    settings = base.sampling(steps=3)
    assert (settings.size, settings.lambda_b, settings.ramp, settings.noise) == (16, 9.0, False, "token")
    assert settings.steps == 3
    assert base.sampling().steps == AMUSED.sampling["steps"]
    assert base.training("lora").width == AMUSED.kinds["lora"]["width"]
    assert base.training(steps=7).steps == 7
    ids = base.sample(["a cat", "a dog"], [1, 2], settings)
    assert torch.equal(base.sample(["a dog"], [2], settings)[0], ids[1])
    assert base.pictures(ids, 16).shape == (2, 3, 16, 16)
    assert base.unknown_words("a zebra") == []


def test_what_is_written_is_read(folder: Path) -> None:
    parts = open_published(folder).parts
    wanted_sizes = {"transformer": tiny.PUBLISHED_TRANSFORMER, "tokenizer": tiny.PUBLISHED_TOKENIZER}
    assert {name: part.config for name, part in parts.items()} == wanted_sizes | {"clip": tiny.PUBLISHED_CLIP}
    clip = Clip(tiny.PUBLISHED_CLIP)
    tiny.randomise(clip)
    loaded = parts["clip"].load()
    own = clip.state_dict()
    for name, value in loaded.state_dict().items():
        assert name == "logit_scale" or torch.equal(value, own[name]), name
    wanted = tiny.transformer(tiny.PUBLISHED_TRANSFORMER).state_dict()
    assert all(torch.equal(v, wanted[n]) for n, v in parts["transformer"].load().state_dict().items())


def test_half_precision_and_shards_are_the_same_model(tmp_path: Path, folder: Path, base: Base) -> None:
    half = tiny.write_published(tmp_path / "half", half=True)
    assert weight_files(half / "transformer", "transformer")[0].name == f"{WEIGHTS}.fp16.safetensors"
    assert weight_files(half / "text_encoder", "text_encoder")[0].name == "model.fp16.safetensors"
    small = open_published(half)
    assert small.fingerprint() == open_published(folder).fingerprint() == base.hash
    weight, own = (m.encoder_proj.weight for m in (small.parts["transformer"].load(), base.transformer))  # type: ignore[union-attr]
    assert weight.dtype == torch.float32  # type: ignore[union-attr]
    assert torch.equal(weight, own.half().float())  # type: ignore[union-attr, operator]

    ids = base.sample(["a cat"], [1], base.sampling(steps=3))
    for part, stem in (("transformer", WEIGHTS), ("vqvae", WEIGHTS), ("text_encoder", "model")):
        shard(folder / part, stem)
        shard(half / part, stem, ".fp16")
    again = load_base(str(folder), tiny.CPU)
    assert torch.equal(again.sample(["a cat"], [1], base.sampling(steps=3)), ids)
    assert again.hash == base.hash == load_base(str(half), tiny.CPU).hash
    other = tiny.write_published(tmp_path / "other", seed=1)
    assert open_published(other).fingerprint() != base.hash


def test_nothing_is_read_before_it_is_used(folder: Path, base: Base) -> None:
    """Mapped files: an untouched part costs nothing, and one that was let go is there again."""
    assert base.parts._here == {}
    network = base.transformer
    assert base.transformer is network
    base.done_with("transformer")
    assert base.transformer is not network
    base.sample(["a cat"], [1], base.sampling(steps=2))
    assert "clip" not in base.parts._here  # its part is done before the first step
    ours = load_base(str(tiny.write_base(folder.parent / "ours")), tiny.CPU)
    ours.done_with("clip")
    assert ours.parts._here.keys() >= {"clip"} or ours.clip is ours.clip  # ours stays: it is small


def test_a_published_base_can_be_drawn_with_in_bfloat16(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of its own, half as large: what is drawn in fp32 before and after is the same to the bit."""
    exact, small = base.sampling(steps=3), base.sampling(steps=3, precision="bf16")
    before = base.sample(["a cat"], [1], exact)
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: False)  # a processor without it
    monkeypatch.setattr(sample, "fast_bfloat16", lambda device: False)
    assert torch.equal(base.sample(["a cat"], [1], small), before)
    assert sample.CAST not in base.parts._here
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: True)
    monkeypatch.setattr(sample, "fast_bfloat16", lambda device: True)
    drawn = base.sample(["a cat"], [1], small)
    assert (drawn < tiny.PUBLISHED_TRANSFORMER.codebook_size).all()
    network = base.parts._here[sample.CAST]
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    assert kinds["transformer_layers.0.attn1.to_q.weight"] == torch.bfloat16
    assert kinds["embed.embeddings.weight"] == torch.float32
    assert torch.equal(base.sample(["a cat"], [1], exact), before)
    with pytest.raises(UsageError, match="no precision called 'fp8'"):
        base.sampling(precision="fp8")


def test_values_that_are_not_finite_are_found_when_looked_for(folder: Path) -> None:
    path = folder / "transformer" / f"{WEIGHTS}.safetensors"
    tensors = load_file(path)
    tensors["encoder_proj.weight"][0, 0] = torch.nan
    save_file(tensors, path)
    part = open_published(folder).parts["transformer"]
    part.load()
    with pytest.raises(ModelError, match="encoder_proj.weight holds a value that is not finite"):
        part.load(finite=True)


@pytest.mark.parametrize("pad", ["!", {"content": "!", "lstrip": False}, "<|endoftext|>"])
def test_padding_is_the_folders(folder: Path, pad: Any) -> None:
    edit(folder / "tokenizer" / "special_tokens_map.json", pad_token=pad)
    tokenizer = open_published(folder).text_tokenizer
    row = tokenizer(["a cat"])[0].tolist()
    wanted = tokenizer.end if pad == "<|endoftext|>" else 0
    assert row[3] == tokenizer.end  # start, a, cat, end
    assert set(row[4:]) == {wanted}
    # Upstream's tokenizer reads the padding's sign so wherever it stands, and never as a part of a word.
    sign = vocabulary_of(tiny.MERGES)["!</w>" if pad == "<|endoftext|>" else "!"]
    assert tokenizer(["a cat!"])[0].tolist() == [*row[:3], sign, tokenizer.end, *row[5:]]
    assert tokenizer(["a cat!!"])[0].tolist()[3:5] == [vocabulary_of(tiny.MERGES)["!"], sign]


def test_pockets_additions_have_no_place_in_the_layout(tmp_path: Path) -> None:
    clip, plain = Clip(tiny.PUBLISHED_CLIP), ImageTokenizer(tiny.PUBLISHED_TOKENIZER)
    with pytest.raises(ModelError, match="learned positions"):
        save_published(tmp_path, tiny.transformer(), plain, clip, tiny.MERGES)
    network = tiny.transformer(tiny.PUBLISHED_TRANSFORMER)
    with pytest.raises(ModelError, match="patches, a linear path or levels"):
        save_published(tmp_path, network, ImageTokenizer(tiny.TOKENIZER), clip, tiny.MERGES)


# ---- commands ----


@pytest.mark.parametrize("kind", KINDS)
def test_train_and_generate(folder: Path, picture: Path, styledrop: Run, kind: str) -> None:
    short = ("--steps", "2", "--width", "1", "--kind", kind)
    trained = styledrop("train", picture, "--style", "ink", "--content", "a cat", "--model", folder, *short)
    assert trained.code == 0, trained.err
    header = read_header(Path("adapter.safetensors")).to_json()
    assert header["recommended"]["lambda_b"] == 9.0
    assert header["base"]["name"] == "amused"
    drawn = styledrop("generate", "adapter.safetensors", "a dog", "--model", folder, "--steps", "2", "-o", "out")
    assert drawn.code == 0, drawn.err
    assert load_picture(Path("out/a-dog-0.png")).size == (16, 16)
    assert json.loads(styledrop("inspect", "out/a-dog-0.png", "--json").out)["noise"] == "token"
    other = tiny.write_published(folder.parent / "other", seed=1)
    refused = styledrop("generate", "adapter.safetensors", "a dog", "--model", other)
    assert refused.code == 1
    assert "another base (amused)" in refused.err


def test_an_adapter_names_its_own_base(picture: Path, styledrop: Run) -> None:
    tiny.write_published(Path("amused-256"))
    short = ("--steps", "1", "--width", "1")
    trained = styledrop("train", picture, "--style", "ink", "--content", "a cat", "--model", "amused-256", *short)
    assert trained.code == 0, trained.err
    drawn = styledrop("generate", "adapter.safetensors", "a dog", "--steps", "1", "--json")
    assert drawn.code == 0, drawn.err
    assert json.loads(drawn.out)["settings"]["model"] == "amused-256"
    refused = styledrop("generate", "adapter.safetensors", "a dog", "--model", "pocket")
    assert "another base (amused-256) than this one (pocket)" in refused.err


def test_a_round_of_feedback(
    folder: Path, picture: Path, tiny_model: Path, styledrop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another CLIP chooses and grades, for the base's own sees no pictures; without one that is said."""
    tiny.shrink_rounds(monkeypatch)
    short = ("--steps", "1", "--width", "1", "--content", "a cat", "--style", "ink", "--model", folder)
    assert styledrop("train", picture, *short).code == 0
    Path("prompts.txt").write_text("a dog\na house\n")
    go = ("iterate", "adapter.safetensors", "--model", folder, "--per-prompt", "2", "--steps", "1")
    refused = styledrop(*go, "--prompts", "prompts.txt")
    assert refused.code == 1
    assert "has no picture tower" in refused.err and "--scorer" in refused.err
    judge = load_base(str(tiny_model), tiny.CPU)
    monkeypatch.setattr(clip_scorer, "open_second_scorer", lambda base, name: ("ViT", judge))
    done = styledrop(*go, "--prompts", "prompts.txt", "--scorer", "ViT", "--json")
    assert done.code == 0, done.err
    assert Path(json.loads(done.out)["adapter"]).exists()
    assert read_header(Path("adapter.rounds/round-1/adapter.safetensors")).recommended["lambda_b"] == 9.0


def test_what_cannot_be_done_with_it_is_said(folder: Path, picture: Path, styledrop: Run) -> None:
    assert "draws 16 px, not 12" in styledrop("generate", "--base-only", "a cat", "--model", folder, "--size", "12").err
    refused = styledrop("generate", "--base-only", "a cat", "--model", folder, "--superres-steps", "4")
    assert refused.code == 2
    assert "no super-resolution" in refused.err
    asked = ("--steps", "2", "--width", "1", "--checkpoints", "2", "-o", "compared.safetensors")
    assert "sees no pictures: none are compared" in styledrop(
        "train", picture, "--style", "ink", "--content", "a cat", "--model", folder, *asked
    ).err  # fmt: skip
    assert "cannot tell what" in styledrop(
        "train", picture, "--style", "ink", "--model", folder, "--steps", "1", "--width", "1"
    ).err  # fmt: skip


def test_check_reads_every_weight_and_draws_upstreams_picture(
    folder: Path, base: Base, styledrop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = base.sample([acceptance.PROMPT], [acceptance.SEED], base.sampling(steps=acceptance.STEPS))
    values = acceptance.corner(base.pictures(ids, 16)[0])
    assert len(values) == 9
    unknown = styledrop("models", "check", folder)
    assert unknown.code == 0
    assert "there are no published values to compare with" in unknown.err
    sizes = {n: v for n, v in asdict(tiny.PUBLISHED_TRANSFORMER).items() if v != getattr(TransformerConfig(), n)}
    row = replace(AMUSED, name="tiny", sizes=sizes, golden=tuple(v + 0.002 for v in values))
    monkeypatch.setitem(registry.PUBLISHED, "tiny", row)
    sound = styledrop("models", "check", folder)
    assert sound.code == 0, sound.err
    assert "draws upstream's picture" in sound.err
    half = tiny.write_published(folder.parent / "half", half=True)
    assert "values are of fp32 weights" in styledrop("models", "check", half).err

    other = tiny.write_published(folder.parent / "other", seed=1)  # whole, but not the published weights
    wrong = styledrop("models", "check", other)
    assert wrong.code == 1
    assert "does not draw upstream's picture" in wrong.out
    for destroy, message in ((another_shape, "encoder_proj.weight has shape"), (lose_a_shard, "shards are missing")):
        destroy(folder)
        broken = styledrop("models", "check", folder)
        assert broken.code == 1
        assert message in broken.out


def test_check_finds_values_that_are_not_finite(folder: Path, styledrop: Run) -> None:
    path = folder / "vqvae" / f"{WEIGHTS}.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_in.bias"][0] = torch.inf
    save_file(tensors, path)
    refused = styledrop("models", "check", folder, "--json")
    assert refused.code == 1
    assert "decoder.conv_in.bias holds a value that is not finite" in json.loads(refused.out)["problems"][0]


def test_names_of_folders(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--amused--amused-256" / "snapshots" / "1a2b"
    assert name_of(snapshot) == "amused-256"
    assert name_of(tmp_path / "models--me--mine" / "snapshots" / "1a2b") == "me/mine"
    assert name_of(tmp_path / "mine") == "mine"


# ---- what is wrong with a folder ----

Break = Callable[[Path], Any]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def only_a_pickle(folder: Path) -> None:
    place = folder / "vqvae"
    (place / f"{WEIGHTS}.safetensors").rename(place / f"{WEIGHTS}.bin")


def lose_a_shard(folder: Path) -> None:
    shard(folder / "transformer")[1].unlink()


def index_outside(folder: Path) -> None:
    index = folder / "transformer" / f"{WEIGHTS}.safetensors.index.json"
    shard(folder / "transformer")
    index.write_text(json.dumps({"weight_map": {"embed.conv.weight": "../../../secret.safetensors"}}))


def another_shape(folder: Path) -> None:
    path = folder / "transformer" / f"{WEIGHTS}.safetensors"
    tensors = load_file(path)
    tensors["encoder_proj.weight"] = tensors["encoder_proj.weight"][:-1].clone()
    save_file(tensors, path)


def drop_a_tensor(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    del tensors["text_model.encoder.layers.0.self_attn.q_proj.weight"]
    save_file(tensors, path)


def not_an_object(folder: Path) -> None:
    (folder / "model_index.json").write_text("[1, 2]")


def cut_json(folder: Path) -> None:
    (folder / "vqvae" / "config.json").write_text('{"block_out_channels": [8')


BROKEN: dict[str, tuple[Break, str]] = {
    "a pipeline of another kind": (
        lambda f: edit(f / "model_index.json", _class_name="StableDiffusionPipeline"),
        "is a StableDiffusionPipeline, which cannot be run here",
    ),
    "a class of another kind": (
        lambda f: edit(f / "model_index.json", transformer=["diffusers", "Transformer2DModel"]),
        "the transformer of .* is diffusers.Transformer2DModel, and UVit2DModel is wanted",
    ),
    "no class": (lambda f: edit(f / "model_index.json", vqvae=None), "the vqvae of .* is missing"),
    "no object": (not_an_object, "a JSON object"),
    "a cut description": (cut_json, "cannot read .*vqvae"),
    "no description": (lambda f: (f / "transformer" / "config.json").unlink(), "config.json is missing"),
    "no scheduler": (
        lambda f: (f / SCHEDULER).unlink(),
        "scheduler_config.json is missing",
    ),
    "another mask": (
        lambda f: edit(f / SCHEDULER, mask_token_id=5),
        "masks by 5, cosine; 31 and cosine or linear are known",
    ),
    "an unknown size": (lambda f: edit(f / "transformer" / "config.json", rotary=True), "unknown settings: rotary"),
    "biases": (lambda f: edit(f / "transformer" / "config.json", use_bias=True), "use_bias is True, and only False"),
    "our own sizes": (lambda f: edit(f / "vqvae" / "config.json", levels=[4, 6]), "unknown settings: levels"),
    "attention in the tokenizer": (
        lambda f: edit(f / "vqvae" / "config.json", mid_block_add_attention=True),
        "mid_block_add_attention is True",
    ),
    "impossible sizes": (lambda f: edit(f / "transformer" / "config.json", vocab_size=3), "leaves no mask token"),
    "another vocabulary": (lambda f: edit(f / "tokenizer" / "vocab.json", cat=7), "does not go with its merges"),
    "a padding that is no token": (
        lambda f: edit(f / "tokenizer" / "special_tokens_map.json", pad_token="[PAD]"),
        "the padding '\\[PAD\\]' is no token",
    ),
    "another activation": (lambda f: edit(f / "text_encoder" / "config.json", hidden_act="relu"), "relu"),
    "a wider text encoder": (
        lambda f: edit(f / "text_encoder" / "config.json", intermediate_size=65),
        "intermediate_size is 65, not 4 x 16",
    ),
    "a pickle": (only_a_pickle, "as a pickle .*which may run any code"),
    "no weights": (lambda f: (f / "vqvae" / f"{WEIGHTS}.safetensors").unlink(), "holds no weights"),
    "a missing shard": (lose_a_shard, "1 of 2 shards are missing, the first is .*00002-of-00002"),
    "a shard elsewhere": (index_outside, "no safetensors file beside it"),
    "a cut file": (
        lambda f: truncate(f / "transformer" / f"{WEIGHTS}.safetensors"),
        "is not a whole safetensors file",
    ),
    "another shape": (another_shape, r"encoder_proj.weight has shape \[127, 16\], expected \[128, 16\]"),
    "a missing tensor": (drop_a_tensor, r"transformer.resblocks.0.attn.in_proj_weight is missing"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder(folder: Path, styledrop: Run, what: str) -> None:
    """Every fault is named, and the command ends without a traceback."""
    destroy, message = BROKEN[what]
    destroy(folder)

    def load() -> None:
        for part in open_published(folder).parts.values():
            part.load()

    with pytest.raises(ModelError, match=message):
        load()
    outcome = styledrop("generate", "--base-only", "a cat", "--model", folder, "--steps", "1")
    assert outcome.code == 1, outcome
    assert "Error" in outcome.err and "Traceback" not in outcome.err


def test_a_schedule_of_upstreams(folder: Path, base: Base) -> None:
    edit(folder / SCHEDULER, masking_schedule="linear")
    linear = load_base(str(folder), tiny.CPU)
    assert linear.schedule == "linear"
    settings = replace(base.sampling(), steps=6)
    assert not torch.equal(linear.sample(["a cat"], [1], settings), base.sample(["a cat"], [1], settings))
