"""Counts on a bench's command line, as `type=` of an option: refused there, not by a traceback."""

from argparse import ArgumentTypeError
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """A whole number of `least` or more."""

    def count(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = None
        if found is None or found < least:
            raise ArgumentTypeError(f"{text} is not a whole number of at least {least}")
        return found

    return count


positive = at_least(1)
