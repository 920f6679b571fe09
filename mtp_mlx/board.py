"""Where the engine's thread shows how it stands, for any thread to read without asking it."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from mtp_mlx.request import Event, Tokens
from mtp_mlx.snapshot import EngineStatus, RowStatus, Snapshot

PERIOD_S = 0.25  # between two snapshots while the engine works
WINDOW = 12  # snapshots over which speeds are taken: about three seconds


@dataclass(frozen=True)
class _Mark:
    """What had been emitted at a moment: by all, and by each decoding row."""

    at: float
    tokens: int
    rows: dict[int, int]


class Board:
    """Written by one thread, read by any."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._steps = self._tokens = 0
        self._stepped = now()
        self._marks: deque[_Mark] = deque(maxlen=WINDOW)
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot:
        """What was shown last: whole, and never changed."""
        assert self._snapshot is not None, "an engine shows itself as soon as it is there"
        return self._snapshot

    def step(self, events: list[Event]) -> None:
        """The engine has taken a step."""
        self._steps += 1
        self._tokens += sum(len(event.ids) for event in events if isinstance(event, Tokens))
        self._stepped = self._now()

    def is_due(self, is_idle: bool) -> bool:
        """Is it time to show an engine that is idle, or is not?"""
        if is_idle or self.snapshot.stats.is_idle:
            return is_idle != self.snapshot.stats.is_idle
        return self._now() - self.snapshot.at >= PERIOD_S

    def show(self, status: EngineStatus, active_bytes: int | None, peak_bytes: int) -> None:
        """How the engine stands now."""
        if self._snapshot is None or self._snapshot.stats.is_idle:
            self._stepped = self._now()  # it had nothing to do until now
        self._snapshot = self._made(status, active_bytes, peak_bytes)

    def end(self, reason: str) -> None:
        """The thread has ended, and so have all requests."""
        last = self.snapshot
        stats = replace(last.stats, running=0, prefilling=0, waiting=0)
        self._snapshot = replace(last, stats=stats, rows=(), tokens_per_s=0.0, stopped=reason)

    def _made(self, status: EngineStatus, active_bytes: int | None, peak_bytes: int) -> Snapshot:
        now = self._now()
        if status.stats.is_idle:
            self._marks.clear()
        rows = tuple(replace(row, tokens_per_s=self._speed(row, now)) for row in status.rows)
        oldest = next(iter(self._marks), None)
        speed = 0.0
        if oldest is not None and now > oldest.at:
            speed = (self._tokens - oldest.tokens) / (now - oldest.at)
        decoding = {row.id: row.tokens for row in status.rows if row.state == "decode"}
        self._marks.append(_Mark(now, self._tokens, decoding))
        return Snapshot(
            at=now,
            last_step_at=self._stepped,
            steps=self._steps,
            tokens=self._tokens,
            stats=status.stats,
            rows=rows,
            rounds=status.rounds,
            tokens_per_s=speed,
            active_bytes=active_bytes,
            peak_bytes=peak_bytes,
        )

    def _speed(self, row: RowStatus, now: float) -> float | None:
        """Of a row, since the first snapshot in the window that saw it decode."""
        for mark in self._marks:
            if row.id in mark.rows and now > mark.at:
                return (row.tokens - mark.rows[row.id]) / (now - mark.at)
        return None
