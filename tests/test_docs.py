"""The documents say nothing that is not so: every command they print is run, as printed, with a tiny model.

Only minutes, steps and numbers of pictures are shortened. A command that several pages print is run once. The README is
followed from its first line to its last, with the files of the project and nothing else. The help of the commands is on
the pages of docs/reference, which are made from it. Of the logs in docs/lab only the names are checked, of commands,
options, files and functions.
"""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import shlex
import shutil
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

import against_truth
import tiny
from conftest import ROOT, Run, draw
from hub_server import Hub
from person import Person
from styledrop_cli import doctor
from styledrop_cli.adapters import diffusers_lora, library
from styledrop_cli.base import base as base_module
from styledrop_cli.base import download, hub, registry
from styledrop_cli.cli.app import app
from styledrop_cli.io.images import save_png
from styledrop_cli.io.tensors import save_part, save_tensors
from styledrop_cli.settings import TrainSettings
from styledrop_cli.studio.server import Studio
from styledrop_cli.training.adapter import train_adapter

PACKAGE = ROOT / "src/styledrop_cli"
LOGS = ("docs/lab/", "examples/pocket/begun/")  # what was done once


def found_pages() -> list[str]:
    """All pages: the README, the reference, whose examples follow on each other, and the others."""
    beside = [ROOT / name for name in ("CHANGELOG.md", "THIRD_PARTY_NOTICES.md")]
    examples = [ROOT / "examples/README.md", *sorted((ROOT / "examples/pocket").rglob("*.md"))]
    reference = sorted((ROOT / "docs/reference").glob("*.md"))
    others = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path not in reference]
    paths = [ROOT / "README.md", *reference, *beside, *examples, PACKAGE / "pocket/README.md", *others]
    return [path.relative_to(ROOT).as_posix() for path in paths]


PAGES = found_pages()
NOT_OURS = {"accelerate", "npm", "pip", "torchrun"}  # printed, but not ours to run
SCRIPTS = ("examples", "examples/pocket", "benchmarks")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
LATER_PARTS = [
    ["pretrain", part] for part in ("decoder", "clip", "scorer", "base", "superres")
]  # they need those before them
GROUP = typer.main.get_group(app)
SHOWN = [name for name, command in GROUP.commands.items() if not command.hidden]


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
    return first in {"styledrop", "make", "python", *NOT_OURS} or (first.endswith(".py") and first != span)


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


def ours(text: str, indent: int) -> list[str]:
    """The lines that are commands of ours, and not prose about them: these are indented."""
    start = " " * indent + "styledrop "
    return [line.strip() for line in re.sub(r" *\\\s*\n\s*", " ", text).splitlines() if line.startswith(start)]


def words(command: str) -> tuple[str, ...]:
    """A command as the shell splits it."""
    return tuple(shlex.split(command, comments=True))


def each_once(blocks: Iterable[Block]) -> list[Block]:
    """The blocks without the commands that stood in one before."""
    seen: set[tuple[str, ...]] = set()
    made = []
    for block in blocks:
        new = [command for command in block.commands if words(command) not in seen]
        seen.update(map(words, new))
        made += [Block(block.where, new)] if new else []
    return made


ALL_BLOCKS = [block for page in PAGES for block in blocks_of(page)]
LOG_BLOCKS = [block for block in ALL_BLOCKS if block.where.startswith(LOGS)]
FOLLOWED = each_once(block for block in ALL_BLOCKS if not block.where.startswith(LOGS))
README_COMMANDS = [command for block in FOLLOWED if block.where == "README.md" for command in block.commands]
# The pages that go on from where the README ends, with its files and those of the project.
GOING_ON = [f"docs/guide/{name}.md" for name in ("learning", "generating", "styles", "several_styles", "editing",
                                                 "kits", "feedback", "judging")]  # fmt: skip
PAGE_BLOCKS = [block for block in FOLLOWED if block.where not in ("README.md", *GOING_ON)]


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


Follow = Callable[..., None]


