"""The commands as a person meets them: their help, and what they say when something is wrong."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import tiny
from conftest import Run, draw
from styledrop_cli import StyledropError, UsageError, __version__
from styledrop_cli.adapters.header import write_recommended
from styledrop_cli.base.base import load_base
from styledrop_cli.cli import console
from styledrop_cli.cli.app import app, main
from styledrop_cli.cli.hints import OTHER_NAMES
from styledrop_cli.cli.train import asked_contents
from styledrop_cli.io.images import read_png_settings, save_png
from styledrop_cli.settings import PRESETS, SampleSettings

COMMANDS = ("train", "fine-tune", "generate", "sample", "tokenize", "inspect", "pretrain")


# ---- help ----


def test_no_arguments_show_the_help(styledrop: Run) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        code, out, err = styledrop(*arguments)
        assert code == 0
        assert err == ""
        assert "One picture in, a style out." in out
        assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(styledrop: Run, command: str) -> None:
    code, out, err = styledrop(command, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: styledrop {command}" in out
    assert "--json" in out
    assert "<bool>" not in re.sub(r"--help +-h +<bool>", "", out)


def test_aliases_are_the_same_function() -> None:
    functions = {command.name: command.callback for command in app.registered_commands}
    assert functions["fine-tune"] is functions["train"]
    assert functions["sample"] is functions["generate"]


def test_version(styledrop: Run) -> None:
    assert styledrop("--version") == (0, f"styledrop {__version__}\n", "")


# ---- usage errors: exit code 2, clear words, nothing heavy, nothing written ----

TRAIN = ("train", "ref.png", "--style", "watercolor")
LEARN_OBJECT = ("train", "ref.png", "ref.png", "ref.png", "--learn", "object")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("paint",), "paint"),
        (("train",), "missing argument 'PICTURE[:WEIGHT]...'"),
        (("train", "ref.png"), "'--style'"),
        (("train", "ref.png", "--style", "  "), "--style is empty"),
        ((*TRAIN, "--content", "a cat", "--content", "a dog"), "pictures: 1, --content texts: 2"),
        (("train", "ref.png", "ref.png", "--style", "x", "--content", "a cat"), "pictures: 2, --content texts: 1"),
        ((*TRAIN, "--content", " "), "--content is empty"),
        ((*TRAIN, "-o", "adapter.pt"), ".safetensors"),
        ((*TRAIN, "-o", "folder"), "folder is a folder"),
        ((*TRAIN, "-o", "taken.safetensors"), "taken.safetensors is already there"),
        ((*TRAIN, "--learn", "colour"), "colour"),
        ((*TRAIN, "--learn", "object", "--content", "my dog"), "for learning a style, not an object"),
        (("train", "ref.png", "--learn", "object"), "an object needs a name to be called by"),
        (("train", "ref.png", "--learn", "object", "--content", " "), "--content is empty"),
        ((*LEARN_OBJECT, "--content", "a dog", "--content", "a cat"), "pictures: 3, --content texts: 2"),
        ((*LEARN_OBJECT, "--content", "my dog", "--checkpoints", "2"), "of which an object has none"),
        ((*TRAIN, "--steps", "many"), "--steps must be a whole number, not 'many'"),
        ((*TRAIN, "--lr=fast"), "--lr must be a number, not 'fast'"),
        ((*TRAIN, "--steps", "0"), "steps"),
        ((*TRAIN, "--lr", "-1"), "lr"),
        ((*TRAIN, "--device", "toaster"), "toaster"),
        (("generate",), "there is no adapter file"),
        (("generate", "a cat"), "'a cat' is no adapter file"),
        (("generate", "a.safetensors"), "nothing to draw"),
        (("generate", "a.safetensors", ""), "a prompt is empty"),
        (("generate", "a.safetensors", "a", "cat"), "2 prompts: a, cat"),
        (("generate", "--base-only", "a.safetensors", "a cat"), "draws without a.safetensors"),
        (("generate", "--base-only", "a cat", "-n", "0"), "--number"),
        (("generate", "--base-only", "a cat", "--steps", "0"), "steps"),
        (("generate", "--base-only", "a cat", "--temperature", "-1"), "temperature"),
        (("generate", "--base-only", "a cat", "-o", "taken.safetensors"), "taken.safetensors is a file"),
        (("generate", "--base-only", "a cat", "-o", "ref.png"), "ref.png names one picture, and 4 are to be drawn"),
        (("generate", "--base-only", "a cat", "--negativ", "x"), "--negativ"),
        (("tokenize", "ref.png", "-o", "ref.png"), "ref.png is a file"),
        (("inspect",), "missing argument 'FILE'"),
        (("pretrain", "tokeniser", "corpus", "-o", "m"), "tokenizer"),
        (("pretrain", "base", "corpus"), "'--output'"),
        (("pretrain", "base", "corpus", "-o", "m"), "no folder corpus"),
        (("pretrain", "base", "folder", "-o", "m", "--minutes", "0"), "--minutes"),
        (("pretrain", "base", "folder", "-o", "m", "--resume", "--init-from", "x"), "exclude each other"),
        (("pretrain", "base", "folder", "-o", "m", "--keep-codes"), "a tokenizer that was trained before"),
    ],
)  # fmt: skip
def test_usage_errors(styledrop: Run, picture: Path, arguments: tuple[str, ...], words: str) -> None:
    Path("folder").mkdir()
    Path("taken.safetensors").write_bytes(b"precious")
    before = sorted(Path().iterdir())
    code, out, err = styledrop(*arguments)
    assert code == 2, err
    assert out == ""
    assert words in err
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    assert sorted(Path().iterdir()) == before
    assert Path("taken.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ((*TRAIN, "--learning-rate", "0.1"), "that is --lr here"),
        ((*TRAIN, "--caption", "a cat"), "that is --content here"),
        ((*TRAIN, "--force"), "that is --overwrite here"),
        (("train", "--image", "ref.png"), "write that without one: styledrop train PICTURE[:WEIGHT]... [OPTIONS]"),
        (("generate", "a.safetensors", "a cat", "--count", "2"), "that is --number here"),
        (("generate", "a.safetensors", "a cat", "--outdir", "x"), "that is --output here"),
        (("generate", "a.safetensors", "a cat", "--cfg-scale", "7"), "that is --lambda-b here"),
        (("generate", "--prompt", "a cat"), "write that without one: styledrop generate [ADAPTER] PROMPT..."),
        (("generate", "a.safetensors", "a cat", "--size", "1024x512"), "pictures are square: give one number. Other"),
        (("edit", "ref.png", "a cat", "--denoise", "0.5"), "that is --restyle here"),
        (("vary", "a-cat-1.png", "--denoise", "0.5"), "that is --much here"),
        ((*TRAIN, "--quicly"), "styledrop train --help shows how it is used"),
    ],
)  # fmt: skip
def test_options_by_the_names_of_other_programs(styledrop: Run, arguments: tuple[str, ...], hint: str) -> None:
    code, _, err = styledrop(*arguments)
    assert (code, f"Hint:  {hint}" in err) == (2, True), err


def test_options_of_other_programs_are_none_of_ours() -> None:
    for command in typer.main.get_group(app).commands.values():
        own = {name for parameter in command.params for name in parameter.opts}
        for ours, others in OTHER_NAMES.items():
            assert ours not in own or ours not in others.split()
    every = {name for one in typer.main.get_group(app).commands.values() for p in one.params for name in p.opts}
    assert set(OTHER_NAMES) <= every


def test_an_adapter_whose_name_is_mistyped(styledrop: Run) -> None:
    Path("style").mkdir()
    Path("style/watercolor.safetensors").touch()
    for command in (
        ("generate", "style/watercolour.safetensors", "a cat"),
        ("sweep", "style/watercolor2.safetensors", "a cat"),
        ("report", "style/watercolo.safetensors"),
    ):
        code, _, err = styledrop(*command)
        assert code == 1
        assert "there is no adapter file style/watercolo" in err
        assert "Hint:  Did you mean style/watercolor.safetensors?" in err
    assert "Did you mean" not in styledrop("generate", "nowhere/watercolor.safetensors", "a cat").err


def test_all_bad_numbers_are_named_at_once(styledrop: Run, picture: Path) -> None:
    _, _, err = styledrop("generate", "--base-only", "a cat", "--steps", "0", "--temperature", "-1")
    assert "steps" in err
    assert "temperature" in err


# ---- failures: exit code 1 ----


@pytest.mark.parametrize("command", [("train", "--style", "x"), ("tokenize",)])
def test_unreadable_pictures(styledrop: Run, command: tuple[str, ...]) -> None:
    Path("words.png").write_text("words")
    for name, words in (("nowhere.png", "no picture at"), ("words.png", "not a picture")):
        code, out, err = styledrop(*command, name)
        assert (code, out) == (1, "")
        assert words in err
        assert name in err
        assert "Traceback" not in err


def test_inspect_nothing(styledrop: Run, picture: Path) -> None:
    for name, words in (("nowhere", "nothing at nowhere"), ("ref.png", "no settings"), (".", "no base model")):
        code, _, err = styledrop("inspect", name)
        assert code == 1
        assert words in err


# ---- inspect ----


def test_inspect_reads_a_picture_back(styledrop: Run) -> None:
    settings = {"prompt": "a [red] cat", "seed": 3, "negative": "", "ramp": False, "lambda_a": 1.5}
    save_png(draw(), Path("cat.png"), settings)
    code, out, err = styledrop("inspect", "cat.png", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == settings
    code, out, _ = styledrop("inspect", "cat.png")
    assert code == 0
    for words in ("a [red] cat", "lambda a", "1.5", "none", "no"):
        assert words in out


def test_inspect_goes_by_content_not_by_name(styledrop: Run) -> None:
    save_png(draw(), Path("cat.safetensors"), {"prompt": "a cat"})
    assert styledrop("inspect", "cat.safetensors", "--json").code == 0


def test_inspect_reads_a_model_folder(styledrop: Run) -> None:
    folder = Path("model")
    folder.mkdir()
    (folder / "config.json").write_text('{"name": "tiny", "parts": {"tokenizer": {"channels": [8, 16]}}}')
    (folder / "tokenizer.safetensors").write_bytes(b"x" * 1500)
    code, out, _ = styledrop("inspect", folder)
    assert code == 0
    assert all(words in out for words in ("tiny", "channels 8, 16", "1.5 kB"))


# ---- the whole way, with a tiny untrained model ----


def test_the_main_job(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    adapter = Path("style/water.safetensors")
    train = ("train", picture, "--style", "watercolor", "--content", "a cat", "-o", adapter, "--steps", "2")
    model = ("--model", tiny_model, "--device", "cpu")
    code, out, err = styledrop(*train, "--lambda-a", "0.5", *model)
    assert code == 0, err
    assert out == f"{adapter}\n"
    assert "2/2  loss" in err
    assert code == 0
    assert Path("style/water.safetensors.run/step-0000002.png").exists()
    assert styledrop(*train, *model).code == 2  # it is there already
    assert styledrop(*train, "--overwrite", "--json", "--lambda-a", "0.5", *model).code == 0

    code, out, _ = styledrop("inspect", adapter, "--json")
    about = json.loads(out)
    assert (about["style"], about["contents"]) == ("watercolor", ["a cat"])
    assert styledrop("inspect", adapter).out.count("\n") > 8

    draw_two = ("generate", adapter, "a corgi", "a dog", "-n", "2", "--steps", "2", "-o", "out", *model)
    code, out, err = styledrop(*draw_two)
    assert code == 0, err
    assert "does not know 'corgi'" in err
    names = ["a-corgi-0", "a-corgi-1", "a-dog-0", "a-dog-1", "sheet"]
    assert out.split() == [f"out/{name}.png" for name in names]
    drawn = {path: path.read_bytes() for path in Path("out").iterdir()}
    assert styledrop(*draw_two).out == out  # the same seeds draw the same pictures, which are kept
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == drawn
    settings = json.loads(styledrop("inspect", "out/a-dog-1.png", "--json").out)
    assert settings["prompt"] == "a dog"
    assert (settings["seed"], settings["style"], settings["size"]) == (1, "watercolor", 32)
    assert (settings["lambda_a"], settings["steps"]) == (0.5, 2)  # recommended by the file, and asked for

    other = json.loads(styledrop(*draw_two, "--lambda-b", "9", "--json", "--quiet").out)
    assert other["pictures"][0]["path"] == "out/a-corgi-0-lambda-b-9.png"  # another picture never replaces one
    assert {path: path.read_bytes() for path in drawn} == drawn


def test_generate_goes_by_what_the_adapter_recommends(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    model = ("--model", tiny_model, "--json", "--quiet")
    learn = ("train", picture, "--style", "ink", "--content", "a cat", "--steps", "1", "--checkpoints", "0")
    adapter = Path(json.loads(styledrop(*learn, *model).out)["adapter"])
    recommended = {"lambda_a": 0.5, "strength": 0.25, "temperature": 3.0, "steps": 2}
    write_recommended(adapter, recommended)
    shown = styledrop("inspect", adapter).out
    assert all(words in shown for words in ("lambda_a  0.5", "strength  0.25", "temperature  3", "steps  2"))

    def drawn_with(*options: str) -> dict[str, object]:
        said = json.loads(styledrop("generate", adapter, "a cat", "-n", "1", *options, *model).out)["settings"]
        return {name: said[name] for name in recommended}

    assert drawn_with() == recommended
    given = ("--strength", "0", "--steps", "1", "--temperature", "0", "--lambda-a", "0")
    assert drawn_with(*given) == {"lambda_a": 0, "strength": 0, "temperature": 0, "steps": 1}
    out = styledrop("generate", "--base-only", "a cat", "-n", "1", *model).out
    assert {name: json.loads(out)["settings"][name] for name in recommended} == {
        name: SampleSettings.defaults()[name] for name in recommended
    }


def test_base_only_and_its_sizes(styledrop: Run, tiny_model: Path) -> None:
    draw_one = ("generate", "--base-only", "a cat", "-n", "1", "--steps", "2", "--model", tiny_model)
    code, out, err = styledrop(*draw_one, "--size", "16", "--quiet")
    assert (code, out, err) == (0, "styledrop-out/a-cat-0.png\n", "")
    code, _, err = styledrop(*draw_one, "--size", "24")
    assert code == 2
    assert "16 or 32" in err


def test_tokenize_shows_what_is_lost(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    code, out, err = styledrop("tokenize", picture, "-o", "seen", "--model", tiny_model)
    assert code == 0, err
    assert out.split() == [f"seen/ref-{name}" for name in ("ids.json", "original.png", "reconstruction.png")]
    seen = json.loads(Path("seen/ref-ids.json").read_text())
    assert len(seen["ids"]) == len(seen["ids"][0]) == 4
    assert f"{max(seen['edges'], 0):.0%} of its edges are left ({seen['psnr']:.1f} dB), {seen['verdict']}" in err
    assert "What helps: a crop" in err  # its weights are random: nothing comes back


def test_broken_adapters_and_models(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    Path("cut.safetensors").write_bytes((tiny_model / "clip.safetensors").read_bytes()[:500])
    Path("clip.safetensors").write_bytes((tiny_model / "clip.safetensors").read_bytes())
    for name in ("nowhere.safetensors", "cut.safetensors", "clip.safetensors"):
        for command in (("generate", name, "a cat", "--model", tiny_model), ("inspect", name)):
            code, out, err = styledrop(*command)
            assert (code, out) == (1, "")
            assert name in err
            assert "Traceback" not in err
    code, _, err = styledrop("generate", "--base-only", "a cat", "--model", "nowhere")
    assert code == 1
    assert "nowhere" in err
    assert not Path("styledrop-out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_one(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    code, out, err = styledrop("tokenize", picture, "--model", tiny_model, "--device", "cuda")
    assert (code, out) == (2, "")
    assert "'cuda'" in err


# ---- the one place that prints errors ----


def broken(error: BaseException) -> typer.Typer:
    program = typer.Typer()

    @program.command()
    def fail() -> None:
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StyledropError("it broke", "mend it"), 1, "Error: it broke\nHint:  mend it\n"),
        (UsageError("so not"), 2, "Error: so not\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (MemoryError(), 1, "not enough memory"),
        (ValueError("odd\nsecond line"), 1, "something unexpected happened: ValueError: odd\n"),
        (RuntimeError(), 1, "RuntimeError"),
    ],
)
def test_errors_and_exit_codes(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(broken(error), []) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STYLEDROP_TRACEBACK", "1")
    assert console.run(broken(ValueError("odd")), []) == 1
    assert "Traceback" in capsys.readouterr().err


# ---- the screen ----


def test_results_go_out_and_remarks_to_the_side(capsys: pytest.CaptureFixture[str]) -> None:
    screen = console.Screen()
    screen.say("by the way")
    screen.warn("mind the [gap]")
    long = Path("a" * 150)
    screen.result({"path": long}, [long])
    out, err = capsys.readouterr()
    assert out == f"{long}\n"  # never broken over lines: it may stand in a pipe
    assert err == "by the way\nWarning: mind the [gap]\n"


def test_quiet_keeps_results_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    screen = console.Screen(quiet=True, as_json=True)
    screen.say("by the way")
    screen.warn("mind")
    with screen.progress("learning") as move:
        move(0.5, "loss 3")
    screen.result({"path": Path("é")}, ["never shown"])
    out, err = capsys.readouterr()
    assert json.loads(out) == {"path": "é"}
    assert err == "Warning: mind\n"


def test_progress_in_a_log_is_a_line_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with console.Screen().progress("learning") as move:
        for step in range(1, 101):
            move(step / 100, f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "learning: loss 1"
    assert lines[-1] == "learning: loss 100"
    assert len(lines) == 11


def test_a_log_says_how_much_time_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.Screen().progress("learning") as move:
        for step in range(1, 11):
            now += 3
            move(step / 10, f"{step}/10")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "learning: 1/10"  # what was there before counts for nothing, so nothing is known yet
    assert lines[4] == "learning: 5/10, 19 s left"  # 15 s for four tenths, five to go
    assert [line for line in lines if line.endswith("left")] == lines[1:-1] and lines[-1] == "learning: 10/10"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (65, "1 min 05 s"), (4205, "1 h 10 min")])
def test_duration(seconds: float, words: str) -> None:
    assert console.duration(seconds) == words


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_waiting_threads_sleep_soon(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], spins: str | None) -> None:
    """Beside another busy program a picture took three to six times as long; who has chosen otherwise is left alone."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that all of it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ.get("GOMP_SPINCOUNT") == spins


