"""What rounds take: seconds from one landing to the next, and whether these are typical.

A round that follows another at once is charged from that one's landing, so that the host's work
between them counts where the device waits for it, and is free where a plain round runs ahead.
"""

import time
from collections.abc import Callable

from mtp_mlx.engine.policy import SeenExperts, Timing

Shape = tuple[int, int]


class RoundClock:
    """`now`: a clock in seconds that never goes back."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._since: float | None = None
        self._is_disturbed = True
        self._shapes: set[Shape] = set()

    def begin(self) -> None:
        """A round is about to be drafted or queued; nothing changes if one is under way."""
        if self._since is None:
            self._since = self._now()

    def disturb(self) -> None:
        """A prompt, a new row or a row that left shares the time of the round under way."""
        self._is_disturbed = True

    def rest(self) -> None:
        """No round follows at once: the time until the next `begin` is nobody's."""
        self._since = None
        self._is_disturbed = True

    def land(self, shape: Shape, experts: SeenExperts | None) -> Timing:
        """A round of `shape` (rows, tokens) has landed, and the next one begins."""
        assert self._since is not None, "a round has begun"
        now = self._now()
        is_clean = not self._is_disturbed and shape in self._shapes and now > self._since
        timing = Timing(now - self._since, is_clean, experts)
        self._shapes.add(shape)
        self._since, self._is_disturbed = now, False
        return timing
