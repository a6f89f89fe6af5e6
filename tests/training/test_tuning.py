"""Learning a style: what is trained, on which views of which pictures, and what the file says."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from conftest import draw
from styledrop_cli import __version__
from styledrop_cli.adapters.examples import guess_content, tokenize_views
from styledrop_cli.adapters.file import new_adapter, open_adapter
from styledrop_cli.adapters.header import AdapterFile, load_adapter
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import ModelError, PictureError, UsageError
from styledrop_cli.io.tensors import read_tensors
from styledrop_cli.judging.probes import Probes, Scores
from styledrop_cli.models.adapter import Adapter
from styledrop_cli.models.tokenizer import ImageTokenizer
from styledrop_cli.settings import SampleSettings, TrainSettings
from styledrop_cli.training import adapter as adapter_training
from styledrop_cli.training.adapter import train_adapter

SETTINGS = TrainSettings(steps=3, lr=1e-2, width=2, shared=False, batch_size=4, views=4, checkpoints=0)
KINDS: list[dict[str, Any]] = [
    {"shared": False},
    {"shared": True},
    {"kind": "lora", "width": 1, "targets": ("to_v",)},
    {"kind": "prompt"},
    {"layers": "1,3"},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.base(tmp_path_factory.mktemp("base") / "tiny")


def put(name: str, color: str | None = None) -> Path:
    path = Path(name)
    (Image.new("RGB", (48, 32), color) if color else draw(48, 32)).save(path)
    return path


def train(
    base: Base,
    *names: str,
    output: str = "a.safetensors",
    on_step: Callable[[int, int, float], None] = lambda step, total, loss: None,
    **changes: Any,
) -> AdapterFile:
    """Train with a content for each picture; the pictures are ``disc.png`` or named by their colour."""
    pictures = [put(n, None if n.startswith("disc") else n.removesuffix(".png")) for n in names]
    train_adapter(
        base,
        pictures=pictures,
        style="watercolor",
        contents=["a cat", "a dog"][: len(names)],
        settings=replace(SETTINGS, **changes),
        output=Path(output),
        on_step=on_step,
    )
    return load_adapter(Path(output))


def learnt(file: AdapterFile) -> dict[str, Tensor]:
    return {n.removeprefix("adapter."): t for n, t in file.tensors.items() if n.startswith("adapter.")}


# ---- the adapter ----


@pytest.mark.parametrize("changes", KINDS)
def test_after_three_steps_every_saved_tensor_has_changed(base: Base, changes: dict[str, Any]) -> None:
    fresh = new_adapter(base.transformer, replace(SETTINGS, seed=3, **changes)).state_dict()
    made = learnt(train(base, "disc.png", seed=3, **changes))
    assert set(made) == set(fresh)
    for name, tensor in made.items():
        assert tensor.dtype == torch.float32
        # Not only somewhere: in every layer.
        assert ((tensor != fresh[name]).float().mean(-1) > 0.9).all(), name


def test_a_single_step_learns(base: Base) -> None:
    fresh = new_adapter(base.transformer, SETTINGS).state_dict()
    assert not torch.equal(learnt(train(base, "disc.png", steps=1))["up"], fresh["up"])


def test_the_base_is_left_alone(base: Base) -> None:
    before = {name: t.clone() for name, t in base.transformer.state_dict().items()}
    train(base, "disc.png")
    after = base.transformer.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p.requires_grad for p in base.transformer.parameters())


def test_same_seed_same_adapter(base: Base) -> None:
    one, two, other = (learnt(train(base, "disc.png", seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_too_wide_an_adapter_is_refused_before_training(base: Base) -> None:
    share = sum(p.numel() for p in new_adapter(base.transformer, SETTINGS).parameters()) / sum(
        p.numel() for p in base.transformer.parameters()
    )
    assert share < 0.01
    for kind in ("bottleneck", "lora", "prompt"):
        with pytest.raises(UsageError, match=rf"kind {kind} and width 64 is \d+\.\d% of the base"):
            train(base, "disc.png", kind=kind, width=64)
    with pytest.raises(UsageError, match="targets must be of to_q, to_k, to_v, to_out, not mlp"):
        train(base, "disc.png", kind="lora", targets=("mlp",))
    assert {p.name for p in Path().iterdir()} == {"disc.png"}


@pytest.mark.parametrize("kind", ["bottleneck", "lora", "prompt"])
def test_some_layers(base: Base, kind: str) -> None:
    """The file says which, holds less, and a header that says others does not open."""
    given: dict[str, Any] = {"kind": kind, "width": 1, "targets": ("to_v",)}
    every = train(base, "disc.png", **given)
    some = train(base, "disc.png", **given, layers="2-3", output="b.safetensors")
    assert "layers" not in every.header.config
    assert (some.header.config["layers"], some.header.settings["layers"]) == ([2, 3], "2-3")
    sizes = [sum(t.numel() for t in learnt(file).values()) for file in (every, some)]
    assert sizes[1] < sizes[0]
    assert open_adapter(base, some).base.config.layers == (2, 3)
    for wrong in ([3], [1, 2, 3], [2, 4]):
        other = some.header.with_values(config=some.header.config | {"layers": wrong})
        with pytest.raises(ModelError):
            open_adapter(base, replace(some, header=other))


def test_the_layers_that_carry_style_are_those_that_were_measured(base: Base) -> None:
    with pytest.raises(UsageError, match="which layers of tiny carry style was not measured") as caught:
        base.training(layers="style")
    assert caught.value.hint == "Say their numbers: --layers 1-3 are all."
    measured = replace(base, spec=replace(base.spec, style_layers="2-3"))
    assert measured.training(layers="style").layers == "2-3"
    assert measured.training().layers == "all"
    with pytest.raises(UsageError, match="there is no layer 4: this base has 1 to 3"):
        train(base, "disc.png", layers="2-4")


def test_the_layers_of_pocket_that_carry_style() -> None:
    base = load_base("pocket", tiny.CPU)
    every, some = (new_adapter(base.transformer, base.training(layers=layers)) for layers in ("all", "style"))
    assert (every.config.layers, some.config.layers) == ((), (2, 3, 4, 5, 6))
    assert 6 * sum(p.numel() for p in some.parameters()) == 5 * sum(p.numel() for p in every.parameters())


# ---- the pictures ----


def test_every_reference_is_used(base: Base) -> None:
    """Exchanging the second picture changes what is learnt, and both are in the file."""
    one = train(base, "disc.png", "red.png")
    two = train(base, "disc.png", "green.png")
    alone = train(base, "disc.png")
    for name, tensor in learnt(one).items():
        assert not torch.equal(learnt(two)[name], tensor)
        assert not torch.equal(learnt(alone)[name], tensor)
    ids, owners = one.tensors["views.ids"], one.tensors["views.picture"]
    assert owners.tolist() == [0] * 4 + [1] * 4
    assert ids.shape == (8, 4, 4)
    assert ids.dtype == torch.int16
    assert torch.equal(ids[:4], two.tensors["views.ids"][:4])
    assert not torch.equal(ids[4:], two.tensors["views.ids"][4:])
    assert [p["name"] for p in one.header.pictures] == ["disc.png", "red.png"]
    assert one.header.contents == ["a cat", "a dog"]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_small_batches_take_the_references_in_turn(
    base: Base, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    seen: list[int] = []

    def watched(
        transformer: object, ids: Tensor, masked: Tensor, condition: object, adapter: Any, smoothing: float
    ) -> Tensor:
        assert masked.flatten(1).any(1).all()
        assert smoothing == 0.1
        seen.extend(len(i.unique()) for i in ids)
        total: Tensor = sum(p.sum() for p in adapter.parameters())
        return total

    one, two = torch.zeros(4, 4, 4), torch.arange(16).view(4, 4).expand(4, 4, 4)
    views = {"views.ids": torch.cat([one, two]).short(), "views.picture": torch.arange(2).repeat_interleave(4)}
    monkeypatch.setattr(adapter_training, "masked_cross_entropy", watched)
    monkeypatch.setattr(adapter_training, "tokenize_views", lambda *arguments: views)
    train(base, "disc.png", "red.png", batch_size=batch_size, steps=4)
    assert seen == [1, 16] * (2 * batch_size)


def test_each_reference_has_its_own_content_text(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    text_states = Base.text_states

    def watched(self: Base, texts: list[str], *network: Any) -> Any:
        prompts.extend(texts)
        return text_states(self, texts, *network)

    monkeypatch.setattr(Base, "text_states", watched)
    train(base, "disc.png", "red.png")
    assert prompts == ["a cat in watercolor style", "a dog in watercolor style"]


def test_contents_must_match_the_pictures(base: Base) -> None:
    with pytest.raises(UsageError, match="1 pictures but 2 contents"):
        train_adapter(
            base,
            pictures=[put("disc.png")],
            style="x",
            contents=["a cat", "a dog"],
            settings=SETTINGS,
            output=Path("a.safetensors"),
        )


def test_unreadable_pictures_write_nothing(base: Base) -> None:
    Path("broken.png").write_bytes(b"not a picture")
    for name in ("broken.png", "nowhere.png"):
        with pytest.raises(PictureError, match=name):
            train_adapter(
                base,
                pictures=[put("disc.png"), Path(name)],
                style="x",
                settings=SETTINGS,
                output=Path("a.safetensors"),
            )
    assert {p.name for p in Path().iterdir()} == {"broken.png", "disc.png"}


# ---- the views ----


class ClipScorer:
    """What the tokenizer is shown."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.views: list[Tensor] = []

        def encode(tokenizer: ImageTokenizer, pictures: Tensor) -> Tensor:
            self.views.extend(pictures)
            return torch.zeros(len(pictures), 4, 4, dtype=torch.long)

        monkeypatch.setattr(ImageTokenizer, "encode", encode)


