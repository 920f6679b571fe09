"""The memory plan: what a pair, its rows and a prefill take, in bytes, before any is allocated.

MLX cannot refuse an allocation that does not fit: on a CPU the process dies, on a Mac the machine
may. So a pair is only loaded, and a request only admitted, when this arithmetic says that it fits.
The engine allocates no more for a row than it reserved by `row_bytes`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from mtp_mlx.config import LayerSpec, TargetConfig
from mtp_mlx.errors import DoesNotFit
from mtp_mlx.request import MAX_DRAFT_TOKENS
from mtp_mlx.validate import ITEM_BYTES

PREFILL_CHUNK = 1024  # tokens of a prompt that one forward takes
MAX_BLOCK = MAX_DRAFT_TOKENS + 1  # tokens that a row may write before it commits any

# Reads and buffers of a full layer are rounded up to this many keys: softmax then sums the same
# lanes in the same order however many masked keys follow, which keeps rows bit-identical on CPU.
KEY_STEP = 64
SCORE_BYTES = 256 << 20  # bound of one attention call's scores (model/view.py)
PROMPT_CACHE_SHARE = 0.2  # of what a plan leaves, for texts that later requests take up
# Measured on CPU, where MLX frees a value some operations after its last use. Of a round's logits,
# in float32: what top-k, noise and their sums leave behind one another.
ROUND_COPIES = 10
F32_BYTES = 4
FLOAT_MASK = 5  # bytes of a mask's entry in float32: as a boolean, and as what is added to a score
LAYERS_ALIVE = 2  # layers of a prompt chunk whose values are there at once
PER_LAYER_COPIES = 4  # of the per-layer inputs, while they are made
MARGIN = 0.10  # of everything else: allocator, graphs, the runtime itself
FLOATS = ("F64", "F32", "F16", "BF16")  # what is cast to the type of the activations


class Stored(Protocol):
    """A tensor of a file, as far as its size goes."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


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


def windows_bytes(layers: tuple[LayerSpec, ...], slots: int, itemsize: int) -> int:
    """Sliding K/V of all slots, their growth included."""
    rings = slots * ring_bytes(layers, MAX_BLOCK, itemsize)
    return rings + ring_growth_bytes(layers, slots, MAX_BLOCK, itemsize)


def text_bytes(layers: tuple[LayerSpec, ...], tokens: int, itemsize: int) -> int:
    """Full-attention K/V of a row of at most `tokens` positions, its growth included."""
    return row_bytes(layers, tokens, itemsize) + growth_bytes(layers, tokens, itemsize)


def weight_bytes(tensors: Iterable[Stored], itemsize: int) -> int:
    """A model's weights once they are loaded: floats of `itemsize` bytes, all else as stored."""
    return sum(
        math.prod(info.shape) * (itemsize if info.dtype in FLOATS else ITEM_BYTES[info.dtype])
        for info in tensors
    )


def work_bytes(
    config: TargetConfig, context: int, num_tokens: int, itemsize: int, chunk: int = PREFILL_CHUNK
) -> int:
    """What a step needs beside weights and K/V, at most: a chunk of a prompt of `context` tokens,
    or the scores of a round of `num_tokens`, whichever is more."""
    last = context % chunk
    chunks = [(last, context), (min(chunk, context), context - last or context)]
    prefill = max(_prefill_bytes(config, count, end, itemsize) for count, end in chunks)
    return max(prefill, ROUND_COPIES * 4 * num_tokens * config.vocab_size)


def _prefill_bytes(config: TargetConfig, chunk: int, end: int, itemsize: int) -> int:
    """A prompt chunk of `chunk` tokens that reaches position `end`: what its tokens are worth in
    the widest layer and the one after it, keys and values that wait to be stored in the rings,
    inputs of all layers, scores, masks, and one row of logits."""
    layers = config.layers
    widest = max(
        config.hidden_size + 3 * layer.ffn_dim + 2 * layer.heads * layer.head_dim
        for layer in layers
    )
    routed = [
        layer.experts.top_k * (config.hidden_size + 3 * layer.experts.width)
        for layer in layers
        if layer.experts is not None
    ]
    waiting = sum(2 * _kv_width(layer) for layer in layers if layer.window and layer.owns_cache)
    inputs = PER_LAYER_COPIES * config.per_layer_dim * len(layers)
    values = LAYERS_ALIVE * (widest + max(routed, default=0)) + waiting + inputs
    keys = {layer.window: _keys_read(layer, end) for layer in layers}
    scores = max(4 * layer.heads * chunk * keys[layer.window] for layer in layers)
    masks = (FLOAT_MASK if itemsize == F32_BYTES else 1) * chunk * sum(keys.values())
    return chunk * values * itemsize + min(SCORE_BYTES, scores) + masks + 4 * config.vocab_size


