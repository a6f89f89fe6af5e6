"""Files of prompts, wildcards and names of files: what they mean, and what is said of each that is wrong."""

from __future__ import annotations

import math
import random
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from conftest import SOURCE
from styledrop_cli.errors import UsageError
from styledrop_cli.generation.lists import prompt_file
from styledrop_cli.generation.lists.file_names import check_pattern, stem
from styledrop_cli.generation.lists.options import OPTIONS
from styledrop_cli.generation.lists.prompt_file import Line, csv_lines, read_lines, text_lines, toml_lines, unquoted
from styledrop_cli.generation.lists.wildcards import Template
from styledrop_cli.io import text_files
from styledrop_cli.settings import LARGEST_SEED

PLACE = re.compile(r"^p\.\w+, (line \d+(, column [\w-]+)?(, character \d+)?|prompt \d+(, character \d+)?): ")
HERO = {"seed": 5, "number": 3, "lambda_a": 1.5, "negative": "blurry, dark", "style": "", "name": "hero"}


def read(text: str | bytes, suffix: str = ".txt") -> list[Line]:
    path = Path(f"p{suffix}")
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return read_lines(path)


def said(text: str | bytes, suffix: str = ".txt") -> list[tuple[str, dict[str, Any]]]:
    return [(line.text, dict(line.options)) for line in read(text, suffix)]


def refused(call: Callable[..., Any], *given: Any, **named: Any) -> UsageError:
    with pytest.raises(UsageError) as error:
        call(*given, **named)
    assert error.value.hint
    return error.value


# ---- text ----


