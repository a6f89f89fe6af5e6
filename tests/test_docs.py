"""The documents say nothing that is not so: every command they print is run, as printed, in a tiny model's hands.

That goes for the commands in each command's own help too. Only `--minutes` and the steps of a training are shortened.
"""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

import against_truth
import tiny
from conftest import Run, draw
from person import Person
from styledrop_cli import doctor
from styledrop_cli.adapters import diffusers_lora
from styledrop_cli.base import base as base_module
from styledrop_cli.base import hub
from styledrop_cli.cli.app import COMMANDS, app
from styledrop_cli.io.images import save_png
from styledrop_cli.io.tensors import save_part, save_tensors
from styledrop_cli.settings import TrainSettings
from styledrop_cli.training.adapter import train_adapter

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "THIRD_PARTY_NOTICES.md",
    "examples/README.md",
    "examples/pocket/README.md",
    "src/styledrop_cli/pocket/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
)
NOT_OURS = {"accelerate", "npm", "pip", "torchrun"}  # printed, but not ours to run
SCRIPTS = ("examples", "examples/pocket", "benchmarks")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
LATER_PARTS = [
    ["pretrain", part] for part in ("decoder", "clip", "scorer", "base", "superres")
]  # they need those before them
GROUP = typer.main.get_group(app)


class Block(NamedTuple):
    """Commands that are run one after the other in one folder, and where they are printed."""

    where: str
    commands: list[str]


def joined(text: str) -> list[str]:
    """The lines of a shell, continued ones made one, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if shlex.split(line, comments=True)]


def fenced(text: str) -> list[str]:
    """The code blocks of a page that hold commands: those of another language say so, and a tree of folders is none."""
    blocks = re.findall(r"^```\n(.*?)^```", re.sub(r"^```\w+\n.*?^```", "", text, flags=re.M | re.S), re.M | re.S)
    return [block for block in blocks if not block.split()[0].endswith("/")]


def is_command(span: str) -> bool:
    first = span.split()[0] if span.split() else ""
    return first in {"styledrop", "make", "python", *NOT_OURS} or first.endswith(".py")


def inline(text: str) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def blocks_of(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in fenced(text):
        yield Block(page, joined(block))
    for span in inline(text):
        if is_command(span):
            yield Block(page, joined(span))


def blocks_of_help() -> Iterator[Block]:
    """The commands in the docstring of each command, which are its help."""
    for function, name, *_ in COMMANDS:
        yield Block(f"{name} --help", ours(inspect.cleandoc(function.__doc__ or ""), indent=2))


def ours(text: str, indent: int) -> list[str]:
    """The lines that are commands of ours, and not prose about them: these are indented."""
    start = " " * indent + "styledrop "
    return [line.strip() for line in re.sub(r" *\\\s*\n\s*", " ", text).splitlines() if line.startswith(start)]


PAGE_BLOCKS = [block for page in PAGES for block in blocks_of(page)]
HELP_BLOCKS = list(blocks_of_help())


# ---- running what is printed ----


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model."""
    folder = tmp_path_factory.mktemp("adapter")
    draw().save(folder / "ref.png")
    train_adapter(
        base_module.load_base(str(tiny_model), tiny.CPU),
        pictures=[folder / "ref.png"],
        style="watercolor",
        contents=["a cat"],
        settings=TrainSettings(steps=1, views=2, checkpoints=0),
        output=folder / "adapter.safetensors",
    )
    return folder / "adapter.safetensors"


