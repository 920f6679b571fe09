"""The text of config.toml: which line sets a key, and the same text with a key set anew."""

import json
import re
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from mtp_mlx.errors import RequestError
from mtp_mlx.whole_file import write_whole

_HEADER = re.compile(r"\s*\[[^\[].*\]\s*(#.*)?")
_KEY = re.compile(r"""\s*([A-Za-z0-9_."' -]+?)\s*=""")


def _path_of(spelled: str) -> tuple[str, ...]:
    """The keys that a header or the left side of a line names; empty for what is neither."""
    try:
        table = tomllib.loads(spelled)
    except tomllib.TOMLDecodeError:
        return ()
    keys = []
    while isinstance(table, dict) and table:
        key = next(iter(table))
        keys.append(key)
        table = table[key]
    return tuple(keys)


def _lines(text: str) -> list[tuple[str, ...]]:
    """What each line sets or opens, as the whole path of keys."""
    found, section = [], ()
    for line in text.splitlines():
        key = _KEY.match(line)
        if _HEADER.fullmatch(line):
            section = _path_of(line)
            found.append(section)
        else:
            found.append((*section, *_path_of(f"{key[1]} = 0")) if key else ())
    return found


def line_of(text: str, keys: tuple[str, ...]) -> int | None:
    """The number of the line that sets `keys`, or opens that section; None where none is found."""
    for number, path in enumerate(_lines(text), start=1):
        if path[: len(keys)] == keys:
            return number
    return None


def with_value(text: str, keys: tuple[str, ...], value: Any) -> str:
    """The text of a file with one key set, all else as it was. Raises RequestError where the file
    is spelled in a way that this cannot edit."""
    line = f"{_spell_key(keys[-1])} = {_spell_value(value)}"
    lines, paths = text.splitlines(), _lines(text)
    expected = tomllib.loads(text)
    place = expected
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    if keys in paths:
        lines[paths.index(keys)] = line
    elif keys[:-1] in paths:
        lines.insert(paths.index(keys[:-1]) + 1, line)
    else:
        header = f"[{'.'.join(_spell_key(key) for key in keys[:-1])}]"
        lines += [*([""] if lines else []), header, line]
    written = "\n".join(lines) + "\n"
    with suppress(tomllib.TOMLDecodeError):
        if tomllib.loads(written) == expected:
            return written
    raise RequestError(f"{'.'.join(keys)}: edit the file by hand: {line}", param="key")


def _spell_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _spell_value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write_settings(path: Path, text: str) -> None:
    """Put the file in its place whole; what it links to, where it is a link. Raises OSError."""
    path = path.resolve()
    write_whole(path, text)
