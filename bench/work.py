"""What a forward and a round must move and compute at least, counted from the configs.

Every matrix that the tokens need is read once, however many tokens share it; every key and value
that some query may see once by each layer that reads it, also where layers share them: no cache of
a chip holds them from one to the next. New ones are written. What is not counted: activations,
logits, norms' arithmetic, what a kernel reads twice. So times computed from this are floors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from mtp_mlx.config import DrafterConfig, LayerSpec, TargetConfig
from mtp_mlx.engine.policy import Experts
from mtp_mlx.fit import Stored, weight_bytes
from mtp_mlx.shapes import Shapes, drafter_shapes, stored, target_shapes

# Parts of a model's weights, by what its keys begin with or hold; all else is dense.
TABLE, PER_LAYER_TABLE, EXPERTS = "embed_tokens.", "embed_tokens_per_layer.", ".experts."
ORDERING = "masked_embedding.token_ordering"
ID_BYTES = 4  # of an entry of the token ordering, once it is loaded


@dataclass(frozen=True)
class Work:
    """Bytes by purpose, and operations (a multiplication and an addition are two).

    dense: matrices and norms that all tokens share, and the embedding rows of the tokens. kv: keys
    and values read and written. drafter: all that the draft steps move.
    """

    dense: float = 0.0
    experts: float = 0.0
    head: float = 0.0
    kv: float = 0.0
    drafter: float = 0.0
    operations: float = 0.0

    @property
    def bytes(self) -> float:
        return self.dense + self.experts + self.head + self.kv + self.drafter

    def __add__(self, other: "Work") -> "Work":
        names = [field.name for field in fields(self)]
        return Work(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def seconds(self, bandwidth: float) -> float:
        """The least time it takes where so many bytes a second can be moved."""
        return self.bytes / bandwidth


@dataclass(frozen=True)
class Weights:
    """Bytes of a model in memory, by part, where floats take `itemsize` bytes."""

    dense: int
    experts: int
    table: int
    per_layer_table: int
    ordering: int

    @property
    def total(self) -> int:
        return self.dense + self.experts + self.table + self.per_layer_table + self.ordering


def weights_of(tensors: Mapping[str, Stored], itemsize: int) -> Weights:
    """The parts of a model with these tensors."""
    parts = dict.fromkeys((TABLE, PER_LAYER_TABLE, EXPERTS, ORDERING, ""), 0)
    for key, tensor in tensors.items():
        if key == ORDERING:
            parts[ORDERING] += ID_BYTES * tensor.shape[0]
            continue
        part = next(name for name in parts if name in key)
        parts[part] += weight_bytes([tensor], itemsize)
    return Weights(parts[""], parts[EXPERTS], parts[TABLE], parts[PER_LAYER_TABLE], parts[ORDERING])


class Pair:
    """A target and its drafter, whose activations and K/V take `itemsize` bytes a value."""

    def __init__(self, target: TargetConfig, drafter: DrafterConfig, itemsize: int) -> None:
        self.target, self.drafter, self.itemsize = target, drafter, itemsize
        shapes = target_shapes(target), drafter_shapes(drafter)
        self.weights = weights_of(stored(shapes[0], target.quantization), itemsize)
        self.drafter_weights = weights_of(stored(shapes[1], drafter.quantization), itemsize)
        self._per_token = _dense_operations(shapes[0])
        self._per_draft = _dense_operations(shapes[1])

    def distinct(self, num_tokens: float) -> float:
        """Experts that a layer reads for so many tokens, each routed on its own; 0 without."""
        layer = next((layer for layer in self.target.layers if layer.experts is not None), None)
        if layer is None or layer.experts is None:
            return 0.0
        spec = layer.experts
        if spec.top_k == spec.num_experts:
            return float(spec.num_experts)
        return Experts(spec.num_experts, spec.top_k, 0.0).distinct(num_tokens)

    def forward(self, rows: int, tokens: int, context: int, distinct: float | None = None) -> Work:
        """The target over `tokens` tokens of each row, behind `context` cached ones.

        distinct: experts read in a layer, where they were counted.
        """
        count = rows * tokens
        target, weights = self.target, self.weights
        layers, vocab, width = target.layers, target.vocab_size, target.hidden_size
        experts = [layer.experts for layer in layers if layer.experts is not None]
        share = 0.0
        if experts:
            read = self.distinct(count) if distinct is None else distinct
            share = read / experts[0].num_experts
        chosen = sum(6 * spec.top_k * spec.width * width for spec in experts)
        gathered = count * (weights.table + weights.per_layer_table) / vocab
        seen = sum(_attention(layer, tokens, context) for layer in layers)
        return Work(
            dense=weights.dense + gathered,
            experts=share * weights.experts,
            head=weights.table,
            kv=rows * sum(_kv_bytes(layer, tokens, context, self.itemsize) for layer in layers),
            operations=count * (self._per_token + chosen + 2 * vocab * width) + rows * seen,
        )

    def draft_step(self, rows: int, context: int) -> Work:
        """One draft of each row, behind `context` cached tokens."""
        config, weights = self.drafter, self.drafter_weights
        layers, vocab, width = config.layers, config.vocab_size, config.hidden_size
        scored, table, ordering = vocab, float(weights.table), 0
        if config.centroids is not None:
            per_row = config.centroids.top_k * vocab // config.centroids.num
            scored, ordering = per_row, rows * per_row * ID_BYTES
            table *= min(rows * per_row, vocab) / vocab
        embedded = rows * self.weights.table / self.target.vocab_size
        kv = sum(_reads(layer, context) * _kv_size(layer, self.itemsize) for layer in layers)
        seen = sum(4 * each.heads * each.head_dim * _reads(each, context) for each in layers)
        return Work(
            drafter=weights.dense + table + ordering + embedded + rows * kv,
            operations=rows * (self._per_draft + 2 * scored * width + seen),
        )

    def round(self, rows: int, drafts: int, context: int, distinct: float | None = None) -> Work:
        """A round in which every row makes `drafts` drafts, all of which are verified."""
        steps = [self.draft_step(rows, context)] * drafts
        return sum(steps, self.forward(rows, 1 + drafts, context, distinct))


def _dense_operations(shapes: Shapes) -> int:
    """Of a token, by the matrices that every token goes through: no tables, no experts."""
    skipped = (TABLE, PER_LAYER_TABLE, EXPERTS)
    return sum(
        2 * math.prod(shape)
        for key, shape in shapes.items()
        if len(shape) > 1 and not any(part in key for part in skipped)
    )


def _kv_size(layer: LayerSpec, itemsize: int) -> int:
    """Bytes of the key and the value of one position."""
    return 2 * layer.kv_heads * layer.head_dim * itemsize


def _reads(layer: LayerSpec, context: int) -> int:
    """Cached positions that a query right behind them sees, without itself, or a draft sees."""
    return context if layer.window is None else min(context, layer.window)


def _kv_bytes(layer: LayerSpec, tokens: int, context: int, itemsize: int) -> int:
    """What one row's tokens read of the cache and write to it. A query sees itself, so that a
    window reaches one less back."""
    seen = context if layer.window is None else min(context, layer.window - 1)
    return (seen + tokens * layer.owns_cache) * _kv_size(layer, itemsize)


def _attention(layer: LayerSpec, tokens: int, context: int) -> int:
    """Operations of one row's queries over the keys that they see."""
    ends = range(context + 1, context + tokens + 1)
    keys = sum(end if layer.window is None else min(end, layer.window) for end in ends)
    return 4 * layer.heads * layer.head_dim * keys
