"""A folder of captioned pictures: what is read, what is held out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image

import tiny
from conftest import draw
from styledrop_cli.corpus.folder import Record, plain_contents, read_corpus, read_pictures, vocabulary
from styledrop_cli.errors import UsageError

FOLDER = Path("corpus")


def put(name: str, caption: str | None = None) -> Path:
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    draw().save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def describe(*lines: str | Mapping[str, object]) -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    (FOLDER / "metadata.jsonl").write_text(text, encoding="utf-8")


def test_metadata() -> None:
    put("a.png")
    put("deep/b.jpg")
    put("not named.png")
    describe(
        {"file_name": "a.png", "text": ["a cat", "a naïve cat"], "colour": "any other key"},
        "",
        {"file_name": "deep/b.jpg", "text": "a dog", "split": "held-out"},
    )
    first, second = read_corpus(FOLDER)
    assert (first.path, first.captions, first.held_out) == (FOLDER / "a.png", ("a cat", "a naïve cat"), False)
    assert (second.path, second.captions, second.held_out) == (FOLDER / "deep/b.jpg", ("a dog",), True)


def test_text_files() -> None:
    put("b.png", " a dog\n")
    put("deep/a.WEBP", "a cat")
    put("c.jpeg", "a house")
    (FOLDER / "notes.md").write_text("not a picture")
    assert [(r.path.name, r.captions) for r in read_corpus(FOLDER)] == [
        ("b.png", ("a dog",)),
        ("c.jpeg", ("a house",)),
        ("a.WEBP", ("a cat",)),
    ]


def test_some_are_held_out_where_none_is_named() -> None:
    for index in range(130):
        put(f"{index:03}.png", "a cat")
    held = [r.held_out for r in read_corpus(FOLDER)]
    assert held.count(True) == 2


@pytest.mark.parametrize("count", [2, 5])
def test_small_folders_hold_one_out(count: int) -> None:
    for index in range(count):
        put(f"{index}.png", "a cat")
    assert [r.held_out for r in read_corpus(FOLDER)].count(True) == 1


def test_captions_are_needed_only_where_they_are_used() -> None:
    put("a.png", "a cat")
    put("b.png")
    put("c.png", "   ")
    assert len(read_corpus(FOLDER, captions=False)) == 3
    with pytest.raises(UsageError, match=r"2 of 3 pictures have no caption, the first is corpus/b\.png"):
        read_corpus(FOLDER)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: needs a JSON object"),
        ('"a.png"', "line 2: needs a JSON object"),
        ("[]", "line 2: needs a JSON object"),
        ({"text": "a cat"}, "line 2: needs a JSON object with 'file_name'"),
        ({"file_name": 5, "text": "a cat"}, "line 2: needs"),
        ({"file_name": "b.png", "text": None}, "line 2: needs"),
        ({"file_name": "b.png", "text": 5}, "line 2: needs"),
        ({"file_name": "a.png", "text": "again"}, r"line 2: a\.png is named a second time"),
        ({"file_name": "z.png", "text": "a cat"}, r"line 2: there is no picture corpus/z\.png"),
        ({"file_name": "../secret.png", "text": "a cat"}, "line 2: .* lies outside the folder"),
        ({"file_name": ".", "text": "a cat"}, "line 2: "),
    ],
)
def test_malformed_metadata(line: str | Mapping[str, object], words: str) -> None:
    put("a.png")
    put("b.png")
    draw().save("secret.png")
    describe({"file_name": "a.png", "text": "a cat"}, line)
    with pytest.raises(UsageError, match=words):
        read_corpus(FOLDER)


BOM = b"\xef\xbb\xbf"


def test_texts_and_metadata_with_a_byte_order_mark() -> None:
    put("a.png")
    put("b.png", "a dog")
    (FOLDER / "a.txt").write_bytes(BOM + b"a cat\r\n")
    assert [r.captions for r in read_corpus(FOLDER)] == [("a cat",), ("a dog",)]
    lines = [b'{"file_name": "%s.png", "text": "a %s"}\r\n' % (name, name) for name in (b"a", b"b")]
    (FOLDER / "metadata.jsonl").write_bytes(BOM + b"".join(lines))
    assert [r.captions for r in read_corpus(FOLDER)] == [("a a",), ("a b",)]


def test_captions_by_another_key() -> None:
    for name in "abc":
        put(f"{name}.png")
    describe(
        {"file_name": "a.png", "caption": "a cat"},
        {"file_name": "b.png", "caption": ["a dog", "a hound"]},
        {"file_name": "c.png", "text": ["a fox", " "], "caption": ["a fox ", "a vixen", ""]},
    )
    said: list[str] = []
    captions = [r.captions for r in read_corpus(FOLDER, on_message=said.append)]
    assert captions == [("a cat",), ("a dog", "a hound"), ("a fox", "a vixen")]
    assert said == ["Warning: left out of corpus: 2 empty captions, of pictures with others ('c.png', 'c.png')"]


def test_paths_as_windows_writes_them() -> None:
    put("sub/0.png")
    put("sub/deep/1.png")
    describe({"file_name": "sub\\0.png", "text": "a cat"}, {"file_name": ".\\sub\\deep\\1.png", "text": "a dog"})
    said: list[str] = []
    assert [r.path for r in read_corpus(FOLDER, on_message=said.append)] == [
        FOLDER / "sub" / "0.png",
        FOLDER / "sub" / "deep" / "1.png",
    ]
    assert said == []
    describe({"file_name": "..\\secret.png", "text": "a cat"}, {"file_name": "sub\\0.png", "text": "a dog"})
    draw().save("secret.png")
    with pytest.raises(UsageError, match="lies outside the folder"):
        read_corpus(FOLDER)


def test_suffixes_in_capitals_and_other_formats() -> None:
    put("a.PNG")
    (FOLDER / "a.TXT").write_text("a cat")
    for name in ("b.gif", "c.bmp", "d.TIFF"):
        put(name, "a dog")
    (FOLDER / "._a.PNG").write_bytes(b"what macOS leaves")
    assert [r.path.name for r in read_corpus(FOLDER)] == ["a.PNG", "b.gif", "c.bmp", "d.TIFF"]
    assert read_corpus(FOLDER)[0].captions == ("a cat",)


def test_what_is_left_out_is_counted_and_named_once() -> None:
    for name in "abcdefg":
        put(f"{name}.png")
    for name in ("x.heic", "y.AVIF"):
        (FOLDER / name).write_bytes(b"no picture that we read")
    describe(*({"file_name": name, "text": "a cat"} for name in ("a.png", "b.png", "x.heic")))
    said: list[str] = []
    assert [r.path.name for r in read_corpus(FOLDER, on_message=said.append)] == ["a.png", "b.png"]
    assert said == [
        "Warning: left out of corpus: 2 in a format that is not read ('x.heic', 'y.AVIF'); "
        "5 not named in metadata.jsonl ('c.png', 'd.png', 'e.png' and 2 more)"
    ]


def test_a_folder_of_other_formats_says_so() -> None:
    FOLDER.mkdir()
    (FOLDER / "x.heic").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"holds no pictures that can be read: 1 in a format .* \('x\.heic'\)"):
        read_corpus(FOLDER)


def test_no_folder_and_no_pictures() -> None:
    with pytest.raises(UsageError, match="no folder corpus"):
        read_corpus(FOLDER)
    FOLDER.mkdir()
    with pytest.raises(UsageError, match="holds no pictures"):
        read_corpus(FOLDER)


@pytest.mark.parametrize("name", ["metadata.jsonl", "a.txt"])
def test_text_in_another_encoding(name: str) -> None:
    put("a.png")
    (FOLDER / name).write_bytes("naïve".encode("latin-1"))
    with pytest.raises(UsageError, match="UTF-8"):
        read_corpus(FOLDER)


def test_one_picture_cannot_be_measured() -> None:
    put("a.png", "a cat")
    with pytest.raises(UsageError, match="at least 2"):
        read_corpus(FOLDER)


def test_all_held_out() -> None:
    put("a.png")
    put("b.png")
    describe(*({"file_name": f"{n}.png", "text": "a cat", "split": "held-out"} for n in "ab"))
    with pytest.raises(UsageError, match="held out"):
        read_corpus(FOLDER)


def test_pictures_are_square_and_in_order() -> None:
    records = read_corpus(tiny.write_corpus(FOLDER))
    pictures = read_pictures(records, 24)
    assert pictures.shape == (8, 3, 24, 24)
    assert pictures.dtype == torch.uint8
    assert torch.equal(read_pictures(records[5:], 24), pictures[5:])
    assert not torch.equal(pictures[0], pictures[1])


def test_unreadable_pictures_are_counted() -> None:
    tiny.write_corpus(FOLDER)
    for name in "25":
        (FOLDER / f"{name}.png").write_bytes(b"not a picture")
    with pytest.raises(UsageError, match=r"2 of 8 pictures cannot be read, the first: .*corpus/[25]\.png"):
        read_pictures(read_corpus(FOLDER), 24)


def test_what_is_to_be_said_of_pictures_is_said_once() -> None:
    records, said = read_corpus(tiny.write_corpus(FOLDER)), []  # type: tuple[list[Record], list[str]]
    read_pictures(records, 24, said.append)
    assert said == []
    for record in records[2:5]:
        Image.new("RGB", (64, 64), "teal").save(record.path, icc_profile=b"none")
    read_pictures(records, 24, said.append)
    assert len(said) == 1 and said[0].endswith("(and 2 more of the kind)")
    assert said[0].startswith(f"Warning: the colour profile in {records[2].path} is damaged")


def test_words_and_contents() -> None:
    records = read_corpus(tiny.write_corpus(FOLDER))
    assert vocabulary(records) == ["a", "cat", "dog", "house", "in", "style", "watercolor"]
    assert plain_contents(records) == ["a cat", "a dog"]  # three of each; the house is shown twice only
    rare = [Record(Path("x"), (f"a blue {w}",)) for w in ("cat", "dog") * 3]
    many = [Record(Path("x"), (f"a {w}",)) for w in ("cat", "dog", "fox") * 40]
    assert plain_contents(many + rare) == ["a cat", "a dog", "a fox"]  # a few blue cats are cats
    assert plain_contents(rare[:2]) == []
    # A caption that always has its style names the thing all the same; where it stands is no part of the name.
    records += [Record(Path("x"), (f"a {w} in ink style", f"a {w} on red in ink style")) for w in ("fox", "cat") * 3]
    assert plain_contents(records) == ["a cat", "a dog", "a fox"]
