"""What differs between two texts of one table, row by row and column by column, in words.

    found          expected
    stage,rate     stage,rate
    1,0.80         1,0.80
    2,0.84         2,0.82           row 2, column rate: found 0.84, expected 0.82
                   3,0.90           row 3 is missing: 3,0.90

Lines with which both begin, or end, are left out first: so a row that is missing in the middle is one finding.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_json import parse_json


def table_differences(found: str, expected: str, with_header: bool = True) -> list[str]:
    """What differs between two texts of a table, such as `row 3, column rate: found 0.84, expected 0.82`; rows count from 1 below the header."""
    here, there = found.splitlines(), expected.splitlines()
    if with_header and here[:1] != there[:1]:
        return [f"its columns are {(here or ['none'])[0]}, expected {(there or ['none'])[0]}"]
    before = _common(here, there)
    after = _common(here[before:][::-1], there[before:][::-1])
    own, wanted = here[before : len(here) - after], there[before : len(there) - after]
    start = before + (0 if with_header else 1)
    columns = next(csv.reader(here[:1]), []) if with_header else []
    words = [words for number, pair in enumerate(zip(own, wanted, strict=False), start) for words in _row_differences(number, *pair, columns)]
    words += [f"row {start + number} is one too many: {own[number]}" for number in range(len(wanted), len(own))]
    words += [f"row {start + number} is missing: {wanted[number]}" for number in range(len(own), len(wanted))]
    return words or ["the same values in other bytes"]


def _row_differences(number: int, found: str, expected: str, columns: Sequence[str]) -> list[str]:
    if not columns:
        return _object_differences(number, found, expected)
    here, there = next(csv.reader([found]), []), next(csv.reader([expected]), [])
    if not len(here) == len(there) == len(columns):
        return [f"row {number}: found {found}, expected {expected}"]
    return [f"row {number}, column {name}: found {a}, expected {b}" for name, a, b in zip(columns, here, there, strict=True) if a != b]


def _object_differences(number: int, found: str, expected: str) -> list[str]:
    """Of two lines of JSON."""
    try:
        here, there = (dict(parse_json(line.encode(), "metrics.jsonl", unmeasured=True)) for line in (found, expected))
    except (DamagedFile, ValueError, TypeError):
        return [f"row {number}: found {found[:200]}, expected {expected[:200]}"]
    return [f"row {number}, {key}: found {here.get(key)}, expected {there.get(key)}" for key in {**there, **here} if here.get(key) != there.get(key)]


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """How many lines both begin with."""
    return next((number for number, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), min(len(first), len(second)))
