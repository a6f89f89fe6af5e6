"""Files made to do harm: each is refused with a reason, soon, from within its folder and in little memory."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from PIL import Image, ImageCms
from safetensors.torch import save

import tiny
from conftest import SEARCH, Run, draw
from hostile import targets, watching
from styledrop_cli.adapters import diffusers_lora
from styledrop_cli.adapters import file as adapter_file
from styledrop_cli.adapters.header import AdapterHeader, load_adapter, read_header
from styledrop_cli.base import download, hub
from styledrop_cli.base.base import load_base
from styledrop_cli.base.cache import index_of
from styledrop_cli.base.published import open_published
from styledrop_cli.cli import checks
from styledrop_cli.corpus import folder as corpus_folder
from styledrop_cli.corpus.cutouts import read_art
from styledrop_cli.errors import ModelError, PictureError, StyledropError, UsageError
from styledrop_cli.feedback import rounds
from styledrop_cli.feedback.page import Choices
from styledrop_cli.feedback.pool import Plan
from styledrop_cli.generation.lists import kit_file, prompt_file
from styledrop_cli.io import files, images
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.files import MOST_TENSORS, parse_json, read_json
from styledrop_cli.io.run_folder import Run as RunFolder
from styledrop_cli.io.run_folder import alone_in
from styledrop_cli.io.tensors import build_config, read_config, read_tensors, save_part, save_tensors
from styledrop_cli.judging import clip_scorer
from styledrop_cli.judging.found import Found
from styledrop_cli.models.clip import ClipConfig
from styledrop_cli.models.tokenizer import TokenizerConfig
from styledrop_cli.models.transformer import TransformerConfig
from styledrop_cli.report import commands, history
from styledrop_cli.settings import TrainSettings

FILE = Path("x.safetensors")
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m"


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    """Nothing here is waited for."""

    def hang(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def sound() -> Path:
    """An adapter of ``targets.MODELS.base``."""
    return targets.adapter_of_kind("bottleneck")


def write(head: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file of this head, which may promise another ``length``."""
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    FILE.write_bytes(struct.pack("<Q", len(head) if length is None else length) + head + data)
    return FILE


