"""The super-resolution transformer: its shapes, what it listens to, and the path from small ids to a larger picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from conftest import draw
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base.base import Base
from styledrop_cli.errors import UsageError
from styledrop_cli.models.adapter import BottleneckAdapter, BottleneckConfig, LoraAdapter, LoraConfig
from styledrop_cli.models.superres import SuperResConfig, SuperResTransformer
from styledrop_cli.models.transformer import Condition
from styledrop_cli.sampling.guidance import Branch, Scales, guided
from styledrop_cli.settings import SampleSettings, TrainSettings
from styledrop_cli.training.adapter import train_adapter

CONTEXT = replace(tiny.SUPERRES, low_res_context=True)
SETTINGS = SampleSettings(steps=2, superres_steps=2)


def low_res(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(24, (rows, 4, 4), generator=tiny.generator(seed))


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return tiny.base(tmp_path / "tiny", superres=True)


def test_muses_cascade_is_a_matter_of_config() -> None:
    config = SuperResConfig()
    assert (config.low_res_size, config.sample_size, config.low_res_layers, config.low_res_context) == (
        16,
        64,
        16,
        True,
    )
    with torch.device("meta"):
        network = SuperResTransformer(config)
        rows = 2
        text = torch.zeros(rows, 77, config.encoder_hidden_size)
        condition = network.condition(text, torch.zeros(rows, config.cond_embed_dim), torch.zeros(rows, 5))
        condition = network.beside(condition, torch.zeros(rows, 16, 16, dtype=torch.long))
        keys, _ = condition.keys_values[0]
        assert keys.shape[2] == 77 + 16 * 16  # text and low-resolution positions, read together
        features = network.features(torch.zeros(rows, 64, 64, dtype=torch.long), condition)
        assert network.mlm_layer(features).shape == (rows, 64, 64, config.codebook_size)


@pytest.mark.parametrize("config", [tiny.SUPERRES, CONTEXT])
def test_every_low_resolution_id_is_heard_where_it_lies(config: SuperResConfig) -> None:
    network = tiny.superres_network(config)
    prompt, grid = tiny.condition(network, 2), low_res(2)
    ids = tiny.ids(config, 2, share=1.0)
    first = network(ids, network.beside(prompt, grid))
    assert first.shape == (2, 8, 8, 24)
    changed = grid.clone()
    changed[0, 3, 3] = (changed[0, 3, 3] + 1) % 24
    second = network(ids, network.beside(prompt, changed))
    assert torch.equal(first[1], second[1])
    moved = (first[0] - second[0]).abs().mean(-1)
    assert moved.min() > 0
    assert moved[6:, 6:].mean() > moved[:2, :2].mean()


@pytest.mark.parametrize("config", [tiny.SUPERRES, CONTEXT])
def test_conditions_join_and_repeat(config: SuperResConfig) -> None:
    network = tiny.superres_network(config)
    whole = network.beside(tiny.condition(network, 3), low_res(3))
    parts = [
        network.beside(tiny.condition(network, 3).select(torch.tensor([i])), low_res(3)[i : i + 1]) for i in range(3)
    ]
    ids = tiny.ids(config, 3)
    torch.testing.assert_close(network(ids, Condition.cat(parts)), network(ids, whole))
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(network(ids[rows], whole.select(rows)), network(ids, whole)[rows])


def test_a_grid_of_another_size_is_refused() -> None:
    network = tiny.superres_network()
    with pytest.raises(ValueError, match=r"low_res has shape \(2, 3, 3\), expected \(2, 4, 4\)"):
        network.beside(tiny.condition(network, 2), torch.zeros(2, 3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="low_res_layers"):
        SuperResConfig(low_res_layers=0)


def test_its_adapters_reach_the_low_resolution_layers() -> None:
    network = tiny.superres_network()
    bottleneck = BottleneckAdapter(BottleneckConfig(2, shared=False), network)
    assert bottleneck.down.shape == (2, 3 + 2, 32, 2)  # its own layers and those over the low-resolution ids
    lora = LoraAdapter(LoraConfig(1, 1.0), network)
    assert any("low_res" in name for name in lora.a)
    for adapter in (bottleneck, lora):
        adapter.initialise(tiny.generator())
        prompt, ids = tiny.condition(network, 1), tiny.ids(tiny.SUPERRES, 1)
        plain = network(ids, network.beside(prompt, low_res(1)))
        assert torch.equal(network(ids, network.beside(prompt, low_res(1), adapter), adapter), plain)
        tiny.randomise(adapter, 1)
        # What it changes beforehand, in the low-resolution layers, counts by itself.
        assert not torch.equal(network(ids, network.beside(prompt, low_res(1), adapter)), plain)


def test_refining_gives_the_larger_grid_and_knows_its_seed(base: Base) -> None:
    ids = base.sample(["a cat", "a dog"], [1, 2], SETTINGS)
    large = base.refine(ids, ["a cat", "a dog"], [1, 2], SETTINGS)
    assert large.shape == (2, 8, 8)
    assert int(large.max()) < 24
    assert torch.equal(base.refine(ids[1:], ["a dog"], [2], SETTINGS), large[1:])
    assert not torch.equal(base.refine(ids[1:], ["a dog"], [3], SETTINGS), large[1:])
    assert base.pictures(large, 32).shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="no super-resolution"):
        base.having(superres=None).refine(ids, ["a cat", "a dog"], [1, 2], SETTINGS)


def test_its_adapter_is_guided_as_the_bases_is(base: Base) -> None:
    network = base.superres
    assert network is not None
    adapter = BottleneckAdapter(BottleneckConfig(2, shared=False), network)
    tiny.randomise(adapter, 1)
    prompt, grid = tiny.condition(network, 1), low_res(1)
    ids = tiny.ids(tiny.SUPERRES, 1)
    masked = ids == tiny.SUPERRES.mask_id
    plain, adapted = network.beside(prompt, grid), network.beside(prompt, grid, adapter)
    logits = guided(network, plain, plain, [Branch(adapted, adapter)], Scales(2.0, 0.0))(ids, masked, 1.0)
    with_it, without = network(ids, adapted, adapter, masked), network(ids, plain, None, masked)
    torch.testing.assert_close(logits, with_it + 2 * (with_it - without))


def test_its_adapter_has_a_strength(base: Base) -> None:
    """In the low-resolution layers, before the steps begin, and in the steps."""
    assert base.superres is not None
    adapter = BottleneckAdapter(BottleneckConfig(4, shared=False), base.superres)
    tiny.randomise(adapter, 1)
    prompts, seeds = ["a cat"] * 4, list(range(4))

    def refined(strength: float, adapter: BottleneckAdapter | None = adapter) -> torch.Tensor:
        settings = replace(SETTINGS, strength=strength, superres_lambda_a=1.0)
        return base.refine(low_res(4), prompts, seeds, settings, adapter)

    assert torch.equal(refined(0), refined(1, None))
    assert len({refined(strength).numpy().tobytes() for strength in (0, 0.5, 1)}) == 3


def test_the_larger_size_is_drawn_by_super_resolution_unless_told_otherwise(base: Base) -> None:
    def pictures(count: int, **changes: int) -> list[bytes]:
        settings = replace(SETTINGS, **{"size": 32} | changes)
        drawn = tiny.generate(base, None, prompts=["a cat", "a dog"], count=count, settings=settings, style="ink")
        return [image.tobytes() for _, _, image in drawn]

    refined = pictures(2)
    assert [len(data) for data in refined] == [32 * 32 * 3] * 4
    assert pictures(1) == refined[::2]  # whatever else is drawn with them
    assert set(pictures(2, superres_steps=0)).isdisjoint(refined)
    assert len(pictures(1, size=16, superres_steps=0)[0]) == 16 * 16 * 3
    with pytest.raises(UsageError, match="tiny draws 16 px without super-resolution") as error:
        pictures(1, size=16)  # asked for in vain, so refused
    assert "--superres-steps" in str(error.value.hint)
    with pytest.raises(UsageError, match="tiny has no super-resolution"):
        list(
            tiny.generate(
                base.having(superres=None), None, prompts=["a cat"], count=1, settings=replace(SETTINGS, size=32)
            )
        )


def test_its_adapter_changes_what_is_drawn(base: Base, tmp_path: Path) -> None:
    draw(64, 64).save(tmp_path / "ref.png")
    settings = TrainSettings(
        steps=1, superres_steps=20, superres_lr=0.05, width=2, batch_size=2, views=2, checkpoints=0
    )
    train_adapter(
        base,
        pictures=[tmp_path / "ref.png"],
        style="ink",
        contents=["a cat"],
        settings=settings,
        output=tmp_path / "a.safetensors",
    )
    file = load_adapter(tmp_path / "a.safetensors")
    without = replace(file, header=file.header.with_values(superres=None))
    one, other = (
        next(tiny.generate(base, f, prompts=["a dog"], count=1, settings=replace(SETTINGS, size=32)))[2].tobytes()
        for f in (file, without)
    )
    assert one != other
