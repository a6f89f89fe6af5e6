"""What an adapter file says of itself: the only place that knows the keys of its header.

The header is JSON under ``styledrop`` in the metadata of the safetensors file, so that any tool shows it. Files of
earlier versions lack keys that came later, and files of later versions may have others: both are read, and written
back with what they had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import NoneType
from typing import Any

from styledrop_cli.errors import ModelError
from styledrop_cli.settings import OBJECT, RECOMMENDABLE, STYLE, SampleSettings

KEY = "styledrop"
FORMAT = 1
LONGEST_TEXT = 10_000  # characters of a style or a content
SCALES = {name: SampleSettings.RANGES[name] for name in RECOMMENDABLE}
# The types that JSON may hold under each key; the first six every file has, the others only some.
TYPES: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "config": (dict,),
    "base": (dict,),
    "style": (str,),
    "contents": (list,),
    "recommended": (dict,),
    "learns": (str,),
    "settings": (dict,),
    "pictures": (list,),
    "thumbnail": (str,),
    "superres": (dict, NoneType),
    "source": (dict,),
    "merged": (list,),
    "picks": (list,),
    "round": (int,),
    "created": (str,),
}
REQUIRED = tuple(TYPES)[:6]
LISTS_OF_OBJECTS = ("pictures", "picks", "merged")


@dataclass(frozen=True)
class AdapterHeader:
    """What is known of an adapter beside its tensors.

    ``kind`` is one of ``models.adapter.KINDS`` and ``config`` its configuration; ``superres`` is the configuration of
    the super-resolution transformer's own adapter, None without one. ``base`` has the ``name`` and the ``hash`` of the
    base it belongs to. It ``learns`` a style or an object. ``style`` is the style in words, ``contents`` what each
    picture that was learnt from shows: the references (``pictures``: name, sha256, width, height, psnr in dB) and, of
    a round of feedback, the ``picks`` (prompt, seed, total). ``recommended`` are settings to draw with.

    ``settings`` are those of its training, ``step`` the checkpoint it is, with the training's ``loss`` there and the
    ``scores`` of its test pictures. A round of feedback has its ``number`` (``round`` in the file), the sha256 of its
    ``parent`` and who picked (``feedback``). A file brought from another tool has a ``source`` (name, sha256) in place
    of pictures, a merged one the parts it was ``merged`` from (name, weight, style, sha256). ``thumbnail`` is the
    first reference as a data URL. ``others`` are keys that this version does not know.
    """

    kind: str
    config: Mapping[str, Any]
    base: Mapping[str, Any]
    style: str
    contents: list[str]
    recommended: Mapping[str, float]
    learns: str = STYLE
    settings: Mapping[str, Any] = field(default_factory=dict)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    thumbnail: str = ""
    superres: Mapping[str, Any] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    merged: list[dict[str, Any]] = field(default_factory=list)
    picks: list[dict[str, Any]] = field(default_factory=list)
    number: int = 1
    parent: str = ""
    feedback: str = ""
    seed: int | None = None
    created: str = ""
    styledrop: str = ""
    step: int | None = None
    loss: float | None = None
    scores: Mapping[str, float] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    written: tuple[str, ...] = ()  # the keys that its file has, in their order

    @property
    def is_object(self) -> bool:
        """Whether it learnt an object, and no style."""
        return self.learns == OBJECT

    @property
    def name(self) -> str:
        """The style in words, or what the object is."""
        return ", ".join(dict.fromkeys(map(str, self.contents))) if self.is_object else self.style

    @classmethod
    def new(cls, **values: Any) -> AdapterHeader:
        """A header as this version writes it, made now; ``values`` are the fields, in the order of the file."""
        made = cls(**values)
        return replace(made, written=("format", *map(_key, values)))

    @classmethod
    def read(cls, said: object, source: str) -> AdapterHeader:
        """The header that a file ``source`` holds as JSON; raises ModelError for one that is not as it was written."""
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise ModelError(f"{source} is an adapter of another format", "Update styledrop, or train it again.")
        wrong = [
            name
            for name, kinds in TYPES.items()
            if (name in said or name in REQUIRED) and not isinstance(said.get(name), kinds)
        ]
        wrong = wrong or [name for name, sound in _inside(said).items() if not sound]
        if wrong:
            raise ModelError(f"the header of {source} is damaged: {', '.join(wrong)} missing or of the wrong kind")
        names = {_key(one.name): one.name for one in fields(cls) if one.name not in ("others", "written")}
        known = {names[key]: value for key, value in said.items() if key in names}
        others = {key: value for key, value in said.items() if key not in names and key != "format"}
        return cls(**known, others=others, written=tuple(said))

    def to_json(self) -> dict[str, Any]:
        """The header as a file holds it."""
        values = {
            _key(one.name): getattr(self, one.name) for one in fields(self) if one.name not in ("others", "written")
        }
        values |= {"format": FORMAT, **self.others}
        return {key: values[key] for key in self.written}

    def with_values(self, **values: Any) -> AdapterHeader:
        """The same header with other ``values``, which are written whether the file had them or not."""
        written = (*self.written, *(key for key in map(_key, values) if key not in self.written))
        return replace(self, **values, written=written)


def _key(name: str) -> str:
    """The file's key of a field: its name, but for ``number``."""
    return "round" if name == "number" else name


def _inside(said: Mapping[str, Any]) -> dict[str, bool]:
    """Whether what a header holds is sound inside, by its keys."""
    base, source = said["base"], said.get("source", {"name": ""})
    return {
        "base": all(isinstance(base.get(name, ""), str) for name in ("name", "hash")),
        "style": len(said["style"]) <= LONGEST_TEXT,
        "contents": all(isinstance(one, str) and len(one) <= LONGEST_TEXT for one in said["contents"]),
        "recommended": all(_is_recommendable(*item) for item in said["recommended"].items()),
        "source": isinstance(source.get("name"), str),
        **{name: all(isinstance(one, dict) for one in said.get(name, ())) for name in LISTS_OF_OBJECTS},
    }


def _is_recommendable(name: str, value: object) -> bool:
    if name not in SCALES or not isinstance(value, int | float) or isinstance(value, bool):
        return False
    least, most = SCALES[name]
    whole = isinstance(value, int) or not isinstance(SampleSettings.defaults()[name], int)
    return whole and least <= value <= most
