"""A server on this machine that speaks the hub's language, for reading and for writing, and pointing the library at it.

The fixture ``remote`` of ``conftest`` is one, with an empty cache.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from huggingface_hub import constants, file_download

REPO = "artists/tiny-amused"
COMMIT, NEWER = "a" * 40, "b" * 40
LARGE = 3000  # bytes from which on a file has a sha256, as what Git LFS keeps


def noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def published() -> dict[str, bytes]:
    """The files of a repository laid out as amused/amused-256 is, with noise for weights."""
    small = {
        "model_index.json": json.dumps({"_class_name": "AmusedPipeline"}).encode(),
        "scheduler/scheduler_config.json": b"{}",
        "text_encoder/config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"#version: 0.2\n",
        "tokenizer/special_tokens_map.json": b"{}",
        "tokenizer/tokenizer_config.json": b"{}",
        "transformer/config.json": b"{}",
        "vqvae/config.json": b"{}",
        "README.md": b"# Tiny",
        "assets/picture.png": b"png",
    }
    stems = {"text_encoder/model": 6000, "transformer/diffusion_pytorch_model": 40000}
    stems["vqvae/diffusion_pytorch_model"] = 12000
    half = {f"{stem}.fp16.safetensors": noise(stem, size) for stem, size in stems.items()}
    full = {f"{stem}.safetensors": noise(stem + "32", 2 * size) for stem, size in stems.items()}
    return {**small, **half, **full, "transformer/diffusion_pytorch_model.bin": noise("pickle", 5000)}


@dataclass
class Hub:
    """What the server has, how it misbehaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=published)
    others: dict[str, dict[str, bytes]] = field(default_factory=dict)  # repositories beside it, and their files
    commit: str = COMMIT
    refusal: tuple[int, dict[str, str]] | None = None  # instead of any answer
    portal: str = ""  # addresses with this in them are answered with a page to log in at, as a hotel's network does
    locked: bool = False  # refuses files, but tells of them
    cut: dict[str, int] = field(default_factory=dict)  # after so many bytes of a file, once
    spoilt: set[str] = field(default_factory=set)  # files with a wrong byte
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    users: dict[str, str] = field(default_factory=lambda: {"hf_anna": "anna"})  # whose tokens are whose
    private: set[str] = field(default_factory=set)
    revisions: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)  # of a repository, beside main
    stored: dict[str, bytes] = field(default_factory=dict)  # what came by Git LFS, by its sha256
    sent: list[bytes] = field(default_factory=list)  # the body of everything that was sent here
    commits: list[tuple[str, str]] = field(default_factory=list)  # repository, message
    refused: dict[str, int] = field(default_factory=dict)  # the status of what is sent to addresses with this in them

    def ranges(self) -> list[str]:
        large = [headers for _, path, headers in self.asked if path.startswith("/cdn/")]
        return [headers["range"] for headers in large if "range" in headers]

    def of(self, repo: str, revision: str = "main") -> dict[str, bytes] | None:
        """The files of a repository, None if there is none, or no such revision."""
        if revision in (others := self.revisions.get(repo, {})) or revision not in ("main", self.commit):
            return others.get(revision)
        return self.files if repo == REPO else self.others.get(repo)

    def downloads(self) -> list[str]:
        """The large files whose bytes were asked for."""
        return [path.removeprefix("/cdn/") for method, path, _ in self.asked if path.startswith("/cdn/")]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The addresses of the hub that matter: what a repository holds, a file of it, large ones elsewhere; and writing:
    making a repository, how and where files are sent to it, a commit.
    """

    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], data: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
        if self.hub.portal and self.hub.portal in path:
            self.answer(200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><title>Welcome</title>")
        elif path.startswith("/cdn/"):
            self.large(path.removeprefix("/cdn/"))
        elif self.hub.refusal:
            self.answer(self.hub.refusal[0], self.hub.refusal[1])
        elif (asked := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)) and self.is_seen(asked[1]):
            repo, held = asked[1], self.hub.of(asked[1], asked[2] or "main")
            if held is None:
                self.answer(404, {"X-Error-Code": "RevisionNotFound"})
                return
            siblings: list[dict[str, Any]] = []
            for name, data in held.items():
                lfs = {"sha256": sha256(data), "size": len(data), "pointerSize": 134} if len(data) >= LARGE else None
                siblings.append({"rfilename": name, "size": len(data), "blobId": "c" * 40, "lfs": lfs})
            about = {"id": repo, "sha": self.hub.commit, "siblings": siblings, "tags": [], "private": False}
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(about).encode())
        elif (match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)) and self.is_seen(match[1]):
            self.resolve(match[1], match[3], match[2])
        else:
            self.answer(404, {"X-Error-Code": "RepoNotFound"})

    def is_seen(self, repo: str) -> bool:
        """Whether there is such a repository, and who asks may know of it."""
        return self.hub.of(repo) is not None and (repo not in self.hub.private or self.user == repo.partition("/")[0])

    @property
    def user(self) -> str | None:
        """Who asks, by the token."""
        return self.hub.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def resolve(self, repo: str, name: str, revision: str) -> None:
        data = (self.hub.of(repo, revision) or {}).get(name)
        about = {"X-Repo-Commit": self.hub.commit}
        if self.hub.locked:
            self.answer(403, {"X-Error-Code": "GatedRepo"})
        elif data is None:
            self.answer(404, about | {"X-Error-Code": "EntryNotFound"})
        elif len(data) >= LARGE:
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
            about |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
            at = f"@{revision}" if revision in self.hub.revisions.get(repo, {}) else ""
            beside = "" if repo == REPO else f"{repo}{at}:"
            self.answer(302, about | {"Location": f"{elsewhere}/cdn/{beside}{name}"})
        else:
            etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self.answer(200, about | {"ETag": f'"{etag}"'}, data)

    def large(self, name: str) -> None:
        repo, beside, file = name.rpartition(":")
        repo, _, revision = repo.partition("@")
        data = ((self.hub.of(repo, revision or "main") or {}) if beside else self.hub.files)[file]
        if name in self.hub.spoilt:
            data = bytes([data[0] ^ 1]) + data[1:]
        start, last = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")
        rest = data[int(start) : int(last) + 1 if last else len(data)]
        end = int(start) + len(rest) - 1
        whole = len(rest) == len(data) and not int(start)
        headers = {} if whole else {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        headers["Content-Length"] = str(len(rest))
        self.answer(200 if whole else 206, headers, rest[: self.hub.cut.pop(name, len(rest))])

    # ---- writing ----

    def do_PUT(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        path, body = self.path.partition("?")[0], self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.sent.append(body)
        self.hub.asked.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
        if status := next((status for part, status in self.hub.refused.items() if part in path), None):
            self.answer(status, {"X-Error-Message": "not today"})
        elif path.startswith("/store/"):
            self.hub.stored[path.rpartition("/")[2]] = body
            self.answer(200, {})
        elif self.user is None:
            self.answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.say({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+?)(\.git)?/(preupload|info|commit)/.+", path):
            if self.hub.of(match[1]) is None:
                self.answer(404, {"X-Error-Code": "RepoNotFound"})
            elif self.user != match[1].partition("/")[0]:
                self.answer(403, {"X-Error-Message": "Forbidden: you must have write access"})
            else:
                getattr(self, match[3])(match[1], body)
        else:
            self.answer(404, {})

    def say(self, value: Any) -> None:
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def create(self, wanted: dict[str, Any]) -> None:
        owner = wanted["organization"] or self.user
        repo = f"{owner}/{wanted['name']}"
        if self.user != owner:
            self.answer(403, {"X-Error-Message": f"You don't have the rights to create a model under {owner}"})
        elif self.hub.of(repo) is not None:
            said = {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"}
            self.answer(409, {"Content-Type": "application/json"}, json.dumps(said).encode())
        else:
            self.hub.others[repo] = {".gitattributes": b"*.safetensors filter=lfs"}
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.hub.private.add(repo)
            self.say({"url": f"{self.hub.url}/{repo}"})

    def preupload(self, repo: str, body: bytes) -> None:
        mode = {True: "lfs", False: "regular"}
        files = [
            {"path": one["path"], "uploadMode": mode[one["path"].endswith((".safetensors", ".jpg"))],
             "shouldIgnore": False, "oid": None}
            for one in json.loads(body)["files"]
        ]  # fmt: skip
        self.say({"files": files})

    def info(self, repo: str, body: bytes) -> None:
        def answer(one: dict[str, Any]) -> dict[str, Any]:
            there = one["oid"] in self.hub.stored
            send = {"actions": {"upload": {"href": f"{self.hub.url}/store/{one['oid']}", "header": {}}}}
            return {"oid": one["oid"], "size": one["size"]} | ({} if there else send)

        self.say({"transfer": "basic", "objects": [answer(one) for one in json.loads(body)["objects"]]})

    def commit(self, repo: str, body: bytes) -> None:
        files = dict(self.hub.of(repo) or {})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append((repo, value["summary"]))
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
                assert len(files[value["path"]]) == value["size"] and sha256(files[value["path"]]) == value["oid"]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.others[repo] = files
        self.say({"commitUrl": f"{self.hub.url}/{repo}/commit/{self.hub.commit}", "commitOid": self.hub.commit})


def point_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    for module in (constants, file_download):  # the latter has its own before version 1
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import utils

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    getattr(utils, "reset_sessions", lambda: None)()  # before version 1 a session remembers what it was made for
