"""What follows the attention of a layer, as functions that MLX compiles once.

The host then builds that part of a layer's graph in one call and not in thirty. Shapes are left
open, so that blocks of any length take the same functions; what cuts arrays or spells out a length
must stay outside. They must not hold the layer, which holds them, so that its scalar is given.
"""

import weakref
from collections.abc import Callable
from operator import getitem, is_
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

import mlx.core as mx
import mlx.nn as nn

from mtp_mlx.model.backend import compiled
from mtp_mlx.model.ffn import geglu

if TYPE_CHECKING:
    from mtp_mlx.model.target import DecoderLayer

P = ParamSpec("P")
R = TypeVar("R")
Finish = Callable[[mx.array, mx.array, mx.array | None, mx.array], mx.array]


# What `_fresh` has given to MLX.
_FOREVER: list[Callable[..., object]] = []


def _fresh(function: Callable[P, R]) -> Callable[P, R]:
    """The function compiled, as if it had never been.

    Each thread keeps what it compiled by the address of the function, and only the one that drops
    the function forgets it. So an address must not come back: what MLX is given is small and stays
    for ever, and leads to the function without holding it.
    """
    reach = weakref.ref(function)

    def door(*arguments: P.args, **named: P.kwargs) -> R:
        own = reach()
        assert own is not None, "called by nobody but its owner"
        return own(*arguments, **named)

    _FOREVER.append(door)
    return compiled(door)


class Kept(Generic[P, R]):
    """A function of some modules, compiled; anew when a weight of theirs or a module within them
    has been replaced, since what is compiled holds the weights that it met. The modules themselves
    stay those that were given."""

    def __init__(self, function: Callable[P, R], *modules: nn.Module) -> None:
        self._function, self._compiled, self._modules = function, function, modules
        self._parts: tuple[nn.Module, ...] = ()
        self._names: tuple[str, ...] = ()
        self._values: tuple[object, ...] = ()

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> R:
        held = map(getitem, self._parts, self._names)
        if not self._parts or not all(map(is_, held, self._values)):
            self._hold()
        return self._compiled(*arguments, **named)

    def _hold(self) -> None:
        parts = [part for module in self._modules for part in module.modules()]
        held = [(part, name, value) for part in parts for name, value in part.items()]
        self._parts, self._names, self._values = zip(*held, strict=True)
        self._compiled = _fresh(self._function)


class Dense:
    """Of a layer without experts: all of it."""

    def __init__(self, layer: "DecoderLayer") -> None:
        first, mlp = layer.post_attention_layernorm, layer.mlp
        norm = layer.pre_feedforward_layernorm
        finish, modules = _finish(layer)

        def tail(
            x: mx.array, attended: mx.array, per_layer: mx.array | None, scalar: mx.array
        ) -> mx.array:
            """x and what attention made of it [N, D], per_layer [N, d], scalar [1] -> [N, D]."""
            residual = first.add(x, attended)
            return finish(residual, mlp(norm(residual)), per_layer, scalar)

        self.all = Kept(tail, first, norm, mlp, *modules)


class Mixed:
    """Of a layer with experts: what comes before them, and after."""

    def __init__(self, layer: "DecoderLayer") -> None:
        first, mlp = layer.post_attention_layernorm, layer.mlp
        norm = layer.pre_feedforward_layernorm
        own_norm, enter = layer.post_feedforward_layernorm_1, layer.pre_feedforward_layernorm_2
        routed_norm = layer.post_feedforward_layernorm_2
        finish, modules = _finish(layer)

        def before(x: mx.array, attended: mx.array) -> tuple[mx.array, mx.array, mx.array]:
            """x and what attention made of it -> the residual, the dense part and the input of the
            experts, all [N, D]."""
            residual = first.add(x, attended)
            return residual, own_norm(mlp(norm(residual))), enter(residual)

        def after(
            residual: mx.array,
            own: mx.array,
            routed: mx.array,
            per_layer: mx.array | None,
            scalar: mx.array,
        ) -> mx.array:
            """Residual, dense part and the experts' [N, D], per_layer [N, d], scalar -> [N, D]."""
            return finish(residual, routed_norm.add(own, routed), per_layer, scalar)

        self.before = Kept(before, first, norm, mlp, own_norm, enter)
        self.after = Kept(after, routed_norm, *modules)


def _finish(layer: "DecoderLayer") -> tuple[Finish, list[nn.Module]]:
    """What a layer ends with, and the modules of it."""
    last = layer.post_feedforward_layernorm
    if not layer.has_per_layer:
        return lambda residual, fed, _, scalar: last.add(residual, fed, scalar), [last]
    gate, project = layer.per_layer_input_gate, layer.per_layer_projection
    norm = layer.post_per_layer_input_norm

    def finish(
        residual: mx.array, fed: mx.array, per_layer: mx.array | None, scalar: mx.array
    ) -> mx.array:
        out = last.add(residual, fed)
        assert per_layer is not None
        return norm.add(out, project(geglu(gate(out), per_layer)), scalar)

    return finish, [last, gate, project, norm]
