"""The keyboard while a reply is written: typed keys are kept for the next message, not echoed."""

import sys
import termios
from collections.abc import Generator
from contextlib import contextmanager

LOCAL_FLAGS = 3  # of what tcgetattr returns


@contextmanager
def unheard() -> Generator[None]:
    """Inside, the terminal echoes nothing and waits for no Enter; Ctrl-C works as ever."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    quiet = list(before)
    quiet[LOCAL_FLAGS] = before[LOCAL_FLAGS] & ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(number, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
