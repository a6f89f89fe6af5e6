"""Each reader of foreign bytes as a function of bytes, and small sound files for it to begin with.

A target puts its bytes where the reader finds them, a folder in memory, and lets through what is no StyledropError.
Where several files are read together, the first byte says which of them the rest stands for; a safetensors file may be
given by its header alone (``of_safetensors``), so that not all of it has to be hit by chance.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import io
import json
import os
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch._dynamo  # what torch itself imports late: it would be found to leave the folder
from PIL import Image, ImageCms, PngImagePlugin
from safetensors.torch import save
from torch import nn

import tiny
from conftest import draw
from styledrop_cli.adapters import diffusers_lora
from styledrop_cli.adapters import file as adapter_file
from styledrop_cli.adapters import merge as merge_module
from styledrop_cli.adapters.header import load_adapter, read_header, write_recommended
from styledrop_cli.base import download, layout, prompt_tokens
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.cache import index_of
from styledrop_cli.base.folder import load_module
from styledrop_cli.base.known_things import THINGS, Thing
from styledrop_cli.cli import checks, console, inspect
from styledrop_cli.corpus import cutouts
from styledrop_cli.corpus import draw as draw_module
from styledrop_cli.corpus import folder as corpus_folder
from styledrop_cli.errors import StyledropError
from styledrop_cli.feedback import people, rounds
from styledrop_cli.feedback import pool as pool_module
from styledrop_cli.feedback.page import Choices
from styledrop_cli.generation.editing.origin import Origin
from styledrop_cli.generation.lists import file_names, kit_file, prompt_file, wildcards
from styledrop_cli.generation.output_folder import Batch
from styledrop_cli.io import images
from styledrop_cli.io.run_folder import Run
from styledrop_cli.io.tensors import read_tensors, tensors_hash
from styledrop_cli.judging import found as found_module
from styledrop_cli.models.adapter import KINDS, LoraAdapter
from styledrop_cli.report import commands, history
from styledrop_cli.settings import LARGEST_SEED, SampleSettings, TrainSettings
from styledrop_cli.training.loop import Budget, Loop
from styledrop_cli.web import serving


@dataclass(frozen=True)
class Target:
    """A reader; ``run`` hands it bytes, ``seeds`` are sound ones."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


TARGETS: dict[str, Target] = {}


def target(seeds: Callable[[], list[bytes]]) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Enter a function under its own name."""

    def enter(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        TARGETS[run.__name__] = Target(run.__name__, run, cache(seeds))
        return run

    return enter


@cache
def place() -> Path:
    """The folder of all that is read and written here, in memory where there is one."""
    memory = None if "TMPDIR" in os.environ or not os.access("/dev/shm", os.W_OK) else "/dev/shm"
    made = Path(tempfile.mkdtemp(prefix="styledrop-hostile-", dir=memory))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(made, ignore_errors=True) if os.getpid() == owner else None)
    return made.resolve()


def written(name: str, data: bytes) -> Path:
    path = place() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def attempt(*steps: Callable[[], object]) -> None:
    """Each of ``steps``, whatever the others came to."""
    for step in steps:
        with contextlib.suppress(StyledropError):
            step()


class Files:
    """A folder of sound files, of which one at a time is another."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names
        self._sound = {name: (folder / name).read_bytes() if (folder / name).exists() else None for name in names}

    @contextlib.contextmanager
    def having(self, data: bytes) -> Iterator[str]:
        """The file that the first byte means is the rest, for so long; its name."""
        name = self.names[(data[0] if data else 0) % len(self.names)]
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(of_safetensors(data[1:]) if name.endswith(".safetensors") else data[1:])
        try:
            yield name
        finally:
            sound = self._sound[name]
            if sound is None:
                path.unlink()
            else:
                path.write_bytes(sound)

    def seeds(self) -> list[bytes]:
        """Each file as it is."""
        made = []
        for index, (name, data) in enumerate(self._sound.items()):
            if data is None:
                continue
            head = bytes([index])
            made += [head + one for one in (both_ways(data) if name.endswith(".safetensors") else [data])]
        return made


# ---- safetensors ----

WHOLE, HEADED = b"w", b"h"
PARTED = b"\n\0"


