"""Waiting for the end of a process that is not a child: the one that started the server."""

import os
import select
import sys
import time

POLL_S = 0.5


def is_running(pid: int) -> bool:
    """Is there a process of this number?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # there is, and it is another user's
        return True
    return True


def wait_for_end(pid: int) -> None:
    """Returns when the process has ended, or at once where there is none."""
    try:
        _wait(pid)
    except ProcessLookupError:
        return
    except OSError:  # a system that lacks the call, or forbids it
        _poll(pid)


if sys.platform == "linux":

    def _wait(pid: int) -> None:
        number = os.pidfd_open(pid)
        try:
            select.select([number], [], [])
        finally:
            os.close(number)

elif sys.platform == "darwin":

    def _wait(pid: int) -> None:
        watched = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT
        )
        queue = select.kqueue()
        try:
            queue.control([watched], 1, None)
        finally:
            queue.close()

else:

    def _wait(pid: int) -> None:
        _poll(pid)


def _poll(pid: int) -> None:
    while is_running(pid):
        time.sleep(POLL_S)
