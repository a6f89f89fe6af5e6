"""What can befall a long command: nothing finished is lost, nothing by halves is taken for whole, the same goes on."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image
from test_interrupted import little_adapter

import children
import tiny
from children import held, unprivileged
from conftest import Outcome, Run
from styledrop_cli.base import base as base_module
from styledrop_cli.cli.recipe import NAME as RECIPE
from styledrop_cli.io.files import file_hash
from styledrop_cli.io.run_folder import LOCK
from styledrop_cli.io.tensors import read_tensors, tensors_hash

PART = re.compile(r"\..+\.\d+\.part")
STAGE = Path("stage")  # what the commands find there: adapter, model, corpus and the earlier parts of one


# ---- the commands, and what they leave ----


class Command(NamedTuple):
    """A command as it is typed, but for its ``-o``; ``begun`` is what its output holds before."""

    words: tuple[str, ...]
    output: str = ""  # in the folder that it has to itself
    begun: str = ""

    def into(self, folder: Path) -> list[str]:
        folder.mkdir(exist_ok=True)
        if self.begun and not (folder / self.output).exists():
            shutil.copytree(self.begun, folder / self.output)
        return [*self.words, "-o", str(folder / self.output)]


COMMANDS = {
    "train": Command(
        ("train", "ref.png", "--style", "crayon", "--content", "a ball", "--steps", "20", "--checkpoints", "2",
         "--overwrite", "--model", "tiny"),
        "a.safetensors",
    ),
    "iterate": Command(
        ("iterate", "adapter.safetensors", "--prompts", "prompts.txt", "--per-prompt", "4", "--rounds", "2", "--steps",
         "8", "--model", "tiny"),
        "rounds",
    ),
    "generate": Command(
        ("generate", "adapter.safetensors", "--prompts", "prompts.txt", "-n", "5", "--steps", "3", "--model", "tiny"),
        "pictures",
    ),
    "tokenizer": Command(("pretrain", "tokenizer", "corpus", "--minutes", "0.006", "--resume"), "model"),
    "base": Command(("pretrain", "base", "corpus", "--minutes", "0.008", "--resume"), "model", "earlier"),
    "all": Command(("pretrain", "all", "corpus", "--minutes", "0.008", "--resume"), "model"),
}  # fmt: skip
SHORT = {
    "train": ("--steps", "4", "--checkpoints", "1"),
    "iterate": ("--steps", "2", "--rounds", "1", "--per-prompt", "2"),
    "generate": ("-n", "1"),
    "base": ("--minutes", "0.001"),
}


def short(name: str) -> Command:
    return COMMANDS[name]._replace(words=(*COMMANDS[name].words, *SHORT[name]))


@pytest.fixture(scope="module")
def begun(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all commands find what they need."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(tiny_model, folder / "tiny")
    little_adapter(folder / "tiny", folder / "adapter.safetensors")
    (folder / "prompts.txt").write_text("a dog\na house\na teapot\na tree\n", encoding="utf-8")
    tiny.write_corpus(folder / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        children.small(patch)
        patch.chdir(folder)
        for part in ("tokenizer", "clip"):
            words = ["pretrain", part, "corpus", "-o", "earlier", "--minutes", "0.002", "--quiet"]
            assert children.console.run(children.app, words) == 0
    return folder


@pytest.fixture(autouse=True)
def _here(begun: Path, tmp_path: Path) -> None:
    for path in begun.iterdir():
        (tmp_path / path.name).symlink_to(path)


def whole(folder: Path, parts: bool = False) -> dict[str, str]:
    """Every file in ``folder``, by its contents; each can be read. ``parts`` may be left of killed processes."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LOCK):
        name = str(path.relative_to(folder))
        if parts and PART.fullmatch(path.name):
            continue
        if path.suffix == ".safetensors":
            tensors, about = read_tensors(path)
            header = json.loads(about.pop("styledrop", "{}"))
            # When it was made, and so its hash, which is what the next round calls it by, are other ones each time.
            said = {
                n: v for n, v in (about | header).items() if n not in ("created", "parent", "plan", "modelspec.date")
            }
            found[name] = f"{tensors_hash(tensors)} {sorted(said.items())}"
            continue
        if path.name == RECIPE:  # says which file was to be written
            tomllib.loads(path.read_text(encoding="utf-8"))
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                json.loads(line)
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        else:
            assert path.suffix == ".txt" and path.read_text(encoding="utf-8").strip(), path
        found[name] = file_hash(path)
    return found


