"""What a file is, by its first bytes, that is no safetensors file: so that a person can be told what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from styledrop_cli.errors import ModelError
from styledrop_cli.io.files import did_you_mean

LOOKED_AT = 1024  # bytes
LONGEST_LINE = 60  # characters of a text that are quoted
_OTHER = "Name another file: weights come as safetensors."
_PICKLE = (
    "a pickle, which may run any code: it is not opened",
    "Get it as safetensors; newer releases of diffusers and peft write nothing else.",
)
_POINTER = (
    "a Git LFS pointer, which only says where the weights are",
    "Fetch the file itself: 'git lfs pull' in its folder, or download it from its page.",
)
_WEB_PAGE = (
    "a web page",
    "Download the file itself: on the hub its address says /resolve/, where its page's says /blob/.",
)
_PACKED = "Unpack it, and name the safetensors file in it."
_MODEL = "Get the model as safetensors."
# How a file begins, what it is then, and what to do about it; the first that fits counts.
_KINDS = {
    rb"version https://git-lfs\.github\.com": _POINTER,
    rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|!--)": _WEB_PAGE,
    rb"PK\x03\x04.{26}[^\0]*(data\.pkl|/\.format_version|/\.storage_alignment)": _PICKLE,  # torch's, in a zip
    rb"\x80[\x02-\x05]": _PICKLE,
    rb"PK[\x03\x05\x07]": ("a zip archive", _PACKED),
    rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd|.{257}ustar": ("an archive", _PACKED),
    rb"GGUF|GGML|ggjt|lmgg": ("a GGUF file, the quantised weights of other programs", _MODEL),
    rb"\x89HDF": ("an HDF5 file, as Keras writes weights", _MODEL),
    rb"\x93NUMPY": ("a NumPy array", _OTHER),
    rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP|II\*\0|MM\0\*": ("a picture", _OTHER),
    rb"%PDF": ("a PDF", _OTHER),
}


def kind_of(path: Path) -> tuple[str, str] | None:
    """What a file that is no safetensors file is, in words, and what to do about it; None if that cannot be told.

    Also None for what begins as a safetensors file does. Raises OSError if it cannot be read.
    """
    with path.open("rb") as file:
        first = file.read(LOOKED_AT)
    if not first:
        return "empty", "Fetch or copy it again."
    if first[4:9] == b"\0\0\0\0{":  # the length of its head, below 4 GB; any bytes may come before
        return None
    for begins, told in _KINDS.items():
        if re.match(begins, first, re.DOTALL | re.IGNORECASE):
            return told
    text = first.decode("utf-8", "ignore")
    if len(text.encode()) < len(first) - 3 or not all(one.isprintable() or one.isspace() for one in text):
        return None
    words = " ".join(text.split())
    what = "JSON" if words[:1] in ("{", "[") else "text"
    quoted = f"{words[:LONGEST_LINE]}{' ...' if len(words) > LONGEST_LINE else ''}"
    return f"{what} that begins '{quoted}'", _OTHER


@contextmanager
def reading(path: Path, what: str = "file") -> Iterator[None]:
    """What is wrong with a safetensors file, ``what`` it is, that is read inside; it is a ModelError.

    It says what the file is instead, where that can be told.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"there is no {what} {path}", did_you_mean(path)) from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}", "Name a file that may be read.") from error
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        if kind := kind_of(path):
            raise ModelError(f"{path} is not a safetensors file: it is {kind[0]}", kind[1]) from error
        raise ModelError(
            f"{path} is not a whole safetensors file ({error})", "It is cut short or damaged: fetch or copy it again."
        ) from error
