"""Will styledrop run here, and if not, what is to be done? The checks behind `styledrop doctor`.

Torch and the other libraries may be broken, so another process tries them: whether it raises, hangs or crashes, the
doctor goes on. That is why this module imports nothing heavy.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from styledrop_cli import __version__
from styledrop_cli.adapters import library
from styledrop_cli.base import hub
from styledrop_cli.base.cache import cache_folder
from styledrop_cli.base.registry import BUNDLED
from styledrop_cli.environment import is_on
from styledrop_cli.errors import StyledropError, UsageError
from styledrop_cli.io.files import file_hash, why_cut

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# What styledrop is built on: pip's name and Python's. torchvision is what open_clip needs.
LIBRARIES = {
    "typer": "typer", "rich": "rich", "numpy": "numpy", "pillow": "PIL", "safetensors": "safetensors",
    "tokenizers": "tokenizers", "huggingface_hub": "huggingface_hub", "jinja2": "jinja2", "matplotlib": "matplotlib",
    "starlette": "starlette", "uvicorn": "uvicorn", "torch": "torch", "accelerate": "accelerate",
    "torchvision": "torchvision", "open_clip_torch": "open_clip", "filelock": "filelock",
    "platformdirs": "platformdirs",
}  # fmt: skip
DEVICES, BASE = "devices", "base:"  # asked of the other process beside the libraries; a base's folder follows `base:`
NEED_TORCH = ("accelerate", "torchvision", "open_clip", DEVICES, BASE)  # not tried where torch is broken
PATIENCE = 180  # seconds for the other process; a first import from a slow disk takes half a minute
SUMS = "SHA256SUMS"  # of the bundled weights, as sha256sum writes them
TRAINING = 1_500_000_000  # bytes of memory that learning a style on pocket takes
# The variables that decide how styledrop runs.
VARIABLES = re.compile(
    r"(STYLEDROP|HF|OMP|GOMP|MKL|CUDA|PYTORCH)_\w+|HTTPS?_PROXY|WORLD_SIZE|(LOCAL_)?RANK|PYTHONPATH|TMPDIR",
    re.IGNORECASE,
)

FINE, NOTE, WRONG = "fine", "note", "wrong"
Answers = Mapping[str, Mapping[str, Any]]  # what the other process says of each name that it was asked about


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was ``found``, whether that is right, and if not, what to do about it."""

    section: str
    name: str
    found: str
    state: str = FINE
    advice: str = ""


def examine(model: str = BUNDLED, *, thorough: bool = False) -> list[Finding]:
    """Look at everything. What is wrong is a finding, never an error.

    ``model`` is loaded beside the bundled base. ``thorough`` compares fetched models with their checksums, which reads
    all of their bytes.
    """
    folders: dict[str, Path | None] = dict.fromkeys((BUNDLED, model))
    for one in folders:
        with suppress(ImportError, StyledropError):
            folders[one] = hub.find(one)
    bases = [f"{BASE}{hub.as_read(folder, one)}" for one, folder in folders.items() if folder]
    answers = ask([*LIBRARIES.values(), DEVICES, *bases])
    return [
        Finding("versions", "styledrop", f"{__version__}, in {Path(__file__).parent}"),
        Finding("versions", "Python", f"{platform.python_version()}, {sys.executable}, on {platform.platform()}"),
        *_libraries(answers),
        *_machine(answers.get(DEVICES, {})),
        *(_model(one, folder, answers) for one, folder in folders.items()),
        *_fetched(thorough),
        *_folders(),
        *_styles(),
        *_environment(),
    ]


# ---- the other process ----


