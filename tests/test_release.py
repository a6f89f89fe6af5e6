"""What is shipped: the wheel and the source archive, what they hold, and that the installed wheel does the main job.

They are built here, or lie where STYLEDROP_DIST says, as `make dist` does, so that what was tested is what is shipped.
The wheel is installed into an environment of its own. That finds the libraries of this one by a .pth file, which is
not what a person has, but takes seconds; `make slow` installs all libraries anew, too. `make dist`, which continuous
integration runs, leaves out only that.
"""

from __future__ import annotations

import email
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import styledrop_cli
from conftest import ROOT, draw

PACKAGE = ROOT / "src" / "styledrop_cli"
VERSION = styledrop_cli.__version__
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LEGAL = {"LICENSE", "LICENSES/Apache-2.0.txt", "LICENSES/OFL-1.1.txt", "THIRD_PARTY_NOTICES.md"}
LARGEST = 95_000_000  # bytes; PyPI takes 100 MB, and the weights may take 90

# Whoever asks for an address, or calls one, is told off, and it is written down.
NO_NETWORK = """
import os, sys

def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(f"{event} {args[1:]}\\n")
        raise OSError("there is no network")

sys.addaudithook(refuse)
"""


def built(*arguments: str, source: Path = ROOT) -> None:
    """Build archives from a source tree, with no network and no environment made for it."""
    command = [sys.executable, "-m", "hatchling", "build", *arguments]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives."""
    if folder := os.environ.get("STYLEDROP_DIST"):
        return Path(folder)
    made = tmp_path_factory.mktemp("dist")
    built("-d", str(made))
    return made


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"styledrop-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def source(dist: Path) -> Path:
    return dist / f"styledrop-{VERSION}.tar.gz"


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ---- what the archives hold ----


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    held = contents(wheel)
    ours = {f"styledrop_cli/{p.relative_to(PACKAGE).as_posix()}": p for p in PACKAGE.rglob("*") if p.is_file()}
    ours = {name: path for name, path in ours.items() if "__pycache__" not in name}
    info = f"styledrop-{VERSION}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert set(held) == set(ours) | about | {f"{info}/licenses/{name}" for name in LEGAL}
    assert [name for name, path in ours.items() if path.read_bytes() != held[name]] == []
    for name in LEGAL:
        assert held[f"{info}/licenses/{name}"] == (ROOT / name).read_bytes()


def test_the_weights_are_in_the_wheel_and_are_those_that_were_measured(wheel: Path) -> None:
    held = contents(wheel)
    lines = held["styledrop_cli/pocket/SHA256SUMS"].decode().splitlines()
    sums = {f"styledrop_cli/pocket/{name}": value for value, name in (line.split("  ") for line in lines)}
    assert set(sums) == {name for name in held if name.endswith(".safetensors")}
    assert {name: hashlib.sha256(held[name]).hexdigest() for name in sums} == sums


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    about = email.message_from_bytes(contents(wheel)[f"styledrop-{VERSION}.dist-info/METADATA"])
    assert (about["Name"], about["Version"]) == ("styledrop", VERSION)
    assert about["License-Expression"] == PROJECT["license"]
    assert set(about.get_all("License-File", ())) == LEGAL
    plain = [one for one in about.get_all("Requires-Dist", ()) if "extra ==" not in one]
    assert set(map(Requirement, plain)) == set(map(Requirement, PROJECT["dependencies"]))
    entry = contents(wheel)[f"styledrop-{VERSION}.dist-info/entry_points.txt"].decode()
    assert "styledrop = styledrop_cli.cli.app:main" in entry


def test_the_source_archive_holds_the_project_and_nothing_that_was_made(source: Path) -> None:
    assert source.stat().st_size < LARGEST
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    there = {
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "Makefile",
        "constraints.txt",
        "requirements.lock",
        ".ci/run",
    }
    there |= {
        "tests/test_release.py",
        "docs/guide/judging.md",
        "examples/watercolor.png",
        "tools/lock.py",
        "benchmarks/bench.py",
    }
    assert there | LEGAL <= names
    made = ("__pycache__", ".venv", "corpus", "build", "dist", ".git", ".pytest_cache", "styledrop-out", "training")
    assert [name for name in names if name.split("/")[0] in made or "__pycache__" in name] == []


def test_the_source_archive_makes_the_same_wheel(wheel: Path, source: Path, tmp_path: Path) -> None:
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    built("-t", "wheel", "-d", str(tmp_path / "made"), source=tmp_path / f"styledrop-{VERSION}")
    assert contents(tmp_path / "made" / wheel.name) == contents(wheel)  # the weights too, byte by byte


# ---- the installed wheel ----


def run(program: Path, *arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program in a folder of its own, that knows nothing of this checkout and has no network."""
    kept = ("PATH", "LANG", "TMPDIR", "SYSTEMROOT", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env |= {"HOME": str(folder), "HF_HUB_OFFLINE": "1", "CALLS": str(folder / "calls.txt")} | variables
    return subprocess.run([program, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)


def does_the_main_job(place: Path, folder: Path) -> None:
    """The program of an environment learns a style and draws in it; what runs is what was installed there."""
    folder.mkdir()
    draw(256, 256).save(folder / "ref.png")
    python, styledrop = place / "bin" / "python", place / "bin" / "styledrop"
    done = run(python, "-c", "import styledrop_cli; print(styledrop_cli.__file__)", folder=folder)
    assert Path(done.stdout.strip()).is_relative_to(place), done
    learnt = run(
        styledrop,
        *"train ref.png --style watercolor --content disc --steps 3 --checkpoints 0 --quiet".split(),
        folder=folder,
    )
    assert learnt.returncode == 0, learnt.stderr
    drawn = run(styledrop, *"generate adapter.safetensors cat -n 2 --steps 4 --no-sheet --quiet".split(), folder=folder)
    assert drawn.returncode == 0, drawn.stderr
    assert [Path(line).suffix for line in drawn.stdout.splitlines()] == [".png", ".png"]
    assert len(list((folder / "styledrop-out").glob("*.png"))) == 2
    assert not (folder / "calls.txt").exists(), (folder / "calls.txt").read_text()


def made_environment(place: Path) -> Path:
    """An empty environment; where its packages go."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(place), "platbase": str(place)}))


def unplug(packages: Path) -> None:
    """From now on an environment's programs have no network."""
    (packages / "sitecustomize.py").write_text(NO_NETWORK)


def pip(place: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_installed_wheel_learns_and_draws_without_a_network(wheel: Path, tmp_path: Path) -> None:
    packages = made_environment(tmp_path / "venv")
    # It leads to the libraries of this environment, whose own path files, which lead to the checkout, are not read.
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    pip(tmp_path / "venv", "--no-deps", "--no-index", wheel)
    unplug(packages)
    does_the_main_job(tmp_path / "venv", tmp_path / "work")
    doctor = run(tmp_path / "venv/bin/styledrop", "doctor", "--json", folder=tmp_path / "work")
    found = {(one["section"], one["name"]): one for one in json.loads(doctor.stdout)["findings"]}
    assert found["models", "pocket"]["found"].startswith("whole, it loads")
    assert str(packages) in found["versions", "styledrop"]["found"]


def test_a_call_to_the_network_would_be_seen(tmp_path: Path) -> None:
    unplug(made_environment(tmp_path / "venv"))
    call = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    done = run(tmp_path / "venv/bin/python", "-c", call, folder=tmp_path)
    assert done.returncode != 0 and "there is no network" in done.stderr
    assert "getaddrinfo" in (tmp_path / "calls.txt").read_text()


@pytest.mark.slow
@pytest.mark.network
def test_the_wheel_brings_all_that_it_needs(wheel: Path, tmp_path: Path) -> None:
    packages = made_environment(tmp_path / "venv")
    pip(tmp_path / "venv", "--constraint", ROOT / "requirements.lock", wheel)
    unplug(packages)
    does_the_main_job(tmp_path / "venv", tmp_path / "work")
    shutil.rmtree(tmp_path / "venv")  # a gigabyte


# ---- what the documents beside it say ----


def test_the_changelog_knows_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    newest = text.split("\n## ")[1]
    assert headings[0][0] in ("Unreleased", VERSION)
    assert VERSION in newest  # a released one in its heading, with a date
    assert all(date for name, date in headings if name != "Unreleased")
    assert set(re.findall(r"^### (\w+)", text, re.MULTILINE)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known",
    }  # fmt: skip


def test_the_notices_name_what_the_recipe_uses() -> None:
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")
    for family in ("fluent-emoji", "fluent-emoji-flat", "noto", "twemoji"):  # which pocket learnt from
        assert f"`@iconify-json/{family}`" in notices
    lines = (ROOT / "examples/pocket/index.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(f"`{source}`" in notices for source in {json.loads(line)["source"] for line in lines})
    card = (PACKAGE / "pocket/README.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1:4] for row in card.split("| art | by | licence |")[1].split("\n\n")[0].splitlines()[2:]]
    assert len(rows) >= 4
    for art, by, _ in rows:
        name = art.rpartition(":")[2].strip()
        assert name in notices and by.split()[0] in notices, f"{name} by {by} is not in the notices"
    for word in (
        "OpenAI",
        "WordNet 3.0 Copyright 2006 by Princeton University",
        "OpenMoji",
        "creativecommons.org/licenses/by/4.0",
    ):
        assert word in notices.replace("\n> ", " ")


# ---- the lock ----


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [line.partition("#")[0].strip() for line in lines]
    return {canonicalize_name(one.split("==")[0]): one.split("==")[1] for one in found if one}


def test_the_lock_has_every_dependency_and_satisfies_it() -> None:
    locked = pins("requirements.lock")
    asked = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    for one in map(Requirement, asked):
        assert one.specifier.contains(locked[canonicalize_name(one.name)]), f"{one}: make lock"
    assert {name: locked[name] for name in pins("constraints.txt")} == pins("constraints.txt")
    assert not [version for version in locked.values() if "+" in version], "a build for one kind of machine"


def test_the_lock_has_what_those_need() -> None:
    locked = pins("requirements.lock")
    for name in locked:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # pocket's resvg-py, and whatever is not installed here
        for one in map(Requirement, needs):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                build = canonicalize_name(one.name).startswith(("nvidia-", "cuda-", "triton"))  # of torch's, for cards
                assert build or canonicalize_name(one.name) in locked, f"{name} needs {one}: make lock"


def test_what_runs_is_told_from_what_develops() -> None:
    runs = (ROOT / "requirements.lock").read_text(encoding="utf-8").split("# ---- to ")[1]
    assert "\ntorch==" in runs and "\nsympy==" in runs
    assert "\npytest==" not in runs and "\nhatchling==" not in runs


def test_the_lock_is_made_of_a_report(tmp_path: Path) -> None:
    def package(name: str, version: str, *needs: str, **more: Any) -> dict[str, Any]:
        return {"metadata": {"name": name, "version": version, "requires_dist": list(needs)}, **more}

    environment = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"}
    own = package(
        "styledrop", "0.1.0", "Torch>=2", 'pytest; extra == "dev"', 'colorama; sys_platform == "win32"',
        requested_extras=["dev"],
    )  # fmt: skip
    report = {
        "environment": environment,
        "install": [own, package("torch", "2.9.0+cpu", "sym_py"), package("sym.py", "1"), package("pytest", "9")],
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    tool = [sys.executable, ROOT / "tools/lock.py", "report.json", "made.lock"]
    assert (
        subprocess.run(tool, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        == "made.lock: 3 packages\n"
    )
    lines = [line for line in (tmp_path / "made.lock").read_text().splitlines() if "==" in line and line[0] != "#"]
    assert [" ".join(line.split()) for line in lines] == [
        "sym-py==1 # torch",
        "torch==2.9.0 # styledrop",
        "pytest==9 # styledrop",
    ]
