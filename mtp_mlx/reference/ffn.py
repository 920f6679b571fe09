"""Feed-forward parts: the dense GeGLU MLP, the router and the experts.

Expert weights are [E, out, in] under `experts.switch_glu.{gate,up,down}_proj`, the layout of
converted checkpoints.
"""

import math

import numpy as np

from mtp_mlx.config import ExpertSpec, LayerSpec
from mtp_mlx.reference.nn import Linear, Tensors, rms_norm

CUBIC = np.float32(0.044715)  # Hendrycks and Gimpel 2016, arXiv 1606.08415, the tanh form


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """½x(1 + tanh(√(2/π)(x + 0.044715 x³)))."""
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + CUBIC * x**3)
    return np.float32(0.5) * x * (np.float32(1.0) + np.tanh(inner))


class MLP:
    """down(gelu_tanh(gate(x)) · up(x)), no biases."""

    def __init__(self, width: int, ffn_dim: int, weights: Tensors) -> None:
        self.gate_proj = Linear(width, ffn_dim, weights.under("gate_proj."))
        self.up_proj = Linear(width, ffn_dim, weights.under("up_proj."))
        self.down_proj = Linear(ffn_dim, width, weights.under("down_proj."))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x [N, D] -> [N, D]."""
        return self.down_proj(gelu_tanh(self.gate_proj(x)) * self.up_proj(x))


class Router:
    """Scores the experts for each token and keeps the best `top_k`.

    The published form: probabilities over all experts, of which the best are scaled to sum to one.
    """

    def __init__(self, width: int, spec: ExpertSpec, eps: float, weights: Tensors) -> None:
        self.top_k = spec.top_k
        self.eps = eps
        self.root = np.float32(width**-0.5)
        self.scale = weights.take("scale", width)
        self.per_expert_scale = weights.take("per_expert_scale", spec.num_experts)
        self.proj = Linear(width, spec.num_experts, weights.under("proj."))

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x [N, D] -> (expert ids [N, top_k], best first, weights [N, top_k] float32)."""
        all_ids, all_weights = [], []
        for scores in self.proj(rms_norm(x, self.eps) * self.scale * self.root):
            exponentials = np.exp(scores - scores.max())
            probabilities = exponentials / exponentials.sum()
            ids = np.argsort(-probabilities, kind="stable")[: self.top_k]
            weights = probabilities[ids] / probabilities[ids].sum()
            all_ids.append(ids)
            all_weights.append(weights * self.per_expert_scale[ids])
        return np.stack(all_ids), np.stack(all_weights)


class Experts:
    """Every token through its chosen experts, summed by weight."""

    def __init__(self, width: int, spec: ExpertSpec, weights: Tensors) -> None:
        own = weights.under("switch_glu.")
        self.gate = own.take("gate_proj.weight", spec.num_experts, spec.width, width)
        self.up = own.take("up_proj.weight", spec.num_experts, spec.width, width)
        self.down = own.take("down_proj.weight", spec.num_experts, width, spec.width)

    def __call__(self, x: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """x [N, D], ids and weights [N, top_k] -> [N, D]."""
        out = np.zeros_like(x)
        for token, row in enumerate(x):
            for expert, weight in zip(ids[token], weights[token], strict=True):
                gated = gelu_tanh(self.gate[expert] @ row) * (self.up[expert] @ row)
                out[token] += weight * (self.down[expert] @ gated)
        return out


def make_experts(
    spec: LayerSpec, width: int, eps: float, weights: Tensors
) -> tuple[Router, Experts]:
    """Router and experts of a mixture layer, whose tensors `weights` are."""
    assert spec.experts is not None
    router = Router(width, spec.experts, eps, weights.under("router."))
    return router, Experts(width, spec.experts, weights.under("experts."))