def ask(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What another process says of each of ``names``: facts, or an ``error``.

    It ends at the first that fails, and one more is asked about the rest. Where torch is broken, what needs it is not
    tried, and there is no answer for it.
    """
    answers: dict[str, dict[str, Any]] = {}

    def left() -> list[str]:
        hopeless = NEED_TORCH if "error" in answers.get("torch", ()) else ()
        return [name for name in names if name not in answers and not name.startswith(hopeless)]

    while asked := left():
        written, why = _another_process(asked)
        for line in written.decode(errors="replace").splitlines(keepends=True):
            if line.endswith("\n"):  # else it was cut short
                answers |= json.loads(line)
        for culprit in left()[:1]:
            answers[culprit] = {"error": why}
    return answers


def _another_process(names: Sequence[str]) -> tuple[bytes, str]:
    """What a process writes about ``names``, and why it did not get to the end of them."""
    program = "import sys; from styledrop_cli.doctor import answer; answer(sys.argv[1:])"
    # -P and this process's own path: what lies in the current folder is found there only if it is found here.
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, *names],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return error.stdout or b"", f"nothing came of it in {PATIENCE} seconds"
    ends = "it ends the program that imports it"
    if done.returncode < 0:
        return done.stdout, f"{ends} ({signal.Signals(-done.returncode).name})"
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return done.stdout, said[-1][:300] if said and done.returncode else ends


def answer(names: Sequence[str]) -> None:
    """The other process's part: a line of JSON on standard output about each name, as soon as it is known."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # libraries may print
        for name in names:
            try:
                out.write(json.dumps({name: _tried(name)}) + "\n")
                out.flush()
            except Exception as error:
                sys.exit(_in_words(error))


def _tried(name: str) -> dict[str, Any]:
    if name == DEVICES:
        return _torch_says()
    if name.startswith(BASE):
        from styledrop_cli.base.base import load_base

        return {"sizes": load_base(name.removeprefix(BASE), importlib.import_module("torch").device("cpu")).sizes}
    if name == "open_clip":  # as styledrop itself imports it
        from styledrop_cli.judging.clip_scorer import open_clip

        open_clip()
    else:
        importlib.import_module(name)
    return {}


def _torch_says() -> dict[str, Any]:
    """Which devices torch sees, and whether the one that styledrop would take computes."""
    import torch

    from styledrop_cli.devices import pick_device

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        picked = pick_device()
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    fault = None
    try:
        ones = torch.ones(32, 32, device=picked)
        if (total := float((ones @ ones).sum())) != 32**3:
            fault = f"a product of matrices comes to {total:g}, not {32**3}"
    except Exception as error:
        fault = _in_words(error)
    return {
        "built for": f"CUDA {torch.version.cuda}" if torch.version.cuda else torch.version.hip and "ROCm",
        "cards": [f"{card.name}, {card.total_memory / 1e9:.0f} GB" for card in cards],
        "warnings": [str(one.message).partition("\n")[0] for one in heard],
        "picked": picked.type,
        "threads": torch.get_num_threads(),
        "fault": fault,
    }


def _in_words(error: Exception) -> str:
    if isinstance(error, StyledropError):
        return error.message
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]


# ---- libraries ----


def version_of(name: str) -> str | None:
    """The installed version of a library, as pip knows it."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def has_nvidia() -> bool:
    """Whether this machine has an NVIDIA card, whatever torch says of it."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _libraries(answers: Answers) -> Iterator[Finding]:
    """Each library: installed, importable, and of the version that styledrop and the others ask for."""
    for name, module in LIBRARIES.items():
        version, said = version_of(name), answers.get(module)
        if said is None:
            yield Finding("libraries", name, f"{version or 'not installed'}, not tried without torch", NOTE)
        elif "error" not in said:
            yield Finding("libraries", name, version or "of an unknown version")
        else:
            found = f"{version} cannot be imported: {said['error']}" if version else "not installed"
            state, advice = WRONG, _install(name)
            if name == "torchvision" and "error" not in answers.get("open_clip", {"error": ""}):
                state, advice = NOTE, f"styledrop works around it, other programs do not: {advice}"
            yield Finding("libraries", name, found, state, advice)
    for user in ("styledrop", *LIBRARIES):
        for asked in _requirements(user):
            here, versions = version_of(asked.name), str(asked.specifier)
            if here and not asked.specifier.contains(here, prereleases=True):
                found = f"{user} asks for {asked.name}{versions}; here is {here}"
                yield Finding("libraries", asked.name, found, WRONG, _install(asked.name, versions))


def _requirements(user: str) -> Iterator[Requirement]:
    """What a library says that it needs here."""
    # packaging comes with huggingface_hub, and raises ValueError at what it cannot read.
    with suppress(metadata.PackageNotFoundError, ImportError, ValueError):
        from packaging.requirements import Requirement

        for asked in map(Requirement, metadata.requires(user) or []):
            if asked.marker is None or asked.marker.evaluate({"extra": ""}):
                yield asked


def _install(name: str, versions: str = "") -> str:
    """The command that brings a library, in one of the ``versions`` if they are given, or brings it anew."""
    here, words = version_of(name), [f"{name}{versions}"]
    if name == "torch":
        words.append("torchvision")  # each is built for one torch
    elif name == "torchvision" and here:
        words = [f"{name}=={here.partition('+')[0]}"]
    if here and not versions:
        words = ["--force-reinstall", *["--no-deps"] * (name != "torch"), *words]
    without_cuda = not has_nvidia() or (version_of("torch") or "").endswith("+cpu")
    if name in ("torch", "torchvision") and sys.platform == "linux" and without_cuda:  # PyPI has it with CUDA only
        words += ["--index-url", "https://download.pytorch.org/whl/cpu"]
    return shlex.join([sys.executable, "-m", "pip", "install", *words])


