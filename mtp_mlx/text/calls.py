"""Tool calls as a model writes them: the name, and the arguments as JSON text.

Gemma 4 writes `call:NAME{key:value,...}`: keys bare, strings between two QUOTEs, and numbers, true,
false, null, objects and lists as in JSON; a bare word is a string. Also read are arguments that are
JSON, `call:NAME{"key": ...}`, and the drifted form `call:NAME({"key": ...})`.

All here is linear in the length of the text: one pass forwards, no search that begins again.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["content", "reasoning", "tool"]

# Stands for the token <|"|> in a call's text. UTF-8 has no such character: no model can spell it.
QUOTE = "\ud800"
START = "call:"
LITERALS = ("true", "false", "null")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
SPACE = re.compile(r"\s*")
KEY = re.compile(rf"[^:,{{}}\[\]{QUOTE}]+")
WORD = re.compile(rf"[^,{{}}\[\]{QUOTE}]+")
# "*+" keeps nothing to go back to, so memory does not grow with the text.
QUOTED = re.compile(rf'{QUOTE}([^{QUOTE}]*){QUOTE}|"(?:[^"\\{QUOTE}]|\\[^{QUOTE}])*+"')
NAME = re.compile(rf"[^\s(){{}}\[\]<>,\"'{QUOTE}]{{1,128}}")
CLOSERS = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called. `arguments` is the text of a JSON object; `id` is
    made up here, and names the call in the answer (`tool_call_id`)."""

    id: str
    name: str
    arguments: str


def parse_call(text: str) -> tuple[str, str] | None:
    """Name and arguments of what stands between the markers of a call; None if that is no call."""
    text = text.strip()
    name = NAME.match(text, len(START))
    if not text.startswith(START) or name is None:
        return None
    rest = text[name.end() :].strip()
    if rest.startswith("(") and rest.endswith(")"):
        rest = rest[1:-1].strip()
        return (name[0], rest) if _is_object(rest) else None
    if not rest.startswith("{"):
        return None
    if not _is_object(rest):
        try:
            rest = _Arguments(rest).read()
        except ValueError:
            return None
    return (name[0], rest) if _is_object(rest) else None


def _is_object(text: str) -> bool:
    """Is this the JSON text of an object that Python can read?"""
    try:
        return QUOTE not in text and isinstance(json.loads(text, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        return False


def _refuse(constant: str) -> None:
    """NaN and Infinity are no JSON."""
    raise ValueError(constant)


class _Arguments:
    """Translates Gemma's form into JSON text, without recursion. Raises ValueError."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._out: list[str] = []
        self._closers: list[str] = []  # of the objects and lists that are open

    def read(self) -> str:
        """The JSON text of the whole."""
        self._value()
        while self._closers:
            self._member()
        if self._next():
            raise ValueError("text after the end")
        return "".join(self._out)

    def _next(self) -> str:
        """The next character that is no space, which is not taken; empty at the end."""
        found = SPACE.match(self._text, self._at)
        assert found is not None, "it may be empty"
        self._at = found.end()
        return self._text[self._at : self._at + 1]

    def _take(self, character: str) -> bool:
        """Take the next character if it is this one."""
        is_next = self._next() == character
        self._at += is_next
        return is_next

    def _member(self) -> None:
        """The next member of what is open, or its end."""
        closer, is_first = self._closers[-1], self._out[-1] in CLOSERS
        if self._take(closer):
            self._closers.pop()
            self._out.append(closer)
            return
        if not is_first:
            if not self._take(","):
                raise ValueError("no comma")
            self._out.append(",")
        if closer == "}":
            self._out.append(self._quoted() or json.dumps(self._bare(KEY), ensure_ascii=False))
            if not self._take(":"):
                raise ValueError("no colon")
            self._out.append(":")
        self._value()

    def _value(self) -> None:
        opener = self._next()
        if opener in CLOSERS:
            self._at += 1
            self._out.append(opener)
            self._closers.append(CLOSERS[opener])
            return
        self._out.append(self._quoted() or _scalar(self._bare(WORD)))

    def _quoted(self) -> str:
        """A quoted string as JSON, empty if there is none."""
        self._next()
        found = QUOTED.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0] if found[1] is None else json.dumps(found[1], ensure_ascii=False)

    def _bare(self, pattern: re.Pattern[str]) -> str:
        """A word without quotes."""
        found = pattern.match(self._text, self._at)
        if found is None or not found[0].strip():
            raise ValueError("nothing where a word is expected")
        self._at = found.end()
        return found[0].strip()


def _scalar(word: str) -> str:
    """A bare word as JSON."""
    is_plain = word in LITERALS or NUMBER.fullmatch(word)
    return word if is_plain else json.dumps(word, ensure_ascii=False)
