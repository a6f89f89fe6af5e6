"""What a person does with aMUSEd and the Meissonic family alike: every command draws with each of them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from conftest import Run, draw
from styledrop_cli.adapters.header import load_adapter, read_header, write_recommended
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.registry import MEISSONIC
from styledrop_cli.cli import drawing
from styledrop_cli.cli import train as train_command
from styledrop_cli.errors import UsageError
from styledrop_cli.feedback import rounds
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.io.files import write_json
from styledrop_cli.io.images import read_png_settings
from styledrop_cli.io.tensors import save_tensors
from styledrop_cli.judging import clip_scorer
from styledrop_cli.judging.clip_scorer import open_clip_config
from styledrop_cli.progress import Forecast
from styledrop_cli.settings import PRESETS

ADAPTER = "adapter.safetensors"
KINDS = {"bottleneck": "1", "lora": "1", "prompt": "4"}  # each with a width under 1 % of a tiny base


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of each family."""
    return tiny.FAMILIES[request.param](tmp_path_factory.mktemp("published") / request.param)


@pytest.fixture
def model(folder: Path, styledrop: Run) -> Callable[..., Any]:
    """Run a command with the base, and give what it says as JSON; the reference picture is ``ref.png``."""
    draw().save("ref.png")

    def run(*words: object) -> Any:
        done = styledrop(*words, "--model", folder, "--json", "--quiet")
        assert done.code == 0, done.err
        return json.loads(done.out)

    return run


def learn(model: Callable[..., Any], kind: str = "bottleneck", output: str = ADAPTER) -> None:
    how = ("--steps", 2, "--kind", kind, "--width", KINDS[kind], "-o", output)
    model("train", "ref.png", "--style", "ink", "--content", "a cat", *how)


def test_some_layers_and_the_guard(model: Callable[..., Any], folder: Path) -> None:
    """Both work with a base of which nothing was measured, but for the layers that were to be."""
    learn(model)
    some = Path("some.safetensors")
    model("train", "ref.png", "--style", "ink", "--content", "a cat", "--steps", 2, "--width", 1, "--layers", "2-3",
          "-o", some)  # fmt: skip
    assert read_header(some).config == {**read_header(Path(ADAPTER)).config, "layers": [2, 3]}
    drawn = model("generate", some, "a dog", "-n", 1, "--steps", 2, "--guard", "2")["pictures"]
    assert settings_of(drawn[0]["path"])["guard"] == 2
    base = load_base(str(folder), tiny.CPU)
    drawers = StyleMix.of(load_adapter(some)).open(base)
    ids = torch.full((1, base.grid, base.grid), base.mask_id)

    def logits(prompt: str, guard: float) -> torch.Tensor:
        settings = base.sampling(steps=3, guard=guard)
        wanted = [PictureRequest(prompt, 0, settings)]
        with torch.no_grad():
            said = base.guide(drawers.texts(wanted), settings, drawers.shares(wanted))
            return said(ids, ids == base.mask_id, 0.5)

    assert not torch.equal(logits("a dog", 0), logits("a dog", 2))
    assert torch.equal(logits("a cat in the snow", 0), logits("a cat in the snow", 2))
    with pytest.raises(UsageError, match="which layers of .* carry style was not measured"):
        base.training(layers="style")


def settings_of(picture: str) -> dict[str, Any]:
    said = read_png_settings(Path(picture))
    assert said is not None
    return said


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_style_is_learnt_and_drawn(model: Callable[..., Any], kind: str) -> None:
    """Three branches at each step, several prompts and seeds; what is there is not drawn again."""
    learn(model, kind)
    generate = ("generate", ADAPTER, "a cat", "a dog", "-n", 2, "--steps", 3, "--lambda-a", 1, "--lambda-b", 3)
    drawn = model(*generate)
    assert (drawn["drawn"], len(drawn["pictures"]), len(drawn["sheets"])) == (4, 4, 1)
    assert model(*generate)["drawn"] == 0
    alone = model("generate", "--base-only", "a cat", "-n", 1, "--steps", 3, "-o", "base")
    assert pixels(alone["pictures"][0]["path"]) != pixels(drawn["pictures"][0]["path"])


