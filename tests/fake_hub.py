"""A Hugging Face Hub on this machine: the few addresses that `push` and `pull` use, with repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
_ABOUT = r"/api/(models|datasets)/([^/]+/[^/]+)"


@dataclass
class FakeRepository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    head: str = "0" * 40
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], deleted: Collection[str] = ()) -> str:
        """Add, replace and delete files; the new commit's hash."""
        whole = {**{name: data for name, data in self.commits[self.head].items() if name not in deleted}, **files}
        self.head = hashlib.sha1(repr((self.head, sorted(whole.items()))).encode()).hexdigest()
        self.commits[self.head] = whole
        return self.head

    def find(self, revision: str) -> str | None:
        found = self.head if revision == "main" else self.tags.get(revision, revision)
        return found if found in self.commits else None


class FakeHub:
    """`requests` are the paths that were asked for; `tokens` what they were asked with."""

    def __init__(self) -> None:
        self.repositories: dict[str, FakeRepository] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address at which it answers."""
        hub = self

        class Handler(_Handler):
            def do(self, method: str) -> None:
                hub.requests.append(self.path)
                hub.tokens.add(self.headers.get("Authorization"))
                self.answer(hub, method)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do(self, method: str) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.do("GET")

    def do_POST(self) -> None:
        self.do("POST")

    def do_DELETE(self) -> None:
        self.do("DELETE")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, hub: FakeHub, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            return self._create(hub, json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if found := re.fullmatch(_ABOUT + r"(?:/(revision|tree|preupload|commit|tag)/(.+))?", path):
            return self._about(hub, method, *found.groups(), body)
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(hub, *found.groups())
        self._missing("EntryNotFound")

    def _create(self, hub: FakeHub, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        name = f"datasets/{name}" if wanted.get("type") == "dataset" else name
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid credentials"}, 401)
        if name in hub.repositories:
            return self._json({"error": "You already created this repo", "url": f"https://huggingface.co/{name}"}, 409)
        hub.repositories[name] = FakeRepository(bool(wanted.get("private")) or wanted.get("visibility") == "private")
        self._json({"url": f"https://huggingface.co/{name}", "name": name})

    def _about(self, hub: FakeHub, method: str, kind: str, name: str, verb: str | None, rest: str | None, body: bytes) -> None:
        repository = hub.repositories.get(name if kind == "models" else f"datasets/{name}")
        if repository is None or (repository.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            return self._missing("RepoNotFound")
        if verb in (None, "revision"):
            commit = repository.find(rest or "main")
            return self._missing("RevisionNotFound") if commit is None else self._json({"id": name, "sha": commit, "private": repository.private})
        if verb == "tree":
            return self._tree(repository, *str(rest).partition("/")[::2])
        if verb == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            return self._json({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})
        if verb == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"}
            commit = repository.commit(files, [line["value"]["path"] for line in lines if line["key"] == "deletedFile"])
            return self._json({"commitUrl": f"https://huggingface.co/{name}/commit/{commit}", "commitOid": commit})
        if method == "DELETE":
            return self._missing("RevisionNotFound") if repository.tags.pop(str(rest), None) is None else self._json({})
        repository.tags[json.loads(body)["tag"]] = str(rest)
        self._json({})

    def _tree(self, repository: FakeRepository, revision: str, folder: str) -> None:
        """What lies in a folder, all the way down where that is asked for."""
        start = f"{folder}/" if folder else ""
        files = {path: len(data) for path, data in repository.commits[str(repository.find(revision))].items() if path.startswith(start)}
        if "recursive=true" not in self.path.lower():
            deeper = {start + path.removeprefix(start).split("/")[0] for path in files if "/" in path.removeprefix(start)}
            files = {path: size for path, size in files.items() if "/" not in path.removeprefix(start)}
        else:
            deeper = set()
        if folder and not files and not deeper:
            return self._missing("EntryNotFound")
        entries = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(deeper)]
        self._json([*entries, *({"type": "file", "path": path, "size": size, "oid": "0" * 40} for path, size in files.items())])

    def _file(self, hub: FakeHub, dataset: str | None, name: str, revision: str, file: str) -> None:
        repository = hub.repositories.get((dataset or "") + name)
        commit = repository.find(revision) if repository is not None else None
        if repository is None or commit is None or file not in repository.commits[commit]:
            return self._missing("EntryNotFound")
        self._send(200, repository.commits[commit][file], {"Content-Type": "application/octet-stream"})

    def _missing(self, code: str) -> None:
        self._send(404, b'{"error": "not found"}', {"X-Error-Code": code, "Content-Type": "application/json"})

    def _json(self, content: object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):  # the reader has seen enough
            self.close_connection = True
