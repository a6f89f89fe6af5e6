"""`styledrop doctor`: it says what is wrong, and speaks where nothing else can."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from packaging.requirements import Requirement

import tiny
from conftest import ROOT, SOURCE, Run
from styledrop_cli import doctor
from styledrop_cli.adapters import library
from styledrop_cli.base import hub
from styledrop_cli.base.cache import cache_folder
from styledrop_cli.base.registry import BUNDLED
from styledrop_cli.doctor import BASE, DEVICES, LIBRARIES, NOTE, WRONG, Finding, ask, examine
from styledrop_cli.io.tensors import save_tensors

CPU = {"built for": None, "cards": [], "picked": "cpu", "threads": 2}
NMS = "RuntimeError: operator torchvision::nms does not exist"


@pytest.fixture(autouse=True)
def _plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, no NVIDIA card, an empty cache, no styles, and no variable that matters."""
    for name in filter(doctor.VARIABLES.fullmatch, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setattr(doctor, "_cores", lambda: 2)
    monkeypatch.setattr(doctor, "has_nvidia", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path("cache").resolve()))
    styles = Path("styles").resolve()
    monkeypatch.setattr(library, "folder", lambda: styles)


Says = Callable[..., None]


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Says:
    """`says(torch={"error": ...})`: what the other process answers; all that is not named is well."""

    def say(**given: dict[str, Any] | None) -> None:
        def answer(names: Sequence[str]) -> dict[str, Any]:
            well = {name: CPU if name == DEVICES else {"sizes": [128, 256]} for name in names}
            of_bases = {name: given[BASE] for name in names if name.startswith(BASE) and BASE in given}
            return {name: said for name, said in {**well, **given, **of_bases}.items() if said is not None}

        monkeypatch.setattr(doctor, "ask", answer)

    say()
    return say


def found(name: str, **options: Any) -> Finding:
    """The one finding of that name."""
    (one,) = [one for one in examine(**options) if one.name == name]
    return one


def remarkable(**options: Any) -> dict[str, str]:
    """The names of what is no plain fact, and their states."""
    return {one.name: one.state for one in examine(**options) if one.state != "fine" and one.section != "terminal"}


# ---- libraries ----


def test_every_dependency_is_looked_at() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {Requirement(one).name for one in project["dependencies"]}
    assert set(LIBRARIES) == named | {"torchvision"}  # open_clip's


def test_where_all_is_well_nothing_is_said(says: Says) -> None:
    assert remarkable() == {}
    assert found("torch").found == metadata.version("torch")