@pytest.mark.parametrize(
    ("row", "text", "options"),
    [
        ("a cat", "a cat", {}),
        ("  a \t cat ", "a cat", {}),
        ("a cat --seed 5", "a cat", {"seed": 5}),
        ('a cat --seed 5 -n 3 --lambda-a 1.5 --negative "blurry, dark" --style "" --name hero', "a cat", HERO),
        ("a cat --lambda-a=1.5 --style= --negative='a b'", "a cat", {"lambda_a": 1.5, "style": "", "negative": "a b"}),
        ("a cat --lambda-b 2", "a cat", {"lambda_b": 2.0}),
        ("a cat --number 1000", "a cat", {"number": 1000}),
        (f"a cat --seed {LARGEST_SEED}", "a cat", {"seed": LARGEST_SEED}),
        ("a cat --temperature 1e1 --strength .5 --steps 9", "a cat", {"temperature": 10, "strength": 0.5, "steps": 9}),
        (r"a cat --name a\ b --negative " + r'"say \"x\" \n"', "a cat", {"name": "a b", "negative": r'say "x" \n'}),
        ('a cat --negative it"\'"s', "a cat", {"negative": "it's"}),
        ('a cat --negative "--dark"', "a cat", {"negative": "--dark"}),
        ('"a cat"', "a cat", {}),
        ("'a cat' -n 2", "a cat", {"number": 2}),
        ('"a sign that says --help" --seed 3', "a sign that says --help", {"seed": 3}),
        ('"a cat\'s hat" -n 1', "a cat's hat", {"number": 1}),
        ('"a" and "b" --seed 1', '"a" and "b"', {"seed": 1}),
        ('a sign, "open" --seed 1', 'a sign, "open"', {"seed": 1}),
        ("a cat's hat", "a cat's hat", {}),
        ("the dogs' and a cat's hat --seed 1", "the dogs' and a cat's hat", {"seed": 1}),
        ("a state-of-the-art toaster", "a state-of-the-art toaster", {}),
        ("well --- done -- or -not", "well --- done -- or -not", {}),
        ("so--called --7 cats", "so--called --7 cats", {}),
        ("a #1 cat", "a #1 cat", {}),
        ("a\0cat\x07\x1b[31m\x85!", "a cat [31m !", {}),
        (r"a \{cat\} {red|blue} C:\x", r"a \{cat\} {red|blue} C:\x", {}),
        ("кот\u00a0--seed 1", "кот", {"seed": 1}),
    ],
)
def test_a_line_of_text(row: str, text: str, options: dict[str, Any]) -> None:
    assert said(row) == [(text, options)]
    (line,) = text_lines(row, "standard input")
    assert (line.text, line.options, line.where) == (text, options, "standard input, line 1")
    assert {key: type(value) for key, value in line.options.items()} == {key: OPTIONS[key] for key in options}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_in_an_editor(end: str) -> None:
    text = end.join(["\ufeff# what to draw", "", "a cat", "  # not this", "a dog\u2028or two", " ", ""])
    for lines in (read(text), text_lines(text, "p.txt")):
        assert [(line.text, line.where) for line in lines] == [
            ("a cat", "p.txt, line 3"),
            ("a dog or two", "p.txt, line 5"),
        ]


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ("a cat --sed 5", 7, "no option '--sed'; did you mean '--seed'?"),
        ("a cat --lambda_a 5", 7, "did you mean '--lambda-a'?"),
        ("a cat --qqq", 7, "no option '--qqq'"),
        ("a cat --Seed 5", 7, "did you mean '--seed'?"),
        ("  a cat -n 0", 12, "-n must be between 1 and 1,000, not 0"),
        ("a cat --number=1001", 16, "--number must be between 1 and 1,000, not 1001"),
        ("a cat --seed -1", 14, "--seed must be between 0 and"),
        (f"a cat --seed {LARGEST_SEED + 1}", 14, f"not {LARGEST_SEED + 1}"),
        ("a cat --seed 1.5", 14, "--seed must be a whole number, not '1.5'"),
        ("a cat --seed " + "9" * 5000, 14, "--seed must be"),
        ("a cat --steps many", 15, "--steps must be a whole number, not 'many'"),
        ("a cat --lambda-a nan", 18, "--lambda-a must be between 0 and 50, not nan"),
        ("a cat --lambda-a inf", 18, "between 0 and 50"),
        ("a cat --lambda-a=", 18, "--lambda-a must be a number, not ''"),
        ("a cat --strength much", 18, "--strength must be a number, not 'much'"),
        ("a cat --seed", 7, "--seed has no value"),
        ("a cat -n", 7, "-n has no value"),
        ("a cat --seed --steps 3", 7, "--seed has no value"),
        ("a cat --seed 1 --seed 2", 16, "--seed is given twice"),
        ("a cat -n 1 --number 2", 12, "--number is given twice"),
        ("a cat --name ''", 14, "--name is empty"),
        ("a cat --seed 5 on a mat", 16, "'on' belongs to no option"),
        ("a cat --negative the dog's", 22, "'dog' belongs to no option"),
        ("a cat --negative dog's", 21, "this ' is never closed"),
        ('a cat --negative "a dog', 18, 'this " is never closed'),
        ("a cat --name x\\", 15, "nothing follows this \\"),
        ("--seed 5", 1, "there is no prompt"),
        ('"" --seed 5', 2, "there is no prompt"),
        (" a {cat", 4, "this { is never closed"),
        ('"a cat}" -n 1', 7, "this } closes nothing"),
        ("x" * 10_001, 1, "more than 10,000 characters"),
        ("a cat --negative " + "x" * 10_001, 18, "more than 10,000 characters"),
    ],
)
def test_a_wrong_line_of_text(row: str, column: int, words: str) -> None:
    error = refused(read, f"a dog\n\n{row}\n")
    assert error.message.startswith(f"p.txt, line 3, column {column}: ")
    assert words in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("suffix", "text", "places"),
    [
        (".txt", "-n 1\na --sed 1\na\na {b\na --seed x -n 0\na --steps 0\na }\n", "1 2 4 5 5"),
        (".csv", "prompt,seed\na,x\n{,\na,1\n,1\na,1,2\na,-1\n}}\n", "2 3 5 6 7"),
        (".toml", "".join(f'[[prompt]]\ntext = "a{x}"\n' for x in ("{", "", "}", "{", "{", "}", "}{")), "2 6 8 10 12"),
    ],
)
def test_everything_wrong_is_said_at_once(suffix: str, text: str, places: str) -> None:
    error = refused(read, text, suffix)
    *first, last = error.message.split("\n")
    assert [re.findall(r"line (\d+)", line)[0] for line in first] == places.split()
    assert all(PLACE.match(line) for line in first)
    assert re.fullmatch(r"and \d more", last)


def test_options_are_split_as_a_shell_does() -> None:
    """Where ours finds words is where a shell does, and it makes the same of them."""
    rng = random.Random(0)
    alike = 0
    for _ in range(2000):
        row = "".join(rng.choices("ab '\"\\é-=#$", k=rng.randint(1, 14)))
        words = list(prompt_file.WORD.finditer(row))
        try:
            expected = shlex.split(row)
        except ValueError:
            assert words[-1]["open"]
            continue
        assert [unquoted(word[0]) for word in words] == expected
        alike += 1
    assert alike > 500


