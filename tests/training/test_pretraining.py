"""Every part of a base trained on a tiny corpus, exactly resumed, and the whole journey to pictures in a style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils import parametrize

import tiny
from conftest import draw
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base.base import load_base
from styledrop_cli.corpus.folder import read_corpus
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.tensors import read_config, read_tensors, save_part
from styledrop_cli.models.clip import Clip, ClipConfig
from styledrop_cli.models.tokenizer import ImageTokenizer, scalar_grid
from styledrop_cli.models.transformer import MaskedTransformer
from styledrop_cli.settings import SampleSettings, TrainSettings
from styledrop_cli.training.adapter import train_adapter
from styledrop_cli.training.loop import Budget, Loop, Progress
from styledrop_cli.training.pretrain import run as pretraining
from styledrop_cli.training.pretrain import transformers
from styledrop_cli.training.pretrain.job import Order
from styledrop_cli.training.pretrain.records import read_record
from styledrop_cli.training.pretrain.transformers import LevelFeatures

PARTS = ("tokenizer", "decoder", "clip", "scorer", "base", "superres")
FILES = {part: "transformer" if part == "base" else part for part in PARTS}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shrink_pretraining(monkeypatch)


@pytest.fixture
def corpus() -> Path:
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


# ---- the whole journey ----


def test_from_a_folder_of_pictures_to_pictures_in_a_style(corpus: Path) -> None:
    figures = dict(zip(PARTS, ("PSNR", "PSNR", *["right caption"] * 2, *["cross-entropy"] * 2), strict=True))
    for part in PARTS:
        messages = train(part, corpus)
        assert messages[0] == "8 pictures, 2 of them held out"
        assert figures[part] in messages[-1]
        assert "nan" not in messages[-1]
    assert set(read_config(Path("model"))["parts"]) == set(FILES.values())
    assert not [p for p in Path("model/.training").glob("*.safetensors") if p.stem in PARTS]  # finished

    base = load_base("model", tiny.CPU)
    assert base.sizes == (16, 32)
    assert base.words == {"a", "cat", "dog", "house", "in", "style", "watercolor"}
    assert base.contents == ["a cat", "a dog"]
    assert base.unknown_words("a corgi in watercolor style") == ["corgi"]
    assert torch.equal(base.tokenizer.quantize.embedding.weight, scalar_grid(tiny.TOKENIZER.levels))

    draw().save("ref.png")
    settings = TrainSettings(steps=3, width=2, shared=False, batch_size=2, views=3, checkpoints=1)
    said: list[str] = []
    train_adapter(
        base,
        pictures=[Path("ref.png")],
        style="crayon",
        settings=settings,
        output=Path("crayon.safetensors"),
        on_message=said.append,
    )
    assert any("cannot tell what ref.png shows" in m for m in said)
    assert Path("crayon.safetensors.run/step-0000003.png").exists()
    file = load_adapter(Path("crayon.safetensors"))
    drawn = list(
        tiny.generate(
            base, file, prompts=["a cat", "a dog"], count=2, settings=SampleSettings(steps=3, size=32, lambda_a=1)
        )
    )
    assert [(prompt, seed) for prompt, seed, _ in drawn] == [(p, s) for p in ("a cat", "a dog") for s in (0, 1)]
    assert all(picture.size == (32, 32) for _, _, picture in drawn)


# ---- stopping and going on ----


@pytest.fixture
def earlier_parts(corpus: Path) -> None:
    for part in ("tokenizer", "clip"):
        train(part, corpus, steps=1)


def stop_at(step: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("earlier_parts")
def test_a_resumed_part_is_bit_identical(corpus: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Path("model") / f"{FILES[part]}.safetensors"
    if part in ("tokenizer", "clip"):
        weights.unlink()
    train(part, corpus, steps=4)
    whole = read_tensors(weights)[0]
    weights.unlink()

    with pytest.raises(KeyboardInterrupt):
        train(part, corpus, steps=4, on_step=stop_at(2))
    assert weights.exists()  # a usable result, wherever it is stopped
    assert not all(torch.equal(t, whole[name]) for name, t in read_tensors(weights)[0].items())
    with pytest.raises(UsageError, match="unfinished training") as error:
        train(part, corpus, steps=4)
    assert "--resume" in str(error.value.hint)
    monkeypatch.setattr(pretraining, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(pretraining, "SHEET_EVERY", -1.0)
    messages = train(part, corpus, steps=4, resume=True)
    assert "going on from step 2" in messages
    assert sum(m.startswith("step ") for m in messages) == 3  # after each of two steps, and at the end
    resumed = read_tensors(weights)[0]
    assert set(resumed) == set(whole)
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name
    sheets = sorted(p.name for p in Path("model/.training").glob(f"{part}-*.png"))
    assert sheets[-2:] == ([] if part in ("clip", "scorer") else [f"{part}-000003.png", f"{part}-000004.png"])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("earlier_parts")
def test_a_part_can_start_from_another_folders(corpus: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    later = part not in ("tokenizer", "clip")
    if later:
        train(part, corpus, steps=1)
    other = Path("other")
    for needed in ("tokenizer", "clip") if later else ():
        train(needed, corpus, "other", steps=1, init_from=Path("model"))
    # At a learning rate of nothing, what comes out is what went in.
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "schedule", lambda share: 0.0)
    messages = train(part, corpus, "other", steps=1, init_from=Path("model"))
    assert messages[-1].startswith("step 1")
    before = read_tensors(Path("model") / f"{FILES[part]}.safetensors")[0]
    after = read_tensors(other / f"{FILES[part]}.safetensors")[0]
    assert set(after) == set(before)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=2e-3, rtol=2e-3, msg=name)


def changes(folder: str) -> dict[str, float]:
    """By how much each half of a tokenizer in ``folder`` differs from that in ``model``, by its parts' names."""
    before, after = (read_tensors(Path(one) / "tokenizer.safetensors")[0] for one in ("model", folder))
    names = {name.split(".")[0] for name in before}
    return {
        part: sum(float((after[n].float() - t.float()).abs().sum()) for n, t in before.items() if n.startswith(part))
        for part in names
    }