def one(**changes: Any) -> dict[str, Any]:
    """The head of a file with one tensor, two bytes that are one number."""
    return {"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]} | changes}


# ---- safetensors ----

HEADS: dict[str, tuple[Any, bytes, int | None]] = {
    "a header of 100 GB": (one(), b"12", 100_000_000_000),
    "a header of as much as a number can say": (one(), b"12", 2**64 - 1),
    "a header beyond the file": (one(), b"12", 5000),
    "a header of spaces": (b" " * 6_000_000, b"", None),
    "no header": (b"", b"", None),
    "no JSON": (b"{", b"", None),
    "no text": (b"\xff\xfe{}", b"", None),
    "a list": ([], b"", None),
    "deep brackets": (b"[" * 100_000, b"", None),
    "deep brackets in an entry": (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", b"", None),
    "a number of thousands of digits": (b'{"a":' + b"9" * 5000 + b"}", b"", None),
    "a tensor that is none": ({"a": 5}, b"12", None),
    "beyond the end": (one(data_offsets=[0, 4], shape=[2]), b"12", None),
    "far beyond the end": (one(data_offsets=[0, 2**40], shape=[2**39]), b"12", None),
    "before the beginning": (one(data_offsets=[-2, 2], shape=[2]), b"12", None),
    "backwards": (one(data_offsets=[2, 0]), b"12", None),
    "offsets that are texts": (one(data_offsets=["0", "2"]), b"12", None),
    "one offset": (one(data_offsets=[2]), b"12", None),
    "nothing of a tensor": ({"a": {}}, b"", None),
    "more than its tensors": (one(), b"1234", None),
    "overlapping": ({"a": one()["a"], "b": one()["a"]}, b"12", None),
    "a gap": ({"a": one()["a"], "b": one(data_offsets=[4, 6])["a"]}, b"123456", None),
    "of another size than its shape": (one(shape=[3]), b"12", None),
    "a side below nothing": (one(shape=[-1]), b"12", None),
    "a side of a half": (one(shape=[0.5]), b"12", None),
    "sides beyond any number": (one(shape=[2**63, 2**63], data_offsets=[0, 0]), b"", None),
    "nothing of enormous sides": (one(shape=[0, 2**62, 2**62], data_offsets=[0, 0]), b"", None),
    "eight bits": (one(dtype="F8_E4M3", shape=[2]), b"12", None),
    "four bits": (one(dtype="F4", shape=[4]), b"12", None),
    "complex": (one(dtype="C64", shape=[1], data_offsets=[0, 8]), b"12345678", None),
    "without a sign": (one(dtype="U16"), b"12", None),
    "a type that there is not": (one(dtype="X"), b"12", None),
    "a type that is no text": (one(dtype=["F16"]), b"12", None),
    "metadata that are numbers": (one() | {"__metadata__": {"a": 1}}, b"12", None),
    "metadata that are a list": (one() | {"__metadata__": ["a"]}, b"12", None),
    "half a character": (b'{"__metadata__": {"a": "\\ud800"}}', b"", None),
}


@pytest.mark.parametrize("what", HEADS)
def test_headers_that_promise_too_much(what: str) -> None:
    write(*HEADS[what])
    started = time.process_time()
    for read in (read_tensors, load_adapter, diffusers_lora.is_ours, diffusers_lora.read_lora):
        with pytest.raises(ModelError, match=r"x\.safetensors") as error:
            read(FILE)
        assert error.value.hint
        assert len(error.value.message) < 500
    assert time.process_time() - started < 5


def test_more_tensors_than_any_network_has() -> None:
    head = {f"{i:x}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(MOST_TENSORS + 1)}
    with pytest.raises(ModelError, match="it holds 20,001 tensors"):
        read_tensors(write(head))
    head.popitem()
    assert len(read_tensors(write(head))[0]) == MOST_TENSORS
    million = (
        b"{" + b",".join(b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(1_000_000)) + b"}"
    )
    with pytest.raises(ModelError, match=r"its head says that it has 5\d,\d{3},\d{3} bytes itself"):
        read_tensors(write(million))


def test_a_name_that_is_given_twice_is_one_tensor() -> None:
    entry = json.dumps(one()["a"]).encode()
    found, _ = read_tensors(write(b'{"a":' + entry + b',"a":' + entry + b"}", b"\0<"))
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a": [1.0]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_that_are_not_finite(sound: Path, value: float, dtype: torch.dtype) -> None:
    file = load_adapter(sound)
    name = next(name for name in file.tensors if name.startswith("adapter."))
    tiny.write_adapter(FILE, file.tensors, file.header.to_json())
    tiny.spoil(FILE, name, value, dtype)
    with pytest.raises(ModelError, match=f"{name} holds a value that is not finite"):
        load_adapter(FILE)


def test_a_file_that_shrinks_while_it_is_used(sound: Path) -> None:
    """Mapped into memory, it would end the program."""
    shutil.copyfile(sound, FILE)
    program = (
        "import os, sys; from pathlib import Path; from styledrop_cli.adapters.header import load_adapter\n"
        "file = load_adapter(Path(sys.argv[1])); os.truncate(sys.argv[1], 0)\n"
        "assert all(float(t.float().abs().sum()) >= 0 for t in file.tensors.values())"
    )
    done = subprocess.run([sys.executable, "-c", program, FILE], capture_output=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": SEARCH}


# ---- what an adapter's header says ----

CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"pictures": 5}, "pictures missing or of the wrong kind"),
    ({"pictures": ["ref.png"]}, "pictures missing or of the wrong kind"),
    ({"contents": [1]}, "contents missing or of the wrong kind"),
    ({"base": {"name": 5, "hash": "0"}}, "base missing or of the wrong kind"),
    ({"base": {"name": "x", "hash": []}}, "base missing or of the wrong kind"),
    ({"thumbnail": ["x"]}, "thumbnail missing or of the wrong kind"),
    ({"settings": []}, "settings missing or of the wrong kind"),
    ({"source": {}}, "source missing or of the wrong kind"),
    ({"merged": [5]}, "merged missing or of the wrong kind"),
    ({"superres": []}, "superres missing or of the wrong kind"),
    ({"recommended": {"lambda_a": float("nan")}}, "recommended missing or of the wrong kind"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_headers_of_the_wrong_kind(sound: Path, change: dict[str, Any], words: str) -> None:
    file = load_adapter(sound)
    tiny.write_adapter(FILE, file.tensors, file.header.to_json() | change)
    for read in (read_header, load_adapter):
        with pytest.raises(ModelError, match=f"the header of x.safetensors is damaged: {words}"):
            read(FILE)


@pytest.mark.parametrize(
    "config", [{"width": 10**9}, {"width": -1}, {"width": 0}, {"width": True}, {"width": 2, "shared": "no"}]
)
def test_sizes_that_no_adapter_has(sound: Path, config: dict[str, Any]) -> None:
    file = load_adapter(sound)
    tiny.write_adapter(FILE, file.tensors, file.header.to_json() | {"config": config})
    with pytest.raises(ModelError, match=r"x\.safetensors"):
        adapter_file.open_adapter(targets.MODELS.base, load_adapter(FILE))


@pytest.mark.parametrize(
    "ids", [torch.full((2, 4, 4), 24), torch.full((2, 4, 4), -1), torch.zeros(2, 5, 5).long(), torch.zeros(2, 4, 4)]
)
def test_views_that_show_ids_which_there_are_not(sound: Path, ids: torch.Tensor) -> None:
    file = load_adapter(sound)
    tiny.write_adapter(FILE, file.tensors | {"views.ids": ids}, file.header.to_json())
    with pytest.raises(ModelError, match=r"x\.safetensors is damaged: its views\.ids are no 4 x 4 ids of model"):
        adapter_file.open_adapter(targets.MODELS.base, load_adapter(FILE))


# ---- JSON ----

TEXTS = {
    "[" * 100_000: "nested too deep",
    "[" * 60 + "]" * 60: "more than 50 deep",
    '{"a":' * 60 + "1" + "}" * 60: "more than 50 deep",
    "9" * 41: "a number of 41 digits",
    "-" + "9" * 100_000: "a number of 100,001 digits",
    '"\\ud800"': "surrogates not allowed",
    '{"\\udfff": 1}': "surrogates not allowed",
    "{": "line 1 column 2",
    "": "line 1 column 1",
}


@pytest.mark.parametrize("text", TEXTS, ids=[text[:20] for text in TEXTS])
def test_json_without_end(text: str) -> None:
    with pytest.raises(ValueError, match=TEXTS[text]):
        parse_json(text)


def test_json_that_is_read() -> None:
    assert parse_json('{"a": "\\ud83d\\ude00", "b": [1e999, -3, 1.5]}') == {"a": "😀", "b": [float("inf"), -3, 1.5]}
    assert parse_json("[" * 50 + "]" * 50)
    assert parse_json("9" * 40) == int("9" * 40)


def test_files_larger_than_what_is_meant() -> None:
    Path("a.json").write_bytes(b" " * files.LARGEST + b"{}")
    with pytest.raises(OSError, match="it has more than 5,000,000 bytes") as error:
        read_json(Path("a.json"))
    assert error.value.errno == errno.EFBIG


# ---- pipes, devices, folders, and links ----


def in_place_of(name: str) -> dict[str, Callable[[], object]]:
    """What reads the file or the folder of this name, by what it is."""
    path = Path(name)
    return {
        "picture": lambda: images.load_picture(path),
        "settings": lambda: images.read_png_settings(path),
        "cut-out": lambda: images.load_cutout(path, 16),
        "mask": lambda: images.load_mask(path),
        "header": lambda: read_header(path),
        "adapter": lambda: load_adapter(path),
        "tensors": lambda: read_tensors(path),
        "lora": lambda: diffusers_lora.read_lora(path),
    }


INSIDE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "model": ("config.json", read_config),
    "words": ("words.txt", lambda folder: load_base(str(folder), tiny.CPU)),
    "merges": ("merges.txt", lambda folder: load_base(str(folder), tiny.CPU)),
    "part": ("clip.safetensors", lambda folder: load_base(str(folder), tiny.CPU)),
    "corpus": ("metadata.jsonl", corpus_folder.read_corpus),
    "art": ("art.json", read_art),
    "run": ("run.json", lambda folder: RunFolder.begin(folder, {}, fresh=False, own=())),
    "choices": ("choices.json", lambda folder: Choices(3, folder / "choices.json")),
    "alpha": (diffusers_lora.PEFT_CONFIG, lambda folder: diffusers_lora.read_lora(folder / diffusers_lora.OF_PEFT)),
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [fifo, folder, device, circle])
@pytest.mark.parametrize("what", in_place_of(""))
def test_what_is_no_file(what: str, make: Callable[[Path], None]) -> None:
    make(Path("x.png"))
    with pytest.raises(StyledropError, match=r"x\.png"):
        in_place_of("x.png")[what]()


@pytest.mark.parametrize("make", [fifo, folder, device])
@pytest.mark.parametrize("what", INSIDE)
def test_what_is_no_file_in_a_folder(what: str, make: Callable[[Path], None]) -> None:
    name, read = INSIDE[what]
    place = Path("place")
    if what in ("words", "merges", "part"):
        tiny.write_base(place)
        (place / name).unlink()
    elif what == "alpha":
        save_tensors(place / diffusers_lora.OF_PEFT, tiny.lora_tensors())
    else:
        place.mkdir()
    make(place / name)
    if what == "alpha":  # it may be missing
        assert diffusers_lora.read_lora(place / diffusers_lora.OF_PEFT).alpha is None
        return
    with pytest.raises(StyledropError):
        read(place)


@pytest.mark.parametrize("make", [fifo, folder, device])
def test_what_is_read_only_if_it_is_there(make: Callable[[Path], None]) -> None:
    for name in ("plan.json", "curve.json", "model_index.json"):
        make(Path(name))
    assert Plan.read(Path()) is None
    assert RunFolder(Path(), {}).read("curve.json") is None
    assert history._curve(Path("curve.json"), OF_IT) is None
    assert index_of(Path()) == {}


def test_inspecting_a_pipe(styledrop: Run) -> None:
    os.mkfifo("a.safetensors")
    code, out, err = styledrop("inspect", "a.safetensors")
    assert (code, out) == (1, "")
    assert "Error: a.safetensors is no ordinary file" in err


def test_lists_from_a_device_end() -> None:
    for read in (prompt_file.read_lines, kit_file.read_kit, checks.prompts_in):
        with pytest.raises(UsageError, match="/dev/zero is too large"):
            read(Path("/dev/zero"))


def test_corpora_stay_in_their_folder() -> None:
    draw().save("outside.png")
    Path("secret.txt").write_text("a secret")
    inside = tiny.write_corpus(Path("corpus"), 3, 1)
    lines = (inside / "metadata.jsonl").read_text().splitlines()
    (inside / "link.png").symlink_to("../outside.png")
    for name in ("../outside.png", str(Path("outside.png").resolve()), "link.png"):
        (inside / "metadata.jsonl").write_text("\n".join([*lines, json.dumps({"file_name": name, "text": "x"})]))
        with pytest.raises(UsageError, match=f"line 4: {name} lies outside the folder"):
            corpus_folder.read_corpus(inside)
    (inside / "metadata.jsonl").write_text("\n".join([*lines, json.dumps({"file_name": "./0.png", "text": "x"})]))
    with pytest.raises(UsageError, match=r"line 4: \./0\.png is named a second time"):
        corpus_folder.read_corpus(inside)
    (inside / "metadata.jsonl").unlink()
    with pytest.raises(UsageError, match=r"corpus/link\.png lies outside the folder"):
        corpus_folder.read_corpus(inside)
    (inside / "link.png").unlink()
    (inside / "0.txt").symlink_to("../secret.txt")
    with pytest.raises(UsageError, match=r"corpus/0\.txt lies outside the folder"):
        corpus_folder.read_corpus(inside)


@pytest.mark.parametrize("name", ["../../out", "/etc/passwd", "a/b", "", ".", "..", "a\\b", "c:x", "x" * 300, "a\nb"])
def test_art_stays_in_its_folder(name: str) -> None:
    place = tiny.write_art(Path("deep/er/art"))
    said = json.loads((place / "art.json").read_text())
    for key, value in (("things", {name: ["a box"]}), ("families", {name: ["flat"]})):
        (place / "art.json").write_text(json.dumps(said | {key: value}))
        with pytest.raises(UsageError, match=r"art\.json is not as it should be: .*cannot be the name of a file"):
            read_art(place)


@pytest.mark.parametrize(
    "name", ["../../x.safetensors", "/etc/passwd", "a.bin", "..", "x" * 300 + ".safetensors", "a\0.safetensors"]
)
def test_shards_lie_beside_their_index(name: str) -> None:
    place = tiny.write_published(Path("published"))
    (place / "vqvae" / "diffusion_pytorch_model.safetensors").unlink()
    index = place / "vqvae" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match=r"no safetensors file beside it|shards are missing"):
        open_published(place)


def test_a_pool_is_drawn_with_the_rounds_own_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(rounds, "Pool", lambda base, folder, plan: drawn.append(folder))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    plan = {"prompts": ["a cat"], "per_prompt": 1, "seed": 0, "style": "", "sampling": {}}
    for number, adapter in enumerate(("../../../elsewhere.safetensors", "/dev/zero")):
        place = Path(f"a.rounds/round-{number}/pool")
        place.mkdir(parents=True)
        (place / "plan.json").write_text(json.dumps(plan | {"adapter": adapter}))
        assert Plan.read(place) is not None
    over = iter([False, True])
    rounds.assist(targets.MODELS.base, Path("a.rounds"), (0, 1), lambda: next(over))
    assert drawn == []


def test_links_left_in_a_run_folder_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("precious").write_text("precious")
    Path("a.run").mkdir()
    Path("a.run/.lock").symlink_to("../precious")
    with alone_in(Path("a.run")):
        assert Path("precious").read_text() == "precious"
        Path("a.run/y.json").symlink_to("../precious")
        files.atomic_write(Path("a.run/y.json"), b"{}")
        assert Path("precious").read_text() == "precious" and not Path("a.run/y.json").is_symlink()
    Path(f"a.run/.x.json.{os.getpid()}.part").symlink_to("../precious")
    files.atomic_write(Path("a.run/x.json"), b"{}")
    assert Path("precious").read_text() == "precious"
    assert Path("a.run/x.json").read_text() == "{}" and not Path("a.run/x.json").is_symlink()


def test_a_file_may_be_called_by_any_bytes(sound: Path) -> None:
    path = Path(os.fsdecode(b"caf\xe9\x1b.png"))
    draw().save(path, "PNG")
    about = adapter_file.of_pictures([path], [draw()], [20.0])
    file = load_adapter(sound)
    tiny.write_adapter(FILE, file.tensors, file.header.to_json() | about)
    assert read_header(FILE).pictures[0]["name"] == "caf?\x1b.png"


# ---- the hub's answers ----


@pytest.mark.parametrize(
    "change",
    [
        {"sha": "../../../precious"},
        {"sha": None},
        {
            "siblings": [
                {
                    "rfilename": "transformer/x",
                    "size": 9,
                    "lfs": {"sha256": "../../../precious", "size": 9, "pointerSize": 1},
                }
            ]
        },
        {"siblings": [{"rfilename": "transformer/x", "size": -5}]},
        {"siblings": [{"rfilename": ["x"], "size": 5}]},
        {"siblings": [{}]},
        {"siblings": 5},
    ],
)
def test_answers_that_name_files_elsewhere(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(Path("cache").resolve()))
    Path("precious").write_text("precious")
    said = json.loads(targets.hub_seeds()[0]) | change
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: huggingface_hub.hf_api.ModelInfo(**said))
    with pytest.raises(StyledropError, match="of a/b makes no sense"):
        download.fetch("a/b")
    assert Path("precious").read_text() == "precious"
    assert not Path("cache").exists()