def test_what_was_read_can_be_written_and_read_again() -> None:
    rng = random.Random(1)
    letters = "ab é猫\"'\\#=;,"
    for _ in range(100):
        options: dict[str, Any] = {
            "negative": " ".join("".join(rng.choices(letters, k=8)).split()),
            "seed": rng.randint(0, LARGEST_SEED),
            "lambda_b": rng.uniform(0, 50),
            "number": rng.randint(1, 1000),
            "name": f"x{rng.random()}",
        }
        text = " ".join(f"a{''.join(rng.choices(letters, k=9))}".split())
        flags = " ".join(f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in options.items())
        table = [list(options), list(options.values())]
        cells = [",".join('"{}"'.format(str(cell).replace('"', '""')) for cell in row) for row in table]
        keys = "\n".join(f"{key} = {_as_toml(value)}" for key, value in options.items())
        assert said(f"{text} {flags}") == [(text, options)]
        assert said(f"text,{cells[0]}\n" + '"{}",'.format(text.replace('"', '""')) + cells[1], ".csv") == [
            (text, {key: value for key, value in options.items() if value != ""})
        ]
        assert said(f"[[prompt]]\ntext = {_as_toml(text)}\n{keys}", ".toml") == [(text, options)]


def _as_toml(value: object) -> str:
    return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"')) if isinstance(value, str) else repr(value)


# ---- TOML ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('prompts = ["a cat", "a\\n dog"]', [("a cat", {}), ("a dog", {})]),
        ('[[prompt]]\ntext = "a cat"\nlambda-a = 2\nstyle = ""\n', [("a cat", {"lambda_a": 2.0, "style": ""})]),
        ('lambda_b = 3\nseed = 1\n[[prompt]]\ntext = "a"\nseed = 2', [("a", {"lambda_b": 3, "seed": 2})]),
        ('number = 1\nprompts=["a"]', [("a", {"number": 1})]),
        ('prompt = [{text = "a", seed = 1}, "b"]', [("a", {"seed": 1}), ("b", {})]),
        ('prompts = ["a"]\n[[prompt]]\ntext = """b\n  c"""', [("a", {}), ("b c", {})]),
        ('[[prompt]]\r\ntext = "a\\u0000b"\r\nsteps = "4"', [("a b", {"steps": 4})]),
    ],
)
def test_toml(text: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert said(text, ".toml") == expected
    assert said("\ufeff" + text, ".TOML") == expected


def test_places_of_prompts_in_toml() -> None:
    lines = read('seed = 1\n\n[[prompt]]\ntext = "a"\n # b\n [[ prompt ]]\ntext = "b"', ".toml")
    assert [line.where for line in lines] == ["p.toml, line 3", "p.toml, line 6"]
    assert [line.where for line in read('prompts = ["a", "b"]', ".toml")] == ["p.toml, prompt 1", "p.toml, prompt 2"]
    inside = '[[prompt]]\nname = """\n[[prompt]]\n"""\ntext = "a"\n[[prompt]]\ntext = "b"'
    assert [line.where for line in read(inside, ".toml")] == ["p.toml, prompt 1", "p.toml, prompt 2"]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('prompts = ["a" "b"]', "line 1, column 16", ""),
        ('prompts = ["a",\n', "line 2, column 1", ""),
        ("[[prompt]]\ntext = a cat", "line 2, column 8", "invalid value"),
        ('[[prompt]]\ntext = "a"\ntext = "b"', "line 3, column 11", "overwrite"),
        ('prompts = ["a"]\n\n sed = 1', "line 3, column 2", "there is no key 'sed'; did you mean 'seed'?"),
        ('seed = -1\n[[prompt]]\ntext = "a"\nseed = 1', "line 1, column 1", "seed must be between 0"),
        ('text = "a cat"', "line 1, column 1", "there is no key 'text'"),
        ('seed = 1\nprompts = "a cat"', "line 2, column 1", "prompts is no list of prompts"),
        ('prompts = ["a", 3]', "prompt 2", "this prompt has no text"),
        ('prompts = ["a", "b}"]', "prompt 2, character 2", "this } closes nothing"),
        ('prompts = [""]', "prompt 1, character 1", "there is no prompt"),
        ('[[prompt]]\ntext = "a"\n[[prompt]]\nseed = 1', "line 3", "this prompt has no text"),
        ('[[prompt]]\ntext = "a"\n[[prompt]]\n text = 3', "line 4, column 2", "text must be text, in quotes, not 3"),
        ('[[prompt]]\ntext = "a"\n[[prompt]]\ntext = "a {"', "line 4, column 1, character 3", "never closed"),
        ('[[prompt]]\ntext = "a"\nseed = true', "line 3, column 1", "seed must be a whole number, not 'True'"),
        ('[[prompt]]\ntext = "a"\nseed = 1.0', "line 3, column 1", "seed must be a whole number, not '1.0'"),
        ('[[prompt]]\ntext = "a"\n"seed" = [1]', "line 3, column 2", "seed must be a whole number, not '[1]'"),
        ('[[prompt]]\ntext = "a"\nlambda-a = 51', "line 3, column 1", "lambda-a must be between 0 and 50, not 51"),
        ('[[prompt]]\ntext = "a"\nlambda-a = 1\nlambda_a = 1', "line 4, column 1", "lambda_a is given twice"),
        ('[[prompt]]\ntext = "a"\nname = 3', "line 3, column 1", "name must be text, in quotes, not 3"),
        (f'prompts = ["a"]\nseed = 0x{"f" * 9999}', "line 2, column 1", "not a very long number"),
        ('prompts = ["a"]\n[style]\nx = 1', "line 2, column 2", "style must be text"),
    ],
)
def test_wrong_toml(text: str, place: str, words: str) -> None:
    error = refused(read, text, ".toml")
    assert error.message.startswith(f"p.toml, {place}: ")
    assert words in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "seed = " + "9" * 5000])
