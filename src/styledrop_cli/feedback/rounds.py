"""Rounds of feedback: draw a pool with the adapter, pick the best of it, train a new adapter on the picks.

StyleDrop (arXiv 2306.00983, 3.3). A round is a folder, and what lies in it is not made again: the same call goes on
where a killed one stopped. A person, a CLIP and chance look the same from here: a ``pickers.Picker``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from styledrop_cli.adapters.file import open_adapter, references_of, widest
from styledrop_cli.base.base import Base
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.feedback.pickers import Candidates, Picker, candidates_of
from styledrop_cli.feedback.pool import PLAN, Drawn, Plan, Pool
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.files import atomic_write, file_hash
from styledrop_cli.io.images import png_bytes, save_png, to_image
from styledrop_cli.io.run_folder import MANIFEST, Run, alone_in
from styledrop_cli.io.tensors import AdapterFile, build_config, load_adapter, read_header
from styledrop_cli.judging.evaluate import References, judge_of
from styledrop_cli.judging.probes import PROBES
from styledrop_cli.judging.scores import ClipScorer, Judge, Scores, mean, scores
from styledrop_cli.settings import SEEDS_OF_ROUND, RoundSettings, SampleSettings, TrainSettings
from styledrop_cli.training.adapter import train_adapter, train_on_picks

if TYPE_CHECKING:
    from PIL.Image import Image

# What a pool shows: subjects x settings (StyleDrop: 10 x 3), none of which chooses a checkpoint or a round.
SUBJECTS = (
    "a rabbit", "a lion", "a bird", "a horse", "a bus", "a chair", "a cup of coffee", "a mountain", "a robot",
    "a banana", "a frog", "a turtle", "a panda", "a duck", "a whale", "a bear", "a train", "a truck", "a ship",
    "a helicopter", "a sunflower", "a cactus", "a palm tree", "a carrot", "a hamburger", "a gift", "a camera",
    "an alarm clock", "a hammer", "a balloon",
)  # fmt: skip
SETTINGS = ("", " in the snow", " in a forest")
PROMPTS = 30
# What the rounds are compared by, and nothing is ever picked from.
GRADED = (
    "a dog", "a bicycle", "an umbrella", "an owl", "a castle", "a strawberry", "an airplane", "an elephant",
    "a sailboat", "a key",
)  # fmt: skip
GRADED_EACH = 4
PLAIN_EACH = 2  # pictures that the base draws of each prompt, to compare with
ADAPTER, POOL, PLAIN, GRADE = "adapter.safetensors", "pool", "plain", "graded"
SCORES, PICKS, SHEET, TABLE, BEST = "scores.json", "picks.json", "sheet.png", "table.json", "best.safetensors"


class Watcher(Protocol):
    """Who is told how it goes on; shares of the way are in [0,1]."""

    def say(self, message: str) -> None:
        """A remark; one that begins with ``Warning: `` is a warning."""

    def drawing(self, what: str, share: float, note: str) -> None:
        """Pictures are drawn: ``what`` for."""

    def learning(self, share: float, note: str) -> None:
        """An adapter is trained."""

    def round_done(self, number: int, sheet: Path, planned: bool) -> bool:
        """A round is over; whether to add another, which is only asked for where none is ``planned``."""


def built_in_prompts(base: Base, contents: Sequence[str]) -> list[str]:
    """Subjects x settings as far as ``base`` knows them, but for the references' own ``contents``."""
    if base.contents:
        settings: tuple[str, ...] = ("",)  # it draws one thing on a plain ground
        subjects = [s for s in SUBJECTS if s in base.contents] or base.contents
    else:
        settings, subjects = SETTINGS, list(SUBJECTS)
    subjects = [s for s in subjects if s not in contents]
    return [subject + setting for subject in subjects[: PROMPTS // len(settings)] for setting in settings]


def graded_prompts(base: Base, used: Sequence[str]) -> list[str]:
    """What the rounds are compared by: prompts of which nothing was picked, and none of the references'."""
    known = [p for p in GRADED if p in base.contents] or base.contents or list(GRADED)
    free = [p for p in known if p not in used]
    return (free or [p for p in PROBES if p not in used] or known)[: len(GRADED)]


@dataclass(frozen=True)
class Result:
    """What ``iterate`` came to: the file, the round it is of, and of every round the mean of each score."""

    path: Path
    best: int
    table: list[dict[str, Any]]


def iterate(
    base: Base,
    start: Path,
    *,
    folder: Path,
    settings: RoundSettings,
    pickers: Sequence[Picker],
    watcher: Watcher,
    grader: ClipScorer,
    prompts: list[str] | None = None,
    last: bool = False,
    fresh: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Result:
    """Add rounds of feedback to the adapter ``start``, each in a folder in ``folder``, and choose the best round.

    The n-th round is picked by the n-th of ``pickers``, those beyond by the last. ``prompts``, without a style, are
    what the pools show (default: ``built_in_prompts``). ``grader`` compares the rounds, on other prompts. The best, or
    the ``last``, becomes ``folder/best.safetensors``; ``start`` is only read. ``share`` is this process's number among
    how many that draw (see ``Pool.draw``).

    Raises ModelError for an adapter of another base or without its references, UsageError for one that learnt an
    object, for another process at work in the folder, and for rounds that were begun with other settings, unless
    ``fresh``.
    """
    with alone_in(folder):
        rounds = Rounds(base, start, folder, settings, list(pickers), watcher, grader, prompts, fresh, share)
        number = rounds.first
        end = rounds.first + settings.rounds
        while number < end:
            number += 1
            rounds.go(number)
            if watcher.round_done(number, rounds.show(number), number < end) and number == end:
                end += 1
        return rounds.choose(end, last)


def first_round(
    base: Base,
    pictures: list[Path],
    *,
    style: str,
    contents: list[str] | None,
    settings: TrainSettings,
    folder: Path,
    watcher: Watcher,
    fresh: bool,
) -> Path:
    """Train the adapter that the rounds in ``folder`` start from, unless it is there; its file.

    Raises as ``train_adapter`` does, and UsageError if what is there was learnt from something else.
    """
    path = folder / "round-1" / ADAPTER
    if path.exists() and not fresh:
        header = read_header(path)
        asked = {
            "style": " ".join(style.split()),
            "pictures": [file_hash(p) for p in pictures],
            "steps": settings.steps,
            "contents": contents or header["contents"],
            "seed": settings.seed,
        }
        pictures_there = [p.get("sha256") for p in header.get("pictures", ())]
        there = header | header.get("settings", {}) | {"pictures": pictures_there}
        if changed := [
            f"{n}: {there.get(n)!s:.200} there, {value!s:.200} now"
            for n, value in asked.items()
            if there.get(n) != value
        ]:
            raise UsageError(
                f"{path} was learnt from something else: {'; '.join(changed)}",
                "Repeat its settings, say --fresh to start over, or choose another folder with -o.",
            )
        return path
    train_adapter(
        base,
        pictures=pictures,
        style=style,
        contents=contents,
        settings=settings,
        output=path,
        fresh=fresh,
        on_step=lambda step, total, loss: watcher.learning(step / total, f"{step}/{total}  loss {loss:.2f}"),
        on_message=watcher.say,
    )
    return path


def reference_pictures(base: Base, start: Path) -> list[bytes]:
    """The references of an adapter as the base shows them, as PNG; raises as ``references_of`` does."""
    file = load_adapter(start)
    open_adapter(base, file)
    shown = base.pictures(references_of(file).whole.long().to(base.device), base.sizes[-1])
    return [png_bytes(to_image(picture.cpu())) for picture in shown]


def assist(base: Base, folder: Path, share: tuple[int, int], over: Callable[[], bool], since: float = 0.0) -> None:
    """Draw this process's ``share`` of every pool planned in ``folder`` after ``since``, until it is ``over``."""
    drawn: dict[Path, float] = {}  # when each plan was written
    while not over():
        with suppress(FileNotFoundError):  # ``fresh`` removes what an earlier run planned
            for path in sorted(folder.rglob(PLAN)):
                written = path.stat().st_mtime
                if written >= since and drawn.get(path) != written and (plan := Plan.read(path.parent)) is not None:
                    if plan.adapter and folder.resolve() not in (path.parent / plan.adapter).resolve().parents:
                        continue  # the rounds' own adapters lie in their folder
                    Pool(base, path.parent, plan).help(share)
                    drawn[path] = written
        time.sleep(0.3)


class Rounds:
    """The rounds in one folder."""

    def __init__(
        self,
        base: Base,
        start: Path,
        folder: Path,
        settings: RoundSettings,
        pickers: list[Picker],
        watcher: Watcher,
        grader: ClipScorer,
        prompts: list[str] | None,
        fresh: bool,
        share: tuple[int, int],
    ) -> None:
        self._base, self._folder, self._settings, self._share = base, folder, settings, share
        self._grades: dict[int, Drawn] = {}
        self._pickers, self._watcher = pickers, watcher
        if start.resolve() == (folder / BEST).resolve():
            raise UsageError(f"{start} would be replaced by these rounds' own", "Choose another folder with -o.")
        parent = load_adapter(start)
        open_adapter(base, parent)
        self._examples, header = references_of(parent), parent.header
        self._training = _training(parent)
        self.first = _round_of(header)
        given = self._examples.contents[: self._examples.references]
        self._prompts = prompts or built_in_prompts(base, given)
        self._graded = graded_prompts(base, [*self._prompts, *given])
        self._style: str = header["style"]
        self._sampling = base.sampling(**header["recommended"])
        # A published base's CLIP sees no pictures: who grades them has to choose them too.
        chooser: ClipScorer = base if base.clip.visual is not None else grader
        references = References.of_examples(base, self._examples)
        self._judge = judge_of(base, chooser, references, self._prompts)
        self._grader = judge_of(base, grader, references, self._graded)
        if fresh and (folder / MANIFEST).exists():
            for made in (*folder.glob("round-*"), folder / PLAIN, folder / GRADE):
                if made not in start.parents:
                    shutil.rmtree(made, ignore_errors=True)
        self._run = Run.begin(
            folder,
            {
                "adapter": file_hash(start),
                "base": header["base"],
                "prompts": self._prompts,
                **{name: value for name, value in asdict(settings).items() if name != "rounds"},
            },
            fresh=fresh,
            own=(BEST, TABLE),
        )
        if not self.adapter(self.first).exists():
            atomic_write(self.adapter(self.first), start.read_bytes())

    def place(self, number: int) -> Path:
        """The folder of a round."""
        return self._folder / f"round-{number}"

    def adapter(self, number: int) -> Path:
        """The adapter that a round made."""
        return self.place(number) / ADAPTER

    def go(self, number: int) -> None:
        """Do what is not yet done of a round: draw, pick, train."""
        if not self.adapter(number).exists():
            self._learn(number, *self._picked(number))

    def show(self, number: int) -> Path:
        """A sheet of what the base, the round before and this one make of prompts that nothing was picked from."""
        path = self.place(number) / SHEET
        if not path.exists():
            save_png(self._before_and_after(number), path)
        return path

    # ---- the pool, and the picks from it ----

    def _plan(self, number: int, folder: Path, prompts: Sequence[str], each: int, seed: int) -> Plan:
        """As the adapter of a round recommends; round 0 is the base alone."""
        adapter, sampling = "", self._sampling
        if number:
            adapter = relpath(self.adapter(number), folder)
            recommended = read_header(self.adapter(number))["recommended"]
            sampling = self._base.sampling(**recommended)  # its own, not the first adapter's
        return Plan(tuple(prompts), each, self._settings.seed + seed, self._style, adapter, sampling)

    def _drawn(self, folder: Path, plan: Plan, judge: Judge, what: str) -> Drawn:
        def move(done: int) -> None:
            self._watcher.drawing(what, done / len(plan), f"{done}/{len(plan)}")

        return Pool(self._base, folder, plan).draw(judge, move, self._share)

    def _picked(self, number: int) -> tuple[Tensor, list[dict[str, Any]], str]:
        """Ids ``[N,h,w]`` of the picks, what is known of each, and who picked them."""
        folder = self.place(number)
        plan, drawn, candidates = self._pool(number)
        entries = self._described(number, plan, candidates)
        there = self._choice(number, candidates)
        numbers = there.get("pictures")
        if not (isinstance(numbers, list) and numbers and all(type(n) is int and 1 <= n <= len(plan) for n in numbers)):
            raise UsageError(f"{folder / PICKS} does not name pictures of 1 to {len(plan)}", "Remove it to pick again.")
        rows = [i - 1 for i in numbers]
        for i in rows:
            about = {"prompt": plan.of_each[i], "style": self._style, "seed": plan.seeds[i], "round": number - 1}
            path = folder / "picks" / f"{i + 1:04d}.png"
            if not path.exists():
                save_png(to_image(candidates.pictures[i].float() / 255), path, about)
        return drawn.ids[rows], [entries[i] for i in rows], str(there.get("feedback"))

    def _pool(self, number: int) -> tuple[Plan, Drawn, Candidates]:
        """What a round has to choose from: drawn by the round before, and scored against the base's own."""
        plain_plan = self._plan(0, self._folder / PLAIN, self._prompts, PLAIN_EACH, 0)
        plain = self._drawn(self._folder / PLAIN, plain_plan, self._judge, "drawing without the adapter")
        # Every round sees other seeds, none of them a test picture's.
        folder = self.place(number) / POOL
        plan = self._plan(number - 1, folder, self._prompts, self._settings.per_prompt, SEEDS_OF_ROUND * number)
        more = min(self._sampling.lambda_a + self._settings.pool_lambda_a, SampleSettings.RANGES["lambda_a"][1])
        plan = replace(plan, sampling=replace(plan.sampling, lambda_a=more))
        drawn = self._drawn(folder, plan, self._judge, f"drawing to choose from, round {number}")
        return plan, drawn, candidates_of(drawn, plain, plan)

    def _described(self, number: int, plan: Plan, candidates: Candidates) -> list[dict[str, Any]]:
        """What is known of each picture of a pool; written to the round's folder, with a numbered sheet of them."""
        folder = self.place(number)
        each = zip(plan.of_each, plan.seeds, candidates.scores, candidates.flaws, strict=True)
        entries = [
            {"picture": i, "prompt": prompt, "seed": seed, **_rounded(score), "flaw": flaw}
            for i, (prompt, seed, score, flaw) in enumerate(each, 1)
        ]
        Run(folder, {}).write(SCORES, {"pictures": entries})
        sheet = folder / "pool.png"
        if not sheet.exists():
            images = [to_image(p.float() / 255) for p in candidates.pictures]
            labels = [f"{e['picture']} {e['prompt']}" for e in entries]
            save_png(contact_sheet(images, 8, labels, f"{self._style}, drawn by round {number - 1}", 96), sheet)
        return entries

    def _choice(self, number: int, candidates: Candidates) -> dict[str, Any]:
        """What is picked in a round, by its numbers, and by whom; asked for once, then as the folder has it."""
        folder, run = self.place(number), Run(self.place(number), {})
        there = run.read(PICKS)
        if isinstance(there, dict):
            return there
        picker = self._pickers[min(number - self.first, len(self._pickers)) - 1]
        picks = picker.pick(candidates, self._settings.keep or len(self._prompts), folder)
        if not picks:
            raise UsageError(
                "there is nothing to pick: every picture of the pool is empty or a copy of another",
                "Draw more with --per-prompt, or start from an adapter that was trained for fewer steps.",
            )
        there = {"feedback": picker.name, "pictures": [i + 1 for i in picks]}
        run.write(PICKS, there)
        return there

    # ---- training ----

    def _learn(self, number: int, ids: Tensor, picks: list[dict[str, Any]], feedback: str) -> None:
        parent = load_adapter(self.adapter(number - 1))
        # To the end, as StyleDrop does: from many things one does not learn to copy one, and the rounds are compared.
        settings = replace(
            self._training,
            steps=self._settings.steps,
            seed=self._settings.seed,
            checkpoints=0,
            lambda_a=max(self._training.lambda_a, self._settings.lambda_a),
            superres_steps=0,
        )
        train_on_picks(
            self._base,
            parent,
            ids=ids,
            contents=[pick["prompt"] for pick in picks],
            settings=widest(self._base.transformer, settings),
            output=self.adapter(number),
            about={
                "round": number,
                "parent": file_hash(parent.path),
                "feedback": feedback,
                "picks": [{name: p[name] for name in ("prompt", "seed", "total")} for p in picks],
            },
            on_step=lambda step, total, loss: self._watcher.learning(step / total, f"{step}/{total}  loss {loss:.2f}"),
            on_message=self._watcher.say,
        )

    # ---- comparing the rounds ----

    def _grade(self, number: int) -> Drawn:
        """The graded prompts as a round draws them; round 0 is the base alone."""
        if number not in self._grades:
            folder = (self.place(number) if number else self._folder) / GRADE
            plan = self._plan(number, folder, self._graded, GRADED_EACH, 0)
            self._grades[number] = self._drawn(folder, plan, self._grader, f"drawing to compare, {_name(number)}")
        return self._grades[number]

    def _before_and_after(self, number: int) -> Image:
        rows = (0, number - 1, number)
        images = [to_image(p.float() / 255) for n in rows for p in self._grade(n).pictures[::GRADED_EACH]]
        labels = [f"{prompt}, {_name(n)}" for n in rows for prompt in self._graded]
        return contact_sheet(images, len(self._graded), labels, f"{self._style}: before and after", 160)

    def choose(self, end: int, last: bool) -> Result:
        """Grade every round, and write the best, of equals the earlier, or the ``last``."""
        plain = self._grade(0).seen
        table = []
        for number in (0, *range(self.first, end + 1)):
            score = mean(scores(self._grade(number).seen, plain))
            table.append({"round": number, **_rounded(score)})
        best = end if last else max(table[1:], key=lambda row: row["total"])["round"]
        self._run.write(TABLE, {"best": best, "prompts": self._graded, "rounds": table})
        path = self._folder / BEST
        atomic_write(path, self.adapter(best).read_bytes())
        return Result(path, best, table)


def _name(number: int) -> str:
    return f"round {number}" if number else "base"


def _rounded(score: Scores) -> dict[str, float]:
    return {name: round(value, 4) for name, value in (asdict(score) | {"total": score.total}).items()}


def _round_of(header: dict[str, Any]) -> int:
    number = header.get("round", 1)
    if type(number) is not int or number < 1:
        raise ModelError(f"the header of this adapter is damaged: its round is {number!r:.40}")
    return number


def _training(file: AdapterFile) -> TrainSettings:
    """The settings that the adapter in ``file`` was trained with."""
    return build_config(TrainSettings, file.header.get("settings", {}), str(file.path))
