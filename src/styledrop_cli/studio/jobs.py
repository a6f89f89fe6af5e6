"""The queue of the studio: command lines that a worker process runs one after another. What is on disk is the state.

A job is jobs/ID.json; beside it lie ID.log, what its command printed, and while it runs ID.events (``cli/events.py``).
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from styledrop_cli.errors import INTERRUPTED, StyledropError, UsageError
from styledrop_cli.io.files import read_json, write_json
from styledrop_cli.studio.missing import Missing

FOLDER = "jobs"
FIRST = ("preview", "look")  # kinds of job that somebody waits for: they go before others
ACTIVE = ("waiting", "running")
STATES = (*ACTIVE, "done", "failed", "cancelled", "stopped")
SHOWN = 100  # of the newest jobs
KEPT = 1000  # finished jobs; older ones are forgotten
MOST = 1000  # jobs that wait
PATIENCE = 5.0  # seconds that a command has to stop
TICK = 0.1  # seconds: how often it is looked for events
MOST_SAID = 20  # remarks of a command that are kept


@dataclass
class Job:
    """A command line, and how it is going. ``about`` is what the page asked for, ``output`` what the command made."""

    id: str
    kind: str
    argv: list[str]
    title: str
    state: str = "waiting"
    error: str | None = None
    hint: str | None = None
    created: float = 0.0  # seconds since 1970, as are the other two
    started: float | None = None
    ended: float | None = None
    output: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    says: list[str] = field(default_factory=list)  # remarks
    warns: list[str] = field(default_factory=list)
    what: str = ""  # the step it is at, how far that is, and how many seconds are left
    share: float | None = None
    note: str = ""
    left: float | None = None

    @property
    def command(self) -> str:
        """What a person would type."""
        return shlex.join(["styledrop", *self.argv])

    @classmethod
    def read(cls, path: Path) -> Job | None:
        """The job in a file; None where it is no job's."""
        try:
            said = read_json(path)
            job = cls(**{one.name: said[one.name] for one in fields(cls) if one.name in said})
            json.dumps(said, allow_nan=False)
        except (OSError, ValueError, TypeError):
            return None
        sound = (
            job.id == path.stem
            and job.state in STATES
            and all(
                isinstance(one, str) for one in (*job.argv, *job.output, *job.says, *job.warns, job.kind, job.title)
            )
            and isinstance(job.about, dict)
        )
        return job if sound else None