def test_pypis_torchvision_beside_the_cpus_torch(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version_of", {"torch": "2.13.0+cpu", "torchvision": "0.28.0"}.get)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(doctor, "_requirements", lambda user: [])
    says(torchvision={"error": NMS})
    one = found("torchvision")
    assert (one.state, one.found) == (NOTE, f"0.28.0 cannot be imported: {NMS}")
    assert "styledrop works around it" in one.advice
    command = "-m pip install --force-reinstall --no-deps torchvision==0.28.0 --index-url https://download.pytorch.org/whl/cpu"
    assert one.advice.endswith(command)
    says(torchvision={"error": NMS}, open_clip={"error": "open_clip cannot be imported"})
    assert found("torchvision").state == WRONG  # nothing works around it


@pytest.mark.parametrize("nvidia", [False, True])
def test_torch_is_broken(says: Says, monkeypatch: pytest.MonkeyPatch, nvidia: bool) -> None:
    monkeypatch.setattr(doctor, "version_of", {"torch": "2.13.0"}.get)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(doctor, "has_nvidia", lambda: nvidia)
    lost = dict.fromkeys(("accelerate", "torchvision", "open_clip", DEVICES, BASE))
    says(torch={"error": "OSError: libcudart.so.12: cannot open shared object file"}, **lost)
    one = found("torch")
    assert one.state == WRONG and "libcudart" in one.found
    assert ("download.pytorch.org/whl/cpu" in one.advice) is not nvidia
    assert "not tried without torch" in found("accelerate").found
    assert "not loaded without torch" in found("pocket").found


def test_a_library_is_missing(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name == "pillow" else version(name))
    says(PIL={"error": "ModuleNotFoundError: No module named 'PIL'"})
    one = next(one for one in examine() if one.name == "pillow")
    assert (one.state, one.found) == (WRONG, "not installed")
    assert one.advice.endswith("pip install 'pillow>=11.3'") or one.advice.endswith("pip install pillow")


def test_versions_that_do_not_fit(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"styledrop": ["rich>=99", 'colorama; sys_platform == "none"'], "torchvision": ["torch==1.0", "no such (("]}
    monkeypatch.setattr(metadata, "requires", lambda name: needs.get(name, []))
    wrong = {one.name: one for one in examine() if one.state == WRONG}
    assert set(wrong) == {"rich", "torch"}
    assert wrong["rich"].found == f"styledrop asks for rich>=99; here is {metadata.version('rich')}"
    assert "'rich>=99'" in wrong["rich"].advice


# ---- devices ----


@pytest.mark.parametrize(
    ("says_torch", "nvidia", "state", "words"),
    [
        ({"built for": None}, False, "fine", "built without CUDA"),
        ({"built for": None}, True, NOTE, "built without CUDA"),
        ({"built for": "CUDA 13.0"}, False, "fine", "none, though PyTorch is built for CUDA 13.0"),
        ({"built for": "CUDA 13.0", "warnings": ["CUDA initialization: the driver is too old"]}, True, NOTE, "too old"),
        ({"built for": "CUDA 13.0", "cards": ["H100, 80 GB"], "picked": "cuda"}, True, "fine", "H100, 80 GB"),
    ],
)
def test_cards(
    says: Says, monkeypatch: pytest.MonkeyPatch, says_torch: dict[str, Any], nvidia: bool, state: str, words: str
) -> None:
    monkeypatch.setattr(doctor, "has_nvidia", lambda: nvidia)
    says(**{DEVICES: CPU | says_torch})
    one = found("cuda")
    assert one.state == state and words in one.found
    assert bool(one.advice) is (state == NOTE)
    assert found("taken").found.startswith(says_torch.get("picked", "cpu"))


def test_a_hidden_card(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    says(**{DEVICES: CPU | {"built for": "CUDA 13.0"}})
    assert "CUDA_VISIBLE_DEVICES hides it" in found("cuda").found
    assert found("CUDA_VISIBLE_DEVICES").found == "set to nothing"


def test_a_device_that_does_not_compute(says: Says) -> None:
    says(
        **{
            DEVICES: CPU
            | {"picked": "cuda", "cards": ["K80, 12 GB"], "built for": "CUDA 13.0", "fault": "no kernel image"}
        }
    )
    one = found("taken")
    assert (one.state, one.advice) == (WRONG, "say --device cpu") and "no kernel image" in one.found


@pytest.mark.parametrize(("threads", "advice"), [(1, "not all cores are used"), (64, "wait for each other")])
def test_threads(says: Says, threads: int, advice: str) -> None:
    says(**{DEVICES: CPU | {"threads": threads}})
    assert found("processor").state == NOTE and advice in found("processor").advice


def test_memory(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_memory", lambda: (8_000_000_000, 900_000_000))
    assert found("memory") == Finding(
        "machine", "memory", "8.0 GB, 0.9 GB free", NOTE, "learning a style takes 1.4 GB: close other programs first"
    )


# ---- models ----


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A bundled base that may be spoilt."""
    folder = Path("shipped").resolve()
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(b"weights")
    (folder / doctor.SUMS).write_text(f"{hashlib.sha256(b'weights').hexdigest()}  a.safetensors\n")
    find = hub.find
    monkeypatch.setattr(hub, "find", lambda model: folder if model == BUNDLED else find(model))
    yield folder
    shutil.rmtree(folder)


def test_the_bundled_base_is_whole(says: Says, shipped: Path) -> None:
    assert found("pocket").found.startswith("whole, it loads")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "a.safetensors").write_bytes(b"weighty"), "a.safetensors is damaged"),
        (lambda folder: (folder / "a.safetensors").unlink(), "a.safetensors cannot be read: No such file"),
        (lambda folder: (folder / doctor.SUMS).unlink(), f"{doctor.SUMS} cannot be read: No such file"),
    ],
)
def test_the_bundled_base_is_spoilt(says: Says, shipped: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(shipped)
    one = found("pocket")
    assert one.state == WRONG and words in one.found and "install styledrop again" in one.advice


def test_the_sums_are_those_of_the_weights() -> None:
    folder = hub.find(BUNDLED)
    assert folder is not None
    sums = dict(line.split("  ")[::-1] for line in (folder / doctor.SUMS).read_text().splitlines())
    assert sums == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.safetensors")}


def test_the_bundled_base_does_not_load(says: Says, shipped: Path) -> None:
    says(**{BASE: {"error": "the clip does not fit"}})
    assert (found("pocket").state, found("pocket").found) == (WRONG, "the clip does not fit")


def test_a_model_that_is_named(says: Says, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(str(tiny_model), model=str(tiny_model)).found == f"it loads, and draws 128 px and 256 px: {tiny_model}"
    assert remarkable(model="pockte") == {"pockte": WRONG}
    assert "Did you mean pocket?" in found("pockte", model="pockte").advice
    assert found("amused-256", model="amused-256").advice == "styledrop models fetch amused-256"
    assert remarkable(model="amused-256") == {"amused-256": NOTE}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert remarkable(model="amused-256") == {"amused-256": WRONG}


def test_models_in_the_cache(says: Says) -> None:
    cache = cache_folder()
    whole = cache / "models--amused--amused-256" / "snapshots" / "0"
    tiny.write_published(whole)
    part = shutil.copytree(whole, cache / "models--any--one" / "snapshots" / "0")
    (part / "vqvae" / "config.json").unlink()
    assert found("amused-256").found.startswith("whole, ")
    assert (found("any/one").state, found("any/one").advice) == (NOTE, "styledrop models fetch any/one brings the rest")
    weights = whole / "vqvae" / "diffusion_pytorch_model.safetensors"
    blob = cache / "models--amused--amused-256" / "blobs" / hashlib.sha256(weights.read_bytes()).hexdigest()
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(os.path.relpath(blob, weights.parent))
    assert "its sums are right" in found("amused-256", thorough=True).found
    whole_bytes = blob.read_bytes()
    blob.write_bytes(whole_bytes[:-1] + b"?")
    assert found("amused-256").state == "fine"  # its bytes are read only when that is asked for
    assert (found("amused-256", thorough=True).state, "is damaged" in found("amused-256", thorough=True).found) == (
        WRONG,
        True,
    )
    for length in (len(whole_bytes) - 1, len(whole_bytes) // 2, 4, 0):  # but lengths are compared in any case
        blob.write_bytes(whole_bytes[:length])
        assert found("amused-256").state == WRONG
        assert "vqvae/diffusion_pytorch_model.safetensors is not whole: " in found("amused-256").found
        assert found("amused-256").advice == "styledrop models fetch amused-256 brings it anew"
    blob.unlink()
    assert found("amused-256").state == NOTE  # in part


# ---- this folder and the environment ----


def test_nothing_can_be_written(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert remarkable() == {"folder": WRONG, "temporary files": WRONG}


def test_a_folder_that_is_gone(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gone").mkdir()
    monkeypatch.chdir("gone")
    Path().absolute().rmdir()
    assert found("folder").state == WRONG


def test_the_library_of_styles(says: Says) -> None:
    assert found("styles").found.endswith("which is not there yet") and found("styles").state != WRONG
    library.folder().mkdir()
    tiny_file = {"a": torch.zeros(2)}
    save_tensors(library.file_of("ink"), tiny_file)
    library.file_of("cut").write_bytes(library.file_of("ink").read_bytes()[:-1])
    assert found("styles").found == f"2 in {library.folder()}"
    assert found("cut").state == WRONG and "styles remove cut" in found("cut").advice
    assert not [one for one in examine() if one.name == "ink"]
    shutil.rmtree(library.folder())
    library.folder().write_bytes(b"")
    assert found("styles").state == WRONG and "STYLEDROP_STYLES" in found("styles").advice


@pytest.mark.parametrize(
    ("name", "value", "shown", "remark"),
    [
        ("HF_TOKEN", "hf_secret", "set", ""),
        ("HTTPS_PROXY", "http://me:secret@proxy:1", "set", ""),
        ("HF_ENDPOINT", "https://me:secret@mirror.org/hub", "https://...@mirror.org/hub", ""),
        ("HF_HOME", "/data/hf", "/data/hf", ""),
        ("OMP_NUM_THREADS", "4,2", "4,2", ""),
        ("OMP_NUM_THREADS", "all", "all", "it is ignored"),
        ("OMP_NUM_THREADS", "0", "0", "it is ignored"),
    ],
)
def test_variables(says: Says, monkeypatch: pytest.MonkeyPatch, name: str, value: str, shown: str, remark: str) -> None:
    monkeypatch.setenv(name, value)
    one = found(name)
    assert one.found == shown and remark in one.advice and (one.state == NOTE) is bool(remark)
    assert "secret" not in str(examine())


# ---- other processes ----


def test_a_library_may_raise_print_hang_or_take_its_process_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in (
        ("good", "print('I am chatty')"),
        ("raising", "raise OSError('lib.so: no such file\\nat all')"),
        ("leaving", "raise SystemExit('I leave')"),
        ("quiet", "import os; os._exit(0)"),
        ("killed", "import os; os.kill(os.getpid(), 9)"),
        ("also_good", ""),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ["good", "raising", "leaving", "missing", "quiet", "killed", "also_good"]
    assert {name: said.get("error") for name, said in ask(names).items()} == {
        "good": None,
        "raising": "OSError: lib.so: no such file",
        "leaving": "I leave",
        "missing": "ModuleNotFoundError: No module named 'missing'",
        "quiet": "it ends the program that imports it",
        "killed": "it ends the program that imports it (SIGKILL)",
        "also_good": None,
    }
    (tmp_path / "hanging.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "PATIENCE", 1)
    assert ask(["good", "hanging"]) == {"good": {}, "hanging": {"error": "nothing came of it in 1 seconds"}}


@pytest.mark.parametrize(
    "fault", ["raise OSError('libcudart.so.12: cannot open')", "import os; os.kill(os.getpid(), 4)"]
)
def test_after_a_broken_torch_nothing_is_tried_that_needs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    (tmp_path / "torch.py").write_text(fault)
    monkeypatch.syspath_prepend(str(tmp_path))
    answers = ask(["json", "torch", "accelerate", DEVICES, f"{BASE}pocket", "html"])
    assert list(answers) == ["json", "torch", "html"] and "error" in answers["torch"]


# ---- the command ----


def test_where_torch_is_broken_the_program_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken/torch/__init__.py").write_text(
        "raise OSError('libcudart.so.12: cannot open shared object file')"
    )
    path = os.pathsep.join([str(tmp_path / "broken"), SOURCE])
    done = subprocess.run(
        [sys.executable, "-m", "styledrop_cli", "doctor"],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert "cannot be imported: OSError: libcudart.so.12" in said and "-m pip install --force-reinstall torch" in said
    assert "whole, not loaded without torch" in said and "thing is wrong" in said
    assert "Traceback" not in done.stderr


def test_of_this_machine_it_knows_what_runs_these_tests(
    styledrop: Run, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ask", ask)
    code, out, err = styledrop("doctor", "--json")
    about = json.loads(out)
    one = {(one["section"], one["name"]): one for one in about["findings"]}
    assert one["libraries", "torch"]["found"] == metadata.version("torch")
    assert one["models", "pocket"]["found"].startswith("whole, it loads")
    assert one["devices", "taken"]["state"] == "fine"
    assert one["here", "folder"]["found"].startswith(str(Path.cwd()))
    assert code == bool(about["wrong"]) and err == ""


def test_the_table(styledrop: Run, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = styledrop("doctor")
    assert code == 0 and "nothing is wrong, 0 notes" in out
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    says(rich={"error": "OSError: torn"})
    code, out, _ = styledrop("doctor")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 1 and "1 thing is wrong, 1 note" in out
    at = lines.index(next(line for line in lines if line.startswith("wrong rich")))
    assert "cannot be imported: OSError: torn" in lines[at] and lines[at + 1].startswith("-> ")
    assert "note OMP_NUM_THREADS many" in lines
    assert any(line.startswith("fine typer") for line in lines)
