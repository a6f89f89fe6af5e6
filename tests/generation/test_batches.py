"""Many pictures into a folder: files of prompts, wildcards, what is there already, sheets, mixtures."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import Run, draw
from styledrop_cli.generation import output_folder, pipeline
from styledrop_cli.generation.output_folder import PAGE, Batch, identity
from styledrop_cli.io.images import load_picture, read_png_settings, save_png

LEARN = ("--steps", "1", "--checkpoints", "0", "-q")


LEARNT: dict[str, bytes] = {}  # adapter files by name: learnt once for all tests


@pytest.fixture
def folder(styledrop: Run, picture: Path, tiny_model: Path) -> tuple[str, ...]:
    """Two styles and an object, learnt; the options that say which base."""
    model = ("--model", str(tiny_model))
    for name, what in {
        "ink.safetensors": ("--style", "ink", "--content", "a cat"),
        "gold.safetensors": ("--style", "gold leaf", "--content", "a cat"),
        "dog.safetensors": ("--learn", "object", "--content", "my dog"),
    }.items():
        if name not in LEARNT:
            assert styledrop("train", picture, *what, "-o", name, *LEARN, *model).code == 0
            LEARNT[name] = Path(name).read_bytes()
        Path(name).write_bytes(LEARNT[name])
    return model


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts of what is really drawn."""
    prompts: list[str] = []
    real = pipeline.draw

    def watched(base: Any, mixture: Any, wanted: Any, *rest: Any, **more: Any) -> Any:
        for index, image in real(base, mixture, wanted, *rest, **more):
            prompts.append(wanted[index].prompt)
            yield index, image

    monkeypatch.setattr(pipeline, "draw", watched)
    return prompts


def made(out: str) -> dict[str, dict[str, Any]]:
    """What each picture says of itself, by its name."""
    return {one["path"]: read_png_settings(Path(one["path"])) or {} for one in json.loads(out)["pictures"]}


FAST = ("--steps", "2", "--json", "-q", "-o", "out")


# ---- files of prompts ----


def test_a_file_of_prompts(styledrop: Run, folder: tuple[str, ...]) -> None:
    Path("prompts.txt").write_text(
        "# animals\na cat --seed 5 -n 2\n\n"
        'a dog --lambda-a 1.5 --negative "a cat" --name hero --style ""\n"a red cat"\n'
    )
    code, out, err = styledrop("generate", "ink.safetensors", "--prompts", "prompts.txt", "-n", "1", *FAST, *folder)
    assert code == 0, err
    files = made(out)
    assert list(files) == [f"out/{name}.png" for name in ("a-cat-5", "a-cat-6", "a-dog-0", "a-red-cat-0")]
    dog = files["out/a-dog-0.png"]
    assert (dog["lambda_a"], dog["negative"], dog["style"], dog["steps"]) == (1.5, "a cat", "", 2)
    assert files["out/a-cat-5.png"]["style"] == "ink"
    assert set(json.loads(out)["settings"]) >= {"steps", "adapter", "model"}
    assert "lambda_a" not in json.loads(out)["settings"]  # not all are alike
    code, out, _ = styledrop(
        "generate",
        "ink.safetensors",
        "--prompts",
        "prompts.txt",
        "-n",
        "1",
        "--name",
        "{name}-{index:02}",
        *FAST,
        *folder,
    )
    assert [Path(path).name for path in made(out)] == [
        "a-cat-01.png",
        "a-cat-02.png",
        "hero-03.png",
        "a-red-cat-04.png",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "p.toml",
            'negative = "red"\n[[prompt]]\ntext = "a cat"\nseed = 3\n[[prompt]]\ntext = "a dog"\nlambda-b = 2\n',
        ),
        ("p.csv", "prompt,seed,lambda_b,negative\na cat,3,,red\na dog,,2,red\n"),
        ("p.txt", "a cat --seed 3 --negative red\na dog --lambda-b 2 --negative red\n"),
    ],
)
def test_every_format_says_the_same(styledrop: Run, folder: tuple[str, ...], name: str, text: str) -> None:
    Path(name).write_text(text)
    code, out, err = styledrop("generate", "ink.safetensors", "--prompts", name, "-n", "1", *FAST, *folder)
    assert code == 0, err
    cat, dog = made(out).values()
    assert (cat["prompt"], cat["seed"], cat["negative"]) == ("a cat", 3, "red")
    assert (dog["prompt"], dog["seed"], dog["lambda_b"], dog["negative"]) == ("a dog", 0, 2, "red")


