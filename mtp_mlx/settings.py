"""The user's settings: config.toml, read with tomllib and checked key by key.

A key that no command honours is an error that names its line and the nearest key. Flags and
MTP_MLX_* variables come before the file, a checkpoint's generation_config after it.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown
from mtp_mlx.loading import MAX_NUM_SEQS
from mtp_mlx.machine import MOST_BYTES, limit_bytes
from mtp_mlx.request import MAX_PENALTY, MAX_REPETITION, MAX_SEED
from mtp_mlx.settings_text import line_of

FILE_NAME = "config.toml"
LIMIT_BYTES = 1 << 20
MODELS = "models"
MOST = 1 << 30
MAX_PORT = (1 << 16) - 1
LIKENESS = 0.5  # of a key that may have been meant
NO_HOME = "this user has no home folder, and no config folder (XDG_CONFIG_HOME) is set"

# What a value must be, in words; None where it is that.
Check = Callable[[object], str | None]


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value else "a text"


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _limit(value: object) -> str | None:
    if isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(RequestError):
            limit_bytes(value, MOST_BYTES)
            return None
    return "a size such as '12GB' or a share such as '70%'"


def _integer(low: int, high: int) -> Check:
    def check(value: object) -> str | None:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return None if is_integer and low <= value <= high else f"an integer from {low} to {high}"

    return check


def _number(low: float, high: float) -> Check:
    def check(value: object) -> str | None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if is_number and low <= value <= high else f"a number from {low:g} to {high:g}"

    return check


# section -> key -> what it must be. Keys are the names of the commands' options.
KEYS: dict[str, dict[str, Check]] = {
    "defaults": {
        "model": _text,
        "draft_model": _text,
        "memory_limit": _limit,
        "max_num_seqs": _integer(1, MAX_NUM_SEQS),
        "host": _text,
        "port": _integer(0, MAX_PORT),
        "api_key_file": _text,
    },
    "sampling": {
        "temperature": _number(0.0, 1e4),
        "top_k": _integer(0, MOST),
        "top_p": _number(1e-6, 1.0),
        "min_p": _number(0.0, 1.0),
        "seed": _integer(0, MAX_SEED),
        "max_tokens": _integer(1, MOST),
        "repetition_penalty": _number(1e-6, MAX_REPETITION),
        "presence_penalty": _number(-MAX_PENALTY, MAX_PENALTY),
        "frequency_penalty": _number(-MAX_PENALTY, MAX_PENALTY),
    },
    "ui": {"color_drafts": _flag},
}
MODEL_KEYS: dict[str, Check] = {"path": _text, "alias": _text, "draft": _text}
# What the sections' keys are called on the command line, where that is another name.
FLAGS = {"temperature": "temp"}


@dataclass(frozen=True)
class Model:
    """A model of the user's own naming: a path or another name, and its drafter if it has one."""

    target: str
    draft: str | None


@dataclass(frozen=True)
class Settings:
    """What the file says, by section and key; nothing where there is none."""

    path: Path | None = None
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Every value by the name of the option that it is for."""
        return {key: value for section in self.values.values() for key, value in section.items()}


def config_path() -> Path:
    """Where the file lies unless the user says otherwise. Raises RequestError for a user without a
    home folder."""
    from platformdirs import user_config_path

    try:
        folder = user_config_path("mtp-mlx", appauthor=False)
    except RuntimeError as error:
        raise RequestError(f"{NO_HOME}; give --config FILE", param="config") from error
    if not folder.is_absolute():  # "~", as older versions of platformdirs leave it
        raise RequestError(f"{NO_HOME}; give --config FILE", param="config")
    return folder / FILE_NAME


def read_settings(path: Path | None) -> Settings:
    """The settings in `path`, which must be there; None: in the usual place, if any are there. A
    user without a home folder, or with one that may not be entered, has none.

    Raises RequestError naming file, line and key.
    """
    if path is None:
        try:
            path = config_path()
        except RequestError:
            return Settings()
        if not os.path.exists(path):  # Path.exists raises where a folder may not be entered
            return Settings(path)
    return parse_settings(_read(path), path)


def parse_settings(text: str, path: Path) -> Settings:
    """The settings that `text`, read from `path`, spells."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also an integer that Python will not read
        raise RequestError(
            f"{path}: not valid TOML: {shown(str(error))}", param="config"
        ) from error
    source = Source(text, path)
    values: dict[str, dict[str, Any]] = {}
    models: dict[str, Model] = {}
    for section, content in table.items():
        if section not in (*KEYS, MODELS):
            raise source.unknown((section,), (*KEYS, MODELS))
        if not isinstance(content, dict):
            raise source.fail((section,), "a section", content)
        if section == MODELS:
            models = {name: _model(source, name, entry) for name, entry in content.items()}
        else:
            values[section] = _checked(source, (section,), content, KEYS[section])
    return Settings(path, values, models)


