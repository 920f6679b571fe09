"""API keys: from a file and from the environment, never from the command line, which others see."""

import hashlib
from pathlib import Path

from mtp_mlx.errors import RequestError

VARIABLE = "MTP_MLX_API_KEY"
LIMIT_BYTES = 64 << 10


def key_digests(file: Path | None, variable: str | None) -> tuple[str, ...]:
    """The SHA-256 of every key: those of the file, a line each, and of the environment's variable,
    separated by commas. Raises RequestError for a source that is given and holds no key."""
    keys: list[str] = []
    if file is not None:
        keys += _checked(_read(file).splitlines(), f"--api-key-file {file}")
    if variable is not None:
        keys += _checked(variable.split(","), VARIABLE)
    return tuple(hashlib.sha256(key.encode()).hexdigest() for key in dict.fromkeys(keys))


def _checked(parts: list[str], source: str) -> list[str]:
    """The keys among `parts`; one that no header can carry is refused, and never shown."""
    keys = [part.strip() for part in parts if part.strip()]
    if not keys:
        raise RequestError(f"{source} holds no key; write one, or leave it out", param="api_key")
    for number, key in enumerate(keys, start=1):
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise RequestError(
                f"{source}: key {number} holds a space or a character that a header cannot carry",
                param="api_key",
            )
    return keys


def _read(file: Path) -> str:
    try:
        if not file.is_file():
            raise RequestError(f"--api-key-file {file}: there is no such file", param="api_key")
        data = file.read_bytes()
    except OSError as error:
        raise RequestError(
            f"--api-key-file {file}: cannot be read: {error.strerror}", param="api_key"
        ) from error
    if len(data) > LIMIT_BYTES:
        raise RequestError(
            f"--api-key-file {file}: expected at most {LIMIT_BYTES:,} bytes", param="api_key"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"--api-key-file {file}: is not text: {error}", param="api_key"
        ) from error
