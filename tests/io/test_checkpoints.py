"""Files: what is saved comes back exactly, and what does not fit is refused with its reason."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import tiny
from styledrop_cli.adapters.header import load_adapter, read_header, write_recommended
from styledrop_cli.base.folder import PARTS, load_module
from styledrop_cli.errors import ModelError, StyledropError
from styledrop_cli.io.files import write_json
from styledrop_cli.io.tensors import (
    build_config,
    load_strictly,
    pack_optimizer,
    read_config,
    read_tensors,
    save_part,
    save_tensors,
    unpack_optimizer,
)
from styledrop_cli.models.tokenizer import TokenizerConfig
from styledrop_cli.models.transformer import TransformerConfig

HEADER: dict[str, Any] = {
    "format": 1,
    "kind": "bottleneck",
    "config": {"layers": 3},
    "base": {"hash": "x"},
    "style": "naïve “art”",
    "contents": ["a cat"],
    "recommended": {"lambda_a": 2.0},
}


# ---- tensors ----


def test_tensors_round_trip() -> None:
    draws = tiny.generator()
    tensors = {
        "half": torch.randn(3, 4, generator=draws).half(),
        "turned": torch.randn(3, 4, generator=draws).T,
        "ids": torch.arange(6, dtype=torch.int16).view(1, 2, 3),
        "flag": torch.tensor(True),
        "empty": torch.empty(0, 3),
    }
    save_tensors(Path("deep/er/x.safetensors"), tensors, {"ключ": "значение"})
    back, metadata = read_tensors(Path("deep/er/x.safetensors"))
    assert metadata == {"ключ": "значение"}
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)
    assert [p.name for p in Path("deep/er").iterdir()] == ["x.safetensors"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def text(path: Path) -> None:
    path.write_text("these are not the weights you are looking for", encoding="utf-8")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("read", [read_tensors, read_header, load_adapter])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, r"^x\.safetensors is not a whole safetensors file \(its tensors take 36 bytes, and it has 31\)"),
        (text, r"^x\.safetensors is not a safetensors file: it is text that begins 'these are not the weights"),
        (nothing, r"^x\.safetensors is not a safetensors file: it is empty"),
        (folder, r"^cannot read x\.safetensors: it is a folder"),
    ],
)
def test_broken_files(read: Callable[[Path], object], damage: Callable[[Path], None], words: str) -> None:
    path = Path("x.safetensors")
    tiny.write_adapter(path, {"adapter.down": torch.ones(9)}, HEADER)
    damage(path)
    with pytest.raises(ModelError, match=words) as error:
        read(path)
    assert error.value.hint


def pickled(**how: Any) -> bytes:
    data = io.BytesIO()
    torch.save({"a": torch.ones(2)}, data, **how)
    return data.getvalue()


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("lora.safetensors", b"...")
    return data.getvalue()


OTHER_FILES: dict[str, tuple[bytes, str, str]] = {
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a Git LFS pointer", "git lfs pull"),
    "HTML": (b"\n<!DOCTYPE html>\n<html><head>", "a web page", "/resolve/"),
    "pickle": (pickled(), "a pickle, which may run any code: it is not opened", "safetensors"),
    "old pickle": (pickled(_use_new_zipfile_serialization=False), "a pickle", "safetensors"),
    "zip": (zipped(), "a zip archive", "Unpack it"),
    "gzip": (gzip.compress(b"weights"), "an archive", "Unpack it"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(100), "a GGUF file", "as safetensors"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file", "as safetensors"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture", "Name another"),
    "JSON": (b'{"error": "Invalid token"}', """JSON that begins '{"error": "Invalid token"}'""", "Name another"),
    "text": (b"Entry not found", "text that begins 'Entry not found'", "Name another"),
}


@pytest.mark.parametrize("read", [read_tensors, read_header, load_adapter])
@pytest.mark.parametrize("what", OTHER_FILES)
def test_other_files_are_called_what_they_are(read: Callable[[Path], object], what: str) -> None:
    data, words, hint = OTHER_FILES[what]
    Path("x.safetensors").write_bytes(data)
    with pytest.raises(
        ModelError, match="^" + re.escape(f"x.safetensors is not a safetensors file: it is {words}")
    ) as error:
        read(Path("x.safetensors"))
    assert hint in str(error.value.hint)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.uint16])
def test_numbers_that_are_not_read_are_named(kind: torch.dtype) -> None:
    """Nothing is wrong with such a file, and nobody is told to fetch it again."""
    save_file({"a": torch.ones(2).to(kind)}, "x.safetensors")
    with pytest.raises(
        ModelError, match=r"^x.safetensors stores a as [FCU]\w+(, 8 bits a number)?, which is not"
    ) as error:
        read_tensors(Path("x.safetensors"))
    assert "float16" in str(error.value.hint) and "cut short" not in str(error.value.hint)


@pytest.mark.parametrize("length", [b"\x80\x02", b"PK", b"\x1f\x8b", b"II"])
def test_a_whole_file_may_begin_as_others_do(length: bytes) -> None:
    """The first bytes are a length: a cut file of such a length is no pickle and no archive."""
    head = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    head = head.ljust(int.from_bytes(length, "little"))
    Path("x.safetensors").write_bytes(length.ljust(8, b"\0") + head + bytes(8))
    assert read_tensors(Path("x.safetensors"))[0]["a"].shape == (2,)
    Path("x.safetensors").write_bytes(length.ljust(8, b"\0") + head + bytes(4))
    with pytest.raises(ModelError, match="is not a whole safetensors file"):
        read_tensors(Path("x.safetensors"))


@pytest.mark.parametrize(
    ("kind", "config", "tensors", "words"),
    [
        (
            "bottleneck",
            {"width": 8},
            {"adapter.down": (2, 1, 32, 4)},
            r"width 8, and its tensors have 4 \(adapter\.down\)",
        ),
        ("lora", {"rank": 16}, {"adapter.a.x/to_q": (32, 4)}, "rank 16, and its tensors have 4"),
        ("prompt", {"vectors": 3}, {"adapter.vectors": (3, 16, 32)}, "vectors 3, and its tensors have 16"),
    ],
)
def test_a_header_that_the_tensors_contradict(
    kind: str, config: dict[str, int], tensors: dict[str, tuple[int, ...]], words: str
) -> None:
    path, held = Path("x.safetensors"), {name: torch.ones(shape) for name, shape in tensors.items()}
    tiny.write_adapter(path, held, HEADER | {"kind": kind, "config": config})
    with pytest.raises(ModelError, match=f"x.safetensors is damaged: its header says {words}"):
        load_adapter(path)
    finer = {name.replace("adapter.", "superres."): tensor for name, tensor in held.items()}
    tiny.write_adapter(path, finer, HEADER | {"kind": kind, "superres": config})
    with pytest.raises(ModelError, match="its header says"):
        load_adapter(path)


@pytest.mark.parametrize("read", [read_tensors, read_header, load_adapter])
def test_missing_files(read: Callable[[Path], object]) -> None:
    with pytest.raises(ModelError, match="there is no .*file nowhere"):
        read(Path("nowhere"))


# ---- modules ----


def two() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def weights(**changes: Tensor | None) -> dict[str, Tensor]:
    state: dict[str, Tensor | None] = dict(two().state_dict())
    state |= {name.replace("_", ".", 1): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (weights(**{"0_weight": None}), r"0\.weight is missing$"),
        (weights(**{"2_weight": torch.ones(1)}), r"2\.weight is not known$"),
        (weights(**{"0_weight": torch.ones(2, 3)}), r"0\.weight has shape \[2, 3\], expected \[3, 2\]$"),
        (weights(**{"1_bias": torch.tensor([torch.nan])}), r"1\.bias holds a value that is not finite$"),
        (weights(**{"1_bias": torch.tensor([torch.inf])}), r"1\.bias holds a value that is not finite$"),
        ({}, r"0\.weight is missing; 0\.bias is missing; 1\.weight is missing and 1 more$"),
    ],
)
def test_strict_loading(tensors: dict[str, Tensor], words: str) -> None:
    module = two()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    with pytest.raises(ModelError, match=f"^x.safetensors does not fit: {words}"):
        load_strictly(module, tensors, "x.safetensors")
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


# ---- the parts of a base ----

SIZES: dict[tuple[str, str], Any] = {
    ("tokenizer", ""): tiny.TOKENIZER,
    ("decoder", ""): tiny.ENLARGED,
    ("text", "bert"): tiny.BERT,
    ("clip", ""): tiny.CLIP,
    ("clip", "head"): tiny.HEAD,
    ("scorer", ""): tiny.CLIP,
    ("scorer", "head"): tiny.HEAD,
    ("transformer", ""): tiny.TRANSFORMER,
    ("superres", ""): tiny.SUPERRES,
}
KINDS_OF_PARTS = [(part, kind) for part, kinds in PARTS.items() for kind in kinds]


@pytest.mark.parametrize(("part", "kind"), KINDS_OF_PARTS)
def test_parts_round_trip_exactly_in_half_precision(part: str, kind: str) -> None:
    make, config = PARTS[part][kind]
    sizes = SIZES[part, kind]
    module = make(sizes)
    tiny.randomise(module)
    save_part(Path("m"), part, module, sizes)
    assert build_config(config, read_config(Path("m"))["parts"][part], "m") == sizes
    fresh = load_module(Path("m"), part)
    for name, tensor in module.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor.half().float()), name
    save_part(Path("n"), part, fresh, sizes)  # what is half precision already comes back exactly
    again = load_module(Path("n"), part)
    assert all(torch.equal(again.state_dict()[name], t) for name, t in fresh.state_dict().items())
    assert {p.name for p in Path("m").iterdir()} == {"config.json", f"{part}.safetensors"}


def test_parts_gather_in_one_config() -> None:
    tiny.write_base(Path("m"), superres=True)
    config = read_config(Path("m"))
    assert set(config["parts"]) == set(PARTS) - {"scorer", "text"}
    assert (config["name"], config["format"]) == ("m", 1)


def test_a_folder_that_is_no_model() -> None:
    Path("m").mkdir()
    with pytest.raises(ModelError, match="m is not a model folder"):
        read_config(Path("m"))
    for text in ("{", "[]", '{"format": 2, "parts": {}}', '{"format": 1}'):
        (Path("m") / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match=r"m/config\.json"):
            read_config(Path("m"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"vocab_size": 24, "codebook_size": 24}, "^here: vocab_size 24 leaves no mask token"),
        ({"depth": 3, "colour": 1}, "^here has unknown settings: colour, depth$"),
    ],
)
def test_impossible_configs(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build_config(TransformerConfig, values, "here")


def test_lists_become_tuples() -> None:
    config = build_config(TokenizerConfig, {"block_out_channels": [8, 16]}, "here")
    assert config.block_out_channels == (8, 16)


# ---- adapters ----


def test_adapters_round_trip() -> None:
    path = Path("a.safetensors")
    tensors = {f"adapter.{n}": t for n, t in tiny.adapter().state_dict().items()}
    tensors["views.ids"] = torch.arange(8, dtype=torch.int16).view(2, 2, 2)
    tiny.write_adapter(path, tensors, HEADER, **{"modelspec.title": "naïve “art”"})
    assert read_header(path).to_json() == HEADER
    file = load_adapter(path)
    assert file.path == path
    assert file.header.to_json() == HEADER
    assert set(file.tensors) == set(tensors)
    assert all(torch.equal(file.tensors[n], t) and file.tensors[n].dtype == t.dtype for n, t in tensors.items())
    assert read_tensors(path)[1]["modelspec.title"] == "naïve “art”"


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "was not written by styledrop"),
        ({"ss_network_module": "networks.lora"}, "was not written by styledrop"),
        ({"styledrop": "{"}, "header of a.safetensors is damaged"),
        ({"styledrop": "[]"}, "another format"),
        ({"styledrop": json.dumps(HEADER | {"format": 99})}, "another format"),
        ({"styledrop": json.dumps({"format": 1})}, "header of a.safetensors is damaged"),
        ({"styledrop": json.dumps(HEADER | {"base": "pocket"})}, "header of a.safetensors is damaged: base"),
        ({"styledrop": json.dumps(HEADER | {"recommended": {"steps": "no"}})}, "damaged: recommended"),
        ({"styledrop": json.dumps(HEADER | {"recommended": {"steps": 2.5}})}, "damaged: recommended"),
        ({"styledrop": json.dumps(HEADER | {"recommended": {"steps": 0}})}, "damaged: recommended"),
        ({"styledrop": json.dumps(HEADER | {"recommended": {"strength": 11}})}, "damaged: recommended"),
        ({"styledrop": json.dumps(HEADER | {"recommended": {"strength": True}})}, "damaged: recommended"),
        ({"styledrop": json.dumps(HEADER | {"recommended": {"temperature": -1}})}, "damaged: recommended"),
        ({"styledrop": json.dumps(HEADER | {"recommended": {"size": 256}})}, "damaged: recommended"),
    ],
)
def test_foreign_and_damaged_headers(metadata: dict[str, str] | None, words: str) -> None:
    path = Path("a.safetensors")
    save_file({"adapter.down": torch.ones(2)}, path, metadata)
    for read in (read_header, load_adapter):
        with pytest.raises(ModelError, match=words):
            read(path)


def test_a_file_recommends_what_it_is_told_and_else_stays_as_it_is() -> None:
    path, other = Path("a.safetensors"), Path("b.safetensors")
    tensors = {"adapter.down": torch.rand(3, 2).half(), "views.ids": torch.arange(4, dtype=torch.int16)}
    tiny.write_adapter(path, tensors, HEADER, **{"modelspec.title": "art"})
    tiny.write_adapter(other, {"adapter.down": torch.zeros(3, 2)}, HEADER | {"step": 3, "recommended": {}})
    write_recommended(path, {"lambda_b": 3.0, "steps": 12, "strength": 0.5, "temperature": 1.5})
    wanted = {"lambda_a": 2.0, "lambda_b": 3.0, "steps": 12, "strength": 0.5, "temperature": 1.5}
    as_trained = {"recommended": {"lambda_a": 2.0}, "step": None}  # what it was, for who wants that back
    assert read_header(path).to_json() == HEADER | {"recommended": wanted, "as_trained": as_trained}
    back, metadata = read_tensors(path)
    assert set(back) == set(tensors)
    assert all(torch.equal(back[n], t) and back[n].dtype == t.dtype for n, t in tensors.items())
    assert metadata["modelspec.title"] == "art"
    write_recommended(path, {"steps": 9}, other)  # it becomes the other, and keeps what it recommends
    changed = {"step": 3, "recommended": wanted | {"steps": 9}, "as_trained": as_trained}
    assert read_header(path).to_json() == HEADER | changed
    assert torch.equal(load_adapter(path).tensors["adapter.down"], torch.zeros(3, 2))
    assert sorted(p.name for p in Path().iterdir()) == ["a.safetensors", "b.safetensors"]


def test_what_may_not_be_recommended_is_not_written() -> None:
    tiny.write_adapter(Path("a.safetensors"), {}, HEADER)
    before = Path("a.safetensors").read_bytes()
    for values in ({"steps": 2.5}, {"strength": 99.0}, {"seed": 3}):
        with pytest.raises(ModelError, match="damaged: recommended"):
            write_recommended(Path("a.safetensors"), values)
    assert Path("a.safetensors").read_bytes() == before


def test_values_that_are_not_finite() -> None:
    tiny.write_adapter(Path("a.safetensors"), {"adapter.down": torch.ones(2)}, HEADER)
    tiny.spoil(Path("a.safetensors"), "adapter.down", torch.nan)
    with pytest.raises(ModelError, match=r"damaged: adapter\.down"):
        load_adapter(Path("a.safetensors"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_that_are_not_finite_are_never_written(value: float, dtype: torch.dtype) -> None:
    path, good = Path("a.safetensors"), {"adapter.down": torch.ones(2), "views.ids": torch.zeros(3, dtype=torch.int16)}
    tiny.write_adapter(path, good, HEADER)
    before = path.read_bytes()
    bad = good | {"adapter.up": torch.tensor([1, value], dtype=dtype)}
    words = r"a\.safetensors is not written: 1 of its 3 tensors hold values that are not finite, .* adapter\.up"
    for write in (lambda: save_tensors(path, bad), lambda: tiny.write_adapter(path, bad, HEADER)):
        with pytest.raises(StyledropError, match=words) as caught:
            write()
        assert "What was saved before is whole" in str(caught.value.hint)
    assert path.read_bytes() == before
    assert [one.name for one in Path().iterdir()] == [path.name]


# ---- optimizers ----


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.Muon])
def test_optimizers_round_trip_without_a_pickle(kind: Any) -> None:
    def stepped(optimizer: torch.optim.Optimizer, weight: Tensor, steps: range) -> None:
        for step in steps:
            weight.grad = torch.sin(torch.arange(6.0).view(2, 3) * (step + 1))
            optimizer.step()

    whole, resumed = (torch.ones(2, 3).requires_grad_() for _ in range(2))
    first = kind([whole], lr=0.1)
    stepped(first, whole, range(3))
    save_tensors(Path("o.safetensors"), pack_optimizer(first))
    resumed.data.copy_(whole.data)
    second = kind([resumed], lr=0.1)
    unpack_optimizer(second, read_tensors(Path("o.safetensors"))[0])
    stepped(first, whole, range(3, 6))
    stepped(second, resumed, range(3, 6))
    assert torch.equal(whole, resumed)


def test_json_is_readable() -> None:
    write_json(Path("x.json"), {"style": "naïve", "sizes": [1, 2]})
    written = Path("x.json").read_text(encoding="utf-8")
    assert "naïve" in written
    assert written.endswith("}\n")
    assert json.loads(written) == {"style": "naïve", "sizes": [1, 2]}