def of_safetensors(data: bytes) -> bytes:
    """A safetensors file: the bytes themselves or, after ``h``, a header, whose length is counted, and the rest."""
    if data[:1] != HEADED:
        return data[1:]
    head, _, rest = data[1:].partition(PARTED)
    return struct.pack("<Q", len(head)) + head + rest


def both_ways(file: bytes) -> list[bytes]:
    """A safetensors file as ``of_safetensors`` takes it."""
    length = struct.unpack("<Q", file[:8])[0]
    return [WHOLE + file, HEADED + file[8 : 8 + length] + PARTED + file[8 + length :]]


def safetensors_seeds() -> list[bytes]:
    kinds = {
        "half": torch.ones(2, 3, dtype=torch.float16),
        "brain": torch.ones(2, dtype=torch.bfloat16),
        "single": torch.zeros(1, 2, 1),
        "double": torch.ones((), dtype=torch.float64),
        "whole": torch.arange(3),
        "bytes": torch.zeros(4, dtype=torch.uint8),
        "flags": torch.ones(2, dtype=torch.bool),
        "none": torch.zeros(0, 3),
    }
    whole = (save(kinds, {"format": "pt"}), save({}), save({"a": torch.ones(1)}))
    return [one for data in whole for one in both_ways(data)]


@target(safetensors_seeds)
def tensors(data: bytes) -> None:
    path = written("tensors/any.safetensors", of_safetensors(data))
    attempt(
        lambda: tensors_hash(read_tensors(path)[0]),
        lambda: read_header(path),
        lambda: diffusers_lora.is_ours(path),
        lambda: diffusers_lora.read_lora(path),
    )


# ---- models and adapters, tiny ----


class Models:
    """The tiny bases, made when they are first asked for."""

    @cached_property
    def folder(self) -> Path:
        return tiny.write_base(place() / "model", superres=True)

    @cached_property
    def base(self) -> Base:
        return load_base(str(self.folder), tiny.CPU)

    @cached_property
    def published_folder(self) -> Path:
        return tiny.write_published(place() / "published")

    @cached_property
    def published(self) -> Base:
        return diffusers_lora.published_base(str(self.published_folder))


WIDTHS: dict[str, dict[str, Any]] = {"bottleneck": {"width": 2}, "lora": {"rank": 2}, "prompt": {"vectors": 2}}
MODELS = Models()


@cache
def adapter_of_kind(kind: str) -> Path:
    """A sound adapter file of the tiny base."""
    base, (make, sizes) = MODELS.base, KINDS[kind]
    made, finer = (make(sizes(**WIDTHS[kind]), network) for network in (base.transformer, base.superres))
    for one in (made, finer):
        tiny.randomise(one)
    settings = TrainSettings.of(kind, steps=1, checkpoints=0, views=2, width=2)
    picture = written("adapters/ref.png", images.png_bytes(draw()))
    header = adapter_file.describe(base, made, ["a cat"], "watercolor", settings)
    about = adapter_file.of_pictures([picture], [draw()], [20.0])
    header = header.with_values(superres=asdict(finer.config), **about)
    views = {"views.ids": tiny.ids(tiny.TRANSFORMER, 2, share=0).short(), "views.picture": torch.tensor([0, 0])}
    path = place() / "adapters" / f"{kind}.safetensors"
    adapter_file.write_adapter(path, made, header, views | adapter_file.tensors_of(finer, "superres."))
    return path


def use(base: Base) -> None:
    """Draw one small picture with a base, as far as it gets."""
    settings = replace(base.sampling(), steps=1)
    ids = base.sample(["a cat"], [0], settings)
    base.pictures(ids, base.sizes[-1])
    if base.contents and len(base.contents) < 100:
        assert len(base.content_embeds) == len(base.contents)
    base.unknown_words("a cat")


# ---- headers of adapters ----


