"""One job in a process of its own: `python -m reconverge.launch.job_process CONFIG.yaml FOLDER COMMAND [--overwrite]`.

The configuration comes as a file, so nothing is lost on the way. A folder that holds a part of the run is gone on with.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from reconverge.launch.cli import guarded
from reconverge.launch.commands import Train
from reconverge.launch.config import RunConfig
from reconverge.launch.config_file import flat, read_config
from reconverge.launch.job_plan import with_settings
from reconverge.launch.run_folder import FREE_ON_RESUME, RunFolder, holds_run


def main(words: Sequence[str]) -> int:
    """Run the job and return its exit code, which means what it means for `reconverge train`."""
    config_file, folder, command = words[:3]
    return guarded(lambda: run_job(read_config(Path(config_file)), Path(folder), command, "--overwrite" in words[3:]))


def run_job(config: RunConfig, folder: Path, command: str, overwrite: bool = False) -> int:
    """Train in `folder`, or go on there. Raises RunFolderError when the folder cannot be used."""
    if holds_run(folder) and not overwrite:
        free = {key: value for key, value in flat(config).items() if key in FREE_ON_RESUME}
        return Train(resume=folder, config=with_settings(RunFolder.open(folder).config, free, str(folder))).run(command)
    return Train(output_dir=folder, overwrite=overwrite, config=config).run(command)


def end_with_parent() -> None:
    """Have this process interrupted when the sweep that started it dies, which closes its end of the pipe on standard input."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