def _keys_read(layer: LayerSpec, end: int) -> int:
    """Keys that each token of a chunk up to position `end` is compared with: all, or at most those
    of two laps of a ring."""
    if layer.window is None:
        return round_up(end, KEY_STEP)
    capacity = layer.window + MAX_BLOCK
    return min(round_up(end, KEY_STEP), round_up(capacity, KEY_STEP) + capacity)


def _kv_width(layer: LayerSpec) -> int:
    return layer.kv_heads * layer.head_dim


@dataclass(frozen=True)
class Plan:
    """Bytes by purpose of a pair that decodes up to `rows` rows, and the most it may take.

    windows: K/V of the sliding layers of all rows. work: see `work_bytes`. What `limit` leaves is
    for the full layers' K/V, which grows with the texts; `texts` is what `rows` texts of `tokens`
    tokens each set aside of it, and `peak` the most memory that will be in use while they are
    written, with the longest drafts, as far as arithmetic tells.
    """

    rows: int
    limit: int
    weights: int
    drafter: int
    windows: int
    work: int
    tokens: int = 0
    texts: int = 0
    peak: int = 0

    @property
    def margin(self) -> int:
        return int(MARGIN * (self.weights + self.drafter + self.windows + self.work))

    @property
    def needed(self) -> int:
        """All that is taken before the first token of a text."""
        return self.weights + self.drafter + self.windows + self.work + self.margin

    @property
    def total(self) -> int:
        """All that must be there for the pair to be loaded and all its texts to be written at
        once."""
        return self.needed + self.texts

    @property
    def fits(self) -> bool:
        return self.total <= self.limit

    @property
    def kv_budget(self) -> int:
        """Bytes for the K/V of all rows, their windows included, and for what is kept of texts."""
        return self.limit - self.needed + self.windows

    @property
    def prompt_cache_bytes(self) -> int:
        """Bytes for K/V that is kept of texts, where the user has no wish: out of `kv_budget`."""
        return int(PROMPT_CACHE_SHARE * max(self.limit - self.needed, 0))

    def parts(self) -> dict[str, int]:
        """What `total` is the sum of, by name."""
        parts = {
            "weights": self.weights,
            "drafter": self.drafter,
            f"windows of {self.rows} rows": self.windows,
            f"K/V of {self.tokens:,} tokens a row": self.texts,
            "a step's work": self.work,
            "margin": self.margin,
        }
        return {name: size for name, size in parts.items() if size or not name.startswith("K/V")}

    def check(self) -> None:
        """Raises DoesNotFit, with the parts and the remedy, where more is needed than there is."""
        if self.fits:
            return
        listed = ", ".join(f"{name} {spell(size)}" for name, size in self.parts().items())
        raise DoesNotFit(
            f"{spell(self.total)} of memory are needed and {spell(self.limit)} are there "
            f"({listed}); load a smaller or quantised checkpoint, or fewer rows (max_num_seqs)"
        )


def make_plan(  # noqa: PLR0913 - what a plan is made of
    config: TargetConfig,
    tensors: tuple[Iterable[Stored], Iterable[Stored]],
    rows: int,
    itemsize: int,
    limit: int,
    tokens: int = 0,
    chunk: int = PREFILL_CHUNK,
) -> Plan:
    """The plan of a target and its drafter, whose tensors are given (none: it decodes plainly),
    and of `rows` texts that may reach `tokens` tokens; 0: nothing is set aside for them yet.
    itemsize: of the activations."""
    layers = config.layers
    weights, drafter = (weight_bytes(each, itemsize) for each in tensors)
    round_tokens = rows * (MAX_BLOCK if drafter else 1)
    plan = Plan(
        rows=rows,
        limit=limit,
        weights=weights,
        drafter=drafter,
        windows=windows_bytes(layers, rows, itemsize),
        work=work_bytes(config, config.max_positions, round_tokens, itemsize, chunk),
    )
    if not tokens:
        return plan
    most = tokens + MAX_BLOCK
    held = row_bytes(layers, most, itemsize) + ring_bytes(layers, MAX_BLOCK, itemsize)
    step = work_bytes(config, tokens, round_tokens, itemsize, chunk)
    return replace(
        plan,
        tokens=tokens,
        texts=rows * text_bytes(layers, most, itemsize),
        peak=weights + drafter + rows * held + step,
    )


def spell(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"
