"""The file name of a task: whatever the task is called, its file lies in the folder that it was meant for, and no other task has it.

    hammer-v3                 hammer-v3                             names of built-in tasks stay as they are
    gym:my_module:Env/v0      gym%3Amy_module%3AEnv%2Fv0            a slash would lead into another folder
    ..                        %2E%2E                                and this one out of it
    CON, .hidden, é           %43ON, %2Ehidden, %C3%A9              names that some systems reserve, hide, or spell in two ways
    aaaa... (10,000 a)        aaaa...~1f3870be274f6c49...           cut, with a digest of all of it

Every byte but letters, digits, `_`, `-` and inner dots is written as `%` and two hexadecimal digits, so that `task_of_file` can undo it.
"""

from __future__ import annotations

import hashlib
import re

from reconverge.envs.errors import DamagedFile

LONGEST_NAME = 150
"""A file system takes 255 bytes; suffixes and the marks of a draft come on top."""
_KEPT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.ASCII | re.IGNORECASE)
_EMPTY = "%"


def task_file(name: str) -> str:
    """A safe file name, without a suffix, that belongs to the task called `name` and to no other."""
    data = name.encode("utf-8", "surrogatepass")
    ends = (0, len(data) - 1)
    letters = [_escaped(byte) if byte not in _KEPT or (byte == ord(".") and place in ends) else chr(byte) for place, byte in enumerate(data)]
    if _RESERVED.match(name):
        letters[0] = _escaped(data[0])
    whole = "".join(letters) or _EMPTY
    if len(whole) <= LONGEST_NAME:
        return whole
    digest = hashlib.sha256(data).hexdigest()[:32]
    return f"{whole[: LONGEST_NAME - len(digest) - 1]}~{digest}"


def task_of_file(stem: str) -> str:
    """The name of the task whose file is called `stem`, also where an earlier version left it as it was.

    Raises DamagedFile where the name was cut, or is none that `task_file` writes.
    """
    if "~" in stem:
        raise DamagedFile(f"'{stem}' belongs to a task whose name was too long for a file; give the task a shorter name")
    if stem == _EMPTY:
        return ""
    try:
        name = re.sub(rb"%([0-9A-F]{2})", lambda code: bytes([int(code[1], 16)]), stem.encode()).decode()
    except UnicodeError as error:
        raise DamagedFile(f"'{stem[:80]!a}' is no file name of a task; delete the file") from error
    if name not in (stem, "") and task_file(name) != stem:
        raise DamagedFile(f"'{stem[:80]}' is no file name of a task; delete the file")
    return name


def _escaped(byte: int) -> str:
    return f"%{byte:02X}"
