"""One job in a process of its own: `python -m reconverge.launch.job_process CONFIG.yaml CURRICULUM.yaml FOLDER COMMAND [--overwrite] [--wait]`.

The job comes as files, so nothing is lost on the way. A folder that holds a part of the run is gone on with. Hours may lie between the
plan of a sweep and this process, so what is there now is compared with the job before anything is done. On a cluster a job may be started
again while the attempt before it still holds the folder; with `--wait` it waits for that one to be gone.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.errors import RunFolderError
from reconverge.launch.backend import WAIT
from reconverge.launch.cli import guarded
from reconverge.launch.commands import Train
from reconverge.launch.config_file import flat, read_config
from reconverge.launch.job import Job, difference_in_words, look
from reconverge.launch.job_plan import with_settings
from reconverge.launch.run_folder import FREE_ON_RESUME, RunFolder
from reconverge.launch.run_lock import wait_until_free
from reconverge.launch.stop_request import leave


def main(words: Sequence[str]) -> int:
    """Run the job and return its exit code, which means what it means for `reconverge train`."""
    config_file, curriculum_file, folder, command = words[:4]

    def work() -> int:
        job = Job(read_config(Path(config_file)), load_curriculum(curriculum_file), command=command)
        if WAIT in words[4:]:
            wait_until_free(Path(folder))
        return run_job(job, Path(folder), "--overwrite" in words[4:])

    return guarded(work)


def run_job(job: Job, folder: Path, overwrite: bool = False) -> int:
    """Train in `folder`, or go on there; what is done already stays. `overwrite` deletes another run, never this job's own.

    Raises RunFolderError when the folder cannot be used, or the curriculum's file no longer says what the job was planned with.
    """
    held = look(folder, job)
    if held.state == "result":
        return 0
    if held.state == "part":
        free = {key: value for key, value in flat(job.config).items() if key in FREE_ON_RESUME}
        return Train(resume=folder, config=with_settings(RunFolder.open(folder).config, free, str(folder))).run(job.command)
    if held.state in ("foreign", "unreadable") or (held.state == "other" and not overwrite):
        raise RunFolderError(f"{folder} holds something else than this job: {held.reason}")
    changed = difference_in_words(job.content, Job(job.config, load_curriculum(job.config.curriculum)).content)
    if changed:
        raise RunFolderError(f"curriculum {job.config.curriculum} has changed since the sweep began: {changed}; start the sweep again")
    return Train(output_dir=folder, overwrite=held.state == "other", config=job.config).run(job.command)


def end_with_parent() -> None:
    """Have this process interrupted when the command that started it dies, which closes its end of the pipe on standard input."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    leave(main(sys.argv[1:]))
