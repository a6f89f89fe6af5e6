"""All parts of a base model by one command, a stage each, which may be split over several calls.

What is on disk is the state: which stage is due is read from the parts' records and checkpoints (``records``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from styledrop_cli.corpus.folder import read_corpus
from styledrop_cli.errors import UsageError
from styledrop_cli.io.tensors import read_config
from styledrop_cli.training.distributed import broadcast_number, is_first
from styledrop_cli.training.loop import Budget, Progress
from styledrop_cli.training.pretrain import run as pretraining
from styledrop_cli.training.pretrain.records import (
    FILES,
    WORK,
    checkpoints,
    inputs,
    is_as_recorded,
    needed_parts,
    part_file,
    read_record,
)
from styledrop_cli.training.pretrain.text import INSTALL, PACKAGE
from styledrop_cli.training.pretrain.throughput import Call

# The stages in their order, and the share of the training time that each gets. The text encoder is written, not
# trained. The base's loss was still falling after the longest training so far. Nothing needs the decoder: it is last.
SHARES = {"tokenizer": 0.25, "text": 0.0, "clip": 0.07, "scorer": 0.03, "base": 0.45, "superres": 0.13, "decoder": 0.07}
BEGUN_WITH = 30.0  # seconds without which a call begins no further stage
PICTURES_ALONE = ("tokenizer", "decoder")  # these need no captions, and learn from tok/ where the corpus has it


def stages() -> list[str]:
    """The parts, in the order in which they are trained; without ``text`` where its package is not installed."""
    there = importlib.util.find_spec(PACKAGE) is not None
    return [part for part in SHARES if part in pretraining.PARTS and (part != "text" or there)]


def shared(budget: Budget, part: str) -> Budget:
    """A part's share of the budget of all."""
    if budget.steps is not None:
        return replace(budget, steps=max(1, round(SHARES[part] * budget.steps)))
    assert budget.minutes is not None
    return replace(budget, minutes=SHARES[part] * budget.minutes)


def corpus_of(corpus: Path, part: str) -> Path:
    """The folder that a part learns from: ``tok`` or ``train`` in a corpus that has both, else the corpus itself."""
    tok, train = corpus / "tok", corpus / "train"
    if not (tok.is_dir() and train.is_dir()):
        return corpus
    return tok if part in PICTURES_ALONE else train


def due_stages(out: Path) -> list[str]:
    """The stages that are not finished in a model folder, the first of which may be under way.

    A part without a record is taken as it is. Raises UsageError where a finished part is not the one that was recorded,
    or was made with another part than is there, or with one that is still to be trained.
    """
    due: list[str] = []
    for part in stages():
        path, record = part_file(out, part), read_record(out, part)
        under_way, needed = any(state.exists() for state in checkpoints(out, part)), needed_parts(out, part)
        if record is None:
            made_with = needed if path.exists() else []
            finished = path.exists() and not under_way
        else:
            made_with = [name for name in needed if name in record.inputs] if record.finished or under_way else []
            finished = record.finished and (path.exists() or not record.file)
        if other := [name for name in made_with if name in due]:
            raise UsageError(
                f"the {part} of {out} was trained with a {other[0]} that is not finished there, or no longer",
                f"Put {part_file(out, other[0])} back, or delete {path} and {out / WORK / part}* to train it anew.",
            )
        if record is not None and finished:
            if not is_as_recorded(out, part, record):
                raise UsageError(
                    f"{path} is not the file that was trained there: it was replaced since",
                    f"Put it back, or delete {out / WORK / part}.json to take it as it is.",
                )
            pretraining.refuse_other_inputs(out, part, record, inputs(out, part))
        if not finished:
            due.append(part)
    return due


def train_all(
    corpus: Path,
    out: Path,
    *,
    budget: Budget,
    device: torch.device,
    batch_size: int | None = None,
    rate: float = 1.0,
    init_from: Path | None = None,
    resume: bool = False,
    compiled: bool | None = False,
    seed: int = 0,
    call: Call | None = None,
    on_step: Callable[[str, Progress], None] = lambda part, progress: None,
    on_message: Callable[[str, str], None] = lambda part, message: None,
) -> list[dict[str, Any]]:
    """Train all parts of a model folder, within the ``budget`` of all; what came of each stage so far, as plain values.

    Each stage is trained as ``pretraining.run`` does, on ``corpus_of`` it and for its share of the budget. ``resume``
    goes on with the stage that is due; what is finished is not touched. A ``call`` that is over ends after a step that
    is saved. Both callbacks get the part's name first. Raises as ``run`` and ``due_stages`` do, and UsageError
    for a folder that holds parts already, unless ``resume`` is given.
    """
    call = call or Call()
    heard: set[str] = set()

    def tell(part: str, message: str) -> None:
        """Tell a warning once: those of the corpus are the same for all stages."""
        if not (message.startswith("Warning: ") and message in heard):
            heard.add(message)
            on_message(part, message)

    parts = stages()
    there = [p for p in parts if part_file(out, p).exists() or any(state.exists() for state in checkpoints(out, p))]
    if there and not resume:
        raise UsageError(
            f"{out} holds what was trained before: {', '.join(there)}",
            "Add --resume to go on with what is due, or name another folder with -o.",
        )
    due = due_stages(out)
    if "clip" in due and "text" not in parts and not part_file(out, "text").exists():
        on_message("text", f"not installed: prompts are read by the CLIP's own text tower ({INSTALL} brings it)")
    for part in due:  # a broken corpus is refused before the first stage, not after hours
        read_corpus(corpus_of(corpus, part), captions=part not in PICTURES_ALONE)
    known = set(read_config(init_from)["parts"]) if init_from is not None else set()
    outcomes: list[dict[str, Any]] = []
    began = False
    for part in parts:
        if part not in due:
            record = read_record(out, part)
            outcomes.append({"part": part, "finished": True} | (record.result if record else {}))
            if is_first():
                pretraining.remove_checkpoints(out, part)  # it was killed in between
            on_message(part, "is finished" if record else "is there already, and taken as it is")
            continue
        if began and broadcast_number(float(call.over(spare=BEGUN_WITH)), device):
            break
        began = True
        outcome = pretraining.run(
            part,
            corpus_of(corpus, part),
            out,
            budget=shared(budget, part),
            device=device,
            batch_size=batch_size,
            rate=rate,
            init_from=init_from if FILES.get(part, part) in known else None,
            resume=resume,
            compiled=compiled,
            seed=seed,
            call=call,
            on_step=lambda progress, part=part: on_step(part, progress),  # type: ignore[misc]
            on_message=lambda message, part=part: tell(part, message),  # type: ignore[misc]
        )
        outcomes.append(outcome.plain())
        if not outcome.finished:
            break
    return outcomes