@dataclass(frozen=True)
class Source:
    """The text of a file, for messages that name its lines."""

    text: str
    path: Path

    def fail(self, keys: tuple[str, ...], expected: str, found: object) -> RequestError:
        """The error for a wrong value, ready to raise."""
        return self._error(keys, f"must be {expected}, found {shown(found)}")

    def unknown(self, keys: tuple[str, ...], known: tuple[str, ...]) -> RequestError:
        """The error for a key that nothing honours, ready to raise."""
        near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=LIKENESS)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return self._error(keys, f"is not known; {hint}")

    def _error(self, keys: tuple[str, ...], complaint: str) -> RequestError:
        number = line_of(self.text, keys)
        where = f"{self.path}:{number}" if number else str(self.path)
        return RequestError(f"{where}: {shown('.'.join(keys))[1:-1]} {complaint}", param="config")


def _model(source: Source, name: str, entry: object) -> Model:
    keys = (MODELS, name)
    if not isinstance(entry, dict):
        raise source.fail(keys, "a section with path or alias", entry)
    found = _checked(source, keys, entry, MODEL_KEYS)
    if ("path" in found) == ("alias" in found):
        raise source.fail(keys, "a section with path or alias, one of them", sorted(found))
    return Model(found.get("path") or found["alias"], found.get("draft"))


def _checked(
    source: Source, keys: tuple[str, ...], content: Mapping[str, Any], checks: Mapping[str, Check]
) -> dict[str, Any]:
    """A section whose keys are known and whose values are as they must be."""
    for key, value in content.items():
        if key not in checks:
            raise source.unknown((*keys, key), tuple(checks))
        expected = checks[key](value)
        if expected is not None:
            raise source.fail((*keys, key), expected, value)
    return dict(content)


def _read(path: Path) -> str:
    """The text of a settings file. Raises RequestError."""
    try:
        if not path.is_file() and os.fspath(path) != os.devnull:  # a pipe could block for ever
            raise RequestError(f"{path}: there is no such settings file", param="config")
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}", param="config") from error
    if len(data) > LIMIT_BYTES:
        raise RequestError(f"{path}: expected at most {LIMIT_BYTES:,} bytes", param="config")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8: {error}", param="config") from error


def parse_value(key: tuple[str, ...], spelled: str) -> Any:
    """A value as a user types it for `key`. Raises RequestError where either is wrong."""
    section = MODEL_KEYS if key[0] == MODELS else KEYS.get(key[0], {})
    is_known = len(key) == (3 if key[0] == MODELS else 2) and key[-1] in section
    if not is_known:
        known = [f"{name}.{each}" for name in KEYS for each in KEYS[name]]
        known += [f"{MODELS}.NAME.{each}" for each in MODEL_KEYS]
        near = difflib.get_close_matches(".".join(key), known, n=1, cutoff=LIKENESS)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise RequestError(f"{shown('.'.join(key))[1:-1]} is not known; {hint}", param="key")
    check = section[key[-1]]
    expected = "a value"
    for value in _readings(spelled):
        expected = check(value)
        if expected is None:
            return value
    raise RequestError(f"{'.'.join(key)} must be {expected}, found {shown(spelled)}", param="value")


def _readings(spelled: str) -> list[object]:
    """What a typed value may mean: true or false, a number, a text."""
    found: list[object] = [spelled == "true"] if spelled in ("true", "false") else []
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            found.append(kind(spelled))
    return [*found, spelled]
