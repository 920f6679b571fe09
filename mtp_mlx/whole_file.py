"""Writing a file so that a reader sees the old text or the new one, whoever else writes.

It is written beside its place and then moved there.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

NEW = ".new-"  # begins the name of a file on the way to its place
OPEN = 0o666  # less what the user's mask takes away
TOKEN_BYTES = 8


def write_whole(path: Path, text: str, mode: int | None = None) -> None:
    """Put a file in its place, and the folders above it. Raises OSError.

    mode: its permissions; None: those of the file before, or as the user's mask has them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{NEW}{secrets.token_hex(TOKEN_BYTES)}{path.suffix}")
    number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OPEN if mode is None else mode)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            if mode is None:
                with suppress(FileNotFoundError):
                    os.fchmod(number, stat.S_IMODE(path.stat().st_mode))
            file.write(text)
            file.flush()
            os.fsync(number)
        os.replace(new, path)
    finally:
        with suppress(FileNotFoundError):  # it has moved to its place
            os.unlink(new)
