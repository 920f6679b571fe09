"""Feed-forward parts: the dense GeGLU MLP, the router and our own expert layer.

Expert weights are [E, out, in] under `experts.switch_glu.{gate,up,down}_proj`, the layout of
converted checkpoints. Rows are sorted by expert when there are many, so that equal experts meet.
"""

import mlx.core as mx
import mlx.nn as nn

from mtp_mlx.config import ExpertSpec, LayerSpec
from mtp_mlx.model.backend import compiled, exp, on_gpu
from mtp_mlx.model.linear import Linear
from mtp_mlx.model.norm import Folded, is_own, scaled

# Sorting costs two gathers; below this many (token, expert) pairs it saves nothing.
SORT_FROM = 64

_SQRT_2_OVER_PI = 0.7978845608028654


def gelu_tanh(x: mx.array) -> mx.array:
    """½x(1 + tanh(√(2/π)(x + 0.044715 x³))), in float32 before it is rounded."""
    wide = x.astype(mx.float32)
    return (0.5 * wide * (1.0 + mx.tanh(_inner(wide)))).astype(x.dtype)


def gelu_own(x: mx.array) -> mx.array:
    """The same for CPU: ½(1 + tanh u) is 1 / (1 + e^-2u)."""
    wide = x.astype(mx.float32)
    return (wide / (1.0 + exp(-2.0 * _inner(wide)))).astype(x.dtype)


def _inner(wide: mx.array) -> mx.array:
    return wide * (_SQRT_2_OVER_PI + (0.044715 * _SQRT_2_OVER_PI) * (wide * wide))


@compiled
def _geglu(gate: mx.array, up: mx.array) -> mx.array:
    return gelu_tanh(gate) * up


@compiled
def _geglu_own(gate: mx.array, up: mx.array) -> mx.array:
    return gelu_own(gate) * up


def geglu(gate: mx.array, up: mx.array) -> mx.array:
    """gelu_tanh(gate) · up."""
    return _geglu(gate, up) if on_gpu() else _geglu_own(gate, up)


class MLP(nn.Module):
    """down(gelu_tanh(gate(x)) · up(x)), no biases."""

    def __init__(self, width: int, ffn_dim: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, ffn_dim)
        self.up_proj = Linear(width, ffn_dim)
        self.down_proj = Linear(ffn_dim, width)

    def __call__(self, x: mx.array) -> mx.array:
        """x [N, D] -> [N, D]."""
        return self.down_proj(geglu(self.gate_proj(x), self.up_proj(x)))


class Router(nn.Module):
    """Scores the experts for each token and keeps the best `top_k`."""

    def __init__(self, width: int, spec: ExpertSpec, eps: float) -> None:
        super().__init__()
        self.top_k = spec.top_k
        self.eps = eps
        self.root = width**-0.5
        self._folded: Folded | None = None
        self.scale = mx.ones((width,))
        self.per_expert_scale = mx.ones((spec.num_experts,))
        self.proj = Linear(width, spec.num_experts)

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """x [N, D] -> (expert ids [N, top_k], weights [N, top_k] float32)."""
        scores = self.proj(self._scaled(x)).astype(mx.float32)  # [N, E]
        ids = mx.argpartition(scores, kth=-self.top_k, axis=-1)[:, -self.top_k :]
        weights = mx.softmax(mx.take_along_axis(scores, ids, axis=-1), axis=-1)
        return ids, weights * self.per_expert_scale[ids].astype(mx.float32)

    def _scaled(self, x: mx.array) -> mx.array:
        """The norm of x, times scale / √D, in float32 before it is rounded."""
        if not is_own(x):
            normed = mx.fast.rms_norm(x, self.scale, self.eps).astype(mx.float32)
            return (normed * self.root).astype(x.dtype)
        scale = self["scale"]
        if self._folded is None or self._scale is not scale:
            self._scale, width = scale, x.shape[-1]
            self._folded = Folded.of(width, scale * self.root, self.eps)
        return scaled(x, self._folded)


