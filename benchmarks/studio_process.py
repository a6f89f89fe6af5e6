"""A script that speaks with a studio: what a page does, without a browser."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

PATIENCE = 300.0  # seconds for a job: the machine may be busy


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


class Script:
    """Speaks with the studio at ``url``."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)
        self.secret = self.parts.path.strip("/")

    def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str | None] | None = None, method: str = ""
    ) -> Answer:
        """GET, or POST where there is a body; ``path`` after the secret, or from the root if it begins with a slash."""
        sent: dict[str, str | None] = {"Host": self.parts.netloc}
        if body is not None:
            sent |= {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        connection = HTTPConnection("127.0.0.1", self.parts.port or 0, timeout=60)
        try:
            where = path if path.startswith("/") else self.parts.path + path
            connection.putrequest(
                method or ("GET" if body is None else "POST"), where, skip_host=True, skip_accept_encoding=True
            )
            for name, value in (sent | (headers or {})).items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """What is answered as JSON."""
        answer = self.ask(path)
        assert answer.status == 200, answer
        return answer.said

    def tell(self, path: str, **said: Any) -> Any:
        """POST, of which nothing may go wrong; what is answered."""
        answer = self.ask(path, json.dumps(said).encode())
        assert answer.status == 200, answer
        return answer.said

    def refused(self, path: str, status: int, **said: Any) -> str:
        """POST, which is refused with a status; why."""
        answer = self.ask(path, json.dumps(said).encode())
        assert answer.status == status, answer
        return str(answer.said["error"])

    def upload(self, picture: Path, kind: str = "image/png") -> Answer:
        """Drop a reference picture."""
        headers = {"Content-Type": kind, "X-Name": quote(picture.name)}
        return self.ask("api/references", picture.read_bytes(), headers)

    def job(self, name: str) -> Any:
        """A job as the state has it; None if it is gone."""
        return next((job for job in self.get("api/state")["jobs"] if job["id"] == name), None)

    def until(self, name: str, *states: str) -> Any:
        """The job once it is in one of the ``states``, by waiting for news as the page does."""
        end, tag = time.monotonic() + PATIENCE, ""
        while time.monotonic() < end:
            state = self.get(f"api/state?after={tag}")
            tag = state["tag"]
            (job,) = [one for one in state["jobs"] if one["id"] == name]
            if job["state"] in (states or ("done", "failed", "cancelled", "stopped")):
                return job
        raise AssertionError(f"still {job}")

    def done(self, path: str, **said: Any) -> Any:
        """Start a job, and wait until it is done."""
        job = self.until(self.tell(path, **said)["job"])
        assert job["state"] == "done", (job, self.ask(f"api/jobs/{job['id']}/log").body.decode())
        return job


class Process:
    """`styledrop studio` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", "styledrop_cli", "studio", folder, "--headless", "-q", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.process.communicate(timeout=20)
        self.script = Script(self.url)

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.kill()
        self.process.communicate(timeout=30)

    def stop(self) -> int:
        """As Ctrl-C does, which a process in the background may not hear; the exit code."""
        self.process.terminate()
        self.process.communicate(timeout=60)
        return self.process.returncode