def header_seeds() -> list[bytes]:
    made = []
    for index, kind in enumerate(KINDS):
        header = read_header(adapter_of_kind(kind)).to_json()
        made.append(bytes([index]) + json.dumps(header).encode())
    header = read_header(adapter_of_kind("bottleneck")).to_json()
    more = {
        "round": 2, "parent": "0" * 64, "feedback": "clip", "learns": "object", "settings": {"kind": "lora"},
        "picks": [{"prompt": "a dog", "seed": 3, "total": 0.5}], "source": {"name": "a.safetensors", "sha256": "0"},
        "merged": [{"name": "a.safetensors", "weight": 0.5, "style": "ink", "sha256": "0" * 64}],
    }  # fmt: skip
    return [*made, b"\0" + json.dumps(header | more).encode()]


def with_header(data: bytes) -> Path:
    """An adapter whose header is ``data`` but for the first byte, which chooses its kind."""
    kind = list(KINDS)[(data[0] if data else 0) % len(KINDS)]
    held, _ = read_tensors(adapter_of_kind(kind))
    path = written("adapters/foreign.safetensors", b"")
    said = data[1:].decode("utf-8", "replace")
    path.write_bytes(save({n: t.clone() for n, t in held.items()}, {"format": "pt", "styledrop": said}))
    return path


@target(header_seeds)
def header(data: bytes) -> None:
    use_adapter(with_header(data), adapter_of_kind("bottleneck"))


@target(lambda: [one for kind in KINDS for one in both_ways(adapter_of_kind(kind).read_bytes())])
def adapter(data: bytes) -> None:
    use_adapter(written("adapters/whole.safetensors", of_safetensors(data)), adapter_of_kind("lora"))


def use_adapter(path: Path, other: Path) -> None:
    """Everything that is done with an adapter file, but for the long commands."""
    base, output = MODELS.base, place() / "adapters" / "made.safetensors"

    def opened() -> None:
        file = load_adapter(path)
        found = adapter_file.open_adapter(base, file)
        base.sample(["a cat"], [0], base.sampling(**{**file.header.recommended, "steps": 1}), found.base)

    def examples() -> None:
        file = load_adapter(path)
        adapter_file.open_adapter(base, file)
        known = adapter_file.references_of(file)
        base.pictures(known.whole.long(), base.sizes[0])
        known.rows(torch.arange(4), torch.Generator().manual_seed(0))

    def merged() -> None:
        parts = merge_module.read_parts([path, other], [0.5, 0.5])
        merge_module.merge(base, parts, style=None, output=output)
        load_adapter(output)

    def told() -> None:
        one = history.read_story(path)
        found = commands.commands(one, [], [], "pocket", "-o report.html")
        assert all(line.startswith(("styledrop ", "# ")) for line in "\n".join(found).split("\n"))
        "\n".join([*one.used, one.style, *found]).encode()

    def carried() -> None:
        shutil.copyfile(path, output)
        write_recommended(output, {"lambda_a": 1.0})
        assert read_header(output).recommended["lambda_a"] == 1.0

    attempt(
        opened,
        examples,
        merged,
        told,
        carried,
        lambda: load_adapter(path).header.name.encode(),
        lambda: diffusers_lora.take_out(diffusers_lora.read_own(path), base, output),
        lambda: rounds.training_of(load_adapter(path)),
        lambda: rounds.round_of(load_adapter(path).header),
    )


@target(lambda: [*header_seeds(), *(b"\xff" + data for data in png_seeds())])
def shown(data: bytes) -> None:
    """`styledrop inspect`: nothing that it prints commands the terminal."""
    path = written("inspect/any.png", data[1:]) if data[:1] == b"\xff" else with_header(data)
    for as_json in (False, True):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                inspect.inspect(path, screen=console.Screen(as_json=as_json))
            except StyledropError as error:
                console._show_error(error.message, error.hint)
        for printed in (out.getvalue(), err.getvalue()):
            assert not any((ord(letter) < 32 and letter != "\n") or 0x7F <= ord(letter) < 0xA0 for letter in printed)
            printed.encode()
            assert as_json or len(printed) < 200_000
        if as_json and out.getvalue():
            json.loads(out.getvalue())


# ---- what pictures say of themselves ----

SAID = {
    "prompt": "a cat in ink style", "seed": 3, "style": "ink", "adapter": "bottleneck.safetensors", "steps": 12,
    "lambda_a": 0.5, "model": "tiny", "adapter_hash": "0" * 12, "mix": {"a.safetensors": 0.5},
}  # fmt: skip


