"""A sweep on a Ray cluster of two nodes of this machine: the same bits as without, also when workers and nodes die."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_process import finished, start_command, wait_for
from folder_contents import contents
from run_files import differing_tables
from toy_sweep import TOY

from reconverge.envs.errors import BackendUnavailable, ConfigError
from reconverge.launch import ray_backend
from reconverge.launch.backend import Need, Order
from reconverge.launch.cli import main
from reconverge.launch.ray_backend import NOT_SHARED, Errand, RayBackend, RayJob, run_errand

# without a cluster -----------------------------------------------------------------------------------------------------------------


class Nodes:
    """Stands for ray where only the nodes are asked for."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self._nodes = [{"Alive": True, "Resources": found} for found in resources] + [{"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}]

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes


def test_as_many_jobs_run_at_once_as_the_nodes_hold() -> None:
    backend = RayBackend(Nodes({"CPU": 8, "GPU": 2}, {"CPU": 3}), None, None)
    assert backend.room([Need(1, 0)]) == 11
    assert backend.room([Need(2, 0)]) == 5  # 4 and 1: a job does not span nodes
    assert backend.room([Need(1, 0.25)]) == 8
    assert backend.room([Need(1, 0.1)]) == 8
    assert backend.room([Need(1, 0), Need(4, 1)]) == 2
    assert backend.need(2, "cuda") == Need(2, 1) and backend.need(2, "cpu") == Need(2, 0)


def test_what_no_node_can_ever_give_is_refused_with_what_there_is() -> None:
    backend = RayBackend(Nodes({"CPU": 8}, {"CPU": 2}), None, 2)
    hint = "asks for 1 CPU and 2 GPUs, and no node .* of its 2 nodes the largest have 8 CPUs and 0 GPUs; 2 CPUs and 0 GPUs"
    with pytest.raises(BackendUnavailable, match=hint):
        backend.room([backend.need(1, "cuda")])
    with pytest.raises(BackendUnavailable, match="no node"):
        RayBackend(Nodes({"CPU": 8}, {"CPU": 8}), None, None).room([Need(16, 0)])


