"""Rounds of feedback: draw a pool with the adapter, pick the best of it, train a new adapter on the picks.

StyleDrop (arXiv 2306.00983, 3.3). A round is a folder, and what lies in it is not made again: the same call goes on
where a killed one stopped. A person, a CLIP and chance look the same from here: a ``pickers.Picker``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from styledrop_cli.adapters.file import open_adapter, original_of, references_of, widest
from styledrop_cli.adapters.header import AdapterFile, AdapterHeader, load_adapter, read_header
from styledrop_cli.base.base import Base
from styledrop_cli.errors import ModelError, UsageError
from styledrop_cli.feedback.liked import NAME, Liked
from styledrop_cli.feedback.outcome import called, verdict
from styledrop_cli.feedback.pickers import Candidates, Picker
from styledrop_cli.feedback.pool import PLAN, Plan, Pool
from styledrop_cli.io.contact_sheet import contact_sheet
from styledrop_cli.io.files import atomic_write, file_hash
from styledrop_cli.io.images import jpeg_bytes, png_bytes, save_png, to_image
from styledrop_cli.io.run_folder import MANIFEST, Run, alone_in
from styledrop_cli.io.run_names import ROUND, ROUND_ADAPTER, ROUND_PICTURE, TABLE
from styledrop_cli.io.tensors import build_config
from styledrop_cli.judging import meaning
from styledrop_cli.judging.csls import Calibration
from styledrop_cli.judging.evaluate import PLAIN_EACH, Evaluated, References, judge_of
from styledrop_cli.judging.prompts import graded_prompts, pool_prompts
from styledrop_cli.judging.scores import ClipScorer, Judge, Measurements, Scores, mean, scores
from styledrop_cli.progress import Counter
from styledrop_cli.settings import SEEDS_OF_ROUND, RoundSettings, SampleSettings, TrainSettings, checked_weights
from styledrop_cli.training.adapter import train_adapter, train_on_picks

if TYPE_CHECKING:
    from PIL.Image import Image

GRADED_EACH = 4  # pictures of each prompt that the rounds are compared by
REFERENCE_SIDE, REFERENCE_QUALITY = 1024, 90  # at most, of a reference on the page: px, and of its JPEG
ADAPTER, POOL, PLAIN, GRADE = ROUND_ADAPTER, "pool", "plain", "graded"
SCORES, PICKS, SHEET, BEST = "scores.json", "picks.json", "sheet.png", "best.safetensors"


class Watcher(Protocol):
    """Who is told how far it is: ``learning`` is a ``progress.OnProgress``, and so is ``drawing`` for one purpose."""

    def say(self, message: str) -> None:
        """A remark; one that begins with ``Warning: `` is a warning."""

    def drawing(self, what: str, share: float, note: str) -> None:
        """Pictures are drawn: ``what`` for."""

    def learning(self, share: float, note: str) -> None:
        """An adapter is trained."""

    def round_done(self, number: int, sheet: Path, planned: bool) -> bool:
        """A round is over; whether to add another, which is only asked for where none is ``planned``."""


@dataclass(frozen=True)
class Result:
    """What ``iterate`` came to: the file, the round it is of, of every round the mean of each score, and a verdict."""

    path: Path
    best: int
    table: list[dict[str, Any]]
    verdict: str


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
    liked: Sequence[Path] = (),
) -> Result:
    """Add rounds of feedback to the adapter ``start``, each in a folder in ``folder``, and choose the best round.

    The n-th round is picked by the n-th of ``pickers``, those beyond by the last. ``prompts``, without a style, are
    what the pools show (default: ``pool_prompts``). ``grader`` compares the rounds, on other prompts. The best, or
    the ``last``, becomes ``folder/best.safetensors``; ``start`` is only read. ``share`` is this process's number among
    how many that draw (see ``Pool.evaluate``). With pictures that a person ``liked`` there is one round, of these: no
    pool is drawn, and nobody picks.

    Raises ModelError for an adapter of another base or without its references, UsageError for one that learnt an
    object, for another process at work in the folder, and for rounds that were begun with other settings, unless
    ``fresh``; for pictures that were ``liked`` as ``Liked.read`` does.
    """
    with alone_in(folder):
        rounds = Rounds(base, start, folder, settings, list(pickers), watcher, grader, prompts, fresh, share, liked)
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
    weights: Sequence[float] | None = None,
    settings: TrainSettings,
    folder: Path,
    watcher: Watcher,
    fresh: bool,
) -> Path:
    """Train the adapter that the rounds in ``folder`` start from, unless it is there; its file.

    Raises as ``train_adapter`` does, and UsageError if what is there was learnt from something else.
    """
    path = folder / ROUND.format(1) / ADAPTER
    if path.exists() and not fresh:
        header = read_header(path)
        asked = {
            "style": " ".join(style.split()),
            "pictures": [file_hash(p) for p in pictures],
            "steps": settings.steps,
            "contents": contents or header.contents,
            "weights": list(checked_weights(weights, [p.name for p in pictures])),
            "seed": settings.seed,
        }
        there = {"weights": []} | header.to_json() | dict(header.settings)
        there["pictures"] = [picture.get("sha256") for picture in header.pictures]
        changed = [f"{n}: {there.get(n)!s:.200} there, {v!s:.200} now" for n, v in asked.items() if there.get(n) != v]
        if changed:
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
        weights=weights,
        settings=settings,
        output=path,
        fresh=fresh,
        on_step=_heard_by(watcher),
        on_message=watcher.say,
    )
    return path


def reference_pictures(base: Base, start: Path, folders: Iterable[Path]) -> tuple[list[bytes], bool]:
    """The references of an adapter as JPEG or PNG files, and whether all are the very pictures that were given.

    Those are looked for as ``original_of`` does, beside the adapter and in ``folders``. In place of one that is not
    found stands what the base's tokens show of it. Raises as ``references_of`` does.
    """
    file = load_adapter(start)
    open_adapter(base, file)
    shown = base.pictures(references_of(file).whole.long().to(base.device), base.sizes[-1])
    originals = [original_of(about, [start.parent, *folders]) for about in file.header.pictures[: len(shown)]]
    originals += [None] * (len(shown) - len(originals))
    for original in filter(None, originals):
        original.thumbnail((REFERENCE_SIDE, REFERENCE_SIDE))
    files = [
        jpeg_bytes(original, REFERENCE_QUALITY) if original else png_bytes(to_image(picture.cpu()))
        for original, picture in zip(originals, shown, strict=True)
    ]
    return files, all(originals)


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
        liked: Sequence[Path] = (),
    ) -> None:
        if start.resolve() == (folder / BEST).resolve():
            raise UsageError(f"{start} would be replaced by these rounds' own", "Choose another folder with -o.")
        self._base, self._folder, self._settings, self._share = base, folder, settings, share
        self._pickers, self._watcher = pickers, watcher
        self._graded_pictures: dict[int, Evaluated] = {}
        parent = load_adapter(start)
        references = References.of_adapter(base, parent)
        self._style, self._sampling = references.style, references.sampling
        self._training, self.first = training_of(parent), round_of(parent.header)
        self._liked = Liked.read(liked, parent, watcher.say) if liked else None
        shown = list(dict.fromkeys(self._liked.prompts)) if self._liked else prompts
        self._prompts = shown or pool_prompts(base, references.contents)
        self._graded = graded_prompts(base, [*self._prompts, *references.contents])
        # A published base's CLIP sees no pictures: who grades them has to choose them too.
        chooser: ClipScorer = base if base.clip.visual is not None else grader
        self._judge = judge_of(base, chooser, references, self._prompts)
        calibration = Calibration(grader, partial(watcher.drawing, "looking at other pictures"))
        self._grader = judge_of(base, grader, references, self._graded, calibration)
        if fresh and (folder / MANIFEST).exists():
            for made in (*folder.glob("round-*"), folder / PLAIN, folder / GRADE):
                if made not in start.parents:
                    shutil.rmtree(made, ignore_errors=True)
        self._run = Run.begin(
            folder,
            {
                "adapter": file_hash(start),
                "base": parent.header.base,
                "prompts": self._prompts,
                **{name: value for name, value in asdict(settings).items() if name != "rounds"},
                **({"liked": self._liked.hashes} if self._liked else {}),
            },
            fresh=fresh,
            own=(BEST, TABLE),
        )
        if not self.adapter(self.first).exists():
            atomic_write(self.adapter(self.first), start.read_bytes())

    def place(self, number: int) -> Path:
        """The folder of a round."""
        return self._folder / ROUND.format(number)

    def adapter(self, number: int) -> Path:
        """The adapter that a round made."""
        return self.place(number) / ADAPTER

    def go(self, number: int) -> None:
        """Do what is not yet done of a round: draw, pick, train."""
        if self.adapter(number).exists():
            return
        if self._liked is not None:
            self._learn_liked(number, self._liked)
            return
        plan, drawn = self._draw_pool(number)
        candidates = Candidates.of(plan.drawing.prompts, drawn)
        entries = self._describe(number, plan, candidates)
        picked, feedback = self._pick(number, candidates)
        for i in picked:
            path = self.place(number) / "picks" / f"{i + 1:04d}.png"
            if not path.exists():
                about = {"prompt": entries[i]["prompt"], "style": self._style, "seed": entries[i]["seed"]}
                about["round"] = number - 1  # which drew it
                save_png(to_image(candidates.pictures[i].float() / 255), path, about)
        self._train(number, drawn.ids[picked], [entries[i] for i in picked], feedback)

    def _learn_liked(self, number: int, liked: Liked) -> None:
        """Train a round on pictures that were drawn before it."""
        for place, path in enumerate(liked.paths, 1):
            atomic_write(self.place(number) / "picks" / f"{place:04d}.png", path.read_bytes())
        Run(self.place(number), {}).write(PICKS, {"feedback": NAME, "pictures": list(range(1, len(liked.paths) + 1))})
        both = zip(liked.prompts, liked.seeds, strict=True)
        entries = [{"prompt": prompt} | ({} if seed is None else {"seed": seed}) for prompt, seed in both]
        self._train(number, liked.ids(self._base), entries, NAME)

    def show(self, number: int) -> Path:
        """A sheet of what the base, the round before and this one make of prompts that nothing was picked from."""
        path = self.place(number) / SHEET
        if not path.exists():
            save_png(self._before_and_after(number), path)
        return path

    # ---- draw ----

    def _plan(self, number: int, folder: Path, prompts: Sequence[str], each: int, seed: int) -> Plan:
        """As the adapter of a round recommends; round 0 is the base alone."""
        adapter, sampling = "", self._sampling
        if number:
            adapter = relpath(self.adapter(number), folder)
            recommended = read_header(self.adapter(number)).recommended
            sampling = self._base.sampling(**recommended)  # its own, not the first adapter's
        return Plan(tuple(prompts), each, self._settings.seed + seed, self._style, adapter, sampling)

    def _drawn(self, folder: Path, plan: Plan, judge: Judge, what: str, plain: Measurements | None = None) -> Evaluated:
        counter = Counter(partial(self._watcher.drawing, what), len(plan))
        return Pool(self._base, folder, plan).evaluate(judge, plain, counter.add, self._share)

    def _draw_pool(self, number: int) -> tuple[Plan, Evaluated]:
        """What a round has to choose from: drawn by the round before, and scored against the base's own."""
        folder = self._folder / PLAIN
        plan = self._plan(0, folder, self._prompts, PLAIN_EACH, 0)
        plain = self._drawn(folder, plan, self._judge, "drawing without the adapter").measured
        # Every round sees other seeds, none of them a test picture's.
        folder, each = self.place(number) / POOL, self._settings.per_prompt
        plan = self._plan(number - 1, folder, self._prompts, each, SEEDS_OF_ROUND * number)
        own, most = self._sampling.lambda_a, SampleSettings.RANGES["lambda_a"][1]
        more = min(own + self._settings.pool_lambda_a, max(own, self._base.spec.reach.get("lambda_a", most)), most)
        plan = replace(plan, sampling=replace(plan.sampling, lambda_a=more))
        what = f"drawing to choose from, {called(number)}"
        return plan, self._drawn(folder, plan, self._judge, what, plain.means(len(self._prompts), each))

    # ---- pick ----

    def _describe(self, number: int, plan: Plan, candidates: Candidates) -> list[dict[str, Any]]:
        """What is known of each picture of a pool; written to the round's folder, with a numbered sheet of them."""
        folder = self.place(number)
        each = zip(candidates.prompts, plan.drawing.seeds, candidates.scores, candidates.flaws, strict=True)
        entries = [
            {"picture": i, "prompt": prompt, "seed": seed, **_rounded(score), "flaw": flaw}
            for i, (prompt, seed, score, flaw) in enumerate(each, 1)
        ]
        Run(folder, {}).write(SCORES, {"pictures": entries})
        sheet = folder / "pool.png"
        if not sheet.exists():
            images = [to_image(p.float() / 255) for p in candidates.pictures]
            labels = [f"{e['picture']} {e['prompt']}" for e in entries]
            save_png(contact_sheet(images, 8, labels, f"{self._style}, drawn by: {called(number - 1)}", 96), sheet)
        return entries

    def _pick(self, number: int, candidates: Candidates) -> tuple[list[int], str]:
        """The places of what is picked in a round, and by whom; asked for once, then as the folder has it."""
        folder, run = self.place(number), Run(self.place(number), {})
        there = run.read(PICKS)
        if not isinstance(there, dict):
            picker = self._pickers[min(number - self.first, len(self._pickers)) - 1]
            picks = picker.pick(candidates, self._settings.keep or len(self._prompts), folder)
            if not picks:
                raise UsageError(
                    "there is nothing to pick: every picture of the pool is empty or a copy of another",
                    "Draw more with --per-prompt, or start from an adapter that was trained for fewer steps.",
                )
            there = {"feedback": picker.name, "pictures": [i + 1 for i in picks]}
            run.write(PICKS, there)
        numbers, count = there.get("pictures"), len(candidates.prompts)
        if not (isinstance(numbers, list) and numbers and all(type(n) is int and 1 <= n <= count for n in numbers)):
            raise UsageError(f"{folder / PICKS} does not name pictures of 1 to {count}", "Remove it to pick again.")
        return [n - 1 for n in numbers], str(there.get("feedback"))

    # ---- train ----

    def _train(self, number: int, ids: Tensor, picks: list[dict[str, Any]], feedback: str) -> None:
        parent = load_adapter(self.adapter(number - 1))
        # To the end, as StyleDrop does: of many pictures no single one is learnt by heart, and the rounds are compared.
        settings = replace(
            self._training,
            steps=self._settings.steps,
            seed=self._settings.seed,
            checkpoints=0,
            lambda_a=max(self._sampling.lambda_a, self._settings.lambda_a),
            lambda_b=self._sampling.lambda_b,
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
                "number": number,
                "parent": file_hash(parent.path),
                "feedback": feedback,
                "picks": [{name: p[name] for name in ("prompt", "seed", "total") if name in p} for p in picks],
            },
            on_step=_heard_by(self._watcher),
            on_message=self._watcher.say,
        )

    # ---- compare the rounds ----

    def _grade(self, number: int) -> Evaluated:
        """The graded prompts as a round draws them; round 0 is the base alone."""
        if number not in self._graded_pictures:
            folder = (self.place(number) if number else self._folder) / GRADE
            plan = self._plan(number, folder, self._graded, GRADED_EACH, 0)
            what = f"drawing to compare, {called(number)}"
            self._graded_pictures[number] = self._drawn(folder, plan, self._grader, what)
        return self._graded_pictures[number]

    def _before_and_after(self, number: int) -> Image:
        rows = (0, number - 1, number)
        for one in rows[1:]:
            for place, picture in enumerate(self._grade(one).pictures[::GRADED_EACH], 1):
                path = self.place(one) / ROUND_PICTURE.format(place)
                if not path.exists():
                    save_png(to_image(picture.float() / 255), path, {"prompt": self._graded[place - 1]})
        images = [to_image(p.float() / 255) for n in rows for p in self._grade(n).pictures[::GRADED_EACH]]
        labels = [f"{prompt}, {called(n)}" for n in rows for prompt in self._graded]
        return contact_sheet(images, len(self._graded), labels, f"{self._style}: before and after", 160)

    def choose(self, end: int, last: bool) -> Result:
        """Grade every round, and write the best, the earlier of equal ones, or the ``last``."""
        plain = self._grade(0).measured  # with the same seeds: each picture is compared with its own
        scored, table = {}, []
        for number in (0, *range(self.first, end + 1)):
            measured = self._grade(number).measured
            scored[number] = scores(measured, plain)
            placed = meaning.mean(meaning.meanings(measured, plain, self._grader.own_csls))
            table.append({"round": number, **_rounded(mean(scored[number])), **placed.rounded()})
        best = end if last else max(table[1:], key=lambda row: row["total"])["round"]
        rounds = {number: of for number, of in scored.items() if number}
        said = verdict(rounds, len(self._graded), best, last)
        self._run.write(TABLE, {"best": best, "verdict": said, "prompts": self._graded, "rounds": table})
        path = self._folder / BEST
        atomic_write(path, self.adapter(best).read_bytes())
        return Result(path, best, table, said)


