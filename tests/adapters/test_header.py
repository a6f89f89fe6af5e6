"""Headers of adapter files: those of every kind that versions so far have written are read, and written back whole."""

from __future__ import annotations

from typing import Any

import pytest

from styledrop_cli.adapters.header import AdapterHeader
from styledrop_cli.errors import ModelError

BASE = {"name": "pocket", "hash": "bb22b773"}
BOTTLENECK = {"width": 8, "shared": False}
LORA = {"rank": 4, "alpha": 4.0, "targets": ["to_q", "to_k", "to_v"]}
SCALES = {"lambda_a": 0.0, "lambda_b": 1.5}
PICTURE = {"name": "ref.png", "sha256": "bd0b", "width": 512, "height": 512, "psnr": 19.84}
SCORES = {"object": 0.9983, "shape": 0.9063, "style": 0.148, "leak": 0.0802, "total": 1.9724}
SETTINGS = {
    "kind": "bottleneck", "steps": 60, "lr": 0.005, "batch_size": 8, "width": 8, "shared": False, "seed": 0,
    "targets": ["to_q", "to_k", "to_v"], "views": 64, "checkpoints": 5, "last": False, "lambda_a": 0.0,
    "lambda_b": 1.5, "superres_steps": 100, "superres_lr": 0.005, "learn": "style",
}  # fmt: skip
MADE = {"created": "2026-11-27T16:53:01+00:00", "styledrop": "0.1.0"}
TRAINED = {
    "format": 1, "kind": "bottleneck", "config": BOTTLENECK, "base": BASE, "learns": "style", "style": "watercolor",
    "contents": ["a bee"], "settings": SETTINGS, "recommended": SCALES, "seed": 0, **MADE, "superres": BOTTLENECK,
    "pictures": [PICTURE], "thumbnail": "data:image/jpeg;base64,AAAA", "step": 60, "loss": 3.6125, "scores": SCORES,
}  # fmt: skip
# One of each kind. The first is what the first version wrote.
HEADERS: dict[str, dict[str, Any]] = {
    "before objects": {key: value for key, value in TRAINED.items() if key not in ("learns", "settings", "superres")},
    "bottleneck": TRAINED,
    "lora": TRAINED | {"kind": "lora", "config": LORA, "superres": LORA | {"rank": 2}},
    "prompt": TRAINED | {"kind": "prompt", "config": {"vectors": 16}, "superres": None},
    "object": TRAINED | {"learns": "object", "style": "", "contents": ["my dog", "my dog"], "scores": None},
    "saved by a sweep": TRAINED | {"recommended": SCALES | {"strength": 1.2, "temperature": 2.0, "steps": 24}},
    "reset by inspect": TRAINED | {
        "recommended": SCALES | {"strength": 1.2}, "as_trained": {"recommended": SCALES, "step": 60},
    },
    "round": TRAINED | {
        "contents": ["a bee", "a robot"], "round": 2, "parent": "592a", "feedback": "clip",
        "picks": [{"prompt": "a robot", "seed": 2002, "total": 2.1564}],
    },
    "merged": {
        "format": 1, "kind": "lora", "config": LORA, "base": BASE,
        "merged": [{"name": "a", "weight": 0.6, "style": "ink", "sha256": "aa"}], "learns": "style",
        "style": "ink and gold", "contents": ["a bee", "a cat"], "recommended": SCALES, **MADE, "superres": None,
        "pictures": [PICTURE, PICTURE], "settings": SETTINGS, "thumbnail": "data:image/jpeg;base64,AAAA",
    },
    "brought from elsewhere": {
        "format": 1, "kind": "lora", "config": LORA, "base": BASE | {"name": "amused-256"}, "style": "ink",
        "contents": [], "recommended": {"lambda_a": 0.0, "lambda_b": 9.0}, "pictures": [],
        "source": {"name": "theirs.safetensors", "sha256": "cc"}, **MADE,
    },
    "weighed": TRAINED | {"pictures": [PICTURE, PICTURE], "weights": [2.0, 0.5]},
    "of a later version": TRAINED | {"weather": {"rain": [1, 2]}},
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_what_was_written_is_read_and_written_back(kind: str) -> None:
    said = HEADERS[kind]
    header = AdapterHeader.read(said, "a.safetensors")
    assert list(header.to_json().items()) == list(said.items())  # the order too
    assert header.style == said["style"] and header.contents == said["contents"] and header.base == said["base"]
    assert header.recommended == said["recommended"]
    assert header.learns == said.get("learns", "style")
    assert header.number == said.get("round", 1)


def test_who_it_is() -> None:
    assert AdapterHeader.read(HEADERS["bottleneck"], "a").name == "watercolor"
    thing = AdapterHeader.read(HEADERS["object"], "a")
    assert thing.is_object and thing.name == "my dog"


def test_other_values_keep_the_rest() -> None:
    header = AdapterHeader.read(HEADERS["before objects"], "a")
    changed = header.with_values(recommended={"steps": 24}, number=3).to_json()
    assert changed == HEADERS["before objects"] | {"recommended": {"steps": 24}, "round": 3}


def test_a_new_one_is_read_as_it_was_made() -> None:
    made = AdapterHeader.new(
        kind="lora", config=LORA, base=BASE, style="ink", contents=[], recommended=SCALES, superres=None
    )
    said = made.to_json()
    assert list(said) == ["format", "kind", "config", "base", "style", "contents", "recommended", "superres"]
    assert AdapterHeader.read(said, "a") == made


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "another format"),
        ({"kind": 5}, "kind missing or of the wrong kind"),
        ({"base": {"name": 5}}, "base missing"),
        ({"style": "x" * 10_001}, "style missing"),
        ({"contents": ["a", 5]}, "contents missing"),
        ({"recommended": {"lambda_a": -1}}, "recommended missing"),
        ({"recommended": {"colour": 1}}, "recommended missing"),
        ({"recommended": {"steps": 2.5}}, "recommended missing"),
        ({"as_trained": 5}, "as_trained missing"),
        ({"as_trained": {"recommended": {"colour": 1}, "step": 60}}, "as_trained missing"),
        ({"as_trained": {"recommended": SCALES, "step": "last"}}, "as_trained missing"),
        ({"pictures": ["ref.png"]}, "pictures missing"),
        ({"picks": 5, "round": "two"}, "picks, round missing"),
        ({"source": {}}, "source missing"),
        ({"step": "last"}, "step missing"),
        ({"loss": [1.0]}, "loss missing"),
        ({"scores": {"style": "good"}}, "scores missing"),
        ({"parent": 5, "feedback": []}, "parent, feedback missing"),
        ({"seed": 1.5}, "seed missing"),
        ({"styledrop": 3, "created": None}, "created, styledrop missing"),
        ({"round": True}, "round missing"),
        ({"weights": [1.0, 2.0]}, "weights missing"),
        ({"weights": [0.0]}, "weights missing"),
        ({"weights": ["2"]}, "weights missing"),
    ],
)
def test_a_damaged_one_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        AdapterHeader.read(TRAINED | change, "a.safetensors")


def test_what_is_no_header() -> None:
    with pytest.raises(ModelError, match="another format"):
        AdapterHeader.read([], "a.safetensors")