@pytest.mark.parametrize("address", ["", "10.0.0.1", "ray://10.0.0.1:10001", "a b:1", "host:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="give auto, local or HOST:PORT"):
        ray_backend._resolved(address)


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", *TOY.split(), "--backend", "ray"]) == 2
    assert "pip install -e '.[ray]'" in capsys.readouterr().err


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_errand(Errand(("-c", "1"), str(tmp_path / "elsewhere"), "a.yaml", "log")) == NOT_SHARED
    assert run_errand(Errand(("-c", "1"), str(tmp_path), "a.yaml", "log")) == NOT_SHARED
    monkeypatch.chdir(tmp_path)

    class Answers:
        exceptions = type("exceptions", (), {"TaskCancelledError": KeyError, "RayError": ValueError})

        def wait(self, answers: list[int], timeout: float) -> tuple[list[int], list[int]]:
            return answers, []

        def get(self, answer: int) -> int:
            return answer

    job = RayJob(Answers(), NOT_SHARED, Order(Path("a.yaml"), Path("b.yaml"), Path("run"), Path("run.log"), ""))
    assert job.exit_code() == 2
    assert Path("run.log").read_text().startswith(f"reconverge: a node of the Ray cluster does not see {tmp_path / 'a.yaml'}; start the command")


def test_an_errand_is_the_job_with_its_log_and_code(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    assert run_errand(Errand(("-c", "print('said'); raise SystemExit(3)"), str(tmp_path), "a.yaml", "logs/log")) == 3
    assert (tmp_path / "logs/log").read_text() == "said\n"


# on a cluster ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a processor each, on this machine, without dashboard or usage statistics."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's 15 starves them where other work runs beside the tests
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    nodes = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    nodes.second = nodes.add_node(**small)
    yield nodes
    nodes.shutdown()
    for number, handler in earlier.items():
        signal.signal(number, handler)


def sweep(folder: Path, words: str) -> subprocess.Popen[str]:
    return reconverge(folder, f"sweep {TOY} {words}")


def reconverge(folder: Path, words: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return start_command([sys.executable, "-m", "reconverge.launch", *words.split()], folder)


def rows(run: Path) -> int:
    return (run / "metrics.jsonl").read_bytes().count(b"\n") if (run / "metrics.jsonl").exists() else 0


def job_process(run: Path) -> int:
    """The process that holds the folder."""
    return int(json.loads(next(run.glob(".lock-*/owner.json")).read_text())["pid"])


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
def test_two_nodes_give_the_tables_of_one_machine_also_when_workers_and_nodes_die(cluster: Any, tmp_path: Path) -> None:
    """In one test, because a cluster takes ten seconds to start."""
    words, there = "--methods replay --seeds 0..1 --train.updates 150 --train.log-every 1", Path("runs/sweep/smoke-point-reach-2/replay")
    finished(sweep(tmp_path / "local", words))
    process = sweep(tmp_path / "ray", f"{words} --backend ray --ray-address {cluster.address}")
    first, second = (tmp_path / "ray" / there / f"seed-{seed}" for seed in (0, 1))

    # the worker of the first job is killed
    wait_for(lambda: rows(first) > 20)
    os.kill(parent(job_process(first)), signal.SIGKILL)
    # one node goes; whichever job was there is started again on the other
    wait_for(lambda: rows(second) > 20)
    cluster.remove_node(cluster.second, allow_graceful=False)
    said = finished(process)
    assert "2/2 ended" in said

    logs = [run.with_name(f"{run.name}.log").read_text() for run in (first, second)]
    assert re.search(r"resumed after stage 0 of 2, at update \d+ of stage 1", logs[0]) and sum(log.count("resumed") for log in logs) >= 2
    for run in (first, second):
        assert differing_tables(run, tmp_path / "local" / there / run.name) == []
    before = {path: path.stat().st_mtime_ns for run in (first, second) for path in run.rglob("*")}
    assert "2 of 2" in finished(sweep(tmp_path / "ray", f"{words} --backend ray --ray-address 127.0.0.1:1"))  # nothing to run: nobody is asked
    assert {path: path.stat().st_mtime_ns for run in (first, second) for path in run.rglob("*")} == before


@pytest.mark.slow
def test_two_nodes_collect_the_bytes_of_one_machine_also_when_a_node_dies(cluster: Any, tmp_path: Path) -> None:
    words = "point-reach:2 --episodes 80 --workers 0"
    table = finished(reconverge(tmp_path, f"collect {words} --folder local --quiet"))
    process = reconverge(tmp_path, f"collect {words} --folder ray --quiet --backend ray --ray-address {cluster.address}")

    # one node goes while each makes a batch
    made = lambda: list((tmp_path / "ray").glob("*.partial/batch-????"))  # noqa: E731
    wait_for(lambda: len(made()) >= 2 and len(list((tmp_path / "ray").glob("*.partial/*.log"))) == 2)
    before = {path: path.stat().st_mtime_ns for path in made()}
    cluster.remove_node(cluster.second, allow_graceful=False)
    wait_for(lambda: len(made()) > len(before))
    assert {path: path.stat().st_mtime_ns for path in before if path.exists()} == before, "what was made was made again"
    assert table in finished(process)  # Ray, too, has something to say about the node
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    # nothing to make: nobody is asked
    assert finished(reconverge(tmp_path, f"collect {words} --folder ray --quiet --backend ray --ray-address 127.0.0.1:1")) == table


@pytest.mark.slow
def test_two_nodes_evaluate_to_the_table_of_one_machine_and_go_on_where_they_were_stopped(cluster: Any, tmp_path: Path) -> None:
    finished(sweep(tmp_path, "--methods finetune --train.updates 150"))
    words = "evaluate runs/sweep/smoke-point-reach-2/finetune/seed-0 --quiet --sampling-steps 1 5 --episodes 20"
    table = finished(reconverge(tmp_path, f"{words} --output local.csv"))

    on_ray = f"{words} --output ray.csv --backend ray --ray-address"
    process = reconverge(tmp_path, f"{on_ray} {cluster.address}")
    kept = lambda: {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/evaluations").glob("*.json")}  # noqa: E731
    wait_for(lambda: len(kept()) >= 1, limit_s=240)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    before = kept()
    assert 1 <= len(before) < 4

    assert finished(reconverge(tmp_path, f"{on_ray} {cluster.address}")) == table
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
    assert len(kept()) == 4 and before.items() <= kept().items()
    assert finished(reconverge(tmp_path, f"{on_ray} 127.0.0.1:1")) == table  # all is there: nobody is asked


@pytest.mark.slow
def test_ctrl_c_saves_what_runs_and_withdraws_what_waits(cluster: Any, tmp_path: Path) -> None:
    process = sweep(tmp_path, f"--methods finetune --seeds 0..2 --train.updates 30000 --jobs 3 --backend ray --ray-address {cluster.address}")
    runs = [tmp_path / "runs/sweep/smoke-point-reach-2/finetune" / f"seed-{seed}" for seed in range(3)]
    wait_for(lambda: sum((run / "metrics.jsonl").exists() for run in runs) == 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "go on with the same command" in said
    assert sorted(run.is_dir() for run in runs) == [False, True, True]
    assert [list(run.glob(".lock-*")) for run in runs] == [[]] * 3


@pytest.mark.slow
def test_a_cluster_that_cannot_be_is_refused(cluster: Any, tmp_path: Path) -> None:
    for words, hint in (
        (f"--ray-address {cluster.address} --gpus-per-job 2", "asks for 1 CPU and 2 GPUs, and no node of the Ray cluster has that"),
        (f"--ray-address {cluster.address} --cpus-per-job 2", "of its 2 nodes the largest have 1 CPU and 0 GPUs"),
    ):
        process = sweep(tmp_path, f"--backend ray {words}")
        _, said = process.communicate(timeout=120)
        assert process.returncode == 2 and hint in said and "Traceback" not in said


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_named_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_backend, "CONNECT_S", 4.0)
    begun_s = time.monotonic()
    with pytest.raises(BackendUnavailable, match=r"no Ray cluster at 127.0.0.1:9 \(no answer within 4 s\)"), ray_backend.connected("127.0.0.1:9"):
        pass
    assert time.monotonic() - begun_s < 20
