"""The keyboard between two messages: what is typed is kept for the next one, and not echoed."""

import sys
import termios
from collections.abc import Generator
from contextlib import contextmanager

LOCAL_FLAGS = 3  # of what tcgetattr returns
LINES = termios.ECHO | termios.ICANON


@contextmanager
def unheard() -> Generator[None]:
    """Inside, the terminal echoes nothing and waits for no Enter; Ctrl-C works as ever."""
    with _local_flags(0):
        yield


@contextmanager
def heard() -> Generator[None]:
    """Inside, it is as a shell leaves it: the program may end here."""
    with _local_flags(LINES):
        yield


@contextmanager
def _local_flags(lines: int) -> Generator[None]:
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    changed = list(before)
    changed[LOCAL_FLAGS] = before[LOCAL_FLAGS] & ~LINES | lines
    termios.tcsetattr(number, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