# ---- presets ----


def test_a_preset_is_between_what_is_recommended_and_what_is_asked_for(
    styledrop: Run, picture: Path, tiny_model: Path
) -> None:
    model = ("--model", tiny_model, "--json", "--quiet")
    learn = ("train", picture, "--style", "ink", "--content", "a cat", "--steps", "1", "--checkpoints", "0")
    adapter = Path(json.loads(styledrop(*learn, *model).out)["adapter"])
    recommended = {"lambda_a": 0.7, "lambda_b": 1.1, "strength": 0.8, "temperature": 1.5, "steps": 3}
    write_recommended(adapter, recommended)

    def drawn_with(*options: str) -> dict[str, object]:
        said = json.loads(styledrop("generate", adapter, "a cat", "-n", "1", *options, *model).out)
        settings: dict[str, object] = said["settings"]
        kept = read_png_settings(Path(said["pictures"][0]["path"]))
        assert kept is not None
        assert kept.items() >= settings.items()
        assert "preset" not in settings  # its values are kept, whatever the name comes to mean
        return settings

    paper = drawn_with("--preset", "paper", "--steps", "2")
    assert {name: paper[name] for name in PRESETS["paper"]} == PRESETS["paper"] | {"steps": 2}
    assert paper["strength"] == 0.8
    fast = drawn_with("--preset", "fast")
    assert {name: fast[name] for name in recommended} == recommended | {
        name: value for name, value in PRESETS["fast"].items() if name in recommended
    }
    assert {name: fast[name] for name in PRESETS["fast"]} == PRESETS["fast"]
    plain = drawn_with()
    assert {name: plain[name] for name in PRESETS["fast"]} == {
        name: (SampleSettings.defaults() | recommended)[name] for name in PRESETS["fast"]
    }


