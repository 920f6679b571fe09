"""Ctrl-C while a chat goes on: it stops the reply that is being written, and nothing else.

No KeyboardInterrupt is raised: Python may drop one in a destructor, and it would tear the chat out
of whatever it does. The handler asks for the reply's end instead, and the reply then ends by itself
with all its tokens. While a line is edited, the editor reads Ctrl-C as a key.
"""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType

Handler = Callable[[int, FrameType | None], object] | int | None


class Interrupts:
    """A context manager: the handler is set inside it. `load` gives way to the one before."""

    def __init__(self) -> None:
        self._before: Handler = None
        self._stop: Callable[[], None] | None = None
        self._is_asked = False

    def __enter__(self) -> "Interrupts":
        self._before = signal.signal(signal.SIGINT, self._on)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on(self, signum: int, frame: FrameType | None) -> None:
        self._is_asked = True
        if self._stop is not None:
            self._stop()

    @contextmanager
    def reply(self) -> Generator["Interrupts"]:
        """Inside, Ctrl-C is for a reply: one that came before `stops` is obeyed then."""
        self._is_asked = False
        try:
            yield self
        finally:
            self._stop = None

    def stops(self, stop: Callable[[], None]) -> None:
        """What ends the reply; it must not wait."""
        self._stop = stop
        if self._is_asked:
            stop()

    @contextmanager
    def leaving(self) -> Generator[None]:
        """Inside, Ctrl-C does what it did before the chat: it ends the program."""
        signal.signal(signal.SIGINT, self._before)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, self._on)
