"""Adapters made one: the sum to rounding, what goes along in the file, and each thing that does not merge."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from conftest import Outcome, Run, draw
from styledrop_cli import __version__
from styledrop_cli.adapters import diffusers_lora
from styledrop_cli.adapters.file import examples_of, open_adapter
from styledrop_cli.adapters.header import AdapterFile, load_adapter, write_recommended
from styledrop_cli.adapters.merge import Part, joined_styles, merge, read_parts, recommended_by, sum_of
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.generation.output_folder import about_mixture
from styledrop_cli.generation.pipeline import StyleMix
from styledrop_cli.io.files import file_hash, names_apart
from styledrop_cli.io.tensors import read_tensors, save_tensors
from styledrop_cli.models.adapter import KINDS, Adapter, BottleneckAdapter, LoraAdapter, LoraConfig
from styledrop_cli.models.layers import AdapterFn
from styledrop_cli.models.transformer import MaskedTransformer
from styledrop_cli.settings import RoundSettings, TrainSettings
from styledrop_cli.training.adapter import train_adapter, train_on_picks

Weighed = Sequence[tuple[Adapter, float]]


def made(kind: str, seed: int, network: MaskedTransformer | None = None, **config: Any) -> Adapter:
    """An adapter that does something, and another thing with another seed."""
    make, sizes = KINDS[kind]
    adapter = make(sizes(**config), network or tiny.transformer())
    tiny.randomise(adapter, seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter *= 0.4  # else rounding is all that the layers see of each other
    return adapter.requires_grad_(False)


def by_hand(parts: Weighed) -> AdapterFn:
    """What the sum of adapters is: each is asked by itself, and what it adds is added at its weight."""

    def adapter(site: str, module: nn.Module, source: Tensor, value: Tensor) -> Tensor:
        return value + sum(weight * (one(site, module, source, value) - value) for one, weight in parts)

    return adapter


def logits(adapter: AdapterFn | None, network: MaskedTransformer | None = None) -> Tensor:
    """Of made-up ids and prompts, read and worked on with the adapter."""
    network, draws = network or tiny.transformer(), tiny.generator()
    text, pooled = torch.randn(2, 7, 16, generator=draws), torch.randn(2, 16, generator=draws)
    micro = torch.tensor([[256.0, 256, 0, 0, 6]]).expand(2, 5)
    condition = network.condition(text, pooled, micro, adapter)
    if hasattr(network, "beside"):
        condition = network.beside(condition, torch.randint(24, (2, 4, 4), generator=draws), adapter)
    made: Tensor = network(tiny.ids(network.config, 2), condition, adapter)
    return made


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


BOTH: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "lora": ("lora", [{"rank": 2, "alpha": 6.0}, {"rank": 3, "alpha": 3.0}]),
    "lora on other targets": ("lora", [{"rank": 2, "targets": ("to_out", "to_q")}, {"rank": 1, "targets": ("to_k",)}]),
    "bottlenecks": ("bottleneck", [{"width": 2, "shared": False}, {"width": 3, "shared": False}]),
    "shared bottlenecks": ("bottleneck", [{"width": 3, "shared": True}, {"width": 3, "shared": True}]),
    "one of them shared": ("bottleneck", [{"width": 4, "shared": True}, {"width": 1, "shared": False}]),
    "in other layers": (
        "bottleneck",
        [{"width": 2, "shared": False, "layers": (1,)}, {"width": 1, "shared": True, "layers": (2, 3)}],
    ),
    "one of them in some layers": ("bottleneck", [{"width": 2, "shared": False}, {"width": 1, "layers": (2,)}]),
    "lora in other layers": ("lora", [{"rank": 2, "layers": (1, 2)}, {"rank": 1, "layers": (2, 3)}]),
    "three": ("bottleneck", [{"width": 1}, {"width": 2}, {"width": 1, "shared": False}]),
}
both = pytest.mark.parametrize(("kind", "configs"), BOTH.values(), ids=BOTH)
WEIGHTS = (0.6, -1.5, 0.4)


# ---- the sum ----


@both
@pytest.mark.parametrize("superres", [False, True], ids=["base", "superres"])
def test_it_adds_what_all_of_them_add(kind: str, configs: list[dict[str, Any]], superres: bool) -> None:
    network = tiny.superres_network() if superres else tiny.transformer()
    parts = [(made(kind, seed, network, **config), WEIGHTS[seed]) for seed, config in enumerate(configs)]
    summed = logits(sum_of(parts, network), network)
    close(summed, logits(by_hand(parts), network))
    for adapter, _ in parts:
        assert (summed - logits(adapter, network)).abs().max() > 1e-2
    assert (summed - logits(None, network)).abs().max() > 1e-2


@both
def test_one_at_weight_1_stays_as_it_is(kind: str, configs: list[dict[str, Any]]) -> None:
    for seed, config in enumerate(configs):
        adapter = made(kind, seed, **config)
        close(logits(sum_of([(adapter, 1.0)], tiny.transformer())), logits(adapter))


@both
def test_their_order_does_not_matter(kind: str, configs: list[dict[str, Any]]) -> None:
    parts = [(made(kind, seed, **config), WEIGHTS[seed]) for seed, config in enumerate(configs)]
    close(logits(sum_of(parts, tiny.transformer())), logits(sum_of(parts[::-1], tiny.transformer())))


def test_halves_of_the_same_are_the_same() -> None:
    for kind, configs in BOTH.values():
        adapter = made(kind, 0, **configs[0])
        close(logits(sum_of([(adapter, 0.5), (adapter, 0.5)], tiny.transformer())), logits(adapter))


def test_sizes_add_up() -> None:
    network = tiny.transformer()
    wide = sum_of([(made("bottleneck", 0, width=3), 1.0), (made("bottleneck", 1, width=2, shared=False), 1.0)], network)
    assert isinstance(wide, BottleneckAdapter)
    assert (wide.config.width, wide.config.shared, wide.down.shape) == (5, False, (2, 3, 32, 5))
    parts = [(made("lora", s, rank=2, targets=t), 1.0) for s, t in enumerate([("to_out",), ("to_v", "to_out")])]
    lora = sum_of(parts, network)
    assert isinstance(lora, LoraAdapter)
    assert lora.config == LoraConfig(4, 4.0, ("to_v", "to_out"))
    alone = lora.a["transformer_layers/0/attn1/to_v"]
    assert not alone[:, :2].any() and alone[:, 2:].all()
    assert not any(parameter.requires_grad for parameter in lora.parameters())


def test_what_has_no_sum() -> None:
    for kinds in (("prompt", "prompt"), ("lora", "bottleneck")):
        with pytest.raises(TypeError, match=" and |, ".join(kinds)):
            sum_of([(made(kind, 0), 1.0) for kind in kinds], tiny.transformer())


def test_styles_are_joined_in_words() -> None:
    assert joined_styles(["watercolor"]) == "watercolor"
    assert joined_styles(["watercolor", " flat  illustration "]) == "watercolor and flat illustration"
    assert joined_styles(["in ink", "gold", "", "ink", "chalk"]) == "ink, gold and chalk"
    assert joined_styles(["", " "]) == ""


# ---- files ----


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.base(tmp_path_factory.mktemp("base") / "tiny", superres=True)


Train = Callable[..., Path]


@pytest.fixture
def train(base: Base) -> Train:
    """Learn a style from pictures of one colour each, fast."""

    def train(
        name: str, style: str = "ink", contents: Sequence[str] = ("a cat",), on: Base = base, **changes: Any
    ) -> Path:
        pictures = []
        for number, content in enumerate(contents):
            pictures.append(Path(f"{name}-{number}.png"))
            image = draw(48, 32)
            image.paste((50 * number + len(content), 20 * len(name), 80), (0, 0, 24, 16))
            image.save(pictures[-1])
        usual = {"steps": 3, "lr": 0.05, "width": 2, "batch_size": 4, "views": 3, "checkpoints": 0, "superres_steps": 2}
        output = Path(f"{name}.safetensors")
        train_adapter(
            on,
            pictures=pictures,
            style=style,
            contents=list(contents),
            settings=TrainSettings(**(usual | changes)),
            output=output,
        )
        return output

    return train


def opened(base: Base, path: Path) -> tuple[Adapter, Adapter | None]:
    found = open_adapter(base, load_adapter(path))
    return found.base, found.superres


def merged(
    base: Base, *paths: Path, weights: Sequence[float] | None = None, **given: Any
) -> tuple[AdapterFile, list[str]]:
    """The merged file as it is read back, and what was said."""
    said: list[str] = []
    output = Path("merged.safetensors")
    header = merge(base, read_parts(paths, weights), **({"style": None} | given), output=output, on_message=said.append)
    file = load_adapter(output)
    assert json.loads(json.dumps(header.to_json())) == file.header.to_json()
    return file, said


def changed(path: Path, name: str, **header: Any) -> Path:
    """A copy whose header says something else; what is None is left out."""
    file, to = load_adapter(path), Path(name)
    said = {key: value for key, value in (file.header.to_json() | header).items() if value is not None}
    tiny.write_adapter(to, file.tensors, said)
    return to


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"width": 1}),
        ({"shared": True, "width": 4}, {}),
        ({"kind": "lora", "width": 1, "targets": ("to_v",)}, {"kind": "lora", "width": 1, "targets": ("to_out",)}),
    ],
)
def test_a_merged_file_is_an_adapter(base: Base, train: Train, one: dict[str, Any], other: dict[str, Any]) -> None:
    a, b = train("a", **one), train("b", "flat art", ["a dog"], **other)
    file, said = merged(base, a, b, weights=[0.6, 0.4])
    parts = [(opened(base, path), weight) for path, weight in ((a, 0.6), (b, 0.4))]
    adapter, superres = opened(base, file.path)
    close(logits(adapter, base.transformer), logits(by_hand([(o[0], w) for o, w in parts]), base.transformer))
    assert base.superres is not None and superres is not None
    both = [(o[1], w) for o, w in parts if o[1] is not None]
    close(logits(superres, base.superres), logits(by_hand(both), base.superres))
    assert "% of the base" in said[-1] and not any("Warning" in line for line in said)
    header = file.header.to_json()
    assert header["base"] == {"name": "tiny", "hash": base.hash}
    assert header["merged"] == [
        {"name": "a.safetensors", "weight": 0.6, "style": "ink", "sha256": file_hash(a)},
        {"name": "b.safetensors", "weight": 0.4, "style": "flat art", "sha256": file_hash(b)},
    ]
    assert (header["style"], header["learns"]) == ("ink and flat art", "style")
    assert header["contents"] == ["a cat", "a dog"]
    assert [picture["name"] for picture in header["pictures"]] == ["a-0.png", "b-0.png"]
    assert header["thumbnail"] == load_adapter(a).header.thumbnail
    assert header["settings"] == load_adapter(a).header.settings
    assert header["styledrop"] == __version__
    metadata = read_tensors(file.path)[1]
    assert metadata["modelspec.description"].endswith("merged from a.safetensors (0.6), b.safetensors (0.4)")


def test_merging_one_changes_nothing(base: Base, train: Train) -> None:
    one = train("a")
    file, said = merged(base, one)
    before = load_adapter(one)
    assert file.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(tensor, before.tensors[name]) for name, tensor in file.tensors.items())
    for name in ("kind", "config", "base", "style", "contents", "recommended", "superres", "pictures", "thumbnail"):
        assert getattr(file.header, name) == getattr(before.header, name)
    assert len(said) == 1


def test_merged_files_merge_and_a_file_may_stand_twice(base: Base, train: Train) -> None:
    a, b = train("a"), train("b", "gold", ["a dog"], shared=True)
    merged(base, a, b)
    inner = Path(shutil.copy("merged.safetensors", "inner.safetensors"))
    file, _ = merged(base, inner, a, a, weights=[0.5, 0.25, 0.25])
    parts = [(opened(base, a)[0], 0.75), (opened(base, b)[0], 0.25)]
    close(logits(opened(base, file.path)[0], base.transformer), logits(by_hand(parts), base.transformer))
    assert file.header.style == "ink and gold and ink"
    assert file.header.contents == ["a cat", "a dog", "a cat", "a cat"]
    assert len(examples_of(file).whole) == 4


def test_an_adapter_without_super_resolution_adds_nothing_there(base: Base, train: Train) -> None:
    a, b = train("a"), train("b", "ink", superres_steps=0)
    for pair, weights in (((a, b), [0.25, 0.75]), ((b, a), [0.75, 0.25])):
        file, _ = merged(base, *pair, weights=weights)
        _, superres = opened(base, file.path)
        _, own = opened(base, a)
        assert base.superres is not None and superres is not None and own is not None
        close(logits(superres, base.superres), logits(by_hand([(own, 0.25)]), base.superres))
        assert "views.superres" not in file.tensors
    file, _ = merged(base, b, b)
    assert file.header.superres is None
    assert not any("superres" in name for name in file.tensors)


def test_what_they_learnt_from_goes_along(base: Base, train: Train) -> None:
    a, b = train("a", contents=["a cat", "a tree"]), train("b", "ink", ["a dog"])
    file, _ = merged(base, a, b)
    examples = examples_of(file)
    one, other = (examples_of(load_adapter(path)) for path in (a, b))
    assert (examples.references, examples.contents) == (3, ["a cat", "a tree", "a dog"])
    assert examples.views["views.picture"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert torch.equal(examples.views["views.ids"], torch.cat([one.views["views.ids"], other.views["views.ids"]]))
    assert torch.equal(examples.whole, torch.cat([one.whole, other.whole]))
    larger = [load_adapter(path).tensors["views.superres"] for path in (a, b)]
    assert torch.equal(file.tensors["views.superres"], torch.cat(larger))


def test_references_stand_before_what_was_picked(base: Base, train: Train) -> None:
    parents = train("a", contents=["a cat", "a tree"]), train("b", "ink", ["a dog"])
    files = []
    for number, parent in enumerate(parents):
        ids = torch.full((2, 4, 4), number + 1)
        files.append(Path(f"round-{number}.safetensors"))
        train_on_picks(
            base,
            load_adapter(parent),
            ids=ids,
            contents=[f"a house {number}", "a teapot"],
            settings=TrainSettings(steps=1, width=1, checkpoints=0, superres_steps=0),
            output=files[-1],
            about={"number": 2, "feedback": "clip", "picks": []},
        )
    file, _ = merged(base, *files)
    examples = examples_of(file)
    assert (examples.references, len(file.header.pictures)) == (3, 3)
    assert examples.contents == ["a cat", "a tree", "a dog", "a house 0", "a teapot", "a house 1", "a teapot"]
    owners, ids = examples.views["views.picture"], examples.views["views.ids"]
    assert owners.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3, 4, 5, 6]
    assert ids[9:].flatten(1).tolist() == [[1] * 16, [1] * 16, [2] * 16, [2] * 16]
    wholes = [examples_of(load_adapter(path)).whole for path in parents]
    assert torch.equal(examples.whole, torch.cat(wholes))
    rows = examples.rows(torch.arange(40), tiny.generator())
    assert set(owners[rows[::2]].tolist()) == {0, 1, 2}  # every other turn is a reference's
    assert set(owners[rows[1::2]].tolist()) == {3, 4, 5, 6}
    assert not {"round", "picks", "feedback"} & set(file.header.written)


def test_what_they_recommend_is_weighed(base: Base, train: Train) -> None:
    a, b = train("a", lambda_a=1.0, lambda_b=2.0), train("b", lambda_a=2.0, lambda_b=2.0)
    write_recommended(a, {"steps": 10, "strength": 0.5})
    write_recommended(b, {"steps": 17})
    assert merged(base, a, b)[0].header.recommended == {"lambda_a": 1.5, "lambda_b": 2.0, "steps": 14}
    parts = [Part(load_adapter(path), weight) for path, weight in ((a, 3.0), (b, -1.0))]
    assert recommended_by(parts) == {"lambda_a": 1.25, "lambda_b": 2.0, "steps": 12}


@pytest.mark.parametrize(
    ("weights", "words"),
    [((1, 0.3), "1.3, not 1: the styles come out stronger"), ((0.5, -1), "-0.5, not 1: the styles come out weaker")],
)
def test_weights_that_do_not_add_up_are_warned_of(
    base: Base, train: Train, weights: Sequence[float], words: str
) -> None:
    a, b = train("a"), train("b", "ink")
    assert f"Warning: the weights add up to {words}" in merged(base, a, b, weights=weights)[1]
    for rounded in ((0.33, 0.67), None):
        assert not any("Warning" in line for line in merged(base, a, b, weights=rounded)[1])


@pytest.mark.parametrize("weight", [0.0, 10.1, -11.0, float("nan"), float("inf")])
def test_weights_out_of_range(train: Train, weight: float) -> None:
    with pytest.raises(UsageError, match=r"the weight of a\.safetensors must be between -10 and 10 and not 0"):
        read_parts([train("a")], [weight])


def test_a_style_of_its_own_and_one_that_is_too_long(base: Base, train: Train) -> None:
    a, b = train("a"), train("b", "ink")
    assert merged(base, a, b, style="gold on black")[0].header.style == "gold on black"
    before = Path("merged.safetensors").read_bytes()
    with pytest.raises(UsageError, match="the style 'gold and gold and gold") as error:
        merged(base, a, b, style="gold and " * 20)
    assert "fewer words: --style" in str(error.value.hint)
    assert Path("merged.safetensors").read_bytes() == before


# ---- what does not merge ----


def test_kinds_that_do_not_merge(train: Train) -> None:
    a, prompt = train("a"), train("prompt", kind="prompt")
    lora = train("lora", kind="lora", width=1, targets=("to_v",))
    with pytest.raises(ModelError, match=r"prompt\.safetensors is .*: each has a softmax of its own") as error:
        read_parts([a, prompt])
    assert "styledrop generate --mix a.safetensors:0.5 --mix prompt.safetensors:0.5 ..." in str(error.value.hint)
    with pytest.raises(ModelError, match="of kind 'bottleneck' and lora.safetensors of kind 'lora'") as error:
        read_parts([a, lora])
    assert "--mix lora.safetensors:0.5" in str(error.value.hint)


def test_bases_that_do_not_merge(base: Base, train: Train) -> None:
    a = train("a")
    other = tiny.base(Path("other"), seed=9)
    b = train("b", on=other)
    with pytest.raises(ModelError, match=r"a\.safetensors was trained on another base \(tiny\) than b.* \(other\)"):
        read_parts([a, b])
    with pytest.raises(ModelError, match=r"trained on another base \(tiny\) than this one \(other\)"):
        merged(other, a)


def test_bases_of_one_name_are_told_apart(base: Base, train: Train) -> None:
    a = train("a")
    other = tiny.base(Path("other/tiny"), seed=9)
    b = train("b", on=other)
    two = rf"\(tiny, hash {base.hash[:12]}\.\.\.\) than b\.safetensors \(tiny, hash {other.hash[:12]}\.\.\.\)"
    with pytest.raises(ModelError, match=rf"a\.safetensors was trained on another base {two}"):
        read_parts([a, b])
    two = rf"\(tiny, hash {base.hash[:12]}\.\.\.\) than this one \(tiny, hash {other.hash[:12]}\.\.\.\)"
    with pytest.raises(ModelError, match=rf"trained on another base {two}") as error:
        merged(other, a)
    hint = str(error.value.hint)
    assert "two versions of tiny" in hint and "by styledrop" in hint and "--model" in hint


def test_files_of_one_name_are_told_apart(base: Base, train: Train) -> None:
    a, b = train("a"), train("b")
    for folder, path in (("ink", a), ("gold", b)):
        Path(folder).mkdir()
        path.rename(Path(folder) / "adapter.safetensors")
    file, _ = merged(base, Path("ink/adapter.safetensors"), Path("gold/adapter.safetensors"))
    names = [one["name"] for one in file.header.merged]
    assert names == ["ink/adapter.safetensors", "gold/adapter.safetensors"]
    assert names_apart([Path("a/x.png"), Path("b/x.png"), Path("y.png")]) == ["a/x.png", "b/x.png", "y.png"]
    assert names_apart([Path("x.png"), Path("b/x.png"), Path("b/x.png")]) == ["x.png", "b/x.png", "b/x.png"]
    mixed = StyleMix(tuple((load_adapter(Path(f"{folder}/adapter.safetensors")), 0.5) for folder in ("ink", "gold")))
    assert about_mixture(base, mixed)["mix"] == dict.fromkeys(names, 0.5)


def test_objects_merge_with_objects_alone(base: Base, train: Train) -> None:
    a, thing = train("a"), train("thing", "", ["my dog", "my dog"], learn="object")
    for pair in ((a, thing), (thing, a)):
        with pytest.raises(
            ModelError, match=r"thing\.safetensors learnt an object and a\.safetensors a style"
        ) as error:
            read_parts(pair)
        assert "styledrop generate a.safetensors ... --object thing.safetensors" in str(error.value.hint)
    other = train("other", "", ["my cat"], learn="object")
    file, said = merged(base, thing, other, weights=(1, 1))
    assert (file.header.learns, file.header.style) == ("object", "")
    assert file.header.contents == ["my dog", "my dog", "my cat"]
    assert "the objects come out stronger" in said[0]
    assert read_tensors(file.path)[1]["modelspec.title"] == "my dog, my cat"
    with pytest.raises(UsageError, match="objects have no style"):
        merged(base, thing, other, style="ink")


def test_a_file_without_its_views_and_one_that_does_not_fit(base: Base, train: Train) -> None:
    a = train("a")
    file = load_adapter(a)
    tiny.write_adapter(
        Path("bare.safetensors"), {n: t for n, t in file.tensors.items() if "views" not in n}, file.header.to_json()
    )
    with pytest.raises(ModelError, match=r"bare\.safetensors does not hold the pictures"):
        merged(base, a, Path("bare.safetensors"))
    short = file.tensors | {"views.superres": file.tensors["views.superres"][:1]}
    tiny.write_adapter(Path("short.safetensors"), short, file.header.to_json())
    with pytest.raises(ModelError, match=r"views\.superres of a\.safetensors and the others do not fit"):
        merged(base, a, Path("short.safetensors"))
    assert not Path("merged.safetensors").exists()


def test_files_of_before_there_were_objects_are_styles(base: Base, train: Train) -> None:
    a = train("a")
    settings = {name: value for name, value in load_adapter(a).header.settings.items() if name != "learn"}
    old = changed(a, "old.safetensors", learns=None, settings=settings)
    file, _ = merged(base, old, a)
    assert file.header.learns == "style"
    assert "learn" not in file.header.settings


def test_a_lora_from_elsewhere_has_no_views(tmp_path: Path) -> None:
    folder = tiny.write_published(tmp_path / "published")
    shapes = diffusers_lora.published_base(str(folder))
    for name, style in (("one", "[V] style"), ("two", "ink")):
        save_tensors(Path("lora.safetensors"), tiny.lora_tensors())
        diffusers_lora.bring_in(
            diffusers_lora.read_lora(Path("lora.safetensors")),
            shapes,
            style=style,
            alpha=6,
            output=Path(f"{name}.safetensors"),
            on_message=lambda message: None,
        )
    base = load_base(str(folder), tiny.CPU)
    file, _ = merged(base, Path("one.safetensors"), Path("two.safetensors"), weights=[0.75, 0.25])
    whole = opened(base, Path("one.safetensors"))[0]
    network = tiny.transformer(tiny.PUBLISHED_TRANSFORMER)
    close(logits(opened(base, file.path)[0], network), logits(whole, network))  # two of the same
    assert (file.header.pictures, file.header.contents) == ([], [])
    assert file.header.source["name"] == "lora.safetensors"
    assert file.header.style == "[V] style and ink"
    assert not any("views" in name for name in file.tensors)
    with pytest.raises(ModelError, match="brought from elsewhere, without the pictures"):
        examples_of(file)


# ---- the command ----


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters of the model that the commands use."""
    folder = tmp_path_factory.mktemp("trained")
    on = load_base(str(tiny_model), tiny.CPU)
    for name, style, content in (("a", "ink", "a cat"), ("b", "flat art", "a dog")):
        draw().save(folder / f"{name}.png")
        train_adapter(
            on,
            pictures=[folder / f"{name}.png"],
            style=style,
            contents=[content],
            settings=TrainSettings(steps=2, views=2, checkpoints=0),
            output=folder / f"{name}.safetensors",
        )
    return folder