def made(folder: Path) -> dict[str, str]:
    """What a command came to: all but what a base shows of itself on its way, and how far a round's training was."""
    way = ".training/", "adapter.safetensors.run/"
    return {name: content for name, content in whole(folder).items() if not any(one in name for one in way)}


# ---- SIGKILL ----

KILLS = {"train": 16, "iterate": 16, "generate": 12, "tokenizer": 8, "base": 12, "all": 8}


def test_the_kills_are_at_least_fifty() -> None:
    assert sum(KILLS.values()) >= 50


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_killed_at_random_moments_it_comes_to_the_same_bits(name: str) -> None:
    """By turns at a moment of the clock and at an operation on the disk, which is then half done; again and again."""
    command, chance = COMMANDS[name], random.Random(name)
    log = Path("log")

    def ended(folder: Path, seconds: float | None = None, die_at: int = 0) -> bool:
        """Run it, for so many seconds at most; whether it came to its end."""
        process = children.start(command.into(folder), log, die_at)
        process.join(seconds)
        process.kill()
        process.join()
        code = process.exitcode
        process.close()
        assert code in (0, -9), log.read_text(encoding="utf-8")
        return code == 0

    began = time.monotonic()
    assert ended(Path("undisturbed"))
    length = time.monotonic() - began
    total = int(log.read_text(encoding="utf-8").rpartition("operations: ")[2])
    undisturbed = made(Path("undisturbed"))
    kills, left, folder = 0, set(), Path("killed-0")
    while kills < KILLS[name]:
        if kills % 2:
            done = ended(folder, seconds=chance.uniform(0.1, 0.9) * length)
        else:
            done = ended(folder, die_at=chance.randint(1, total // 2))
        kills += not done
        left.add(tuple(whole(folder, parts=True).items()))
        if done:
            assert made(folder) == undisturbed
            folder = Path(f"killed-{kills}")
    assert ended(folder)
    assert made(folder) == undisturbed
    assert len(left) > KILLS[name] // 3  # they were killed in many states
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said and "unexpected" not in said


@pytest.mark.slow
def test_who_draws_a_corpus_ends_with_who_had_it_drawn() -> None:
    """A worker would wait for more to draw for ever, and its pictures would come into the next command's."""
    if not Path("/proc/self/task").exists():
        pytest.skip("only Linux tells which processes another one started")
    art = tiny.write_art(Path("art"))
    about = json.loads((art / "art.json").read_text(encoding="utf-8"))
    things = {f"box{i}": [f"a box {i}"] for i in range(30)}
    for name in things:
        shutil.copy(art / "flat/box.png", art / f"flat/{name}.png")
    (art / "art.json").write_text(json.dumps(about | {"things": things}), encoding="utf-8")
    process = children.start(["pretrain", "corpus", "art", "-o", "drawn"], Path("log"))
    workers: list[int] = []
    try:
        while not list(Path("drawn").rglob("*.jpg")):
            assert process.is_alive(), Path("log").read_text(encoding="utf-8")
            time.sleep(0.01)
        workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    finally:
        process.kill()
        process.join()
        process.close()
    assert workers
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not Path("drawn/metadata.jsonl").exists()  # what is not whole is no corpus
    process = children.start(["pretrain", "corpus", "art", "-o", "drawn"], Path("log"))
    process.join()
    assert process.exitcode == 0
    process.close()
    assert len(Path("drawn/metadata.jsonl").read_text(encoding="utf-8").splitlines()) == len(
        list(Path("drawn").rglob("*.jpg"))
    )
    assert not list(Path("drawn").rglob(".*.part"))


# ---- a full disk ----


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def go(styledrop: Run, command: Command, folder: Path) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        children.small(patch)
        return styledrop(*command.into(folder), "--quiet")


def fill_from_each(styledrop: Run, name: str, points: Callable[[int], range], *more: str) -> int:
    """Let the disk be full from each write on (and from each of ``more``), and empty again; how many there are."""
    command = short(name)
    with pytest.MonkeyPatch.context() as patch:
        done = children.operations(patch, 0, full, more)
        assert go(styledrop, command, Path("undisturbed")).code == 0
    undisturbed = made(Path("undisturbed"))
    for at in points(len(done)):
        folder = Path(f"full-{at}")
        with pytest.MonkeyPatch.context() as patch:
            children.operations(patch, at, full, more, lasting=True)
            outcome = go(styledrop, command, folder)
        assert outcome.code == 1 and outcome.out == "", (at, outcome)
        assert "cannot write " in outcome.err and "the disk is full" in outcome.err and "make room on it" in outcome.err
        assert "Traceback" not in outcome.err
        whole(folder)  # and no part of a file
        assert go(styledrop, command, folder).code == 0, at
        assert made(folder) == undisturbed, at
    return len(done)


@pytest.mark.parametrize("name", SHORT)
def test_a_disk_that_is_full_from_any_write_on(styledrop: Run, name: str) -> None:
    step = 7 if name == "iterate" else 1  # it has the most, and all of them below
    assert fill_from_each(styledrop, name, lambda number: range(1, number + 1, step)) > 4


@pytest.mark.slow
def test_a_disk_that_is_full_from_each_write_of_rounds_on(styledrop: Run) -> None:
    fill_from_each(styledrop, "iterate", lambda number: range(1, number + 1))


def test_a_disk_that_is_full_when_a_file_is_to_get_its_name(styledrop: Run) -> None:
    fill_from_each(styledrop, "train", lambda number: range(2, number + 1, 6), "replace")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 4 MB, or a skipped test where we may not make one."""
    folder = Path("disk")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if os.getuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be made by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_small_disk_that_fills_up(styledrop: Run, small_disk: Path, name: str) -> None:
    command, ballast = short(name), small_disk / "ballast"
    assert go(styledrop, command, Path("undisturbed")).code == 0
    undisturbed = made(Path("undisturbed"))
    for share in (0.0, 0.2, 0.4, 0.6, 0.8):
        folder = small_disk / "of it"
        command.into(folder)
        needed = sum(path.stat().st_size for path in Path("undisturbed").rglob("*")) - sum(
            path.stat().st_size for path in folder.rglob("*")
        )
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(bytes(int(free - share * needed) // 4096 * 4096))
        outcome = go(styledrop, command, folder)
        assert outcome.code == 1 and "the disk is full" in outcome.err, (share, outcome)
        whole(folder)
        ballast.unlink()
        assert go(styledrop, command, folder).code == 0
        assert made(folder) == undisturbed
        shutil.rmtree(folder)


# ---- a folder that may not be written to any more ----


@pytest.mark.parametrize("name", ["train", "iterate", "base"])
def test_a_folder_that_is_read_only_by_now(styledrop: Run, tmp_path: Path, begun: Path, name: str) -> None:
    command, folder = short(name), Path("shut")
    with pytest.MonkeyPatch.context() as patch:
        children.operations(patch, 13, full, ("replace",))
        assert go(styledrop, command, folder).code == 1
    before = whole(folder)
    places = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
    for path in (begun, tmp_path, *begun.parents, *tmp_path.parents):
        with suppress(PermissionError):
            path.chmod(path.stat().st_mode | 0o755)
    for path in places:
        path.chmod(0o555)
    with unprivileged():
        outcome = go(styledrop, command, folder)
    assert outcome.code in (1, 2) and "may not be written to" in outcome.err, outcome
    assert whole(folder) == before
    for path in places:
        path.chmod(0o755)
    assert go(styledrop, command, folder).code == 0
    assert go(styledrop, command, Path("undisturbed")).code == 0
    assert made(folder) == made(Path("undisturbed"))


# ---- a checkpoint that is damaged ----


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def turn_into_a_folder(path: Path) -> None:
    path.unlink()
    (path / "with something in it").mkdir(parents=True)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a flipped bit": flip,
    "its end is missing": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "nothing in it": lambda path: path.write_bytes(b""),
    "a folder in its place": turn_into_a_folder,
}


# Up to which write each is let go: where it has two states, and whoever it learnt for does not have the result yet.
STOPS = {
    "train": r"write one/\.a\.safetensors\.",
    "iterate": r"write one/rounds/round-3/\.adapter\.safetensors\.",
    "base": r"write one/model/\.training/\.base\.safetensors\.",
}


@pytest.fixture(scope="module")
def stopped(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each command's folder, as it was stopped with two checkpoints, and beside it as it becomes undisturbed."""
    places = {}
    for name, where in STOPS.items():
        places[name] = folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(begun)
            children.small(patch)
            words = [*COMMANDS[name].into(folder / "whole"), "--quiet"]
            with pytest.MonkeyPatch.context() as counted:
                done = children.operations(counted, 0, full, ("replace",))
                assert children.console.run(children.app, words) == 0
            sought = re.compile(where.replace("one", re.escape(str(folder / "whole"))))
            at = [n for n, what in enumerate(done, 1) if sought.match(what)][-2:][0]
            with pytest.MonkeyPatch.context() as stopping:
                children.operations(stopping, at, full, ("replace",))
                assert children.console.run(children.app, [*COMMANDS[name].into(folder / "one"), "--quiet"]) == 1
    return places


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", STOPS)
def test_a_damaged_checkpoint_is_said_and_the_one_before_gone_on_from(
    styledrop: Run, stopped: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    folder = Path(shutil.copytree(stopped[name] / "one", "one"))
    children.small(monkeypatch)
    newest = max([*folder.rglob("state-*"), *folder.rglob(".training/base.safetensors")])
    DAMAGES[damage](newest)
    outcome = styledrop(*COMMANDS[name].into(folder))
    assert outcome.code == 0, outcome.err
    assert newest.name in outcome.err and "going on from the one before" in outcome.err
    assert "going on from step" in outcome.err
    assert made(folder) == made(stopped[name] / "whole")


# ---- two processes ----


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("train", "a.safetensors.run"),
        ("iterate", "rounds"),
        ("base", "model/.training"),
        ("tokenizer", "model/.training"),
    ],
)
def test_the_second_process_is_told_at_once(
    styledrop: Run, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    command, folder = COMMANDS[name], Path("one")
    words = command.into(folder)
    monkeypatch.setattr(base_module, "load_base", None)  # before any is loaded
    with held(folder / place) as other:
        before = whole(folder)
        outcome = styledrop(*words)
        assert outcome.code == 2 and outcome.out == ""
        assert f"another process, PID {other.pid}, is working in {folder / place}" in outcome.err
        assert "Wait for it, or choose another output with -o." in outcome.err
        assert whole(folder) == before


def test_who_only_reads_is_not_kept_out(styledrop: Run) -> None:
    assert go(styledrop, short("iterate"), Path("it")).code == 0
    adapter, few = shutil.copy("adapter.safetensors", "mine.safetensors"), ("--steps", "1", "--model", "tiny")
    with held(Path("it/rounds")), held(Path("mine.safetensors.run")):
        for words in (
            ("inspect", adapter),
            ("report", "it/rounds", "-n", "1", "--model", "tiny", "-o", "report.html"),
            ("sweep", adapter, "a cat", "--lambda-a", "0,1", "-n", "1", *few),
            ("generate", adapter, "a cat", "-n", "1", *few),
        ):
            outcome = styledrop(*words)
            assert outcome.code == 0, outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "iterate", "base"])
def test_two_at_once_and_the_first_is_killed(name: str) -> None:
    """The second, which is told who the first is, goes on as soon as that is dead."""
    command, folder = COMMANDS[name], Path("one")
    words = command.into(folder)
    first = children.start(words, Path("first"))
    try:
        while not (locks := [p for p in folder.rglob(LOCK) if p.read_text("utf-8").startswith(f"{first.pid} ")]):
            assert first.is_alive(), Path("first").read_text(encoding="utf-8")
            time.sleep(0.005)
        os.kill(first.pid or 0, 19)  # stopped, it holds on
        second = children.start(words, Path("second"))
        second.join()
        assert second.exitcode == 2
        second.close()
        assert f"another process, PID {first.pid}, is working in {locks[0].parent}" in Path("second").read_text("utf-8")
    finally:
        first.kill()
    first.join()
    first.close()
    third = children.start(words, Path("third"))
    third.join()
    assert third.exitcode == 0, Path("third").read_text(encoding="utf-8")
    third.close()
    whole(folder)
