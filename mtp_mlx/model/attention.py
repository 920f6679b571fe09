"""Attention of one decoder layer: projections, q/k/v norms, rotary positions, cache access."""

import mlx.core as mx
import mlx.nn as nn

from mtp_mlx.config import LayerSpec
from mtp_mlx.model.linear import Linear
from mtp_mlx.model.norm import RMSNorm
from mtp_mlx.model.view import View


class Attention(nn.Module):
    """Queries of this layer over the K/V of `spec.reads_from`, which may be its own.

    A layer that owns its K/V projects, norms and stores them first. With `keys_are_values` there
    is no v_proj: values are the raw key projection under a norm without weight.
    """

    def __init__(self, spec: LayerSpec, width: int, eps: float) -> None:
        super().__init__()
        self.spec = spec
        self.q_proj = Linear(width, spec.heads * spec.head_dim)
        self.q_norm = RMSNorm(spec.head_dim, eps)
        self.o_proj = Linear(spec.heads * spec.head_dim, width)
        if spec.owns_cache:
            self.k_proj = Linear(width, spec.kv_heads * spec.head_dim)
            self.k_norm = RMSNorm(spec.head_dim, eps)
            self._v_norm = RMSNorm(spec.head_dim, eps, has_weight=False)
            if not spec.keys_are_values:
                self.v_proj = Linear(width, spec.kv_heads * spec.head_dim)

    def __call__(self, x: mx.array, view: View) -> mx.array:
        """x [N, D] -> [N, D]."""
        spec, angles = self.spec, view.angles(self.spec.rope)
        queries = self.q_proj(x).reshape(-1, spec.heads, spec.head_dim)  # [N, H, K]
        queries = self.q_norm.turn(queries, angles)
        if spec.owns_cache:
            raw = self.k_proj(x).reshape(-1, spec.kv_heads, spec.head_dim)  # [N, G, K]
            values = raw if spec.keys_are_values else self.v_proj(x).reshape(raw.shape)
            view.write(spec.index, self.k_norm.turn(raw, angles), self._v_norm(values))
        return self.o_proj(view.attend(spec.reads_from, queries))