def test_toml_that_python_does_not_read(text: str) -> None:
    assert refused(read, text, ".toml").message.startswith("p.toml has ")


# ---- CSV ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt\na cat", [("a cat", {})]),
        ('prompt,seed,negative\n"a cat, a dog",3,\n\n,,\na dog,,"x ""y"""', None),
        ('Prompt ; SEED;negative\n"a cat, a dog";3;\na dog;;"x ""y"""', None),
        ('\ntext\tseed\tnegative\na cat, a dog\t3\na dog\t\t"x ""y"""', None),
        ('\ufeff"seed","prompt","negative",\r\n3,"a cat,\r\n a dog",,\r\n,a dog,"x ""y"""\r\n', None),
        ('seed, prompt\n1, "a, b"', [("a, b", {"seed": 1})]),
        ("lambda-a,prompt\n1.5,a\0cat", [("a cat", {"lambda_a": 1.5})]),
    ],
)
def test_csv(text: str, expected: list[tuple[str, dict[str, Any]]] | None) -> None:
    usual: list[tuple[str, dict[str, Any]]] = [("a cat, a dog", {"seed": 3}), ("a dog", {"negative": 'x "y"'})]
    for suffix in (".csv", ".tsv", ".CSV"):
        assert said(text, suffix) == (expected or usual)


def test_lines_of_csv_are_those_of_the_file() -> None:
    lines = read('prompt,seed\n\n"a\ncat",1\na dog,2\n', ".csv")
    assert [line.where for line in lines] == ["p.csv, line 3", "p.csv, line 5"]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("prompt,sed\na,1", "line 1, column 2", "there is no column 'sed'; did you mean 'seed'?"),
        ("\n\nprompt,seed,seed\na,1,1", "line 3, column 3", "seed is given twice"),
        ("prompt,text\na,b", "line 1, column 2", "text is given twice"),
        ("seed,negative\n1,b", "line 1, column 1", "there is no column 'prompt'"),
        ("prompt;Seed\na;b", "line 2, column Seed", "Seed must be a whole number, not 'b'"),
        ("prompt;lambda-a\na;1,5", "line 2, column lambda-a", "lambda-a must be a number, not '1,5'"),
        ("prompt,seed\na,-1", "line 2, column seed", "seed must be between 0"),
        ("seed,prompt\n1,", "line 2, column prompt, character 1", "there is no prompt"),
        ("seed,text\n1", "line 2, column text, character 1", "there is no prompt"),
        ("prompt\na cat, a dog", "line 2, column 2", "'a dog' is below no column's name"),
        ("prompt,,seed\na,b,1", "line 2, column 2", "'b' is below no column's name"),
        ("prompt\na\n{a", "line 3, column prompt, character 1", "this { is never closed"),
        ('prompt\na\n"a" b\n', "line 3", "this is no row of a table"),
        ('prompt\na\n"a\nb\n', "line 3", "this is no row of a table"),
        ("prompt\n" + "x" * 200_000, "line 2", "this is no row of a table"),
        ("prompt\n" + "x" * 10_001, "line 2, column prompt, character 1", "more than 10,000 characters"),
    ],
)
def test_wrong_csv(text: str, place: str, words: str) -> None:
    error = refused(read, text, ".csv")
    assert error.message.startswith(f"p.csv, {place}: ")
    assert words in error.message
    assert "\n" not in error.message


# ---- any file ----


@pytest.mark.parametrize(("suffix", "start"), [(".txt", ""), (".csv", "prompt,seed\n"), (".toml", "seed = 1\n")])
def test_a_file_without_prompts(suffix: str, start: str) -> None:
    for text in ("", start if suffix != ".txt" else "# nothing\n \n", "\ufeff"):
        assert refused(read, text, suffix).message == f"p{suffix} holds no prompts"


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".toml"])
@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"\xef\xbb\xbfa cat\nb\xc3\xa9\xff", "line 2, column 3"),
        (b"a\r\n\r\nb\xe9", "line 3, column 2"),
        ("a cat".encode("utf-16-le"), "line 1, column 2"),
    ],
)
def test_bytes_that_are_no_text(suffix: str, data: bytes, place: str) -> None:
    error = refused(read, data, suffix)
    assert error.message.startswith(f"p{suffix}, {place}: ")
    assert "UTF-8" in str(error.hint)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (Path("missing.txt"), tmp_path, Path("a\0b")):
        assert refused(read_lines, path).message.startswith(f"{path} cannot be read: ")