def halves() -> Image.Image:
    """Red on the left, blue on the right, a green line around."""
    image = Image.new("RGB", (64, 64), (0, 255, 0))
    image.paste((255, 0, 0), (4, 4, 32, 60))
    image.paste((0, 0, 255), (32, 4, 60, 60))
    return image


def mirrored(view: Tensor) -> bool:
    middle = view[:, 8]
    return bool(middle[2, 4] > middle[0, 4])


def test_the_first_view_is_the_whole_picture(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    clip_scorer = ClipScorer(monkeypatch)
    for seed in range(8):
        tokenize_views(base, [halves(), halves()], ["a cat", "a dog"], 3, tiny.generator(seed))
    assert len(clip_scorer.views) == 48
    for whole in clip_scorer.views[::3]:
        assert torch.equal(whole, clip_scorer.views[0])
        assert whole.shape == (3, 16, 16)
        assert (whole[1, 0] > 0.8).all()  # the line is there on all sides
        assert (whole[1, :, -1] > 0.8).all()
        assert not mirrored(whole)
    cropped = [v for i, v in enumerate(clip_scorer.views) if i % 3]
    assert sum(torch.equal(view, clip_scorer.views[0]) for view in cropped) <= 2  # by chance


@pytest.mark.parametrize("content", ["a logo", "the Letter A", "some text", "a number", "two letters"])
def test_letters_and_logos_are_not_mirrored(base: Base, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    clip_scorer = ClipScorer(monkeypatch)
    tokenize_views(base, [halves(), halves()], [content, "a cat"], 40, tiny.generator())
    lettered, others = clip_scorer.views[:40], clip_scorer.views[40:]
    assert not any(mirrored(view) for view in lettered)
    assert 10 < sum(mirrored(view) for view in others) < 30


def test_views_are_large_crops(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    clip_scorer = ClipScorer(monkeypatch)
    # Brightness tells the place: it runs from 0 at the left to 1 at the right.
    ramp = Image.linear_gradient("L").rotate(90).convert("RGB")
    tokenize_views(base, [ramp], ["a logo"], 60, tiny.generator())
    spans = torch.stack([view[0, 0, -1] - view[0, 0, 0] for view in clip_scorer.views])
    full = float(spans[0])
    assert spans.min() > 0.72 * full
    assert spans.max() <= full + 1e-6
    assert spans.std() > 0.03


def test_views_are_ids_of_the_crops(base: Base) -> None:
    views = tokenize_views(base, [draw(), halves()], ["a cat", "a dog"], 20, tiny.generator())
    ids, owners = views["views.ids"], views["views.picture"]
    assert ids.shape == (40, 4, 4)
    assert owners.tolist() == [0] * 20 + [1] * 20
    assert len(ids[:20].unique(dim=0)) > 2
    again = tokenize_views(base, [draw(), halves()], ["a cat", "a dog"], 20, tiny.generator())
    assert all(torch.equal(views[name], again[name]) for name in views)
    # For super-resolution the same crops once more, twice as large.
    large = tokenize_views(base, [draw(), halves()], ["a cat", "a dog"], 20, tiny.generator(), True)
    assert large["views.superres"].shape == (40, 8, 8)
    assert float((large["views.ids"] == ids).float().mean()) > 0.8  # another way of scaling, the same crops


# ---- what is said ----


def test_progress_and_warnings(base: Base) -> None:
    steps: list[tuple[int, int]] = []
    messages: list[str] = []
    result = train_adapter(
        base,
        pictures=[put("disc.png")],
        style="watercolor",
        contents=["a corgi"],
        settings=replace(SETTINGS, steps=4),
        output=Path("out/a.safetensors"),
        on_step=lambda step, total, loss: steps.append((step, total)),
        on_message=messages.append,
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result.path == Path("out/a.safetensors")
    assert result.path.exists()
    assert result.content_texts == ["a corgi"]
    assert result.seconds > 0
    # A tokenizer of random weights shows nothing well: how much is left is said, and what would help.
    assert result.reconstruction_psnr < 17
    assert any("of its edges are left" in m and "disc.png" in m and "--model" in m for m in messages)
    assert any("does not know 'corgi'" in m for m in messages)


def test_guessing_the_content(base: Base) -> None:
    messages: list[str] = []

    def guess(base: Base) -> str:
        return guess_content(base, draw(), Path("ref.png"), messages.append)

    measured = replace(base.spec, guess_from=0.5)
    sure = replace(base.having(clip=tiny_clip(base, temperature=8.0)), spec=measured)
    assert guess(sure) in tiny.CONTENTS
    assert "ref.png shows" in messages[-1]
    assert "%" in messages[-1]
    # How sure it is says nothing by itself: it is taken only where so sure a guess was measured to be right mostly.
    for unsure in (
        replace(sure, spec=replace(measured, guess_from=None)),
        replace(base.having(clip=tiny_clip(base, temperature=-20.0)), spec=measured),
        replace(sure, contents=[]),
    ):
        assert guess(unsure) == "a picture"
        assert messages[-1].startswith("Warning: tiny cannot tell what ref.png shows")
    assert len(messages) == 4
    assert all("--content" in m for m in messages)


def test_pocket_guesses_nothing() -> None:
    """As sure as its CLIP may be, it is right in fewer than 80 % (``benchmarks/guesses.py``)."""
    assert load_base("pocket", tiny.CPU).spec.guess_from is None


def tiny_clip(base: Base, temperature: float) -> Any:
    import copy

    clip = copy.deepcopy(base.clip)
    clip.logit_scale.data.fill_(temperature)
    return clip


# ---- the file ----


def test_an_adapter_file_explains_itself(base: Base) -> None:
    file = train(base, "disc.png", "red.png", lambda_a=1.5, seed=5)
    settings = replace(SETTINGS, lambda_a=1.5, seed=5)
    header = file.header.to_json()
    assert header["format"] == 1
    assert header["kind"] == "bottleneck"
    assert header["config"] == {"width": 2, "shared": False}
    assert header["base"] == {"name": "tiny", "hash": base.hash}
    assert header["style"] == "watercolor"
    assert header["settings"] == asdict(settings) | {"targets": list(settings.targets)}
    assert header["recommended"] == {"lambda_a": 1.5, "lambda_b": settings.lambda_b}
    assert (header["step"], header["seed"], header["styledrop"]) == (3, 5, __version__)
    assert header["loss"] > 0
    for entry, name in zip(header["pictures"], ("disc.png", "red.png"), strict=True):
        assert entry["sha256"] == hashlib.sha256(Path(name).read_bytes()).hexdigest()
        assert (entry["width"], entry["height"]) == (48, 32)
    with Image.open(io.BytesIO(base64.b64decode(header["thumbnail"].split(",")[1]))) as thumbnail:
        assert thumbnail.size == (96, 96)
    metadata = read_tensors(file.path)[1]
    assert metadata["modelspec.title"] == "watercolor"
    assert "a cat in watercolor style" in metadata["modelspec.usage_hint"]
    assert file.path.stat().st_size < 100_000
    assert {p.name for p in Path().iterdir()} == {"a.safetensors", "a.safetensors.run", "disc.png", "red.png"}


@pytest.mark.parametrize("changes", KINDS)
def test_an_adapter_comes_back_exactly(base: Base, changes: dict[str, Any]) -> None:
    file = train(base, "disc.png", **changes)
    adapter = open_adapter(base, file).base
    assert file.header.kind == adapter.kind == changes.get("kind", "bottleneck")
    assert not any(p.requires_grad for p in adapter.parameters())
    assert set(adapter.state_dict()) == set(learnt(file))
    for name, tensor in adapter.state_dict().items():
        assert torch.equal(tensor, learnt(file)[name])


def test_an_adapter_of_another_base_is_refused(base: Base) -> None:
    file = train(base, "disc.png")
    other = tiny.base(Path("other"), seed=9)
    with pytest.raises(ModelError, match=r"trained on another base \(tiny\) than this one \(other\)"):
        open_adapter(other, file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "hypernetwork"}, "kind 'hypernetwork'"),
        ({"kind": "lora"}, "unknown settings: shared, width"),
        ({"kind": "lora", "config": {"rank": 1}}, "does not fit: .* is missing"),
        ({"config": {"width": 2, "rank": 1}}, "unknown settings: rank"),
        ({"config": {"width": 0}}, "width must be positive, not 0"),
        ({"config": {"width": 3, "shared": False}}, "its header says width 3, and its tensors have 2"),
        ({"config": {"width": 2, "shared": True}}, "does not fit"),
        ({"config": {"width": "many"}}, "a.safetensors"),
    ],
)
def test_adapters_that_do_not_fit(base: Base, changes: dict[str, Any], words: str) -> None:
    file = train(base, "disc.png", steps=1)
    tiny.write_adapter(file.path, file.tensors, file.header.to_json() | changes)
    with pytest.raises(ModelError, match=words):
        open_adapter(base, load_adapter(file.path))


# ---- stopping and going on ----


def stop_at(step: int) -> Callable[[int, int, float], None]:
    def watch(now: int, total: int, loss: float) -> None:
        if now == step:
            raise KeyboardInterrupt

    return watch


def interrupted(base: Base, step: int, **changes: Any) -> list[str]:
    """Train until Ctrl-C after ``step``; what was said."""
    messages: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        go(base, messages, on_step=stop_at(step), **changes)
    assert not Path("a.safetensors").exists()
    return messages


def go(base: Base, messages: list[str] | None = None, **changes: Any) -> AdapterFile:
    own = {name: changes.pop(name) for name in ("on_step", "fresh", "style") if name in changes}
    train_adapter(
        base,
        pictures=[put("disc.png")],
        contents=["a cat"],
        settings=replace(SETTINGS, **({"steps": 8, "checkpoints": 2} | changes)),
        output=Path("a.safetensors"),
        on_message=(messages if messages is not None else []).append,
        **({"style": "watercolor"} | own),
    )
    return load_adapter(Path("a.safetensors"))


RUN = Path("a.safetensors.run")


@pytest.mark.parametrize("changes", KINDS)
@pytest.mark.parametrize("stop", [1, 4, 6, 8])
def test_a_resumed_run_ends_in_the_same_bits(base: Base, changes: dict[str, Any], stop: int) -> None:
    whole, curve = go(base, **changes), (RUN / "curve.json").read_text(encoding="utf-8")
    whole.path.unlink()
    said = interrupted(base, stop, fresh=True, **changes)
    assert f"stopped at step {stop} of 8; the same command goes on from there" in said
    steps: list[int] = []
    said = []
    again = go(base, said, on_step=lambda step, total, loss: steps.append(step), **changes)
    assert steps == list(range(stop + 1, 9))
    assert f"going on from step {stop} of 8" in said
    assert set(again.tensors) == set(whole.tensors)
    assert all(torch.equal(again.tensors[name], whole.tensors[name]) for name in whole.tensors)
    assert (RUN / "curve.json").read_text(encoding="utf-8") == curve
    assert again.header.to_json() | {"created": 0} == whole.header.to_json() | {"created": 0}


def test_ctrl_c_while_the_test_pictures_are_drawn(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = go(base)
    whole.path.unlink()
    measure = Probes.measure

    def stopped(self: Probes, adapter: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Probes, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        go(base, fresh=True)
    monkeypatch.setattr(Probes, "measure", measure)
    again = go(base)
    assert [c["step"] for c in json.loads((RUN / "curve.json").read_text("utf-8"))["checkpoints"]] == [4, 8]
    assert all(torch.equal(again.tensors[name], whole.tensors[name]) for name in whole.tensors)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 2e-2}, "lr: 0.01 there, 0.02 now"),
        ({"steps": 9}, "steps: 8 there, 9 now"),
        ({"style": "ink"}, 'style: "watercolor" there, "ink" now'),
        ({"kind": "prompt", "seed": 4}, 'kind: "bottleneck" there, "prompt" now; seed: 0 there, 4 now'),
    ],
)
def test_other_settings_are_refused_by_name(base: Base, changes: dict[str, Any], words: str) -> None:
    interrupted(base, 5)
    with pytest.raises(UsageError, match=words) as error:
        go(base, **changes)
    assert "a.safetensors.run holds an unfinished run" in error.value.message
    assert error.value.hint
    assert "--fresh" in error.value.hint
    assert go(base, fresh=True, **changes).header.style == changes.get("style", "watercolor")