@pytest.fixture
def follow(styledrop: Run, tiny_model: Path, adapter: Path, remote: Hub, monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Do what one printed command says; it must succeed. Files that it names are made, unless ``given``."""
    # The bundled model has super-resolution too.
    pocket = Path(shutil.copytree(tiny_model, Path("pocket-of-the-tests").resolve() / tiny_model.name))
    save_part(pocket, "superres", tiny.superres_network(), tiny.SUPERRES)
    monkeypatch.setattr(base_module, "POCKET", pocket)
    tiny.shrink_pretraining(monkeypatch)
    tiny.shrink_rounds(monkeypatch)
    monkeypatch.setattr(webbrowser, "open", lambda url: Person().open_page(url))
    stand_in_for_the_hub(monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_anna")
    remote.others["anna/ink"] = {"adapter.safetensors": adapter.read_bytes()}
    monkeypatch.setattr(doctor, "ask", lambda names: {})  # what is installed here may be broken
    of, short = TrainSettings.of, {"steps": 2, "views": 2, "superres_steps": 1, "width": 2}
    compared = {"style": {"checkpoints": 1}, "object": {}}  # an object has no test pictures
    monkeypatch.setattr(
        TrainSettings, "of", lambda kind, **given: of(kind, **given | short | compared[given.get("learn", "style")])
    )

    def follow(command: str, given: bool = False) -> None:
        check_names(command)
        program, *arguments = words(command)
        if program != "styledrop" or is_mention(arguments):
            return
        if not given:
            provide(arguments, adapter, tiny_model)
        if arguments[0] == "studio":  # Ctrl-C, once it is there
            monkeypatch.setattr(webbrowser, "open", lambda url: True)
            monkeypatch.setattr(Studio, "wait", interrupted)
        code, _, err = styledrop(*shortened(arguments))
        assert code == (130 if arguments[0] == "studio" else 0), f"{command}\n{err}"

    return follow


def interrupted(studio: Studio, seconds: float) -> None:
    assert studio.alive
    raise KeyboardInterrupt


def check_names(command: str) -> None:
    """A printed command names a program, a command and options that there are."""
    program, *arguments = words(command)
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
        if arguments and not arguments[0].startswith("-"):
            assert arguments[0] in GROUP.commands, f"there is no command {arguments[0]}"
            known = options_of_command(arguments[0]) | {"--help"}
            unknown = {one for one in arguments if re.match(r"--?[a-z]", one)} - known
            assert not unknown, f"{', '.join(unknown)}: {command}"
    else:
        assert program in NOT_OURS, f"nothing is known of the program {program}: {command}"


def options_of_command(name: str) -> set[str]:
    return {one for option in GROUP.commands[name].params for one in (*option.opts, *option.secondary_opts)}


def options_of_script(script: Path) -> set[str]:
    """The options of a script, which are either declared or read from a function's parameters."""
    if script.name == "against_truth.py":
        return {name for option in typer.main.get_command(against_truth.app).params for name in option.opts}
    return set(OPTION.findall(script.read_text(encoding="utf-8")))


def stand_in_for_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published names lead to a tiny model in their layout; nothing is fetched or removed."""
    found = hub.find

    def find(model: str) -> Path | None:
        if model not in registry.PUBLISHED or Path(model).exists():
            return found(model)
        folder = Path("hub-of-the-tests").resolve() / model
        return folder if folder.exists() else tiny.write_published(folder)

    monkeypatch.setattr(hub, "find", find)
    monkeypatch.setattr(download, "fetch", lambda repo, **options: find(repo.rpartition("/")[2]))
    monkeypatch.setattr(hub, "remove", lambda model: 1)


def is_mention(arguments: list[str]) -> bool:
    """Whether a command is only named, `styledrop train`, and not given anything to work on."""
    parts = {"all", "corpus", "tokenizer", "text", *(part for _, part in LATER_PARTS)}
    return len(arguments) <= 1 or (arguments[0] == "pretrain" and len(arguments) == 2 and arguments[1] in parts)


def shortened(arguments: list[str]) -> list[str]:
    """The same command, with a tiny fraction of its minutes, its pictures and its steps."""
    if arguments[0] == "iterate":
        return [*arguments, "--per-prompt", "2", "--steps", "2"]
    if arguments[:2] == ["report", "adapter.rounds"]:  # the tiny model knows nothing that no round was chosen by
        Path("few.txt").write_text("a tree\n", encoding="utf-8")
        return [*arguments, "-n", "1", "--prompts", "few.txt"]
    if arguments[0] in ("edit", "report", "sweep", "vary"):
        return [*arguments, "-n", "1"]
    if arguments[0] == "alphabet":
        return [*arguments, "-n", "2"]
    if arguments[:2] in (["models", "remove"], ["styles", "remove"]) and "--yes" not in arguments:
        return [*arguments, "--yes"]
    if arguments[0] != "pretrain":
        return arguments
    at = arguments.index("--minutes") if "--minutes" in arguments else len(arguments)
    return [*arguments[:at], "--minutes", "0.001", *arguments[at + 2 :]]


def provide(arguments: list[str], adapter: Path, model: Path) -> None:
    """Put what a command names, and what is not there yet, into the folder: any reader has pictures of their own."""
    if arguments[0] == "merge" or "--mix" in arguments:  # the names stand before their weights
        arguments = [re.sub(r"(?<=\.safetensors):.*", "", name) for name in arguments]
    if arguments[0] in ("train", "iterate"):
        arguments = [re.sub(r"(?<=\.(png|jpg)):[\d.]+$", "", name) for name in arguments]
    if "--styles" in arguments:
        arguments = [part for word in arguments for part in word.split(",")]
    before = dict(zip(arguments[1:], arguments, strict=False))
    if arguments[0] == "iterate" and not Path("adapter.safetensors").exists():
        shutil.copy(adapter, "adapter.safetensors")  # the newest adapter here
    if arguments[0] == "convert":
        provide_lora(arguments)
    if arguments[1] == "ink" and not library.is_saved("ink"):
        library.save(adapter, "ink")
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
            save_png(draw(), path, {"prompt": "a cat", "seed": 1, "adapter": None})
        elif before[name] == "--each":
            path.mkdir()
            draw().save(path / "bird.png")
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
def test_commands_of_the_pages(follow: Follow, block: Block) -> None:
    for command in block.commands:
        follow(command)


def test_the_readme_can_be_followed_in_a_fresh_clone(follow: Follow) -> None:
    """With the files that are there, and those that its own commands have made."""
    shutil.copytree(ROOT / "examples", "examples", ignore=shutil.ignore_patterns("pocket"))
    for command in README_COMMANDS:
        follow(command, given=True)


@pytest.mark.parametrize("page", GOING_ON)
def test_the_guide_can_be_followed_after_the_readme(follow: Follow, adapter: Path, page: str) -> None:
    """Nothing is there but the project's files, what the README's commands leave, and what the page itself makes."""
    shutil.copytree(ROOT / "examples", "examples", ignore=shutil.ignore_patterns("pocket"))
    if page != "docs/guide/learning.md":  # which makes the adapter itself
        shutil.copy(adapter, "adapter.safetensors")
        follow(next(command for command in README_COMMANDS if "generate" in command), given=True)
    for block in blocks_of(page):
        for command in block.commands:
            follow(command, given=True)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        assert (ROOT / picture).stat().st_size < 300_000


def test_the_python_of_the_guide(follow: Follow, adapter: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/guide/python.md").read_text("utf-8"), re.M | re.S)
    for name in re.findall(r'"([\w/-]+\.(?:png|safetensors))"', code):
        provide(["edit", name], adapter, adapter)
    draw().convert("L").point(lambda value: 255 * (value > 100)).save("mask.png")
    exec(compile(code, "docs/guide/python.md", "exec"), {})


@pytest.mark.parametrize("block", LOG_BLOCKS, ids=names(LOG_BLOCKS))
def test_names_in_the_logs(block: Block) -> None:
    for command in block.commands:
        check_names(command)


# ---- help and reference ----


@pytest.mark.parametrize("name", SHOWN)
def test_commands_of_the_help(styledrop: Run, name: str) -> None:
    """The examples that the terminal shows are those of the reference, where they are run."""
    examples = ours(inspect.cleandoc(GROUP.commands[name].help), indent=2)
    assert examples and ours(styledrop(name, "--help").out, indent=3) == examples
    run = {words(command) for block in blocks_of(f"docs/reference/{name}.md") for command in block.commands}
    assert set(map(words, examples)) <= run


def test_commands_of_the_first_help(styledrop: Run, follow: Follow) -> None:
    shown = ours(styledrop("--help").out, indent=1)
    assert len(shown) == 2
    for command in shown:
        follow(command)


def test_the_reference_says_what_the_help_says() -> None:
    made = runpy.run_path(str(ROOT / "tools/reference.py"))["pages"]()
    there = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference").glob("*")}
    assert {name for name in made | there if made.get(name) != there.get(name)} == set(), "run: make reference"


# ---- names ----


def options_in(text: str) -> set[str]:
    """The options that a page names, but for those of other programs."""
    text = re.sub(r"^```sh\n.*?^```", "", text, flags=re.M | re.S)
    foreign = [s for block in fenced(text) for s in joined(block)] + inline(text)
    for snippet in foreign:
        if is_command(snippet) and not snippet.startswith("styledrop"):
            text = text.replace(snippet, "")
    return set(OPTION.findall(text))


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/reference/")])
def test_options_that_are_named_exist(page: str) -> None:
    known = {option for name in GROUP.commands for option in options_of_command(name)}
    for script in ("against_truth.py", "against_diffusers.py"):
        known |= options_of_script(ROOT / "benchmarks" / script)
    own = {option for path in (ROOT / page).parent.glob("*.py") for option in OPTION.findall(path.read_text())}
    known |= {option for parameter in typer.main.get_command(app).params for option in parameter.opts} | {"--help"}
    unknown = options_in((ROOT / page).read_text(encoding="utf-8")) - known - own
    assert not unknown, f"{page} names options that no command has"


def anchors_of(page: Path) -> set[str]:
    """What a link to a page may have behind its #: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", re.sub(r"\]\([^)]*\)", "", one.lower())).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", (ROOT / page).read_text(encoding="utf-8")):
        there = (ROOT / page).parent / link if link else ROOT / page
        assert there.exists(), link
        assert not anchor or anchor in anchors_of(there), f"{link}#{anchor}"


def names_in(file: Path) -> set[str]:
    """What a Python file defines: functions, classes, what stands in these, and values."""

    def defined(body: list[ast.stmt], before: str = "") -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield before + node.name
                if isinstance(node, ast.ClassDef):
                    yield from defined(node.body, f"{node.name}.")
            for target in [*getattr(node, "targets", ()), getattr(node, "target", None)]:
                yield from (before + one.id for one in ast.walk(target) if isinstance(one, ast.Name)) if target else ()

    return set(defined(ast.parse(file.read_text(encoding="utf-8")).body))


@pytest.mark.parametrize("page", PAGES)
def test_files_and_functions_that_are_named_exist(page: str) -> None:
    places = [ROOT, PACKAGE, (ROOT / page).parent, *(ROOT / name for name in SCRIPTS)]
    spans = inline((ROOT / page).read_text(encoding="utf-8"))
    for file, name in (found.groups() for span in spans if (found := re.fullmatch(r"([\w/.-]+\.py):?([\w.]*)", span))):
        there = next((place / file for place in places if (place / file).is_file()), None)
        assert there, f"there is no {file}"
        assert not name or name in names_in(there), f"{file} has no {name}"
    for module in (span for span in spans if re.fullmatch(r"styledrop_cli(\.[a-z_]+)+", span)):
        path = ROOT / "src" / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"there is no {module}"


# ---- the tests above can fail ----


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("styledrop paint ref.png", "no command paint"),
        ("styledrop train ref.png --style x --colour red", "--colour"),
        ("styledrop paint", "no command paint"),
        ("make coffee", "no such make coffee"),
        ("python examples/nowhere.py", "no examples/nowhere.py"),
        ("python examples/draw.py --nothing", "--nothing"),
        ("stylepaint ref.png", "nothing is known of the program stylepaint"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(command: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_names(command)


def test_a_command_that_fails_is_found_out(follow: Follow) -> None:
    with pytest.raises(AssertionError, match="steps must be"):
        follow("styledrop generate adapter.safetensors 'a cat' --steps 0")


def test_a_command_is_run_once() -> None:
    blocks = [Block("a", ["make x", "make  'y'"]), Block("b", ["make y  # again"]), Block("c", ["make z", "make x"])]
    assert each_once(blocks) == [blocks[0], Block("c", ["make z"])]


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
