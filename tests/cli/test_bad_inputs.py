"""What a person can get wrong, through the commands: each has its own message, and nothing is left behind."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import shutil
import stat
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save

import tiny
from children import unprivileged
from conftest import SOURCE, Outcome, Run, draw
from styledrop_cli.adapters.header import load_adapter
from styledrop_cli.base import base as base_module
from styledrop_cli.base.registry import BATCH
from styledrop_cli.cli.app import app
from styledrop_cli.errors import StyledropError
from styledrop_cli.io import images
from styledrop_cli.io.files import atomic_write
from styledrop_cli.io.images import read_png_settings
from styledrop_cli.settings import LARGEST_SEED, TrainSettings
from styledrop_cli.training.adapter import train_adapter

DRAW = ("generate", "--base-only", "-n", "1", "--steps", "1", "--quiet")
TRAIN = ("train", "ref.png", "--style", "watercolor", "--content", "a cat", "--steps", "1", "--quiet")


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model, one step old."""
    folder = tmp_path_factory.mktemp("adapter")
    draw().save(folder / "ref.png")
    train_adapter(
        base_module.load_base(str(tiny_model), tiny.CPU),
        pictures=[folder / "ref.png"],
        style="watercolor",
        contents=["a cat"],
        settings=TrainSettings(steps=1, views=2, checkpoints=0),
        output=folder / "good.safetensors",
    )
    return folder / "good.safetensors"


def refused(outcome: Outcome, code: int, *words: str) -> None:
    """Nothing on the one side; on the other what was wrong, and no traceback."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "Error: " in outcome.err
    assert "Traceback" not in outcome.err
    assert "unexpected" not in outcome.err
    for word in words:
        assert word in outcome.err


def peak() -> float:
    """The most memory this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


# ---- 1. pictures ----


def text_named_png(path: Path) -> None:
    path.write_text("these are words")


def cut_png(path: Path) -> None:
    draw().save(path)
    path.write_bytes(path.read_bytes()[:-60])


def cut_jpeg(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])


def one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path)


