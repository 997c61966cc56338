"""Reading a file that somebody else may have put there: never more than it may hold, never waiting for anybody.

    config.yaml -> /dev/zero      refused: no regular file        a named pipe      refused at once, not waited for
    metrics.jsonl of 40 GB        refused by its size, unread     a folder          refused
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reconverge.envs.errors import DamagedFile

KIB, MIB = 1024, 1024 * 1024


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file of at most `most_bytes`.

    Raises OSError where it cannot be opened (FileNotFoundError where it is not there), DamagedFile where it is no regular file or larger.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer that may never come.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the name
        raise DamagedFile(f"{str(path)!r} is no possible file name; correct it") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise DamagedFile(f"{path} is not a regular file; put the file itself there")
    with open(handle, "rb") as file:
        if found.st_size > most_bytes:
            raise DamagedFile(f"{path} is larger than {_size_in_words(most_bytes)}; nothing was read, restore the file that was written")
        return file.read(found.st_size)  # what is appended meanwhile, as to the log of a run, is for who reads next


def _size_in_words(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