@pytest.fixture
def go(styledrop: Run, tiny_model: Path, trained: Path) -> Callable[..., Outcome]:
    """`styledrop merge`, beside the two adapters."""
    for name in "ab":
        shutil.copy(trained / f"{name}.safetensors", ".")
    return lambda *words: styledrop("merge", *words, "--model", tiny_model)


def refused(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "unexpected" not in outcome.err
    for word in words:
        assert word in outcome.err
    assert not Path("merged.safetensors").exists()


def test_the_command(go: Callable[..., Outcome], styledrop: Run, tiny_model: Path) -> None:
    code, out, err = go("a.safetensors:0.6", "b.safetensors:0.4", "-o", "both.safetensors")
    assert (code, out) == (0, "both.safetensors\n"), err
    assert "bottleneck, width 16: " in err and "% of the base" in err and "Warning" not in err
    assert f'styledrop generate both.safetensors "a cat" --model {tiny_model}' in err
    shown = styledrop("inspect", "both.safetensors").out
    assert "merged from" in shown and "a.safetensors, weight 0.6, style ink" in " ".join(shown.split())
    assert styledrop("inspect", "a.safetensors").out.count("merged") == 0

    code, out, err = go("a.safetensors", "b.safetensors", "--style", " gold  ink ", "--json", "-q")
    said = json.loads(out)
    assert (code, err, said["adapter"], said["style"]) == (0, "", "merged.safetensors", "gold ink")
    assert [one["weight"] for one in said["merged"]] == [0.5, 0.5]
    assert said["config"] == {"width": 16, "shared": False}


def test_everything_takes_a_merged_file(
    go: Callable[..., Outcome], styledrop: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shrink_rounds(monkeypatch)
    assert go("a.safetensors", "b.safetensors", "-q").code == 0
    Path("prompts.txt").write_text("a house\n", encoding="utf-8")
    to = ("--model", tiny_model, "-q")
    few = ("--prompts", "prompts.txt")
    for command in (
        ("generate", "merged.safetensors", "a house", "-n", "2", "--steps", "2"),
        ("score", "styledrop-out"),
        ("sweep", "merged.safetensors", "a house", "--strength", "0,1", "--steps", "2", "-n", "1"),
        ("iterate", "merged.safetensors", *few, "--per-prompt", "2", "--steps", "2"),
        ("report", "merged.safetensors", *few, "-n", "1"),
    ):
        code, _, err = styledrop(*command, *to)
        assert code == 0, err
    again = "styledrop merge a.safetensors:0.5 b.safetensors:0.5 --style"
    assert again in Path("report.html").read_text(encoding="utf-8")
    best = load_adapter(Path("merged.rounds/round-2/adapter.safetensors")).header
    assert best.style == "ink and flat art"
    assert best.settings["steps"] == RoundSettings(steps=2).steps


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a.safetensors:0.5", "b.safetensors"), "1 of 2 adapters have a weight"),
        (("a.safetensors:nan", "b.safetensors:1"), "the weight of a.safetensors must be between -10 and 10"),
        (("a.safetensors:1e9", "b.safetensors:1"), "the weight of a.safetensors must be between -10 and 10"),
        (("a.safetensors:0", "b.safetensors:1"), "and not 0, and is 0"),
        (("a.safetensors:heavy", "b.safetensors"), "'heavy' is no weight of a.safetensors"),
        (("a.safetensors:", "b.safetensors"), "'' is no weight of a.safetensors"),
        (("a.safetensors", "watercolor"), "'watercolor' is no adapter file"),
        (("a.safetensors", "b.png:0.5"), "'b.png' is no adapter file"),
        (("a.safetensors", "b.safetensors", "--style", " . "), "--style says nothing"),
        (("a.safetensors", "b.safetensors", "-o", "a.safetensors"), "a.safetensors is already there"),
        (("a.safetensors", "b.safetensors", "-o", "both.bin"), "does not end in .safetensors"),
        (("a.safetensors", "b.safetensors", "-o", "a.safetensors/both.safetensors"), "a.safetensors is a file"),
        ((), "missing argument 'ADAPTER[:WEIGHT]...'"),
    ],
)
def test_what_is_wrong_with_a_command(go: Callable[..., Outcome], words: tuple[str, ...], said: str) -> None:
    refused(go(*words), 2, said, "Hint: ")


