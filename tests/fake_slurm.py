"""Stand-ins for sbatch, squeue, scancel, scontrol and sacct: each job is a process of this machine, what was asked is written down.

    FAKE_SLURM=FOLDER      FOLDER/1/ arguments  script  pid  restarts       a job       FOLDER/calls      one line per command

As in Slurm, `scontrol requeue` ends what is left of the attempt and starts the script again under the same number, and a signal to the batch
step reaches the script alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from command_process import alive

HOME = Path(os.environ.get("FAKE_SLURM", "."))


def install(folder: Path) -> None:
    """Put the commands into `folder`, to stand first on PATH."""
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol", "sacct"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        (folder / name).chmod(0o755)


def attempt(job: Path, restarts: int) -> None:
    """Run a job's script in the background, once the attempt before it is gone."""
    settings = {**os.environ, "SLURM_JOB_ID": job.name, "SLURM_RESTART_COUNT": str(restarts)}
    wait = f"while kill -0 {(job / 'pid').read_text()} 2>/dev/null; do sleep 0.1; done; " if restarts else ""
    words = ["bash", "-c", f'{wait}exec bash "$0"', (job / "script").read_text()]
    null = subprocess.DEVNULL
    process = subprocess.Popen(words, env=settings, stdin=null, stdout=null, stderr=null, start_new_session=True)
    (job / "pid").write_text(str(process.pid))
    (job / "restarts").write_text(str(restarts))


def runs(job: Path) -> bool:
    """Whether the job's process is alive."""
    return (job / "pid").exists() and alive((job / "pid").read_text())


def sbatch(*words: str) -> str:
    if "--partition=nowhere" in words:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    job = HOME / str(1 + sum(path.is_dir() for path in HOME.iterdir()))
    job.mkdir()
    (job / "arguments").write_text(json.dumps(words[:-1]))
    (job / "script").write_text(words[-1])
    attempt(job, 0)
    return job.name if "--parsable" in words else f"Submitted batch job {job.name}"


def squeue(*words: str) -> str:
    return "\n".join(job.name for job in HOME.iterdir() if job.is_dir() and runs(job))


def scancel(*words: str) -> str:
    job = HOME / words[-1]
    if "--state=PENDING" not in words and runs(job):
        os.kill(int((job / "pid").read_text()), signal.SIGTERM if "--signal=TERM" in words else signal.SIGKILL)
    return ""


def scontrol(action: str, number: str) -> str:
    assert action == "requeue"
    attempt(HOME / number, int((HOME / number / "restarts").read_text()) + 1)
    return ""


def sacct(*words: str) -> str:
    return "OUT_OF_MEMORY"


if __name__ == "__main__":
    with open(HOME / "calls", "a") as calls:
        print(*sys.argv[1:], file=calls)
    print(globals()[sys.argv[1]](*sys.argv[2:]))
