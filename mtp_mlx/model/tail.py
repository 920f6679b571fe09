"""What follows the attention of a layer, as functions that MLX compiles once.

The host then builds the graph of a layer in one call and not in thirty. Shapes are left open, so
that blocks of any length take the same functions, and their results are those of the modules to the
bit. What a function holds is held for good: weights are read when it is made, at a layer's first
call, and it must not hold the layer, which holds it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import mlx.core as mx

from mtp_mlx.model.backend import compiled
from mtp_mlx.model.ffn import geglu

if TYPE_CHECKING:
    from mtp_mlx.model.target import DecoderLayer

PerLayer = mx.array | None
Finish = Callable[[mx.array, mx.array, PerLayer], mx.array]
Entered = tuple[mx.array, mx.array, mx.array]


def dense(layer: "DecoderLayer") -> Callable[[mx.array, mx.array, PerLayer], mx.array]:
    """Of a layer without experts: its input and what attention made of it, both [N, D], and its
    per-layer input [N, d] -> [N, D]."""
    add, norm, mlp = layer.post_attention_layernorm.add, layer.pre_feedforward_layernorm, layer.mlp
    finish = _finish(layer)

    def tail(x: mx.array, attended: mx.array, per_layer: PerLayer) -> mx.array:
        residual = add(x, attended)
        return finish(residual, mlp(norm(residual)), per_layer)

    return compiled(tail)


def before_experts(layer: "DecoderLayer") -> Callable[[mx.array, mx.array], Entered]:
    """The residual, the dense part and the input of the experts, all [N, D]."""
    add, norm, mlp = layer.post_attention_layernorm.add, layer.pre_feedforward_layernorm, layer.mlp
    enter, leave = layer.pre_feedforward_layernorm_2, layer.post_feedforward_layernorm_1

    def tail(x: mx.array, attended: mx.array) -> Entered:
        residual = add(x, attended)
        return residual, leave(mlp(norm(residual))), enter(residual)

    return compiled(tail)


def after_experts(
    layer: "DecoderLayer",
) -> Callable[[mx.array, mx.array, mx.array, PerLayer], mx.array]:
    """Residual, dense part and what the experts made, all [N, D] -> [N, D]."""
    add, finish = layer.post_feedforward_layernorm_2.add, _finish(layer)

    def tail(residual: mx.array, own: mx.array, routed: mx.array, per_layer: PerLayer) -> mx.array:
        return finish(residual, add(own, routed), per_layer)

    return compiled(tail)


def _finish(layer: "DecoderLayer") -> Finish:
    last, scalar = layer.post_feedforward_layernorm, layer.layer_scalar
    if not layer.has_per_layer:
        return lambda residual, fed, _: last.add(residual, fed, scalar)
    gate, project = layer.per_layer_input_gate, layer.per_layer_projection
    norm = layer.post_per_layer_input_norm

    def finish(residual: mx.array, fed: mx.array, per_layer: PerLayer) -> mx.array:
        out = last.add(residual, fed)
        assert per_layer is not None
        return norm.add(out, project(geglu(gate(out), per_layer)), scalar)

    return finish
