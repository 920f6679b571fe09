"""Drafts that were made and not verified, until the row's own tokens judge them.

The text does not depend on drafts, so what the drafter would have been worth can be learned without
verifying it: keep its proposals, and compare them with the tokens that come anyway.
"""

from dataclasses import dataclass

from mtp_mlx.engine.policy import Shadow
from mtp_mlx.engine.sequence import Sequence


@dataclass(frozen=True)
class _Waiting:
    """Proposals for the tokens from `start` on; the first `verified` of them were accepted."""

    start: int
    verified: int
    proposed: list[int]


class Shadows:
    """At most one burst a row waits at a time; a newer one waits its turn by being dropped."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}

    def keep(self, sequence: Sequence, start: int, verified: int, proposed: list[int]) -> None:
        """Remember a burst whose `verified` drafts were all accepted, made for `tokens[start:]`."""
        if len(proposed) > verified and sequence.id not in self._waiting:
            self._waiting[sequence.id] = _Waiting(start, verified, proposed)

    def judge(self, sequence: Sequence, *, is_over: bool = False) -> list[Shadow]:
        """What the row's tokens say by now; nothing while they have not reached the end of it.

        is_over: no more tokens will come.
        """
        burst = self._waiting.get(sequence.id)
        if burst is None:
            return []
        came = sequence.tokens[burst.start : burst.start + len(burst.proposed)]
        matched = 0
        while matched < len(came) and came[matched] == burst.proposed[matched]:
            matched += 1
        known = len(burst.proposed) if matched < len(came) else len(came)
        if known < len(burst.proposed) and not is_over:
            return []
        del self._waiting[sequence.id]
        if known <= burst.verified:
            return []
        return [Shadow(sequence.id, burst.verified, min(matched, known), known)]

    def drop(self, sequence: Sequence) -> None:
        """Forget a row that has left."""
        self._waiting.pop(sequence.id, None)
