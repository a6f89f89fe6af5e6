"""The scorers: ours in open_clip's hands, open_clip's own, the second one's training, and what is said of faults."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from conftest import ROOT, Run, draw
from styledrop_cli.base.folder import load_module, read_text_tokenizer
from styledrop_cli.base.prompt_tokens import BytePairTokenizer, write_merges
from styledrop_cli.base.registry import POCKET
from styledrop_cli.errors import ModelError, StyledropError, UsageError
from styledrop_cli.io.images import load_picture, square, to_tensor
from styledrop_cli.io.tensors import load_strictly, read_config, read_tensors, save_part, save_tensors
from styledrop_cli.judging import clip_scorer
from styledrop_cli.judging.clip_scorer import load_scorer, open_clip_config
from styledrop_cli.models.clip import Clip
from styledrop_cli.training.loop import Budget, Loop, Progress
from styledrop_cli.training.pretrain import clip as clip_part
from styledrop_cli.training.pretrain import run as pretraining
from styledrop_cli.training.pretrain.clip import RECIPES, moved, zoomed

EXAMPLES = ROOT / "examples"
TEXTS = ["a cat", "a red teapot in watercolor style", "", "two rockets", "a very " + "long " * 60 + "train"]
needs_open_clip = pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed")


def model_with_scorer(folder: Path) -> Path:
    """The tiny model, and a scorer of another shape beside its CLIP."""
    tiny.write_base(folder)
    config = replace(tiny.CLIP, embed_dim=24, image_size=32, quick_gelu=True)
    scorer = Clip(config)
    tiny.randomise(scorer, 5)
    save_part(folder, "scorer", scorer, config)
    return folder


def said(error: pytest.ExceptionInfo[StyledropError]) -> str:
    """What a person reads."""
    return f"{error.value.message} | {error.value.hint}"


# ---- the parts of a model folder ----


@needs_open_clip
def test_the_bundled_clip_is_the_same_in_both_libraries() -> None:
    clip: Clip = load_module(POCKET, "clip")
    size = clip.config.image_size
    files = sorted(EXAMPLES.glob("*.png"))[:3]
    assert files
    shown = [square(load_picture(file), size) for file in files] + [square(draw(), size)]
    pictures = torch.stack([to_tensor(image) for image in shown])
    tokens = read_text_tokenizer(POCKET, clip.config)(TEXTS)
    scorer = load_scorer("clip", POCKET, tiny.CPU)
    own = {
        "pictures": (F.normalize(clip.picture_embeds(pictures), dim=-1), scorer.picture_embeds(pictures)),
        "texts": (F.normalize(clip.text_states(tokens)[1], dim=-1), scorer.text_embeds(TEXTS)),
    }
    for ours, theirs in own.values():
        assert ours.shape == theirs.shape == (len(ours), 192)
        assert float((ours - theirs).abs().max()) < 1e-5
    assert float((own["texts"][1] @ own["pictures"][1].T).std()) > 0.01  # they do tell things apart
    assert type(scorer.network).__module__.startswith("open_clip")


@needs_open_clip
def test_a_model_folder_has_two_scorers() -> None:
    folder = model_with_scorer(Path("model"))
    base = tiny.base(Path("other"))
    pictures = torch.rand(3, 3, 40, 40, generator=tiny.generator())  # neither's own size
    first, second = (load_scorer(name, folder, tiny.CPU) for name in clip_scorer.PARTS)
    torch.testing.assert_close(first.picture_embeds(pictures), base.picture_embeds(pictures), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first.text_embeds(TEXTS), base.text_embeds(TEXTS), atol=1e-5, rtol=1e-5)
    assert (first.size, second.size) == ((16, 16), (32, 32))
    assert second.picture_embeds(pictures).shape == (3, 24)
    for embeds in (second.picture_embeds(pictures), second.text_embeds(TEXTS)):
        torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(len(embeds)))
    scorer: Clip = load_module(folder, "scorer")
    resized = F.interpolate(pictures, (32, 32), mode="bilinear", antialias=True)
    wanted = F.normalize(scorer.picture_embeds(resized), dim=-1)
    torch.testing.assert_close(second.picture_embeds(pictures), wanted, atol=1e-5, rtol=1e-5)


def test_missing_and_broken_parts() -> None:
    folder = tiny.write_base(Path("model"))
    with pytest.raises(ModelError) as error:
        load_scorer("scorer", folder, tiny.CPU)
    assert said(error) == "model has no scorer yet | Make it with 'styledrop pretrain scorer'."
    with pytest.raises(ModelError, match="nowhere is not a model folder"):
        load_scorer("clip", Path("nowhere"), tiny.CPU)

    model_with_scorer(folder)
    file = folder / "scorer.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(ModelError, match="scorer.safetensors is not a whole safetensors file"):
        load_scorer("scorer", folder, tiny.CPU)
    file.write_bytes((folder / "clip.safetensors").read_bytes())
    with pytest.raises(ModelError, match="scorer.safetensors does not fit: .* has shape"):
        load_scorer("scorer", folder, tiny.CPU)
    file.write_bytes(whole)
    write_merges(folder / "merges.txt", tiny.MERGES[:-1])
    with pytest.raises(ModelError, match="merges.txt makes 520 tokens, but the CLIP beside it has 521"):
        load_scorer("scorer", folder, tiny.CPU)

    config = replace(tiny.CLIP, image_size=0)
    save_part(folder, "scorer", Clip(config), config)
    with pytest.raises(ModelError, match="the scorer of model has no picture tower"):
        load_scorer("scorer", folder, tiny.CPU)


# ---- open_clip's own models ----


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """open_clip, with a model of a few thousand weights among those it knows."""
    library = clip_scorer.open_clip()
    factory = importlib.import_module("open_clip.factory")
    sizes = replace(tiny.CLIP, vocab_size=49408, context_length=77)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-tiny-8", open_clip_config(sizes))
    return library


def write_weights(library: Any, path: Path) -> Any:
    """Random weights of that model as a file, and the network that holds them."""
    network = library.create_model("ViT-tiny-8")
    tiny.randomise(network, 3)
    save_tensors(path, network.state_dict())
    return network.eval()


@needs_open_clip
def test_a_model_of_open_clip_with_a_file_of_weights(registered: Any) -> None:
    network = write_weights(registered, Path("weights.safetensors"))
    for name in ("ViT-tiny-8/weights.safetensors", f"ViT-tiny-8/{Path('weights.safetensors').resolve()}"):
        scorer = load_scorer(name, Path("nowhere"), tiny.CPU)  # no model folder is needed
        assert scorer.size == (16, 16)
        pictures = torch.rand(2, 3, 16, 16, generator=tiny.generator())
        mean, std = (
            torch.tensor(v)[:, None, None] for v in (network.visual.preprocess_cfg[k] for k in ("mean", "std"))
        )
        assert mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])  # CLIP's, not ours
        with torch.no_grad():
            wanted = network.encode_image((pictures - mean) / std, normalize=True)
            read = network.encode_text(registered.get_tokenizer("ViT-tiny-8")(["a cat"]), normalize=True)
        torch.testing.assert_close(scorer.picture_embeds(pictures), wanted)
        torch.testing.assert_close(scorer.text_embeds(["a cat"]), read)


@needs_open_clip
def test_a_folder_as_open_clip_writes_it(registered: Any) -> None:
    folder = Path("published")
    folder.mkdir()
    about = {"model_cfg": registered.get_model_config("ViT-tiny-8"), "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (folder / "open_clip_config.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(ModelError, match="weights"):  # random ones are no scorer
        load_scorer("local-dir:published", Path("nowhere"), tiny.CPU)
    write_weights(registered, folder / "open_clip_model.safetensors")
    scorer = load_scorer("local-dir:published", Path("nowhere"), tiny.CPU)
    assert scorer.mean == (0.1, 0.2, 0.3)
    assert scorer.text_embeds(["a cat", "a dog"]).shape == (2, 16)


@needs_open_clip
def test_names_that_nothing_answers_to() -> None:
    for name, near in (
        ("vit-b-16/openai", "Did you mean 'ViT-B-16'"),
        ("scorrer", "Did you mean 'scorer'"),
        ("ViT-B-16", "Name them, or a file: ViT-B-16/openai"),
        ("ViT-B-16/opnai", "Did you mean 'openai'? Known weights of ViT-B-16: openai, "),
        ("ViT-B-16/missing.safetensors", "Known weights of ViT-B-16: openai, "),
        ("qqq", "Choose clip or scorer, or a model of open_clip's"),
    ):
        with pytest.raises(UsageError) as error:
            load_scorer(name, Path("nowhere"), tiny.CPU)
        assert near in said(error), name
        assert ("Did you mean" in said(error)) == ("Did you mean" in near)


@needs_open_clip
def test_files_that_are_no_weights_of_that_model(registered: Any) -> None:
    write_weights(registered, Path("other.safetensors"))
    tensors, _ = read_tensors(Path("other.safetensors"))
    tensors.pop("ln_final.bias")
    save_tensors(Path("other.safetensors"), tensors)
    Path("cut.safetensors").write_bytes(Path("other.safetensors").read_bytes()[:5000])
    Path("words.safetensors").write_text("not weights at all", encoding="utf-8")
    for name, words in (
        ("other.safetensors", ("cannot load 'ViT-tiny-8/other.safetensors'", "Is the file whole")),
        ("cut.safetensors", ("cut.safetensors is not a whole safetensors file",)),
        ("words.safetensors", ("it is text that begins 'not weights at all'",)),
    ):
        with pytest.raises(ModelError) as error:
            load_scorer(f"ViT-tiny-8/{name}", Path("nowhere"), tiny.CPU)
        assert all(word in said(error) for word in words)


@needs_open_clip
def test_without_a_network_the_way_out_is_said(registered: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path("cache").resolve()))
    tags = {"openai": {"hf_hub": "nobody/nothing/", "quick_gelu": True}}
    monkeypatch.setitem(importlib.import_module("open_clip.pretrained")._PRETRAINED, "ViT-tiny-8", tags)
    with pytest.raises(StyledropError) as error:
        load_scorer("ViT-tiny-8/openai", Path("nowhere"), tiny.CPU)
    assert "cannot load 'ViT-tiny-8/openai'" in said(error)
    assert "needs the internet" in said(error)
    assert "ViT-tiny-8/path/to/weights.safetensors" in said(error)
    assert capfd.readouterr() == ("", "")  # no log lines of the library's

    # With the file at hand the same name works, and with the activation that those weights were trained with.
    write_weights(registered, Path("weights.safetensors"))
    monkeypatch.setitem(tags["openai"], "file", "weights.safetensors")
    fast, plain = (
        load_scorer(f"ViT-tiny-8/{weights}", Path("nowhere"), tiny.CPU) for weights in ("openai", "weights.safetensors")
    )
    network = registered.create_model("ViT-tiny-8", "weights.safetensors", force_quick_gelu=True).eval()
    with torch.no_grad():
        wanted = network.encode_text(registered.get_tokenizer("ViT-tiny-8")(["a cat"]), normalize=True)
    torch.testing.assert_close(fast.text_embeds(["a cat"]), wanted)
    assert not torch.allclose(plain.text_embeds(["a cat"]), wanted, atol=1e-4)


# ---- training the second one ----


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny.shrink_pretraining(monkeypatch)
    return tiny.write_corpus(Path("corpus"))


def train(part: str, corpus: Path, out: str = "model", steps: int = 3, **options: Any) -> list[str]:
    """Train for a few steps; what was said comes back."""
    messages: list[str] = []
    pretraining.run(
        part,
        corpus,
        Path(out),
        budget=Budget(steps=steps),
        device=tiny.CPU,
        batch_size=4,
        on_message=messages.append,
        **options,
    )
    return messages


def scorer_of(folder: str) -> dict[str, Tensor]:
    return read_tensors(Path(folder) / "scorer.safetensors")[0]


def files(folder: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.is_file()}


def test_the_scorer_needs_the_clip_and_leaves_it_alone(corpus: Path, styledrop: Run) -> None:
    refused = styledrop("pretrain", "scorer", corpus, "-o", "model", "--minutes", "0.001")
    assert refused.code == 1
    assert "model is not a model folder" in refused.err.replace("\n", " ")
    train("tokenizer", corpus, steps=1)
    with pytest.raises(ModelError, match="model has no clip yet"):
        train("scorer", corpus)
    train("clip", corpus, steps=1)
    before = files("model")
    made = styledrop("pretrain", "scorer", corpus, "-o", "model", "--minutes", "0.001", "--batch-size", "4", "--json")
    assert made.code == 0, made.err
    assert "held-out: right caption first in" in json.loads(made.out)["figure"]
    after = files("model")
    assert set(after) - set(before) == {"scorer.safetensors"}
    assert {name for name in before if after[name] != before[name]} == {"config.json"}
    parts = read_config(Path("model"))["parts"]
    assert set(parts) == {"tokenizer", "clip", "scorer"}
    assert parts["scorer"]["vocab_size"] == parts["clip"]["vocab_size"] > 0


def test_a_resumed_scorer_is_bit_identical(corpus: Path) -> None:
    train("clip", corpus, steps=1)
    train("scorer", corpus, steps=4)
    whole = scorer_of("model")

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("scorer", corpus, steps=4, on_step=stop)
    assert any(not torch.equal(t, whole[name]) for name, t in scorer_of("model").items())
    assert "going on from step 2" in train("scorer", corpus, steps=4, resume=True)
    resumed = scorer_of("model")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_scorer_can_start_from_another_folders(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("clip", "scorer"):
        train(part, corpus, steps=1)
    train("clip", corpus, "other", steps=1, init_from=Path("model"))
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "schedule", lambda share: 0.0)
    train("scorer", corpus, "other", steps=1, init_from=Path("model"))
    before, after = scorer_of("model"), scorer_of("other")
    assert set(before) == set(after)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=2e-3, rtol=2e-3, msg=name)

    merges = (Path("other") / "merges.txt").read_text(encoding="utf-8").splitlines()
    (Path("model") / "merges.txt").write_text("\n".join([*merges[:-1], "q q"]) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="another text vocabulary") as error:
        train("scorer", corpus, "other", steps=1, init_from=Path("model"))
    assert "Leave --init-from out" in said(error)


def test_the_two_are_taught_apart(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same sizes and the same seed they start from other weights and see other batches."""
    for part in ("clip", "scorer"):
        recipe = replace(clip_part.RECIPES[part], sizes=clip_part.RECIPES["clip"].sizes, views=moved)
        monkeypatch.setitem(clip_part.RECIPES, part, recipe)
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "schedule", lambda share: 0.0)
    seen: dict[str, Tensor] = {}
    for part in ("clip", "scorer"):

        def watched(pictures: Tensor, generator: torch.Generator, part: str = part) -> Tensor:
            seen[part] = moved(pictures, generator)
            return seen[part]

        monkeypatch.setitem(clip_part.RECIPES, part, replace(clip_part.RECIPES[part], views=watched))
        train(part, corpus, steps=1)
    weights = {part: read_tensors(Path(f"model/{part}.safetensors"))[0] for part in seen}
    assert set(weights["clip"]) == set(weights["scorer"])
    name = "visual.conv1.weight"
    assert not torch.allclose(weights["clip"][name].float(), weights["scorer"][name].float(), atol=1e-3)
    assert not torch.equal(seen["clip"], seen["scorer"])


