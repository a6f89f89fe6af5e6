"""What the studio answers, a method for each endpoint of ``schema.ENDPOINTS``, by the name that it has there.

What they return becomes JSON, unless it is a response already; a command line is put into the queue, and `Commands`
answers itself where there is nothing else to do. ``said`` is a body that was checked by ``schema``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from styledrop_cli.adapters import library
from styledrop_cli.adapters.header import read_header
from styledrop_cli.errors import PictureError, UsageError
from styledrop_cli.io.files import atomic_write, read_bytes
from styledrop_cli.io.images import load_mask
from styledrop_cli.io.run_names import CHECKPOINT, any_of, run_of
from styledrop_cli.studio import commands, rounds, styles
from styledrop_cli.studio.commands import Commands, Line
from styledrop_cli.studio.jobs import FOLDER as JOBS
from styledrop_cli.studio.jobs import Job, Jobs
from styledrop_cli.studio.missing import Missing
from styledrop_cli.studio.pictures import Pictures
from styledrop_cli.studio.references import References
from styledrop_cli.web.guard import Refused
from styledrop_cli.web.serving import FOREVER, media_type

SANDBOX = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"  # of what is not ours to trust
LARGEST_LOG = 200_000  # bytes of its end
IMPORTS = "imports"  # adapter files on their way into the library


@dataclass(frozen=True)
class Parts:
    """What the answers are made of. ``changed`` is called where the page has to be told."""

    folder: Path
    pictures: Pictures
    references: References
    commands: Commands
    jobs: Jobs
    threads: ThreadPoolExecutor
    changed: Callable[[], None]

    async def aside(self, act: Callable[..., Any], *given: Any) -> Any:
        """What ``act`` returns, called in a thread: the server answers others meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(act, *given))

    def started(self, line: Line) -> dict[str, Any]:
        """Put a command line into the queue; what is answered."""
        job = self.jobs.add(line.kind, line.argv, line.title, **line.about)
        return {"job": job.id, "command": job.command}


class JobAnswers:
    """What is done by commands."""

    def __init__(self, at: Parts) -> None:
        self._at = at

    def cancel(self, job: str, said: dict[str, Any]) -> dict[str, Any]:
        self._at.jobs.cancel(job)
        return {}

    def resume(self, job: str, said: dict[str, Any]) -> dict[str, Any]:
        again = self._at.jobs.resume(job)
        return {"job": again.id, "command": again.command}

    def forget(self, job: str, said: dict[str, Any]) -> dict[str, Any]:
        self._at.jobs.forget(job)
        return {}

    def log(self, job: str) -> Response:
        path = self._at.folder / JOBS / f"{self._at.jobs.find(job).id}.log"
        data = path.read_bytes()[-LARGEST_LOG:] if path.is_file() and not path.is_symlink() else b""
        return Response(data, media_type="text/plain; charset=utf-8")

    def preview(self, said: dict[str, Any]) -> Line:
        sizes = (self._at.jobs.base or {}).get("sizes") or [None]
        return self._at.commands.rough(said, sizes[0])

    def preview_file(self, job: str) -> Response:
        argv = self._at.jobs.find(job).argv
        path = self._at.folder / argv[argv.index("-o") + 1] if "-o" in argv else None
        if path is None or path.parent.name != commands.PREVIEWS or not path.is_file() or path.is_symlink():
            raise Refused(404, "There is no preview of this job yet.")
        return Response(path.read_bytes(), media_type="image/png")

    async def edit(self, said: dict[str, Any]) -> Line:
        head, _, body = said["mask"].partition(",")
        try:
            data = base64.b64decode(body, validate=True)
            if head != "data:image/png;base64" or media_type(data) != "image/png":
                raise ValueError
        except ValueError:
            raise UsageError("the mask is no PNG as a data URL") from None
        name = f"{commands.MASKS}/{hashlib.sha256(data).hexdigest()[:16]}.png"
        atomic_write(self._at.folder / name, data)
        try:
            await self._at.aside(load_mask, self._at.folder / name)
        except PictureError:
            (self._at.folder / name).unlink()
            raise
        return self._at.commands.masked(said, name)


