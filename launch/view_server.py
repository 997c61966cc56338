"""The page that shows runs, over HTTP: to this machine only, to read only, and no file outside the runs' folders.

    /  viewer.css  viewer.js                 the page, which asks for
    /api/runs                                every run in a line            (`run_overview.line`)
    /api/run?path=cw10/replay/seed-0         one run                        (`run_overview.page`)
    /api/comparison?path=...&path=...        several                        (`run_overview.comparison`)
    /files/cw10/replay/seed-0/videos/grid.mp4    a run's own files of known types, in parts where a player asks for them

Who asks by another name than this machine's own is refused: a page of somebody else's whose name was pointed at this machine (DNS rebinding).
Another user of this machine can read what is served, as with TensorBoard.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from reconverge.envs.errors import ConfigError, DamagedFile
from reconverge.launch import run_overview
from reconverge.launch.live_status import read_liveness
from reconverge.launch.run_catalogue import DEEPEST, Catalogue, hidden, in_numbers

LOOPBACK = "127.0.0.1"
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""With any port: a tunnel may have given the page another one."""
PAGE = {"/": ("viewer.html", "text/html"), "/viewer.css": ("viewer.css", "text/css"), "/viewer.js": ("viewer.js", "text/javascript")}
PLAIN_TEXT = "text/plain; charset=utf-8"
TYPES = {
    ".html": "text/html; charset=utf-8", ".png": "image/png", ".svg": "image/svg+xml", ".mp4": "video/mp4",
    ".json": PLAIN_TEXT, ".csv": PLAIN_TEXT, ".jsonl": PLAIN_TEXT, ".yaml": PLAIN_TEXT, ".txt": PLAIN_TEXT,
}  # fmt: skip
"""Files that are served, by their suffix; text as plain text, which a browser shows instead of keeping."""
DEEPEST_FILE = 4
"""Parts of a file's path below its run: an address of thousands would be looked up part by part."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILE_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; frame-ancestors 'none'"
"""A report has its styles, pictures and videos in itself, and no script; whoever wrote it, none of his runs."""
MOST_COMPARED = 40
CHUNK = 256 * 1024
PATIENCE_S = 30


class ViewServer(ThreadingHTTPServer):
    """Serves what lies below `root` on this machine's own address; port 0 takes any free one. `serve_forever` until `shutdown`.

    Raises ConfigError where the port is taken.
    """

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0) -> None:
        self.catalogue = Catalogue(root)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"port {port} cannot be used ({reason}); choose another with --port, or any free one with --port 0") from error

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who went away in the middle of an answer is nothing to report; anything else is a bug."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class NotHere(Exception):
    """Nothing is served under this name; for whatever reason, which is not told."""


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "reconverge", ""
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        try:
            self._answer()
        except NotHere:
            self._send_text(HTTPStatus.NOT_FOUND, "there is nothing here\n")

    do_HEAD = do_GET

    def _answer(self) -> None:
        if not self._is_meant():
            self._send_text(HTTPStatus.FORBIDDEN, "this page is for this machine; open it as http://127.0.0.1\n")
            return
        try:
            address = urlsplit(self.path)
        except ValueError:
            raise NotHere from None
        if address.path in PAGE:
            name, kind = PAGE[address.path]
            self._send(HTTPStatus.OK, f"{kind}; charset=utf-8", (files("reconverge.launch") / name).read_bytes(), PAGE_POLICY)
        elif address.path.startswith("/files/"):
            self._send_file(address.path.removeprefix("/files/"))
        else:
            wanted = parse_qs(address.query).get("path", [])[:MOST_COMPARED]
            answer = self._json_answer(address.path, wanted)
            self._send(HTTPStatus.OK, "application/json", json.dumps(_finite(answer), allow_nan=False).encode(), PAGE_POLICY)

    def _is_meant(self) -> bool:
        hosts = self.headers.get_all("Host") or []
        return len(hosts) == 1 and re.sub(r":\d{1,5}$", "", hosts[0].strip().lower()) in OWN_NAMES

    def _json_answer(self, place: str, wanted: Sequence[str]) -> Any:
        catalogue = self.server.catalogue
        if place == "/api/runs":
            return {"folder": str(catalogue.root), "runs": listed(catalogue)}
        if place not in ("/api/run", "/api/comparison") or not wanted or not all(_is_run(catalogue, path) for path in wanted):
            raise NotHere
        if place == "/api/run":
            return shown(catalogue, wanted[0])
        return run_overview.comparison([(path, run) for path in dict.fromkeys(wanted) if (run := _readable(catalogue, path)) is not None])

    def _send_file(self, place: str) -> None:
        try:
            parts = [unquote(part, errors="strict") for part in place.split("/")]
        except UnicodeDecodeError:
            raise NotHere from None
        if len(parts) > DEEPEST + DEEPEST_FILE or any(not part or hidden(part) or set(part) & set("/\\\0") for part in parts):
            raise NotHere
        kind = TYPES.get(Path(parts[-1]).suffix)
        if kind is None or not any(_is_run(self.server.catalogue, "/".join(parts[:count]) or ".") for count in range(len(parts))):
            raise NotHere
        with _opened_below(self.server.catalogue.root, parts) as file:
            self._send_parts(file, kind)

    def _send_parts(self, file: BinaryIO, kind: str) -> None:
        """The file, or the one range of it that was asked for."""
        size = os.fstat(file.fileno()).st_size
        found = _byte_range(self.headers.get("Range"), size)
        start, stop = found or (0, size)
        if start >= stop and found:
            self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, kind, 0, FILE_POLICY, {"Content-Range": f"bytes */{size}"})
            return
        status = HTTPStatus.PARTIAL_CONTENT if found else HTTPStatus.OK
        extra = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if found else {}
        self._head(status, kind, stop - start, FILE_POLICY, {"Accept-Ranges": "bytes", **extra})
        if self.command == "HEAD":
            return
        file.seek(start)
        left = stop - start
        while left and (data := file.read(min(CHUNK, left))):
            self.wfile.write(data)
            left -= len(data)
        if left:  # the file was cut while it was sent: the answer cannot be made whole
            self.close_connection = True

    def _send_text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", text.encode(), PAGE_POLICY)

    def _send(self, status: HTTPStatus, kind: str, data: bytes, policy: str) -> None:
        self._head(status, kind, len(data), policy, {})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: HTTPStatus, kind: str, length: int, policy: str, extra: dict[str, str]) -> None:
        self.send_response(status)
        fixed = {
            "Content-Type": kind, "Content-Length": str(length), "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
        }  # fmt: skip
        for name, value in {**fixed, **extra}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *given: Any) -> None:
        """Nothing: the terminal is the user's."""


