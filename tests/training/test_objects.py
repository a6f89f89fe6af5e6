"""Learning an object: what it is told, what its file says of itself, and what is for styles alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from conftest import Outcome, Run, draw
from styledrop_cli.adapters.file import examples_of, open_adapter, references_of
from styledrop_cli.adapters.header import AdapterFile, load_adapter
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.errors import UsageError
from styledrop_cli.io.tensors import read_tensors
from styledrop_cli.judging import probes
from styledrop_cli.settings import TrainSettings
from styledrop_cli.training.adapter import train_adapter, train_on_picks

STEPS = 3
OUTPUT = Path("mydog.safetensors")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.base(tmp_path_factory.mktemp("base") / "tiny")


def learn(
    base: Base,
    contents: list[str] | None = None,
    *,
    said: list[str] | None = None,
    style: str = "",
    output: Path = OUTPUT,
    on_step: Callable[[int, int, float], None] = lambda step, total, loss: None,
    **settings: Any,
) -> AdapterFile:
    """An object of as many pictures as ``contents``, which all are alike."""
    draw(48, 32).save("dog.png")
    contents = ["my dog"] if contents is None else contents
    usual: dict[str, Any] = {"steps": STEPS, "width": 2, "batch_size": 2, "views": 3, "learn": "object"}
    train_adapter(
        base,
        pictures=[Path("dog.png")] * max(1, len(contents)),
        style=style,
        contents=contents,
        settings=TrainSettings.of("bottleneck", **(usual | settings)),
        output=output,
        on_step=on_step,
        on_message=(said if said is not None else []).append,
    )
    return load_adapter(output)


def test_it_is_told_its_names_and_no_style(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    text_states = Base.text_states

    def watched(self: Base, texts: list[str], *network: Any) -> Any:
        told.extend(texts)
        return text_states(self, texts, *network)

    monkeypatch.setattr(Base, "text_states", watched)
    learn(base, ["my dog", "my sleeping dog"])
    assert told == ["my dog", "my sleeping dog"]


def test_the_last_step_is_taken_and_nothing_drawn(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes.Probes, "__init__", None)
    file = learn(base)
    assert file.header.step == STEPS
    run = Path(f"{OUTPUT}.run")
    assert not list(run.glob("*.png"))
    assert json.loads((run / "curve.json").read_text())["chosen"] == STEPS


def test_its_file_says_what_it_is(base: Base) -> None:
    file = learn(base, ["my dog", "my sleeping dog", "my dog"])
    header = file.header.to_json()
    assert (header["learns"], header["style"], header["settings"]["learn"]) == ("object", "", "object")
    assert header["settings"]["checkpoints"] == 0
    assert header["contents"] == ["my dog", "my sleeping dog", "my dog"]
    metadata = read_tensors(file.path)[1]
    assert metadata["modelspec.title"] == "my dog, my sleeping dog"
    assert "'my dog, my sleeping dog', learnt from 3 picture(s)" in metadata["modelspec.description"]
    assert "--object FILE" in metadata["modelspec.usage_hint"]
    assert len(examples_of(file).whole) == 3
    open_adapter(base, file)


def test_names_of_its_own_are_no_unknown_words(base: Base) -> None:
    said: list[str] = []
    learn(base, ["rex the dog", "my dog", "a fluffo", "a fluffo"], said=said)
    assert [line for line in said if "does not know" in line] == [
        "Warning: tiny does not know 'fluffo'; name the content in plainer words (--content)."
    ]


@pytest.mark.parametrize(("contents", "style"), [([], ""), (["my dog"], "ink")])
def test_an_object_has_a_name_and_no_style(base: Base, contents: list[str], style: str) -> None:
    with pytest.raises(UsageError, match="a name to be called by"):
        learn(base, contents, style=style)
    assert not OUTPUT.exists()


def test_a_style_and_an_object_are_other_runs(base: Base) -> None:
    def stop(step: int, total: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    def style(**given: Any) -> AdapterFile:
        return learn(base, ["my dog"], style="ink", learn="style", checkpoints=0, **given)

    with pytest.raises(KeyboardInterrupt):
        style(on_step=stop)
    manifest = Path(f"{OUTPUT}.run/run.json")
    begun = json.loads(manifest.read_text())
    assert begun["settings"].pop("learn") == "style"
    manifest.write_text(json.dumps(begun))  # as it was begun before there were objects
    with pytest.raises(UsageError, match='learn: "style" there, "object" now'):
        learn(base)
    steps: list[int] = []
    assert style(on_step=lambda step, total, loss: steps.append(step)).header.learns == "style"
    assert steps == [STEPS]


def test_files_of_before_there_were_objects_are_styles(base: Base) -> None:
    file = learn(base, ["my dog"], style="ink", learn="style", checkpoints=0)
    settings = {name: value for name, value in file.header.settings.items() if name != "learn"}
    header = {name: value for name, value in file.header.to_json().items() if name != "learns"} | {"settings": settings}
    tiny.write_adapter(Path("old.safetensors"), file.tensors, header)
    old = load_adapter(Path("old.safetensors"))
    assert references_of(old).contents == ["my dog"]
    made = train_on_picks(
        base,
        old,
        ids=examples_of(old).whole,
        contents=["a cat"],
        settings=TrainSettings(steps=1, width=1, checkpoints=0),
        output=Path("round.safetensors"),
        about={"number": 2},
    )
    assert load_adapter(made.path).header.learns == "style"


def test_there_is_no_feedback_on_an_object(base: Base) -> None:
    file = learn(base)
    with pytest.raises(UsageError, match=r"mydog\.safetensors learnt an object, my dog, and no style"):
        train_on_picks(
            base,
            file,
            ids=examples_of(file).whole,
            contents=["a cat"],
            settings=TrainSettings(),
            output=Path("round.safetensors"),
            about={},
        )


# ---- the commands ----

LEARN = ("train", "ref.png", "ref.png", "--learn", "object")


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object of the model that the commands use."""
    folder = tmp_path_factory.mktemp("trained")
    draw().save(folder / "ref.png")
    train_adapter(
        load_base(str(tiny_model), tiny.CPU),
        pictures=[folder / "ref.png"],
        style="",
        contents=["my dog"],
        settings=TrainSettings.of("bottleneck", steps=2, views=2, learn="object"),
        output=folder / OUTPUT,
    )
    return folder / OUTPUT


