"""JSON from a file that may be hostile: bounded in size, depth and number of values, with no key twice and no number that is none.

    {"a": 1, "a": 2}     refused: of a key given twice JSON would silently keep the last
    [[[[ ... ]]]]        refused beyond 64 levels
    1e400, 9999...9      refused: the first reads as infinity, the second takes quadratic time
    NaN, Infinity        refused, unless the caller expects figures that were not measured
    "\\u0000", "\\ud800"   refused: no file name and no terminal can take them
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconverge.envs.bounded_file import MIB, read_bounded
from reconverge.envs.errors import DamagedFile

LARGEST_TEXT = 4 * MIB
LARGEST_RECORD = 256 * MIB
"""A stage record; the 80,000 evaluated episodes of a late stage under the published budget take 21 MB."""
MOST_VALUES = 700_000
"""In `LARGEST_TEXT`; in proportion where more bytes are allowed."""
DEEPEST_NESTING = 64
LONGEST_NUMBER = 40


def read_json(path: Path, most_bytes: int = LARGEST_TEXT) -> Any:
    """The value in a JSON file. Raises OSError where it cannot be opened, DamagedFile for anything that `parse_json` refuses."""
    return parse_json(read_bounded(path, most_bytes), str(path), most_bytes)


def read_json_object(path: Path, most_bytes: int = LARGEST_TEXT) -> dict[str, Any]:
    """The same where an object is expected; raises as `read_json` does."""
    content = read_json(path, most_bytes)
    if not isinstance(content, dict):
        raise DamagedFile(f"{path} holds a {type(content).__name__}; a JSON object was expected, restore the file that was written")
    return content


def parse_json(data: bytes, place: str, most_bytes: int = LARGEST_TEXT, unmeasured: bool = False) -> Any:
    """The value of JSON in UTF-8; `place` says in messages where it was read. Raises DamagedFile, naming the place, for anything else.

    `unmeasured` accepts the NaN and Infinity that Python writes for figures without a value.
    """
    _check_bounds(data, place, most_bytes)
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_without_doubles, parse_int=whole_number, parse_float=_finite, parse_constant=_CONSTANTS[unmeasured]
        )
        _check_depth(value)
        _check_text(value, data)
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{place} is not UTF-8 text (byte {error.start}); restore the file that was written") from error
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{place} is not JSON that can be read ({str(error)[:200]}); restore the file that was written") from error
    return value


def _check_bounds(data: bytes, place: str, most_bytes: int) -> None:
    """Refuse, before anything is built, what would take far more memory than its text."""
    too_wide = len(data) > LARGEST_TEXT and not data.isascii()  # one rare letter makes every letter of a text four bytes wide
    too_many = data.count(b",") + data.count(b"[") + data.count(b"{") > MOST_VALUES * max(1, most_bytes // LARGEST_TEXT)
    if len(data) > most_bytes or too_wide or too_many:
        raise DamagedFile(f"{place} holds more than any file of its kind; restore the file that was written")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST_NESTING + 1):
        level = [inner for outer in level if isinstance(outer, (dict, list)) for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, (dict, list))]
        if not level:
            return
    raise ValueError(f"nested deeper than {DEEPEST_NESTING} levels")


def _check_text(value: Any, data: bytes) -> None:
    """Refuse half a surrogate pair and NUL, which only an escape can bring in."""
    if re.search(rb"(?<!\\)(?:\\\\)*\\u0000", data):  # after an even number of backslashes it is the escape
        raise ValueError("a NUL in a text")
    if b"\\ud" in data or b"\\uD" in data:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("half a surrogate pair in a text") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key '{next(key for key in found if keys.count(key) > 1)[:80]}' is given twice")
    return found


def whole_number(text: str) -> int:
    """Raises ValueError for what is none, or has more digits than any number here."""
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:LONGEST_NUMBER]} is too large")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} where a number was expected")


_CONSTANTS: dict[bool, Callable[[str], float]] = {False: _refuse_constant, True: float}
