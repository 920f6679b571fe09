"""What a test does to a child process that must hear of Ctrl-C."""

import signal


def heed_interrupts() -> None:
    """Before exec: a background job inherits an ignored SIGINT, which the command line respects."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