@pytest.mark.parametrize(
    ("suffix", "start", "row", "end"),
    [(".txt", "", "a{}\n", ""), (".csv", "prompt\n", "a{}\n", ""), (".toml", "prompts = [", '"a{}",', "]")],
)
def test_how_much_there_may_be(suffix: str, start: str, row: str, end: str) -> None:
    rows = [row.format(number) for number in range(text_files.MOST + 1)]
    assert "more than 100,000 prompts" in refused(read, start + "".join(rows) + end, suffix).message
    assert len(read(start + "".join(rows[1:]) + end, suffix)) == text_files.MOST
    assert "too large" in refused(read, start + "".join(rows[1:]) + end + " " * text_files.LARGEST, suffix).message
    longest = "x" * text_files.LONGEST
    assert [line.text for line in read(start + row.format(longest[1:]) + end, suffix)] == ["a" + longest[1:]]
    assert "10,000 characters" in refused(read, start + row.format(longest) + end, suffix).message


def test_standard_input_may_not_be_endless() -> None:
    assert "standard input is too large" in refused(text_lines, "a\n" * text_files.LARGEST, "standard input").message


@pytest.mark.parametrize(
    ("suffix", "start", "row"),
    [
        (".txt", "", 'a {red|blue} cat --seed 5 -n 3 --negative "blurry, dark"\n'),
        (".csv", "prompt,seed,number,negative\n", 'a {red|blue} cat,5,3,"blurry, dark"\n'),
        (".toml", "", '[[prompt]]\ntext = "a {red|blue} cat"\nseed = 5\nnumber = 3\nnegative = "blurry, dark"\n'),
    ],
)
def test_ten_thousand_prompts_are_read_at_once(suffix: str, start: str, row: str) -> None:
    began = time.process_time()
    lines = read(start + row * 10_000, suffix)
    assert time.process_time() - began < 2
    assert len(lines) == 10_000
    assert {tuple(sorted(line.options.items())) for line in lines} == {
        (("negative", "blurry, dark"), ("number", 3), ("seed", 5))
    }


@pytest.mark.parametrize(
    "row",
    [
        *('a --negative "' + "x" * 2_000_000 + '"', 'a --negative "' + "x\\" * 1_000_000, "a -n " + "'" * 2_000_001),
        *('"' * 2_000_000, " " * 2_000_000 + "x", '"a"' + " " * 2_000_000 + "x", "{" * 2_000_000, "-" * 2_000_000),
        "a --sed 1\n" * 50_000,
    ],
    ids=lambda row: row[:14],
)
def test_no_line_takes_long(row: str) -> None:
    began = time.process_time()
    if row[0] in ' "' and row[-1] == "x":
        assert len(text_lines(row, "p.txt")) == 1
    else:
        assert len(refused(text_lines, row, "p.txt").message) < 1000
    assert time.process_time() - began < 10


def noise(rng: random.Random, pieces: list[str]) -> str:
    wild = [chr(rng.choice((rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000)))) for _ in range(4)]
    return "".join(rng.choices([*pieces, *wild], k=rng.randint(0, rng.choice((3, 25)))))


PIECES = {
    ".txt": ["a", " ", " ", "\n", " --seed", " -n ", " --style=", "--", '"', "'", "\\", "{", "|", "}", "3", "#", "\r"],
    ".csv": ["prompt", "text", "seed", ",", ",", ";", "\t", "\n", "\n", '"', '""', "{", "|", "}", "3", " ", "a"],
    ".toml": [
        *("[[prompt]]\n", 'text = "a {b|c}"\n', "text = 'a\\{'\n", "seed = 3\n", 'prompts = ["a", "b"]\n', "\n", "# "),
        *("seed = ", '"', '"""', "[", "}", ",", "3"),
    ],
}


