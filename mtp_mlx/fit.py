"""The memory plan: what a pair, its rows and a prefill take, in bytes, before any is allocated.

MLX cannot refuse an allocation that does not fit: on a CPU the process dies, on a Mac the machine
may. So a pair is only loaded, and a request only admitted, when this arithmetic says that it fits.
The engine allocates no more for a row than it reserved by `row_bytes`.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mtp_mlx.config import LayerSpec, TargetConfig
from mtp_mlx.errors import DoesNotFit

# Reads and buffers of a full layer are rounded up to this many keys: softmax then sums the same
# lanes in the same order however many masked keys follow, which keeps rows bit-identical on CPU.
KEY_STEP = 64
SCORE_BYTES = 256 << 20  # bound of one attention call's scores (model/view.py)
MARGIN = 0.10  # of everything else: allocator, graphs, the runtime itself


def round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def row_bytes(layers: Iterable[LayerSpec], tokens: int, itemsize: int) -> int:
    """Full-attention K/V of one row that will hold at most `tokens`, provisional ones included."""
    return sum(
        2 * round_up(tokens, KEY_STEP) * layer.kv_heads * layer.head_dim * itemsize
        for layer in layers
        if layer.owns_cache and layer.window is None
    )


def ring_bytes(layers: Iterable[LayerSpec], max_block: int, itemsize: int) -> int:
    """Sliding K/V of one row, whatever its length: windows and `max_block` provisional tokens."""
    return sum(
        2 * (layer.window + max_block) * layer.kv_heads * layer.head_dim * itemsize
        for layer in layers
        if layer.owns_cache and layer.window is not None
    )


def ring_growth_bytes(
    layers: Iterable[LayerSpec], slots: int, max_block: int, itemsize: int
) -> int:
    """What a sliding layer needs for a moment while its keys or values move to more slots."""
    sizes = [
        (slots - 1) * (layer.window + max_block) * layer.kv_heads * layer.head_dim * itemsize
        for layer in layers
        if layer.owns_cache and layer.window is not None
    ]
    return max(sizes, default=0)


def growth_bytes(layers: Iterable[LayerSpec], tokens: int, itemsize: int) -> int:
    """What a full layer needs for a moment while its keys and values move to larger buffers."""
    sizes = [
        2 * round_up(tokens, KEY_STEP) * layer.kv_heads * layer.head_dim * itemsize
        for layer in layers
        if layer.owns_cache and layer.window is None
    ]
    return max(sizes, default=0)


def prefill_bytes(config: TargetConfig, chunk: int, context: int, itemsize: int) -> int:
    """Activations of the widest layer for one prompt chunk, its scores, and one row of logits."""
    widest = max(
        config.hidden_size + 3 * layer.ffn_dim + 2 * layer.heads * layer.head_dim
        for layer in config.layers
    )
    if any(layer.experts for layer in config.layers):
        widest += max(
            layer.experts.top_k * (config.hidden_size + 3 * layer.experts.width)
            for layer in config.layers
            if layer.experts
        )
    heads = max(layer.heads for layer in config.layers)
    scores = min(SCORE_BYTES, 4 * heads * chunk * context)
    return chunk * widest * itemsize + 2 * scores + 4 * config.vocab_size


@dataclass(frozen=True)
class Plan:
    """Bytes by purpose, for `rows` rows of at most `context` tokens each."""

    rows: int
    context: int
    weights: int
    drafter: int
    kv_row: int
    prefill: int
    budget: int | None

    @property
    def kv(self) -> int:
        return self.rows * self.kv_row

    @property
    def margin(self) -> int:
        return int(MARGIN * (self.weights + self.drafter + self.kv + self.prefill))

    @property
    def total(self) -> int:
        return self.weights + self.drafter + self.kv + self.prefill + self.margin

    @property
    def fits(self) -> bool:
        return self.budget is None or self.total <= self.budget

    def check(self) -> None:
        """Raises DoesNotFit, with the table, where the plan is over its budget."""
        if not self.fits:
            assert self.budget is not None
            parts = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in self.parts())
            raise DoesNotFit(
                f"{self.total / 1e9:.2f} GB are needed and {self.budget / 1e9:.2f} GB allowed "
                f"({parts}); choose a smaller model, fewer rows or a shorter context"
            )

    def parts(self) -> list[tuple[str, int]]:
        return [
            ("weights", self.weights),
            ("drafter", self.drafter),
            ("K/V", self.kv),
            ("prefill", self.prefill),
            ("margin", self.margin),
        ]

    def to_json(self) -> dict[str, Any]:
        derived = {"kv": self.kv, "margin": self.margin, "total": self.total, "fits": self.fits}
        return asdict(self) | derived