@target(lambda: [json.dumps(said).encode() for said in (SAID, {}, {"prompt": "a sheet", "sheet_of": ["a.png"]})])
def settings(data: bytes) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(images.SETTINGS_KEY, data.decode("utf-8", "replace"))
    path = written("adapters/said.png", picture_of(draw(24, 20), "PNG", pnginfo=chunks))

    def scored() -> None:
        found, _ = found_module.find_pictures([path], lambda message: None)
        for asked in found_module.asked_of(found, None, None):
            assert not any(ord(letter) < 32 for letter in asked.prompt + asked.style)
        assert all(one is None or one.parent == path.parent for one in map(found_module.adapter_of, found))

    def drawn_again() -> None:
        batch = Batch(path.parent, ["said"], lambda index: {"prompt": "a cat", "seed": 1})
        assert batch.missing == [0]

    def varied() -> None:
        origin = Origin.read(path)
        assert set(origin.settings_on(MODELS.base)) <= set(SampleSettings.defaults())
        assert 0 <= origin.next_seed(8) <= LARGEST_SEED - 8
        attempt(lambda: origin.model, lambda: origin.prompt, lambda: origin.style_beside(origin.mixture()))

    attempt(scored, drawn_again, varied)


# ---- LoRAs of other programs ----


def lora_seeds() -> list[bytes]:
    about = {"transformer.r": 2, "transformer.lora_alpha": 4, "transformer.target_modules": ["to_q"]}
    held = tiny.lora_tensors()
    small = dict(list(held.items())[:4])
    files = [save(held), save(small, {diffusers_lora.ABOUT: json.dumps(about)})]
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": True, "alpha_pattern": {}}
    return [*(b"t" + one for file in files for one in both_ways(file)), b"c" + json.dumps(config).encode()]


@target(lora_seeds)
def lora(data: bytes) -> None:
    path = place() / "lora" / diffusers_lora.OF_PEFT
    beside = path.with_name(diffusers_lora.PEFT_CONFIG)
    if data[:1] == b"c":
        written("lora/" + diffusers_lora.OF_PEFT, save(dict(list(tiny.lora_tensors().items())[:4])))
        beside.write_bytes(data[1:])
    else:
        written("lora/" + diffusers_lora.OF_PEFT, of_safetensors(data[1:]))
        beside.unlink(missing_ok=True)

    def read() -> None:
        known = diffusers_lora.read_lora(path)
        made, _ = diffusers_lora.adapter_of(known, known.alpha or 1.0, MODELS.published.transformer)
        assert isinstance(made, LoraAdapter)
        diffusers_lora.lora_of(made)

    attempt(read, lambda: diffusers_lora.is_ours(path))


# ---- states of trainings ----


class _Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch).sum()


@cache
def loop() -> Loop:
    torch.manual_seed(0)
    task = _Sum()
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-9)
    made = Loop(task, [optimizer], lambda step: torch.ones(2, 3), budget=Budget(steps=9), device=tiny.CPU, average=0.9)
    made._step()
    return made


def state_seeds() -> list[bytes]:
    path = written("state/sound.safetensors", b"")
    loop().save(path)
    held, about = read_tensors(path)
    del about["sha256"]  # or no change would ever be looked at
    unsealed = save({n: t.clone() for n, t in held.items()}, about)
    return [one for data in (path.read_bytes(), unsealed) for one in both_ways(data)]


@target(state_seeds)
def state(data: bytes) -> None:
    path = written("state/any.safetensors", of_safetensors(data))

    def resumed() -> None:
        loop().resume(path)
        loop()._step()

    attempt(resumed)


# ---- model folders ----


@cache
def model_files() -> Files:
    parts = ("clip", "transformer", "tokenizer", "decoder", "superres")
    names = ["config.json", "merges.txt", "words.txt", "contents.txt", *(f"{part}.safetensors" for part in parts)]
    return Files(MODELS.folder, names)


@target(lambda: model_files().seeds()[:10])
def model(data: bytes) -> None:
    folder, base = MODELS.folder, MODELS.base
    with model_files().having(data) as name:
        part = name.removesuffix(".safetensors")
        if part != name:  # the others need not be read anew
            attempt(lambda: use(base.having(**{part: load_module(folder, part)})))
        else:
            attempt(lambda: use(load_base(str(folder), tiny.CPU)), lambda: inspect._model(folder))