def header_only(path: Path, side: int = 30_000) -> None:
    """A PNG that promises `side` x `side` pixels and holds one row of a few."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))


BAD_PICTURES: list[tuple[Callable[[Path], None], str, str]] = [
    (text_named_png, "ref.png is not a picture this program can read", "PNG, JPEG, WebP, GIF, BMP and TIFF are read"),
    (cut_png, "ref.png cannot be read to its end", "copy or export it again"),
    (cut_jpeg, "ref.png cannot be read to its end", "copy or export it again"),
    (one_pixel, "ref.png is 1 x 1 px: too small to hold a style", "at least 16 px on its shorter side"),
    (header_only, "ref.png is too large: 900,000,000 pixels, and at most 100,000,000 pixels are read", "scale it down"),
]


@pytest.mark.parametrize(("spoil", "words", "hint"), BAD_PICTURES, ids=[spoil.__name__ for spoil, *_ in BAD_PICTURES])
@pytest.mark.parametrize("command", [TRAIN, ("tokenize", "ref.png")], ids=["train", "tokenize"])
def test_bad_pictures(
    styledrop: Run,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    spoil: Callable[[Path], None],
    words: str,
    hint: str,
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)  # said before the base is loaded
    spoil(Path("ref.png"))
    refused(styledrop(*command), 1, words, "Hint: ", hint)
    assert [path.name for path in Path().iterdir()] == ["ref.png"]


@pytest.mark.parametrize(("side", "size"), [(10_001, "10001 x 10001 px"), (30_000, "900,000,000 pixels")])
def test_a_decompression_bomb_costs_neither_time_nor_memory(side: int, size: str) -> None:
    header_only(Path("bomb.png"), side)
    reads = (images.load_picture, images.read_png_settings)
    before, started = peak(), time.monotonic()
    for read in reads:
        with pytest.raises(StyledropError, match=f"bomb.png is too large: {size}"):
            read(Path("bomb.png"))
    assert time.monotonic() - started < 1
    assert peak() - before < 50  # decoded it would be 300 and more


def test_inspect_of_a_decompression_bomb(styledrop: Run) -> None:
    header_only(Path("bomb.png"))
    refused(styledrop("inspect", "bomb.png"), 1, "bomb.png is too large: 900,000,000 pixels")


def palette(path: Path) -> None:
    draw().quantize(8).save(path, "PNG")


def animated(path: Path) -> None:
    draw().save(path, "GIF", save_all=True, append_images=[Image.new("RGB", (96, 64))])


@pytest.mark.parametrize("make", [palette, animated])
def test_odd_pictures_that_work(styledrop: Run, tiny_model: Path, make: Callable[[Path], None]) -> None:
    make(Path("ref.png"))
    assert styledrop("tokenize", "ref.png", "-o", "seen", "--model", tiny_model).code == 0
    with Image.open("seen/ref-original.png") as seen:
        red, green, blue = seen.convert("RGB").resize((1, 1), box=(14, 14, 18, 18)).getpixel((0, 0))  # type: ignore[misc]
    assert red > 150 and green < 100 and blue < 100  # the first frame's disc, in its own colours


def transparent(path: Path) -> None:
    Image.new("RGBA", (64, 64), (210, 40, 30, 0)).save(path, "PNG")


@pytest.mark.parametrize(
    "command",
    [
        ("tokenize", "ref.png"),
        ("train", "ref.png", "--style", "ink", "--content", "a cat"),
        ("train", "ref.png", "--learn", "object", "--content", "my cat"),
        ("iterate", "ref.png", "--style", "ink", "--content", "a cat"),
        ("score", "other.png", "--prompt", "a cat", "--reference", "ref.png"),
    ],
)
def test_a_transparent_reference_is_refused_before_anything_is_loaded(
    styledrop: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    transparent(Path("ref.png"))
    draw().save("other.png")
    monkeypatch.setattr(base_module, "load_base", None)
    words = "ref.png is transparent all over: there is nothing in it to learn"
    refused(styledrop(*command), 1, words, "give another picture")
    assert sorted(path.name for path in Path().iterdir()) == ["other.png", "ref.png"]


@pytest.mark.parametrize(
    "command", [("tokenize",), ("train", "--style", "ink", "--content", "a cat", "--steps", "1", "--checkpoints", "0")]
)
def test_a_reference_of_one_colour_and_a_broken_profile_are_said_once(
    styledrop: Run, tiny_model: Path, command: tuple[str, ...]
) -> None:
    Image.new("RGB", (64, 64), "teal").save("flat.png", icc_profile=b"none")
    code, _, err = styledrop(command[0], "flat.png", *command[1:], "-q", "--model", tiny_model)
    assert code == 0, err
    assert err.count("Warning: flat.png shows a single colour: there is no style in it") == 1
    assert err.count("Warning: the colour profile in flat.png is damaged") == 1


# ---- 2. long texts ----

LONG = ("once upon a time there was a cat " * 400)[:10_000]


def test_of_a_long_prompt_the_beginning_and_the_style_are_read(styledrop: Run, adapter: Path, tiny_model: Path) -> None:
    draw_it = ("-n", "1", "--steps", "1", "--model", tiny_model, "--quiet")
    code, out, err = styledrop("generate", adapter, LONG, *draw_it)
    assert code == 0, err
    assert "of its 10,000 characters only the first" in err
    assert "are read" in err and "and the style" in err
    path = Path(out.strip())
    assert len(path.name) < 80
    settings = read_png_settings(path)
    assert settings is not None
    read = settings["prompt"]
    assert LONG.startswith(f"{read} ")  # up to the end of a word
    tokenizer = base_module.load_base(str(tiny_model), tiny.CPU).text_tokenizer
    assert tokenizer.fits(f"{read} in watercolor style")
    assert not tokenizer.fits(f"{LONG[: len(read) + 6]} in watercolor style")
    again = styledrop("generate", adapter, read, *draw_it)  # what is written down draws the same picture
    assert (again.code, again.out) == (0, out)
    assert "too long" not in again.err


def test_a_long_negative_prompt(styledrop: Run, tiny_model: Path) -> None:
    code, _, err = styledrop(*DRAW, "a cat", "--negative", LONG, "--model", tiny_model)
    assert code == 0
    assert "of its 10,000 characters only the first" in err
    assert "the style" not in err


def test_a_long_word_is_cut_inside(styledrop: Run, tiny_model: Path) -> None:
    code, out, err = styledrop(*DRAW, "猫" * 10_000, "--model", tiny_model)
    assert code == 0, err
    assert "only the first 10 are read" in err  # three bytes each, and none of them merge
    assert out == f"styledrop-out/{'猫' * 10}-0.png\n"


def test_a_long_style_is_refused(styledrop: Run, tiny_model: Path) -> None:
    outcome = styledrop(*DRAW, "a cat", "--style", LONG, "--model", tiny_model)
    refused(outcome, 2, "the style 'once upon a time there was a cat once up", "is too long", "in a few words")
    assert len(outcome.err) < 300


def test_training_with_a_long_style(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    command = ("train", picture, "--style", LONG, "--content", "a cat", "--steps", "1", "--quiet")
    refused(styledrop(*command, "--model", tiny_model), 2, "the style 'once upon", "is too long", "in a few words")
    assert [path.name for path in Path().iterdir()] == ["ref.png"]


def test_training_with_a_long_content(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    command = ("train", picture, "--style", "watercolor", "--content", LONG, "--steps", "1", "--checkpoints", "0")
    code, out, err = styledrop(*command, "--model", tiny_model)
    assert code == 0, err
    assert "of its 10,000 characters only the first" in err
    (content,) = load_adapter(Path(out.strip())).header.contents
    assert LONG.startswith(f"{content} ")


# ---- 3. texts in other scripts, and texts that say nothing ----


@pytest.mark.parametrize(
    ("prompt", "unknown", "name"),
    [
        ("一只猫", "'一只猫'", "一只猫"),
        ("кот и собака", "'кот', 'и', 'собака'", "кот-и-собака"),
        ("قِطّة صغيرة", "'قِطّة', 'صغيرة'", "قِطّة-صغيرة"),
        ("बिल्ली", "'बिल्ली'", "बिल्ली"),
        ("a 🐈‍⬛", "'🐈‍⬛'", "a-🐈‍⬛"),
        ("cafe\u0301", "'caf\xe9'", "caf\xe9"),
        ("a cat\u0007\x1b[31m\0 dog\n", "'31m'", "a-cat-31m-dog"),
        ("../../etc/passwd", "'etc', 'passwd'", "etc-passwd"),
        ("one two six ten dozen score gross", "'one', 'six', 'ten', 'dozen', 'score' and 1 more", None),
    ],
)
def test_prompts_in_every_script(styledrop: Run, tiny_model: Path, prompt: str, unknown: str, name: str | None) -> None:
    code, out, err = styledrop(*DRAW, prompt, "--model", tiny_model)
    assert code == 0, err
    assert f"Warning: tiny does not know {unknown}; it may draw something else\n" in err
    if name:
        assert out == f"styledrop-out/{name}-0.png\n"
    settings = read_png_settings(Path(out.strip()))
    assert settings is not None
    assert not any(ord(letter) < 32 for letter in settings["prompt"])


def test_prompts_of_one_name_keep_their_own_pictures(styledrop: Run, tiny_model: Path) -> None:
    long = "a red cat and a red dog and a red cat and a red dog"
    prompts = ["a cat!", "a cat?", "©", "®", f"{long} a", f"{long} b", "e\u0301", "\xe9"]
    for _ in range(2):  # the second time each finds its own
        code, out, _ = styledrop(*DRAW, *prompts, "--model", tiny_model)
        assert code == 0
        paths = [Path(line) for line in out.splitlines()[:-1]]
        assert len(set(paths)) == len(prompts)
        assert [path.name for path in paths[:4]] == ["a-cat-0.png", "a-cat-0-2.png", "picture-0.png", "picture-0-2.png"]
        read = [(read_png_settings(path) or {})["prompt"] for path in paths]
        assert all(prompt.startswith(one) for prompt, one in zip(prompts, read, strict=True))
    assert len(list(Path("styledrop-out").glob("[!s]*.png"))) == len(prompts)


NOTHING = {
    "spaces": (" \t\n", "is empty"),
    "punctuation": ("?!... --", "says nothing: '?!... --'"),
    "control characters": ("\0\x1b\x07", "is empty"),
    "invisible": ("\u200b\u200e", "says nothing"),
    "broken bytes": ("a caf\udce9", "holds bytes that are no text in UTF-8: 'a caf?'"),
}


@pytest.mark.parametrize("what", NOTHING)
def test_texts_that_say_nothing(styledrop: Run, picture: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    text, words = NOTHING[what]
    hint = "set the terminal to UTF-8" if "bytes" in what else 'say what to draw: "a cat"'
    refused(styledrop(*DRAW, text), 2, f"a prompt {words}", hint)
    refused(styledrop("train", picture, "--style", text), 2, f"--style {words}", "Hint: ")
    outcome = styledrop("train", picture, "--style", "x", "--content", text)
    refused(outcome, 2, f"a --content {words}", "Hint: ")
    if text.strip():
        refused(styledrop(*DRAW, "a cat", "--negative", text), 2, f"--negative {words}", "Hint: ")
        refused(styledrop(*DRAW, "a cat", "--style", text), 2, f"--style {words}", "Hint: ")


# ---- 4. places that cannot be written to ----

WRITERS = {
    "generate": (*DRAW, "a cat"),
    "tokenize": ("tokenize", "ref.png"),
    "pretrain": ("pretrain", "clip", "corpus"),
    "train": TRAIN,
}


def output(command: str, folder: str) -> str:
    return f"{folder}/a.safetensors" if command == "train" else folder


@pytest.mark.parametrize("command", WRITERS)
def test_a_read_only_folder(
    styledrop: Run, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)  # said before the base is loaded
    Path("corpus").mkdir()
    Path("shut").mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    for place in ("shut", "shut/deeper"):
        with unprivileged():
            outcome = styledrop(*WRITERS[command], "-o", output(command, place))
        refused(outcome, 2, "the folder shut may not be written to", "with -o")
    assert list(Path("shut").iterdir()) == []


@pytest.mark.parametrize("command", WRITERS)
def test_a_file_in_the_way(styledrop: Run, picture: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    Path("corpus").mkdir()
    Path("taken").write_text("precious")
    for place in ("taken/inside", "taken/far/inside"):
        refused(styledrop(*WRITERS[command], "-o", output(command, place)), 2, "taken is a file", "with -o")
    assert Path("taken").read_text() == "precious"


def test_writing_into_a_read_only_folder(tmp_path: Path) -> None:
    Path("shut").mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    with (
        unprivileged(),
        pytest.raises(StyledropError, match="cannot write shut/a.png: shut may not be written to") as caught,
    ):
        atomic_write(Path("shut/a.png"), b"x")
    assert "with -o" in (caught.value.hint or "")


def test_names_that_are_too_long() -> None:
    with pytest.raises(StyledropError, match="its name is too long"):
        atomic_write(Path("a" * 300), b"x")


@pytest.mark.parametrize("stem", ["a" * 235, "\u00e9" * 118, "a" * 243])
def test_the_longest_names(styledrop: Run, picture: Path, tiny_model: Path, stem: str) -> None:
    name = f"{stem}.safetensors"
    few = ("--steps", "2", "--checkpoints", "0", "--model", tiny_model, "--device", "cpu")
    outcome = styledrop("train", picture, "--style", "crayon", *few, "-o", name)
    if len(name.encode()) + len(".run") <= 255:
        assert outcome.code == 0 and Path(name).exists(), outcome.err
        assert not list(Path().glob(".*.part"))
    else:
        refused(outcome, 2, "is too long: 259 bytes", "a shorter one with -o")


@pytest.mark.parametrize("name", ["a" * 255, "\u00e9" * 127, "a" * 130 + "." + "b" * 120, os.fsdecode(b"\xff" * 250)])
def test_a_name_as_long_as_there_can_be_is_written(name: str) -> None:
    atomic_write(Path(name), b"x")
    assert os.listdir() == [name]


@pytest.mark.parametrize(
    "command",
    [
        ("train", "ref.png", "--style", "x", "-o", "{}.safetensors"),
        ("merge", "a.safetensors", "b.safetensors", "-o", "{}.safetensors"),
        ("report", "a.safetensors", "-o", "{}.html"),
        ("sweep", "a.safetensors", "a cat", "--strength", "0,1", "-o", "{}.png"),
        ("generate", "--base-only", "a cat", "-o", "{}"),
        ("edit", "ref.png", "a cat", "--outpaint", "8", "-o", "{}"),
        ("iterate", "a.safetensors", "-o", "{}"),
        ("tokenize", "ref.png", "-o", "{}"),
    ],
)
def test_a_name_that_is_too_long_is_found_before_any_work(
    styledrop: Run, picture: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    for name in ("a", "b"):
        Path(f"{name}.safetensors").write_bytes(adapter.read_bytes())
    refused(styledrop(*(word.replace("{}", "n" * 260) for word in command)), 2, "is too long", "with -o")


def test_what_is_overwritten_keeps_its_link_and_its_permissions(
    styledrop: Run, picture: Path, tiny_model: Path
) -> None:
    Path("kept").mkdir()
    kept = Path("kept/real.safetensors")
    kept.write_bytes(b"old")
    kept.chmod(0o640)
    Path("link.safetensors").symlink_to(kept)
    few = ("--steps", "2", "--checkpoints", "0", "--model", tiny_model, "--device", "cpu")
    outcome = styledrop("train", picture, "--style", "x", *few, "-o", "link.safetensors", "--overwrite")
    assert outcome.code == 0, outcome.err
    assert Path("link.safetensors").is_symlink() and kept.read_bytes() != b"old"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert load_adapter(kept).header.style == "x"
    assert [path.name for path in Path("kept").iterdir()] == ["real.safetensors"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o755])
def test_the_permissions_of_what_is_written(mode: int) -> None:
    Path("there").write_bytes(b"old")
    Path("there").chmod(mode)
    Path("chain").symlink_to("link")
    Path("link").symlink_to("there")
    atomic_write(Path("chain"), b"new")
    assert Path("there").read_bytes() == b"new" and stat.S_IMODE(Path("there").stat().st_mode) == mode
    assert Path("chain").is_symlink() and Path("link").is_symlink()
    Path("nowhere").symlink_to("fresh")
    atomic_write(Path("nowhere"), b"new")
    assert Path("fresh").read_bytes() == b"new" and Path("nowhere").is_symlink()
    atomic_write(Path("there"), b"mine", private=True)
    assert stat.S_IMODE(Path("there").stat().st_mode) == 0o600


def test_a_device_is_not_replaced(styledrop: Run, picture: Path) -> None:
    os.mkfifo("pipe.safetensors")
    train = ("train", picture, "--style", "x", "--overwrite", "-o")
    refused(styledrop(*train, "pipe.safetensors"), 2, "is no ordinary file")
    assert stat.S_ISFIFO(Path("pipe.safetensors").stat().st_mode)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 64 kB, or a skipped test where we may not make one."""
    folder = Path("disk")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.getuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be made by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    atomic_write(small_disk / "a.png", b"old")
    with pytest.raises(StyledropError, match=r"cannot write disk/a\.png: the disk is full") as caught:
        atomic_write(small_disk / "a.png", bytes(100_000))
    assert caught.value.hint == "make room on it, or choose another place with -o"
    assert [path.name for path in small_disk.iterdir()] == ["a.png"]
    assert (small_disk / "a.png").read_bytes() == b"old"


