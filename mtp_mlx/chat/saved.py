"""Chats on disk: one file each, JSON Lines, for their owner alone, written whole or not at all.

The first line says what the file is and holds the system prompt and the model, each further one a
turn; a message without a reply has none. A file may come from anywhere, so all of it is checked.
"""

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from mtp_mlx.chat.conversation import Conversation, Turn
from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown
from mtp_mlx.request import MAX_SEED, FinishReason
from mtp_mlx.whole_file import write_whole

FORMAT, VERSION = "mtp-mlx chat", 1
SUFFIX = ".jsonl"
LIMIT_BYTES = 64 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
OWNER_ONLY, OWNER_FOLDER = 0o600, 0o700

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Saved:
    """A chat as it is kept. `model`, `draft_model`: what it was last held with, as it was named."""

    conversation: Conversation = field(default_factory=Conversation)
    model: str | None = None
    draft_model: str | None = None

    def with_system(self, system: str) -> "Saved":
        """With another system prompt."""
        return replace(self, conversation=replace(self.conversation, system=system))

    def held_with(self, talk: Conversation, loading: dict[str, Any]) -> "Saved":
        """With a later state of the conversation, and the keywords of load()."""
        return Saved(talk, str(loading["model"]), str(loading["draft_model"]))


@dataclass(frozen=True)
class Place:
    """A chat's name and the state of its file when we last touched it; None: there was none."""

    name: str
    stamp: Stamp | None = None


def moved(before: Place, after: Place) -> str:
    """What a user should know where `Chats.write` has kept a chat elsewhere."""
    return f"chat {before.name} was changed elsewhere; this one is now {after.name}"


class Chats:
    """The chats of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """All of them, the last written first. Raises OSError."""
        paths = [p for p in self.folder.glob(f"*{SUFFIX}") if NAME.fullmatch(p.stem)]
        return [path.stem for path in sorted(paths, key=_written, reverse=True)]

    def path(self, name: str) -> Path:
        """Where a chat lies. Raises RequestError for a name that is none."""
        if not NAME.fullmatch(name):
            raise RequestError(
                f"{shown(name)} is no name of a chat; take letters, digits, '.', '_' and '-', "
                "at most 64",
                param="session",
            )
        return self.folder / f"{name}{SUFFIX}"

    def has(self, name: str) -> bool:
        return self.path(name).exists()

    def read(self, name: str) -> tuple[Saved, Place]:
        """A chat that is kept. Raises RequestError where there is none or the file is damaged."""
        path = self.path(name)
        try:
            stamp = _stamp(path)
            if stamp is None:
                known = ", ".join(self.names()[:5]) or "none yet"
                raise RequestError(f"there is no chat {name}; saved: {known}", param="session")
            if stamp[0] > LIMIT_BYTES:
                raise RequestError(f"{path}: larger than {LIMIT_BYTES:,} bytes", param="session")
            data = path.read_bytes()
        except OSError as error:
            raise RequestError(f"{path}: {error.strerror}", param="session") from error
        return _parse(path, data), Place(name, stamp)

    def fresh(self) -> Place:
        """A name of its own for a new chat, after the time of day."""
        stem = time.strftime("%Y-%m-%d-%H%M%S")
        names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, 1000))
        return Place(next(name for name in names if not self.path(name).exists()))

    def write(self, place: Place, saved: Saved) -> Place:
        """Keep a chat; the place to write to next time, another one where somebody else has written
        to this one meanwhile. Raises OSError."""
        self.folder.mkdir(mode=OWNER_FOLDER, parents=True, exist_ok=True)
        if _stamp(self.path(place.name)) != place.stamp:
            place = self.fresh()
        path = self.path(place.name)
        write_whole(path, _spell(saved), OWNER_ONLY)
        return replace(place, stamp=_stamp(path))

    def rename(self, place: Place, name: str) -> Place:
        """Give a chat another name. Raises RequestError where that one is taken, OSError."""
        new = self.path(name)
        if new.exists():
            raise RequestError(
                f"there is a chat {name} already; take another name, or /load it", param="session"
            )
        if place.stamp is not None:
            os.rename(self.path(place.name), new)
        return Place(name, _stamp(new))


def _written(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _stamp(path: Path) -> Stamp | None:
    """Size, time and inode; None where there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _spell(saved: Saved) -> str:
    talk = saved.conversation
    head = {"format": FORMAT, "version": VERSION, "system": talk.system}
    rows: list[dict[str, Any]] = [head | {"model": saved.model, "draft_model": saved.draft_model}]
    rows += [asdict(turn) for turn in talk.turns]
    if talk.unanswered is not None:
        rows.append({"user": talk.unanswered})
    return "".join(json.dumps(row) + "\n" for row in rows)


def _parse(path: Path, data: bytes) -> Saved:
    rows = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            rows.append((number, _object(path, number, line)))
    if not rows:
        raise _damaged(path, 1, "expected a chat, found nothing")
    number, head = rows[0]
    if (head.get("format"), head.get("version")) != (FORMAT, VERSION):
        found = f"{shown(head.get('format'))} {shown(head.get('version'))}"
        raise _damaged(path, number, f"expected format {FORMAT!r} version {VERSION}, found {found}")
    talk = Conversation(_text(path, number, head, "system"))
    for number, row in rows[1:]:
        if talk.unanswered is not None:
            raise _damaged(path, number, "expected the end after a message without a reply")
        talk = _added(path, number, row, talk)
    names = [_text(path, 1, head, name) for name in ("model", "draft_model")]
    return Saved(talk, *names)


def _added(path: Path, number: int, row: dict, talk: Conversation) -> Conversation:
    """A conversation with the turn of one line."""
    user = _needed(path, number, row, "user")
    if "reply" not in row:
        return talk.asked(user)
    seed = row.get("seed")
    reasons: dict[object, FinishReason] = {each: each for each in get_args(FinishReason)}
    reason = reasons.get(_needed(path, number, row, "finish_reason"))
    if reason is None:
        raise _damaged(path, number, f"finish_reason is {shown(row['finish_reason'])}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise _damaged(path, number, f"seed is {shown(seed)}")
    reply, model, reasoning = (
        _needed(path, number, row, name) for name in ("reply", "model", "reasoning")
    )
    return talk.answered(Turn(user, reply, reason, model, seed, reasoning))


def _object(path: Path, number: int, line: bytes) -> dict:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number, f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _damaged(path, number, f"expected an object, found {shown(value)}")
    return value


def _needed(path: Path, number: int, row: dict, name: str) -> str:
    found = _text(path, number, row, name)
    if found is None:
        raise _damaged(path, number, f"{name} is missing")
    return found


def _text(path: Path, number: int, row: dict, name: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _damaged(path, number, f"{name}: expected text, found {shown(value)}")


def _damaged(path: Path, number: int, why: str) -> RequestError:
    return RequestError(f"{path}: line {number}: {why}", param="session")
