"""K/V bytes that admitted rows may come to hold: reserved before the first is allocated."""

from mtp_mlx.config import LayerSpec
from mtp_mlx.errors import DoesNotFit
from mtp_mlx.fit import text_bytes, windows_bytes

UNLIMITED = 1 << 62


class Memory:
    """The ledger of one engine. Windows are set aside for all its slots from the start."""

    def __init__(
        self, layers: tuple[LayerSpec, ...], itemsize: int, slots: int, budget: int | None
    ) -> None:
        """`budget` in bytes, None for no limit. Raises DoesNotFit if the windows exceed it."""
        self._layers = layers
        self._itemsize = itemsize
        self.budget = budget
        self.rings = windows_bytes(layers, slots, itemsize)
        self.rows: dict[int, int] = {}
        self.kept = 0  # bytes of texts that a later request may take up; never in a row's way
        if budget is not None and self.rings > budget:
            raise DoesNotFit(
                f"the windows of {slots} rows take {self.rings:,} bytes of K/V and {budget:,} are "
                "allowed; use fewer rows (max_num_seqs)"
            )

    @property
    def reserved(self) -> int:
        """Bytes set aside now for rows."""
        return self.rings + sum(self.rows.values())

    @property
    def free(self) -> int:
        """Bytes that are neither set aside nor kept."""
        return UNLIMITED if self.budget is None else self.budget - self.reserved - self.kept

    def room_for(self, tokens: int) -> bool:
        """Would a row of at most `tokens` positions fit if nothing were kept?"""
        return self.budget is None or self.reserved + self.cost(tokens) <= self.budget

    def cost(self, tokens: int) -> int:
        """Bytes of a row of at most `tokens` positions, its growth included."""
        return text_bytes(self._layers, tokens, self._itemsize)

    def check(self, tokens: int) -> None:
        """Raises DoesNotFit for a row that could never be admitted."""
        if self.budget is not None and self.rings + self.cost(tokens) > self.budget:
            raise DoesNotFit(
                f"a row of {tokens:,} tokens takes {self.cost(tokens):,} bytes of K/V and "
                f"{self.budget - self.rings:,} are there; send a shorter prompt or lower max_tokens"
            )

    def reserve(self, slot: int, tokens: int) -> bool:
        """Set a row's bytes aside; False, and nothing done, if there are not enough now."""
        assert slot not in self.rows, f"slot {slot} is taken"
        cost = self.cost(tokens)
        if cost > self.free:
            return False
        self.rows[slot] = cost
        return True

    def release(self, slot: int) -> None:
        del self.rows[slot]