def pictures_drawn(base: Base, settings: RoundSettings, prompts: Sequence[str], liked: bool = False) -> int:
    """How many pictures ``iterate`` draws: the base's own, the pools, and what the rounds are compared by.

    From pictures that were ``liked`` it draws the last alone.
    """
    if liked:
        return (settings.rounds + 2) * GRADED_EACH * len(graded_prompts(base, prompts))
    own, pools = PLAIN_EACH * len(prompts), settings.rounds * settings.per_prompt * len(prompts)
    return own + pools + (settings.rounds + 2) * GRADED_EACH * len(graded_prompts(base, prompts))


def _rounded(score: Scores) -> dict[str, float]:
    return {name: round(value, 4) for name, value in (asdict(score) | {"total": score.total}).items()}


def _heard_by(watcher: Watcher) -> Callable[[int, int, float], None]:
    """What a training calls after each step."""
    return lambda step, total, loss: watcher.learning(step / total, f"{step}/{total}  loss {loss:.2f}")


def round_of(header: AdapterHeader) -> int:
    """Which round made an adapter; what `train` made is the first. Raises ModelError if its header is damaged."""
    number = header.number
    if type(number) is not int or number < 1:
        raise ModelError(f"the header of this adapter is damaged: its round is {number!r:.40}")
    return number


def training_of(file: AdapterFile) -> TrainSettings:
    """The settings that the adapter in ``file`` was trained with; raises ModelError if its header is damaged."""
    return build_config(TrainSettings, file.header.settings, str(file.path))
