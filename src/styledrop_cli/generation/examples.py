"""The pictures on an adapter's model card: drawn as the adapter recommends, and none of them chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from styledrop_cli.adapters.header import AdapterFile
from styledrop_cli.base.base import Base
from styledrop_cli.generation.pipeline import PictureRequest, StyleMix
from styledrop_cli.generation.resolve import settings_of
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.images import jpeg_bytes
from styledrop_cli.judging.prompts import report_prompts
from styledrop_cli.settings import seeds_from

if TYPE_CHECKING:
    from PIL.Image import Image

NUMBER, COLUMNS = 6, 3
QUALITY = 90  # of the JPEG


def mixture_of(file: AdapterFile) -> StyleMix:
    """What draws examples of an adapter: a style by itself, an object on what the base draws."""
    return StyleMix(thing=file) if file.header.is_object else StyleMix.of(file)


def example_requests(base: Base, file: AdapterFile, prompts: Sequence[str], seed: int) -> list[PictureRequest]:
    """The examples: one of each prompt or, of a single one, ``NUMBER`` pictures.

    Without ``prompts`` they are things that the base was taught and the adapter was not, or the object that it learnt.
    """
    header, mixture = file.header, mixture_of(file)
    known = [header.name] if header.is_object else report_prompts(base, header.contents)[:NUMBER]
    texts = list(prompts) or known or header.contents[:1]
    settings = settings_of(base, mixture)
    each = list(seeds_from(seed, NUMBER if len(texts) == 1 else 1))
    return [PictureRequest(mixture.cut(base, text, None), one, settings) for text in texts for one in each]


def example_sheet(pictures: Sequence[Image], wanted: Sequence[PictureRequest], title: str) -> bytes:
    """The sheet of all ``pictures``, as JPEG; no more is in it than is to be seen."""
    labels = [one.prompt for one in wanted]
    return jpeg_bytes(contact_sheet(list(pictures), COLUMNS, labels, title), QUALITY)
