"""Tables of a run folder as typed rows: CSV with the fields of a record, and JSON line by line.

A file may still be growing: a last line without its end is left out where it cannot be understood. Everything else that cannot be, or that is
larger than any run writes, is a `DamagedFile` that names the line and the fix. A file that is not there has no rows.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from reconverge.envs.bounded_file import KIB, MIB, read_bounded
from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_json import LONGEST_NUMBER, parse_json, whole_number

Row = TypeVar("Row")

LARGEST_TABLE = 64 * MIB
"""Of episodes.csv; the published budget over twenty stages writes 50 MB."""
MOST_LINES = 1_000_000
LONGEST_LINE = 64 * KIB


def read_table(path: Path, row_type: type[Row]) -> tuple[Row, ...]:
    """Rows of a CSV file whose header names the fields of `row_type` in any order; further columns are ignored."""
    lines = _lines(path)
    header = _header(path, lines)
    if not header:
        return ()
    missing = [name.name for name in fields(row_type) if name.name not in header]  # type: ignore[arg-type]
    if missing:
        raise damaged(path, f"its header lacks {', '.join(missing)}")
    rows, hints = [], get_type_hints(row_type)
    for number, line, being_written in lines:
        try:
            entries = dict(zip(header, _cells(line), strict=True))
            rows.append(row_type(**{name: _CONVERTERS[hint](entries[name]) for name, hint in hints.items()}))
        except ValueError as error:
            if not being_written:
                fits = f"does not fit the columns {','.join(header)[:300]} ({str(error)[:200]})"
                raise damaged(path, f"line {number} '{line[:200]}' {fits}") from error
    return tuple(rows)


def columns_of(row_type: type) -> tuple[str, ...]:
    """The header of a table of such rows."""
    return tuple(column.name for column in fields(row_type))


def read_json_lines(path: Path) -> tuple[dict[str, Any], ...]:
    """The objects of a file that holds one on every line."""
    records = []
    for number, line, being_written in _lines(path):
        try:
            records.append(dict(parse_json(line.encode(), path.name, LONGEST_LINE, unmeasured=True)))
        except (ValueError, TypeError, DamagedFile) as error:
            if not being_written:
                raise damaged(path, f"line {number} is not a JSON object") from error
    return tuple(records)


def read_data(path: Path, most_bytes: int) -> bytes:
    """The bytes of a file; none where there is no file. Raises DamagedFile for one of more than `most_bytes`."""
    try:
        return read_bounded(path, most_bytes)
    except FileNotFoundError:
        return b""
    except (OSError, DamagedFile) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, what: str) -> DamagedFile:
    """The error for a file of a run, with the way out."""
    return DamagedFile(f"{path} is damaged: {what}; restore it; tables are written anew by `reconverge train --resume` on the run")


def _header(path: Path, lines: Iterator[tuple[int, str, bool]]) -> list[str]:
    """The cells of the first line; none where there is no line."""
    try:
        return next((_cells(line) for _, line, _ in lines), [])
    except ValueError as error:
        raise damaged(path, f"its header cannot be read ({error})") from error


def _cells(line: str) -> list[str]:
    """Raises ValueError where the line is none of a CSV file."""
    try:
        return next(csv.reader(io.StringIO(line)), [])
    except csv.Error as error:  # which is no ValueError: a cell of more than 128 KiB, a carriage return in the middle
        raise ValueError(str(error)) from error


def _lines(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line number, line, whether it may still be in the middle of being written) of every line that is not empty."""
    data = read_data(path, LARGEST_TABLE)
    if data.count(b"\n") > MOST_LINES:
        raise damaged(path, f"it has more than {MOST_LINES} lines")
    for number, raw in enumerate(io.BytesIO(data), 1):
        if len(raw) > LONGEST_LINE:
            raise damaged(path, f"line {number} has {len(raw)} bytes")
        if raw.isspace():
            continue
        being_written = not raw.endswith(b"\n")
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            if being_written:
                return
            raise damaged(path, f"line {number} is not UTF-8") from error
        yield number, line, being_written


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"'{text}' is not 0 or 1")
    return text == "1"


def _figure(text: str) -> float:
    """NaN where nothing was measured; never infinite, as 1e400 would be."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"'{text[:LONGEST_NUMBER]}' is not a finite number")
    return value


_CONVERTERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: whole_number,
    float: _figure,
    bool: _flag,
    int | None: lambda text: whole_number(text) if text else None,
    float | None: lambda text: _figure(text) if text else None,
}