def test_standard_input(styledrop: Run, folder: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a cat\na dog --seed 9\n")))
    code, out, _ = styledrop("generate", "--base-only", "a tree", "--prompts", "-", "-n", "1", *FAST, *folder)
    assert code == 0
    assert list(made(out)) == [f"out/{name}.png" for name in ("a-tree-0", "a-cat-0", "a-dog-9")]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a cat\na dog --sed 9\n")))
    code, _, err = styledrop("generate", "--base-only", "--prompts", "-", *FAST, *folder)
    assert code == 2
    assert "standard input, line 2, column 7" in err and "--seed" in err


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a caf\xe9\n", "line 1, column 6: these bytes are no text in UTF-8"),
        ("a tree\na cat\n".encode("utf-16-le"), "line 1, column 2: these bytes are no text in UTF-8"),
        ("a tree\r\na café, 猫".encode("utf-8-sig"), ""),
        ("a tree\na café, 猫".encode("utf-16"), ""),
        ("\ufeffa tree\na café, 猫".encode("utf-16-be"), ""),
        ("a tree\na café, 猫".encode("utf-32"), ""),
        (b"\xff\xfea\0\x00\xd8", "these bytes are no text in UTF-16"),
        (b"", "standard input holds no prompts"),
    ],
)
def test_standard_input_is_read_as_a_file_is(
    styledrop: Run, folder: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, data: bytes, words: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "ascii"))
    Path("prompts.txt").write_bytes(data)
    by_pipe, by_file = (
        styledrop("generate", "--base-only", "--prompts", source, "-n", "1", *FAST, *folder)
        for source in ("-", "prompts.txt")
    )
    assert by_pipe.code == by_file.code == (2 if words else 0)
    if words:
        assert words in " ".join(by_pipe.err.split()), by_pipe.err
        assert by_file.err.replace("prompts.txt", "standard input").split() == by_pipe.err.split()
    else:
        assert [one["prompt"] for one in made(by_pipe.out).values()] == ["a tree", "a café, 猫"]


def test_names_of_files_that_are_no_text(styledrop: Run, folder: tuple[str, ...]) -> None:
    """A file may be called anything by the system; where a name is stored, "?" stands for what is no letter."""
    name, picture = os.fsdecode(b"\xff.safetensors"), os.fsdecode(b"ref\xff.png")
    os.rename("ink.safetensors", name)
    os.rename("ref.png", picture)
    quick = ("--steps", "1", "-n", "1", "-q", *folder)
    assert styledrop("generate", name, "a cat", "-o", "out", *quick).code == 0
    assert (read_png_settings(Path("out/a-cat-0.png")) or {})["adapter"] == "?.safetensors"
    assert styledrop("generate", name, "a cat", "-o", "out", *quick).code == 0
    assert len(list(Path("out").glob("a-cat*"))) == 1
    assert styledrop("generate", "--mix", f"{name}:1", "a dog", "-o", "out", *quick).code == 0
    assert styledrop("edit", picture, "a dog", "--restyle", "0.5", "--adapter", name, "-o", "out", *quick).code == 0
    assert styledrop("alphabet", name, "--letters", "a", "--steps", "1", "-q", "-o", "out", *folder).code == 0
    assert styledrop("merge", f"{name}:0.5", "gold.safetensors:0.5", "-o", "m.safetensors", "-q", *folder).code == 0
    assert "?.safetensors" in styledrop("inspect", "m.safetensors").out
    learn = ("train", picture, "--style", "x", "--content", "a cat", "-o", "t.safetensors")
    assert styledrop(*learn, *LEARN, *folder).code == 0
    assert styledrop("score", "out/a-cat-0.png", "--reference", picture, "-q", *folder).code == 0


