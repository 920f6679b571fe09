"""The pairs that come with the package: `tiny` and `tiny-moe`, each with its drafter.

They are ordinary checkpoint folders, NAME and NAME-assistant, in this one. `sha256.json` pins every
file, so that a damaged installation says so instead of writing nonsense. `training/` makes them.
"""

import hashlib
from pathlib import Path

from mtp_mlx.errors import CheckpointError
from mtp_mlx.files import read_json
from mtp_mlx.pair_names import DRAFTER_SUFFIX

NAMES = ("tiny", "tiny-moe")
FOLDERS = tuple(f"{name}{suffix}" for name in NAMES for suffix in ("", DRAFTER_SUFFIX))
HERE = Path(__file__).resolve().parent
PINS = HERE / "sha256.json"
REMEDY = "install mtp-mlx again"


def embedded_folder(name: str) -> Path:
    """The folder of an embedded target or drafter (NAME-assistant), all files of the pair checked.

    Raises CheckpointError naming a file that is missing or not the one that was published.
    """
    pair = name.removesuffix(DRAFTER_SUFFIX)
    parts = (pair, f"{pair}{DRAFTER_SUFFIX}")
    for file, digest in _pins(parts).items():
        if file_digest(HERE / file) != digest:
            raise CheckpointError(f"{HERE / file}: the embedded file is damaged; {REMEDY}")
    return HERE / name


def name_of(folder: Path) -> str:
    """What a user calls the checkpoint in `folder`: an embedded one's name, else its path."""
    spelled = str(folder)
    real = folder.resolve()
    if real.parent == HERE.resolve() and real.name in FOLDERS:
        return real.name
    return f"./{spelled}" if spelled in FOLDERS else spelled


def _pins(parts: tuple[str, ...]) -> dict[str, str]:
    """The pinned files of these folders, each of which must have some."""
    try:
        pins = {file: digest for file, digest in read_json(PINS).items() if _part(file) in parts}
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {REMEDY}") from error
    if {_part(file) for file in pins} != set(parts):
        raise CheckpointError(f"{PINS}: pins no files of {' or '.join(parts)}; {REMEDY}")
    return pins


def _part(file: str) -> str:
    return file.split("/")[0]


def file_digest(path: Path) -> str:
    """sha256 of a file. Raises CheckpointError where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from error
