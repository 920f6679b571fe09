"""Bytes and speed of a download on stderr: one line that changes on a terminal, now and then a line
elsewhere."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from mtp_mlx.cli.terminal import ERASE_LINE
from mtp_mlx.text.visible import visible

UNITS = ("B", "kB", "MB", "GB", "TB")
STEP = 1000
REFRESH_S = 0.2
LINE_S = 15.0  # between two lines where stderr is no terminal
WINDOW_S = 5.0  # of the speed that is shown
STEADY_S = 10.0  # no guess of the time left before this
WIDTH = 100


def bytes_text(number: float) -> str:
    """1234567 as "1.2 MB"."""
    for unit in UNITS[:-1]:
        if abs(number) < STEP:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= STEP
    return f"{number:.1f} {UNITS[-1]}"


class Meter:
    """Shows what has arrived of `total` bytes, while it is open. Any thread may report to it."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.arrived = 0.0
        self._clock = clock
        self._start = clock()
        self._label = ""
        self._marks: deque[tuple[float, float]] = deque([(self._start, 0.0)])
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Meter":
        if sys.stderr is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        if sys.stderr is None:
            return
        self._thread.join()
        if self._is_terminal:
            print(ERASE_LINE, end="", file=sys.stderr, flush=True)

    def say(self, label: str) -> None:
        """Name what is done now."""
        with self._lock:
            self._label = visible(label)

    def count(self, number: float) -> None:
        """Bytes have arrived."""
        with self._lock:
            self.arrived += number
            self._marks.append((self._clock(), self.arrived))

    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._start

    def line(self) -> str:
        """What is shown at this moment."""
        with self._lock:
            now = self._clock()
            while len(self._marks) > 1 and self._marks[1][0] < now - WINDOW_S:
                self._marks.popleft()
            since, before = self._marks[0]
            speed = max(self.arrived - before, 0.0) / max(now - since, REFRESH_S)
            left = self.total - self.arrived
            parts = [f"{bytes_text(self.arrived)} of {bytes_text(self.total)}"]
            parts.append(f"{bytes_text(speed)}/s")
            if speed > 0 and left > 0 and now - self._start > STEADY_S:
                parts.append(f"{_time_text(left / speed)} left")
            return "  ".join([*parts, self._label])[:WIDTH]

    def _run(self) -> None:
        while not self._closed.wait(REFRESH_S if self._is_terminal else LINE_S):
            if self._is_terminal:
                print(ERASE_LINE + self.line(), end="", file=sys.stderr, flush=True)
            else:
                print(self.line(), file=sys.stderr, flush=True)


def _time_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