@cache
def reading_files() -> Files:
    """What a base reads prompts with where it has an encoder of its own."""
    things = [Thing("cat", ("a cat", "a kitten"), ("猫",), ("lynx",)), Thing("dog", ("a dog",))]
    folder = tiny.write_words(place() / "reading", things)
    return Files(folder, ["config.json", "vocab.txt", THINGS, "text.safetensors", "clip.safetensors"])


@target(lambda: reading_files().seeds())
def reading(data: bytes) -> None:
    folder = reading_files().folder

    def read() -> None:
        base = load_base(str(folder), tiny.CPU)
        base.text_embeds(["a lynx and a 猫", "an aardvark in watercolor style"])
        base.picture_embeds(torch.zeros(1, 3, 16, 16))

    with reading_files().having(data):
        attempt(read)


@cache
def published_files() -> Files:
    folder = MODELS.published_folder
    vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    tokenizer = {"model": {"vocab": vocabulary, "merges": [list(merge) for merge in tiny.MERGES]}}
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = Files(folder, [*names, *INSTEAD])
    files._sound[FAST] = json.dumps(tokenizer).encode()
    files._sound[INDEX_OF_SHARDS] = json.dumps({"weight_map": {"a": SHARD}}).encode()
    shutil.copyfile(folder / "text_encoder" / "model.safetensors", folder / "text_encoder" / SHARD)
    return files


FAST = "tokenizer/tokenizer.json"
INDEX_OF_SHARDS, SHARD = "text_encoder/model.safetensors.index.json", "model-00001-of-00001.safetensors"
INSTEAD = {FAST: "tokenizer/merges.txt", INDEX_OF_SHARDS: "text_encoder/model.safetensors"}


def published_seeds() -> list[bytes]:
    seeds = published_files().seeds()
    for name in INSTEAD:  # not there otherwise
        (MODELS.published_folder / name).unlink(missing_ok=True)
        published_files()._sound[name] = None
    return [one for one in seeds if len(one) < 50_000]


@target(published_seeds)
def published(data: bytes) -> None:
    folder = MODELS.published_folder
    with published_files().having(data) as name, contextlib.ExitStack() as stack:
        # What the one file stands for must not be there too.
        if name in INSTEAD:
            other = folder / INSTEAD[name]
            stack.callback(other.write_bytes, other.read_bytes())
            other.unlink()
        attempt(lambda: use(load_base(str(folder), tiny.CPU)), lambda: load_base(str(folder), tiny.CPU).hash)
        attempt(lambda: inspect._model(folder), lambda: index_of(folder))


# ---- the hub's answers ----


def hub_seeds() -> list[bytes]:
    names = [*layout.NEEDED, *(f"{part}/{stem}.fp16.safetensors" for part, stem in layout.WEIGHTS.items())]
    lfs = {"sha256": "ab" * 32, "size": 900, "pointerSize": 134}
    siblings = [{"rfilename": n, "size": 900, "lfs": lfs if "safetensors" in n else None} for n in names]
    about = {"id": "a/b", "sha": "a" * 40, "siblings": siblings, "tags": [], "private": False}
    return [json.dumps(about).encode(), json.dumps(about | {"siblings": siblings[:3]}).encode()]


@target(hub_seeds)
def answer(data: bytes) -> None:
    """What the hub says that a repository holds, up to the files themselves."""
    import huggingface_hub
    from huggingface_hub import constants, file_download

    cache_folder = place() / "hub"
    storage = cache_folder / "models--a--b"
    for number in range(3):  # what a wrong path might lead to
        written(f"hub/{'x/' * number}precious", b"precious")

    def asked(self: object, repo: str, **options: Any) -> Any:
        try:
            said = json.loads(data)
        except RecursionError as error:
            raise ValueError("too deep") from error
        return huggingface_hub.hf_api.ModelInfo(**said)

    def brought(*given: Any, **options: Any) -> Any:
        raise OSError("the network is down")

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(constants, "HF_HUB_CACHE", str(cache_folder)))
        stack.enter_context(mock.patch.object(huggingface_hub.HfApi, "model_info", asked))
        stack.enter_context(mock.patch.object(huggingface_hub, "hf_hub_download", brought))
        stack.enter_context(mock.patch.object(file_download, "http_get", brought))
        attempt(lambda: download.fetch("a/b"))
    shutil.rmtree(storage, ignore_errors=True)
    assert (cache_folder / "precious").exists()


