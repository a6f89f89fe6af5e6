"""The bundled base's scores of two prompts, as numbers, for every command that draws pictures and scores them.

`train` (its checkpoints), `score`, `sweep`, `iterate` (its pool and its table) and `report` draw in different ways and
score in the same one: whoever changes either finds it here.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Run
from styledrop_cli.base import registry
from styledrop_cli.base.registry import POCKET_SPEC

EXAMPLE = ROOT / "examples" / "watercolor.png"
PROMPTS = ("a cat", "a house")
# An id drawn otherwise on another machine moves a score by some hundredths; on the one that wrote them they are equal.
MARGIN = 0.05
PINNED: dict[str, list[list[float]]] = {
    "train": [  # object, shape, style, leak, total
        [0.8741, 0.9214, 0.1198, 0.0541, 1.8612],
        [0.8743, 0.9249, 0.1285, 0.0841, 1.8436],
    ],
    "score": [  # text, likeness, csls, object, shape, style, leak, total
        [0.5362, 0.2688, -0.5663, 0.6868, 0.8926, 0.0876, 0.0289, 1.638],
        [0.4867, 0.1783, -0.6437, 0.6227, 0.9109, -0.001, 0.0299, 1.5028],
        [0.5714, 0.5127, 0.0087, 0.9052, 0.9696, 0.0871, 0.0357, 1.9261],
        [0.5673, 0.4598, -0.1469, 0.9208, 0.9591, 0.049, 0.0402, 1.8887],
    ],
    "sweep": [  # object, shape, style, leak, balance
        [0.7791, 0.9331, 0.0551, 0.07, 0.0079],
        [0.2198, 0.6905, 0.2285, 0.0669, 0.2137],
    ],
    "iterate": [  # object, shape, style, leak, total
        [0.8831, 0.8506, 0.0536, 0.0252, 1.7622],
        [0.1616, 0.8119, 0.1103, 0.0749, 1.0089],
        [0.6419, 0.8005, 0.1032, 0.0735, 1.4721],
        [0.9, 0.9396, 0.0099, 0.0747, 1.7748],
        [0.9356, 0.9396, 0.0672, 0.0761, 1.8663],
        [0.9275, 0.9422, 0.0486, 0.057, 1.8613],
        [0.4039, 1.0, 0.0, 0.0, 1.4039],
        [0.3719, 0.9504, 0.1089, 0.0744, 1.3568],
        [0.3885, 0.9571, 0.0678, 0.0642, 1.3492],
    ],
    "report": [  # text, object, shape, likeness, csls, leak
        [0.4326, 0.1452, 0.8053, 0.2902, -1.1047, 0.0038],
        [0.65, 0.2182, 0.9726, 0.3167, -0.6707, 0.0179],
        [0.6734, 0.2374, 0.9297, 0.342, -0.6205, 0.0524],
    ],
}


@pytest.mark.slow
def test_every_command_scores_as_it_did(styledrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "POCKET_SPEC", replace(POCKET_SPEC, reach={}))
    shutil.copy(EXAMPLE, "ref.png")
    Path("prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")

    def said(*words: str) -> dict[str, Any]:
        code, out, err = styledrop(*words, "--json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    train = (
        "--style",
        "watercolor",
        "--content",
        "a rabbit",
        "--steps",
        "30",
        "--checkpoints",
        "2",
        "--lambda-b",
        "1.5",
    )
    said("train", "ref.png", *train, "-o", "a.safetensors")
    found: dict[str, Any] = {}
    curve = json.loads(Path("a.safetensors.run/curve.json").read_text(encoding="utf-8"))
    found["train"] = [one["scores"] for one in curve["checkpoints"]]
    said("generate", "a.safetensors", *PROMPTS, "-n", "2", "-o", "drawn")
    found["score"] = [scores_of(one) for one in said("score", "drawn")["pictures"]]
    sweep = said("sweep", "a.safetensors", *PROMPTS, "--lambda-a", "0,1", "-n", "2")
    found["sweep"] = [scores_of(one) for one in sweep["cells"]]
    rounds = ("--prompts", "prompts.txt", "--per-prompt", "3", "--steps", "10")
    table = said("iterate", "a.safetensors", *rounds, "-o", "rounds")["rounds"]
    pool = json.loads(Path("rounds/round-2/scores.json").read_text(encoding="utf-8"))["pictures"]
    found["iterate"] = [scores_of(one) for one in (*pool, *table)]
    report = said("report", "a.safetensors", "--prompts", "prompts.txt", "-n", "2")
    found["report"] = [{name: one["mean"] for name, one in row.items()} for row in report["rows"].values()]
    Path("found.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    for command, rows in PINNED.items():
        assert len(found[command]) == len(rows), command
        for number, (row, pinned) in enumerate(zip(found[command], rows, strict=True)):
            assert list(row.values()) == pytest.approx(pinned, abs=MARGIN), (command, number, list(row))


def scores_of(about: dict[str, Any]) -> dict[str, float]:
    """The numbers among what is said of a picture, a cell or a round, but for those that count or set something."""
    others = ("picture", "seed", "round", "lambda_a")
    return {name: value for name, value in about.items() if isinstance(value, float) and name not in others}
