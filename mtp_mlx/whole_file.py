"""Writing a file so that a reader sees the old text or the new one, whoever else writes."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Put a file in its place, and the folders above it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    finally:
        with suppress(FileNotFoundError):  # it has moved to its place
            os.unlink(name)
