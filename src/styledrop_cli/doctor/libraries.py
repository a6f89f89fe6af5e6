"""Versions and libraries: which are here, whether they can be imported, and whether they fit together."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from styledrop_cli import __version__
from styledrop_cli.doctor.asking import Answer
from styledrop_cli.doctor.findings import NOTE, WRONG, Finding

# What styledrop is built on: the name that pip knows, and the one that Python imports. torchvision is open_clip's.
LIBRARIES = {
    "typer": "typer", "rich": "rich", "numpy": "numpy", "pillow": "PIL", "safetensors": "safetensors",
    "tokenizers": "tokenizers", "huggingface_hub": "huggingface_hub", "jinja2": "jinja2", "matplotlib": "matplotlib",
    "starlette": "starlette", "uvicorn": "uvicorn", "torch": "torch", "accelerate": "accelerate",
    "torchvision": "torchvision", "open_clip_torch": "open_clip",
}  # fmt: skip
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def versions() -> Iterator[Finding]:
    """Of styledrop itself, and of Python."""
    place = Path(__file__).parents[1]
    yield Finding("versions", "styledrop", f"{__version__}, in {place}")
    installed = version_of("styledrop")
    if installed not in (None, __version__):
        yield Finding(
            "versions", "installed", f"pip knows of styledrop {installed}", NOTE,
            "two of them are here: the one that runs is that of the row above",
        )  # fmt: skip
    yield Finding("versions", "Python", f"{platform.python_version()}, {sys.executable}")


def version_of(name: str) -> str | None:
    """The installed version of a library, as pip knows it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def imports(answers: Mapping[str, Answer]) -> Iterator[Finding]:
    """Each library: here, importable, and of a version that its users can do with."""
    for name, module in LIBRARIES.items():
        version, said = version_of(name), answers.get(module)
        if said is None:
            yield Finding("libraries", name, f"{version or 'not installed'}, not tried without torch", NOTE)
        elif error := said.get("error"):
            found = f"{version} cannot be imported: {error}" if version else "not installed"
            advice = how_to_mend(name, str(error))
            if name == "torchvision" and "error" not in answers.get("open_clip", {"error": ""}):
                advice = f"styledrop works around it, other programs will not. {advice}"
                yield Finding("libraries", name, found, NOTE, advice)
            else:
                yield Finding("libraries", name, found, WRONG, advice)
        else:
            yield Finding("libraries", name, version or "of an unknown version")
    yield from _conflicts()


def how_to_mend(name: str, error: str) -> str:
    """What to do about a library that is missing, or cannot be imported."""
    if "SIGILL" in error:
        return f"this processor lacks instructions that {name} was built with: install an older version of it"
    version = version_of(name)
    again = ["--force-reinstall"] if version else []
    if name == "torch":
        return _pip("install", *again, "torch", "torchvision", *_index())
    if name == "torchvision" and version:
        mend = _pip("install", *again, "--no-deps", f"{name}=={version.partition('+')[0]}", *_index())
        if "operator torchvision::" in error and _index():
            return f"PyPI's is built for CUDA's PyTorch, and this is torch {version_of('torch')}: {mend}"
        return f"every torchvision fits one torch only: {mend}"
    return _pip("install", *again, *(["--no-deps"] if version else []), _wanted(name))


def _index() -> list[str]:
    """Where PyTorch comes from on this machine, for pip: on Linux PyPI has it with CUDA only, gigabytes of it."""
    small = sys.platform == "linux" and (not has_nvidia() or (version_of("torch") or "").endswith("+cpu"))
    return ["--index-url", CPU_INDEX] if small else []


def has_nvidia() -> bool:
    """Whether this machine has an NVIDIA card, whatever torch says of it."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


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
            here = version_of(wanted.name)
            if here is None and _normal(wanted.name) in map(_normal, LIBRARIES):
                continue  # said already
            if here is None or not wanted.specifier.contains(here, prereleases=True):
                found = f"{user} asks for {wanted.name}{wanted.specifier}; here is {here or 'none'}"
                index = _index() if wanted.name in ("torch", "torchvision") else []
                mend = _pip("install", f"{wanted.name}{wanted.specifier}", *index)
                yield Finding("libraries", wanted.name, found, WRONG, mend)