# ---- texts that people write ----

PROMPTS = (
    (".txt", "# prompts\na {red|blue} cat --seed 5 -n 3\n\"a dog\" --style 'ink' --lambda-a=1.5\n\na tree\n"),
    (".toml", 'seed = 3\nprompts = ["a cat", "a {big|small} dog"]\n[[prompt]]\ntext = "a tree"\nnumber = 2\n'),
    (".csv", 'prompt,seed,name\na cat,1,"x ""y"""\n"a {b|c}",2,\n'),
    (".tsv", "prompt\tsteps\na cat\t12\n"),
    (".pattern", "{prompt}-{seed:04}-{name}{{x}}{index}"),
)  # fmt: skip


@target(lambda: [bytes([index]) + text.encode() for index, (_, text) in enumerate(PROMPTS)])
def prompts(data: bytes) -> None:
    suffix, _ = PROMPTS[(data[0] if data else 0) % len(PROMPTS)]
    path = written(f"prompts/list{suffix}", data[1:])
    text = data[1:].decode("utf-8", "replace")

    def read() -> None:
        for number, line in enumerate(prompt_file.read_lines(path)[:5]):
            found = wildcards.Template.read(line.text, line.where)
            for variant, _ in zip(found.every(), range(3), strict=False):
                variant.encode("utf-8", "surrogatepass")
            name = line.options.get("name")
            named(file_names.stem("{prompt}-{seed}-{name}", prompt=found.pick(7), seed=1, index=number, name=name))

    def patterned() -> None:
        file_names.check_pattern(text)
        named(file_names.stem(text, prompt="a cat", seed=2**63 - 1, index=10**8, name=text, style=text))

    attempt(read, patterned, lambda: checks.prompts_in(path))
    attempt(lambda: people.FilePicker(path).pick(mock.Mock(prompts=["a"] * 9), 3, place()))


def named(stem: str) -> None:
    """A file's name: never a path, nor hidden, nor longer than any system takes."""
    assert stem and Path(stem).name == stem and not stem.startswith(".")
    assert len(stem.encode()) <= file_names.LONGEST_STEM


KITS = (
    'style = "flat"\n[[asset]]\nname = "hero"\nprompt = "a {red|blue} rocket"\nsize = "1024x512"\nnumber = 2\n',
    '[[asset]]\nname = "a.png"\nprompt = "x"\nsize = [16, 32]\nfit = "cover"\nlambda-b = 2.5\n',
)


@target(lambda: [text.encode() for text in KITS])
def kit(data: bytes) -> None:
    path = written("kits/brand.toml", data)

    def read() -> None:
        for asset in kit_file.read_kit(path):
            for one in asset.stems[:5]:
                named(one)
            assert asset.size is None or all(16 <= side <= 4096 for side in asset.size)

    attempt(read)


LINES = ("a cat in watercolor style", "ein Kätzchen, 猫 und 🐈‍⬛, e\u0301; it's (not) {a} <|endoftext|>")


@target(lambda: [text.encode() for text in LINES])
def words(data: bytes) -> None:
    """Prompts and styles on their way to ids."""
    said = " ".join(data.decode("utf-8", "replace").split())
    tokenizer, style = MODELS.base.text_tokenizer, said[::2][:40]

    def read() -> None:
        prompt = prompt_tokens.with_style(tokenizer.cut(said, style), style)
        ids = tokenizer([prompt, said])
        assert ids.shape == (2, tokenizer.context_length) and int(ids.min()) >= 0 and int(ids.max()) < tokenizer.size
        MODELS.base.unknown_words(prompt)
        prompt_tokens.quoted([said, prompt_tokens.shortened(said)])

    attempt(read, lambda: checks.plain_text(said, "a prompt", "say it"))


# ---- folders of runs and rounds ----

SETTINGS = {"base": {"name": "tiny", "hash": "0"}, "prompts": ["a cat"], "seed": 3, "lr": 0.1, "learn": "style"}


