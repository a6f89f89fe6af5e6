"""What other programs read in a prompt is named and refused; what people write in prose is not."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from conftest import Run
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists.foreign import foreign
from styledrop_cli.generation.lists.prompt_file import read_lines, text_lines
from styledrop_cli.generation.lists.wildcards import Template, escaped

CONSTRUCTS = [
    ("a (cat:1.2) and a dog", 2, "'(cat:1.2)' weighs words"),
    ("(a (red:0.5) cat:1.3)", 3, "weighs words"),
    ("((cat))", 0, "weighs words"),
    ("[[cat]]", 0, "weighs words"),
    ("(a cat)1.2", 0, "weighs words"),
    ("a cat:1.3", 2, "weighs words"),
    ("a cat++ there", 2, "weighs words"),
    ("a cat::2 in ink", 5, "weighs parts"),
    ("a [cat:dog:0.5]", 2, "changes a prompt"),
    ("a [fluffy:10] cat", 2, "changes a prompt"),
    ("a [cat::0.5]", 2, "changes a prompt"),
    ("a [cat|dog]", 2, "to and fro"),
    ("a cat AND a dog", 5, "joins prompts"),
    ("a cat BREAK a dog", 6, "parts a prompt"),
    ("a __bird__ there", 2, "names a file of words"),
    ("a __animals/birds*__", 2, "names a file of words"),
    ("a {0.5::red|1.5::blue} cat", 2, "likelier"),
    ("a {2$$red|blue} cat", 2, "several words at once"),
    ("a {1-2$$ and $$red|blue} cat", 2, "several words at once"),
    ("a ${colour} cat", 2, "variable"),
    ("a cat <lora:ink:0.8>", 6, "names an adapter"),
    ("a cat embedding:ink", 6, "names an embedding"),
    ("a cat –seed 5", 6, "is an option with the wrong dash"),
    ("a cat —n 3", 6, "is an option with the wrong dash"),
    ("(r2d2:1.2)", 0, "weighs words"),
    ("(masterpiece, 8k:1.2)", 0, "weighs words"),
    ("(a cat!:1.2)", 0, "weighs words"),
    ("(cat, :1.2)", 0, "weighs words"),
    ("(cat:2)", 0, "weighs words"),
    (r"(saber \(fate\):1.2)", 0, "weighs words"),
    ("(a (tall) cat:1.2)", 10, "weighs words"),
    ("(cat:1.2, dog", 1, "weighs words"),
    ("a cat:1.3, a dog", 2, "weighs words"),
    ("((a cat) in a hat)", 0, "weighs words"),
    ("[[a cat] in ink]", 0, "weighs words"),
    ("(a cat)++", 0, "weighs words"),
    ("(a cat)--, a dog", 0, "weighs words"),
    ("a cat++, a dog", 2, "weighs words"),
    ("hot:: dog", 3, "weighs parts"),
    ("1.2::a cat::, dog", 0, "weighs parts"),
    ("cat::1.5, dog", 3, "weighs parts"),
    ('("a cat", "a dog").blend(0.5, 0.5)', 18, "joins texts"),
    ("a cat.swap(dog)", 5, "joins texts"),
    ("[cat:dog:0.5, 0.8]", 0, "changes a prompt"),
    ("[cat:dog:50%]", 0, "changes a prompt"),
    ("a [dog: 0.5]", 2, "changes a prompt"),
    ("a cat AND_PERP a dog", 5, "joins prompts"),
    ("a cat AND A DOG", 5, "joins prompts"),
    ("a cat, BREAK, a dog", 7, "parts a prompt"),
    ("a cat ADDCOL a dog", 6, "parts a prompt"),
    ("<LORA:x:1>", 0, "names an adapter"),
    ("a <random:red,blue> cat", 2, "is an instruction"),
    ("a <setvar[x]:red> cat", 2, "is an instruction"),
    ("{@red|blue} cat", 0, "is an instruction"),
    ("{% for x in y %}", 0, "is an instruction"),
    ("Steps: 20, Sampler: Euler a, CFG scale: 7", 0, "says settings"),
    ("a cat, Negative prompt: blur", 7, "says what to keep away from"),
    ("a cat –Seed 5", 6, "is an option with the wrong dash"),
    ("a cat –-seed 5", 6, "is an option with the wrong dash"),
    ("a cat -–steps=4", 6, "is an option with the wrong dash"),
    ("a cat ‐‐lambda-b 2", 6, "is an option with the wrong dash"),
    ("a cat －n3", 6, "is an option with the wrong dash"),
    ("a cat –style ink", 6, "is an option with the wrong dash"),
    ("a cat -seed 5", 6, "is an option with the wrong dash"),
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
        r"a cat\:1.3, notepad\++, \–seed 5",
        "a clock [10:30:45], ((10:30))",
        "an f((x)) formula, so sad :(( and :-((",
        "a map (scale 1:1.5), (scale: 1:50), (John 3:16), (at 10:30)",
        "a sign [exit: 5], the year (AD:79), (scene 2: 3 cats)",
        "std::vector, a Disney+ castle, 18+",
        "a stair –steps of marble– at night, a cat –style icon– here",
        "vote YES AND NO",
        'a sign that says "BREAK", a BREAK-DANCE',
        "an __init__.py file, snake__case__name",
        "an address <https://x.org/a:b>, <3",
        "a cat -5 degrees, a T-shirt, x-ray",
        "(a cat (sleeping))",
    ],
)
def test_prose(text: str) -> None:
    assert foreign(text) is None


@pytest.mark.parametrize("start", ["", "(a", "[a:b:1", "\\(", "((a"])
@pytest.mark.parametrize(
    "unit", ["a", "(a", "a:", "[a:", "<a:", "1::", "::", "__a", "\\(", "a+", "a1:", "1,", "a ", " AND", "–style a "]
)
def test_no_text_takes_long(start: str, unit: str) -> None:
    began = time.process_time()
    foreign((start + unit * 10_000)[:10_000])
    assert time.process_time() - began < 1


def test_a_backslash_keeps_brackets() -> None:
    assert list(Template.read(r"a \(cat:1.2\) {red|blue}", "x").every()) == ["a (cat:1.2) red", "a (cat:1.2) blue"]
    assert list(Template.read(r"\<lora:x:1\> C:\art", "x").every()) == [r"<lora:x:1> C:\art"]


@pytest.mark.parametrize(
    "text",
    [
        *(text for text, _, what in CONSTRUCTS if what not in ("joins prompts", "parts a prompt")),
        "a (cat) [dog] {red|blue}",
        r"C:\art",
        "3 | 4",
    ],
)
def test_what_is_escaped_is_drawn_as_it_is(text: str) -> None:
    assert list(Template.read(escaped(text), "x").every()) == [text.replace("  ", " ")]


@pytest.mark.parametrize("row", ["a cat -n3", "a cat -n=3", "a cat -n 3"])
def test_options_as_people_write_them(row: str) -> None:
    (line,) = text_lines(row, "x")
    assert (line.text, line.options) == ("a cat", {"number": 3})


def test_no_option_is_drawn() -> None:
    with pytest.raises(UsageError, match="there is no option '-s'"):
        text_lines("a cat -s 5", "x")
    with pytest.raises(UsageError, match="--style cannot be drawn as it is"):
        text_lines('a cat --style "(ink:1.2)"', "x")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.json", '["a cat"]', "p.json is JSON"),
        ("p.txt", '[\n {"prompt": "a cat"}\n]', "p.txt is JSON"),
        ("p.yaml", "- a cat\n", "p.yaml is YAML"),
        ("p.YML", "prompts: [a cat]\n", "p.YML is YAML"),
        ("p.txt", '{"text": "a cat"}\n{"text": "a dog"}\n', "p.txt is JSON"),
        ("p.txt", 'prompts = ["a cat"]\n', "p.txt is TOML"),
        ("p.txt", '[[prompt]]\ntext = "a cat"\nseed = 3\n', "p.txt is TOML"),
        ("p.txt", "prompt,seed\na cat,5\n", "p.txt is CSV"),
        ("p", '"Prompt";"seed"\na cat;5\n', "p is CSV"),
        ("p.jsonl", '{"text": "a cat"}\n{"text": "a dog"}\n', "p.jsonl is JSON"),
    ],
)
def test_files_that_are_no_lists_of_prompts(name: str, text: str, words: str) -> None:
    Path(name).write_text(text)
    for read in (partial(read_lines, Path(name)), partial(text_lines, text, name)):
        if read.func is read_lines or Path(name).suffix in ("", ".txt"):  # by standard input there is no name
            with pytest.raises(UsageError, match=words) as error:
                read()
            assert ".toml" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "--base-only", "a (cat:1.2)"), "a prompt: '(cat:1.2)' weighs words"),
        (("generate", "--base-only", "a cat --seed 5"), "a prompt holds an option: --seed"),
        (("generate", "--base-only", "a cat", "--style", "<lora:x:1>"), "--style: '<lora:x:1>' names an adapter"),
        (("generate", "--base-only", "a cat", "--negative", "(blurry:1.4)"), "--negative: '(blurry:1.4)' weighs"),
        (("generate", "--base-only", "a cat -n 3"), "a prompt holds an option: -n"),
        (("generate", "--base-only", "a cat -n3"), "a prompt holds an option: -n"),
        (("edit", "ref.png", "a (hat:1.2)", "--restyle", "0.5"), "a prompt: '(hat:1.2)' weighs words"),
        (("sweep", "x.safetensors", "a cat AND a dog"), "a prompt: 'AND' joins prompts"),
        (("kit", "x.safetensors", "kit.toml"), "prompt cannot be drawn as it is: '(cat:1.2)' weighs words"),
        (("kit", "x.safetensors", "kit.toml"), "style cannot be drawn as it is: '<lora:x:1>' names"),
        (("generate", "--base-only", "list.txt"), "list.txt is a file, and no prompt"),
        (("train", "ref.png", "--style", "((ink))"), "--style: '((ink))' weighs words"),
        (("train", "ref.png", "--style", "ink", "--content", "a [cat|dog]"), "a --content: '[cat|dog]' goes"),
    ],
)
def test_refused_before_anything_is_loaded(
    styledrop: Run, picture: Path, arguments: tuple[str, ...], words: str
) -> None:
    Path("list.txt").write_text("a cat\n")
    Path("kit.toml").write_text('style = "<lora:x:1>"\n[[asset]]\nname = "x"\nprompt = "a (cat:1.2)"\n')
    code, _, err = styledrop(*arguments)
    assert code == 2 and words in " ".join(err.split())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.toml", 'prompts = ["a cat --seed 5"]', "an option stands inside the prompt: --seed"),
        ("p.csv", "prompt\na cat -n3\n", "line 2, column prompt, character 7: an option stands inside the prompt: -n"),
    ],
)
def test_no_option_is_drawn_from_tables(name: str, text: str, words: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(UsageError, match=words):
        read_lines(Path(name))


def test_unknown_words_of_style_and_negative_are_named(styledrop: Run, tiny_model: Path) -> None:
    given = ("--style", "zyx", "--negative", "quux", "-n", "1", "--steps", "1", "--model", tiny_model)
    err = " ".join(styledrop("generate", "--base-only", "a cat", *given).err.split())
    assert "does not know 'zyx', 'quux'" in err