def test_files_that_are_no_adapters(go: Callable[..., Outcome]) -> None:
    refused(go("a.safetensors", "nowhere.safetensors:2"), 2, "1 of 2")
    refused(go("a.safetensors", "nowhere.safetensors"), 1, "there is no adapter file nowhere.safetensors")
    Path("text.safetensors").write_text("words")
    refused(
        go("text.safetensors", "a.safetensors"),
        1,
        "text.safetensors is not a safetensors file: it is text that begins 'words'",
    )
    changed(Path("a.safetensors"), "odd.safetensors", kind="hypernetwork")
    refused(go("odd.safetensors"), 1, "of kind 'hypernetwork', which is not known")


def test_what_is_there_is_replaced_only_when_told_to(go: Callable[..., Outcome]) -> None:
    before = Path("a.safetensors").read_bytes()
    assert go("a.safetensors", "b.safetensors", "-o", "a.safetensors", "--overwrite", "-q").code == 0
    assert load_adapter(Path("a.safetensors")).header.merged[0]["name"] == "a.safetensors"
    assert Path("a.safetensors").read_bytes() != before


def test_colons_that_belong_to_the_path(go: Callable[..., Outcome]) -> None:
    """As of a drive, or anywhere else."""
    for name, word in (("c:a.safetensors", "c:a.safetensors:0.25"), ("1:2.safetensors", "1:2.safetensors:-3")):
        shutil.copy("a.safetensors", name)
        code, out, err = go(word, "--json", "-q", "--overwrite")
        assert code == 0, err
        assert json.loads(out)["merged"][0]["name"] == name
        assert json.loads(out)["merged"][0]["weight"] == float(word.rpartition(":")[2])
    code, out, _ = go("c:a.safetensors", "1:2.safetensors", "--json", "-q", "--overwrite")
    assert [one["weight"] for one in json.loads(out)["merged"]] == [0.5, 0.5]


def test_weights_are_not_mistaken_for_options(go: Callable[..., Outcome]) -> None:
    assert "add up to -1" in go("a.safetensors:-2", "b.safetensors:1").err