@cache
def round_files() -> Files:
    folder = place() / "some.rounds"
    for number in (1, 2):
        written(f"some.rounds/round-{number}/adapter.safetensors", adapter_of_kind("bottleneck").read_bytes())
    with_picks = json.loads(header_seeds()[-1][1:]) | {"round": 2, "learns": "style"}
    path = with_header(b"\0" + json.dumps(with_picks).encode())
    shutil.copyfile(path, folder / "round-2" / "adapter.safetensors")
    scores = dict.fromkeys(history.SCORED, 0.5)
    curve = {"losses": [[1, 4.5], [2, 4.25]], "checkpoints": [{"step": 2, "loss": 4.25, "scores": scores}], "chosen": 2}
    plan = pool_module.Plan(("a cat", "a dog"), 2, 7, "ink", "", replace(SampleSettings(), steps=1))
    about: dict[str, Any] = {
        "run.json": {"finished": False, "settings": SETTINGS},
        "round-1/adapter.safetensors.run/curve.json": curve,
        "round-2/picks.json": {"feedback": "clip", "pictures": [1]},
        "round-2/choices.json": {"count": 4, "done": False, "version": 2, "history": [[1, "pick"], [3, "reject"]]},
        "round-2/pool/plan.json": asdict(plan),
        "gallery.json": {"port": 8000, "secret": "x" * 40},
        "kit.json": {"styledrop": "0.1.0", "assets": []},
    }
    for name, value in about.items():
        written(f"some.rounds/{name}", json.dumps(value).encode())
    written("some.rounds/round-2/picks/0001.png", images.png_bytes(draw()))
    return Files(folder, [*about, "round-2/picks/0001.png", "round-2/pool/ids-00000.safetensors"])


def round_seeds() -> list[bytes]:
    seeds = round_files().seeds()
    index = len(round_files().names) - 1
    ids = save({"ids": torch.zeros(4, 4, 4, dtype=torch.int16)}, {"plan": "?"})
    return [*seeds, *(bytes([index]) + one for one in both_ways(ids))]


@target(round_seeds)
def round_folder(data: bytes) -> None:
    folder = round_files().folder
    with round_files().having(data):
        attempt(
            lambda: Run.begin(folder, SETTINGS, fresh=False, own=(), unsaid={"learn": "style"}),
            lambda: Choices(4, folder / "round-2" / "choices.json"),
            lambda: serving.remembered(folder / "gallery.json"),
            lambda: _planned(folder / "round-2" / "pool"),
            lambda: _told(folder),
        )
        written("some.rounds/run.json", json.dumps({"finished": False, "settings": SETTINGS}).encode())


def _planned(folder: Path) -> None:
    plan = pool_module.Plan.read(folder)
    if plan is None:
        return
    pool = pool_module.Pool(MODELS.base, folder, plan)
    pool._mark = "?"
    pool._read(slice(0, 24))
    assert len(plan.drawing.prompts) == len(plan) == len(plan.drawing.seeds)
    for said in (*plan.prompts, plan.style, plan.adapter):
        said.encode()


def _told(folder: Path) -> None:
    one = history.read_story(folder)
    found = commands.commands(one, [], ["a cat"], "pocket", "-o report.html")
    assert all(line.startswith(("styledrop ", "# ")) for line in "\n".join(found).split("\n"))
    "\n".join([*one.used, one.style, *found]).encode()
    for stage in one.stages:
        assert all(pick.file is None or folder in pick.file.resolve().parents for pick in stage.picks)
        if stage.curve is not None:
            assert all(abs(value) < 1e12 for pair in stage.curve.losses for value in pair)


# ---- corpora ----


@cache
def corpus_files() -> Files:
    folder = place() / "corpus"
    if not folder.exists():
        tiny.write_corpus(folder, 4, 1)
    plain = place() / "corpus" / "plain"
    for number in range(2):
        written(f"corpus/plain/{number}.png", images.png_bytes(draw()))
        written(f"corpus/plain/{number}.txt", b"a cat in ink style")
    tiny.write_art(place() / "corpus" / "art")
    assert plain.exists()
    return Files(folder, ["metadata.jsonl", "plain/0.txt", "art/art.json"])


