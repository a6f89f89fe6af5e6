"""The layers of the house, as data: who may import whom, and where each heavy name lives."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import styledrop_cli

PACKAGE = Path(styledrop_cli.__file__).parent

# A module imports from smaller layers only. Packages (models, sampling, cli, ...) count as one.
LAYERS = {
    "errors": 0, "environment": 0, "files": 0, "filekinds": 0, "settings": 0, "intervals": 1, "lists": 1,
    "processes": 1, "models": 1, "sampling": 1, "lora_naming": 1, "lora_claims": 2,
    "devices": 2, "images": 2, "shapes": 2, "sheets": 2,
    "styles": 3, "text": 3, "corpus": 3, "checkpoints": 3, "convert": 3, "gallery": 3, "hub": 3, "runs": 3,
    "text_encoder": 3, "known_things": 3,
    "base": 4, "parts": 4, "training": 4,
    "ranking": 5, "examples": 5, "scoring": 5, "pretraining": 5,
    "adapters": 6, "probing": 6, "acceptance": 6, "calibration": 6, "doctor": 6,
    "tuning": 7, "exchange": 7, "merging": 7, "pipeline": 7, "appraisal": 7,
    "pools": 8, "batches": 8, "editing": 8,
    "picking": 9, "rounds": 9, "sweeping": 9, "choosing": 9, "api": 9,
    "bench": 10, "report": 10,
    "cli": 11, "__main__": 12, "__init__": 0,
}  # fmt: skip

# The exceptions: (who, whom) of the same layer.
SIDEWAYS = {
    ("sampling", "models"),
    ("corpus", "text"),  # a corpus and a prompt are cut into words by the same rule
    ("settings", "errors"),
    ("files", "errors"),
    ("environment", "errors"),
    ("base", "parts"),
    ("rounds", "picking"),
    ("convert", "checkpoints"),
    ("convert", "hub"),  # where the layout is written down
    ("convert", "text"),
    ("text_encoder", "text"),
    ("known_things", "text"),  # what a word is
    ("__init__", "errors"),
    ("__init__", "api"),  # only when it is asked for
}

# Heavy names from outside and the only modules that may import them.
HOMES = {
    "PIL": {"images", "shapes", "sheets"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "accelerate": {"training"},
    "huggingface_hub": {"hub"},
    "open_clip": {"scoring"},
    "resvg_py": {"bench"},
    "rich": {"cli"},
    "starlette": {"gallery"},
    "uvicorn": {"gallery"},
    "safetensors": {"checkpoints", "convert"},
    "tokenizers": {"text"},
    "typer": {"cli"},
}

TYPES = {"PIL.Image.Image"}  # names for annotations only

WITHOUT_TORCH = {"environment", "errors", "files", "settings", "lists", "__init__", "__main__", "cli", "doctor", "hub"}


def room(path: Path) -> str:
    """The module or package directly below styledrop_cli that `path` belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, deep: bool = True) -> Iterator[str]:
    """Dotted names of what is imported; only while loading the module if not `deep`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif deep or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, deep)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def own(name: str) -> str | None:
    """The room a dotted name leads to, if it is one of ours."""
    first, _, rest = name.partition(".")
    room_name = rest.partition(".")[0]
    return (room_name if room_name in LAYERS else "__init__") if first == "styledrop_cli" else None


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_upwards_and_heavy_names_stay_home(path: Path) -> None:
    here = room(path)
    assert here in LAYERS, f"give {here} a layer"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name in imports(tree):
        there = own(name)
        if there and there != here and (here, there) not in SIDEWAYS:
            assert LAYERS[there] < LAYERS[here], f"{here} may not import {there}"
        homes = HOMES.get(name.partition(".")[0] if name not in TYPES else "")
        assert homes is None or here in homes, f"{name} is imported by {sorted(homes or ())} only"
    if here in WITHOUT_TORCH:
        for name in imports(tree, deep=False):
            there = own(name)
            light = there in WITHOUT_TORCH if there else name.partition(".")[0] not in ("torch", "numpy")
            assert light, f"{path.name} may import {name} only inside a function"


def test_relative_names_resolve() -> None:
    tree = ast.parse("from styledrop_cli import images, __version__\nimport torch.nn\ndef f():\n import PIL")
    assert [own(name) for name in imports(tree)] == ["images", "__init__", None, None]
    assert list(imports(tree, deep=False))[-1] == "torch.nn"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter that finds this package."""
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize(
    "command",
    ["", *"train generate edit iterate score sweep alphabet kit inspect models doctor convert merge bench".split()],
)
def test_help_does_not_import_torch(command: str) -> None:
    program = (
        "import sys\n"
        "from styledrop_cli.cli.app import app\n"
        f"app({[command, '--help'] if command else ['--help']}, standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'PIL', 'safetensors', 'accelerate', 'open_clip', 'starlette'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_module_runs_as_a_program() -> None:
    started = time.monotonic()
    done = python("-m", "styledrop_cli", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"styledrop {styledrop_cli.__version__}")
    assert time.monotonic() - started < 5  # a loose bound; `make bench` measures it