def test_one_name_for_all_pictures_or_one_each(styledrop: Run, picture: Path, tiny_model: Path) -> None:
    model = ("--model", tiny_model, "--steps", "2", "-o", OUTPUT)
    code, out, err = styledrop(*LEARN, "--content", "my dog", *model)
    assert (code, out) == (0, f"{OUTPUT}\n"), err
    draws = f"styledrop generate style.safetensors 'my dog on ...' --object {OUTPUT} --model {tiny_model}"
    assert f"draw it in a style:  {draws}" in err
    assert "2 steps" in err
    assert load_adapter(OUTPUT).header.contents == ["my dog", "my dog"]
    code, out, err = styledrop(
        *LEARN, "--content", "my dog", "--content", "my wet dog", "--json", "-q", "--overwrite", *model
    )
    said = json.loads(out)
    assert (said["learns"], said["style"], said["contents"]) == ("object", "", ["my dog", "my wet dog"])
    shown = " ".join(styledrop("inspect", OUTPUT).out.split())
    assert "learns object style none contents my dog, my wet dog" in shown


def test_a_style_needs_its_words(styledrop: Run, picture: Path) -> None:
    code, out, err = styledrop("train", picture)
    assert (code, out) == (2, "")
    assert err.startswith("Error: missing option '--style'\nHint:  describe the style in a few words")


def refused(outcome: Outcome, *words: str) -> None:
    assert (outcome.code, outcome.out) == (2, ""), outcome.err
    for word in ("learnt an object, my dog, and no style", "Hint: ", *words):
        assert word in outcome.err


def test_what_is_for_styles_says_so(
    styledrop: Run, tiny_model: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shrink_rounds(monkeypatch)
    shutil.copy(trained, OUTPUT)
    to = ("--model", tiny_model, "-q")
    code, _, err = styledrop("generate", OUTPUT, "my dog", "-n", "2", "--steps", "2", *to)
    assert code == 0, err
    for command in (
        ("iterate", OUTPUT),
        ("report", OUTPUT),
        ("score", "styledrop-out"),
        ("sweep", OUTPUT, "my dog"),
    ):
        refused(styledrop(*command, *to), str(OUTPUT), "--object")
    assert not [path for path in Path().iterdir() if path.name not in (str(OUTPUT), "styledrop-out")]


def test_it_is_not_the_adapter_to_go_on_from(styledrop: Run, tiny_model: Path, trained: Path) -> None:
    shutil.copy(trained, OUTPUT)
    code, _, err = styledrop("iterate", "--model", tiny_model)
    assert code == 2
    assert "there is no adapter in this folder to improve" in err


def test_its_lora_says_the_object_elsewhere(styledrop: Run, picture: Path, tmp_path: Path) -> None:
    model = ("--model", tiny.write_published(tmp_path / "published"))
    small = ("--kind", "lora", "--rank", "2", "--steps", "1", "-q", "-o", OUTPUT)
    assert styledrop(*LEARN, "--content", "my dog", *small, *model).code == 0
    _, out, err = styledrop("convert", OUTPUT, "--json", *model)
    assert json.loads(out)["prompt"] == "my dog"
    assert "name the object in prompts, 'my dog'" in err
