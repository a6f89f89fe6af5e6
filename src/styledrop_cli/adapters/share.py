"""An adapter for others: its file without what is nobody's business, and a model card that says what it is.

Of a reference, the file holds its tokens and a thumbnail, which training goes on from, and no more leaves this machine:
not what its file is called, nor its sha256.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from styledrop_cli import __version__
from styledrop_cli.adapters.file import modelspec
from styledrop_cli.adapters.header import AdapterFile, AdapterHeader, save_adapter
from styledrop_cli.base.prompt_tokens import with_style
from styledrop_cli.base.registry import BUNDLED, PUBLISHED
from styledrop_cli.errors import UsageError
from styledrop_cli.io.files import atomic_write
from styledrop_cli.io.images import from_base64, thumbnail_base64
from styledrop_cli.io.text_files import CONTROLS
from styledrop_cli.settings import TrainSettings

FILES = WEIGHTS, CARD, SHEET, REFERENCE = "adapter.safetensors", "README.md", "sheet.jpg", "reference.jpg"
# What the hub calls licences (https://huggingface.co/docs/hub/repositories-licenses); it calls others "other".
LICENSES = frozenset(
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear "
    "bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 "
    "cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 "
    "creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 "
    "lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl ofl-1.1 openrail openrail++ osl-3.0 pddl postgresql unlicense "
    "wtfpl zlib".split()
)
COMMON_LICENSES = "cc0-1.0, cc-by-4.0, cc-by-sa-4.0, cc-by-nc-4.0, apache-2.0, mit, openrail++"
_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_MARKUP = re.compile(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)")  # what Markdown reads inside a line
# What of a header's parts is for others.
_OF_PICTURE = ("width", "height", "psnr")
_OF_PICK = ("prompt", "seed", "total")
_OF_BASE = ("name", "hash", "text_encoder")


def checked_license(said: str) -> str:
    """A licence as the card names it; raises UsageError for what is no id of a licence, as SPDX and the hub give."""
    if not _LICENSE.fullmatch(said):
        raise UsageError(
            f"'{said[:40]}' is no id of a licence", f"give one of {COMMON_LICENSES}, or another of https://spdx.org"
        )
    return said.lower() if said.lower() in LICENSES else said


# ---- the file ----


def for_others(file: AdapterFile, repo: str, references: bool = True) -> AdapterFile:
    """The adapter in ``file`` as it is given away in ``repo``: it draws the same, to the bit.

    Its header says nothing of what files are called here, or where they are. Without ``references`` their tokens and
    thumbnail stay here, too: then nobody can judge it by them, or train it further.
    """
    header = file.header
    values: dict[str, Any] = {
        "pictures": [_only(one, _OF_PICTURE) for one in header.pictures],
        "picks": [_only(one, _OF_PICK) for one in header.picks],
        "base": _only(header.base, _OF_BASE),
        "settings": _only(header.settings, TrainSettings.defaults()),
        "merged": [
            {**_only(one, ("weight", "style", "sha256")), "name": f"part-{number}.safetensors"}
            for number, one in enumerate(header.merged, 1)
        ],
        "source": {**_only(header.source, ("sha256",)), "name": "another program"} if header.source else {},
        "thumbnail": thumbnail_base64(from_base64(header.thumbnail)) if header.thumbnail else "",
    }
    tensors = file.tensors
    if not references and header.pictures:
        tensors = {name: one for name, one in tensors.items() if not name.startswith("views.")}
        values |= {"pictures": [], "thumbnail": "", "picks": [], "source": {"name": repo}}
    kept = replace(header, others={}, written=tuple(key for key in header.written if key not in header.others))
    values = {key: one for key, one in values.items() if one or key in kept.written}
    return AdapterFile(Path(WEIGHTS), kept.with_values(**values), tensors)


def _only(said: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: said[key] for key in keys if key in said}


# ---- the folder ----


@dataclass(frozen=True)
class Sharing:
    """What is said of an adapter on the hub, beside what its file says.

    ``prompts`` are what its ``sheet`` shows, a JPEG.
    """

    repo: str
    license: str
    prompts: Sequence[str] = ()
    sheet: bytes | None = None


def write_folder(folder: Path, file: AdapterFile, about: Sharing) -> list[Path]:
    """Write all that is pushed of ``file``, which is ``for_others`` already; the paths, the adapter first."""
    save_adapter(folder / WEIGHTS, file.tensors, file.header, modelspec(file.header))
    beside = {CARD: card(file.header, about).encode()}
    if about.sheet:
        beside[SHEET] = about.sheet
    if file.header.thumbnail:
        beside[REFERENCE] = base64.b64decode(file.header.thumbnail.partition(",")[2])
    for name in set(FILES) - {WEIGHTS, *beside}:  # of what was there before
        (folder / name).unlink(missing_ok=True)
    for name, data in beside.items():
        atomic_write(folder / name, data)
    return [folder / name for name in (WEIGHTS, *beside)]


def message_of(file: AdapterFile) -> str:
    """What a commit with an adapter is called."""
    return f"{_line(file.header.name)}: an adapter of styledrop"


# ---- the card ----


def card(header: AdapterHeader, about: Sharing) -> str:
    """The model card: what the adapter draws, how it is used, how it was made; Markdown with YAML in front."""
    parts = [
        _front_matter(header, about),
        f"# {_text(about.repo.partition('/')[2])}",
        _opening(header),
        f"![Pictures drawn with it: {_text(', '.join(about.prompts))}]({SHEET})" if about.sheet else "",
        "## Use it",
        _usage(header, about),
        _recommended(header),
        "## What it learnt from",
        _references(header),
        "## How it was trained",
        _training(header),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(header: AdapterHeader, about: Sharing) -> str:
    lines = [f"license: {about.license}"]
    if about.license not in LICENSES:
        lines = ["license: other", f"license_name: {json.dumps(about.license)}"]
    row = PUBLISHED.get(str(header.base.get("name")))
    if row is not None:
        lines += [f"base_model: {row.repository}", "base_model_relation: adapter"]
    lines += ["library_name: styledrop", "pipeline_tag: text-to-image", "tags:"]
    return "\n".join(["---", *lines, "- styledrop", "- text-to-image", "- style", "---"])


def _opening(header: AdapterHeader) -> str:
    what = f"the object **{_text(header.name)}**" if header.is_object else f"the style **{_text(header.style)}**"
    base = str(header.base.get("name", "unnamed"))
    row = PUBLISHED.get(base)
    where = f"[{base}](https://huggingface.co/{row.repository})" if row else f"`{_code(base)}`"
    if base == BUNDLED:
        where += ", which comes with styledrop"
    elif row is None:
        where += ", a model of its maker's own, without which it does not draw"
    reads = header.base.get("text_encoder")
    encoder = f", read with the text encoder `{_code(str(reads))}`" if reads else ""
    return (
        f"A styledrop adapter for {what}. It draws with the base model {where}{encoder} "
        f"(hash `{_code(str(header.base.get('hash', 'none')))}`) and with no other."
    )


def _usage(header: AdapterHeader, about: Sharing) -> str:
    name = about.repo.partition("/")[2]
    draw = f"styledrop generate {name} {_quoted(about.prompts[0] if about.prompts else 'a cat')}"
    if header.is_object:
        draw = f"styledrop generate STYLE {_quoted(header.name)} --object {name}"
    lines = ["```", f"styledrop pull {about.repo}", draw, "```"]
    said = with_style("a cat", _line(header.style))
    behind = f"\n\nThe style's words are put behind each prompt: `{_code(said)}`." if header.style else ""
    return "\n".join(lines) + behind


def _quoted(text: str) -> str:
    """A text as it is typed into a shell."""
    text = _line(text)
    return f'"{text}"' if re.fullmatch(r"[\w ,.'-]+", text) else shlex.quote(text)


def _recommended(header: AdapterHeader) -> str:
    said = ", ".join(f"{name} {_value(value)}" for name, value in header.recommended.items())
    return f"Recommended settings, which styledrop takes from the file by itself: {_text(said)}." if said else ""


def _references(header: AdapterHeader) -> str:
    if header.merged:
        made = ", ".join(
            f"{_text(str(one.get('style', '')))} (weight {_number(one.get('weight'))})" for one in header.merged
        )
        opening = f"It was merged from the adapters of {len(header.merged)} styles: {made}."
    elif header.pictures:
        count = len(header.pictures)
        sizes = ", ".join(f"{_number(one.get('width'))} x {_number(one.get('height'))} px" for one in header.pictures)
        opening = f"{count} {'picture' if count == 1 else 'pictures'} ({sizes})."
    else:
        opening = "The pictures that it was trained on are not in the file."
    lines = [opening]
    if header.style:
        lines.append(f"- style: {_text(header.style)}")
    if header.contents:
        lines.append(f"- content: {_text('; '.join(dict.fromkeys(header.contents)))}")
    if header.thumbnail:
        lines += ["", f"![The first of them, small]({REFERENCE})"]
        lines += ["", "The file holds this thumbnail and the pictures as the base model's tokens, and no more of them."]
    return "\n".join([lines[0], "", *lines[1:]]).strip()


def _training(header: AdapterHeader) -> str:
    own = ("steps", "lr", "batch_size", "views", "seed")
    rows: dict[str, object] = {"kind": header.kind, **dict(header.config)}
    if header.settings:
        rows |= {name.replace("_", " "): header.settings[name] for name in own if name in header.settings}
    rows |= {
        "kept at step": header.step,
        "loss there": header.loss,
        "round of feedback": header.number if header.number > 1 else None,
        "super-resolution": "yes" if header.superres else None,
        **{f"its test pictures: {name}": value for name, value in (header.scores or {}).items()},
        "made": header.created.partition("T")[0],
        "by styledrop": header.styledrop or __version__,
    }
    lines = ["| | |", "|---|---|"]
    lines += [f"| {_text(name)} | {_text(_value(value))} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else "?"


def _line(text: str) -> str:
    """A text in one line."""
    return " ".join(CONTROLS.sub(" ", text).split())


def _text(text: str) -> str:
    """A text as Markdown shows it, whatever is in it."""
    return _MARKUP.sub(r"\\\g<0>", _line(text))


def _code(text: str) -> str:
    """A text between backquotes."""
    return _line(text).replace("`", "'")