# ---- the machine ----


def _machine(said: Mapping[str, Any]) -> Iterator[Finding]:
    """The processor, the memory, and the devices by what torch ``said`` of them."""
    cores, threads = _cores(), said.get("threads")
    state, advice = FINE, ""
    if threads and threads != cores:
        why = "more threads than cores wait for each other" if threads > cores else "not all cores are used"
        state, advice = NOTE, f"{why}: put OMP_NUM_THREADS={cores} in front of the command"
    found = f"{cores} core{'s' * (cores > 1)}" + (f", {threads} thread{'s' * (threads > 1)}" if threads else "")
    yield Finding("machine", "processor", found, state, advice)
    if memory := _memory():
        little = (NOTE, "learning a style takes 1.4 GB: close other programs first") if memory[1] < TRAINING else ()
        yield Finding("machine", "memory", f"{memory[0] / 1e9:.1f} GB, {memory[1] / 1e9:.1f} GB free", *little)
    if error := said.get("error"):
        yield Finding("devices", "cpu", f"torch cannot say: {error}", WRONG, _install("torch"))
    elif said:
        yield _cards(said)
        picked, fault = said["picked"], said.get("fault")
        if fault:
            advice = "say --device cpu" if picked != "cpu" else _install("torch")
            yield Finding("devices", "taken", f"{picked}, which does not compute: {fault}", WRONG, advice)
        else:
            yield Finding("devices", "taken", f"{picked}{', unless --device names another' * (picked != 'cpu')}")


def _cores() -> int:
    """The processor's cores that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> tuple[int, int] | None:
    """Bytes of memory, all and free; None without psutil, which comes with accelerate."""
    try:
        memory = importlib.import_module("psutil").virtual_memory()
    except ImportError:
        return None
    return memory.total, memory.available


def _cards(said: Mapping[str, Any]) -> Finding:
    """The graphics cards that torch sees, or why it sees none."""
    built = said["built for"]
    heard = next((one for one in said.get("warnings", ()) if "CUDA" in one or "NVIDIA" in one), "")
    if said["cards"]:
        return Finding("devices", "cuda", f"{'; '.join(said['cards'])}; PyTorch is built for {built}")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding("devices", "cuda", "none: CUDA_VISIBLE_DEVICES hides it", NOTE, "unset it to use the card")
    found = f"none, though PyTorch is built for {built}" if built else "none: this PyTorch is built without CUDA"
    if not heard and not has_nvidia():
        return Finding("devices", "cuda", found)
    advice = "https://pytorch.org/get-started/locally says which PyTorch uses this machine's NVIDIA card"
    if built:
        advice = f"update the card's driver, or install another PyTorch: {advice}"
    return Finding("devices", "cuda", f"{found}: {heard}" if heard else found, NOTE, advice)


# ---- base models ----


def _model(model: str, folder: Path | None, answers: Answers) -> Finding:
    """Whether a base is here, and loads; of the bundled one also, whether it is as it was shipped."""
    if folder is None:
        fetch = f"styledrop models fetch {shlex.quote(model)}"
        try:
            hub.find(model)
        except ImportError:
            return Finding("models", model, "not looked for without huggingface_hub", NOTE)
        except StyledropError as error:
            return Finding("models", model, error.message, WRONG, error.hint or "")
        if is_on("HF_HUB_OFFLINE"):
            return Finding("models", model, "not here, and HF_HUB_OFFLINE forbids to fetch it", WRONG, fetch)
        return Finding("models", model, "not here yet: it is fetched when it is first used", NOTE, fetch)
    said = answers.get(f"{BASE}{hub.as_read(folder, model)}")
    problem, advice = (said or {}).get("error"), f"styledrop models check {shlex.quote(model)} says more"
    if model == BUNDLED:
        problem = _damage(folder) or problem
        advice = "install styledrop again; in a checkout: git checkout src/styledrop_cli/pocket"
    if problem:
        return Finding("models", model, problem, WRONG, advice)
    whole = "whole, " if model == BUNDLED else ""
    if said is None:
        return Finding("models", model, f"{whole}not loaded without torch: {folder}")
    return Finding(
        "models", model, f"{whole}it loads, and draws {' and '.join(f'{one} px' for one in said['sizes'])}: {folder}"
    )


def _damage(folder: Path) -> str:
    """What is wrong with the bundled weights by their checksums; empty if nothing."""
    try:
        for line in (folder / SUMS).read_text(encoding="ascii").splitlines():
            wanted, _, name = line.partition("  ")
            if file_hash(folder / name) != wanted:
                return f"{name} is damaged: its sha256 does not begin with {wanted[:12]}"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    return ""


def _fetched(thorough: bool) -> Iterator[Finding]:
    """The published models in the hub's cache, whole or not, and how much room there is for more."""
    try:
        found, cache = hub.cached(), cache_folder()
    except Exception as error:  # a broken huggingface_hub has its own finding
        yield Finding("models", "fetched", f"not looked for: {_in_words(error)}", NOTE)
        return
    for one in found:
        fetch = f"styledrop models fetch {shlex.quote(one.name)}"
        held = one.state if one.lent else ", ".join(one.precisions) or "not all weights"
        about = f"{one.size / 1e9:.2f} GB, {held}: {one.folder}"
        if not one.whole and not one.lent:
            yield Finding("models", one.name, f"only in part, {about}", NOTE, f"{fetch} brings the rest")
        elif problems := hub.cut_weights(one.folder) or (hub.verify(one.folder) if thorough else []):
            yield Finding("models", one.name, "; ".join(problems), WRONG, f"{fetch} brings it anew")
        else:
            yield Finding("models", one.name, f"whole{', its sums are right' * thorough}, {about}")
    there = next(path for path in (cache, *cache.parents) if path.exists())
    closed = () if os.access(there, os.W_OK) else (NOTE, "it may not be written to: HF_HOME=FOLDER names another place")
    yield Finding("models", "cache", f"{cache}, {shutil.disk_usage(there).free / 1e9:.1f} GB free", *closed)


