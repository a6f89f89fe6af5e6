"""A base model as a whole: loaded strictly, sampled alike alone and in a batch, shown at each of its sizes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

import tiny
from conftest import draw
from styledrop_cli.base import fidelity
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.known_things import known_in
from styledrop_cli.base.registry import BATCH, POCKET
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.files import write_json
from styledrop_cli.io.tensors import read_config
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.settings import SampleSettings

FAST = SampleSettings(steps=3, size=16)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.base(tmp_path_factory.mktemp("base") / "tiny")


# ---- loading ----


def test_a_base_is_loaded_frozen(base: Base) -> None:
    assert base.name == "tiny"
    for part in (base.transformer, base.tokenizer, base.decoder, base.clip):
        assert part is not None
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())
    assert base.words == set(tiny.WORDS)
    assert base.contents == list(tiny.CONTENTS)
    assert base.grid == 4
    assert base.sizes == (16, 32)
    assert len(base.hash) == 64


def test_the_larger_pictures_of_the_enlarged_decoder(base: Base) -> None:
    """Of the decoder's own random weights, so that they would leave [0,1] if nothing held them."""
    ids = tiny.ids(tiny.TRANSFORMER, 2) % 24
    shown = base.pictures(ids, 32)
    small = base.pictures(ids, 16)
    assert shown.shape == (2, 3, 32, 32)
    assert small.shape == (2, 3, 16, 16)
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
    assert base.decoder is not None
    assert float(base.decoder(small).max()) > 1
    assert not torch.equal(shown, base.having(decoder=None).pictures(ids, 32))


def test_a_base_without_its_extras() -> None:
    folder = tiny.write_base(Path("m"), decoder=False)
    (folder / "words.txt").unlink()
    (folder / "contents.txt").unlink()
    base = load_base("m", tiny.CPU)
    assert base.decoder is None
    assert base.sizes == (16, 32)
    assert base.pictures(tiny.ids(tiny.TRANSFORMER, 2) % 24, 32).shape == (2, 3, 32, 32)  # interpolated
    assert base.unknown_words("a corgi") == []
    assert base.contents == []


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def forget(part: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = read_config(folder)
        del config["parts"][part]
        write_json(folder / "config.json", config)

    return change


def resize(folder: Path) -> None:
    config = read_config(folder)
    config["parts"]["transformer"]["hidden_size"] = 64
    write_json(folder / "config.json", config)


def lose_a_merge(folder: Path) -> None:
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    (folder / "merges.txt").write_text("\n".join(lines[1:]), encoding="utf-8")


def add_a_merge(folder: Path) -> None:
    with (folder / "merges.txt").open("a", encoding="utf-8") as file:
        file.write("a n</w>\n")


def spoil(folder: Path) -> None:
    tiny.spoil(folder / "clip.safetensors", "text_projection", math.nan)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose("config.json"), "m is not a model folder"),
        (lose("transformer.safetensors"), r"there is no file m/transformer\.safetensors"),
        (lose("merges.txt"), r"cannot read the text vocabulary m/merges\.txt"),
        (forget("clip"), "m has no clip yet"),
        (resize, r"m/transformer\.safetensors does not fit: .* has shape"),
        (lose_a_merge, r"m/merges\.txt is damaged: 'ca t</w>'"),
        (add_a_merge, r"m/merges\.txt makes 522 tokens, but the CLIP beside it has 521"),
        (spoil, "text_projection holds a value that is not finite"),
    ],
)
def test_broken_model_folders(damage: Callable[[Path], None], words: str) -> None:
    damage(tiny.write_base(Path("m")))
    with pytest.raises(ModelError, match=words):
        load_base("m", tiny.CPU)


def test_no_such_model() -> None:
    with pytest.raises(ModelError, match="nowhere is not a model folder") as error:
        load_base("nowhere", tiny.CPU)
    assert error.value.hint


# ---- what it says ----


def test_unknown_words(base: Base) -> None:
    assert base.unknown_words("A red CAT and two corgis, a corgi in watercolor style, 3 corgis") == ["corgis", "corgi"]
    assert base.unknown_words("a cat") == []