def test_negative_text(model: Callable[..., Any], folder: Path) -> None:
    """The base's own where nothing is said, what is said in its place, and none at all."""
    own = load_base(str(folder), tiny.CPU).spec.sampling.get("negative", "")
    assert bool(own) == (load_base(str(folder), tiny.CPU).spec.pipelines == MEISSONIC.pipelines)
    generate = ("generate", "--base-only", "a cat", "-n", 1, "--steps", 3, "-o")
    plain, said, none = (
        model(*generate, name, *more)["pictures"][0]["path"]
        for name, more in (("plain", ()), ("said", ("--negative", "red")), ("none", ("--negative", "")))
    )
    assert own.startswith(settings_of(plain).get("negative", ""))  # as much of it as the tiny encoder reads
    assert settings_of(said)["negative"] == "red"
    assert settings_of(none).get("negative", "") == ""
    assert pixels(said) != pixels(none)
    assert (pixels(plain) == pixels(none)) == (own == "")


def test_prompt_files_with_settings_of_their_own(model: Callable[..., Any]) -> None:
    Path("prompts.txt").write_text('a cat\na dog --seed 5 -n 2 --steps 2\na house --negative "red"\n', encoding="utf-8")
    drawn = model("generate", "--base-only", "--prompts", "prompts.txt", "-n", 1, "--steps", 3)
    said = [settings_of(one["path"]) for one in drawn["pictures"]]
    assert [(one["prompt"], one["seed"], one["steps"]) for one in said] == [
        ("a cat", 0, 3), ("a dog", 5, 2), ("a dog", 6, 2), ("a house", 0, 3)
    ]  # fmt: skip
    assert said[-1]["negative"] == "red"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(model: Callable[..., Any], folder: Path, preset: str) -> None:
    base = load_base(str(folder), tiny.CPU)
    drawn = model("generate", "--base-only", "a cat", "-n", 1, "--preset", preset)
    assert drawn["settings"].items() >= base.preset(preset).items()