def test_wildcards(styledrop: Run, folder: tuple[str, ...]) -> None:
    code, out, _ = styledrop(
        "generate", "--base-only", "a {red|{small|} blue} {cat|dog}", "--combinations", "-n", "1", *FAST, *folder
    )
    assert code == 0
    assert [said["prompt"] for said in made(out).values()] == [
        f"a {colour} {thing}" for colour in ("red", "small blue", "blue") for thing in ("cat", "dog")
    ]
    chance = ("generate", "--base-only", "a {cat|dog|tree|house}", "-n", "8", *FAST, *folder)
    by_chance = made(styledrop(*chance).out)
    assert len({said["prompt"] for said in by_chance.values()}) > 1
    assert made(styledrop(*chance).out) == by_chance  # the seeds decide
    fewer = made(styledrop(*chance[:3], "-n", "2", *FAST, *folder).out)
    assert fewer.items() <= by_chance.items()


# ---- what is there already ----


def test_what_is_there_is_not_drawn_again(styledrop: Run, folder: tuple[str, ...], drawn: list[str]) -> None:
    Path("p.txt").write_text("a cat\na dog\na tree\n")
    command = ("generate", "ink.safetensors", "--prompts", "p.txt", "-n", "2", "--steps", "2", "-o", "out", *folder)
    first = styledrop(*command)
    assert first.code == 0 and len(drawn) == 6
    drawn.clear()
    again = styledrop(*command)
    assert again.out == first.out
    assert "6 of 6 pictures were there already" in again.err and drawn == []
    Path("out/a-dog-1.png").unlink()
    Path("out/a-tree-0.png").write_bytes(Path("out/a-tree-0.png").read_bytes()[:-200])  # cut short by another program
    repaired = styledrop(*command)
    assert drawn == ["a dog", "a tree"]
    assert repaired.code == 0
    assert "out/a-tree-0-2.png" in repaired.out  # what is broken is not ours to replace
    drawn.clear()
    Path("p.txt").write_text("a tree\na house\na cat\n")
    assert styledrop(*command).code == 0
    assert drawn == ["a house", "a house"]


def test_another_adapter_of_that_name_draws_other_pictures(
    styledrop: Run, folder: tuple[str, ...], drawn: list[str]
) -> None:
    command = ("generate", "ink.safetensors", "a cat", "-n", "1", *FAST, *folder)
    assert styledrop(*command).code == 0
    os.replace("gold.safetensors", "ink.safetensors")
    out = styledrop(*command, "--style", "ink").out
    assert list(made(out)) == ["out/a-cat-0-2.png"] and len(drawn) == 2


def test_a_picture_is_what_its_hashes_shares_and_settings_are(
    styledrop: Run, folder: tuple[str, ...], drawn: list[str]
) -> None:
    """Not what its files are called, nor which version drew it."""
    for name, where in (("ink", "a"), ("gold", "b"), ("dog", "c")):
        Path(where).mkdir()
        styledrop("train", "ref.png", "--style", name, "--content", "a cat", "-o", f"{where}/adapter.safetensors",
                  *LEARN, *folder)  # fmt: skip

    def draw(*mix: str) -> dict[str, dict[str, Any]]:
        given = (option for one in mix for option in ("--mix", one))
        return made(styledrop("generate", *given, "a cat", "--style", "x", "-n", "1", *FAST, *folder).out)

    names = [f"{where}/adapter.safetensors" for where in "abc"]
    first = draw(*(f"{name}:{share}" for name, share in zip(names, (0.6, 0.1, 0.3), strict=True)))
    assert first["out/a-cat-0.png"]["shares"] == [0.6, 0.1, 0.3] and len(drawn) == 1
    assert list(draw(*(f"{name}:{share}" for name, share in zip(names, (0.1, 0.6, 0.3), strict=True)))) == [
        "out/a-cat-0-2.png"
    ]
    assert len(drawn) == 2
    for where in "abc":
        os.replace(f"{where}/adapter.safetensors", f"{where}.safetensors")
    moved = [f"{where}.safetensors:{share}" for where, share in zip("abc", (0.6, 0.1, 0.3), strict=True)]
    assert list(draw(*moved)) == ["out/a-cat-0.png"] and len(drawn) == 2
    assert list(draw(*reversed(moved))) == ["out/a-cat-0-3.png"]  # in order: rounding is another


