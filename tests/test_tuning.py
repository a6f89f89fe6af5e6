"""Learning a style: what is trained, on which views of which pictures, and what the file says."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from conftest import draw
from styledrop_cli import __version__, tuning
from styledrop_cli.base import Base
from styledrop_cli.checkpoints import AdapterFile, load_adapter, read_tensors, save_adapter
from styledrop_cli.errors import ModelError, PictureError, UsageError
from styledrop_cli.models.tokenizer import ImageTokenizer
from styledrop_cli.pipeline import generate
from styledrop_cli.settings import SampleSettings, TrainSettings
from styledrop_cli.tuning import guess_content, new_adapter, open_adapter, tokenize_views, train_adapter

SETTINGS = TrainSettings(steps=3, lr=1e-2, width=2, shared=False, batch_size=4, views=4, preview_every=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.base(tmp_path_factory.mktemp("base") / "tiny")


def put(name: str, color: str | None = None) -> Path:
    path = Path(name)
    (Image.new("RGB", (48, 32), color) if color else draw(48, 32)).save(path)
    return path


def train(base: Base, *names: str, output: str = "a.safetensors", **changes: Any) -> AdapterFile:
    """Train with a content for each picture; the pictures are ``disc.png`` or named by their colour."""
    pictures = [put(n, None if n.startswith("disc") else n.removesuffix(".png")) for n in names]
    train_adapter(
        base,
        pictures=pictures,
        style="watercolor",
        contents=["a cat", "a dog"][: len(names)],
        settings=replace(SETTINGS, **changes),
        output=Path(output),
    )
    return load_adapter(Path(output))


def learnt(file: AdapterFile) -> dict[str, Tensor]:
    return {n.removeprefix("adapter."): t for n, t in file.tensors.items() if n.startswith("adapter.")}


# ---- the adapter ----


@pytest.mark.parametrize("shared", [False, True])
def test_after_three_steps_every_saved_tensor_has_changed(base: Base, shared: bool) -> None:
    changes: dict[str, Any] = {"shared": shared, "seed": 3}
    fresh = new_adapter(base, replace(SETTINGS, **changes)).state_dict()
    made = learnt(train(base, "disc.png", **changes))
    assert set(made) == set(fresh) == ({"down", "up", "down_offset", "up_offset"} if shared else {"down", "up"})
    for name, tensor in made.items():
        assert tensor.dtype == torch.float32
        # Not only somewhere: at both sites of every layer.
        assert ((tensor != fresh[name]).flatten(2).float().mean(-1) > 0.9).all(), name


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
    share = sum(p.numel() for p in new_adapter(base, SETTINGS).parameters()) / sum(
        p.numel() for p in base.transformer.parameters()
    )
    assert share < 0.01
    with pytest.raises(UsageError, match=r"width 64 is \d+\.\d% of the base"):
        train(base, "disc.png", width=64)
    assert not Path("a.safetensors").exists()


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
    assert [p["name"] for p in one.header["pictures"]] == ["disc.png", "red.png"]
    assert one.header["contents"] == ["a cat", "a dog"]


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
    views = (torch.cat([one, two]).short(), torch.arange(2).repeat_interleave(4))
    monkeypatch.setattr(tuning, "masked_cross_entropy", watched)
    monkeypatch.setattr(tuning, "tokenize_views", lambda *arguments: views)
    train(base, "disc.png", "red.png", batch_size=batch_size, steps=4)
    assert seen == [1, 16] * (2 * batch_size)


def test_each_reference_has_its_own_content_text(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    condition = Base.condition

    def watched(self: Base, texts: list[str]) -> Any:
        prompts.extend(texts)
        return condition(self, texts)

    monkeypatch.setattr(Base, "condition", watched)
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


class Eye:
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
    eye = Eye(monkeypatch)
    for seed in range(8):
        tokenize_views(base, [halves(), halves()], ["a cat", "a dog"], 3, tiny.generator(seed))
    assert len(eye.views) == 48
    for whole in eye.views[::3]:
        assert torch.equal(whole, eye.views[0])
        assert whole.shape == (3, 16, 16)
        assert (whole[1, 0] > 0.8).all()  # the line is there on all sides
        assert (whole[1, :, -1] > 0.8).all()
        assert not mirrored(whole)
    cropped = [v for i, v in enumerate(eye.views) if i % 3]
    assert sum(torch.equal(view, eye.views[0]) for view in cropped) <= 2  # by chance


@pytest.mark.parametrize("content", ["a logo", "the Letter A", "some text", "a number", "two letters"])
def test_letters_and_logos_are_not_mirrored(base: Base, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    eye = Eye(monkeypatch)
    tokenize_views(base, [halves(), halves()], [content, "a cat"], 40, tiny.generator())
    lettered, others = eye.views[:40], eye.views[40:]
    assert not any(mirrored(view) for view in lettered)
    assert 10 < sum(mirrored(view) for view in others) < 30


def test_views_are_large_crops(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    eye = Eye(monkeypatch)
    # Brightness tells the place: it runs from 0 at the left to 1 at the right.
    ramp = Image.linear_gradient("L").rotate(90).convert("RGB")
    tokenize_views(base, [ramp], ["a logo"], 60, tiny.generator())
    spans = torch.stack([view[0, 0, -1] - view[0, 0, 0] for view in eye.views])
    full = float(spans[0])
    assert spans.min() > 0.72 * full
    assert spans.max() <= full + 1e-6
    assert spans.std() > 0.03


def test_views_are_ids_of_the_crops(base: Base) -> None:
    ids, owners = tokenize_views(base, [draw(), halves()], ["a cat", "a dog"], 20, tiny.generator())
    assert ids.shape == (40, 4, 4)
    assert owners.tolist() == [0] * 20 + [1] * 20
    assert len(ids[:20].unique(dim=0)) > 2
    again, _ = tokenize_views(base, [draw(), halves()], ["a cat", "a dog"], 20, tiny.generator())
    assert torch.equal(ids, again)


# ---- what is said ----


def test_progress_previews_and_warnings(base: Base) -> None:
    steps: list[tuple[int, int]] = []
    messages: list[str] = []
    result = train_adapter(
        base,
        pictures=[put("disc.png")],
        style="watercolor",
        contents=["a corgi"],
        settings=replace(SETTINGS, steps=4, preview_every=2),
        output=Path("out/a.safetensors"),
        on_step=lambda step, total, loss: steps.append((step, total)),
        on_message=messages.append,
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    sheets = sorted(p.name for p in Path("out/a.safetensors.run").iterdir())
    assert sheets == ["step-00002.png", "step-00004.png"]
    assert result.path == Path("out/a.safetensors")
    assert result.path.exists()
    assert result.content_texts == ["a corgi"]
    assert result.seconds > 0
    # A tokenizer of random weights shows nothing well: the number is said, and what would help.
    assert result.reconstruction_psnr < 17
    assert any(f"{result.reconstruction_psnr:.1f} dB" in m and "disc.png" in m and "--model" in m for m in messages)
    assert any("does not know 'corgi'" in m for m in messages)


def test_guessing_the_content(base: Base) -> None:
    messages: list[str] = []

    def guess(base: Base) -> str:
        return guess_content(base, draw(), Path("ref.png"), messages.append)

    sure = replace(base, clip=tiny_clip(base, temperature=8.0))
    assert guess(sure) in tiny.CONTENTS
    assert "ref.png shows" in messages[-1]
    assert "%" in messages[-1]
    assert guess(replace(base, clip=tiny_clip(base, temperature=-20.0))) == "a picture"
    assert messages[-1].startswith("Warning: not sure what ref.png shows")
    assert guess(replace(base, contents=[])) == "a picture"
    assert messages[-1].startswith("Warning: tiny cannot guess")
    assert len(messages) == 3
    assert all("--content" in m for m in messages)


def tiny_clip(base: Base, temperature: float) -> Any:
    import copy

    clip = copy.deepcopy(base.clip)
    clip.logit_scale.data.fill_(temperature)
    return clip


# ---- the file ----


def test_an_adapter_file_explains_itself(base: Base) -> None:
    file = train(base, "disc.png", "red.png", lambda_a=1.5, seed=5)
    settings = replace(SETTINGS, lambda_a=1.5, seed=5)
    header = file.header
    assert header["format"] == 1
    assert header["kind"] == "bottleneck"
    assert header["config"] == {"layers": 3, "dim": 32, "width": 2, "shared": False}
    assert header["base"] == {"name": "tiny", "hash": base.hash}
    assert header["style"] == "watercolor"
    assert header["settings"] == asdict(settings)
    assert header["recommended"] == {"lambda_a": 1.5, "lambda_b": settings.lambda_b}
    assert (header["steps"], header["seed"], header["styledrop"]) == (3, 5, __version__)
    for entry, name in zip(header["pictures"], ("disc.png", "red.png"), strict=True):
        assert entry["sha256"] == hashlib.sha256(Path(name).read_bytes()).hexdigest()
        assert (entry["width"], entry["height"]) == (48, 32)
    with Image.open(io.BytesIO(base64.b64decode(header["thumbnail"].split(",")[1]))) as thumbnail:
        assert thumbnail.size == (96, 96)
    metadata = read_tensors(file.path)[1]
    assert metadata["modelspec.title"] == "watercolor"
    assert "a cat in watercolor style" in metadata["modelspec.usage_hint"]
    assert file.path.stat().st_size < 100_000
    assert {p.name for p in Path().iterdir()} == {"a.safetensors", "disc.png", "red.png"}


def test_an_adapter_comes_back_exactly(base: Base) -> None:
    file = train(base, "disc.png")
    adapter = open_adapter(base, file)
    assert not any(p.requires_grad for p in adapter.parameters())
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
        ({"kind": "lora"}, "kind 'lora'"),
        ({"config": {"layers": 3, "dim": 32, "width": 2, "rank": 1}}, "unknown settings: rank"),
        ({"config": {"layers": 3, "dim": 32, "width": 0}}, "sizes must be positive"),
        ({"config": {"width": 2}}, "missing"),
        ({"config": {"layers": 3, "dim": 32, "width": 3, "shared": False}}, "does not fit: down has shape"),
        ({"config": {"layers": 3, "dim": 32, "width": 2, "shared": True}}, "does not fit"),
        ({"config": {"layers": 3, "dim": 16, "width": 2, "shared": False}}, "does not fit"),
        ({"config": {"layers": "many", "dim": 32}}, "a.safetensors"),
    ],
)
def test_adapters_that_do_not_fit(base: Base, changes: dict[str, Any], words: str) -> None:
    file = train(base, "disc.png", steps=1)
    save_adapter(file.path, file.tensors, file.header | changes, {})
    with pytest.raises(ModelError, match=words):
        open_adapter(base, load_adapter(file.path))


# ---- drawing with it ----


def test_generate_appends_the_adapters_own_style(base: Base) -> None:
    file = train(base, "disc.png", steps=20)
    settings = SampleSettings(steps=3, size=16, lambda_a=2)

    def drawn(adapter: AdapterFile | None, prompt: str, style: str | None = None) -> list[bytes]:
        made = generate(base, adapter, prompts=[prompt], count=4, settings=settings, style=style)
        return [picture.tobytes() for _, _, picture in made]

    styled = drawn(file, "a cat")
    assert styled == drawn(file, "a cat")
    assert styled == drawn(file, "a cat in watercolor style")
    assert styled != drawn(file, "a cat", "")
    assert styled != drawn(file, "a cat", "dog")
    assert styled != drawn(None, "a cat in watercolor style")