# ---- what a picture shows ----


class Terminal(io.StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


def asked(monkeypatch: pytest.MonkeyPatch, tiny_model: Path, typed: str, **given: Any) -> tuple[list[str] | None, str]:
    """What two pictures are taken to show where a person types so much, and what was asked."""
    for name in ("one.png", "two.png"):
        draw().save(name)
    shown = io.StringIO()
    screen = console.Screen(**given)
    screen.err = console.Plain(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    base = load_base(str(tiny_model), tiny.CPU)
    return asked_contents(screen, base, [Path("one.png"), Path("two.png")], None), shown.getvalue()


def test_a_person_is_asked_what_nobody_said(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    found, shown = asked(monkeypatch, tiny_model, "  a  boat \n\n")
    assert found == ["a boat", "a picture"]  # Enter alone: not known
    assert "What does one.png show" in shown and "What does two.png show" in shown
    for typed in ("\n\n", ""):
        assert asked(monkeypatch, tiny_model, typed)[0] is None


@pytest.mark.parametrize("given", [{"quiet": True}, {"as_json": True}])
def test_scripts_are_asked_nothing(monkeypatch: pytest.MonkeyPatch, tiny_model: Path, given: dict[str, bool]) -> None:
    assert asked(monkeypatch, tiny_model, "a boat\na boat\n", **given) == (None, "")


def test_without_a_word_it_is_a_picture(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    learn = ("train", picture, "--style", "ink", "--steps", "1", "--checkpoints", "0", "--model", tiny_model, "--json")
    outcome = styledrop(*learn)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["contents"] == ["a picture"]
    assert "cannot tell what ref.png shows" in outcome.err and '--content "a bird"' in outcome.err


def test_what_a_model_knows_by_name(styledrop: Run, tiny_model: Path) -> None:
    code, out, _ = styledrop("models", "things", tiny_model)
    assert code == 0
    assert sorted(out.splitlines()) == sorted(tiny.CONTENTS)  # a name a line, for other programs
    things = json.loads(styledrop("models", "things", tiny_model, "--json").out)["things"]
    assert sorted(name for names in things.values() for name in names) == sorted(tiny.CONTENTS)
    assert styledrop("models", "things", "--find", "teapots").out == "a teapot\n"  # of pocket
    code, out, err = styledrop("models", "things", "--find", "teapott")
    assert (code, out) == (1, "") and "did you mean teapot?" in err
    assert styledrop("models", "list", "--find", "cat").code == 2


def test_each_line_of_a_list_is_warned_of(styledrop: Run, tiny_model: Path) -> None:
    """Those concerned alone, in a sentence, and no more than a screen holds."""
    lines = ["a cat", "a zyx", "a dog", *(f"a zy{chr(97 + i)}w" for i in range(12))]
    Path("list.txt").write_text("\n".join(lines))
    given = ("--prompts", "list.txt", "-n", "1", "--steps", "1", "--model", tiny_model)
    code, _, err = styledrop("generate", "--base-only", *given)
    assert code == 0
    warned = [line for line in err.splitlines() if line.startswith("Warning: ")]
    assert warned[0] == "Warning: list.txt, line 2: tiny does not know 'zyx'; it may draw something else"
    assert len(warned) == 11
    assert warned[-1].endswith("in 3 more lines, the last of them list.txt, line 15")