class PictureAnswers:
    """The pictures that were drawn."""

    def __init__(self, at: Parts) -> None:
        self._at = at

    async def pictures(self, **given: Any) -> dict[str, Any]:
        shown, more, total = await self._at.aside(
            self._at.pictures.page,
            given.get("style"),
            given.get("after"),
            given.get("limit", 60),
            given.get("hearted", 0),
        )
        usual = (self._at.jobs.base or {}).get("usual") or {}
        commands = [self._at.commands.redraw(one, usual) for one in shown]
        both = zip(shown, commands, strict=True)
        return {"pictures": [{**one, "command": command} for one, command in both], "next": more, "total": total}

    def picture_file(self, style: str, file: str, download: str = "", tag: str = "") -> Response:
        found, path = self._at.pictures.find(f"{style}/{file}")
        data = path.read_bytes()
        return answer_of(data, "image/png", path.name if download else "", forever=tag == found.tag)

    def picture_svg(self, style: str, file: str, download: str = "") -> Response:
        found, _ = self._at.pictures.find(f"{style}/{file}")
        if (path := self._at.pictures.svg(found)) is None:
            raise Missing(f"there is no SVG of {found.id}")
        return answer_of(path.read_bytes(), "image/svg+xml", path.name if download else "")

    async def thumb(self, style: str, file: str, tag: str = "") -> Response:
        found, _ = self._at.pictures.find(f"{style}/{file}")
        data = await self._at.aside(self._at.pictures.thumbnail, found)
        return answer_of(data, "image/webp", forever=tag == found.tag)

    def heart(self, style: str, file: str, said: dict[str, Any]) -> dict[str, Any]:
        self._at.pictures.like(f"{style}/{file}", said["on"])
        self._at.changed()
        return {}

    def delete(self, style: str, file: str, said: dict[str, Any]) -> dict[str, Any]:
        self._at.pictures.delete(f"{style}/{file}")
        self._at.changed()
        return {}

    def restore(self, style: str, file: str, said: dict[str, Any]) -> dict[str, Any]:
        self._at.pictures.restore(f"{style}/{file}")
        self._at.changed()
        return {}


class ReferenceAnswers:
    """What is learnt from."""

    def __init__(self, at: Parts) -> None:
        self._at = at

    async def references(self) -> list[dict[str, Any]]:
        return [self._about(key) for key in self._at.references.files()]

    async def add_reference(self, data: bytes, name: str) -> dict[str, Any]:
        made: dict[str, Any] = await self._at.aside(self._at.references.add, data, name)
        if made["looked"] is None and self._job(made["id"]) is None:
            self._at.started(self._at.commands.look(made["id"]))
        self._at.changed()
        return self._about(made["id"])

    def delete_reference(self, id: str, said: dict[str, Any]) -> dict[str, Any]:  # noqa: A002
        self._at.references.remove(id)
        self._at.changed()
        return {}

    def reference_file(self, id: str) -> Response:  # noqa: A002
        data = self._at.references.find(id).read_bytes()
        return answer_of(data, media_type(data), forever=True)

    async def reference_crop(self, id: str) -> Response:  # noqa: A002
        return answer_of(await self._at.aside(self._at.references.crop, id), "image/png", forever=True)

    def reference_seen(self, id: str) -> Response:  # noqa: A002
        return answer_of(self._at.references.seen(id), "image/png")

    def about_reference(self, id: str) -> dict[str, Any]:  # noqa: A002
        about = self._about(id)
        if not about["ready"] and self._job(id) is None:  # it was dropped before a studio that looked at it
            self._at.started(self._at.commands.look(id))
        return about

    def _about(self, key: str) -> dict[str, Any]:
        about: dict[str, Any] = self._at.references.about(key)
        looked: dict[str, Any] | None = about.pop("looked")
        if looked is not None:
            return about | {"ready": True} | looked
        job = self._job(key)
        failed = job is not None and job.state not in ("waiting", "running", "done")
        return about | ({"ready": True, "error": job.error or job.state} if job and failed else {"ready": False})

    def _job(self, key: str) -> Job | None:
        """The newest job that looks at a reference."""
        jobs = self._at.jobs.listed()
        return next((job for job in jobs if job.kind == "look" and job.about.get("reference") == key), None)


