"""What other programs read in a prompt is named and refused; what people write in prose is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Run
from styledrop_cli.errors import UsageError
from styledrop_cli.lists.foreign import foreign
from styledrop_cli.lists.prompts import read_lines, text_lines
from styledrop_cli.lists.wildcards import Template

CONSTRUCTS = [
    ("a (cat:1.2) and a dog", 2, "'(cat:1.2)' weighs words"),
    ("(a (red:0.5) cat:1.3)", 3, "weighs words"),
    ("((cat))", 0, "weighs words"),
    ("[[cat]]", 0, "weighs words"),
    ("(a cat)1.2", 0, "weighs words"),
    ("a cat:1.3", 4, "weighs words"),
    ("a cat++ there", 2, "weighs words"),
    ("a cat::2 in ink", 5, "weighs parts"),
    ("a [cat:dog:0.5]", 2, "changes a prompt"),
    ("a [fluffy:10] cat", 2, "changes a prompt"),
    ("a [cat::0.5]", 2, "changes a prompt"),
    ("a [cat|dog]", 2, "to and fro"),
    ("a cat AND a dog", 5, "'AND' joins prompts"),
    ("a cat BREAK a dog", 6, "parts a prompt"),
    ("a __bird__ there", 2, "names a file of words"),
    ("a __animals/birds*__", 2, "names a file of words"),
    ("a {0.5::red|1.5::blue} cat", 2, "likelier"),
    ("a {2$$red|blue} cat", 2, "several words at once"),
    ("a {1-2$$ and $$red|blue} cat", 2, "several words at once"),
    ("a ${colour} cat", 2, "variable"),
    ("a cat <lora:ink:0.8>", 6, "names an adapter"),
    ("a cat embedding:ink", 6, "names an embedding"),
    ("a cat –seed 5", 6, "begins with a dash that begins no option"),
    ("a cat —n 3", 6, "begins with a dash that begins no option"),
]


@pytest.mark.parametrize(("text", "at", "words"), CONSTRUCTS)
def test_constructs_of_other_programs(text: str, at: int, words: str) -> None:
    found = foreign(text)
    assert found is not None
    assert found[0] == at and words in found[1]
    with pytest.raises(UsageError, match=f"^here, column {at + 1}: "):
        Template.read(text, "here")
    with pytest.raises(UsageError, match="^x, line 2, column "):
        text_lines(f"a tree\n{text}", "x")


@pytest.mark.parametrize(
    "text",
    [
        "a cat (sleeping) and a dog [sketch]",
        "a clock (10:30), ratio 16:9 (or 4:3)",
        "a train at 10:30",
        "A CAT AND A DOG",
        "cats and dogs, a sand castle, a BREAKFAST",
        "a {red|blue|{dark|light} green} cat",
        "a snake_case word and _italics_",
        "a C++ logo, a 5+ sign",
        "a cat — asleep — in a box",
        "a cat —asleep— in a box",
        "a cat–dog",
        "the book: 'Birds', chapter 3",
        "a price of $5, 2$",
        "a < b > c",
        "an owl (Bubo bubo)",
        "a map, scale 1:1.5",
        "3-5 birds, -5 degrees",
        r"a \(cat:1.2\) and \[dog:0.5\]",
        r"\<lora:x:1>, \__bird__",
    ],
)
def test_prose(text: str) -> None:
    assert foreign(text) is None


def test_a_backslash_keeps_brackets() -> None:
    assert list(Template.read(r"a \(cat:1.2\) {red|blue}", "x").every()) == ["a (cat:1.2) red", "a (cat:1.2) blue"]
    assert list(Template.read(r"\<lora:x:1\> C:\art", "x").every()) == [r"<lora:x:1> C:\art"]


@pytest.mark.parametrize("row", ["a cat -n3", "a cat -n=3", "a cat -n 3"])
def test_options_as_people_write_them(row: str) -> None:
    (line,) = text_lines(row, "x")
    assert (line.text, line.options) == ("a cat", {"number": 3})


def test_no_option_is_drawn() -> None:
    with pytest.raises(UsageError, match="there is no option '-s'"):
        text_lines("a cat -s 5", "x")
    with pytest.raises(UsageError, match="--style says what only other programs read"):
        text_lines('a cat --style "(ink:1.2)"', "x")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.json", '["a cat"]', "p.json is JSON"),
        ("p.txt", '[\n {"prompt": "a cat"}\n]', "p.txt is JSON"),
        ("p.yaml", "- a cat\n", "p.yaml is YAML"),
        ("p.YML", "prompts: [a cat]\n", "p.YML is YAML"),
        ("p.jsonl", '{"text": "a cat"}\n{"text": "a dog"}\n', "p.jsonl is JSON"),
    ],
)
def test_files_that_are_no_lists_of_prompts(name: str, text: str, words: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(UsageError, match=words) as error:
        read_lines(Path(name))
    assert ".toml" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "--base-only", "a (cat:1.2)"), "a prompt: '(cat:1.2)' weighs words"),
        (("generate", "--base-only", "a cat --seed 5"), "a prompt holds an option: --seed"),
        (("generate", "--base-only", "a cat", "--style", "<lora:x:1>"), "--style: '<lora:x:1>' names an adapter"),
        (("generate", "--base-only", "a cat", "--negative", "(blurry:1.4)"), "--negative: '(blurry:1.4)' weighs"),
        (("generate", "--base-only", "list.txt"), "list.txt is a file, and no prompt"),
        (("train", "ref.png", "--style", "((ink))"), "--style: '((ink))' weighs words"),
        (("train", "ref.png", "--style", "ink", "--content", "a [cat|dog]"), "a --content: '[cat|dog]' goes"),
    ],
)
def test_refused_before_anything_is_loaded(
    styledrop: Run, picture: Path, arguments: tuple[str, ...], words: str
) -> None:
    Path("list.txt").write_text("a cat\n")
    code, _, err = styledrop(*arguments)
    assert code == 2 and words in " ".join(err.split())


def test_unknown_words_of_style_and_negative_are_named(styledrop: Run, tiny_model: Path) -> None:
    given = ("--style", "zyx", "--negative", "quux", "-n", "1", "--steps", "1", "--model", tiny_model)
    err = " ".join(styledrop("generate", "--base-only", "a cat", *given).err.split())
    assert "does not know 'zyx', 'quux'" in err
