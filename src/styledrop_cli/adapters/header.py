"""What an adapter file says of itself: the only place that knows the keys of its header.

The header is JSON under ``styledrop`` in the metadata of the safetensors file, so that any tool shows it. Files of
earlier versions lack keys that came later, and files of later versions may have others: both are read, and written
back with what they had. Imports no torch until tensors are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from styledrop_cli import __version__
from styledrop_cli.errors import ModelError
from styledrop_cli.io.file_kinds import reading
from styledrop_cli.io.files import parse_json, read_metadata
from styledrop_cli.settings import OBJECT, RECOMMENDABLE, STYLE, WEIGHTS, SampleSettings

if TYPE_CHECKING:
    from torch import Tensor

KEY = "styledrop"
FORMAT = 1
LONGEST_TEXT = 10_000  # characters of a style or a content
SCALES = {name: SampleSettings.RANGES[name] for name in RECOMMENDABLE}
LARGEST_ADAPTER = 1_000_000_000  # bytes of its file; a hundredth of any base that is known has less
# Each kind's size, as its configuration calls it, and the tensors and the dimension of them that have it.
SIZES = {"bottleneck": ("width", "down", -1), "lora": ("rank", r"a\..+", -1), "prompt": ("vectors", "vectors", 1)}


@dataclass(frozen=True)
class AdapterHeader:
    """What is known of an adapter beside its tensors.

    ``kind`` is one of ``models.adapter.KINDS`` and ``config`` its configuration; ``superres`` is the configuration of
    the super-resolution transformer's own adapter, None without one. ``base`` has the ``name`` and the ``hash`` of the
    base it belongs to, and the name of its ``text_encoder`` where it has several. It ``learns`` a style or an object.
    ``style`` is the style in words, ``contents`` what each picture that was learnt from shows: the references
    (``pictures``: name, sha256, width, height, psnr in dB) and, of a round of feedback, the ``picks`` (prompt, seed,
    total). ``recommended`` are settings to draw with; where others were saved since, ``as_trained`` holds what training
    wrote (``recommended``, ``step``).

    ``settings`` are those of its training, ``step`` the checkpoint it is, with the training's ``loss`` there and the
    ``scores`` of its test pictures. A round of feedback has its ``number`` (``round`` in the file), the sha256 of its
    ``parent`` and who picked (``feedback``). A file brought from another tool has a ``source`` (name, sha256) in place
    of pictures, a merged one the parts it was ``merged`` from (name, weight, style, sha256). ``thumbnail`` is the
    first reference as a data URL. ``weights`` say how often each of the ``pictures`` was learnt from beside the others;
    without any, all were alike. ``others`` are keys that this version does not know.
    """

    kind: str
    config: Mapping[str, Any]
    base: Mapping[str, Any]
    style: str
    contents: list[str]
    recommended: dict[str, Any]
    learns: str = STYLE
    settings: Mapping[str, Any] = field(default_factory=dict)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    thumbnail: str = ""
    weights: list[float] = field(default_factory=list)
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
    as_trained: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)
    written: tuple[str, ...] = ()  # the keys that its file has, in their order

    @property
    def is_object(self) -> bool:
        """Whether it learnt an object, and no style."""
        return self.learns == OBJECT

    @property
    def name(self) -> str:
        """The style in words, or what the object is."""
        return ", ".join(dict.fromkeys(self.contents)) if self.is_object else self.style

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
        hints = get_type_hints(cls)
        stored = _stored()
        wrong = [
            key
            for key, one in stored.items()
            if not (_is_of(said[key], hints[one.name]) if key in said else _may_lack(one))
        ]
        wrong = wrong or [name for name, sound in _inside(said).items() if not sound]
        if wrong:
            raise ModelError(f"the header of {source} is damaged: {', '.join(wrong)} missing or of the wrong kind")
        known = {one.name: said[key] for key, one in stored.items() if key in said}
        others = {key: value for key, value in said.items() if key not in stored and key != "format"}
        return cls(**known, others=others, written=tuple(said))

    def to_json(self) -> dict[str, Any]:
        """The header as a file holds it."""
        values = {key: getattr(self, one.name) for key, one in _stored().items()}
        values |= {"format": FORMAT, **self.others}
        return {key: values[key] for key in self.written}

    def with_values(self, **values: Any) -> AdapterHeader:
        """The same header with other ``values``, which are written whether the file had them or not."""
        written = (*self.written, *(key for key in map(_key, values) if key not in self.written))
        return replace(self, **values, written=written)


def made_now() -> dict[str, str]:
    """When a header is made, and by which version of styledrop."""
    return {"created": datetime.now(UTC).isoformat(timespec="seconds"), "styledrop": __version__}


def _key(name: str) -> str:
    """The file's key of a field: its name, but for ``number``."""
    return "round" if name == "number" else name