def test_a_damaged_link_of_the_cache_leads_to_nobody_elses_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(Path("cache").resolve()))
    Path("cache").mkdir()
    Path("precious").write_text("precious")
    Path("cache/link").symlink_to("../precious")
    hub.delete(Path("cache/link"))
    assert Path("precious").exists() and not Path("cache/link").is_symlink()


# ---- pickles ----


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    "name", ["weights.pt", "weights.bin", "weights.ckpt", "weights.pkl", "weights", "weights.safetensors"]
)
def test_pickles_are_never_opened(name: str) -> None:
    torch.save({"a": Bomb()}, name)
    readers: list[Callable[[], object]] = [
        lambda: read_tensors(Path(name)),
        lambda: load_adapter(Path(name)),
        lambda: diffusers_lora.read_lora(Path(name)),
    ]
    if not name.endswith(".safetensors"):  # whose kind is known by its name
        readers.append(lambda: clip_scorer._model_and_weights(Models(), f"model/{name}"))
    with watching.watched(Path()):
        for read in readers:
            with pytest.raises(ModelError):
                read()
    assert not Path("ran").exists()


def test_a_folder_with_a_pickle_is_not_given_to_open_clip() -> None:
    Path("folder").mkdir()
    torch.save({"a": Bomb()}, "folder/open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"folder holds a pickle \(open_clip_pytorch_model\.bin\)"):
        clip_scorer.load_scorer("local-dir:folder", Path(), tiny.CPU)
    assert not Path("ran").exists()


class Models:
    """In place of open_clip."""

    def list_models(self) -> list[str]:
        return ["model"]

    def list_pretrained_tags_by_model(self, model: str) -> list[str]:
        return []

    def is_pretrained_cfg(self, model: str, weights: str) -> bool:
        return False


# ---- model folders ----

CONFIGS: list[tuple[type[Any], dict[str, Any]]] = [
    (TransformerConfig, {"num_hidden_layers": 10**6}),
    (TransformerConfig, {"num_hidden_layers": -1}),
    (TransformerConfig, {"hidden_size": 2**40}),
    (TransformerConfig, {"sample_size": 100_000}),
    (TransformerConfig, {"sample_size": 0}),
    (TransformerConfig, {"hidden_size": "1024"}),
    (TransformerConfig, {"downsample": 1, "upsample": 1}),
    (TokenizerConfig, {"block_out_channels": []}),
    (TokenizerConfig, {"block_out_channels": [8] * 300}),
    (TokenizerConfig, {"block_out_channels": [8] * 20}),
    (TokenizerConfig, {"block_out_channels": [8, "8"]}),
    (TokenizerConfig, {"block_out_channels": "88"}),
    (TokenizerConfig, {"patch_size": 0}),
    (ClipConfig, {"text_heads": 0}),
    (ClipConfig, {"text_heads": 5}),
    (ClipConfig, {"text_layers": 0}),
    (TrainSettings, {"targets": 5}),
    (TrainSettings, {"lr": 10**39}),
]


@pytest.mark.parametrize(("kind", "values"), CONFIGS)
def test_sizes_that_no_network_has(kind: type[Any], values: dict[str, Any]) -> None:
    with pytest.raises(StyledropError, match=r"^here|must be between"):
        build_config(kind, values, "here")


def test_a_seed_may_be_any() -> None:
    assert build_config(TrainSettings, {"seed": 2**63 - 1}, "here").seed == 2**63 - 1


PARTS: list[dict[str, Any]] = [
    {"clip": 5},
    {"clip": []},
    {"clip": {"text_width": 10**6, "image_size": 0}},  # 4 TB, if it were made
    {"transformer": {"hidden_size": 10**6, "num_attention_heads": 1}},
    {"tokenizer": {"norm_num_groups": 0}},
    {"tokenizer": {"norm_num_groups": 7}},
]


@pytest.mark.parametrize("change", PARTS)
def test_parts_that_promise_too_much(change: dict[str, Any]) -> None:
    place = tiny.write_base(Path("m"))
    config = json.loads((place / "config.json").read_text())
    for part, values in change.items():
        config["parts"][part] = config["parts"][part] | values if isinstance(values, dict) else values
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load_base(str(place), tiny.CPU)


def test_parts_that_do_not_go_together() -> None:
    place = tiny.write_base(Path("m"))
    other = replace(tiny.TRANSFORMER, encoder_hidden_size=24)
    save_part(place, "transformer", tiny.transformer(other), other)
    with pytest.raises(
        ModelError, match=r"the parts of m do not fit: .* the transformer's text is its CLIP's \(24, 16\)"
    ):
        load_base(str(place), tiny.CPU)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a\n" * 30_000, b"a" * 6_000_000])
@pytest.mark.parametrize("name", ["words.txt", "contents.txt"])
def test_lists_beside_a_model(name: str, data: bytes) -> None:
    place = tiny.write_base(Path("m"))
    (place / name).write_bytes(data)
    with pytest.raises(ModelError, match=f"m/{name}"):
        load_base(str(place), tiny.CPU)


# ---- pictures ----


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A small PNG with more chunks before its pixels."""
    buffer = io.BytesIO()
    draw(24, 20).save(buffer, "PNG")
    whole = buffer.getvalue()
    made = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return whole[:33] + made + whole[33:]


def bomb(size: int = 200_000_000) -> bytes:
    """So many zeros, small."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)) + packer.flush()


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_texts_that_swell(kind: bytes) -> None:
    head = {b"zTXt": b"a\0\0", b"iTXt": b"styledrop\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
    Path("bomb.png").write_bytes(png((kind, head + bomb())))
    memory = watching.Memory()
    memory.start()
    for read in (images.load_picture, images.read_png_settings):
        with suppress(PictureError):
            read(Path("bomb.png"))
    assert memory.more < 60


def test_many_texts() -> None:
    Path("many.png").write_bytes(png(*[(b"zTXt", b"a\0\0" + bomb(1_000_000))] * 200))  # Pillow reads 64 MB of them
    memory = watching.Memory()
    memory.start()
    with pytest.raises(PictureError, match=r"many\.png"):
        images.load_picture(Path("many.png"))
    assert memory.more < 150


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_many_frames_the_first_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), (i % 256, i // 256, 0)) for i in range(500)]
    frames[0].save(
        "many", kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    started = time.process_time()
    assert images.load_picture(Path("many")).getpixel((9, 9)) == (0, 0, 0)
    assert time.process_time() - started < 1


def tiff(next_directory: int, exif: int = 0) -> bytes:
    """A grey TIFF of 16 x 16 whose directory leads to others."""
    tags = [
        (256, 3, 16),
        (257, 3, 16),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 3, 16),
        (279, 4, 256),
    ]
    tags += [(34665, 4, exif)] if exif else []
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", next_directory)
    return head.ljust(200, b"\0") + bytes(256)


@pytest.mark.parametrize("data", [tiff(8), tiff(0, 8), tiff(8, 8), tiff(2**31), tiff(0, 2**31), tiff(9)])
def test_tiffs_that_lead_in_circles(data: bytes) -> None:
    Path("circle.tiff").write_bytes(data)
    with suppress(PictureError):
        assert images.load_picture(Path("circle.tiff")).size == (16, 16)


def test_no_program_is_run_for_a_picture() -> None:
    """Pillow would hand PostScript to Ghostscript."""
    text = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(ran) (w) file closefile\nshowpage\n%%EOF\n"
    )
    Path("a.png").write_bytes(text)
    with watching.watched(Path()), pytest.raises(PictureError, match="is not a picture this program can read"):
        images.load_picture(Path("a.png"))


def test_a_profile_that_is_none() -> None:
    Path("a.png").write_bytes(png((b"iCCP", b"a\0\0" + zlib.compress(b"x" * 500))))
    assert images.load_picture(Path("a.png")).size == (24, 20)
    whole = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Path("a.png").write_bytes(png((b"iCCP", b"a\0\0" + zlib.compress(whole[:-300]))))
    assert images.load_picture(Path("a.png")).size == (24, 20)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "[]", "5", '{"a": "\\ud800"}', "{"])