class ExpertLinear(nn.Module):
    """One matrix [out, in] per expert."""

    def __init__(self, num_experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = mx.zeros((num_experts, outputs, inputs))

    def __call__(self, x: mx.array, ids: mx.array, *, is_sorted: bool) -> mx.array:
        """x [..., 1, in] under expert ids [...] -> [..., 1, out]; x may be one for several ids."""
        weight = self.weight.swapaxes(-1, -2)
        return mx.gather_mm(x, weight, rhs_indices=ids, sorted_indices=is_sorted)

    def to_quantized(
        self, group_size: int, bits: int, mode: str = "affine", quantize_input: bool = False
    ) -> "QuantizedExpertLinear":
        """The quantised form; called by mlx.nn.quantize."""
        if quantize_input:
            raise ValueError("experts do not quantise their inputs")
        return QuantizedExpertLinear(self.weight, group_size, bits, mode)


class QuantizedExpertLinear(nn.Module):
    """One quantised matrix per expert: weight [E, out, in·bits/32], scales [E, out, in/group]."""

    def __init__(self, weight: mx.array, group_size: int, bits: int, mode: str) -> None:
        super().__init__()
        self.group_size, self.bits, self.mode = group_size, bits, mode
        self.weight, self.scales, *biases = mx.quantize(weight, group_size, bits, mode=mode)
        if biases:
            self.biases = biases[0]

    def __call__(self, x: mx.array, ids: mx.array, *, is_sorted: bool) -> mx.array:
        """x [..., 1, in] under expert ids [...] -> [..., 1, out]; x may be one for several ids."""
        return mx.gather_qmm(
            x,
            self.weight,
            self.scales,
            self.biases if self.mode == "affine" else None,
            rhs_indices=ids,
            transpose=True,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            sorted_indices=is_sorted,
        )


class SwitchGLU(nn.Module):
    """The experts' GeGLU matrices."""

    def __init__(self, width: int, spec: ExpertSpec) -> None:
        super().__init__()
        self.gate_proj = ExpertLinear(spec.num_experts, width, spec.width)
        self.up_proj = ExpertLinear(spec.num_experts, width, spec.width)
        self.down_proj = ExpertLinear(spec.num_experts, spec.width, width)

    def __call__(self, x: mx.array, ids: mx.array, *, is_sorted: bool) -> mx.array:
        """x [..., 1, D] under expert ids [...] -> [..., 1, D]."""
        gate = self.gate_proj(x, ids, is_sorted=is_sorted)
        up = self.up_proj(x, ids, is_sorted=is_sorted)
        return self.down_proj(geglu(gate, up), ids, is_sorted=is_sorted)


class Experts(nn.Module):
    """Every token through its chosen experts, summed by weight."""

    def __init__(self, width: int, spec: ExpertSpec) -> None:
        super().__init__()
        self.switch_glu = SwitchGLU(width, spec)

    def __call__(self, x: mx.array, ids: mx.array, weights: mx.array) -> mx.array:
        """x [N, D], ids and weights [N, top_k] -> [N, D]; product and sum in float32."""
        num_tokens, top_k = ids.shape
        if ids.size >= SORT_FROM:
            flat = ids.reshape(-1)
            order = mx.argsort(flat)
            rows = x[order // top_k][:, None]  # [P, 1, D]
            out = self.switch_glu(rows, flat[order], is_sorted=True)
            out = out[mx.argsort(order)].reshape(num_tokens, top_k, -1)
        else:
            out = self.switch_glu(x[:, None, None], ids, is_sorted=False).squeeze(2)
        return (out.astype(mx.float32) * weights[..., None]).sum(axis=1).astype(x.dtype)


def make_experts(spec: LayerSpec, width: int, eps: float) -> tuple[Router, Experts]:
    """Router and experts of a mixture layer."""
    assert spec.experts is not None
    return Router(width, spec.experts, eps), Experts(width, spec.experts)