@pytest.fixture
def follow(styledrop: Run, tiny_model: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Do what one printed command says; it must succeed."""
    # The bundled model has super-resolution too.
    pocket = Path(shutil.copytree(tiny_model, Path("pocket-of-the-tests").resolve() / tiny_model.name))
    save_part(pocket, "superres", tiny.superres_network(), tiny.SUPERRES)
    monkeypatch.setattr(base_module, "POCKET", pocket)
    tiny.shrink_pretraining(monkeypatch)
    tiny.shrink_rounds(monkeypatch)
    monkeypatch.setattr(webbrowser, "open", lambda url: Person().open_page(url))
    stand_in_for_the_hub(monkeypatch)
    monkeypatch.setattr(doctor, "ask", lambda names: {})  # what is installed here may be broken
    of, short = TrainSettings.of, {"steps": 2, "views": 2, "superres_steps": 1, "width": 2}
    compared = {"style": {"checkpoints": 1}, "object": {}}  # an object has no test pictures
    monkeypatch.setattr(
        TrainSettings, "of", lambda kind, **given: of(kind, **given | short | compared[given.get("learn", "style")])
    )

    def follow(command: str) -> None:
        program, *arguments = shlex.split(command, comments=True)
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no such {command}"
        elif program == "python" or program.endswith(".py"):
            script, *rest = arguments if program == "python" else (program, *arguments)
            folders = [ROOT] if "/" in script or program == "python" else [ROOT / name for name in SCRIPTS]
            found = next((folder / script for folder in folders if (folder / script).is_file()), None)
            assert found, f"there is no {script}"
            known = options_of_script(found)
            assert all(option in known for option in rest if option.startswith("--")), command
        elif program == "styledrop":
            if is_mention(arguments):
                check_mention(styledrop, arguments)
            else:
                provide(arguments, adapter, tiny_model)
                code, _, err = styledrop(*shortened(arguments))
                assert code == 0, f"{command}\n{err}"
        else:
            assert program in NOT_OURS, f"nothing is known of the program {program}: {command}"

    return follow


def options_of_script(script: Path) -> set[str]:
    """The options of a script, which are either declared or read from a function's parameters."""
    if script.name == "against_truth.py":
        return {name for option in typer.main.get_command(against_truth.app).params for name in option.opts}
    return set(OPTION.findall(script.read_text(encoding="utf-8")))


def stand_in_for_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published names lead to a tiny model in their layout; nothing is fetched or removed."""
    found = hub.find

    def find(model: str) -> Path | None:
        if model not in hub.PUBLISHED or Path(model).exists():
            return found(model)
        folder = Path("hub-of-the-tests").resolve() / model
        return folder if folder.exists() else tiny.write_published(folder)

    monkeypatch.setattr(hub, "find", find)
    monkeypatch.setattr(hub, "fetch", lambda repo, **options: find(repo.rpartition("/")[2]))
    monkeypatch.setattr(hub, "remove", lambda model: 1)


def is_mention(arguments: list[str]) -> bool:
    """Whether a command is only named, `styledrop train`, and not given anything to work on."""
    parts = {"all", "corpus", "tokenizer", "text", *(part for _, part in LATER_PARTS)}
    return len(arguments) == 1 or (arguments[0] == "pretrain" and len(arguments) == 2 and arguments[1] in parts)


def check_mention(styledrop: Run, arguments: list[str]) -> None:
    """A command that is only named exists, and has the options that are named with it."""
    if arguments[0].startswith("-"):
        assert styledrop(*arguments).code == 0
        return
    assert arguments[0] in GROUP.commands, f"there is no command {arguments[0]}"
    known = {name for option in GROUP.commands[arguments[0]].params for name in option.opts}
    assert {one for one in arguments if one.startswith("-")} <= known | {"--help"}


def shortened(arguments: list[str]) -> list[str]:
    """The same command, with a tiny fraction of its minutes, its pictures and its steps."""
    if arguments[0] == "iterate":
        return [*arguments, "--per-prompt", "2", "--steps", "2"]
    if arguments[0] == "report":
        return [*arguments, "-n", "1"]
    if arguments[:2] == ["models", "remove"]:
        return [*arguments, "--yes"]
    if arguments[0] != "pretrain":
        return arguments
    at = arguments.index("--minutes") if "--minutes" in arguments else len(arguments)
    return [*arguments[:at], "--minutes", "0.001", *arguments[at + 2 :]]


def provide(arguments: list[str], adapter: Path, model: Path) -> None:
    """Put what a command names, and what is not there yet, into the folder: any reader has pictures of their own."""
    if arguments[0] == "merge" or "--mix" in arguments:  # the names stand before their weights
        arguments = [re.sub(r"(?<=\.safetensors):.*", "", name) for name in arguments]
    before = dict(zip(arguments[1:], arguments, strict=False))
    if arguments[0] == "iterate" and not Path("adapter.safetensors").exists():
        shutil.copy(adapter, "adapter.safetensors")  # the newest adapter here
    if arguments[0] == "convert":
        provide_lora(arguments)
    if arguments[0] == "generate" and "amused-256" in arguments and arguments[1].endswith(".safetensors"):
        provide_lora(["convert", arguments[1]])  # an adapter of that base
    for name in arguments[1:]:
        path = Path(name)
        if path.exists() or (before[name] in ("-o", "--output") and arguments[:2] not in LATER_PARTS):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("examples/"):
            shutil.copy(ROOT / name, path)  # must be there
        elif path.parent.name == "styledrop-out" and path.suffix == ".png":
            save_png(draw(), path, {"prompt": "a cat", "seed": 1})
        elif before[name] == "--prompts":
            path.write_text("a cat\na dog --seed 5\n", encoding="utf-8")
        elif before[name] == "--mask":
            draw().convert("L").point(lambda value: 255 * (value > 100)).save(path)
        elif path.suffix in (".png", ".jpg"):
            draw().save(path)
        elif path.suffix == ".safetensors":
            shutil.copy(adapter, path)
        elif path.suffix == ".rounds" and arguments[0] == "report":
            for number in (1, 2):
                (path / f"round-{number}").mkdir(parents=True)
                shutil.copy(adapter, path / f"round-{number}" / "adapter.safetensors")
        elif before[name] in ("--model", "--init-from", "-o", "--output"):
            shutil.copytree(model, path)
        elif arguments[0] == "score" and not path.suffix and before[name] in ("score", "--csv", "--json"):
            save_png(draw(), path / "a-cat-1.png", {"prompt": "a cat", "seed": 1, "adapter": "adapter.safetensors"})
            shutil.copy(adapter, "adapter.safetensors")
        elif arguments[0] == "pretrain" and arguments.index(name) == 2:
            (tiny.write_art if arguments[1] == "corpus" else tiny.write_corpus)(path)


def provide_lora(arguments: list[str]) -> None:
    """A published base by the name that the hub has it by, and a LoRA of it: from elsewhere, or one of ours."""
    base_folder = Path(arguments[arguments.index("--model") + 1] if "--model" in arguments else "amused-256")
    if not base_folder.exists():
        tiny.write_published(base_folder)  # a folder goes before what the hub has by that name
    file, foreign = Path(arguments[1]), Path("foreign.safetensors")
    if file.exists():
        return
    save_tensors(file if "--style" in arguments else foreign, tiny.lora_tensors())
    if "--style" not in arguments:
        whole = diffusers_lora.read_lora(foreign)
        known = diffusers_lora.published_base(str(base_folder))
        diffusers_lora.bring_in(whole, known, style="watercolor", alpha=2, output=file, on_message=print)


def names(blocks: list[Block]) -> list[str]:
    return [f"{block.where}: {block.commands[0] if block.commands else ''}"[:70] for block in blocks]


@pytest.mark.parametrize("block", PAGE_BLOCKS, ids=names(PAGE_BLOCKS))
def test_commands_of_the_pages(follow: Callable[[str], None], block: Block) -> None:
    for command in block.commands:
        follow(command)


@pytest.mark.parametrize("block", HELP_BLOCKS, ids=names(HELP_BLOCKS))
def test_commands_of_the_help(styledrop: Run, follow: Callable[[str], None], block: Block) -> None:
    """Those that the docstring holds are those that the terminal shows, and they work."""
    assert block.commands
    assert ours(styledrop(*block.where.split()).out, indent=3) == block.commands
    for command in block.commands:
        follow(command)


def test_commands_of_the_first_help(styledrop: Run, follow: Callable[[str], None]) -> None:
    shown = ours(styledrop("--help").out, indent=1)
    assert len(shown) == 2
    for command in shown:
        follow(command)


# ---- names ----


def options_in(text: str) -> set[str]:
    """The options that a page names, but for those of other programs."""
    foreign = [s for block in fenced(text) for s in joined(block)] + inline(text)
    for snippet in foreign:
        if is_command(snippet) and not snippet.startswith("styledrop"):
            text = text.replace(snippet, "")
    return set(OPTION.findall(text))


@pytest.mark.parametrize("page", PAGES)
def test_options_that_are_named_exist(page: str) -> None:
    known = {name for command in GROUP.commands.values() for option in command.params for name in option.opts}
    known |= options_of_script(ROOT / "benchmarks/against_truth.py")
    own = {option for script in (ROOT / page).parent.glob("*.py") for option in OPTION.findall(script.read_text())}
    unknown = options_in((ROOT / page).read_text(encoding="utf-8")) - known - own - {"--help", "--version"}
    assert not unknown, f"{page} names options that no command has"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


# ---- the tests above can fail ----


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("styledrop paint ref.png", "paint"),
        ("styledrop train ref.png --style x --colour red", "--colour"),
        ("styledrop paint", "no command paint"),
        ("make coffee", "no such make coffee"),
        ("python examples/nowhere.py", "no examples/nowhere.py"),
        ("python examples/draw.py --nothing", "--nothing"),
        ("stylepaint ref.png", "nothing is known of the program stylepaint"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(follow: Callable[[str], None], command: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        follow(command)


def test_pages_are_read_as_a_shell_reads_them() -> None:
    block = 'styledrop train a.png \\\n --style "x # y"  # learns\n# alone\nmake test\n'
    page = f"Say `make demo`:\n```\n{block}```\n`no command`"
    assert [joined(block) for block in fenced(page)] == [
        ['styledrop train a.png   --style "x # y"  # learns', "make test"]
    ]
    assert [span for span in inline(page) if is_command(span)] == ["make demo"]
    assert options_in("`--fine` and `pip --foreign`, --bare; ---") == {"--fine", "--bare"}


def test_there_is_something_to_run() -> None:
    commands = [command for block in PAGE_BLOCKS for command in block.commands if command.startswith("styledrop")]
    assert len(commands) > 10
    named = {command.split()[1] for command in commands}
    assert {"train", "generate", "tokenize", "inspect", "pretrain"} <= named