@pytest.mark.parametrize("suffix", PIECES)
def test_nothing_but_usage_errors_come_out(suffix: str) -> None:
    rng = random.Random(suffix)
    head = {".csv": "prompt,seed\n", ".toml": '[[prompt]]\ntext = "a"\n'}.get(suffix, "")
    read_text = {".csv": csv_lines, ".toml": toml_lines, ".txt": text_lines}[suffix]
    lines: list[Line] = []
    for case in range(2000):
        with suppress(UsageError):
            if case % 8 == 0:
                lines += read(rng.randbytes(rng.randint(0, 60)), suffix)
            else:
                lines += read_text(head * (case % 2) + noise(rng, PIECES[suffix]), f"p{suffix}")
    assert len(lines) > 100
    for seed, line in enumerate(lines):
        template = Template.read(line.text, line.where)  # what was read has no wrong brace
        assert template.pick(seed) in set(islice(template.every(), 5000))
        assert not text_files.CONTROLS.search(line.text)
        assert line.text == " ".join(line.text.split()) != ""
        assert set(line.options) <= set(OPTIONS)


# ---- wildcards ----


@pytest.mark.parametrize(
    ("text", "variants"),
    [
        ("a cat", ["a cat"]),
        ("{cat|dog}", ["cat", "dog"]),
        ("{cat|dog|{red|blue} bird}", ["cat", "dog", "red bird", "blue bird"]),
        ("a {red|} cat", ["a red cat", "a cat"]),
        ("{a|b} {c|d}!", ["a c!", "a d!", "b c!", "b d!"]),
        ("{a|{b|c}{d|e}}{f|g}", ["af", "ag", "bdf", "bdg", "bef", "beg", "cdf", "cdg", "cef", "ceg"]),
        ("{a|a}", ["a", "a"]),
        ("{cat}", ["cat"]),
        ("a {} b", ["a b"]),
        ("a | b", ["a | b"]),
        (r"a \{b\|c\} {d\|e|f\}}", ["a {b|c} d|e", "a {b|c} f}"]),
        (r"C:\x \\{a\|b\} {c|d}\y", [r"C:\x \{a|b} c\y", r"C:\x \{a|b} d\y"]),  # it escapes no backslash
        ("a\n  {b|c} ", ["a b", "a c"]),
        ("", [""]),
        ("{一|二}猫🐈", ["一猫🐈", "二猫🐈"]),
    ],
)
def test_variants(text: str, variants: list[str]) -> None:
    template = Template.read(text, "here")
    assert list(template.every()) == variants
    assert template.count == len(variants)
    assert {template.pick(seed) for seed in range(200)} == set(variants)


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("a {cat", 3, "this { is never closed"),
        ("a {b|{c|d}", 3, "this { is never closed"),
        ("a {b|{c|d", 6, "this { is never closed"),
        ("a} {b}", 2, "this } closes nothing"),
        (r"{a\}", 1, "this { is never closed"),
        (r"\{a}", 4, "this } closes nothing"),
        ("{" * 51 + "}" * 51, 51, "too deep"),
        ("{" * 100_000, 51, "too deep"),
    ],
)
def test_wrong_braces(text: str, column: int, words: str) -> None:
    error = refused(Template.read, text, "prompts.txt, line 3")
    assert error.message.startswith(f"prompts.txt, line 3, column {column}: ")
    assert words in error.message
    assert r"write \{" in str(error.hint)


def random_template(rng: random.Random, depth: int = 3) -> str:
    parts = []
    for _ in range(rng.randint(0, 3)):
        if depth and rng.random() < 0.5:
            parts.append("{" + "|".join(random_template(rng, depth - 1) for _ in range(rng.randint(1, 3))) + "}")
        else:
            parts.append(rng.choice(["a", " b", "é ", r"\{", r"\|", r"\}", "\\n", " "]))
    return "".join(parts)


def test_laws_of_templates() -> None:
    rng = random.Random(2)
    most = 0
    for seed in range(1000):
        text = random_template(rng)
        template = Template.read(text, "here")
        if template.count > 3000:
            continue
        every = list(template.every())
        assert len(every) == template.count >= 1
        assert template.pick(seed) in every
        assert template.pick(seed) == Template.read(text, "elsewhere").pick(seed)
        assert Template.read(f"{{{text}|{text}}}", "here").count == 2 * template.count
        assert Template.read(text + text, "here").count == template.count**2
        most = max(most, template.count)
    assert most > 100


def test_counting_takes_no_time_and_nothing_is_made_before_it_is_asked_for() -> None:
    began = time.process_time()
    template = Template.read("{a|b|c}" * 1400, "here")
    assert template.count == 3**1400
    assert list(islice(template.every(), 3)) == ["a" * 1399 + last for last in "abc"]
    assert set(template.pick(1)) == {"a", "b", "c"}
    nested = Template.read("{a|" * 50 + "b|c" + "}" * 50, "here")
    assert nested.count == 52
    huge = Template.read("{x|" + "{a|b}" * 500 + "}", "here")
    assert list(islice(huge.every(), 2)) == ["x", "a" * 500]
    assert huge.count == 2**500 + 1
    assert time.process_time() - began < 2