def passes(base: Base, preset: str | None) -> float:
    """How many networks run for a picture of three branches."""
    settings = base.sampling(**base.preset(preset))
    guided = -(-settings.steps // settings.guidance_every)
    return 3 * guided + settings.steps - guided


def test_presets_say_what_they_do(folder: Path) -> None:
    """The preview is the shortest, fast is at most two thirds of the usual, and both have more than a few steps."""
    base = load_base(str(folder), tiny.CPU)
    usual, fast, preview = (passes(base, name) for name in (None, "fast", "preview"))
    assert fast <= 0.67 * usual
    assert preview <= fast
    assert base.preset("fast")["steps"] >= base.sampling().steps / 2
    assert base.preset(None) == {}


@pytest.mark.parametrize(
    "change",
    [("--mask", "mask.png"), ("--outpaint", "left=24"), ("--restyle", 0.6), ("--mask-free", "--iterations", 2)],
)
def test_edits(model: Callable[..., Any], change: tuple[object, ...]) -> None:
    mask = Image.new("L", draw().size)
    mask.paste(255, (10, 10, 40, 40))
    mask.save("mask.png")
    learn(model)
    steps = () if "--mask-free" in change else ("--steps", 2)
    drawn = model("edit", "ref.png", "a hat", *change, "--adapter", ADAPTER, "-n", 2, *steps)
    made = [Image.open(one["path"]).convert("RGB") for one in drawn["pictures"]]
    assert made[0].tobytes() != made[1].tobytes()
    if "--mask" in change:
        assert all(one.getpixel((2, 2)) == draw().convert("RGB").getpixel((2, 2)) for one in made)
    if "--outpaint" in change:
        assert made[0].size == (draw().width + 24, draw().height)


def test_mixed_and_merged(model: Callable[..., Any]) -> None:
    learn(model)
    learn(model, output="second.safetensors")
    how = ("-n", 1, "--steps", 2, "-o")
    shares = ("--mix", f"{ADAPTER}:0.5", "--mix", "second.safetensors:0.5")
    assert model("generate", *shares, "a cat", *how, "mixed")["drawn"] == 1
    name = ("--learn", "object", "--content", "a teapot", "--width", 1, "--steps", 2, "-o", "teapot.safetensors")
    model("train", "ref.png", *name)
    assert model("generate", ADAPTER, "a teapot", "--object", "teapot.safetensors", *how, "object")["drawn"] == 1
    model("merge", f"{ADAPTER}:0.5", "second.safetensors:0.5", "-o", "merged.safetensors")
    assert model("generate", "merged.safetensors", "a cat", *how, "merged")["drawn"] == 1


def test_collections_and_ids(model: Callable[..., Any]) -> None:
    learn(model)
    Path("kit.toml").write_text('steps = 2\n[[asset]]\nprompt = "a bird"\nname = "bird"\n', encoding="utf-8")
    assert model("kit", ADAPTER, "kit.toml", "-o", "kit")["drawn"] == 1
    assert model("alphabet", ADAPTER, "--letters", "AB", "--steps", 2, "-o", "letters")["drawn"] == 2
    model("tokenize", "ref.png", "-o", "ids")
    assert len(list(Path("ids").iterdir())) == 3


def test_a_smaller_size_is_refused_with_the_one_that_it_draws_and_a_larger_one_resampled(
    folder: Path, styledrop: Run
) -> None:
    command = ("generate", "--base-only", "a cat", "-n", 1, "--steps", 1, "--model", folder, "--size")
    done = styledrop(*command, 8)
    assert done.code == 2
    assert "draws 16 px, not 8" in done.err and "--size 16" in done.err
    done = styledrop(*command, 40)
    assert done.code == 0 and "draws 16 px; 40 px are resampled from that" in done.err


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed")
def test_a_scorer_judges_what_the_base_cannot_see(model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text encoder has no tower for pictures: sweep, score, iterate and report take a CLIP of open_clip's."""
    write_scorer(Path("scorer"))
    monkeypatch.setattr(rounds, "GRADED_EACH", 1)
    judged = ("--scorer", f"local-dir:{Path('scorer')}")
    learn(model)
    write_recommended(Path(ADAPTER), {"steps": 2})
    swept = model("sweep", ADAPTER, "a cat", "a dog", "--lambda-b", "1,4", "-n", 1, "-o", "sweep.png", *judged)
    assert Path("sweep.png").exists() and swept
    model("generate", ADAPTER, "a cat", "a dog", "-n", 1)
    assert len(model("score", "styledrop-out", *judged)["pictures"]) == 2
    model("iterate", ADAPTER, "--rounds", 1, "--per-prompt", 2, "--steps", 2, "-o", "rounds", *judged)
    assert Path("rounds/best.safetensors").exists()
    model("report", ADAPTER, "-n", 1, "-o", "report.html", *judged)
    assert "data:image" in Path("report.html").read_text(encoding="utf-8")


def write_scorer(folder: Path) -> None:
    """A CLIP of a few thousand random weights, as open_clip writes one."""
    library = clip_scorer.open_clip()
    sizes = open_clip_config(replace(tiny.CLIP, vocab_size=49408, context_length=77))
    network = library.CLIP(**sizes)
    tiny.randomise(network, 3)
    save_tensors(folder / "open_clip_model.safetensors", network.state_dict())
    write_json(folder / "open_clip_config.json", {"model_cfg": sizes, "preprocess_cfg": {}})


# ---- how long it takes ----


def slow(monkeypatch: pytest.MonkeyPatch, module: Any, seconds: float) -> None:
    """Let each step take so many seconds, by the clock of the forecast in ``module``."""
    now = iter(range(1000))
    monkeypatch.setattr(module, "Forecast", partial(Forecast, clock=lambda: seconds * next(now)))


@pytest.mark.parametrize(("seconds", "said"), [(30.0, True), (0.5, False)])
def test_a_long_picture_is_announced(
    folder: Path, styledrop: Run, monkeypatch: pytest.MonkeyPatch, seconds: float, said: bool
) -> None:
    slow(monkeypatch, drawing, seconds)
    done = styledrop("generate", "--base-only", "a cat", "-n", 2, "--steps", 4, "--model", folder)
    told = "a picture takes about 2 min 00 s on this machine: 4 steps of 30.0 s each; all 2 take 4 min 00 s"
    assert (told in done.err) == said
    assert done.err.count("on this machine") == said


def test_a_long_training_is_announced(folder: Path, styledrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    draw().save("ref.png")
    slow(monkeypatch, train_command, 600.0)
    how = ("--steps", 4, "--width", 1, "--device", "cpu", "--model", folder)
    done = styledrop("train", "ref.png", "--style", "ink", "--content", "a cat", *how)
    assert done.code == 0
    assert "this takes about 40 min 00 s: 4 steps of 600.0 s each; this is work for a graphics card" in done.err
