"""Prompts to ids: the style's place in a prompt, CLIP's own ids, and a vocabulary cut down to what is needed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from styledrop_cli.base.prompt_tokens import (
    BytePairTokenizer,
    clip_merges,
    read_merges,
    trim_merges,
    vocabulary_of,
    with_style,
    words,
    write_merges,
)
from styledrop_cli.errors import ModelError

# Computed with open_clip 3.3's SimpleTokenizer; without start (49406), end (49407) and padding.
OPEN_CLIP_IDS = {
    "a corgi's teapot, in watercolor 3D style!": [320, 31320, 568, 40749, 267, 530, 14211, 274, 323, 1844, 256],
    "Ünïcode—ok": [6522, 77, 35689, 3217, 2005, 2481],
    "don't  stop": [847, 713, 1691],
    "": [],
    "a cat": [320, 2368],
    "the letter A, 42 times; naïve café": [518, 4861, 320, 267, 275, 273, 1661, 282, 1097, 35689, 563, 15304],
    "it's we've I'm they'll he'd you're can't": [
        *(585, 568, 649, 1200, 328, 880, 889, 1342, 797, 1896, 592, 982, 753, 713),
    ],
    "a\n b\tc": [320, 321, 322],
    "WATER-color & co.": [1573, 268, 3140, 261, 1320, 269],
    "snow_flake": [2583, 318, 21221],
    "日本 cat": [39121, 19277, 361, 2368],
}


@pytest.fixture(scope="module")
def merges() -> list[tuple[str, str]]:
    try:
        return clip_merges(Path("not there"))
    except ModelError:
        pytest.skip("open_clip, whose package holds CLIP's merges, is not installed")


@pytest.fixture(scope="module")
def clip(merges: list[tuple[str, str]]) -> BytePairTokenizer:
    return BytePairTokenizer(merges, 77)


# ---- prompts ----


@pytest.mark.parametrize(
    ("content", "style", "prompt"),
    [
        ("a cat", "watercolor", "a cat in watercolor style"),
        ("a cat", "watercolor painting style", "a cat in watercolor painting style"),
        ("a cat", "in watercolor", "a cat in watercolor style"),
        ("a cat", "in the style of Monet", "a cat in the style of Monet"),
        ("a cat", "stylised", "a cat in stylised style"),
        ("a cat in watercolor style", "watercolor", "a cat in watercolor style"),
        ("a cat in Watercolor", "watercolor", "a cat in Watercolor"),
        ("a cat in watercolor style", "in watercolor style", "a cat in watercolor style"),
        ("two watercolors", "watercolor", "two watercolors"),
        ("a pink sink", "ink", "a pink sink in ink style"),
        ("a cart", "art", "a cart in art style"),
        ("a cat", "[V] (draft", "a cat in [V] (draft style"),
        ("a cat", "", "a cat"),
        ("a cat", "  ", "a cat"),
        ("  a\n cat ", " flat   design ", "a cat in flat design style"),
    ],
)
def test_with_style(content: str, style: str, prompt: str) -> None:
    assert with_style(content, style) == prompt
    assert with_style(prompt, style) == prompt  # said once, however often it is asked for


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("一只猫, 两只狗", ["一只猫", "两只狗"]),  # no spaces between words: a run counts as one
        ("Кот и СОБАКА", ["кот", "и", "собака"]),
        ("قِطّة", ["قِطّة"]),
        ("बिल्ली", ["बिल्ली"]),
        ("cafe\u0301", ["caf\xe9"]),
        ("a 🐈 on ☀\ufe0f, →", ["a", "🐈", "on", "☀\ufe0f", "→"]),
        ("?! ... --", []),
    ],
)
def test_words_in_other_scripts(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_words() -> None:
    assert words("The cat's jack-o'-lantern, 3D & naïve_art!") == [
        "the",
        "cat's",
        "jack-o",
        "lantern",
        "3d",
        "naïve",
        "art",
    ]
    assert words(" -- ") == []


# ---- ids ----


@pytest.mark.parametrize("text", OPEN_CLIP_IDS)
def test_ids_are_open_clips(clip: BytePairTokenizer, text: str) -> None:
    ids = clip([text])
    assert ids.shape == (1, 77)
    assert ids.dtype == torch.int64
    wanted = [49406, *OPEN_CLIP_IDS[text]]
    assert ids[0].tolist() == wanted + [49407] * (77 - len(wanted))


def test_vocabulary_is_clips(clip: BytePairTokenizer, merges: list[tuple[str, str]]) -> None:
    assert clip.size == len(vocabulary_of(merges)) == 49408
    assert (clip.start, clip.end) == (49406, 49407)


def test_long_texts_are_cut_and_short_ones_padded(merges: list[tuple[str, str]]) -> None:
    short = BytePairTokenizer(merges[:100], 8)
    ids = short(["a b c d e f", "a b c d e f g h", "a"])
    assert ids.shape == (3, 8)
    assert ids[:, 0].tolist() == [short.start] * 3
    assert ids[:, -1].tolist() == [short.end] * 3  # however long, the end is there for the summary
    assert torch.equal(ids[0], ids[1])
    assert ids[2, 2:].tolist() == [short.end] * 6
    assert [short.fits(text) for text in ("a b c d e f", "a b c d e f g")] == [True, False]
    assert short([]).shape == (0, 8)


# ---- a smaller vocabulary ----

CAPTIONS = [
    "a corgi's teapot in watercolor style",
    "a jack-o-lantern, five-pointed",
    "a COMPUTER in 3D; an extraterrestrial honeybee",
]


@pytest.mark.parametrize("first", [300, 2500])
def test_trimming_keeps_the_words_of_the_captions_whole(
    clip: BytePairTokenizer, merges: list[tuple[str, str]], first: int
) -> None:
    trimmed = trim_merges(merges, CAPTIONS, first)
    assert trimmed[:first] == merges[:first]
    assert len(trimmed) < first + 60
    order = [merges.index(pair) for pair in trimmed]
    assert order == sorted(set(order))
    small = BytePairTokenizer(trimmed, 32)
    for caption in CAPTIONS:
        for word in words(caption):
            assert small.pieces(word) == clip.pieces(word)
    assert small.pieces("corgi teapot") == ["corgi</w>", "teapot</w>"]
    # An untaught word is still spelt out.
    assert "".join(small.pieces("xylophone")) == "xylophone</w>"


def test_trimming_without_captions_keeps_the_first_merges(merges: list[tuple[str, str]]) -> None:
    assert trim_merges(merges, [], 7) == merges[:7]
    assert trim_merges(merges[:5], ["日本"], 7) == merges[:5]


def test_merges_round_trip(merges: list[tuple[str, str]]) -> None:
    write_merges(Path("merges.txt"), merges[:500])
    assert read_merges(Path("merges.txt")) == merges[:500]
    with gzip.open("merges.txt.gz", "wt", encoding="utf-8") as file:
        file.write("#version: 0.2\na b\n\n")
    assert read_merges(Path("merges.txt.gz")) == [("a", "b")]


def test_other_files_are_no_merges() -> None:
    with pytest.raises(ModelError, match=r"cannot read the text vocabulary nowhere\.txt"):
        read_merges(Path("nowhere.txt"))
    for name, content in (
        ("empty", b""),
        ("prose", b"once upon a time\nthere was\na cat\nwho sat on a mat\n"),
        ("binary", b"\xff\xfe\x00"),
    ):
        Path(name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            read_merges(Path(name))
    Path("cut.gz").write_bytes(gzip.compress(b"a b\n" * 1000)[:-12])
    with pytest.raises(ModelError, match="cut"):
        read_merges(Path("cut.gz"))