def test_settings_that_are_garbled(text: str) -> None:
    Path("a.png").write_bytes(png((b"iTXt", b"styledrop\0\0\0\0\0" + text.encode())))
    with pytest.raises(PictureError, match=r"the settings inside a\.png are garbled"):
        images.read_png_settings(Path("a.png"))


def test_small_pictures_that_are_none() -> None:
    buffer = io.BytesIO()
    Image.new("1", (3000, 3000)).save(buffer, "PNG")
    large = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    for address in ("data:image/png;base64,", "", "data:image/png;base64,AAAA", "data:,x", "x" * 100, large):
        with pytest.raises(PictureError, match="the small picture in this file is garbled"):
            images.from_base64(address)


# ---- what is shown of a file ----


def hostile_header(sound: Path) -> dict[str, Any]:
    header = read_header(sound).to_json()
    odd = {
        f"odd{ESCAPES}": "x",
        "[/red]": "[link=https://evil.example]click[/link]",
        "long": "y" * 100_000,
        "deep": json.loads("[" * 30 + "]" * 30),
    }
    return header | {"style": f"ink {ESCAPES}<script>alert(1)</script>"} | odd | {f"k{i}": i for i in range(5000)}


def test_inspect_shows_no_commands_to_the_terminal(styledrop: Run, sound: Path) -> None:
    file = load_adapter(sound)
    path = Path("[bold]a[/].safetensors")
    tiny.write_adapter(path, file.tensors, hostile_header(sound))
    code, out, err = styledrop("inspect", path)
    assert code == 0, err
    assert "[bold]a[/].safetensors" in out and "[/red]" in out and "[link=https://evil.example]" in out
    assert not set(out) & set(ESCAPES[:1] + "\x07\x9b")
    assert len(out) < 100_000
    code, out, err = styledrop("inspect", path, "--json")
    assert json.loads(out)["style"] == hostile_header(sound)["style"]
    assert not set(out) & set("\x1b\x07\x9b")