def test_what_does_not_change_a_picture_does_not_change_its_identity() -> None:
    said = {"prompt": "a cat", "seed": 1, "adapter": "x", "adapter_hash": "ab+cd", "mix": {"x": 0.6, "y": 0.4},
            "shares": [0.6, 0.4], "steps": 3, "model": "pocket", "model_hash": "ef", "styledrop": "0.1"}  # fmt: skip
    same = identity(said)
    assert identity(said | {"adapter": "z", "model": "p", "styledrop": "9", "mix": {"z": 0.6, "y": 0.4}}) == same
    assert identity(said | {"top_k": 0}) == same  # a setting that came later, at its default
    old = {name: value for name, value in said.items() if name != "shares"}
    assert identity(old) == same
    # Of namesakes only one was written then, and which share was whose is lost.
    assert identity(old | {"mix": {"x": 1.0}}) not in (same, identity(said | {"shares": [1.0, 0.0]}))
    others = (
        {"seed": 2},
        {"steps": 4},
        {"shares": [0.4, 0.6]},
        {"adapter_hash": "cd+ab"},
        {"top_k": 5},
        {"gamma": 0.6},
    )
    assert len({same, *(identity(said | one) for one in others)}) == 7


def test_stopped_it_goes_on(
    styledrop: Run, folder: tuple[str, ...], drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("generate", "--base-only", "a cat", "a dog", "-n", "3", "--steps", "2", "-o", "out", *folder)
    real = Batch.save

    def stop(self: Batch, index: int, image: Any) -> Path:
        if index == 4:
            raise KeyboardInterrupt
        return real(self, index, image)

    with monkeypatch.context() as patched:
        patched.setattr(Batch, "save", stop)
        assert styledrop(*command).code == 130
    assert len(list(Path("out").iterdir())) == 4
    drawn.clear()
    assert styledrop(*command).code == 0
    assert drawn == ["a dog", "a dog"]


def test_a_sheet_shows_what_is_there_now(styledrop: Run, folder: tuple[str, ...]) -> None:
    draw = ("generate", "--base-only", "a cat", "-n", "2", "--json", *folder)
    first = json.loads(styledrop(*draw, "--steps", "2").out)
    assert json.loads(styledrop(*draw, "--steps", "2").out)["sheets"] == first["sheets"]
    for one in first["pictures"]:
        Path(one["path"]).unlink()
    then = json.loads(styledrop(*draw, "--steps", "3").out)
    assert then["pictures"] == first["pictures"]
    assert then["sheets"] != first["sheets"]


def test_the_same_prompt_twice_is_one_picture(styledrop: Run, folder: tuple[str, ...], drawn: list[str]) -> None:
    code, out, _ = styledrop("generate", "--base-only", "a cat", "a cat", "-n", "1", "--steps", "2", *folder)
    assert code == 0 and drawn == ["a cat"]
    assert out.split() == ["styledrop-out/a-cat-0.png", "styledrop-out/sheet.png"]


def test_a_name_taken_meanwhile_is_left_alone(tmp_path: Path) -> None:
    batch = Batch(tmp_path, ["a", "a", "b"], [{"seed": 1}, {"seed": 2}, {"seed": 1}].__getitem__)
    assert [path.name for path in batch.paths] == ["a.png", "a-2.png", "b.png"]
    save_png(draw(), tmp_path / "a.png", {"seed": 7})
    assert batch.save(0, draw()) == tmp_path / "a-3.png"
    assert batch.paths[0] == tmp_path / "a-3.png"
    save_png(draw(), tmp_path / "a-2.png", {"seed": 2})  # another process has drawn the very same
    before = (tmp_path / "a-2.png").stat().st_mtime_ns
    assert batch.save(1, draw()) == tmp_path / "a-2.png"
    assert (tmp_path / "a-2.png").stat().st_mtime_ns == before
    again = Batch(tmp_path, ["a", "a"], [{"seed": 2}, {"seed": 1}].__getitem__)  # in any order
    assert [path.name for path in again.paths] == ["a-2.png", "a-3.png"] and again.missing == []


def test_what_is_set_otherwise_has_it_in_its_name(tmp_path: Path) -> None:
    def said(**settings: object) -> dict[str, object]:
        return {"prompt": "a cat", "seed": 0, "adapter_hash": "ab", **settings}

    def names(*abouts: dict[str, object]) -> list[str]:
        batch = Batch(tmp_path, ["a-cat-0"] * len(abouts), abouts.__getitem__)
        return [batch.save(index, draw()).name for index in range(len(abouts))]

    strong, fast = said(lambda_b=3.0), said(steps=8, guidance_every=4)
    made = {name: (tmp_path / name).stat().st_mtime_ns for name in names(strong, said(), fast)}
    assert list(made) == [
        "a-cat-0.png",
        "a-cat-0-lambda-b-1.5.png",
        "a-cat-0-steps-8-lambda-b-1.5-guidance-every-4.png",
    ]
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in names(fast, strong, said())} == made  # nothing anew
    assert names(said(negative="two heads")) == ["a-cat-0-lambda-b-1.5-negative-two-heads.png"]
    assert names(said(steps=8, adapter_hash="cd")) == ["a-cat-0-steps-8-lambda-b-1.5.png"]
    assert names(strong | {"adapter_hash": "cd"}) == ["a-cat-0-2.png"]  # another adapter, set alike
    assert names(strong | {"adapter_hash": "ef"}) == ["a-cat-0-3.png"]
    # Pictures that were named before settings stood in names are found, too.
    save_png(draw(), tmp_path / "b.png", {"seed": 1})
    save_png(draw(), tmp_path / "b-2.png", {"seed": 1, "lambda_b": 3.0})
    assert Batch(tmp_path, ["b"], [{"seed": 1, "lambda_b": 3.0}].__getitem__).missing == []


