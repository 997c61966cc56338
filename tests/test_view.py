"""The page of runs: what it says of them, live and after; that it gives away nothing else; and how it looks in a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from source_files import ROOT
from synthetic_run import write_run

from reconverge.envs.errors import ConfigError, DamagedFile
from reconverge.eval.run_results import read_run
from reconverge.launch import live_status
from reconverge.launch.config import RunConfig
from reconverge.launch.live_status import Liveness, LiveStatus, read_liveness
from reconverge.launch.progress import Progress
from reconverge.launch.remaining_time import planned_work, remaining
from reconverge.launch.run_catalogue import Catalogue, find_runs
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_overview import comparison, line, page, state
from reconverge.launch.stop_request import Stopped
from reconverge.launch.view_server import ViewServer, listed

IDLE = Liveness(False, False)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    write_run(root / "toy/replay/seed-10", method="replay", seed=10)
    write_run(root / "toy/replay/seed-2", method="replay", seed=2, done=1)
    write_run(root / "toy/finetune/seed-0", method="finetune")
    return root


class Reader:
    """One request at a time to a server of its own."""

    def __init__(self, server: ViewServer) -> None:
        self.port = int(server.server_address[1])

    def __call__(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in given)
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def json(self, path: str) -> Any:
        status, _, data = self(path)
        assert status == 200, path
        return json.loads(data)


@pytest.fixture
def get(runs: Path) -> Iterator[Reader]:
    with serving(runs) as reader:
        yield reader


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Reader]:
    with ViewServer(root) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Reader(server)
        finally:
            server.shutdown()
            thread.join()


# What is said of runs ------------------------------------------------------------------------------------------------------------


def test_runs_are_found_at_any_depth_but_not_behind_links_or_dots(runs: Path, tmp_path: Path) -> None:
    outside = write_run(tmp_path / "elsewhere")
    (runs / "linked").symlink_to(outside)
    shutil.copytree(outside, runs / ".draft")
    assert sorted(str(path.relative_to(runs)) for path in find_runs(runs)) == ["toy/finetune/seed-0", "toy/replay/seed-10", "toy/replay/seed-2"]
    assert find_runs(outside) == [outside]


def test_a_line_says_success_per_task_and_its_mean(runs: Path) -> None:
    run = read_run(runs / "toy/finetune/seed-0", episodes=False)
    found = line("x", run, IDLE)
    last = {cell.task: cell.rate for cell in run.cells if cell.stage == 3}
    assert [task["now"] for task in found["tasks"]] == [last[task] for task in run.tasks]
    assert found["success"]["mean"] == pytest.approx(sum(last.values()) / 3) and found["forgetting"] > 0.3
    assert found["state"] == "finished" and found["share"] == 1.0 and found["left_s"] is None


def test_states_are_told_apart(runs: Path) -> None:
    part, whole = read_run(runs / "toy/replay/seed-2"), read_run(runs / "toy/replay/seed-10")
    assert state(part, Liveness(True, True)) == state(whole, Liveness(True, True)) == "running"  # a finished run still renders its videos
    assert state(whole, IDLE) == "finished"
    assert state(part, IDLE) == "stopped"
    assert state(part, Liveness(True, False)) == "killed"
    assert state(part, Liveness(False, False, failure="OSError: full")) == "failed"


def test_the_page_shows_no_numbers_that_were_not_measured(runs: Path) -> None:
    found = page("x", read_run(runs / "toy/replay/seed-2"), IDLE)
    assert [task["learned"] for task in found["tasks"]] == [True, False, False] and found["stages_done"] == 1
    assert {cell["stage"] for cell in found["cells"]} == {0, 1}
    json.dumps(found, allow_nan=False)


def test_a_comparison_has_every_run_and_says_what_is_not_like_for_like(runs: Path) -> None:
    chosen = [(name, read_run(runs / name)) for name in ("toy/replay/seed-10", "toy/finetune/seed-0", "toy/replay/seed-2")]
    found = comparison(chosen)
    assert [row["path"] for row in found["runs"]] == [name for name, _ in chosen]
    assert [len(row["over_stages"]) for row in found["runs"]] == [3, 3, 1] and "progress" in found["unlike"]
    assert found["runs"][0]["success"]["mean"] > found["runs"][1]["success"]["mean"]


# Time left -----------------------------------------------------------------------------------------------------------------------


def test_time_left_by_hand(tmp_path: Path) -> None:
    """500 updates a stage at 10 a second; consolidation 7 s, evaluation 1 s a task: two after stages 1 and 2, then three... as planned."""
    run = read_run(write_run(tmp_path / "run", done=1))
    work = planned_work(run)
    assert [stage["evaluate"] for stage in work] == [3, 2, 3, 3] and [stage["recovery"] for stage in work] == [0, 0, 8, 16]
    seconds = {"update": 60.0, "fisher": 2.0, "generator": 5.0, "evaluate/simulate": 4.0, "evaluate": 1.0, "recovery": 4.0}
    where = {"stage": 2, "phase": "update", "update": 250, "done": 250, "total": 500, "rate": 10.0, "seconds": seconds}
    found = remaining(run, where)
    assert found is not None and found.whole
    updates, consolidation, evaluation = (250 + 500) / 10, 2 * 7, (3 + 3) * 5 / (3 + 2)
    recovery = (1 + 16) * 4 / 7  # of the grid 2, 6, 10, 25, 50, 100, 200, 400 seven points are behind update 250
    assert found.seconds == pytest.approx(updates + consolidation + evaluation + recovery)
    of_stage = remaining(run, where, stage_only=True)
    assert of_stage is not None and of_stage.seconds == pytest.approx(250 / 10 + 7 + 3 * 5 / (3 + 2) + 1 * 4 / 7)


def test_time_left_does_not_leap_while_a_point_of_recovery_is_measured(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", done=1))
    seconds = {"update": 60.0, "fisher": 2.0, "generator": 5.0, "evaluate": 5.0, "recovery": 4.0}
    where = {"stage": 2, "update": 250, "seconds": seconds}
    between = remaining(run, {**where, "phase": "update", "done": 250, "total": 500, "rate": 750 / 60})
    within = remaining(run, {**where, "phase": "recovery", "done": 10, "total": 90, "rate": 30.0})
    assert between is not None and within is not None and 0.5 < within.seconds / between.seconds < 2


def test_what_was_never_seen_makes_it_a_lower_bound(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", done=1))
    first = remaining(run, {"stage": 1, "phase": "update", "update": 100, "done": 100, "total": 500, "rate": 10.0, "seconds": {}})
    assert first is not None and not first.whole and first.seconds == pytest.approx(40 + 100)
    for nowhere in ({}, {"stage": 3, "phase": "render"}, {"stage": 9, "phase": "update"}):
        assert remaining(run, nowhere) is None


# Live ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_status, "INTERVAL_S", 0.005)


def test_a_run_tells_where_it_is_and_leaves_nothing(tmp_path: Path, soon: None) -> None:
    progress = Progress("quiet")
    with RunFolder.create(tmp_path / "run", RunConfig(), "test") as folder, LiveStatus(folder, progress):
        progress.stage(2, 3, "push")
        with progress.phase("update", 500) as tick:
            tick(40)
            with progress.phase("recovery", 90) as inner:
                inner(30)
                deadline_s = time.monotonic() + 5
                while read_liveness(folder.path).where.get("done") != 30 and time.monotonic() < deadline_s:
                    time.sleep(0.005)
                live = read_liveness(folder.path)
    assert live.alive and not live.failure
    assert {key: live.where[key] for key in ("stage", "of", "task", "update", "phase", "done", "total")} == {
        "stage": 2, "of": 3, "task": "push", "update": 40, "phase": "recovery", "done": 30, "total": 90,
    }  # fmt: skip
    assert read_liveness(folder.path) == IDLE
    assert not [path for path in folder.path.iterdir() if path.name.startswith(".")]
    assert "progress" not in (folder.path / "files.json").read_text()


def test_an_error_is_told_until_the_run_is_taken_up_again_and_a_stop_is_none(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile), RunFolder.create(tmp_path / "run", RunConfig(), "test") as folder, LiveStatus(folder, Progress("quiet")):
        raise DamagedFile("a wheel came off")
    assert read_liveness(folder.path).failure == "DamagedFile: a wheel came off"
    with pytest.raises(Stopped), RunFolder.resume(folder.path) as folder, LiveStatus(folder, Progress("quiet")):
        raise Stopped
    assert read_liveness(folder.path) == IDLE


def test_an_error_of_a_process_that_lost_its_run_is_not_the_runs(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile), RunFolder.create(tmp_path / "run", RunConfig(), "test") as folder, LiveStatus(folder, Progress("quiet")):
        (folder.path / ".lock-2").mkdir()
        raise DamagedFile("a wheel came off")
    assert read_liveness(folder.path).failure == ""


def test_looking_on_writes_nothing(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", RunConfig(), "test"):
        before = {path: path.lstat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
        found = listed(Catalogue(tmp_path))
        assert {path: path.lstat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before
    assert [(entry["path"], entry["state"], entry["starting"]) for entry in found] == [("run", "running", True)]


@pytest.mark.parametrize("content", [b"", b"{", b'{"stage": "2", "seconds": 3}', b'{"stage": 1e400}', b"\xff\x00", b"[1]"])
def test_a_hostile_progress_file_is_no_progress(tmp_path: Path, content: bytes) -> None:
    with RunFolder.create(tmp_path / "run", RunConfig(), "test") as folder:
        assert folder.lock is not None
        (folder.lock / "progress.json").write_bytes(content)
        assert read_liveness(folder.path).where == {}


# Runs that change under the reader -----------------------------------------------------------------------------------------------


def test_a_torn_line_is_not_read_and_the_rest_is(get: Reader, runs: Path) -> None:
    metrics = runs / "toy/replay/seed-2/metrics.jsonl"
    before = get.json("/api/run?path=toy/replay/seed-2")["curves"]["loss"]
    with open(metrics, "ab") as file:
        file.write(b'{"stage": 2, "update": 10, "loss": 0.')
    assert get.json("/api/run?path=toy/replay/seed-2")["curves"]["loss"] == before
    with open(metrics, "ab") as file:
        file.write(b"5}\n")
    found = get.json("/api/run?path=toy/replay/seed-2")
    assert found["curves"]["loss"][-1] == [510, 0.5] and (found["stage"], found["update"]) == (2, 10)


def test_a_damaged_run_is_named_and_hides_no_other(get: Reader, runs: Path) -> None:
    (runs / "toy/finetune/seed-0/success_matrix.csv").write_bytes(b"stage,task\n\xff\xff,\n")
    lines = {entry["path"]: entry for entry in get.json("/api/runs")["runs"]}
    assert len(lines) == 3 and "success_matrix.csv" in lines["toy/finetune/seed-0"]["error"] and lines["toy/replay/seed-10"]["state"] == "finished"
    assert "success_matrix.csv" in get.json("/api/run?path=toy/finetune/seed-0")["error"]


def test_figures_that_overflow_hide_no_other_run(get: Reader, runs: Path) -> None:
    with open(runs / "toy/replay/seed-2/metrics.jsonl", "a") as file:
        file.writelines(f'{{"stage": 2, "update": {update}, "loss": 1e308}}\n' for update in range(10, 2000, 10))
    assert len(get.json("/api/runs")["runs"]) == 3
    assert get.json("/api/run?path=toy/replay/seed-2")["path"] == "toy/replay/seed-2"
    (runs / "toy" / "caf\udce9").mkdir()
    write_run(runs / "toy" / "caf\udce9" / "seed-0")
    assert len(get.json("/api/runs")["runs"]) == 3
    with socket.create_connection(("127.0.0.1", get.port), timeout=10) as connection:  # an address that no client of Python's would send
        connection.sendall(b"GET http://[x/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 404")


def test_runs_come_and_go(get: Reader, runs: Path) -> None:
    shutil.rmtree(runs / "toy/finetune")
    assert [entry["path"] for entry in get.json("/api/runs")["runs"]] == ["toy/replay/seed-2", "toy/replay/seed-10"]
    assert get("/api/run?path=toy/finetune/seed-0")[0] == get("/api/comparison?path=toy/finetune/seed-0")[0] == 404
    write_run(runs / "new")
    assert "new" in [entry["path"] for entry in get.json("/api/runs")["runs"]]
    shutil.rmtree(runs)
    assert get.json("/api/runs")["runs"] == []


def test_a_run_that_vanishes_while_it_is_read_is_left_out(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(runs)
    read = Catalogue.read

    def vanishing(self: Catalogue, path: str) -> Any:
        if "finetune" in path:
            shutil.rmtree(self.root / path, ignore_errors=True)
        return read(self, path)

    monkeypatch.setattr(Catalogue, "read", vanishing)
    assert [entry["path"] for entry in listed(catalogue)] == ["toy/replay/seed-2", "toy/replay/seed-10"]


def test_a_run_is_read_again_only_when_it_changed(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(runs)
    first = catalogue.read("toy/replay/seed-2")
    assert catalogue.read("toy/replay/seed-2") is first
    with open(runs / "toy/replay/seed-2/metrics.jsonl", "a") as file:
        file.write('{"stage": 2, "update": 1, "loss": 1.0}\n')
    assert len(catalogue.read("toy/replay/seed-2").training) == len(first.training) + 1


def test_published_tables_are_shown(tmp_path: Path) -> None:
    published = ROOT / "results" / "cw10-one-pace" / "replay"
    found = listed(Catalogue(published))
    assert [entry["path"] for entry in found] == [f"seed-{seed}" for seed in range(len(found))] and len(found) > 1
    assert all(entry["state"] == "finished" and entry["stages"] == 10 and entry["success"]["mean"] > 0.8 for entry in found)


# What is served, and to whom -----------------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(get: Reader) -> None:
    for path in ("/", "/viewer.css", "/viewer.js"):
        status, headers, data = get(path)
        assert status == 200 and len(data) > 300 and headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"
        assert b"http" not in data.replace(b"http://www.w3.org/2000/svg", b"") and b"innerHTML" not in data


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "10.0.0.1", "127.0.0.1@evil.example"])
def test_another_name_for_this_machine_is_refused(get: Reader, host: str) -> None:
    for path in ("/", "/api/runs", "/files/toy/finetune/seed-0/command.txt"):
        status, _, data = get(path, Host=host)
        assert status == 403 and b"toy" not in data


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8642", "LOCALHOST", "[::1]:80", "127.0.0.1:1"])
def test_its_own_names_are_not(get: Reader, host: str) -> None:
    assert get("/api/runs", Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_there_is_only_reading(get: Reader, method: str, runs: Path) -> None:
    before = sorted(runs.rglob("*"))
    assert get("/api/runs", method)[0] == 501
    assert sorted(runs.rglob("*")) == before


def test_only_this_machine_is_listened_to(runs: Path) -> None:
    with ViewServer(runs) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(ConfigError, match="--port 0"):
            ViewServer(runs, int(server.server_address[1]))
    with pytest.raises(ConfigError, match="port 99999"):
        ViewServer(runs, 99999)


def test_a_runs_files_are_served_and_head_sends_no_body(get: Reader, runs: Path) -> None:
    table = "toy/finetune/seed-0/success_matrix.csv"
    status, headers, data = get(f"/files/{table}")
    assert status == 200 and data == (runs / table).read_bytes() and headers["Content-Type"].startswith("text/plain")
    status, headers, data = get(f"/files/{table}", "HEAD")
    assert status == 200 and data == b"" and int(headers["Content-Length"]) > 100
    (runs / "toy/finetune/seed-0/report.html").write_text("<script>alert(1)</script>")
    assert get("/files/toy/finetune/seed-0/report.html")[1]["Content-Security-Policy"].startswith("sandbox; default-src 'none'")


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "toy/../../secret.txt", "toy/finetune/seed-0/../../../../secret.txt", "/etc/passwd",
        "%2fetc%2fpasswd", "toy/finetune/seed-0//command.txt", "toy/finetune/seed-0/./command.txt", "toy/finetune/seed-0/%00command.txt", "%ff.txt",
        "toy/finetune/seed-0/..%5c..%5csecret.txt", "toy/finetune/seed-0/.lock-1/owner.json", "toy/finetune/seed-0/.hidden.txt", "..;/secret.txt",
        "toy/finetune/seed-0/link.txt", "toy/finetune/seed-0/linked/secret.txt", "toy/finetune/seed-0/pipe.txt", "toy/finetune/seed-0/folder.txt",
        "toy/finetune/seed-0/weights.safetensors", "toy/finetune/seed-0/key.pem", "toy/finetune/seed-0/noname", "toy/notes.txt", "notes.txt", "",
        "toy/finetune/seed-0/", "toy/finetune/seed-0/nothing.txt", "toy/finetune/seed-0/command.txt/x.txt",
        "elsewhere/command.txt", "%252e%252e/secret.txt",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_runs(get: Reader, runs: Path, tmp_path: Path, path: str) -> None:
    run = runs / "toy/finetune/seed-0"
    outside = tmp_path / "outside"
    outside.mkdir()
    for place in (tmp_path / "secret.txt", outside / "secret.txt", runs / "notes.txt", runs / "toy/notes.txt", run / ".hidden.txt"):
        place.write_text("SECRET")
    for name in ("weights.safetensors", "key.pem", "noname"):
        (run / name).write_text("SECRET")
    (run / "link.txt").symlink_to(tmp_path / "secret.txt")
    (run / "linked").symlink_to(outside)
    (runs / "elsewhere").symlink_to(run)
    (run / "folder.txt").mkdir()
    os.mkfifo(run / "pipe.txt")
    status, _, data = get(f"/files/{path}")
    assert status == 404 and b"SECRET" not in data and str(tmp_path).encode() not in data


def test_long_addresses_are_nothing_at_once(get: Reader) -> None:
    started_s = time.monotonic()
    assert get("/files/" + "a/" * 1500 + "x.txt")[0] == 404
    assert time.monotonic() - started_s < 1
    assert get("/api/run?path=" + "a" * 300)[0] == get("/files/" + "a" * 300 + "/x.txt")[0] == 404


@pytest.mark.parametrize(
    "path", ["..", "../elsewhere", "toy/../toy/finetune/seed-0", "/etc", "toy//finetune/seed-0", "./toy/finetune/seed-0", "%00", "."]
)
def test_only_runs_below_the_folder_are_told_of(get: Reader, tmp_path: Path, path: str) -> None:
    write_run(tmp_path / "elsewhere")
    assert get(f"/api/run?path={path}")[0] == get(f"/api/comparison?path={path}&path=toy/finetune/seed-0")[0] == 404


def test_what_a_link_leads_to_is_not_told(get: Reader, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("SECRET")
    command = runs / "toy/finetune/seed-0/command.txt"
    command.unlink()
    command.symlink_to(tmp_path / "key")
    status, _, data = get("/api/run?path=toy/finetune/seed-0")
    assert status == 200 and b"SECRET" not in data and b"symbolic link" in data
    assert b"SECRET" not in get("/api/runs")[2]


@pytest.mark.parametrize(
    ("wanted", "status", "start", "stop"),
    [
        ("bytes=0-99", 206, 0, 100), ("bytes=900-", 206, 900, 1000), ("bytes=-10", 206, 990, 1000), ("bytes=990-5000", 206, 990, 1000),
        ("bytes=0-0", 206, 0, 1), ("bytes=-5000", 206, 0, 1000), ("bytes=1000-", 416, 0, 0), ("bytes=50-40", 416, 0, 0), ("bytes=-0", 416, 0, 0),
        ("bytes=0-1,5-9", 200, 0, 1000), ("bytes=-", 200, 0, 1000), ("pages=1-2", 200, 0, 1000), ("bytes=a-b", 200, 0, 1000),
    ],
)  # fmt: skip
def test_a_video_is_sent_in_parts(get: Reader, runs: Path, wanted: str, status: int, start: int, stop: int) -> None:
    film = bytes(number % 251 for number in range(1000))
    (runs / "toy/finetune/seed-0/videos").mkdir()
    (runs / "toy/finetune/seed-0/videos/grid.mp4").write_bytes(film)
    found, headers, data = get("/files/toy/finetune/seed-0/videos/grid.mp4", Range=wanted)
    assert (found, data) == (status, film[start:stop]) and headers["Content-Type"] == "video/mp4"
    assert headers.get("Content-Range") == {206: f"bytes {start}-{stop - 1}/1000", 416: "bytes */1000"}.get(status)


# In a browser --------------------------------------------------------------------------------------------------------------------

HOSTILE = "<script>document.title='broken'</script><img src=x onerror=alert(1)>"
QUIET = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run"


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=QUIET.split())
        yield opened
        opened.close()


@pytest.mark.slow
def test_in_a_browser_runs_are_listed_opened_compared_and_names_stay_text(browser: Any, runs: Path) -> None:
    odd = write_run(runs / "odd & <b>bold</b>" / "#1 100%", stages=("point-reach-0", HOSTILE), done=1)
    (odd / ".failure.json").write_text(json.dumps({"error": HOSTILE}))
    wrong: list[str] = []
    with serving(runs) as reader:
        tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text))
        tab.goto(f"http://127.0.0.1:{reader.port}/")
        tab.wait_for_selector(".run:nth-child(4)")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a phone would have to scroll sideways"
        assert tab.evaluate("document.querySelectorAll('#page script, #page img, #page b b').length") == 0
        tab.check("input[aria-label='compare toy/replay/seed-10']")
        tab.check("input[aria-label='compare toy/finetune/seed-0']")
        tab.click("#compare")
        tab.wait_for_selector("text=Success over stages")
        assert tab.locator("tbody tr").count() == 4 and tab.locator("svg polyline").count() == 2
        tab.go_back()
        tab.click("text=replay, seed 2")
        tab.wait_for_selector("td.own")  # of its own page: the list says of it too that it is stopped
        assert tab.locator("td.own").count() == 1 and "stopped, resumable" in tab.inner_text("#page")
        tab.goto(f"http://127.0.0.1:{reader.port}/#run/{quote(str(odd.relative_to(runs)), safe='')}")
        tab.wait_for_selector(".badge.failed")
        assert HOSTILE in tab.inner_text("#page") and tab.title().startswith("trust-region") and wrong == []
        tab.close()


@pytest.mark.slow
def test_in_a_browser_a_running_run_moves_by_itself_and_a_deleted_one_is_said(browser: Any, runs: Path) -> None:
    metrics = runs / "toy/replay/seed-2/metrics.jsonl"
    with serving(runs) as reader:
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{reader.port}/#run/toy%2Freplay%2Fseed-2")
        tab.wait_for_selector("#s-loss polyline")
        before = tab.get_attribute("#s-loss polyline", "points")
        tab.evaluate("document.getElementById('s-matrix').dataset.kept = 'yes'")
        with open(metrics, "a") as file:
            file.write('{"stage": 2, "update": 100, "loss": 0.5}\n')
        tab.wait_for_function("before => document.querySelector('#s-loss polyline').getAttribute('points') !== before", arg=before, timeout=8000)
        assert tab.evaluate("document.getElementById('s-matrix').dataset.kept") == "yes", "what has not changed was drawn again"
        shutil.rmtree(metrics.parent)
        tab.wait_for_selector("text=no longer there", timeout=8000)
        tab.close()
