"""Attention of one decoder layer: projections, q/k/v norms, rotary positions, cache access."""

import mlx.core as mx
import mlx.nn as nn

from mtp_mlx.config import LayerSpec
from mtp_mlx.model.rope import rotate
from mtp_mlx.model.view import View


class Attention(nn.Module):
    """Queries of this layer over the K/V of `spec.reads_from`, which may be its own.

    A layer that owns its K/V projects, norms and stores them first. With `keys_are_values` there
    is no v_proj: values are the raw key projection under a norm without weight.
    """

    def __init__(self, spec: LayerSpec, width: int, eps: float) -> None:
        super().__init__()
        self.spec = spec
        self.eps = eps
        self.q_proj = nn.Linear(width, spec.heads * spec.head_dim, bias=False)
        self.q_norm = nn.RMSNorm(spec.head_dim, eps=eps)
        self.o_proj = nn.Linear(spec.heads * spec.head_dim, width, bias=False)
        if spec.owns_cache:
            self.k_proj = nn.Linear(width, spec.kv_heads * spec.head_dim, bias=False)
            self.k_norm = nn.RMSNorm(spec.head_dim, eps=eps)
            if not spec.keys_are_values:
                self.v_proj = nn.Linear(width, spec.kv_heads * spec.head_dim, bias=False)

    def __call__(self, x: mx.array, view: View) -> mx.array:
        """x [N, D] -> [N, D]."""
        spec, angles = self.spec, view.angles(self.spec.rope)
        queries = self.q_proj(x).reshape(-1, spec.heads, spec.head_dim)  # [N, H, K]
        queries = rotate(self.q_norm(queries), angles)
        if spec.owns_cache:
            raw = self.k_proj(x).reshape(-1, spec.kv_heads, spec.head_dim)  # [N, G, K]
            values = raw if spec.keys_are_values else self.v_proj(x).reshape(raw.shape)
            keys = rotate(self.k_norm(raw), angles)
            view.write(spec.index, keys, mx.fast.rms_norm(values, None, self.eps))
        return self.o_proj(view.attend(spec.reads_from, queries))
