"""Finds tool calls that are spelled in plain text: `<|tool_call|>call:NAME({json})`.

Models drift into this form, whose marker is no control token. It is read character by character, so
a stream may be split anywhere. Text is held back from the marker on, until the call is complete;
what turns out to be none is given back as the content it is.
"""

from collections.abc import Callable

from mtp_mlx.text.calls import NAME, START, Kind, parse_call
from mtp_mlx.text.transcript import Matcher

MARKER = "<|tool_call|>"
MAX_NAME = 128


class DriftedCalls:
    """Divides text into content and calls. Scan text as it comes, finish at the end."""

    def __init__(self, calls: list[tuple[str, str]]) -> None:
        """Name and arguments of each call that is found are appended to `calls`."""
        self._calls = calls
        self._ready: list[tuple[Kind, str]] = []
        self._begin()

    def _begin(self) -> None:
        """Look for the next marker."""
        self._marker = Matcher(MARKER + START)
        self._held: list[str] = []  # characters that may be a call's
        self._name_length = self._depth = 0
        self._in_string = self._is_escaped = False
        self._step: Callable[[str], bool | None] = self._before

    def scan(self, text: str) -> list[tuple[Kind, str]]:
        """What is decided by now: pieces of content, and whole calls."""
        for character in text:
            self._read(character)
        ready, self._ready = self._ready, []
        return ready

    def finish(self) -> list[tuple[Kind, str]]:
        """What was held back at the end of the reply: no call, since it is not complete."""
        self._release()
        return self.scan("")

    def _read(self, character: str) -> None:
        self._held.append(character)
        verdict = self._step(character)
        if verdict:
            text = "".join(self._held)
            call = parse_call(text[len(MARKER) :])
            if call is not None:
                self._calls.append(call)
            self._ready.append(("content" if call is None else "tool", text))
            self._begin()
        elif verdict is False:
            self._held.pop()
            self._release()
            self._read(character)  # it may begin a marker

    def _release(self) -> None:
        """All that is held is content."""
        self._ready.append(("content", "".join(self._held)))
        self._begin()

    # Each step reads one character: True completes a call, False ends the hope of one.

    def _before(self, character: str) -> bool | None:
        if self._marker.advance(character):
            self._step = self._in_name
        elif free := len(self._held) - self._marker.state:
            self._ready.append(("content", "".join(self._held[:free])))
            del self._held[:free]
        return None

    def _in_name(self, character: str) -> bool | None:
        if character == "(" and self._name_length:
            self._step = self._in_object
            return None
        self._name_length += 1
        return None if NAME.fullmatch(character) and self._name_length <= MAX_NAME else False

    def _in_object(self, character: str) -> bool | None:
        if self._in_string:
            self._in_string = self._is_escaped or character != '"'
            self._is_escaped = character == "\\" and not self._is_escaped
        elif not self._depth and character != "{":
            return None if character.isspace() else False
        elif character == '"':
            self._in_string = True
        else:
            self._depth += (character in "{[") - (character in "]}")
            if not self._depth:
                self._step = self._at_end
        return None

    def _at_end(self, character: str) -> bool | None:
        return None if character.isspace() else character == ")"