def test_errors_carry_no_commands_to_the_terminal(styledrop: Run, sound: Path) -> None:
    file = load_adapter(sound)
    tiny.write_adapter(FILE, file.tensors, file.header.to_json() | {"kind": f"{ESCAPES}{'z' * 100_000}"})
    code, out, err = styledrop("generate", FILE, "a cat", "--model", targets.MODELS.folder)
    assert (code, out) == (1, "")
    assert "is an adapter of kind '" in err
    assert not set(err) & set("\x1b\x07\x9b")
    assert len(err) < 5000


def test_a_prompt_in_a_picture_is_no_command_to_the_terminal() -> None:
    assert Found(Path("a"), {"prompt": f"a {ESCAPES} cat\n"}).says("prompt") == "a ]0;owned [2J 31m cat"


def test_the_report_is_text_where_a_file_is_markup(styledrop: Run, sound: Path) -> None:
    file = load_adapter(sound)
    script = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    pictures = [picture | {"name": script} for picture in file.header.pictures]
    said = {"style": f"watercolor {script}", "contents": [f"a cat {script}"], "pictures": pictures, "created": script}
    said |= {"settings": {script: script, "kind": "lora"}, "feedback": script, "parent": script}
    tiny.write_adapter(FILE, file.tensors, file.header.to_json() | said)
    Path("prompts.txt").write_text("a cat\n")
    command = (
        "report",
        FILE,
        "-n",
        "1",
        "--prompts",
        "prompts.txt",
        "--model",
        targets.MODELS.folder,
        "--scorer",
        "clip",
    )
    code, _, err = styledrop(*command, "-o", "r.html", "--quiet")
    assert code == 0, err
    page = Path("r.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert (
        page.count("<script") == 1  # the page's own
        and "<img src=x" not in page
        and "onerror=alert" not in page.replace("onerror=alert(1)&gt;", "")
    )


