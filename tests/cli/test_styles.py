"""The library of styles: kept by name, found by name everywhere, drawn side by side."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conftest import Outcome, Run, draw
from styledrop_cli.adapters import library
from styledrop_cli.cli.options import adapters_like, files_like
from styledrop_cli.io import run_folder
from styledrop_cli.io.images import read_png_settings
from styledrop_cli.io.run_names import run_of

LEARN = ("--steps", "1", "--checkpoints", "0", "-q")
LEARNT: dict[str, bytes] = {}  # adapter files by name: learnt once for all tests


@pytest.fixture
def model(styledrop: Run, picture: Path, tiny_model: Path) -> tuple[str, ...]:
    """Two styles in the library, ink and gold; the options that say which base."""
    model = ("--model", str(tiny_model))
    for name, style in {"ink": "ink", "gold": "gold leaf"}.items():
        if name not in LEARNT:
            done = styledrop(
                "train", picture, "--style", style, "--content", "a cat", "--save-as", name, *LEARN, *model
            )
            assert done.code == 0, done.err
            LEARNT[name] = library.file_of(name).read_bytes()
        library.folder().mkdir(exist_ok=True)
        library.file_of(name).write_bytes(LEARNT[name])
    return model


def listed(styledrop: Run) -> list[str]:
    return [one["name"] for one in json.loads(styledrop("styles", "list", "--json").out)["styles"]]


# ---- --save-as ----


def test_a_training_is_kept_by_name_with_its_checkpoints_beside_it(
    styledrop: Run, picture: Path, tiny_model: Path
) -> None:
    about = ("--style", "ink", "--content", "a cat", "--steps", "2", "--checkpoints", "1", "--model", tiny_model)
    done = styledrop("train", picture, *about, "--save-as", "ink")
    assert done.code == 0 and "styledrop generate ink" in done.err
    assert not Path("adapter.safetensors").exists()
    assert done.out.strip() == str(library.file_of("ink"))
    assert (run_of(library.file_of("ink")) / "curve.json").exists()
    again = styledrop("train", picture, *about, "--save-as", "ink")
    assert again.code == 2 and "a style called 'ink' already" in again.err and "--overwrite" in again.err
    assert styledrop("train", picture, *about, "--save-as", "ink", "--overwrite").code == 0


def test_a_taken_or_impossible_name_costs_no_training(styledrop: Run, picture: Path, model: tuple[str, ...]) -> None:
    Path("a.safetensors").write_bytes(LEARNT["ink"])
    for command in (
        ("train", picture, "--style", "ink", "-o", "other.safetensors"),
        ("iterate", "a.safetensors"),
        ("merge", "a.safetensors", "gold"),
    ):
        assert "a style called 'ink' already" in styledrop(*command, "--save-as", "ink", *model).err
        assert "cannot be the name of a style" in styledrop(*command, "--save-as", "a/b", *model).err
    assert sorted(path.name for path in Path().iterdir()) == [".styles", "a.safetensors", "ref.png"]
    assert library.file_of("ink").read_bytes() == LEARNT["ink"]


def test_a_file_is_written_as_well_where_o_says_so(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    about = ("--style", "ink", "--content", "a cat", *LEARN, "--model", tiny_model)
    done = styledrop("train", picture, *about, "--save-as", "ink", "-o", "a.safetensors")
    assert done.code == 0 and done.out.strip() == "a.safetensors"
    assert library.find("ink").read_bytes() == Path("a.safetensors").read_bytes()


def test_a_library_that_fails_at_the_end_costs_no_training(
    styledrop: Run, picture: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(source: Path, target: Path) -> None:
        if Path(target).parent == library.folder():
            Path(target).write_bytes(b"another's")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    about = ("--style", "ink", "--content", "a cat", *LEARN, "--model", tiny_model)
    done = styledrop("train", picture, *about, "--save-as", "ink", "-o", "a.safetensors")
    assert done.code == 1 and done.out.strip() == "a.safetensors"
    assert "styledrop styles import a.safetensors --name ink" in done.err
    assert library.find("ink").read_bytes() == b"another's"


def test_merges_are_kept_too(styledrop: Run, model: tuple[str, ...]) -> None:
    done = styledrop("merge", "ink:0.5", "gold:0.5", "--save-as", "both", *model)
    assert done.code == 0 and "styledrop generate both" in done.err
    assert "merged.safetensors" not in os.listdir()
    assert listed(styledrop) == ["both", "gold", "ink"]
    run_of(library.file_of("both")).mkdir()  # of a training that the file was of before
    assert styledrop("merge", "ink", "gold", "--save-as", "both", *model).code == 2
    assert styledrop("merge", "ink", "gold", "--save-as", "both", "--overwrite", *model).code == 0
    assert not run_of(library.file_of("both")).exists()


def test_rounds_are_kept_too(styledrop: Run, model: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny

    tiny.shrink_rounds(monkeypatch)
    few = ("--rounds", "1", "--per-prompt", "2", "--steps", "2", "-q", *model)
    done = styledrop("iterate", "ink", "--save-as", "better", *few)
    assert done.code == 0, done.err
    assert library.find("better").read_bytes() == Path("ink.rounds/best.safetensors").read_bytes()
    assert listed(styledrop) == ["better", "gold", "ink"]
    assert styledrop("iterate", "ink", "--overwrite", *few).code == 2


# ---- a name stands for its file everywhere ----


def test_every_command_takes_a_name(styledrop: Run, model: tuple[str, ...], picture: Path) -> None:
    few = ("-n", "1", "--steps", "1", "-q", *model)
    commands: list[tuple[str | Path, ...]] = [
        ("generate", "ink", "a cat", *few),
        ("generate", "--mix", "ink:0.5", "--mix", "gold:0.5", "a cat", *few),
        ("edit", picture, "a dog", "--restyle", "0.5", "--adapter", "ink", *few),
        ("alphabet", "ink", "--letters", "A", *few),
        ("sweep", "ink", "a cat", "--lambda-a", "0,1", "-n", "1", *model),
        ("inspect", "ink"),
        ("merge", "ink", "gold", *model),
        ("score", picture, "--prompt", "a cat", "--reference", "ink", *model),
    ]
    for command in commands:
        done = styledrop(*command)
        assert done.code == 0, f"{command}: {done.err}"
    assert Path("ink-alphabet").is_dir()
    assert [path.name for path in library.folder().iterdir() if path.suffix != ".safetensors"] == []


def test_pictures_of_a_style_find_it_again_under_any_name(styledrop: Run, model: tuple[str, ...]) -> None:
    assert styledrop("generate", "ink", "a cat", "-n", "1", "--steps", "1", "-o", "out", *model).code == 0
    assert (read_png_settings(next(Path("out").glob("a-cat*.png"))) or {})["adapter"] == "ink.safetensors"
    for rename in ((), ("styles", "rename", "ink", "black-ink")):
        assert not rename or styledrop(*rename).code == 0
        scored = styledrop("score", "out", "--json", *model)
        assert scored.code == 0 and "was not found" not in scored.err
        assert json.loads(scored.out)["pictures"][0]["likeness"] is not None


def test_recipes_hold_the_name_and_not_the_place(styledrop: Run, model: tuple[str, ...]) -> None:
    done = styledrop("edit", "ref.png", "a dog", "--restyle", "0.5", "-a", "ink", "-n", "1", "--steps", "1", *model,
                     "--save-config", "r.toml")  # fmt: skip
    assert done.code == 0 and 'adapter = "ink"' in Path("r.toml").read_text()
    assert styledrop("edit", "--config", "r.toml").code == 0


def test_an_unknown_name_is_told_as_one(styledrop: Run, model: tuple[str, ...]) -> None:
    for command in (("iterate", "golt"), ("alphabet", "golt"), ("edit", "ref.png", "a cat", "-a", "golt")):
        done = styledrop(*command, *model)
        assert done.code and "there is no style called 'golt'" in done.err and "Did you mean gold?" in done.err


def test_the_tab_key_knows_names_and_files(model: tuple[str, ...]) -> None:
    Path("deep").mkdir()
    Path("deep/inside.safetensors").write_bytes(b"")
    assert adapters_like("i") == ["ink"] and adapters_like("de") == ["deep/"]
    assert adapters_like("") == ["gold", "ink", "deep/"] and files_like("r") == ["ref.png"]
    assert adapters_like("deep/in") == ["deep/inside.safetensors"] and adapters_like("nowhere/") == []


# ---- styledrop styles ----


def test_list_shows_sound_styles_and_spoiled_ones(styledrop: Run, model: tuple[str, ...]) -> None:
    library.file_of("bad").write_bytes(b"no adapter")
    done = styledrop("styles", "list")
    assert done.code == 0
    assert all(word in done.out for word in ("bad", "gold leaf", "ink"))
    said = json.loads(styledrop("styles", "list", "--json").out)
    assert [(one["name"], one["style"], bool(one["error"])) for one in said["styles"]] == [
        ("bad", "", True), ("gold", "gold leaf", False), ("ink", "ink", False)]  # fmt: skip
    assert said["folder"] == str(library.folder()) and all(one["base"] for one in said["styles"][1:])


def test_an_empty_library_says_how_to_fill_it(styledrop: Run) -> None:
    done = styledrop("styles", "list")
    assert done.code == 0 and "--save-as" in done.err and not done.out
    assert styledrop("styles", "sheet").code == 2


def test_rename_takes_the_training_along_and_never_another_style(styledrop: Run, model: tuple[str, ...]) -> None:
    run_of(library.file_of("ink")).mkdir()
    (run_of(library.file_of("ink")) / "curve.json").write_text("{}")
    taken = styledrop("styles", "rename", "ink", "gold")
    assert taken.code == 2 and library.file_of("gold").read_bytes() == LEARNT["gold"]
    assert styledrop("styles", "rename", "ink", "black").code == 0
    assert listed(styledrop) == ["black", "gold"]
    assert (run_of(library.file_of("black")) / "curve.json").exists() and not run_of(library.file_of("ink")).exists()
    assert "no style called 'ink'" in styledrop("styles", "rename", "ink", "x").err


def test_remove_asks_and_takes_the_training_along(styledrop: Run, model: tuple[str, ...]) -> None:
    run_of(library.file_of("ink")).mkdir()
    nobody_there = styledrop("styles", "remove", "ink")
    assert nobody_there.code == 2 and "--yes" in nobody_there.err
    assert styledrop("styles", "remove", "ink", "nothing", "--yes").code == 2
    assert listed(styledrop) == ["gold", "ink"]
    assert styledrop("styles", "remove", "ink", "--yes").code == 0
    assert listed(styledrop) == ["gold"] and not run_of(library.file_of("ink")).exists()


def test_what_a_training_works_on_is_left_alone(styledrop: Run, model: tuple[str, ...]) -> None:
    import subprocess
    import sys

    folder = run_of(library.file_of("ink"))
    held = "import sys; from pathlib import Path; from styledrop_cli.io.run_folder import alone_in\n" \
        "with alone_in(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", held, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as other:  # fmt: skip
        assert other.stdout and other.stdout.readline() == "in\n"
        Path("a.safetensors").write_bytes(LEARNT["gold"])
        for command in (
            ("remove", "ink", "--yes"),
            ("rename", "ink", "black"),
            ("rename", "gold", "black"),
            ("import", "a.safetensors", "--name", "ink", "--overwrite"),
        ):
            done = styledrop("styles", *command)
            assert done.code == (0 if command[1] == "gold" else 2), command
            assert command[1] == "gold" or "another process" in done.err
        assert library.file_of("ink").read_bytes() == LEARNT["ink"]
        other.communicate("")


def test_a_stopped_training_is_shown_and_not_lost(styledrop: Run, model: tuple[str, ...]) -> None:
    folder = run_of(library.file_of("begun"))
    folder.mkdir()
    (folder / run_folder.MANIFEST).write_text('{"finished": false, "settings": {}}')
    assert json.loads(styledrop("styles", "list", "--json").out)["unfinished"] == ["begun"]
    Path("a.safetensors").write_bytes(LEARNT["ink"])
    for command in (("import", "a.safetensors", "--name", "begun"), ("rename", "gold", "begun")):
        done = styledrop("styles", *command)
        assert done.code == 2 and "stopped half way" in done.err
    assert folder.exists()
    assert styledrop("styles", "remove", "begun", "--yes").code == 0 and not folder.exists()


def test_export_and_import_are_each_others_way_back(styledrop: Run, model: tuple[str, ...]) -> None:
    assert styledrop("styles", "export", "ink", "-o", "My ink (2).safetensors").code == 0
    assert styledrop("styles", "export", "ink", "gold", "-o", "shared").code == 0
    assert Path("shared/gold.safetensors").read_bytes() == LEARNT["gold"]
    assert styledrop("styles", "export", "ink", "-o", "shared").code == 2  # it is there
    assert styledrop("styles", "export", "ink", "gold", "-o", "one.safetensors").code == 2
    assert styledrop("styles", "import", "My ink (2).safetensors").code == 0
    assert listed(styledrop) == ["My-ink-2", "gold", "ink"]
    assert library.file_of("My-ink-2").read_bytes() == LEARNT["ink"]
    assert styledrop("styles", "import", "shared/gold.safetensors").code == 2  # taken
    assert styledrop("styles", "import", "shared/gold.safetensors", "--overwrite").code == 0
    done = styledrop("styles", "import", "ref.png")
    assert done.code and listed(styledrop) == ["My-ink-2", "gold", "ink"]


def test_options_of_other_actions_are_refused(styledrop: Run) -> None:
    for command in (("list", "--yes"), ("show", "ink", "--name", "x"), ("rename", "a", "b", "-o", "x")):
        done = styledrop("styles", *command)
        assert done.code == 2 and " is for " in done.err


# ---- many styles at once ----


def test_every_prompt_in_every_style_with_one_seed(styledrop: Run, model: tuple[str, ...]) -> None:
    Path("more").mkdir()
    Path("more/silver.safetensors").write_bytes(LEARNT["gold"])
    ask = ("generate", "--styles", "ink,gold,more/", "a cat", "a dog", "--steps", "1", "-o", "out", "--json", *model)
    done = styledrop(*ask)
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert [(one["style"], one["prompt"]) for one in said["pictures"]] == [
        (style, prompt) for style in ("ink", "gold", "silver") for prompt in ("a cat", "a dog")
    ]
    assert {one["seed"] for one in said["pictures"]} == {0} and said["drawn"] == 6
    names = [Path(one["path"]).name for one in said["pictures"]]
    assert names[:2] == ["ink-a-cat-0.png", "ink-a-dog-0.png"] and len(set(names)) == 6
    assert said["sheets"] == [str(Path("out/styles.png"))]
    sheet = read_png_settings(Path("out/styles.png")) or {}
    assert sheet["sheet_of"] == names and "seed" not in sheet
    assert json.loads(styledrop(*ask).out)["drawn"] == 0


def test_a_picture_in_a_batch_of_styles_is_that_of_the_style_alone(styledrop: Run, model: tuple[str, ...]) -> None:
    few = ("a cat", "-n", "1", "--steps", "2", "-q", *model)
    assert styledrop("generate", "--styles", "ink,gold", *few, "-o", "many").code == 0
    for name in ("ink", "gold"):
        assert styledrop("generate", name, *few, "-o", name).code == 0
        alone, together = Path(name) / "a-cat-0.png", Path("many") / f"{name}-a-cat-0.png"
        assert alone.read_bytes() == together.read_bytes()


def test_the_sheet_of_the_library(styledrop: Run, model: tuple[str, ...]) -> None:
    library.file_of("bad").write_bytes(b"no adapter")
    done = styledrop("styles", "sheet", "--prompt", "a cat", *model)
    assert done.code == 0 and "left out" in done.err
    assert done.out.split() == [
        str(Path("styledrop-styles") / one) for one in ("gold-a-cat-0.png", "ink-a-cat-0.png", "styles.png")
    ]
    assert styledrop("styles", "sheet", "bad", *model).code


def test_styles_of_other_bases_are_refused_or_left_out(
    styledrop: Run, model: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    import tiny

    other = tiny.write_published(tmp_path_factory.mktemp("other") / "amused-256")
    draw().save("ref.png")
    about = ("--style", "chalk", "--content", "a cat", *LEARN, "--width", "1", "--model", other)
    done = styledrop("train", "ref.png", *about, "--save-as", "chalk")
    assert done.code == 0, done.err
    refused = styledrop("generate", "--styles", "ink,chalk", "a cat", "--steps", "1", *model)
    assert refused.code == 1 and "chalk: trained on another base" in refused.err
    assert not Path("styledrop-out").exists()
    sheet: Outcome = styledrop("styles", "sheet", "--prompt", "a cat", *model)
    assert sheet.code == 0 and "left out: chalk" in sheet.err and "styles.png" in sheet.out


def test_what_cannot_stand_beside_styles(styledrop: Run, model: tuple[str, ...]) -> None:
    ask = ("generate", "--styles", "ink,gold")
    for more, said in (
        (("ink.safetensors", "a cat"), "draws without ink"),
        (("a cat", "--base-only"), "leave out one of the two"),
        (("a cat", "--name", "{prompt}-{seed}-x"), "add {style}"),
        (("a cat", "-o", "cat.png"), "4 are to be drawn"),
        ((), "nothing to draw"),
    ):
        done = styledrop(*ask, *more, *(("-n", "2") if "-o" in more else ()))
        assert done.code == 2 and said in done.err, done.err
    assert styledrop("generate", "--styles", "", "a cat").code == 2