def test_each_alternative_is_as_likely_as_the_others() -> None:
    template = Template.read("{cat|dog|{red|blue} bird}", "here")
    drawn = Counter(template.pick(seed) for seed in range(6000))
    for variant, share in {"cat": 1 / 3, "dog": 1 / 3, "red bird": 1 / 6, "blue bird": 1 / 6}.items():
        assert abs(drawn[variant] - 6000 * share) < 4 * math.sqrt(6000 * share * (1 - share))


def test_braces_are_filled_independently() -> None:
    drawn = Counter(Template.read("{a|b} {a|b}", "here").pick(seed) for seed in range(4000))
    assert all(abs(drawn[pair] - 1000) < 4 * math.sqrt(750) for pair in ("a a", "a b", "b a", "b b"))
    one, other = Template.read("{a|b} x", "here"), Template.read("{a|b} y", "here")
    same = sum(one.pick(seed)[0] == other.pick(seed)[0] for seed in range(1000))
    assert 400 < same < 600  # another text, another choice


def test_a_seed_picks_the_same_everywhere_and_for_ever() -> None:
    template = Template.read("a {red|blue|green} {cat|dog|{big|small} bird}", "here")
    assert [template.pick(seed) for seed in range(6)] == [
        *("a green dog", "a green cat", "a red small bird", "a red big bird", "a red dog", "a blue cat")
    ]
    assert Template.read("{a|b|c}", "here").pick(LARGEST_SEED) == "a"


# ---- names of files ----


def named(pattern: str, prompt: str = "a cat", seed: int = 7, index: int = 3, **more: Any) -> str:
    return stem(pattern, prompt=prompt, seed=seed, index=index, **more)


@pytest.mark.parametrize(
    ("pattern", "more", "expected"),
    [
        ("{prompt}-{seed}", {}, "a-cat-7"),
        ("{index:04} {prompt}_{seed:05}", {}, "0003 a-cat_00007"),
        ("{name}-{seed}", {}, "a-cat-7"),
        ("{name}-{seed}", {"name": "My Hero"}, "My Hero-7"),
        ("{name}-{seed}", {"name": ""}, "a-cat-7"),
        ("{style}/{prompt}/{index}", {"style": "Flat, Design"}, "flat-design-a-cat-3"),
        ("{{{index}}}", {}, "{3}"),
        ("../{name}-{seed}", {"name": "..\\..\\etc/passwd"}, "etc-passwd-7"),
        (".{index}", {}, "3"),
        ("{name}", {"name": "con"}, "_con"),
        ("{name}.{seed}", {"name": "NUL"}, "_NUL.7"),
        ("{name}-{seed}", {"name": "com1"}, "com1-7"),
        ("{name}", {"name": 'a<b>c:d"e|f?g*h\x00i\x7fj\nk'}, "a-b-c-d-e-f-g-h-i-j-k"),
        ("{name}", {"name": "a\u202egnp.b"}, "a-gnp.b"),
        ("{name}", {"name": "?. .."}, "picture"),
        ("{name}", {"name": "cafe\u0301"}, "caf\xe9"),
    ],
)
def test_stems(pattern: str, more: dict[str, Any], expected: str) -> None:
    assert named(pattern, **more) == expected


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("A cat's HAT, 3D & snow_flake!", "a-cat-s-hat-3d-snow-flake"),
        ("Кот и СОБАКА", "кот-и-собака"),
        ("一只猫, 两只狗", "一只猫-两只狗"),
        ("बिल्ली और कुत्ता", "बिल्ली-और-कुत्ता"),
        ("قِطّة", "قِطّة"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("cafe\u0301", "caf\xe9"),
        ("a 🐈 ☀\ufe0f", "a-🐈-☀\ufe0f"),
        ("?! ... --", "picture"),
        ("\u200d \u0301", "picture"),
        ("", "picture"),
        ("x" * 60, "x" * 48),
        ("x" * 47 + " y", "x" * 47),
    ],
)
def test_slugs(prompt: str, slug: str) -> None:
    assert named("{prompt}", prompt) == slug
    assert named("{style}", style=prompt) == slug
    assert named("{prompt}", slug) == slug  # a slug is its own


def test_what_is_too_long_is_cut_and_numbers_are_not() -> None:
    long = {"prompt": "日本" * 50, "style": "猫" * 50, "name": "x" * 500}
    for pattern in ("{prompt}-{seed:09}", "{name}-{seed:09}", "{style}-{prompt}-{name}-{seed:09}"):
        made = named(pattern, **long)
        assert made.endswith("-000000007")
        assert 100 < len(made.encode()) <= 120
    assert named("x" * 200 + "{index}") == "x" * 120


