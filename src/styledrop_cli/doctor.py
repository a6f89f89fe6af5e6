"""What is here and what is wrong with it: the checks behind `styledrop doctor`.

Whatever may be broken, torch before all, is tried in a process of its own: it may raise, hang or take its process
along, and the doctor goes on. So this module imports nothing that is not Python's, but for `hub`, which is light.
"""

from __future__ import annotations

import hashlib
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
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from styledrop_cli import __version__, hub
from styledrop_cli.errors import StyledropError
from styledrop_cli.files import read_json

FINE, NOTE, WRONG = "fine", "note", "wrong"

# What styledrop is built on: the name that pip knows, and the one that Python imports. torchvision is open_clip's.
LIBRARIES = {
    "typer": "typer", "rich": "rich", "numpy": "numpy", "pillow": "PIL", "safetensors": "safetensors",
    "tokenizers": "tokenizers", "huggingface_hub": "huggingface_hub", "jinja2": "jinja2", "matplotlib": "matplotlib",
    "starlette": "starlette", "uvicorn": "uvicorn", "torch": "torch", "accelerate": "accelerate",
    "torchvision": "torchvision", "open_clip_torch": "open_clip",
}  # fmt: skip
DEVICES, BASE = "devices", "base:"  # what is asked beside the libraries; a base's folder follows its word
AFTER_TORCH = ("accelerate", "torchvision", "open_clip", DEVICES, BASE)  # not tried where torch is broken
PATIENCE = 180  # seconds for all that a process is asked; a first import from a slow disk takes half a minute
SUMS = "SHA256SUMS"  # of the bundled weights; written by sha256sum
TRAINING = 1_500_000_000  # bytes of memory that a training on pocket takes
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# What decides how styledrop runs. Where it is read is in brackets if it is not here.
VARIABLES = (
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN",  # (huggingface_hub)
    "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT",  # (OpenMP)
    "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK",  # (torch)
    "PYTHONPATH", "TMPDIR", "NO_COLOR", "FORCE_COLOR", "STYLEDROP_TRACEBACK",
)  # fmt: skip
SECRET = re.compile("TOKEN|PROXY", re.IGNORECASE)  # what is set to it is never shown

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was `found`, whether that is right, and if not, what to do about it."""

    section: str
    name: str
    found: str
    state: str = FINE
    advice: str = ""


def examine(model: str = hub.BUNDLED, *, thorough: bool = False) -> list[Finding]:
    """Look at everything, in the order in which it is told; what is wrong is no error, but found.

    ``model`` is loaded beside the bundled base. ``thorough`` compares fetched models with their sums, which reads all
    of their bytes.
    """
    folder, named = _located(model)
    asked = [*LIBRARIES.values(), DEVICES, f"{BASE}{hub.find(hub.BUNDLED)}"]
    if folder and model != hub.BUNDLED:
        asked.append(f"{BASE}{folder}")
    answers = ask(asked)
    return [
        *_versions(),
        *_libraries(answers),
        *_machine(answers.get(DEVICES, {})),
        *_devices(answers.get(DEVICES, {})),
        *_bundled(answers),
        *named,
        *(_named(model, folder, answers) if folder and model != hub.BUNDLED else ()),
        *_fetched(thorough, "error" not in answers.get("torch", {"error": ""})),
        *_here(),
        *_environment(),
    ]


# ---- asking another process -------------------------------------------------------------------


def ask(names: Sequence[str]) -> dict[str, Answer]:
    """What other processes say of `names`: facts, or an `error`. A name that kills one does not hide those after it."""
    answers: dict[str, Answer] = {}

    def left() -> list[str]:
        hopeless = AFTER_TORCH if "error" in answers.get("torch", ()) else ()
        return [name for name in names if name not in answers and not name.startswith(hopeless)]

    while asked := left():
        lines, why = _another(asked)
        for line in lines:
            answers.update(json.loads(line))
        if culprit := next(iter(left()), None):
            answers[culprit] = {"error": why or "it ends the program that imports it"}
    return answers


def _another(names: Sequence[str]) -> tuple[list[str], str]:
    """The lines that a process writes about `names`, and why it came to no end, if so."""
    program = "import sys; from styledrop_cli.doctor import answer; answer(sys.argv[1:])"
    # -P and this process's own path: what lies in the current folder is found there if it is found here.
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, *names],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return _whole_lines(error.stdout), f"nothing came of it in {PATIENCE} seconds"
    except OSError as error:
        return [], f"Python cannot be started: {error}"
    why = ""
    if done.returncode < 0:
        why = f"it ends the program that imports it ({signal.Signals(-done.returncode).name})"
    elif done.returncode > 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1][:200] if said else f"it ends the program that imports it (exit code {done.returncode})"
    return _whole_lines(done.stdout), why


def _whole_lines(written: bytes | None) -> list[str]:
    lines = (written or b"").decode(errors="replace").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


def answer(names: Sequence[str]) -> None:
    """The other process's part: a line of JSON on standard output about each of `names`, as soon as it is known."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # libraries may print
        broken = False
        for name in names:
            if broken and name.startswith(AFTER_TORCH):
                continue
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                try:
                    said = _examined(name)
                except Exception as error:
                    said = {"error": _in_words(error)}
                if name == DEVICES and heard:
                    said["warnings"] = [str(one.message).partition("\n")[0] for one in heard]
            broken |= name == "torch" and "error" in said
            out.write(json.dumps({name: said}) + "\n")
            out.flush()