def _stored() -> dict[str, Field[Any]]:
    """The fields that a file holds, by its keys."""
    return {_key(one.name): one for one in fields(AdapterHeader) if one.name not in ("others", "written")}


def _may_lack(one: Field[Any]) -> bool:
    """Whether there are files without this field."""
    return one.default is not MISSING or one.default_factory is not MISSING


def _is_of(value: object, hint: Any) -> bool:
    """Whether a value of JSON is of the type that a field is declared with; true and false are no numbers."""
    inside = get_args(hint)
    if isinstance(hint, UnionType):
        return any(_is_of(value, one) for one in inside)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_is_of(one, inside[0]) for one in value)
    if get_origin(hint) in (dict, Mapping):
        return isinstance(value, dict) and all(_is_of(one, inside[1]) for one in value.values())
    if hint is Any:
        return True
    return isinstance(value, (int, float) if hint is float else hint) and not isinstance(value, bool)


def _inside(said: Mapping[str, Any]) -> dict[str, bool]:
    """Whether what a header holds is sound inside, by its keys."""
    base, source = said["base"], said.get("source", {"name": ""})
    return {
        "base": all(isinstance(base.get(name, ""), str) for name in ("name", "hash", "text_encoder")),
        "style": len(said["style"]) <= LONGEST_TEXT,
        "contents": all(len(one) <= LONGEST_TEXT for one in said["contents"]),
        "recommended": all(_is_recommendable(*item) for item in said["recommended"].items()),
        "as_trained": _is_as_trained(said.get("as_trained")),
        "source": isinstance(source.get("name"), str),
        "weights": _are_weights(said.get("weights"), said.get("pictures", [])),
    }


def _are_weights(said: list[float] | None, pictures: list[Any]) -> bool:
    return not said or (len(said) == len(pictures) and all(WEIGHTS[0] <= one <= WEIGHTS[1] for one in said))


def _is_as_trained(said: Mapping[str, Any] | None) -> bool:
    if not said:
        return True
    recommended, step = said.get("recommended"), said.get("step")
    sound = isinstance(recommended, dict) and all(_is_recommendable(*item) for item in recommended.items())
    return sound and (step is None or type(step) is int)


def _is_recommendable(name: str, value: object) -> bool:
    if name not in SCALES or not isinstance(value, int | float) or isinstance(value, bool):
        return False
    least, most = SCALES[name]
    whole = isinstance(value, int) or not isinstance(SampleSettings.defaults()[name], int)
    return whole and least <= value <= most


# ---- files -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as read: its header, its tensors, and where it came from."""

    path: Path
    header: AdapterHeader
    tensors: dict[str, Tensor]


def save_adapter(path: Path, tensors: Mapping[str, Tensor], header: AdapterHeader, extra: Mapping[str, str]) -> None:
    """Write an adapter; ``extra`` are flat metadata keys that other tools read (modelspec)."""
    from styledrop_cli.io.tensors import save_tensors

    save_tensors(path, tensors, {"format": "pt", KEY: json.dumps(header.to_json(), ensure_ascii=False), **extra})