@pytest.mark.parametrize(
    "pattern",
    ["{prompt}-{seed}", "{index}", "{index:04}", "{name} {seed:019}", "{style}.{prompt}.{seed}", "{{{index}}}"],
)
def test_good_patterns(pattern: str) -> None:
    check_pattern(pattern)
    assert named(pattern, index=3) != named(pattern, index=4, seed=8)


@pytest.mark.parametrize(
    ("pattern", "words", "hint"),
    [
        ("{prompt}", "does not tell the pictures of one prompt apart", "{seed} or {index}"),
        ("{name}-{style}", "does not tell the pictures of one prompt apart", "{seed} or {index}"),
        ("{seed}", "does not tell prompts apart", "{prompt}, {name} or {index}"),
        ("{style}-{seed}", "does not tell prompts apart", "{prompt}, {name} or {index}"),
        ("x", "does not tell prompts and the pictures of one prompt apart", "{seed} or {index}"),
        ("", "does not tell prompts", "{index}"),
        ("{index}" + "x" * 120, "more than 120 bytes", "leave out"),
        ("{index:099}{seed:099}", "more than 120 bytes", "leave out"),
    ],
)
def test_patterns_that_tell_too_little(pattern: str, words: str, hint: str) -> None:
    error = refused(check_pattern, pattern)
    assert words in error.message
    assert hint in str(error.hint)
    named(pattern)  # yet it can be filled in


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{sed}-{index}", "no field {sed}"),
        ("{}-{index}", "no field {}"),
        ("{0}-{index}", "no field {0}"),
        ("{Prompt}-{index}", "no field {Prompt}"),
        ("{prompt.__class__}-{seed}", "only {prompt} alone"),
        ("{prompt[0]}-{seed}", "only {prompt} alone"),
        ("{seed.__class__.__mro__}{index}", "only {seed} alone"),
        ("{prompt!r}-{seed}", "{prompt} cannot have this format"),
        ("{prompt:9}-{seed}", "{prompt} cannot have this format"),
        ("{seed:5}-{index}", "{seed} cannot have this format"),
        ("{seed:x}-{index}", "{seed} cannot have this format"),
        ("{seed:0999999999}-{index}", "{seed} cannot have this format"),
        ("{seed:{index}}-{index}", "{seed} cannot have this format"),
        ("{prompt-{index}", "wrong brace"),
        ("prompt}-{index}", "wrong brace"),
        ("{index}{", "wrong brace"),
    ],
)
def test_wrong_patterns(pattern: str, words: str) -> None:
    for call in (check_pattern, named):
        error = refused(call, pattern)
        assert words in error.message
        assert "{prompt}, {seed}, {index}, {name}, {style}" in str(error.hint)


def test_a_stem_is_a_name_whatever_it_is_made_of() -> None:
    rng = random.Random(3)
    fields = ["{prompt}", "{seed}", "{index:04}", "{name}", "{style}", "-", ".", "/", "..", "\\", " ", "{{", "}", "{"]
    texts = ["a", "con", "nul", ".", "..", "/", "\\", ":", " ", "\0", "-", "e\u0301", "猫", "\ud800", "~", "CON."]
    made = 0
    for case in range(2000):
        pattern = "".join(rng.choices(fields, weights=[4] * 5 + [1] * 9, k=rng.randint(1, 5)))
        prompt, name, style = ((noise(rng, texts) * rng.choice((1, 1, 20))) for _ in range(3))
        try:
            result = stem(pattern, prompt=prompt, seed=case, index=case, name=name or None, style=style)
        except UsageError:
            continue
        made += 1
        assert result
        assert len(result.encode()) <= 120
        assert not re.search(r'[/\\:*?"<>|\x00-\x1f\x7f]|\.\.|^[. -]|[. -]$', result)
        assert result.split(".")[0].strip().lower() not in {"con", "nul", "aux", "prn"}
        assert Path(result).name == result
        (Path.cwd() / f"{result}.png").touch()
    assert made > 1000


# ---- the module ----


def test_it_loads_without_torch() -> None:
    names = "styledrop_cli.generation.lists.prompt_file, styledrop_cli.generation.lists.kit_file"
    program = f"import sys, {names}; sys.exit(bool({{'torch', 'numpy', 'PIL', 'typer'}} & set(sys.modules)))"
    program = f"import sys; sys.path.insert(0, {SOURCE!r}); {program}"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_lines_and_templates_are_frozen() -> None:
    line = Line("a cat", {}, "here")
    with pytest.raises(AttributeError):
        line.text = "a dog"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Template.read("a cat", "here").text = "a dog"  # type: ignore[misc]
    assert Template.read("{a|b}", "here") == Template.read("{a|b}", "there")