def test_two_stems_never_share_a_name(tmp_path: Path) -> None:
    save_png(draw(), tmp_path / "a.png", {"seed": 9})
    batch = Batch(tmp_path, ["a", "a-2", "a"], [{"seed": 1}, {"seed": 2}, {"seed": 3}].__getitem__)
    assert len(set(batch.paths)) == 3 == len(batch.missing)


def test_ten_thousand_of_one_name_are_placed_at_once(tmp_path: Path) -> None:
    said = [{"seed": seed} for seed in range(10_000)]
    batch = Batch(tmp_path, ["a"] * len(said), said.__getitem__)
    assert len(set(batch.paths)) == len(said) == len(batch.missing)


# ---- sheets ----


def test_sheets(styledrop: Run, folder: tuple[str, ...], tmp_path: Path) -> None:
    quick = ("--steps", "1", "-o", "out", "-q", *folder)
    assert styledrop("generate", "--base-only", "a cat", "a dog", "-n", "1", "--no-sheet", *quick).out.count("png") == 2
    number = PAGE + 5
    out = styledrop("generate", "--base-only", "a cat", "-n", str(number), "--size", "16", *quick).out.split()
    assert out[-2:] == ["out/sheet-1-of-2.png", "out/sheet-2-of-2.png"] and len(out) == number + 2
    about = read_png_settings(Path(out[-1]))
    assert about is not None and len(about["sheet_of"]) == 5
    assert load_picture(Path(out[-2])).width > load_picture(Path(out[-1])).width / 2


@pytest.mark.parametrize(
    ("more", "title", "labels"),
    [
        ((), "tiny, no adapter · steps 1", ["a cat · 0", "a cat · 1", "a dog · 7 · lambda_b 3"]),
        (("--lambda-a", "3"), "tiny, no adapter · steps 1, lambda_a 3", None),
        (("--negative", "red"), "tiny, no adapter · steps 1, negative red", None),
    ],
)
def test_a_sheet_names_the_settings_that_are_not_the_usual_ones(
    styledrop: Run,
    folder: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    title: str,
    labels: list[str] | None,
) -> None:
    """Those of all pictures once, above; those of some below these."""
    written: list[tuple[Any, ...]] = []
    real = output_folder.contact_sheet
    monkeypatch.setattr(output_folder, "contact_sheet", lambda *given: written.append(given) or real(*given))
    Path("p.txt").write_text("a cat -n 2\na dog --seed 7 --lambda-b 3 -n 1\n")
    command = ("generate", "--base-only", "--prompts", "p.txt", "--steps", "1", "-o", "out", "-q", *more, *folder)
    assert styledrop(*command).code == 0
    ((_, _, below, head, _),) = written
    assert head == title and (labels is None or below == labels)