# ---- the current folder, and the environment ----


def _folders() -> Iterator[Finding]:
    """Whether commands can write where they are started, and where temporary files go."""
    for name, find, advice in (
        ("folder", Path.cwd, "start from a folder of your own, or name another place with -o"),
        ("temporary files", tempfile.gettempdir, "TMPDIR=FOLDER names another place"),
    ):
        try:
            place, free = find(), shutil.disk_usage(find()).free
            _try_to_write(place)
        except OSError as error:
            yield Finding("here", name, f"cannot be written: {error.strerror or error}", WRONG, advice)
        else:
            full = (WRONG, f"make room, 20 MB are needed; or {advice}") if free < 50e6 else ()
            yield Finding("here", name, f"{place}, {free / 1e9:.1f} GB free", *full)


def _styles() -> Iterator[Finding]:
    """The library of styles: where it is, whether it can be used, and which of its files are not whole."""
    try:
        folder = library.folder()
        there = folder.exists()
        if there:
            list(folder.iterdir())
            _try_to_write(folder)
    except ImportError as error:
        yield Finding("here", "styles", f"not looked for: {error}", NOTE)
        return
    except UsageError as error:
        yield Finding("here", "styles", error.message, NOTE, error.hint or "")
        return
    except OSError as error:
        advice = f"{library.VARIABLE}=FOLDER names another one"
        yield Finding("here", "styles", f"{folder} cannot be used: {error.strerror or error}", WRONG, advice)
        return
    names = library.names()
    yield Finding("here", "styles", f"{len(names)} in {folder}{', which is not there yet' * (not there)}")
    for name in names:
        if why := why_cut(library.file_of(name)):
            advice = f"import it anew, or: styledrop styles remove {name}"
            yield Finding("here", name, f"this style is damaged: {why}", WRONG, advice)


def _try_to_write(folder: Path | str) -> None:
    """Raise OSError if nothing can be written in a folder."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"styledrop")


def _environment() -> Iterator[Finding]:
    """The variables that matter and are set; passwords and tokens are not shown."""
    for name, value in sorted(os.environ.items()):
        if not VARIABLES.fullmatch(name):
            continue
        shown = value or "set to nothing"
        if "://" in value and (address := urlsplit(value)).username is not None:
            shown = value.replace(address.netloc, f"...@{address.netloc.rpartition('@')[2]}")
        if re.search("TOKEN|PROXY", name, re.IGNORECASE):
            shown = "set"
        ignored = name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") and not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", value)
        yield Finding("environment", name, shown, *((NOTE, "no number of threads: it is ignored") if ignored else ()))