def test_a_tokenizer_learns_to_decode_and_keeps_its_codes(corpus: Path) -> None:
    train("tokenizer", corpus, steps=2)
    train("tokenizer", corpus, "other", steps=3, init_from=Path("model"), keep_codes=True)
    changed = {part for part, by in changes("other").items() if by}
    assert changed == {"post_quant_conv", "decoder", "linear_out"}


def test_a_lower_rate_changes_less_and_is_kept_by_what_is_resumed(corpus: Path) -> None:
    train("tokenizer", corpus, steps=1)
    for folder, rate in (("slow", 0.1), ("usual", 1.0)):
        train("tokenizer", corpus, folder, steps=1, init_from=Path("model"), rate=rate)
    slow, usual = (sum(changes(folder).values()) for folder in ("slow", "usual"))
    assert 0 < slow < 0.3 * usual
    with pytest.raises(KeyboardInterrupt):
        train("tokenizer", corpus, "stopped", steps=3, init_from=Path("model"), rate=0.1, on_step=stop_at(1))
    train("tokenizer", corpus, "stopped", steps=3, resume=True)
    record = read_record(Path("stopped"), "tokenizer")
    assert record is not None and record.rate == 0.1


def test_what_began_from_another_model_resumes_in_its_vocabulary(corpus: Path) -> None:
    train("clip", tiny.write_corpus(Path("larger"), count=24), "first", steps=1)
    merges = Path("first/merges.txt").read_bytes() + b"x y\n"  # a vocabulary that this corpus would not give
    Path("first/merges.txt").write_bytes(merges)
    sizes = read_config(Path("first"))["parts"]["clip"]
    clip = Clip(ClipConfig(**sizes | {"vocab_size": sizes["vocab_size"] + 1}))
    save_part(Path("first"), "clip", clip, clip.config)
    with pytest.raises(KeyboardInterrupt):
        train("clip", corpus, steps=4, init_from=Path("first"), on_step=stop_at(2))
    assert "going on from step 2" in train("clip", corpus, steps=4, resume=True)
    assert Path("model/merges.txt").read_bytes() == merges


@pytest.mark.usefixtures("earlier_parts")
def test_a_text_tower_that_a_base_was_trained_with_is_settled(corpus: Path) -> None:
    train("base", corpus, steps=1)
    before = read_tensors(Path("model/clip.safetensors"))[0]
    merges = Path("model/merges.txt").read_bytes()
    train("clip", corpus, steps=3)
    after = read_tensors(Path("model/clip.safetensors"))[0]
    changed = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert changed
    assert all(name.startswith("visual.") for name in changed)
    assert Path("model/merges.txt").read_bytes() == merges


