"""A constraint for tests, whose masks depend on the tokens before: each has the next remainder.

`copied` gives a request the state that its engine may use up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtp_mlx.request import Request

BITS = 32


def words(allowed: np.ndarray) -> np.ndarray:
    """Booleans [n, V] as a constraint's masks."""
    width = -(-allowed.shape[1] // BITS) * BITS
    bits = np.zeros((len(allowed), width), dtype=np.uint8)
    bits[:, : allowed.shape[1]] = allowed
    return np.packbits(bits, axis=1, bitorder="little").view("<u4")


@dataclass(unsafe_hash=True)
class Steps:
    """A token's remainder by `modulus` is one more than that of the token before; any may be first.

    `ends_after`: so many tokens are allowed, then none. `asked` and `taken` are what it was given.
    """

    modulus: int
    vocab_size: int = 256
    last: int | None = None
    ends_after: int = 1 << 30

    def __post_init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.taken: list[int] = []

    def masks(self, drafts: Sequence[int]) -> np.ndarray:
        self.asked.append(tuple(drafts))
        before = [self.last, *drafts]
        places = range(len(self.taken), len(self.taken) + len(before))
        return words(np.stack([self._allowed(*each) for each in zip(before, places, strict=True)]))

    def take(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if not self._allowed(self.last, len(self.taken))[token]:
                raise ValueError(f"token {token} is not allowed after {self.last}")
            self.last = token
            self.taken.append(token)

    def _allowed(self, last: int | None, place: int) -> np.ndarray:
        """Which tokens may come [V]."""
        remainders = np.arange(self.vocab_size) % self.modulus
        fits = last is None or remainders == (last + 1) % self.modulus
        return np.broadcast_to(fits & (place < self.ends_after), remainders.shape)

    def copy(self) -> "Steps":
        return Steps(self.modulus, self.vocab_size, self.last, self.ends_after)


def copied(request: Request) -> Request:
    """The same request with a constraint in its first state."""
    if not isinstance(request.constraint, Steps):
        return request
    return replace(request, constraint=request.constraint.copy())