def write_recommended(path: Path, values: Mapping[str, float], source: Path | None = None) -> None:
    """Let the adapter file at ``path`` recommend ``values``, beside what it recommends already; atomically.

    All else stays as it is, the tensors to the bit. With ``source``, another checkpoint of its training, it becomes
    that one. What it was before the first such change is kept, for ``write_as_trained``.
    """
    before = read_header(path)
    kept = before.as_trained or {"recommended": before.recommended, "step": before.step}
    _rewrite(path, source or path, recommended={**before.recommended, **values}, as_trained=kept)


def write_trained(path: Path, values: Mapping[str, float]) -> None:
    """Let the adapter file at ``path`` recommend ``values``, too, as the training does that is about to write it."""
    _rewrite(path, path, recommended={**read_header(path).recommended, **values})


def write_as_trained(path: Path, source: Path | None = None) -> None:
    """Let the adapter file at ``path`` be again what its training wrote; atomically.

    ``source`` is the checkpoint that it was then, where it has become another one.
    """
    _rewrite(path, source or path, recommended=dict(read_header(path).as_trained["recommended"]), as_trained={})


def _rewrite(path: Path, source: Path, **values: Any) -> None:
    from styledrop_cli.io.tensors import read_tensors, save_tensors

    tensors, metadata = read_tensors(source)
    header = _header(path, metadata).with_values(**values)
    if not header.as_trained:
        header = replace(header, written=tuple(key for key in header.written if key != "as_trained"))
    metadata |= {KEY: json.dumps(header.to_json(), ensure_ascii=False)}
    _header(path, metadata)  # nothing is written that could not be read
    save_tensors(path, tensors, metadata)


def read_header(path: Path) -> AdapterHeader:
    """What an adapter file says of itself; raises ModelError if it says nothing or is no safetensors file."""
    with reading(path, "adapter file"):
        metadata = read_metadata(path)
    return _header(path, metadata)


def load_adapter(path: Path) -> AdapterFile:
    """Read an adapter file whole; raises ModelError as ``read_header`` does, and for values that are not finite."""
    from styledrop_cli.io.tensors import read_tensors

    header = read_header(path)
    tensors, _ = read_tensors(path, LARGEST_ADAPTER)
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise ModelError(f"{path} is damaged: {bad[0]} holds a value that is not finite")
    _refuse_other_sizes(path, header, tensors)
    return AdapterFile(path, header, tensors)


def _header(path: Path, metadata: Mapping[str, str]) -> AdapterHeader:
    if KEY not in metadata:
        raise ModelError(
            f"{path} was not written by styledrop: its header has no '{KEY}' entry",
            "Give an adapter made by 'styledrop train'; 'styledrop convert' makes one of a LoRA of another program.",
        )
    try:
        said = parse_json(metadata[KEY])
    except ValueError as error:
        raise ModelError(f"the header of {path} is damaged: {error}") from error
    return AdapterHeader.read(said, str(path))


def _refuse_other_sizes(path: Path, header: AdapterHeader, tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelError where the header says another width or rank than the adapter's own tensors have."""
    from styledrop_cli.io.tensors import LARGEST_SIZE

    size, tensor, dimension = SIZES.get(header.kind, ("", "", 0))
    for network, config in (("adapter", header.config), ("superres", header.superres or {})):
        said = config.get(size)
        if type(said) is not int or not 0 < said <= LARGEST_SIZE:
            continue  # whoever opens it says so
        for name, values in tensors.items():
            if re.fullmatch(rf"{network}\.{tensor}", name) and values.ndim > 1 and values.shape[dimension] != said:
                raise ModelError(
                    f"{path} is damaged: its header says {size} {said:,}, and its tensors have "
                    f"{values.shape[dimension]:,} ({name})",
                    "Get it anew, or train it again.",
                )
