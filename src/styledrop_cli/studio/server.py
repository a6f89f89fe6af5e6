"""The studio's server: it shows what is in the folder and puts command lines into the queue, and decides nothing.

Served by ``web``, on 127.0.0.1 alone. Nothing that a client sends is used as a path: names are looked up.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from styledrop_cli.errors import ModelError, PictureError, StyledropError, UsageError
from styledrop_cli.io.run_folder import alone_in
from styledrop_cli.studio import answers, commands, styles
from styledrop_cli.studio.commands import Commands, Line
from styledrop_cli.studio.jobs import FOLDER as JOBS
from styledrop_cli.studio.jobs import Job, Jobs
from styledrop_cli.studio.missing import Missing
from styledrop_cli.studio.pictures import FOLDER as PICTURES
from styledrop_cli.studio.pictures import THUMBS, TRASH, Pictures
from styledrop_cli.studio.references import FOLDER as REFERENCES
from styledrop_cli.studio.references import SEEN, References
from styledrop_cli.studio.schema import ENDPOINTS, Endpoint, check, openapi
from styledrop_cli.web.guard import Refused, body_of, said_in
from styledrop_cli.web.serving import Site, news, page_as

TICK = 0.05  # seconds: how often a waiting answer looks for news
WATCH = 0.2  # seconds: how often the folder is looked at for what others changed
THREADS = 3  # that read and shrink pictures
FOLDERS = (JOBS, PICTURES, REFERENCES, SEEN, THUMBS, TRASH, commands.PREVIEWS, commands.ROUNDS, commands.REPORTS,
           commands.MASKS, answers.IMPORTS)  # fmt: skip
TOLD = ("best", "verdict", "rounds", "step", "reconstruction_psnr")  # of a result, what the page shows


class Studio:
    """A studio in ``folder``; a context manager, within which it is served at ``url``.

    ``model`` is the base model of all that is done, ``worker`` the command that starts the process which does it.
    Raises UsageError for a folder that another process works in, or whose own folders are links, and as ``Site`` does.
    """

    def __init__(self, folder: Path, worker: Sequence[str], model: str = "pocket", port: int = 0) -> None:
        self._folder, self._worker, self._model, self._port = folder.resolve(), worker, model, port
        self._boot, self._number = secrets.token_hex(6), 0
        self._pictures, self._references = Pictures(self._folder), References(self._folder)
        self._commands = Commands(self._folder, model, self._pictures, self._references)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="pictures")
        self._closing, self._heard = threading.Event(), threading.Event()

    def __enter__(self) -> Studio:
        with ExitStack() as stack:
            stack.enter_context(alone_in(self._folder))
            self._begin()
            self._left = stack.pop_all()
        return self

    def _begin(self) -> None:
        for name in FOLDERS:
            if (self._folder / name).is_symlink():
                raise UsageError(f"{self._folder / name} is a link", "the studio keeps its own files: remove the link")
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        for path in (self._folder / commands.PREVIEWS).glob("*.png"):
            path.unlink(missing_ok=True)
        self._jobs = Jobs(self._folder, self._worker, self._model, self._changed, self._finished)
        parts = self._parts = answers.Parts(
            self._folder, self._pictures, self._references, self._commands, self._jobs, self._threads, self._changed
        )
        kinds = (answers.JobAnswers, answers.PictureAnswers, answers.ReferenceAnswers, answers.StyleAnswers)
        self._handlers: list[Any] = [self, self._commands, *(kind(parts) for kind in kinds)]
        self._site = Site(self._routes(), self._folder, "Start the studio again.", self._port, _uploads)
        self._jobs.start()  # the page comes first: torch takes its time
        self.url, self.secret, self.again = self._site.url, self._site.secret, self._site.again
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        self._site.close()
        self._jobs.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._folder / TRASH, ignore_errors=True)
        self._left.close()

    @property
    def alive(self) -> bool:
        """Whether it is still served."""
        return self._site.alive

    def wait(self, seconds: float) -> None:
        """Wait, or less long where the studio closes."""
        self._closing.wait(seconds)

    def comes_back(self, seconds: float) -> bool:
        """Whether a tab that was left open asks for news within so many seconds."""
        return self._heard.wait(seconds)

    # ---- requests ----

    def _routes(self) -> Router:
        routes = [Route(one.path, self._answering(one), methods=[one.method]) for one in ENDPOINTS]
        return Router([Route("/", page_as("studio")), *routes], redirect_slashes=False, default=_nothing)

    def _answering(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """What answers an endpoint: it reads what is sent, and puts what goes wrong in words."""
        name = endpoint.handler
        act = next(getattr(one, name) for one in self._handlers if hasattr(one, name))

        async def answer(request: Request) -> Response:
            try:
                given: dict[str, Any] = dict(request.path_params)
                given |= _query(endpoint, request)
                if endpoint.takes:
                    given |= {"data": await body_of(request, endpoint.most), "name": _name(request)}
                elif endpoint.body is not None:
                    said = await said_in(request, endpoint.most)
                    check(said, endpoint.body)
                    given |= {"said": said}
                made = act(**given)
                if isinstance(made, Awaitable):
                    made = await made
                made = self._parts.started(made) if isinstance(made, Line) else made
                return made if isinstance(made, Response) else JSONResponse(made)
            except Refused as refused:
                return _failed(refused.status, str(refused))
            except UsageError as error:
                return _failed(404 if isinstance(error, Missing) else 400, error.message, error.hint)
            except (PictureError, ModelError) as error:
                return _failed(400, error.message, error.hint)
            except StyledropError as error:
                return _failed(500, error.message, error.hint)
            except OSError as error:
                return _failed(500, f"a file cannot be used: {error.strerror or error}")

        return answer

    # ---- what there is and what goes on ----

    @property
    def _tag(self) -> str:
        return f"{self._boot}-{self._number}"

    def _changed(self) -> None:
        self._number += 1

    def _watch(self) -> None:
        """See what the commands write, and what somebody changes in the folder or in the library."""
        before = None
        while not self._closing.wait(WATCH):
            with suppress(OSError, StyledropError):
                if (now := (self._pictures.stamp, styles.stamp())) != before:
                    before = now
                    self._changed()

    async def state(self, after: str | None = None) -> dict[str, Any]:
        self._heard.set()
        await news(after, lambda: self._tag, self._closing, TICK)
        tag = self._tag
        said = await self._parts.aside(self._now)
        return {"tag": tag, **said}

    def _now(self) -> dict[str, Any]:
        return {
            "base": self._jobs.base,
            "jobs": [_shown(job) for job in self._jobs.listed()],
            "styles": [[one["name"], one.get("created"), one["bytes"]] for one in styles.listed()],
            "hearts": self._pictures.liked(),
            "folder": str(self._folder),
            "pictures": {"count": len(self._pictures.all()), "stamp": self._pictures.stamp},
            "references": len(self._references.files()),
        }

    def openapi(self) -> dict[str, Any]:
        return openapi()

    def _finished(self, job: Job, result: dict[str, Any]) -> None:
        """Take in what a command made."""
        if job.kind == "look":
            self._references.looked(job.about["reference"], result)
        for one in result.get("pictures") or []:
            path = Path(str(one.get("path")))
            if path.parts[:1] == (PICTURES,):
                job.output.append("/".join(path.parts[1:]))
        job.about |= {name: result[name] for name in TOLD if name in result}


# ---- parts of requests and answers ----


def _uploads(path: str) -> Collection[str]:
    """The media types that a path takes besides JSON."""
    return next((one.takes for one in ENDPOINTS if one.path == path and one.takes), ())


def _query(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    """What stands behind the path, checked; what the endpoint does not know is not looked at."""
    found: dict[str, Any] = {}
    for name, schema in (endpoint.query or {}).items():
        if (said := request.query_params.get(name)) is not None:
            value: Any = said
            if schema["type"] == "integer":
                value = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else said
            check(value, schema, name)
            found[name] = value
    return found


def _name(request: Request) -> str:
    """What an upload is called."""
    return "".join(letter for letter in unquote(request.headers.get("x-name", ""))[:200] if letter.isprintable())


def _shown(job: Job) -> dict[str, Any]:
    hidden = {"argv"}
    return {name: value for name, value in vars(job).items() if name not in hidden} | {"command": job.command}


def _failed(status: int, error: str, hint: str | None = None) -> Response:
    return JSONResponse({"error": error, "hint": hint}, status)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await _failed(404, "There is nothing here.")(scope, receive, send)