def test_what_is_copied_from_a_report_is_no_second_command(sound: Path) -> None:
    line = "x\nrm -rf ~\r\x1b[2J"
    header = read_header(sound).with_values(style=line, feedback=line, contents=[line])
    stages = [history.Stage(f"round {n}", FILE, "0", header.with_values(number=n), None, []) for n in (1, 2)]
    told = history.Story(Path(), stages, {"prompts": [line], "seed": line, "per_prompt": [line]}, [])
    found = commands.commands(told, [line], [], "pocket", "-o r.html")
    assert all(one.startswith(("styledrop ", "# ")) for one in "\n".join(found).splitlines())


def test_a_word_longer_than_any_sheet() -> None:
    started = time.process_time()
    contact_sheet([draw()], 1, ["x" * 10_000], "y" * 10_000, 64)
    assert time.process_time() - started < 3


@pytest.mark.parametrize("name", ["round-²", "round-01", "round--1", "round-99999999999999999999"])
def test_folders_that_are_no_rounds(sound: Path, name: str) -> None:
    for one_round in (name, "round-1"):
        Path("a.rounds", one_round).mkdir(parents=True)
        shutil.copyfile(sound, Path("a.rounds", one_round, "adapter.safetensors"))
    assert [stage.name for stage in history.read_story(Path("a.rounds")).stages] == ["start"]