def test_pictures_come_in_each_size(base: Base) -> None:
    ids = torch.randint(24, (2, 4, 4), generator=tiny.generator())
    for size in base.sizes:
        shown = base.pictures(ids, size)
        assert shown.shape == (2, 3, size, size)
        assert 0 <= float(shown.min()) <= float(shown.max()) <= 1


def test_reconstruction(base: Base) -> None:
    made = base.reconstruct(draw(60, 40))
    assert made.ids.shape == (4, 4)
    assert made.original.size == made.shown.size == (32, 32)
    assert 0 < made.psnr < 60
    assert made.edges < 0.5  # its weights are random
    assert base.reconstruct(Image.new("RGB", (40, 40), "red")).edges == 1  # it has none to lose


@pytest.mark.parametrize(
    ("edges", "word", "said"),
    [(-0.2, "lost", "loses ref.png (0% of"), (0.06, "lost", "(6% of its edges"), (0.1, "rough", "only roughly")],
)
def test_what_is_lost_is_said_in_words(edges: float, word: str, said: str) -> None:
    assert fidelity.verdict(edges)[0] == word
    warned = fidelity.warning("tiny", "ref.png", edges)
    assert said in warned and "crop" in warned and "--model" in warned


def test_of_what_is_not_lost_nothing_is_said() -> None:
    assert [fidelity.verdict(edges)[0] for edges in (0.22, 0.46, 1.0)] == ["fair", "good", "good"]
    assert not any(fidelity.warning("tiny", "ref.png", edges) for edges in (fidelity.FAIR, 0.3, 1.0))


def test_pocket_loses_thin_lines_and_keeps_bold_shapes() -> None:
    """What decibels do not tell: the thin lines have more of them than the bold shape."""
    pocket = load_base("pocket", tiny.CPU)
    thin, bold = (Image.new("RGB", (512, 512), "white") for _ in range(2))
    for step in range(0, 512, 64):
        ImageDraw.Draw(thin).line([(step, 0), (511, step)], "black", 2)
    ImageDraw.Draw(bold).ellipse((100, 100, 412, 412), "black")
    lines, disc = pocket.reconstruct(thin), pocket.reconstruct(bold)
    assert fidelity.verdict(lines.edges)[0] == "lost"
    assert fidelity.verdict(disc.edges)[0] == "good"


# ---- sampling ----


def test_sampling_is_repeatable_and_blind_to_the_neighbours(base: Base) -> None:
    prompts, seeds = ["a cat", "a dog", "a cat"], [1, 1, 2]
    together = base.sample(prompts, seeds, FAST)
    assert together.shape == (3, 4, 4)
    assert (together < 24).all()
    assert torch.equal(together, base.sample(prompts, seeds, FAST))
    for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        assert torch.equal(base.sample([prompt], [seed], FAST)[0], together[row])
    assert not torch.equal(together[0], together[2])