# ---- one picture ----


def test_a_picture_may_be_named_where_one_is_drawn(styledrop: Run, folder: tuple[str, ...], drawn: list[str]) -> None:
    one = ("generate", "--base-only", "a cat", "-n", "1", "--steps", "1", "-q", *folder)
    for _ in range(2):
        assert styledrop(*one, "-o", "made/pic.png").out.split() == ["made/pic.png"]
    assert [path.name for path in Path("made").iterdir()] == ["pic.png"] and drawn == ["a cat"]
    assert styledrop(*one, "-o", "pic.png").out.split() == ["pic.png"]
    assert styledrop(*one, "--seed", "1", "-o", "pic.png").out.split() == ["pic-2.png"]  # another one is kept
    Path("folder.png").mkdir()
    assert styledrop(*one, "-o", "folder.png").out.split() == ["folder.png/a-cat-0.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "pic.png"), "pic.png names one picture, and 4 are to be drawn"),
        (("a dog", "-n", "1", "-o", "pic.png"), "pic.png names one picture, and 2 are to be drawn"),
        (("-n", "1", "-o", "pic.jpg"), "pic.jpg names no PNG, and pictures are written as PNG"),
    ],
)
def test_one_name_is_not_for_several_pictures(styledrop: Run, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = styledrop("generate", "--base-only", "a cat", *arguments)
    assert (code, out, list(Path().iterdir())) == (2, "", [])
    assert words in " ".join(err.split()) and "Hint: " in err


# ---- mixtures ----


def test_mixtures(styledrop: Run, folder: tuple[str, ...]) -> None:
    def pixels(*arguments: str) -> bytes:
        code, out, err = styledrop("generate", *arguments, "-n", "1", *FAST, *folder)
        assert code == 0, err
        return load_picture(Path(json.loads(out)["pictures"][0]["path"])).tobytes()

    ink, gold = ("--mix", "ink.safetensors:1"), ("--mix", "gold.safetensors:0")
    alone = pixels("ink.safetensors", "a cat")
    assert pixels(*ink, "a cat") == alone
    assert pixels(*ink, *gold, "--style", "ink", "a cat") == alone
    both = ("--mix", "ink.safetensors", "--mix", "gold.safetensors", "a cat")
    assert pixels(*both) == pixels("--mix", "ink.safetensors:0.5", "--mix", "gold.safetensors:0.5", "a cat")
    assert pixels("ink.safetensors", "my dog", "--object", "dog.safetensors", "--gamma", "0") == pixels(
        "ink.safetensors", "my dog"
    )
    about = made(styledrop("generate", *both, "--object", "dog.safetensors", "-n", "1", *FAST, *folder).out)
    (said,) = about.values()
    assert said["mix"] == {"ink.safetensors": 0.5, "gold.safetensors": 0.5}
    assert (said["style"], said["object"], said["gamma"]) == ("ink and gold leaf", "dog.safetensors", 0.6)
    assert pixels("--base-only", "my dog", "--object", "dog.safetensors", "--style", "ink")


def test_the_guard(styledrop: Run, folder: tuple[str, ...]) -> None:
    """It acts on what does not ask for the reference's own thing, is in the file, and 0 is as if it were not there."""

    def drawn_with(*arguments: str) -> tuple[bytes, dict[str, Any], str]:
        code, out, err = styledrop("generate", *arguments, "-n", "1", *FAST, *folder)
        assert code == 0, err
        ((path, said),) = made(out).items()
        return load_picture(Path(path)).tobytes(), said, err

    for prompt, acts in (("a dog", True), ("a red cat in the snow", False), ("two cats", False)):
        plain, said, _ = drawn_with("ink.safetensors", prompt)
        assert said["guard"] == 0
        assert drawn_with("ink.safetensors", prompt, "--guard", "0")[0] == plain
        guarded, said, err = drawn_with("ink.safetensors", prompt, "--guard", "2")
        assert (guarded != plain, said["guard"], "guard" in err) == (acts, 2, False)
    both = ("--mix", "ink.safetensors", "--mix", "gold.safetensors", "a dog")
    assert drawn_with(*both)[0] != drawn_with(*both, "--guard", "2")[0]
    Path("lines.txt").write_text("a dog --guard 2\n")
    assert (
        drawn_with("ink.safetensors", "--prompts", "lines.txt")[0]
        == drawn_with("ink.safetensors", "a dog", "--guard", "2")[0]
    )


def test_the_guard_says_where_it_does_nothing(styledrop: Run, folder: tuple[str, ...], picture: Path) -> None:
    assert styledrop("train", picture, "--style", "ink", "-o", "unsaid.safetensors", *LEARN, *folder).code == 0
    loud = [option for option in FAST if option != "-q"]
    for arguments, words in (
        (("unsaid.safetensors", "a dog"), "unsaid.safetensors does not say what its reference shows"),
        (("--base-only", "a dog"), "no style draws here"),
        (("--base-only", "my dog", "--object", "dog.safetensors"), "no style draws here"),
    ):
        pictures = []
        for guard in ("0", "1"):
            code, out, err = styledrop("generate", *arguments, "-n", "1", "--guard", guard, *loud, *folder)
            assert code == 0, err
            assert (words in " ".join(err.split())) == (guard == "1")
            pictures.append(load_picture(Path(next(iter(made(out))))).tobytes())
        assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mix", "ink.safetensors:0.6", "--mix", "gold.safetensors:0.6", "a cat"), "add up to 1.2, not to 1"),
        (("--mix", "ink.safetensors:-1", "--mix", "gold.safetensors:2", "a cat"), "Each must be 0 or more"),
        (("--mix", "ink.safetensors:nan", "a cat"), "not to 1"),
        (("--mix", "ink.safetensors:0.5", "--mix", "gold.safetensors", "a cat"), "1 of 2 adapters have a share"),
        (("--mix", "ink:0.5", "a cat"), "'ink' is no adapter file"),
        (("--mix", "ink.safetensors:half", "a cat"), "'half' is no share of ink.safetensors"),
        (("--mix", "gold.safetensors", "ink.safetensors", "a cat"), "say --mix ink.safetensors, too"),
        (("--mix", "gold.safetensors", "--base-only", "a cat"), "leave out one of the two"),
        (("--mix", "gold.safetensors"), "nothing to draw"),
        (("ink.safetensors", "a cat", "--gamma", "0.5"), "name its adapter with --object"),
        (("ink.safetensors", "a cat", "--object", "dog.safetensors", "--gamma", "2"), "gamma must be between 0 and 1"),
        (("ink.safetensors", "a {cat|dog"), "column"),
        (("ink.safetensors", "{|}"), "says nothing"),
        (("ink.safetensors", "{a|b}{a|b}{a|b}{a|b}{a|b}{a|b}" * 4, "--combinations"), "pictures are too many"),
        (("ink.safetensors", "--prompts", "nowhere.txt"), "nowhere.txt"),
        (("ink.safetensors", "--prompts", "bad.txt"), "bad.txt, line 2, column 7"),
        (("ink.safetensors", "a cat", "--name", "{title}"), "title"),
        (("ink.safetensors", "a cat", "--name", "x"), "the pattern 'x'"),
        (("ink.safetensors", "a cat", "--guard", "2.5"), "guard must be between 0 and 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_batch(
    styledrop: Run, folder: tuple[str, ...], arguments: tuple[str, ...], words: str
) -> None:
    Path("bad.txt").write_text("a cat\na dog --lambda-q 3\n")
    before = sorted(Path().iterdir())
    code, out, err = styledrop("generate", *arguments, *folder)
    assert (code, out) == (2, "")
    assert words in re.sub(r"\s+", " ", err)
    assert "Traceback" not in err
    assert sorted(Path().iterdir()) == before


def test_adapters_that_do_not_fit(styledrop: Run, folder: tuple[str, ...]) -> None:
    code, _, err = styledrop(
        "generate", "--mix", "ink.safetensors:1", "--mix", "nowhere.safetensors:0", "a cat", *folder
    )
    assert code == 1 and "nowhere.safetensors" in err
    code, _, err = styledrop("generate", "--mix", "ink.safetensors", "--mix", "gold.safetensors", "a cat")
    assert code == 1 and "another base" in err and "--model" in err