# ---- order and refusals ----


def test_parts_need_the_earlier_ones(corpus: Path) -> None:
    for part in ("decoder", "base"):
        with pytest.raises(ModelError, match="model"):
            train(part, corpus)
    with pytest.raises(UsageError, match="no part called 'tokeniser'"):
        train("tokeniser", corpus)
    with pytest.raises(ModelError, match="nowhere"):
        train("tokenizer", corpus, init_from=Path("nowhere"))


def test_pictures_without_captions_make_a_tokenizer_but_no_clip(corpus: Path) -> None:
    (corpus / "metadata.jsonl").unlink()
    train("tokenizer", corpus, steps=1)
    train("decoder", corpus, steps=1)
    with pytest.raises(UsageError, match="no caption"):
        train("clip", corpus)


def test_ids_are_encoded_again_for_another_tokenizer(corpus: Path) -> None:
    records = read_corpus(corpus)
    train("tokenizer", corpus, steps=1)
    folder = Path("model")

    def ids(seed: int) -> torch.Tensor:
        tokenizer = ImageTokenizer(tiny.TOKENIZER)
        tiny.randomise(tokenizer, seed)
        return transformers.cached_tokens(tokenizer, records, 4, folder, tiny.CPU)

    first = ids(1)
    assert first.shape == (8, 4, 4)
    assert first.dtype == torch.int16
    assert torch.equal(ids(2), first)  # the file on disk has not changed
    train("tokenizer", corpus, steps=2)
    assert not torch.equal(ids(2), first)


# ---- the factorised tables ----


def test_tables_are_folded_exactly() -> None:
    network = MaskedTransformer(tiny.TRANSFORMER)
    tiny.randomise(network)
    for module in (network.embed.embeddings, network.mlm_layer.conv2):
        parametrize.register_parametrization(module, "weight", LevelFeatures((4, 3, 2), 16))
    wanted = [network.embed.embeddings.weight.clone(), network.mlm_layer.conv2.weight.clone()]
    ids = tiny.ids(tiny.TRANSFORMER, 2)
    logits = network(ids, tiny.condition(network, 2))
    for module in (network.embed.embeddings, network.mlm_layer.conv2):
        parametrize.remove_parametrizations(module, "weight")
    assert torch.equal(network.embed.embeddings.weight, wanted[0])
    assert torch.equal(network.mlm_layer.conv2.weight, wanted[1])
    assert torch.equal(network(ids, tiny.condition(network, 2)), logits)
    assert set(network.state_dict()) == set(MaskedTransformer(tiny.TRANSFORMER).state_dict())


@pytest.mark.usefixtures("earlier_parts")
def test_the_exported_tables_are_those_of_the_training(corpus: Path) -> None:
    records = read_corpus(corpus)
    job = transformers.transformer_job(Order(records, Path("model"), None, 4, 0, tiny.CPU))
    network: Any = job.task.transformer
    tiny.randomise(network, 3)
    with torch.no_grad():
        job.export(job.task)
        tables = read_tensors(Path("model/transformer.safetensors"))[0]
        for name, module in (
            ("embed.embeddings.weight", network.embed.embeddings),
            ("mlm_layer.conv2.weight", network.mlm_layer.conv2),
        ):
            assert parametrize.is_parametrized(module)  # training goes on
            assert torch.equal(tables[name], module.weight.half())
            assert not torch.equal(tables[name], module.parametrizations["weight"].original.half())
    assert set(tables) == set(MaskedTransformer(tiny.TRANSFORMER).state_dict())


def test_level_features_are_shared_by_codes_of_a_level() -> None:
    features = LevelFeatures((4, 3, 2), 8)
    table = torch.zeros(25, 8)
    made = features(table)
    grid = scalar_grid((4, 3, 2))
    assert not made[24].any()  # the mask token is no code
    assert torch.equal(features(table.view(25, 8, 1, 1)).flatten(1), made)
    # A step along one axis adds the same wherever it starts.
    first, last = (grid[:, 2] == -0.5).nonzero()[:, 0], (grid[:, 2] == 0.5).nonzero()[:, 0]
    steps = made[last] - made[first]
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-6, rtol=1e-4)
    assert features.mix.requires_grad