ITS_OWN = {"step": 2, "loss": 4.0, "scores": None}  # the checkpoint that became the adapter
OF_IT = AdapterHeader.new(kind="lora", config={}, base={}, style="", contents=[], recommended={}, **ITS_OWN)


@pytest.mark.parametrize(
    "change",
    [
        {"losses": [[1, float("inf")]]},
        {"losses": [[1e999, 1.0]]},
        {"losses": [[10**39, 1.0]]},
        {"losses": [[1, 1e300]]},
        {"losses": 5},
        {"losses": [5]},
        {"checkpoints": [ITS_OWN, {"step": 1, "scores": dict.fromkeys(history.SCORED, float("nan"))}]},
    ],
)
def test_curves_that_no_plot_can_show(change: dict[str, Any]) -> None:
    whole = {"losses": [[1, 4.5], [2, 4.0]], "checkpoints": [ITS_OWN], "chosen": 2}
    Path("curve.json").write_text(json.dumps(whole))
    assert history._curve(Path("curve.json"), OF_IT) is not None
    Path("curve.json").write_text(json.dumps(whole | change))
    assert history._curve(Path("curve.json"), OF_IT) is None


# ---- trainings that go on ----


def test_a_state_is_taken_whole_or_not_at_all() -> None:
    loop = targets.loop()
    loop.save(FILE)
    held, about = read_tensors(FILE)
    del about["sha256"]
    changes: list[tuple[dict[str, torch.Tensor], dict[str, str]]] = [
        ({"task.layer.bias": torch.ones(1)}, {}),  # it would be spread over all
        ({"task.layer.bias": torch.tensor([1.0, torch.nan])}, {}),
        ({"optimizer0.0.exp_avg": torch.ones(1)}, {}),
        ({"optimizer0.0.exp_avg": torch.full((2, 3), torch.inf)}, {}),
        ({"optimizer0.0.step": torch.tensor(-1e9)}, {}),
        ({"optimizer0.99.step": torch.tensor(1.0)}, {}),
        ({"optimizer0.x": torch.tensor(1.0)}, {}),
        ({"buffer.other": torch.ones(2)}, {}),
        ({}, {"step": "-1"}),
        ({}, {"step": "10"}),  # of 9
        ({}, {"step": "9" * 30}),
        ({}, {"seconds": "nan"}),
        ({}, {"seconds": "inf"}),
        ({}, {"step": "x"}),
    ]
    before = {name: parameter.clone() for name, parameter in loop.trained.items()}
    for tensors, metadata in changes:
        marked = held | {"task.layer.weight": torch.full((2, 3), 7.0)} | tensors
        FILE.write_bytes(save({name: t.clone() for name, t in marked.items()}, about | metadata))
        with pytest.raises(ModelError, match="is of another training"):
            loop.resume(FILE)
        assert all(torch.equal(parameter, before[name]) for name, parameter in loop.trained.items())