def test_prompt_negative_and_adapter_are_used(base: Base) -> None:
    prompts, seeds = ["a cat"] * 8, list(range(8))
    plain = base.sample(prompts, seeds, FAST)
    assert not torch.equal(base.sample(["a red dog"] * 8, seeds, FAST), plain)
    negative = SampleSettings(steps=3, negative="dog")
    assert not torch.equal(base.sample(prompts, seeds, negative), plain)
    assert not torch.equal(base.sample(prompts, seeds, FAST, tiny.adapter()), plain)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 4},
        {"order": "confidence"},
        {"order": "confidence", "temperature": 0},
        {"top_k": 1},
        {"top_p": 0.0},
        {"correct": 0.0},
        {"correct": 1.0},
        {"guidance_every": 1},
        {"lambda_a": 3},
        {"lambda_b": 0},
        {"strength": 0.3},
        {"ramp": not SampleSettings.ramp},
        {"negative": "a dog"},
    ],
)
def test_every_setting_reaches_the_sampler(base: Base, change: dict[str, Any]) -> None:
    prompts, seeds, plain = ["a cat"] * 8, list(range(8)), SampleSettings(steps=3)
    drawn = (base.sample(prompts, seeds, s, tiny.adapter()) for s in (plain, replace(plain, **change)))
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("kind", ["bottleneck", "lora", "prompt"])
@pytest.mark.parametrize("scales", [{}, {"lambda_a": 2.0}, {"lambda_b": 0.0}])
def test_strength(base: Base, kind: str, scales: dict[str, float]) -> None:
    """Without any the base alone draws, to the bit; in between something else, whatever the kind."""
    prompts, seeds, adapter = ["a cat"] * 32, list(range(32)), tiny.adapter(kind)

    def drawn(strength: float, adapter: Adapter | None = adapter) -> torch.Tensor:
        return base.sample(prompts, seeds, SampleSettings(steps=3, strength=strength, **scales), adapter)  # type: ignore[arg-type]

    assert torch.equal(drawn(0), drawn(1, None))
    assert torch.equal(drawn(3, None), drawn(1, None))
    assert len({drawn(strength).numpy().tobytes() for strength in (0, 0.5, 1, 2)}) == 4


def test_generate_counts_seeds_on_and_batches_change_nothing(base: Base) -> None:
    settings = SampleSettings(steps=2, size=32, seed=7)
    count = BATCH + 1  # more than one batch
    made = list(tiny.generate(base, None, prompts=["a cat", "a dog"], count=count, settings=settings))
    assert [(prompt, seed) for prompt, seed, _ in made] == [
        (p, s) for p in ("a cat", "a dog") for s in range(7, 7 + count)
    ]
    assert all(picture.size == (32, 32) for _, _, picture in made)
    alone = SampleSettings(steps=2, size=32, seed=7 + BATCH)
    [(_, _, picture)] = tiny.generate(base, None, prompts=["a dog"], count=1, settings=alone)
    assert picture.tobytes() == made[-1][2].tobytes()


def test_generate_adds_a_style_text(base: Base) -> None:
    def drawn(prompt: str, style: str | None) -> list[bytes]:
        settings = SampleSettings(steps=2, size=16)
        return [
            p.tobytes()
            for _, _, p in tiny.generate(base, None, prompts=[prompt], count=4, settings=settings, style=style)
        ]

    assert drawn("a cat", "watercolor") == drawn("a cat in watercolor style", None)
    assert drawn("a cat", "") == drawn("a cat", None) != drawn("a cat", "watercolor")


def test_generate_refuses_other_sizes(base: Base) -> None:
    with pytest.raises(UsageError, match="tiny draws 16 or 32 px, not 31") as error:
        next(tiny.generate(base, None, prompts=["a cat"], count=1, settings=SampleSettings(size=31)))
    assert error.value.hint == "Choose --size 32, or a larger one up to 4,096, to which that is resampled."


def test_config_is_readable(base: Base) -> None:
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    assert config["parts"]["transformer"]["positions"] == 2


def test_pocket_travels_light_and_is_whole() -> None:
    folder = POCKET
    parts = read_config(folder)["parts"]
    assert set(parts) == {"tokenizer", "clip", "scorer", "transformer", "superres"}
    sizes = {part: (folder / f"{part}.safetensors").stat().st_size for part in parts}
    assert sum(sizes.values()) <= 40e6
    assert sizes["scorer"] <= 3e6
    assert {p.stem for p in folder.glob("*.safetensors")} == set(parts)


def test_pocket_reads_words_that_it_was_never_taught() -> None:
    known = known_in(POCKET)
    assert [known.read(word).text for word in ("a corgi", "一只红色的猫")] == ["a dog", "a red cat"]
    assert sum(len(thing.kinds) for thing in known.things) > 3000
    assert {thing.words[0] for thing in known.things} == set(known.contents)


def test_a_temperature_is_given_for_the_order_in_which_it_has_a_say(base: Base) -> None:
    assert base.sampling().order == "halton"
    assert base.sampling(temperature=1).order == "confidence"
    assert base.sampling(temperature=1, order="halton").order == "halton"