def test_a_disk_that_fills_up_while_drawing(styledrop: Run, small_disk: Path, tiny_model: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(56_000))
    many = ("-n", str(2 * BATCH), "--steps", "1", "--quiet", "--model", tiny_model, "-o", small_disk)
    refused(styledrop("generate", "--base-only", "a cat", *many), 1, "cannot write disk/a-cat-", "the disk is full")
    drawn = [path for path in small_disk.iterdir() if path.name != "ballast"]
    assert all(read_png_settings(path) for path in drawn)  # whole, and nothing else


@pytest.mark.parametrize("command", WRITERS)
def test_a_full_disk_anywhere(
    styledrop: Run, picture: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tiny.write_corpus(Path("corpus"))
    monkeypatch.setattr(Path, "write_bytes", full)
    model = () if command == "pretrain" else ("--model", tiny_model)
    outcome = styledrop(*WRITERS[command], *model, "-o", output(command, "out"))
    refused(outcome, 1, "cannot write out/", "the disk is full", "make room on it")
    left = [path for path in Path("out").rglob("*") if path.is_file()]
    assert all(path.name == ".lock" for path in left)  # who was at work, and nothing of the work


# ---- 5. adapters ----


def lying(tensors: dict[str, Any], size: int = 8, length: int | None = None) -> bytes:
    """A safetensors file of these claims, `size` bytes of tensors, and perhaps a wrong length of its header."""
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(size)


def claim(kind: str = "F32", shape: tuple[int, ...] = (2,), offsets: tuple[int, int] = (0, 8)) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


LIES = {
    "a header of 100 GB": lying({"a": claim()}, length=100 * 10**9),
    "a header larger than the file": lying({"a": claim()}, length=5000),
    "a tensor of 100 GB": lying({"a": claim(shape=(25 * 10**9,), offsets=(0, 10**11))}),
    "tensors that overlap": lying({"a": claim(), "b": claim(offsets=(4, 12))}, 12),
    "a type of another size": lying({"a": claim("F64")}),
    "an unknown type": lying({"a": claim("Q9")}),
    "a negative shape": lying({"a": claim(shape=(-2,))}),
    "a shape beyond 64 bits": lying({"a": claim(shape=(2**62, 2**62))}),
    "a hole": lying({"a": claim()}, 100),
    "an entry that is no text": lying({"__metadata__": {"styledrop": 5}, "a": claim()}),
    "an entry that is no JSON": save({"a": torch.ones(2)}, {"styledrop": "{never closed"}),
    "an entry nested without end": save({"a": torch.ones(2)}, {"styledrop": "[" * 100_000}),
}


@pytest.mark.parametrize("lie", LIES)
def test_files_that_lie(styledrop: Run, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    Path("liar.safetensors").write_bytes(LIES[lie])
    before = peak()
    for command in (("generate", "liar.safetensors", "a cat"), ("inspect", "liar.safetensors")):
        refused(styledrop(*command), 1, "liar.safetensors")
    assert peak() - before < 50


# Changes to a good header, and what is said of them; by `inspect` too unless the base has to be known for it.
HEADERS: list[tuple[dict[str, Any], str, bool]] = [
    ({"format": 99}, "an adapter of another format", True),
    ({"style": 7}, "damaged: style", True),
    ({"contents": "a cat"}, "damaged: contents", True),
    ({"base": "tiny"}, "damaged: base", True),
    ({"config": [8]}, "damaged: config", True),
    ({"recommended": {"lambda_a": math.nan}}, "damaged: recommended", True),
    ({"recommended": {"lambda_a": 1e9}}, "damaged: recommended", True),
    ({"recommended": {"steps": 2.5}}, "damaged: recommended", True),
    ({"recommended": {"strength": 11}}, "damaged: recommended", True),
    ({"recommended": {"seed": 3}}, "damaged: recommended", True),
    ({"kind": "hypernetwork"}, "of kind 'hypernetwork', which is not known", False),
    ({"base": {"name": "mega", "hash": "f" * 64}}, "was trained on another base (mega) than this one (tiny)", False),
    ({"config": {"width": 10**9, "shared": False}}, "width is no whole number up to 1,000,000: 1000000000", False),
    ({"config": {"width": 2.5, "shared": False}}, "width is no whole number up to 1,000,000: 2.5", False),
    ({"config": {"width": "8", "shared": False}}, "width is no whole number", False),
    ({"config": {"width": 0, "shared": False}}, "width must be positive", False),
    ({"config": {"width": 900_000, "shared": False}}, "its header says width 900,000, and its tensors have 8", True),
    ({"config": {"depth": 3}}, "unknown settings: depth", False),
]


@pytest.mark.parametrize(("change", "words", "seen"), HEADERS)
def test_headers_that_lie(
    styledrop: Run, adapter: Path, tiny_model: Path, change: dict[str, Any], words: str, seen: bool
) -> None:
    file = load_adapter(adapter)
    tiny.write_adapter(Path("liar.safetensors"), file.tensors, file.header.to_json() | change)
    before = peak()
    refused(styledrop("generate", "liar.safetensors", "a cat", "--model", tiny_model), 1, "liar.safetensors", words)
    assert peak() - before < 100
    outcome = styledrop("inspect", "liar.safetensors")
    if seen:
        refused(outcome, 1, "liar.safetensors", words)
    else:
        assert outcome.code == 0  # it says what the file says
    assert not Path("styledrop-out").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_tensors_that_are_not_finite(styledrop: Run, adapter: Path, tiny_model: Path, value: float) -> None:
    Path("spoilt.safetensors").write_bytes(adapter.read_bytes())
    tiny.spoil(Path("spoilt.safetensors"), "adapter.up", value)
    for command in (
        ("generate", "spoilt.safetensors", "a cat", "--model", tiny_model),
        ("inspect", "spoilt.safetensors"),
    ):
        refused(styledrop(*command), 1, "spoilt.safetensors is damaged: adapter.up holds a value that is not finite")


def test_a_header_whose_length_looks_like_a_picture(styledrop: Run, adapter: Path) -> None:
    whole = adapter.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    longer = whole[8 : 8 + length].ljust(int.from_bytes(b"BM", "little"))  # a BMP begins so
    Path("odd.safetensors").write_bytes(struct.pack("<Q", len(longer)) + longer + whole[8 + length :])
    assert Path("odd.safetensors").read_bytes().startswith(b"BM\0")
    assert json.loads(styledrop("inspect", "odd.safetensors", "--json").out)["style"] == "watercolor"


# ---- 6. numbers ----

COMPLETE = {
    "train": ("train", "ref.png", "--style", "watercolor"),
    "generate": ("generate", "--base-only", "a cat"),
    "edit": ("edit", "ref.png", "a cat", "--outpaint", "8"),
    "iterate": ("iterate", "ref.png", "--style", "watercolor"),
    "score": ("score", "ref.png", "--prompt", "a cat"),
    "sweep": ("sweep", "adapter.safetensors", "a cat"),
    "report": ("report", "adapter.safetensors"),
    "alphabet": ("alphabet", "adapter.safetensors"),
    "kit": ("kit", "adapter.safetensors", "brand.toml"),
    "tokenize": ("tokenize", "ref.png"),
    "pretrain": ("pretrain", "clip", "corpus", "-o", "m"),
    "inspect": ("inspect", "ref.png"),
    "models": ("models", "list"),
    "doctor": ("doctor",),
    "convert": ("convert", "lora.safetensors", "--style", "watercolor"),
    "merge": ("merge", "a.safetensors", "b.safetensors"),
    "clean": ("clean",),
    "vary": ("vary", "ref.png", "--prompt", "a cat"),
    "styles": ("styles", "sheet"),
    "push": ("push", "adapter.safetensors", "anna/ink", "--license", "mit"),
    "pull": ("pull", "anna/ink"),
    "studio": ("studio",),
}
NEVER: dict[str, tuple[str, ...]] = {
    "int": ("-1", str(2**64), "1e9", "nan", "two", ""),
    "float": ("-1", "1e30", "nan", "inf", "-inf", "two"),
}
NOT_ZERO = {
    "--steps", "--lr", "--width", "--number", "--size", "--minutes", "--batch-size",
    "--rounds", "--per-prompt", "--keep", "--references", "--prompts", "--seeds", "--alpha", "--best-of",
}  # fmt: skip
MORE = {
    ("train", "--steps"): ["1000000000"],
    ("generate", "--number"): ["10000000"],
    ("generate", "--size"): ["100000"],
}


def numbers(command: str) -> list[tuple[str, str]]:
    """Every numeric option of a command, as it declares them itself, with every value that it must refuse."""
    made = typer.main.get_group(app).commands[command]
    types = get_type_hints(next(one.callback for one in app.registered_commands if one.name == command))
    found = []
    for option in made.params:
        kind = {int: "int", float: "float"}.get(next(iter(get_args(types.get(option.name))), types.get(option.name)))
        if kind:
            name = next(one for one in option.opts if one.startswith("--"))
            zero = ["0"] if name in NOT_ZERO else []
            found += [(name, value) for value in (*NEVER[kind], *zero, *MORE.get((command, name), []))]
    return found


@pytest.mark.parametrize(
    ("command", "option", "value"), [(command, *one) for command in COMPLETE for one in numbers(command)]
)
def test_numbers_out_of_range(
    styledrop: Run, picture: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str, value: str
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    Path("corpus").mkdir()
    outcome = styledrop(*COMPLETE[command], option, value)
    refused(outcome, 2)
    said = outcome.err.replace("_", "-")
    assert option.removeprefix("--") in said
    if "must be between" in said:
        least, most = (
            float(bound.replace(",", "")) for bound in said.split("between ")[1].split(", not")[0].split(" and ")
        )
        assert not least <= float(value) <= most
    else:
        assert "number, not '" in said or "not a valid" in said
    assert sorted(path.name for path in Path().iterdir()) == ["corpus", "ref.png"]


@pytest.mark.parametrize("command", ["generate", "edit", "alphabet", "report", "sweep", "iterate", "a file", "kit"])
def test_seeds_that_count_on_too_far(
    styledrop: Run, picture: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    Path("prompts.txt").write_text(f"a cat --seed {LARGEST_SEED} -n 2")
    Path("kit.toml").write_text(f'seed = {LARGEST_SEED}\n[[asset]]\nname = "a"\nprompt = "a cat"\nnumber = 2')
    number = {"iterate": "--per-prompt", "alphabet": "--best-of"}.get(command, "--number")
    complete = {
        "a file": ("generate", "--base-only", "--prompts", "prompts.txt"),
        "kit": ("kit", "a.safetensors", "kit.toml"),
        "sweep": (*COMPLETE["sweep"], "--strength", "0,1"),
    }
    own = () if command in ("a file", "kit") else ("--seed", str(LARGEST_SEED), number, "2")
    outcome = styledrop(*(COMPLETE | complete)[command], *own)
    refused(outcome, 2, f"seeds from {LARGEST_SEED}", "the largest is 9,223,372,036,854,775,807")


def test_every_command_is_tried_with_bad_numbers() -> None:
    assert set(COMPLETE) == {name for name, command in typer.main.get_group(app).commands.items() if not command.hidden}
    assert {option for option, _ in numbers("generate")} >= {
        "--number",
        "--lambda-a",
        "--temperature",
        "--size",
        "--seed",
    }


def test_a_size_that_the_base_does_not_draw(styledrop: Run, tiny_model: Path) -> None:
    refused(styledrop(*DRAW, "a cat", "--size", "31", "--model", tiny_model), 2, "16 or 32 px, not 31", "--size 32")


# ---- 7. references and contents ----


@pytest.mark.parametrize(("pictures", "contents"), [(2, 3), (2, 1), (1, 2), (3, 2)])
def test_as_many_contents_as_references(
    styledrop: Run, picture: Path, monkeypatch: pytest.MonkeyPatch, pictures: int, contents: int
) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    given = [word for _ in range(contents) for word in ("--content", "a cat")]
    outcome = styledrop("train", *[picture] * pictures, "--style", "watercolor", *given)
    refused(outcome, 2, f"pictures: {pictures}, --content texts: {contents}", "one --content for each picture")


# ---- all of it, as a program ----


def test_a_whole_program_says_it_too(picture: Path) -> None:
    one_pixel(picture)
    env = os.environ | {"PYTHONPATH": SOURCE}
    done = subprocess.run(
        [sys.executable, "-m", "styledrop_cli", *TRAIN], capture_output=True, text=True, check=False, env=env
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ref.png is 1 x 1 px")


# ---- presets ----


@pytest.mark.parametrize("name", ["slow", "", "Fast", "fast,paper"])
def test_a_preset_that_there_is_not(styledrop: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(base_module, "load_base", None)
    refused(styledrop(*DRAW, "a cat", "--preset", name), 2, f"no preset called '{name}'", "fast, paper")
    assert not list(Path().iterdir())
