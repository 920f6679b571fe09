"""Typed, range-checked reading of one JSON object, with errors that name file and key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtp_mlx.errors import CheckpointError

_MISSING = object()
_SHOWN_BITS = 256
_SHOWN_CHARS = 120


def shown(value: object) -> str:
    """An untrusted value on one short line."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:  # Python refuses to print more
        return f"an integer of {value.bit_length()} bits"
    return _short(repr(value))


def shown_name(name: str) -> str:
    """An untrusted key or file name on one short line, without quotes."""
    return _short(repr(name)[1:-1])


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


@dataclass(frozen=True)
class Fields:
    """A JSON object read from `source` (a file name) under `prefix` (a dotted key)."""

    values: Mapping[str, Any]
    source: str
    prefix: str = ""

    def name(self, key: str) -> str:
        return f"{self.prefix}.{key}" if self.prefix else key

    def fail(self, key: str, expected: str, found: object) -> CheckpointError:
        """The error for a wrong value, ready to raise."""
        return CheckpointError(
            f"{self.source}: {self.name(key)} must be {expected}, found {shown(found)}"
        )

    def get(self, key: str, default: object = _MISSING) -> Any:
        value = self.values.get(key, default)
        if value is _MISSING:
            raise CheckpointError(f"{self.source}: {self.name(key)} is missing")
        return value

    def has(self, key: str) -> bool:
        """True when the key is present and not null."""
        return self.values.get(key) is not None

    def integer(self, key: str, low: int, high: int, default: object = _MISSING) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"an integer from {low} to {high}", value)
        return value

    def number(self, key: str, low: float, high: float, default: object = _MISSING) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"a number from {low:g} to {high:g}", value)
        if not low <= value <= high:  # also false for NaN
            raise self.fail(key, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def flag(self, key: str) -> bool:
        """A boolean; absent or null counts as false."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.fail(key, "true or false", value)
        return bool(value)

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.fail(key, "a string", value)
        return value

    def section(self, key: str) -> "Fields":
        """The object below `key`, which must be there."""
        value = self.get(key)
        if not isinstance(value, dict):
            raise self.fail(key, "an object", value)
        return Fields(value, self.source, self.name(shown_name(key)))

    def token_ids(self, key: str, vocab_size: int) -> tuple[int, ...]:
        """One id or a list of ids below `vocab_size`; absent or null is no id."""
        value = self.values.get(key)
        if value is None:
            return ()
        ids = value if isinstance(value, list) else [value]
        for token in ids:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab_size:
                raise self.fail(key, f"token ids from 0 to {vocab_size - 1}", token)
        return tuple(ids)