def listed(catalogue: Catalogue) -> list[dict[str, Any]]:
    """A line for every run: those that are running first, then by path with numbers in their order."""
    lines = [line for path in catalogue.paths() if (line := _line(catalogue, path)) is not None]
    return sorted(lines, key=lambda line: (line["state"] != "running", in_numbers(line["path"])))


def shown(catalogue: Catalogue, path: str) -> dict[str, Any]:
    """One run's page."""
    live = read_liveness(catalogue.root / path)
    try:
        return run_overview.page(path, catalogue.read(path), live)
    except (DamagedFile, ArithmeticError, ValueError) as damage:  # figures may be anybody's, also such as overflow
        return run_overview.unreadable(path, str(damage), live)


def _line(catalogue: Catalogue, path: str) -> dict[str, Any] | None:
    live = read_liveness(catalogue.root / path)
    try:
        return run_overview.line(path, catalogue.read(path), live)
    except (DamagedFile, ArithmeticError, ValueError) as damage:
        return run_overview.unreadable(path, str(damage), live) if path in catalogue else None  # else it vanished meanwhile


def _finite(value: Any) -> Any:
    """A plain value in which nothing stands for a number that is not finite, which JSON has no word for."""
    match value:
        case dict():
            return {key: _finite(part) for key, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def _readable(catalogue: Catalogue, path: str) -> Any:
    try:
        return catalogue.read(path)
    except DamagedFile:
        return None


def _is_run(catalogue: Catalogue, path: str) -> bool:
    """Asked before anything is read: a path from outside must be that of a run in the folder, and no other way to say it."""
    return "\0" not in path and not path.startswith("/") and ".." not in path.split("/") and str(Path(path)) == path and path in catalogue


@contextmanager
def _opened_below(root: Path, parts: Sequence[str]) -> Iterator[BinaryIO]:
    """A regular file below `root`, reached without following a link, whatever is put there meanwhile."""
    handles = []
    try:
        handles.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in parts[:-1]:
            handles.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handles[-1]))
        handle = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handles[-1])
    except OSError as error:
        raise NotHere from error
    finally:
        for opened in handles:
            os.close(opened)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotHere
    with open(handle, "rb") as file:
        yield file


def _byte_range(wanted: str | None, size: int) -> tuple[int, int] | None:
    """[start, stop) of `Range: bytes=0-99`, `bytes=100-` or `bytes=-50`, empty beyond the end; None where no range, or several, are asked for."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", wanted or "", re.ASCII)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    return int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
