"""The layers of the house, as data: who may import whom, and where each heavy name lives."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import styledrop_cli

PACKAGE = Path(styledrop_cli.__file__).parent

# What is in a folder, or lies beside the folders, imports from what stands before it, and from its own folder.
ORDER = (
    "errors", "environment", "settings", "progress", "io", "models", "devices", "sampling", "base", "corpus",
    "adapters", "judging", "training", "generation", "web", "feedback", "report", "studio", "doctor", "api", "cli",
    "__main__",
)  # fmt: skip
LAZY = {("__init__", "errors"), ("__init__", "api")}  # the package's own names: only when one is asked for

# Heavy names from outside and the only places that may import them.
HOMES = {
    "PIL": {"io", "generation/extend", "generation/ground", "generation/svg"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "accelerate": {"training/loop"},
    "huggingface_hub": {"base/hub_files", "base/download", "base/upload", "base/cache"},
    "open_clip": {"judging/clip_scorer"},
    "resvg_py": set(),
    "platformdirs": {"adapters/library"},
    "rich": {"cli"},
    "starlette": {"web", "feedback/page", "studio"},
    "vtracer": {"generation/svg"},
    "uvicorn": {"web"},
    "safetensors": {"io/tensors", "base/published_files"},
    "tokenizers": {"base/prompt_tokens"},
    "typer": {"cli"},
}

TYPES = {"PIL.Image.Image"}  # names for annotations only

# `--help` and a refused command never wait for torch.
WITHOUT_TORCH = (
    "__init__", "__main__", "errors", "environment", "settings", "progress", "io/files", "io/file_kinds",
    "io/palette", "io/run_names", "io/text_files", "base/hub", "base/hub_files", "base/download", "base/upload",
    "base/cache", "base/layout", "base/registry", "adapters/header", "adapters/library", "generation/lists", "doctor",
    "cli",
)  # fmt: skip


def place(path: Path) -> str:
    """Where a module lies, as `base/hub/cache`; a package is where its folder lies."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")


def lies_in(where: str, homes: Iterable[str]) -> bool:
    return any(where == home or where.startswith(f"{home}/") for home in homes)


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
    """The place that a dotted name leads to, if it is one of ours."""
    first, *rest = name.split(".")
    if first != "styledrop_cli":
        return None
    while rest and not (PACKAGE.joinpath(*rest).is_dir() or PACKAGE.joinpath(*rest).with_suffix(".py").is_file()):
        rest.pop()
    return "/".join(rest) or "__init__"


def test_every_folder_has_its_place_in_the_order() -> None:
    there = {place(path).partition("/")[0] for path in modules()} - {"", "."}
    assert there - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", modules(), ids=place)
def test_imports_go_upwards_and_heavy_names_stay_home(path: Path) -> None:
    here = place(path) if path != PACKAGE / "__init__.py" else "__init__"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    mine = here.partition("/")[0]
    for name in imports(tree):
        there = own(name)
        if there not in (None, "__init__") and (room := there.partition("/")[0]) != mine and (mine, room) not in LAZY:
            assert ORDER.index(room) < ORDER.index(mine), f"{mine} may not import {there}"
        homes = HOMES.get(name.partition(".")[0] if name not in TYPES else "")
        assert homes is None or lies_in(here, homes), f"{name} is imported by {sorted(homes)} only"
    if lies_in(here, WITHOUT_TORCH):
        for name in imports(tree, deep=False):
            there = own(name)
            light = lies_in(there, WITHOUT_TORCH) if there else name.partition(".")[0] not in ("torch", "numpy")
            # A folder's own docstring module brings nothing with it.
            assert light or is_empty(there), f"{here} may import {name} only inside a function"


def is_empty(there: str | None) -> bool:
    """Whether what is imported is a folder whose `__init__` does nothing."""
    path = PACKAGE / (there or "") / "__init__.py"
    return path.is_file() and not list(imports(ast.parse(path.read_text(encoding="utf-8"))))


def test_relative_names_resolve() -> None:
    lines = ("from styledrop_cli.io import images", "from styledrop_cli import __version__", "import torch.nn")
    tree = ast.parse("\n".join((*lines, "def f():", " import PIL")))
    assert [own(name) for name in imports(tree)] == ["io/images", "__init__", None, None]
    assert list(imports(tree, deep=False))[-1] == "torch.nn"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter that finds this package."""
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize(
    "command",
    ["", *"train generate edit iterate score sweep alphabet kit inspect models doctor convert merge studio".split()],
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
