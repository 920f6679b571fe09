"""Calibrations kept between runs: a small JSON file for each machine and pair of models.

The files lie in the user's cache folder and are a convenience: whatever is wrong with one, it is
ignored with a reason and measured anew. A reader sees the old or the new one and never half of one,
whoever else writes.

`MTP_MLX_CALIBRATION=off` neither measures, reads nor writes.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mtp_mlx.engine.policy import Calibration
from mtp_mlx.errors import CheckpointError, RequestError
from mtp_mlx.fields import shown
from mtp_mlx.files import read_json
from mtp_mlx.whole_file import NEW, write_whole

VARIABLE = "MTP_MLX_CALIBRATION"
# Of the form of the files and of the way their figures are measured.
SCHEMA = 2
LIMIT_BYTES = 1 << 20
STALE_S = 60.0  # a writer needs no such time: one that left a file so old was killed
SAMPLES, SAMPLE_BYTES = 8, 4096  # blocks of a weight file that its digest reads, beside its header
HEADER_BYTES = 8  # the little-endian length of the header that opens a safetensors file
NAME_DIGITS = 32
NO_HOME = "this user has no home folder, and no cache folder (XDG_CACHE_HOME) is set"


@dataclass(frozen=True)
class Key:
    """What a calibration depends on. `mlx` and `mtp_mlx` are versions, `target` and `drafter`
    digests of their checkpoints."""

    chip: str
    system: str
    device: str
    mlx: str
    mtp_mlx: str
    dtype: str
    target: str
    drafter: str
    quantization: str
    k_max: int

    @property
    def file_name(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:NAME_DIGITS]}.json"


@dataclass(frozen=True)
class Found:
    """What is kept under a key: a calibration, or the reason why it is of no use; no reason where
    nothing is kept."""

    calibration: Calibration | None
    reason: str = ""


def is_on() -> bool:
    """May this process measure, read and write calibrations? Raises RequestError for a value of
    MTP_MLX_CALIBRATION that means nothing."""
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "on", "off"):
        raise RequestError(f"{VARIABLE} must be on or off, found {shown(value)}", param=VARIABLE)
    return value != "off"


def cache_folder() -> Path:
    """Where the files lie: below the user's cache folder, as the platform has it. Raises OSError
    for a user who has none, for want of a home folder."""
    from platformdirs import user_cache_path

    try:
        folder = user_cache_path("mtp-mlx", appauthor=False)
    except RuntimeError as error:
        raise OSError(NO_HOME) from error
    if not folder.is_absolute():  # "~", as older versions of platformdirs leave it
        raise OSError(NO_HOME)
    return folder / "calibration"


def read(folder: Path, key: Key, num_tokens: int) -> Found:
    """The calibration kept under `key`, if its curve reaches forwards of `num_tokens`. Never raises
    for what the file holds or for a folder that cannot be read."""
    path = folder / key.file_name
    with suppress(OSError):
        if not path.exists():
            return Found(None)
    try:
        values = read_json(path, LIMIT_BYTES)
        return _parse(values, key, num_tokens)
    except CheckpointError as error:
        return Found(None, str(error))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return Found(None, f"{path.name} is damaged: {shown(error)}")


def write(folder: Path, key: Key, calibration: Calibration) -> Path:
    """Keep a calibration in place of the one before; the file. Raises OSError."""
    _sweep(folder)
    path = folder / key.file_name
    body = {"schema": SCHEMA, "key": asdict(key), "calibration": calibration.to_json()}
    write_whole(path, json.dumps(body, indent=1))
    return path


def checkpoint_digest(config: Path, weights: Iterable[Path]) -> str:
    """A digest of a checkpoint that reads little of it, for its weights may have many gigabytes.

    It covers config.json and, of every weight file, the size, the safetensors header (names, types,
    shapes and places of the tensors) and nine blocks of 4 KiB from begin to end. Weights that
    differ elsewhere only share a digest: they take the same time. Raises OSError.
    """
    digest = hashlib.sha256(config.read_bytes())
    for path in sorted(weights):
        size = path.stat().st_size
        digest.update(f"\n{path.name} {size}\n".encode())
        with path.open("rb") as file:
            prefix = file.read(HEADER_BYTES)
            digest.update(prefix)
            digest.update(file.read(min(int.from_bytes(prefix, "little"), size)))
            for index in range(SAMPLES):
                file.seek(size * index // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
            file.seek(max(size - SAMPLE_BYTES, 0))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed have left; nothing that fails here matters."""
    for path in folder.glob(f"{NEW}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


def _parse(values: dict, key: Key, num_tokens: int) -> Found:
    """What a file's values say. KeyError, TypeError, ValueError, OverflowError: it is damaged."""
    if values.get("schema") != SCHEMA:
        found = shown(values.get("schema"))
        return Found(None, f"it has schema {found}, and this version writes {SCHEMA}")
    if values.get("key") != asdict(key):
        return Found(None, "it is of another machine or pair")
    calibration = Calibration.from_json(values["calibration"])
    if _spell(calibration.to_json()) != _spell(values["calibration"]):  # such as "4" for 4
        raise ValueError("its figures are not spelled as they are written")
    reach = calibration.verify[-1][0]
    if reach < num_tokens:
        return Found(None, f"it ends at {reach} tokens, and {num_tokens} are wanted")
    return Found(calibration)


def _spell(values: dict) -> str:
    return json.dumps(values, sort_keys=True)
