"""The last result of `mtp-mlx verify` for a machine and a pair, kept beside their calibration.

A convenience for `mtp-mlx doctor`: whatever is wrong with a file, nothing is known.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mtp_mlx.calibration_file import LIMIT_BYTES, Key
from mtp_mlx.errors import CheckpointError
from mtp_mlx.files import read_json
from mtp_mlx.verdict import LEVELS, Level
from mtp_mlx.whole_file import write_whole


@dataclass(frozen=True)
class Kept:
    """What was shown over `cases` texts: a level, None for none; has_fault: texts parted."""

    level: Level | None
    cases: int
    has_fault: bool


def keep(folder: Path, key: Key, kept: Kept) -> None:
    """Keep a result in place of the one before. Raises OSError."""
    write_whole(_path(folder, key), json.dumps({"key": asdict(key), "shown": asdict(kept)}))


def last(folder: Path, key: Key) -> Kept | None:
    """The last result, None where none can be read."""
    path = _path(folder, key)
    try:
        values = read_json(path, LIMIT_BYTES)
    except CheckpointError:
        return None
    shown = values.get("shown")
    if values.get("key") != asdict(key) or not isinstance(shown, dict):
        return None
    cases, has_fault = shown.get("cases"), shown.get("has_fault")
    if type(cases) is not int or type(has_fault) is not bool:
        return None
    level = next((name for name in LEVELS if name == shown.get("level")), None)
    return Kept(level, cases, has_fault)


def _path(folder: Path, key: Key) -> Path:
    return folder / f"verify-{key.file_name}"