def _examined(name: str) -> dict[str, Any]:
    if name == DEVICES:
        return _torch_says()
    if name.startswith(BASE):
        return _load(Path(name.removeprefix(BASE)))
    if name == "open_clip":  # as styledrop itself imports it
        from styledrop_cli.scoring import open_clip

        open_clip()
    else:
        importlib.import_module(name)
    return {}


def _torch_says() -> dict[str, Any]:
    """Which devices torch sees, and whether the one that styledrop would take computes."""
    import torch

    from styledrop_cli.devices import fast_bfloat16, pick_device

    picked = pick_device()
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    builds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    said: dict[str, Any] = {
        "built for": next((f"{name} {version}" for name, version in builds.items() if version), None),
        "cards": [f"{card.name}, {card.total_memory / 1e9:.0f} GB" for card in cards],
        "mps": torch.backends.mps.is_available(),
        "picked": picked.type,
        "threads": torch.get_num_threads(),
        "bfloat16": fast_bfloat16(torch.device("cpu")),
    }
    try:
        ones = torch.ones(32, 32, device=picked)
        if (total := float((ones @ ones).sum())) != 32**3:
            said["fault"] = f"a product of matrices comes to {total:g}, not {32**3}"
    except Exception as error:
        said["fault"] = _in_words(error)
    return said


def _load(folder: Path) -> dict[str, Any]:
    """Load a base as the commands do: all of one of ours, the layout of a published one."""
    import torch

    from styledrop_cli.base import load_base, load_module
    from styledrop_cli.checkpoints import read_config

    base = load_base(str(folder), torch.device("cpu"))
    if base.published is None:
        for part in set(read_config(folder)["parts"]) - set(base.parts.loaders):
            load_module(folder, part)
    return {"name": base.name, "sizes": base.sizes}


def _in_words(error: Exception) -> str:
    if isinstance(error, StyledropError):
        return error.message
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]