@target(lambda: corpus_files().seeds())
def captions(data: bytes) -> None:
    folder = corpus_files().folder

    def records(inside: Path) -> None:
        for record in corpus_folder.read_corpus(inside):
            assert inside in record.path.resolve().parents
        corpus_folder.plain_contents(corpus_folder.read_corpus(inside))

    def art() -> None:
        known = cutouts.read_art(folder / "art")
        for drawing in draw_module.plan(known, draw_module.Recipe(own=1, styled=0, mixed=0), 0)[:20]:
            assert folder in Path(os.path.normpath(folder / drawing.path)).parents
            assert folder / "art" in known.path(drawing.shown[0]).resolve().parents
            draw_module.captions_of(drawing, known)

    with corpus_files().having(data):
        attempt(lambda: records(folder), lambda: records(folder / "plain"), art)


# ---- pictures ----


def picture_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_seeds(height: int = 20) -> list[bytes]:
    small = draw(24, height)
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("styledrop", '{"prompt": "a cat", "seed": 1}', zip=True)
    chunks.add_text("comment", "x" * 100, zip=True)
    made = [images.png_bytes(small, {"prompt": "a cat", "seed": 1}), picture_of(small, "PNG", pnginfo=chunks)]
    return [*made, picture_of(small, "PNG", save_all=True, append_images=[small.rotate(90)])]


def picture_seeds(height: int = 20) -> list[bytes]:
    small = draw(24, height)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "upright"
    see_through = small.convert("RGBA")
    see_through.putalpha(see_through.getchannel("G"))
    rising = np.linspace(0, 1, 24 * height).reshape(height, 24)
    deep, real = (Image.fromarray(one) for one in ((65535 * rising).astype(np.uint16), rising.astype(np.float32)))
    return [
        *png_seeds(height),
        picture_of(see_through, "PNG"),
        picture_of(small.quantize(8), "PNG", transparency=2),
        picture_of(deep, "PNG"),
        picture_of(small.convert("1"), "PNG"),
        picture_of(small, "PNG", icc_profile=profile[:400]),
        picture_of(small, "JPEG", exif=exif, icc_profile=profile),
        picture_of(small, "JPEG", progressive=True),
        picture_of(small.convert("CMYK"), "JPEG"),
        picture_of(small, "MPO", save_all=True, append_images=[small]),
        picture_of(see_through, "WEBP", lossless=True),
        picture_of(small, "WEBP", exif=exif, save_all=True, append_images=[small.rotate(90)]),
        picture_of(small, "GIF", save_all=True, append_images=[small.rotate(90)]),
        picture_of(small, "BMP"),
        picture_of(small.quantize(8), "BMP"),
        picture_of(small, "TIFF", compression="tiff_lzw", exif=exif),
        picture_of(small, "TIFF", compression="tiff_adobe_deflate", icc_profile=profile),
        picture_of(real, "TIFF"),
        picture_of(deep, "TIFF"),
        picture_of(small.convert("1"), "TIFF", compression="group4"),
        picture_of(small, "TIFF", save_all=True, append_images=[small]),
        picture_of(small, "TIFF", compression="jpeg"),
    ]


@target(picture_seeds)
def picture(data: bytes) -> None:
    path = written("pictures/any.png", data)

    def read() -> None:
        image = images.load_picture(path)
        assert image.mode == "RGB" and min(image.size) >= 16 and image.width * image.height <= images.LARGEST
        images.thumbnail_base64(image)

    def read_mask() -> None:
        assert images.load_mask(path).mode == "RGB"
        images.load_transparency(path)

    attempt(read, read_mask, lambda: images.read_png_settings(path))


@target(lambda: picture_seeds(height=24))
def cutout(data: bytes) -> None:
    path = written("pictures/cut.png", data)
    attempt(lambda: images.load_cutout(path, 16))


@target(lambda: [*picture_seeds(), b"t" + images.thumbnail_base64(draw()).encode()])
def thumbnail(data: bytes) -> None:
    address = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    if data[:1] == b"t":
        address = data[1:].decode("latin-1")
    attempt(lambda: console.in_blocks(images.from_base64(address)))


warnings.simplefilter("ignore")