class Worker:
    """The process that runs commands, started by ``command`` in ``folder``."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        # A session of its own: Ctrl-C in the terminal stops the studio, which then tells the worker.
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._answers: SimpleQueue[bytes] = SimpleQueue()  # an empty one is its end
        threading.Thread(target=self._listen, name="worker", daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._answers.put(line)
        self._answers.put(b"")

    def ask(self, **said: Any) -> None:
        """Give it something to do; if it is gone, `answer` says so."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(said).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self, wait: float) -> dict[str, Any] | None:
        """What it answers within ``wait`` seconds; None if nothing. Raises EOFError once it is gone."""
        try:
            line = self._answers.get(timeout=wait)
        except Empty:
            return None
        if not line:
            raise EOFError
        said = json.loads(line)
        return said if isinstance(said, dict) else {}

    def interrupt(self) -> None:
        """Ctrl-C for the command that runs."""
        with suppress(ValueError):  # Windows has none for one process alone: `end` is what ends it there
            self._process.send_signal(signal.SIGINT)

    def end(self, patience: float = PATIENCE) -> int:
        """Let it stop what it does and go, and make it go if it does not; how it ended."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return code


class Jobs:
    """The jobs of a studio's ``folder``; once started a thread gives them to a worker, one after another.

    ``command`` starts the worker. ``changed`` is called at each change, ``finished`` with each job that is done, before
    the change shows. Threads may share it.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        model: str,
        changed: Callable[[], None],
        finished: Callable[[Job, dict[str, Any]], None],
    ) -> None:
        self._folder, self._command, self._model = folder, command, model
        self._changed, self._finished = changed, finished
        self.base: dict[str, Any] | None = None  # what the worker says of the base model, once it has said it
        self._news = threading.Condition(threading.RLock())
        self._closing = False
        self._worker: Worker | None = None
        self._running: Job | None = None
        self._cancelled: float | None = None  # since when the running job is to stop
        self._jobs: dict[str, Job] = {}
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        for path in sorted((folder / FOLDER).glob("*.json")):
            if re.fullmatch(r"[0-9]{6}", path.stem) and (job := Job.read(path)):
                self._jobs[job.id] = job
                if job.state == "running":  # its studio was killed
                    self._keep(job, state="stopped", ended=time.time(), left=None)
        self._last = max((int(name) for name in self._jobs), default=0)
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    # ---- what the page asks for ----

    def add(self, kind: str, argv: Sequence[str], title: str, **about: Any) -> Job:
        """Put a command at the end of the queue; a preview takes the place of one that waits.

        The same command twice, as a double click asks for it, is one job. UsageError where one of the same name is
        being made by another command.
        """
        with self._news:
            for job in [one for one in self._jobs.values() if one.state in ACTIVE]:
                if (job.kind, job.argv) == (kind, list(argv)):
                    return job
                if about.get("name") and about["name"] == job.about.get("name"):
                    raise UsageError(f"'{about['name']}' is being made", "let that be done first, or cancel it")
            if kind == "preview":
                for job in [one for one in self._jobs.values() if (one.kind, one.state) == ("preview", "waiting")]:
                    self.forget(job.id)
            if sum(job.state == "waiting" for job in self._jobs.values()) >= MOST:
                raise UsageError(f"{MOST:,} jobs are waiting", "cancel some, or let them be done first")
            self._last += 1  # no number is another job's later
            job = Job(f"{self._last:06}", kind, list(argv), title, created=time.time(), about=about)
            self._jobs[job.id] = job
            self._keep(job)
            return job

    def find(self, name: str) -> Job:
        """A job by its number; Missing if there is none."""
        with self._news:
            if name not in self._jobs:
                raise Missing(f"there is no job {name[:20]}")
            return self._jobs[name]

    def listed(self) -> list[Job]:
        """All that wait or run and the newest of the others, the newest first."""
        with self._news:
            jobs = sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)
        newest = [job.id for job in jobs[:SHOWN]]
        return [job for job in jobs if job.state in ACTIVE or job.id in newest]

    def cancel(self, name: str) -> None:
        """Stop a job, as Ctrl-C would; one that waits will not begin. UsageError if it is over."""
        with self._news:
            job = self.find(name)
            if job.state == "waiting":
                self._keep(job, state="cancelled", ended=time.time())
            elif job is self._running:
                if self._cancelled is None and self._worker:
                    self._cancelled = time.monotonic()
                    self._worker.interrupt()
            else:
                raise UsageError(f"job {name} is over: {job.state}")

    def resume(self, name: str) -> Job:
        """Run a job again that was stopped, cancelled or failed: its command goes on where it was."""
        with self._news:
            job = self.find(name)
            if job.state not in ("stopped", "cancelled", "failed"):
                raise UsageError(f"job {name} is {job.state}: there is nothing to go on with")
            self._keep(job, state="waiting", error=None, hint=None, started=None, ended=None, share=None, note="")
            return job

    def forget(self, name: str) -> None:
        """Remove a job from the list, not what it made; UsageError while it runs."""
        with self._news:
            job = self.find(name)
            if job.state == "running":
                raise UsageError(f"job {name} is running", "cancel it first")
            del self._jobs[name]
            for suffix in (".json", ".log", ".events"):
                self._file(job, suffix).unlink(missing_ok=True)
            self._changed()

    def close(self) -> None:
        """Stop what runs, so that it can go on another time, and the worker."""
        with self._news:
            self._closing = True
            if self._running and self._worker:
                self._worker.interrupt()
            self._news.notify_all()
        self._thread.join(2 * PATIENCE)

    # ---- the thread that does it ----

    def _work(self) -> None:
        self._ask_for_base()
        while True:
            with self._news:
                self._news.wait_for(lambda: self._closing or self._next() is not None)
                job = self._next()
                if self._closing or job is None:
                    break
                self._running, self._cancelled = job, None
                self._keep(job, state="running", started=time.time(), error=None, hint=None)
            try:
                self._run(job)
            except (StyledropError, OSError) as error:
                self._end(job, "failed", error=str(error), hint="Start the studio again.")
            with self._news:
                self._running = None
            self._drop_oldest()
            if self.base is not None and not self.base.get("sizes") and job.state == "done":
                self._ask_for_base()  # it has been fetched by now
        if self._worker:
            self._worker.end()

    def _next(self) -> Job | None:
        waiting = [job for job in self._jobs.values() if job.state == "waiting"]
        return min(waiting, key=lambda job: (job.kind not in FIRST, job.id), default=None)

    def _ask_for_base(self) -> None:
        self._worker = self._worker or Worker(self._command, self._folder)
        self._worker.ask(base=self._model)
        try:
            while not self._closing:
                if answer := self._worker.answer(TICK):
                    self.base = answer["base"]
                    break
        except EOFError:
            self._worker.end()
            self._worker = None
        self._changed()

    def _run(self, job: Job) -> None:
        events = _Events(self._file(job, ".events"))
        worker = self._worker = self._worker or Worker(self._command, self._folder)
        worker.ask(id=job.id, argv=job.argv)
        code: int | None = None
        while code is None:
            try:
                answer = worker.answer(TICK)
                code = answer["code"] if answer else None
            except EOFError:
                code = -abs(worker.end())
                self._worker = None
            with self._news:
                for said in (heard := events.read()):
                    self._take(job, said)
                since = self._cancelled
            if heard:
                self._changed()
            if code is None and since and time.monotonic() - since > PATIENCE:
                worker.end(0)
        self._file(job, ".events").unlink(missing_ok=True)
        if self._closing and code:
            self._end(job, "stopped")
        elif self._cancelled is not None and code:
            self._end(job, "cancelled")
        elif code == INTERRUPTED:
            self._end(job, "stopped")
        elif code < 0:
            said = {"error": f"the command ended at once (signal {-code})"}
            hint = "The machine may be short of memory: close other programs, and go on with it."
            self._end(job, "failed", **said, hint=hint)
        elif code:
            self._end(job, "failed", error=job.error or "the command failed: its log says why")
        else:
            self._end(job, "done")

    def _take(self, job: Job, said: dict[str, Any]) -> None:
        """Take in a line of a command's events."""
        if "what" in said:
            job.what, job.share = str(said["what"]), said.get("share")
            job.note, job.left = str(said.get("note") or ""), said.get("left")
        elif "error" in said:
            job.error, job.hint = str(said["error"]), said.get("hint")
        elif "result" in said and isinstance(said["result"], dict):
            self._finished(job, said["result"])
        elif "warn" in said:
            job.warns = [*job.warns, str(said["warn"])][-MOST_SAID:]
        elif "say" in said:
            job.says = [*job.says, str(said["say"])][-MOST_SAID:]

    def _end(self, job: Job, state: str, **more: Any) -> None:
        self._keep(job, state=state, ended=time.time(), left=None, **more)

    def _keep(self, job: Job, **changes: Any) -> None:
        """Change a job, on disk and then for all to see."""
        with self._news:
            for name, value in changes.items():
                setattr(job, name, value)
            write_json(self._file(job, ".json"), asdict(job))
            self._news.notify_all()
        self._changed()

    def _drop_oldest(self) -> None:
        with self._news:
            over = sorted(job.id for job in self._jobs.values() if job.state not in ACTIVE)
            for name in over[:-KEPT]:
                self.forget(name)

    def _file(self, job: Job, suffix: str) -> Path:
        return self._folder / FOLDER / f"{job.id}{suffix}"


class _Events:
    """The lines of a file that another process adds to."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._path, self._at = path, 0

    def read(self) -> list[dict[str, Any]]:
        """The whole lines that are new."""
        with suppress(OSError), self._path.open("rb") as file:
            file.seek(self._at)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._at += len(whole) + len(newline)
            found = []
            for line in whole.splitlines():
                with suppress(ValueError):
                    found.append(json.loads(line, parse_constant=lambda name: None))  # JSON has no NaN
            return [one for one in found if isinstance(one, dict)]
        return []
