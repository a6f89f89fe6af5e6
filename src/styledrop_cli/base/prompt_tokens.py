"""Prompts to token ids: CLIP's byte pairs, from a ``merges.txt`` alone, and BERT's word pieces, from a ``vocab.txt``.

The published model folders carry the same files. CLIP's whole vocabulary follows from its merges: 256 bytes, the same
bytes at a word's end, one token a merge, then the start and end tokens.
"""

from __future__ import annotations

import gzip
import importlib.util
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.io.files import atomic_write, read_bytes, read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
PADDING, UNKNOWN, CLASS, SEPARATOR = "[PAD]", "[UNK]", "[CLS]", "[SEP]"  # BERT's own tokens
# How CLIP splits text before merging (contractions, runs of letters, single digits, runs of anything else).
PIECES = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
# The marks that scripts put above, below and behind their letters: Python's \w leaves them out.
MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c).startswith("M"))
LETTERS = rf"(?:[^\W_][{MARKS}\u200c\u200d]*)+"
SIGNS = "\u2190-\u21ff\u2300-\u2bff\U0001f000-\U0001faff"  # arrows, dingbats and emoji
WORD = re.compile(rf"{LETTERS}(?:['-]{LETTERS})*|[{SIGNS}][{SIGNS}\ufe0f\u20e3\u200d]*")
ROOM = "a big red cat"  # the least that must fit before a style
MOST_PIECES = 300_000  # lines; BERT's largest file has 119,547
MOST_MERGES = 300_000  # lines; the longest file of CLIP's has 262,145, and uses a fifth of them
SHOWN = 40  # characters of a long text that a message quotes


def words(text: str) -> list[str]:
    """The words of a text, lower case, in order.

    Where a script puts no spaces between words a run of letters counts as one, and so does a run of emoji: that is
    also how CLIP splits text.
    """
    return WORD.findall(unicodedata.normalize("NFC", text).lower())


def with_style(content: str, style: str) -> str:
    """The prompt of a picture: its content, then its style (StyleDrop, 3.2), with no word said twice."""
    content, style = " ".join(content.split()), " ".join(style.split()).removeprefix("in ")
    said = re.search(rf"(?<!\w){re.escape(style)}s?(?!\w)", content, re.IGNORECASE)  # no "ink" in "a pink sink"
    if not style or said:
        return content
    return f"{content} in {style}" if "style" in words(style) else f"{content} in {style} style"


def shortened(text: str) -> str:
    """A text as a message quotes it."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN].rstrip()}..."


def quoted(texts: list[str], most: int = 5) -> str:
    """The first of ``texts`` as a message names them, and how many more there are."""
    named = ", ".join(f"'{shortened(text)}'" for text in texts[:most])
    return f"{named} and {len(texts) - most} more" if len(texts) > most else named


class TextTokenizer:
    """Texts to ``[B,context_length]`` ids: ``start``, the pieces of a text and ``end``, then ``pad``."""

    def __init__(self, tokenizer: Tokenizer, context_length: int, start: str, end: str, pad: str) -> None:
        self._tokenizer = tokenizer
        self.context_length = context_length
        self.size: int = tokenizer.get_vocab_size()
        self.start, self.end, self.pad = (int(tokenizer.token_to_id(token) or 0) for token in (start, end, pad))

    def pieces(self, text: str) -> list[str]:
        """The merged pieces of a text, without start and end."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).tokens)

    def whole_words(self) -> set[str]:
        """The words of four letters and more that are one piece."""
        return {word for word in self._whole() if len(word) >= 4 and word.isascii() and word.isalpha()}

    def _whole(self) -> Iterable[str]:
        """The pieces that are whole words, and others that are not made of letters."""
        raise NotImplementedError

    def fits(self, text: str) -> bool:
        """Whether the whole text fits the context."""
        return len(self.pieces(text)) <= self.context_length - 2

    def cut(self, content: str, style: str = "", on_message: Callable[[str], None] = lambda message: None) -> str:
        """As much of ``content`` as fits the context with its style behind it, up to the end of a word if it can be.

        What is left out is said aloud. Raises UsageError if the style alone leaves no room for a content.
        """
        if self.fits(with_style(content, style)):
            return content
        needed, room = len(self.pieces(with_style(ROOM, style))), self.context_length - 2
        if needed > room:
            raise UsageError(
                f"the style '{shortened(style)}' is too long: {needed} pieces of words, and {room} can be read",
                "Say the style in a few words.",
            )
        content = " ".join(content.split())
        end = bisect_right(range(1, len(content)), 0, key=lambda n: not self.fits(with_style(content[:n], style)))
        read = content[:end] if content[end] == " " else content[:end].rpartition(" ")[0] or content[:end]
        on_message(
            f"Warning: '{shortened(content)}' is too long: of its {len(content):,} characters only the first "
            f"{len(read)} are read, up to '{read[-SHOWN // 2 :].lstrip()}'{', and the style' if style else ''}"
        )
        return read

    def __call__(self, texts: list[str]) -> Tensor:
        """``B`` texts to int64 ids ``[B,context_length]``; what does not fit is cut."""
        room = self.context_length - 2
        rows = []
        for coded in self._tokenizer.encode_batch(texts, add_special_tokens=False):
            ids = [self.start, *coded.ids[:room], self.end]
            rows.append(ids + [self.pad] * (self.context_length - len(ids)))
        return torch.tensor(rows, dtype=torch.int64).view(len(texts), self.context_length)