# ---- memory ----

BOUND = 300  # MB beyond twice the file's size, of whatever is no picture
PICTURE_BOUND = 1800  # MB


def grown(program: str) -> int:
    """By how many MB a process of its own grows while it runs this ``program``, a line."""
    whole = f"""
from pathlib import Path
from hostile.watching import Memory
from styledrop_cli.adapters import diffusers_lora, header
from styledrop_cli.base import base, prompt_tokens
from styledrop_cli.corpus import folder
from styledrop_cli.io import images, run_folder, tensors
from styledrop_cli.generation.lists import kit_file, prompt_file
from styledrop_cli.errors import StyledropError
memory = Memory()
memory.start()
try:
    {program}
except StyledropError as error:
    error
print(round(memory.more))
"""
    command = [sys.executable, "-c", whole]
    made = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    return int(made.stdout)


def largest(unit: str, room: int = files.LARGEST - 100) -> str:
    return ",".join([unit] * (room // (len(unit) + 1)))


def headed(head: bytes) -> bytes:
    return struct.pack("<Q", len(head)) + head


OBJECT = '{"":0}'  # no other JSON of so few bytes takes more
HEAVY: dict[str, tuple[Callable[[], bytes], str]] = {
    "a header of objects": (
        lambda: headed(f'{{"a":[{largest(OBJECT)}]}}'.encode()),
        "header.load_adapter(Path('heavy'))",
    ),
    "a styledrop entry of objects": (
        lambda: save({}, {"styledrop": f"[{largest(OBJECT, 2_000_000)}]"}),
        "header.load_adapter(Path('heavy'))",
    ),
    "a run": (lambda: f"[{largest('[[]]')}]".encode(), "run_folder.Run(Path(), {}).read('heavy')"),
    "merges": (lambda: b"a b\n" * 1_200_000, "prompt_tokens.read_merges(Path('heavy'))"),
    "prompts": (lambda: b"{a|b}\n" * 800_000, "prompt_file.read_lines(Path('heavy'))"),
    "a kit": (lambda: b"[[asset]]\n" * 450_000, "kit_file.read_kit(Path('heavy'))"),
    "a sparse adapter": (lambda: sparse(3_000_000_000), "header.load_adapter(Path('heavy'))"),
}


def sparse(size: int) -> bytes:
    """A file of next to nothing that has a tensor of so many bytes."""
    head = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    Path("heavy").write_bytes(struct.pack("<Q", len(head)) + head)
    os.truncate("heavy", 8 + len(head) + size)
    return b""


@pytest.mark.parametrize("what", HEAVY)
def test_no_file_takes_more_memory_than_is_said(what: str) -> None:
    make, read = HEAVY[what]
    if data := make():
        Path("heavy").write_bytes(data)
    size = len(data) // 1_000_000
    assert grown(read) < BOUND + 2 * size


def picture_file(kind: str) -> None:
    large = Image.new("RGBA", (97_600, 1024) if kind == "narrow" else (10_000, 10_000), (1, 2, 3, 128))
    if kind == "JPEG":
        large.convert("CMYK").save("heavy", "JPEG", progressive=True)
    elif kind == "GIF":
        large.convert("P").save("heavy", "GIF")
    elif kind == "WEBP":
        large.save("heavy", "WEBP", lossless=True, method=0)
    elif kind == "one transparent colour":
        large.convert("RGB").save("heavy", "PNG", compress_level=1, transparency=(1, 2, 3))
    elif kind == "floats":
        large.convert("F").save("heavy", "TIFF", compression="tiff_adobe_deflate")
    elif kind == "TIFF":
        large.save("heavy", "TIFF", compression="tiff_adobe_deflate")
    else:
        large.save("heavy", "PNG", compress_level=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "narrow", "WEBP", "JPEG", "GIF", "TIFF", "one transparent colour", "floats"])
@pytest.mark.filterwarnings("ignore")
def test_no_picture_takes_more_memory_than_is_said(kind: str) -> None:
    picture_file(kind)
    for read in ("images.load_picture(Path('heavy'))", "images.load_cutout(Path('heavy'), 64)"):
        assert grown(read) < PICTURE_BOUND