class StyleAnswers:
    """The library, and the rounds of its styles."""

    def __init__(self, at: Parts) -> None:
        self._at = at

    async def styles(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._at.aside(styles.listed)
        return found

    async def import_style(self, data: bytes, name: str) -> dict[str, Any]:
        name = name.removesuffix(library.SUFFIX)
        library.refuse_taken(name, overwrite=False)
        path = self._at.folder / IMPORTS / f"{hashlib.sha256(data).hexdigest()[:16]}{library.SUFFIX}"
        atomic_write(path, data)
        try:
            await self._at.aside(read_header, path)
            library.save(path, name)
        finally:
            path.unlink()
        self._at.changed()
        return {"name": name}

    def rename(self, name: str, said: dict[str, Any]) -> dict[str, Any]:
        library.rename(self._known(name), said["name"])
        self._at.pictures.rename(name, said["name"])
        for path in self._at.commands.rounds_of(name):
            target = path.with_name(f"{said['name']}-{path.name.rpartition('-')[2]}")
            if not target.exists():
                path.rename(target)
        self._at.changed()
        return {"name": said["name"]}

    def remove(self, name: str, said: dict[str, Any]) -> dict[str, Any]:
        library.remove(self._known(name))
        self._at.changed()
        return {}

    async def style_file(self, name: str) -> Response:
        path = library.file_of(self._known(name))
        data = await self._at.aside(read_bytes, path, None)
        return answer_of(data, "application/octet-stream", path.name)

    def report(self, name: str) -> Response:
        path = self._at.folder / commands.REPORTS / f"{self._known(name)}.html"
        if not path.is_file() or path.is_symlink():
            raise Refused(404, "There is no report of this style yet.")
        return Response(path.read_bytes(), media_type="text/html", headers={"Content-Security-Policy": SANDBOX})

    async def rounds(self, style: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._at.aside(rounds.listed, style, self._at.commands.rounds_of(style))
        return found

    def round_picture(self, folder: str, round: str, place: str) -> Response:  # noqa: A002
        folders = {path.name: path for path in self._at.commands.rounds_of(folder.rpartition("-")[0])}
        if folder in folders and (path := rounds.picture(folders[folder], round, place)):
            return answer_of(path.read_bytes(), "image/png")
        raise Refused(404, "There is no such picture of a round.")

    def keep_round(self, said: dict[str, Any]) -> dict[str, Any]:
        style = self._known(said["style"])
        library.save(rounds.adapter_of(said["round"], self._at.commands.rounds_of(style)), style, overwrite=True)
        self._at.changed()
        return {}

    def _known(self, name: str) -> str:
        """A name that is in the library; Missing for any other."""
        if name not in library.names():
            raise Missing(f"there is no style called '{name[:60]}'")
        return name

    # ---- what a training draws ----

    def samples(self, job: str) -> list[dict[str, Any]]:
        quoted = quote(job)
        return [{"step": step, "url": f"api/learn/{quoted}/samples/{step}"} for step in self._sheets(job)]

    def sample(self, job: str, step: str) -> Response:
        sheets = {str(number): path for number, path in self._sheets(job).items()}
        if step not in sheets:
            raise Refused(404, "There is no such sheet of test pictures.")
        return answer_of(sheets[step].read_bytes(), "image/png")

    def _sheets(self, name: str) -> dict[int, Path]:
        """The sheets of test pictures that a training has drawn by now, by their steps."""
        job = self._at.jobs.find(name)
        if job.kind != "learn":
            raise Refused(404, "This job learns nothing.")
        folder = run_of(library.file_of(job.about["name"]))
        paths = sorted(path for path in folder.glob(f"{any_of(CHECKPOINT)}.png") if not path.is_symlink())
        return {int(path.stem.rpartition("-")[2]): path for path in paths}


# ---- parts of them ----


def answer_of(data: bytes, kind: str, name: str = "", forever: bool = False) -> Response:
    """A picture or a file, to be saved as ``name`` if it has one; never run as a page, whatever is in it.

    The browser keeps it ``forever`` where its address changes with its contents.
    """
    headers = {"Cache-Control": FOREVER if forever else "private, no-cache", "Content-Security-Policy": SANDBOX}
    if name:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return Response(data, media_type=kind, headers=headers)