def test_another_picture_of_the_same_name_is_another_run(base: Base) -> None:
    interrupted(base, 5)
    with pytest.raises(UsageError, match=r'pictures: \["[0-9a-f]{64}"\] there, \["[0-9a-f]{64}"\] now'):
        train(base, "red.png", steps=8, checkpoints=2)


def test_fresh_starts_over(base: Base) -> None:
    interrupted(base, 5)
    steps: list[int] = []
    go(base, fresh=True, on_step=lambda step, total, loss: steps.append(step))
    assert steps == list(range(1, 9))


def test_a_finished_run_stands_in_nobodys_way(base: Base) -> None:
    go(base).path.unlink()
    assert not list(RUN.glob("state-*"))
    steps: list[int] = []
    go(base, lr=2e-2, steps=6, on_step=lambda step, total, loss: steps.append(step))
    assert steps == list(range(1, 7))
    assert sorted(p.name for p in RUN.glob("step-*.png")) == ["step-0000003.png", "step-0000006.png"]


def flip(path: Path) -> None:
    """One bit of the last tensor."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def turn_into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [flip, lambda p: p.write_bytes(p.read_bytes()[:-40]), lambda p: p.write_bytes(b""), turn_into_a_folder],
)
def test_a_broken_state_falls_back_to_the_one_before(
    base: Base, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(adapter_training, "SAVE_EVERY", 2)
    whole = go(base)
    whole.path.unlink()
    interrupted(base, 7, fresh=True)
    states = sorted(RUN.glob("state-*"))
    assert [p.name for p in states] == ["state-0000006.safetensors", "state-0000007.safetensors"]
    damage(states[-1])
    said: list[str] = []
    again = go(base, said)
    assert any(m.startswith("Warning:") and "state-0000007" in m and "the one before" in m for m in said)
    assert "going on from step 6 of 8" in said
    assert all(torch.equal(again.tensors[name], whole.tensors[name]) for name in whole.tensors)
    # With none left, from the beginning.
    again.path.unlink()
    interrupted(base, 3, fresh=True)
    for state in RUN.glob("state-*"):
        damage(state)
    again = go(base)
    assert all(torch.equal(again.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_a_damaged_manifest_is_no_guess(base: Base) -> None:
    interrupted(base, 5)
    (RUN / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"run\.json is damaged"):
        go(base)
    go(base, fresh=True)


# ---- the right checkpoint ----


def measured(*totals: float) -> Callable[..., Any]:
    """Test pictures that score as told, in turn."""
    turn = iter(totals)

    def measure(self: Probes, adapter: Any) -> tuple[Scores, Image.Image]:
        return Scores(next(turn), 0.0, 0.0, 0.0), draw()

    return measure


@pytest.mark.parametrize(
    ("totals", "last", "chosen"),
    [
        ((0.5, 0.9, 0.7), False, 4),
        ((0.5, 0.7, 0.9), False, 6),
        ((0.9, 0.9, 0.1), False, 4),
        ((0.9, 0.7, 0.8), False, 6),
        ((0.9, 0.8, 0.7), False, 4),
        ((0.9, 0.5, 0.1), True, 6),
    ],
)
def test_the_best_checkpoint_is_written(
    base: Base, monkeypatch: pytest.MonkeyPatch, totals: tuple[float, ...], last: bool, chosen: int
) -> None:
    monkeypatch.setattr(Probes, "measure", measured(*totals))
    file = go(base, steps=6, checkpoints=3, last=last)
    curve = json.loads((RUN / "curve.json").read_text("utf-8"))
    assert curve["chosen"] == file.header.step == chosen
    assert [c["step"] for c in curve["checkpoints"]] == [2, 4, 6]
    assert [c["scores"]["total"] for c in curve["checkpoints"]] == list(totals)
    assert [p[0] for p in curve["losses"]] == [1, 2, 3, 4, 5, 6]
    assert file.path.read_bytes() == (RUN / f"step-000000{chosen}.safetensors").read_bytes()
    for step in (2, 4, 6):  # every one can be drawn with
        open_adapter(base, load_adapter(RUN / f"step-000000{step}.safetensors"))
        assert (RUN / f"step-000000{step}.png").exists()


SCALES = {"lambda_a": 0.25, "lambda_b": 3.0}


@pytest.mark.parametrize(
    ("changes", "recommended"),
    [
        ({}, SCALES),
        ({"choose_scales": False}, {"lambda_a": 0.0, "lambda_b": 1.5}),
        ({"checkpoints": 0}, {"lambda_a": 0.0, "lambda_b": 1.5}),
    ],
)
def test_the_test_pictures_choose_the_scales(
    base: Base, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], recommended: dict[str, float]
) -> None:
    asked: list[Tensor] = []

    def best(self: Probes, adapter: Adapter) -> tuple[dict[str, float], float, tuple[float, float]]:
        asked.append(next(iter(adapter.parameters())).clone())
        return SCALES, 0.1, (0.05, 0.15)

    monkeypatch.setattr(Probes, "best_scales", best)
    monkeypatch.setattr(Probes, "measure", measured(0.9, 0.2))
    messages: list[str] = []
    file = go(base, messages, steps=4, **{"checkpoints": 2} | changes)
    assert file.header.recommended == recommended
    assert any("lambda_a 0.25, lambda_b 3" in m and "0.050 to 0.150" in m for m in messages) == (recommended == SCALES)
    if asked:  # of the checkpoint that is taken, and not of the last
        assert file.header.step == 2
        kept = open_adapter(base, load_adapter(RUN / "step-0000002.safetensors")).base
        assert torch.equal(asked[0], next(iter(kept.parameters())))


def test_scales_that_were_given_are_recommended(base: Base) -> None:
    assert base.training().choose_scales
    for given in ({"lambda_a": 0.1}, {"lambda_b": 2.0}):
        assert not base.training(**given).choose_scales


def test_without_checkpoints_no_picture_is_drawn(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probes, "__init__", None)
    file = go(base, checkpoints=0)
    assert file.header.step == 8
    assert not list(RUN.glob("*.png"))


def test_a_base_that_cannot_see_takes_the_last(base: Base) -> None:
    import copy

    clip = copy.deepcopy(base.clip)
    clip.visual = None
    assert go(base.having(clip=clip)).header.step == 8


# ---- drawing with it ----


def test_generate_appends_the_adapters_own_style(base: Base) -> None:
    file = train(base, "disc.png", steps=20)
    settings = SampleSettings(steps=3, size=16, lambda_a=2)

    def drawn(adapter: AdapterFile | None, prompt: str, style: str | None = None) -> list[bytes]:
        made = tiny.generate(base, adapter, prompts=[prompt], count=4, settings=settings, style=style)
        return [picture.tobytes() for _, _, picture in made]

    styled = drawn(file, "a cat")
    assert styled == drawn(file, "a cat")
    assert styled == drawn(file, "a cat in watercolor style")
    assert styled != drawn(file, "a cat", "")
    assert styled != drawn(file, "a cat", "dog")
    assert styled != drawn(None, "a cat in watercolor style")


def test_an_unnamed_content_needs_no_warning_of_its_own(base: Base) -> None:
    said: list[str] = []
    train_adapter(
        replace(base, contents=[]),
        pictures=[put("disc.png")],
        style="watercolor",
        settings=SETTINGS,
        output=Path("a.safetensors"),
        on_message=said.append,
    )
    assert any("takes it for 'a picture'" in m for m in said)
    assert not any("does not know" in m for m in said)


# ---- super-resolution ----


@pytest.mark.parametrize("changes", KINDS)
def test_super_resolution_gets_an_adapter_of_its_own(tmp_path: Path, changes: dict[str, Any]) -> None:
    base = tiny.base(tmp_path / "tiny", superres=True)
    assert base.superres is not None
    file = train(base, "disc.png", superres_steps=2, **changes)
    own = {n for n in file.tensors if n.startswith("superres.")}
    assert own and own.isdisjoint({f"superres.{n}" for n in file.tensors})
    opened = open_adapter(base, file)
    assert opened.superres is not None
    assert {f"superres.{n}" for n in opened.superres.state_dict()} == own
    share = sum(p.numel() for p in opened.superres.parameters()) / sum(p.numel() for p in base.superres.parameters())
    assert share < 0.01
    assert file.tensors["views.superres"].shape[1:] == (8, 8)
    # It learnt, and the base's adapter is the one that training alone gives.
    again = train(base, "disc.png", superres_steps=4, output="b.safetensors", **changes)
    assert any(not torch.equal(file.tensors[n], again.tensors[n]) for n in own)
    assert all(torch.equal(t, again.tensors[n]) for n, t in file.tensors.items() if n.startswith("adapter."))


def test_super_resolution_can_be_left_out(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "tiny", superres=True)
    file = train(base, "disc.png", superres_steps=0)
    assert file.header.superres is None
    assert not any("superres" in n for n in file.tensors)
    assert open_adapter(base, file).superres is None


def test_an_interrupted_run_keeps_super_resolutions_adapter(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "tiny", superres=True)
    whole = train(base, "disc.png", superres_steps=2, output="whole.safetensors")
    seen: list[int] = []

    def note(step: int, total: int, loss: float) -> None:
        assert total == 2 + 3
        seen.append(step)

    def stop(step: int, total: int, loss: float) -> None:
        if step == 2 + 1:
            raise KeyboardInterrupt

    for damaged in (False, True):
        output = f"{damaged}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            train(base, "disc.png", superres_steps=2, output=output, on_step=stop)
        path = Path(f"{output}.run/superres.safetensors")
        if damaged:
            data = bytearray(path.read_bytes())
            data[-3] ^= 1
            path.write_bytes(bytes(data))
        seen.clear()
        done = train(base, "disc.png", superres_steps=2, output=output, on_step=note)
        assert seen == ([1, 2, 4, 5] if damaged else [4, 5])
        assert all(torch.equal(t, done.tensors[n]) for n, t in whole.tensors.items())
