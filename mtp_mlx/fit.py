"""The memory plan: what a pair, its rows and a prefill take, in bytes, before any is allocated.

MLX cannot refuse an allocation that does not fit: on a CPU the process dies, on a Mac the machine
may. So a pair is only loaded, and a request only admitted, when this arithmetic says that it fits.
The engine allocates no more for a row than it reserved by `row_bytes`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mtp_mlx.config import LayerSpec, TargetConfig
from mtp_mlx.errors import DoesNotFit
from mtp_mlx.validate import ITEM_BYTES, TensorInfo

# Reads and buffers of a full layer are rounded up to this many keys: softmax then sums the same
# lanes in the same order however many masked keys follow, which keeps rows bit-identical on CPU.
KEY_STEP = 64
SCORE_BYTES = 256 << 20  # bound of one attention call's scores (model/view.py)
ROUND_COPIES = 3  # of a round's logits in float32: themselves, the noise, and their sum
PROMPT_CACHE_SHARE = 0.2  # of what a plan leaves, for texts that later requests take up
MARGIN = 0.10  # of everything else: allocator, graphs, the runtime itself
FLOATS = ("F64", "F32", "F16", "BF16")  # what is cast to the type of the activations


def round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def row_bytes(layers: Iterable[LayerSpec], tokens: int, itemsize: int) -> int:
    """Full-attention K/V of one row that will hold at most `tokens`, provisional ones included."""
    return sum(
        2 * round_up(tokens, KEY_STEP) * layer.kv_heads * layer.head_dim * itemsize
        for layer in layers
        if layer.owns_cache and layer.window is None
    )


def span_bytes(layers: Iterable[LayerSpec], tokens: int, itemsize: int) -> int:
    """Full-attention K/V of `tokens` positions that are kept for later requests."""
    return sum(
        2 * tokens * layer.kv_heads * layer.head_dim * itemsize
        for layer in layers
        if layer.owns_cache and layer.window is None
    )


def window_bytes(layers: Iterable[LayerSpec], end: int, itemsize: int) -> int:
    """Sliding K/V that a text of `end` tokens needs to be taken up there."""
    return sum(
        2 * min(end, layer.window) * layer.kv_heads * layer.head_dim * itemsize
        for layer in layers
        if layer.owns_cache and layer.window is not None
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


def weight_bytes(tensors: Iterable[TensorInfo], itemsize: int) -> int:
    """A model's weights once they are loaded: floats of `itemsize` bytes, all else as stored."""
    return sum(
        math.prod(info.shape) * (itemsize if info.dtype in FLOATS else ITEM_BYTES[info.dtype])
        for info in tensors
    )


def work_bytes(config: TargetConfig, chunk: int, num_tokens: int, itemsize: int) -> int:
    """What a step needs beside weights and K/V, at most: one prompt chunk of `chunk` tokens behind
    the longest context, or the scores of a round of `num_tokens`, whichever is more."""
    prefill = _prefill_bytes(config, min(chunk, config.max_positions), itemsize)
    return max(prefill, ROUND_COPIES * 4 * num_tokens * config.vocab_size)


def _prefill_bytes(config: TargetConfig, chunk: int, itemsize: int) -> int:
    """Activations of the widest layer for one prompt chunk, its scores, and one row of logits."""
    widest = max(
        config.hidden_size + 3 * layer.ffn_dim + 2 * layer.heads * layer.head_dim
        for layer in config.layers
    )
    routed = [
        layer.experts.top_k * (config.hidden_size + 3 * layer.experts.width)
        for layer in config.layers
        if layer.experts is not None
    ]
    widest += max(routed, default=0)
    heads = max(layer.heads for layer in config.layers)
    scores = min(SCORE_BYTES, 4 * heads * chunk * config.max_positions)
    return chunk * widest * itemsize + 2 * scores + 4 * config.vocab_size


@dataclass(frozen=True)
class Plan:
    """Bytes by purpose of a pair that decodes up to `rows` rows, and the most it may take.

    windows: K/V of the sliding layers of all rows. work: see `work_bytes`. What `limit` leaves is
    for the full layers' K/V, which grows with the texts.
    """

    rows: int
    limit: int
    weights: int
    drafter: int
    windows: int
    work: int

    @property
    def margin(self) -> int:
        return int(MARGIN * (self.weights + self.drafter + self.windows + self.work))

    @property
    def needed(self) -> int:
        """All that is taken before the first token of a text."""
        return self.weights + self.drafter + self.windows + self.work + self.margin

    @property
    def kv_budget(self) -> int:
        """Bytes for the K/V of all rows, their windows included, and for what is kept of texts."""
        return self.limit - self.needed + self.windows

    @property
    def prompt_cache_bytes(self) -> int:
        """Bytes for K/V that is kept of texts, where the user has no wish: out of `kv_budget`."""
        return int(PROMPT_CACHE_SHARE * max(self.limit - self.needed, 0))

    def check(self) -> None:
        """Raises DoesNotFit, with the parts and the remedy, where more is needed than there is."""
        if self.needed <= self.limit:
            return
        parts = {
            "weights": self.weights,
            "drafter": self.drafter,
            f"windows of {self.rows} rows": self.windows,
            "a step's work": self.work,
            "margin": self.margin,
        }
        listed = ", ".join(f"{name} {_spell(size)}" for name, size in parts.items())
        raise DoesNotFit(
            f"{_spell(self.needed)} of memory are needed and {_spell(self.limit)} are there "
            f"({listed}); load a smaller or quantised checkpoint, or fewer rows (max_num_seqs)"
        )


def _spell(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"
