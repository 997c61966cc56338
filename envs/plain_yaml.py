"""YAML from a file that may be hostile: plain mappings, lists and scalars, and nothing else of what YAML can do.

    a: &a [x, x]          refused: anchors and aliases, of which ten lines can stand for a billion values
    !!python/name:...     refused, as is every other tag: a value is what it looks like
    a: 1                  refused: of a key given twice YAML would silently keep the last
    a: 2
    [[[[ ... ]]]]         refused beyond 16 levels, on the flat stream of events, before anything is built
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from reconverge.envs.bounded_file import KIB, read_bounded
from reconverge.envs.errors import DamagedFile

LARGEST_FILE = 128 * KIB
"""A configuration takes 3 KiB, a curriculum of a thousand stages 80."""
DEEPEST_NESTING = 16
MOST_EVENTS = 20_000
"""Values, and ends of lists; that curriculum has 8,000."""
LONGEST_NUMBER = 64

# libyaml's scanner is tens of times faster; both read the same.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, most_bytes: int = LARGEST_FILE) -> Any:
    """The value in a YAML file. Raises OSError where it cannot be opened, DamagedFile for anything that `parse_yaml` refuses."""
    return parse_yaml(read_bounded(path, most_bytes), str(path), most_bytes)


def parse_yaml(data: bytes, place: str, most_bytes: int = LARGEST_FILE) -> Any:
    """The value of YAML in UTF-8; `place` says in messages where it was read. Raises DamagedFile, naming the place, for anything else."""
    if len(data) > most_bytes:
        raise DamagedFile(f"{place} is larger than {most_bytes // KIB} KiB; shorten it")
    try:
        text = data.decode("utf-8")
        _check_events(text)
        return yaml.load(text, _PlainLoader)
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{place} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise DamagedFile(f"{place} is not valid YAML: {' '.join(str(error).split())[:300]}") from error


def _check_events(text: str) -> None:
    """Refuse deep nesting, anchors, aliases and tags before anything is built."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, _Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if number > MOST_EVENTS:
            raise yaml.YAMLError(f"more than {MOST_EVENTS} values")
        if depth > DEEPEST_NESTING:
            raise yaml.YAMLError(f"nesting beyond {DEEPEST_NESTING} levels is not accepted{_line(event)}")
        if getattr(event, "anchor", None) is not None:  # of an alias, the anchor that it stands for
            raise yaml.YAMLError(f"aliases and anchors are not accepted{_line(event)}")
        if (tag := getattr(event, "tag", None)) is not None:
            raise yaml.YAMLError(f"tags such as '{tag[:60]}' are not accepted{_line(event)}")


def _line(event: yaml.Event) -> str:
    return f", line {event.start_mark.line + 1}" if event.start_mark else ""


class _PlainLoader(_Loader):
    """SafeLoader that refuses double and merged keys, endless numbers, and text that no file name and no terminal can take."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f"a key must be plain text, line {key.start_mark.line + 1}")
            if key.value in seen:
                raise yaml.YAMLError(f"key '{key.value[:80]}' is given twice, line {key.start_mark.line + 1}")
            seen.add(key.value)
        content: dict[Any, Any] = super().construct_mapping(node, deep)
        return content

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError("a value was expected")
        text = str(node.value)
        if node.tag != "tag:yaml.org,2002:str" and len(text) > LONGEST_NUMBER:
            raise ValueError(f"a number of {len(text)} characters")
        if "\0" in text or not _encodable(text):
            raise ValueError("a text that holds a NUL or half a surrogate pair")
        return super().construct_scalar(node)


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