class BytePairTokenizer(TextTokenizer):
    """CLIP's; ``pad`` is the end token, where a published folder names no other."""

    def __init__(self, merges: list[tuple[str, str]], context_length: int, pad: str = END) -> None:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

        self.merges = merges
        vocabulary = vocabulary_of(merges)
        model = models.BPE(vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>")
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        if pad != END:  # upstream reads it as padding in the middle of a text too: each "!" of Meissonic's prompts
            tokenizer.add_special_tokens([pad])
        super().__init__(tokenizer, context_length, START, END, pad)

    def _whole(self) -> Iterable[str]:
        made = {(first + second) for first, second in self.merges}
        return {word.removesuffix("</w>") for word in made if word.endswith("</w>")}


class WordPieceTokenizer(TextTokenizer):
    """BERT's without capitals and accents: a word is spelt in the longest ``pieces`` there are (arXiv 1810.04805)."""

    def __init__(self, pieces: list[str], context_length: int) -> None:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        self.vocabulary = pieces
        model = models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token=UNKNOWN)
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        super().__init__(tokenizer, context_length, CLASS, SEPARATOR, PADDING)

    def _whole(self) -> Iterable[str]:
        return self.vocabulary


def vocabulary_of(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Token to id, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    characters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = [*characters, *(c + "</w>" for c in characters), *(a + b for a, b in merges), START, END]
    return {token: index for index, token in enumerate(tokens)}


def read_merges(path: Path) -> list[tuple[str, str]]:
    """A ``merges.txt`` as pairs; raises ModelError if it is missing or malformed."""
    try:
        data = read_bytes(path)
        if path.suffix == ".gz":  # open_clip's own
            data = gzip.decompress(data)
        if data.count(b"\n") > MOST_MERGES:
            raise ValueError(f"it has more than {MOST_MERGES:,} lines")
        lines = [line.split() for line in data.decode().splitlines() if "#version:" not in line]
    except (OSError, EOFError, ValueError) as error:
        raise ModelError(f"cannot read the text vocabulary {path}: {error}") from error
    return as_merges([line for line in lines if line], path)


def read_pieces(path: Path) -> list[str]:
    """A ``vocab.txt``, one piece a line, in the order of their ids; raises ModelError if it is missing or malformed."""
    try:
        pieces = read_text(path).removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the text vocabulary {path}: {error}") from error
    if len(pieces) > MOST_PIECES:
        raise ModelError(f"{path} has {len(pieces):,} lines, and at most {MOST_PIECES:,} are read")
    missing = [token for token in (PADDING, UNKNOWN, CLASS, SEPARATOR) if token not in pieces]
    if missing or pieces[0] != PADDING or len(set(pieces)) != len(pieces):
        wrong = f"{missing[0]} is missing" if missing else f"{PADDING} is not first, or a piece stands there twice"
        raise ModelError(f"{path} is no vocabulary of BERT's: {wrong}")
    return pieces


def as_merges(lines: list[list[str]], path: Path) -> list[tuple[str, str]]:
    """What was read in ``path`` as pairs; raises ModelError if they are none, or merge what none makes."""
    pairs = [(line[0], line[1]) for line in lines if len(line) == 2]
    if not pairs or len(pairs) < len(lines) - 1:
        raise ModelError(f"{path} is not a list of merges", "Each line must hold two tokens.")
    known = vocabulary_of(pairs)
    for a, b in pairs:
        if a not in known or b not in known:
            raise ModelError(f"{path} is damaged: '{a} {b}' merges a piece that no line makes")
    return pairs


def write_merges(path: Path, merges: list[tuple[str, str]], version: bool = False) -> None:
    """Write what ``read_merges`` reads; ``version`` heads it with the line that other readers take off."""
    head = "#version: 0.2\n" if version else ""
    atomic_write(path, (head + "".join(f"{a} {b}\n" for a, b in merges)).encode())


def clip_merges(fallback: Path) -> list[tuple[str, str]]:
    """CLIP's own 48,894 merges, which open_clip installs; ``fallback`` where it is not installed."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        return read_merges(fallback)
    # The file lists more merges than CLIP ever used.
    return read_merges(Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz"))[: 49152 - 256 - 2]


def trim_merges(merges: list[tuple[str, str]], texts: Iterable[str], first: int) -> list[tuple[str, str]]:
    """The ``first`` merges and every one that a word of ``texts`` needs, in their old order."""
    rank = {pair: index for index, pair in enumerate(merges)}
    kept = set(range(min(first, len(merges))))
    runs = re.compile(r"[a-z]+")  # "jack-o-lantern" is split before it is merged, as in PIECES
    for word in {run for text in texts for run in runs.findall(text.lower())}:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            best = min(pairwise(pieces), key=lambda pair: rank.get(pair, len(merges)))
            if best not in rank:
                break
            kept.add(rank[best])
            index = next(i for i in range(len(pieces) - 1) if (pieces[i], pieces[i + 1]) == best)
            pieces[index : index + 2] = [best[0] + best[1]]
    return [merges[index] for index in sorted(kept)]
