"""Attention of one decoder layer: projections, q/k/v norms, rotary positions, cache access."""

import numpy as np

from mtp_mlx.config import LayerSpec
from mtp_mlx.reference.nn import Linear, RMSNorm, Tensors, rms_norm
from mtp_mlx.reference.rope import rotate
from mtp_mlx.reference.view import View


class Attention:
    """Queries of this layer over the K/V of `spec.reads_from`, which may be its own.

    A layer that owns its K/V projects, norms and stores them first. With `keys_are_values` there
    is no v_proj: values are the raw key projection under a norm without weight.
    """

    def __init__(self, spec: LayerSpec, width: int, eps: float, weights: Tensors) -> None:
        self.spec = spec
        self.eps = eps
        inner, outer = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.q_proj = Linear(width, inner, weights.under("q_proj."))
        self.q_norm = RMSNorm(spec.head_dim, eps, weights.under("q_norm."))
        self.o_proj = Linear(inner, width, weights.under("o_proj."))
        if spec.owns_cache:
            self.k_proj = Linear(width, outer, weights.under("k_proj."))
            self.k_norm = RMSNorm(spec.head_dim, eps, weights.under("k_norm."))
            if not spec.keys_are_values:
                self.v_proj = Linear(width, outer, weights.under("v_proj."))

    def __call__(self, x: np.ndarray, view: View) -> np.ndarray:
        """x [N, D] -> [N, D]."""
        angles = view.angles(self.spec.rope)
        if self.spec.owns_cache:
            raw_keys = self._heads(self.k_proj(x), self.spec.kv_heads)  # [N, G, K]
            if self.spec.keys_are_values:
                raw_values = raw_keys
            else:
                raw_values = self._heads(self.v_proj(x), self.spec.kv_heads)
            keys = rotate(self.k_norm(raw_keys), angles)
            view.write(self.spec.index, keys, rms_norm(raw_values, self.eps))
        queries = self._heads(self.q_proj(x), self.spec.heads)  # [N, H, K]
        queries = rotate(self.q_norm(queries), angles)
        return self.o_proj(view.attend(self.spec.reads_from, queries))

    def _heads(self, x: np.ndarray, heads: int) -> np.ndarray:
        return x.reshape(len(x), heads, self.spec.head_dim)