def test_weights_from_elsewhere_do_not_replace_a_settled_text_tower(corpus: Path) -> None:
    for part in ("tokenizer", "clip", "base"):
        train(part, corpus, steps=1)
    train("clip", corpus, "other", steps=1)
    before = files("model")
    with pytest.raises(UsageError, match="listens to its own CLIP") as error:
        train("clip", corpus, init_from=Path("other"))
    assert "another folder" in said(error)
    assert files("model") == before
    assert train("clip", corpus, steps=1)[-1].startswith("step 1")  # without it the picture tower goes on learning


# ---- shapes and views ----


def test_the_scorer_is_small_and_of_another_shape(tmp_path: Path) -> None:
    first, second = (RECIPES[part].sizes for part in ("clip", "scorer"))
    for name in ("embed_dim", "text_width", "text_layers", "image_size", "patch_size", "image_width"):
        assert getattr(first, name) != getattr(second, name), name
    config = replace(second, vocab_size=read_config(POCKET)["parts"]["clip"]["vocab_size"])
    save_part(tmp_path, "scorer", Clip(config), config)
    assert (tmp_path / "scorer.safetensors").stat().st_size <= 3_000_000


@pytest.mark.parametrize("views", [moved, zoomed])
def test_views_depend_on_the_generator_alone(views: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    pictures = torch.rand(8, 3, 64, 64, generator=tiny.generator())
    kept = pictures.clone()
    made = views(pictures, tiny.generator(3))
    assert made.shape == pictures.shape
    assert float(made.min()) >= 0 and float(made.max()) <= 1
    assert torch.equal(made, views(pictures, tiny.generator(3)))
    assert not torch.equal(made, views(pictures, tiny.generator(4)))
    assert torch.equal(pictures, kept)


def test_a_zoomed_picture_is_still_that_picture() -> None:
    """It changes size, place and contrast, each picture in its own way, but not its colours' order."""
    picture = to_tensor(square(draw(), 64))
    made = zoomed(picture.expand(64, -1, -1, -1), tiny.generator())
    assert len({tuple(view.flatten()[::97].tolist()) for view in made}) == 64
    sizes = (made[:, 0] > made[:, 2] + 0.2).float().mean((1, 2))  # the red disc
    assert bool((sizes > 0.05).all())
    assert float(sizes.max() / sizes.min()) > 1.5


# ---- the two libraries ----


@needs_open_clip
@pytest.mark.parametrize("part", clip_scorer.PARTS)
def test_every_tensor_has_open_clips_name_and_shape(part: str) -> None:
    config = replace(RECIPES[part].sizes, vocab_size=600)
    ours, theirs = Clip(config), clip_scorer.open_clip().CLIP(**open_clip_config(config))
    load_strictly(theirs, ours.state_dict(), part)
    load_strictly(ours, theirs.state_dict(), part)
    assert BytePairTokenizer(tiny.MERGES, config.context_length)(["a cat"]).shape == (1, theirs.context_length)
