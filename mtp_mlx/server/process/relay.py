"""The log on its way to stderr: passed on by a thread, so that nobody waits for whoever reads it.

A program that starts a server and never reads its stderr fills a pipe; were it written to directly,
the first full pipe would stop the server. Here lines are dropped instead, and counted.
"""

import os
import threading
from collections import deque
from contextlib import suppress

STDERR = 2
LAST_LINES = 50
LINE_BYTES = 8 << 10  # of a line without an end
QUEUE_BYTES = 1 << 20
CLOSE_S = 0.5


class Relay:
    """Takes lines from any thread; keeps the last ones that `pass_on` was given."""

    def __init__(self, number: int = STDERR) -> None:
        self._number = number
        self._lines: deque[bytes] = deque()
        self._size = self._dropped = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._rest = b""
        self._last: deque[bytes] = deque(maxlen=LAST_LINES)
        self._thread = threading.Thread(target=self._write_all, name="mtp-mlx-log", daemon=True)
        self._thread.start()

    def pass_on(self, data: bytes) -> None:
        """Output of a child, in pieces of any size."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._last.append(line[:LINE_BYTES])
            self.say(line)

    def end_output(self) -> None:
        """The child has ended; so has its last line."""
        if self._rest:
            self.pass_on(b"\n")

    def last_lines(self) -> tuple[str, ...]:
        """What the children said last."""
        return tuple(line.decode("utf-8", "replace") for line in self._last)

    def say(self, line: bytes) -> None:
        """A line, without its end."""
        with self._changed:
            if self._size > QUEUE_BYTES:
                self._dropped += 1
                return
            if self._dropped:
                self._put(b"mtp-mlx: %d lines of the log were dropped" % self._dropped)
                self._dropped = 0
            self._put(line)
            self._changed.notify()

    def close(self) -> None:
        """Write what is left, for a moment at most."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(CLOSE_S)

    def _put(self, line: bytes) -> None:
        self._lines.append(line + b"\n")
        self._size += len(line) + 1

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closed)
                if not self._lines:
                    return
                text = b"".join(self._lines)
                self._lines.clear()
            with suppress(OSError):  # its reader has gone: the server goes on
                while text:
                    text = text[os.write(self._number, text) :]
            with self._changed:
                self._size = sum(map(len, self._lines))