# ---- versions and libraries -------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    place = Path(__file__).parent
    yield Finding("versions", "styledrop", f"{__version__}, in {place}")
    installed = _version("styledrop")
    if installed not in (None, __version__):
        yield Finding(
            "versions", "installed", f"pip knows of styledrop {installed}", NOTE,
            "two of them are here: the one that runs is that of the row above",
        )  # fmt: skip
    yield Finding("versions", "Python", f"{platform.python_version()}, {sys.executable}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _libraries(answers: Mapping[str, Answer]) -> Iterator[Finding]:
    """Each library: here, importable, and of a version that its users can do with."""
    for name, module in LIBRARIES.items():
        version, said = _version(name), answers.get(module)
        if said is None:
            yield Finding("libraries", name, f"{version or 'not installed'}, not tried without torch", NOTE)
        elif error := said.get("error"):
            found = f"{version} cannot be imported: {error}" if version else "not installed"
            advice = _how_to_mend(name, version, str(error))
            if name == "torchvision" and "error" not in answers.get("open_clip", {"error": ""}):
                advice = f"styledrop works around it, other programs will not. {advice}"
                yield Finding("libraries", name, found, NOTE, advice)
            else:
                yield Finding("libraries", name, found, WRONG, advice)
        else:
            yield Finding("libraries", name, version or "of an unknown version")
    yield from _conflicts()


def _how_to_mend(name: str, version: str | None, error: str) -> str:
    """What to do about a library that is missing, or of a ``version`` that cannot be imported."""
    if "SIGILL" in error:
        return f"this processor lacks instructions that {name} was built with: install an older version of it"
    again = ["--force-reinstall"] if version else []
    if name == "torch":
        return _pip("install", *again, "torch", "torchvision", *_index())
    if name == "torchvision" and version:
        mend = _pip("install", *again, "--no-deps", f"{name}=={version.partition('+')[0]}", *_index())
        if "operator torchvision::" in error and _index():
            return f"PyPI's is built for CUDA's PyTorch, and this is torch {_version('torch')}: {mend}"
        return f"every torchvision fits one torch only: {mend}"
    return _pip("install", *again, *(["--no-deps"] if version else []), _wanted(name))


def _index() -> list[str]:
    """Where PyTorch comes from on this machine, for pip: on Linux PyPI has it with CUDA only, gigabytes of it."""
    small = sys.platform == "linux" and (not _has_nvidia() or (_version("torch") or "").endswith("+cpu"))
    return ["--index-url", CPU_INDEX] if small else []


def _pip(*words: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", *words])


def _wanted(name: str) -> str:
    """What styledrop asks pip for by this name: `torch>=2.9`."""
    normal = _normal(name)
    return next((one for one in _requirements("styledrop") if _normal(re.split(r"[^\w.-]", one)[0]) == normal), name)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def _conflicts() -> Iterator[Finding]:
    """What styledrop and its libraries ask of each other, and do not get."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        return  # it comes with huggingface_hub
    for user in ("styledrop", *LIBRARIES):
        for asked in _requirements(user):
            try:
                wanted = Requirement(asked)
            except InvalidRequirement:
                continue
            if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
                continue
            here = _version(wanted.name)
            if here is None and _normal(wanted.name) in map(_normal, LIBRARIES):
                continue  # said already
            if here is None or not wanted.specifier.contains(here, prereleases=True):
                found = f"{user} asks for {wanted.name}{wanted.specifier}; here is {here or 'none'}"
                index = _index() if wanted.name in ("torch", "torchvision") else []
                mend = _pip("install", f"{wanted.name}{wanted.specifier}", *index)
                yield Finding("libraries", wanted.name, found, WRONG, mend)


# ---- the machine and its devices --------------------------------------------------------------


def _machine(said: Answer) -> Iterator[Finding]:
    yield Finding("machine", "system", platform.platform())
    cores = _cores()
    threads = said.get("threads")
    fast = {True: ", bfloat16 is fast", False: ", no fast bfloat16"}.get(said.get("bfloat16", ""), "")
    kind = f"{platform.machine()}, {cores} core{'s' * (cores > 1)}"
    kind += f", {threads} thread{'s' * (threads > 1)}" if threads else ""
    if threads and threads != cores:
        few = f"OMP_NUM_THREADS={cores} in front uses all cores"
        many = f"more threads than cores wait for each other: OMP_NUM_THREADS={cores} in front"
        yield Finding("machine", "processor", kind + fast, NOTE, few if threads < cores else many)
    else:
        yield Finding("machine", "processor", kind + fast)
    if memory := _memory():
        total, free = memory
        found = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB free"
        little = "learning a style takes 1.4 GB: close other programs first"
        yield Finding("machine", "memory", found, *((NOTE, little) if free < TRAINING else ()))


def _cores() -> int:
    """The processor's cores that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> tuple[int, int] | None:
    """Bytes of memory, all and free, within what a container may have; None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        total, free = 1024 * kilobytes["MemTotal"], 1024 * kilobytes["MemAvailable"]
    except (OSError, ValueError, LookupError):
        try:
            here = importlib.import_module("psutil").virtual_memory()  # comes with accelerate
        except ImportError:
            return None
        total, free = here.total, here.available
    try:
        most = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no container, or one without a bound
        return total, free
    return min(total, most), min(free, most)


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _devices(said: Answer) -> Iterator[Finding]:
    """Which devices there are, which one is taken, and why not another."""
    if error := said.get("error"):
        yield Finding(
            "devices", "cpu", f"torch cannot say: {error}", WRONG, _how_to_mend("torch", _version("torch"), error)
        )
    if "picked" not in said:
        return
    built, cards = said["built for"], said["cards"]
    heard = next((one for one in said.get("warnings", ()) if "CUDA" in one or "NVIDIA" in one), "")
    if cards:
        yield Finding("devices", "cuda", f"{'; '.join(cards)}; PyTorch is built for {built}")
    elif built is None:
        advice = "this machine has an NVIDIA card: https://pytorch.org/get-started/locally says which build uses it"
        found = "none: this PyTorch is built without CUDA"
        yield Finding("devices", "cuda", found, *((NOTE, advice) if _has_nvidia() else ()))
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        yield Finding("devices", "cuda", "none: CUDA_VISIBLE_DEVICES hides it", NOTE, "unset it to use the card")
    else:
        found = f"none, though PyTorch is built for {built}" + (f": {heard}" if heard else "")
        advice = (
            "update the card's driver, or install the PyTorch that fits it: https://pytorch.org/get-started/locally"
        )
        yield Finding("devices", "cuda", found, *((NOTE, advice) if heard or _has_nvidia() else ()))
    if sys.platform == "darwin":
        yield Finding("devices", "mps", "here" if said["mps"] else "none: this Mac or its PyTorch has no Metal")
    picked = said["picked"]
    if fault := said.get("fault"):
        advice = "say --device cpu" if picked != "cpu" else _how_to_mend("torch", _version("torch"), fault)
        yield Finding("devices", "taken", f"{picked}, which does not compute: {fault}", WRONG, advice)
    else:
        why = "the best of those that are here; --device names another" if picked != "cpu" else "there is no other"
        yield Finding("devices", "taken", f"{picked}: {why}")


# ---- models -----------------------------------------------------------------------------------


def _bundled(answers: Mapping[str, Answer]) -> Iterator[Finding]:
    """Whether the bundled base is as it was shipped, and loads."""
    folder = hub.find(hub.BUNDLED)
    assert folder is not None
    again = "install styledrop again; in a checkout: git checkout src/styledrop_cli/pocket"
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    except OSError:
        yield Finding("models", hub.BUNDLED, f"there is no {folder / SUMS}", WRONG, again)
        return
    problems, size = [], 0
    for line in lines:
        wanted, _, name = line.partition("  ")
        try:
            with (folder / name).open("rb") as file:  # by hand: checkpoints would import torch
                found = hashlib.file_digest(file, "sha256").hexdigest()
                size += file.tell()
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror}")
            continue
        if found != wanted:
            problems.append(f"{name} is damaged: its sha256 is {found[:12]}..., not {wanted[:12]}...")
    said = answers.get(f"{BASE}{folder}", {})
    if not problems and "error" in said:
        problems.append(str(said["error"]))
    if problems:
        yield Finding("models", hub.BUNDLED, "; ".join(problems), WRONG, again)
    else:
        loaded = "whole, and it loads" if said else "whole; not loaded without torch"
        yield Finding("models", hub.BUNDLED, f"{loaded} ({size / 1e6:.0f} MB, bundled)")


def _located(model: str) -> tuple[Path | None, list[Finding]]:
    """The folder of the model that was named; None where it is not here, with what is to be said of that."""
    try:
        folder = hub.find(model)
    except ImportError:  # huggingface_hub
        return None, [Finding("models", model, "not looked for without huggingface_hub", NOTE)]
    except StyledropError as error:
        return None, [Finding("models", model, error.message, WRONG, error.hint or "")]
    if folder:
        return folder, []
    fetch = f"styledrop models fetch {shlex.quote(model)}"
    if _is_on("HF_HUB_OFFLINE"):
        return None, [Finding("models", model, "not here, and HF_HUB_OFFLINE forbids to fetch it", WRONG, fetch)]
    return None, [Finding("models", model, "not here yet: it is fetched when it is first named", NOTE, fetch)]


def _named(model: str, folder: Path, answers: Mapping[str, Answer]) -> Iterator[Finding]:
    said = answers.get(f"{BASE}{folder}")
    if said is None:
        yield Finding("models", model, f"{folder}; not loaded without torch", NOTE)
    elif "error" in said:
        check = f"styledrop models check {shlex.quote(model)}"
        yield Finding("models", model, str(said["error"]), WRONG, f"{check} says more, fetch brings a published one")
    else:
        sides = " and ".join(f"{side} px" for side in said["sizes"])
        yield Finding("models", model, f"it loads, and draws {sides}: {folder}")


def _fetched(thorough: bool, torch_works: bool) -> Iterator[Finding]:
    """The published models in the hub's cache, whole or not, and how much room there is for more."""
    try:
        found, cache = hub.cached(), hub.cache_folder()
    except Exception as error:  # a broken huggingface_hub has its own row
        yield Finding("models", "fetched", f"not looked for: {_in_words(error)}", NOTE)
        return
    for one in found:
        fetch = f"styledrop models fetch {shlex.quote(one.name)}"
        about = f"{one.size / 1e9:.2f} GB, {', '.join(one.precisions) or 'no weights'}: {one.folder}"
        if not one.whole:
            yield Finding("models", one.name, f"only in part, {about}", NOTE, f"{fetch} brings the rest")
        elif thorough and torch_works and (problems := hub.verify(one.folder)):
            yield Finding("models", one.name, "; ".join(problems), WRONG, f"{fetch} brings it anew")
        else:
            sums = ", its sums are right" if thorough and torch_works else ""
            yield Finding("models", one.name, f"whole{sums}, {about}")
    there = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(there).free
    room = f"{cache}, {free / 1e9:.1f} GB free"
    if not os.access(there, os.W_OK):
        yield Finding("models", "cache", f"{room}, may not be written to", NOTE, "HF_HOME=FOLDER names another place")
    elif not found and free < 2e9:
        little = "a published model takes 1.8 GB: HF_HOME=FOLDER names another place"
        yield Finding("models", "cache", room, NOTE, little)
    else:
        yield Finding("models", "cache", room)


# ---- the current folder and the environment ---------------------------------------------------


def _here() -> Iterator[Finding]:
    """Whether commands can write where they are started, and what was begun there and not finished."""
    try:
        here = Path.cwd()
    except OSError:
        yield Finding("here", "folder", "the current folder is no longer there", WRONG, "cd to one that is")
        return
    free = shutil.disk_usage(here).free
    room = f"{here}, {free / 1e9:.1f} GB free"
    if problem := _unwritable(here):
        advice = "start from a folder of your own, or name another place with -o"
        yield Finding("here", "folder", f"{here} cannot be written to: {problem}", WRONG, advice)
    elif free < 50e6:
        yield Finding("here", "folder", room, WRONG, "make room: an adapter and its run folder take some 20 MB")
    else:
        yield Finding("here", "folder", room, *((NOTE, "the disk is nearly full") if free < 1e9 else ()))
    if problem := _unwritable(None):
        yield Finding(
            "here", "temporary files", f"cannot be written: {problem}", WRONG, "TMPDIR=FOLDER names another place"
        )
    yield from _runs(here)


def _unwritable(folder: Path | None) -> str | None:
    """Why nothing can be written in a folder, or with None, where temporary files go; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"styledrop")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _runs(here: Path, shown: int = 6) -> Iterator[Finding]:
    """Run folders that are not finished, here and one folder down."""
    found = (path for pattern in ("*/run.json", "*/*/run.json") for path in sorted(here.glob(pattern)))
    unfinished = 0
    for path in islice(found, 1000):
        name = str(path.parent.relative_to(here))
        try:
            finished = read_json(path)["finished"]
        except (OSError, ValueError, LookupError, TypeError):
            yield Finding("here", name, "its run.json is damaged", WRONG, "--fresh starts that command over")
            continue
        unfinished += not finished
        if not finished and unfinished <= shown:
            advice = "the command that began it goes on with it, and --fresh starts over"
            yield Finding("here", name, "begun and not finished", NOTE, advice)
    if unfinished > shown:
        yield Finding("here", "others", f"{unfinished - shown} more that are not finished", NOTE)


def _is_on(variable: str) -> bool:
    """As huggingface_hub reads its switches."""
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def _environment() -> Iterator[Finding]:
    """The variables that are set, of those that matter; a secret's value is not shown."""
    for name in VARIABLES:
        value = os.environ.get(name)
        if value is None:
            continue
        if "://" in value and (address := urlsplit(value)).username is not None:
            value = value.replace(address.netloc, f"...@{address.netloc.rpartition('@')[2]}")
        shown = "set" if SECRET.search(name) else value if value else "set to nothing"
        remark = _remark(name, value)
        yield Finding("environment", name, shown, *((NOTE, remark) if remark else ()))


def _remark(name: str, value: str) -> str:
    """What a variable that is set to `value` does that may surprise; empty if nothing."""
    if name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") and not re.fullmatch(r"\s*[1-9]\d*(\s*,\s*[1-9]\d*)*\s*", value):
        return "no number of threads: it is ignored"
    if name == "OMP_WAIT_POLICY" and value.lower() == "active":
        return "threads that wait do not sleep: beside another busy program all is several times slower"
    if name == "GOMP_SPINCOUNT" and not (value.isdigit() and int(value) <= 100_000):
        return "threads that wait sleep late: beside another busy program all is several times slower"
    if name == "HF_HUB_OFFLINE" and _is_on(name):
        return "published models that are not here are not fetched"
    if name == "STYLEDROP_TRACEBACK":
        return "errors are shown with all that led to them"
    return ""
