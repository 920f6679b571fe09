"""The Gemma 4 text model: tokens in, hidden states and logits out, K/V into the cache.

Attribute names are the canonical checkpoint keys (`mtp_mlx.keys`). Source of the formulas:
Transformers 5.14.1, models/gemma4.
"""

from collections.abc import Mapping

import numpy as np

from mtp_mlx.config import LayerSpec, TargetConfig
from mtp_mlx.reference.attention import Attention
from mtp_mlx.reference.batch import Batch
from mtp_mlx.reference.cache import Cache
from mtp_mlx.reference.ffn import MLP, gelu_tanh, make_experts
from mtp_mlx.reference.head import tied_head
from mtp_mlx.reference.nn import Embedding, Linear, RMSNorm, Tensors
from mtp_mlx.reference.routes import Routes
from mtp_mlx.reference.view import View, target_view


class DecoderLayer:
    """One layer, of target or drafter; every residual branch ends in a norm."""

    def __init__(
        self, spec: LayerSpec, width: int, eps: float, per_layer_dim: int, weights: Tensors
    ) -> None:
        def norm(name: str) -> RMSNorm:
            return RMSNorm(width, eps, weights.under(name + "."))

        self.has_experts = spec.experts is not None
        self.num_experts = 0 if spec.experts is None else spec.experts.num_experts
        self.self_attn = Attention(spec, width, eps, weights.under("self_attn."))
        self.mlp = MLP(width, spec.ffn_dim, weights.under("mlp."))
        self.input_layernorm = norm("input_layernorm")
        self.post_attention_layernorm = norm("post_attention_layernorm")
        self.pre_feedforward_layernorm = norm("pre_feedforward_layernorm")
        self.post_feedforward_layernorm = norm("post_feedforward_layernorm")
        self.layer_scalar = weights.take("layer_scalar", 1)
        if self.has_experts:
            self.router, self.experts = make_experts(spec, width, eps, weights)
            self.post_feedforward_layernorm_1 = norm("post_feedforward_layernorm_1")
            self.post_feedforward_layernorm_2 = norm("post_feedforward_layernorm_2")
            self.pre_feedforward_layernorm_2 = norm("pre_feedforward_layernorm_2")
        if per_layer_dim:
            gate, projection = "per_layer_input_gate.", "per_layer_projection."
            self.per_layer_input_gate = Linear(width, per_layer_dim, weights.under(gate))
            self.per_layer_projection = Linear(per_layer_dim, width, weights.under(projection))
            self.post_per_layer_input_norm = norm("post_per_layer_input_norm")

    def __call__(
        self,
        x: np.ndarray,
        view: View,
        per_layer: np.ndarray | None = None,
        routes: Routes | None = None,
    ) -> np.ndarray:
        """x [N, D], per_layer [N, d] or None -> [N, D]; `routes` is told the experts chosen."""
        attended = self.self_attn(self.input_layernorm(x), view)
        residual = x + self.post_attention_layernorm(attended)
        mixed = self.mlp(self.pre_feedforward_layernorm(residual))
        if self.has_experts:
            ids, weights = self.router(residual)
            if routes is not None:
                routes.add(ids, self.num_experts)
            routed = self.experts(self.pre_feedforward_layernorm_2(residual), ids, weights)
            routed = self.post_feedforward_layernorm_2(routed)
            mixed = self.post_feedforward_layernorm_1(mixed) + routed
        out = residual + self.post_feedforward_layernorm(mixed)
        if per_layer is not None:
            gated = gelu_tanh(self.per_layer_input_gate(out)) * per_layer
            out = out + self.post_per_layer_input_norm(self.per_layer_projection(gated))
        return out * self.layer_scalar


class Target:
    """Gemma 4 from its config and weights (canonical key -> array).

    Raises CheckpointError for a missing, unexpected or misshapen tensor.
    """

    def __init__(self, config: TargetConfig, weights: Mapping[str, np.ndarray]) -> None:
        self.config = config
        width, eps, per_layer_dim = config.hidden_size, config.rms_norm_eps, config.per_layer_dim
        tensors = Tensors(weights, config.source)
        self.embed_tokens = Embedding(config.vocab_size, width, tensors.under("embed_tokens."))
        self.layers = [
            DecoderLayer(spec, width, eps, per_layer_dim, tensors.under(f"layers.{spec.index}."))
            for spec in config.layers
        ]
        self.norm = RMSNorm(width, eps, tensors.under("norm."))
        if per_layer_dim:
            total = per_layer_dim * len(config.layers)
            table, norm = "embed_tokens_per_layer.", "per_layer_projection_norm."
            projection = "per_layer_model_projection."
            self.embed_tokens_per_layer = Embedding(config.vocab_size, total, tensors.under(table))
            self.per_layer_model_projection = Linear(width, total, tensors.under(projection))
            self.per_layer_projection_norm = RMSNorm(per_layer_dim, eps, tensors.under(norm))
        tensors.check_all_taken()

    @property
    def dtype(self) -> np.dtype:
        """Type of activations and K/V."""
        return self.norm.weight.dtype

    def new_cache(self, num_slots: int, max_block: int) -> Cache:
        """An empty cache for `num_slots` rows and blocks of at most `max_block` tokens."""
        return Cache(self.config.layers, num_slots, max_block, self.dtype)

    def embed(self, tokens: np.ndarray) -> np.ndarray:
        """Scaled embeddings [N, D]. Raises ValueError for an id outside the vocabulary."""
        return self.embed_tokens(tokens) * np.float32(self.config.hidden_size**0.5)

    def __call__(self, batch: Batch, cache: Cache, routes: Routes | None = None) -> np.ndarray:
        """Hidden states [N, D] after the final norm; K/V are written provisionally.

        `routes` is told which experts each layer chose.
        """
        x = self.embed(batch.tokens)
        per_layer = self._per_layer_inputs(batch.tokens, x)
        view = target_view(cache, batch)
        for index, layer in enumerate(self.layers):
            x = layer(x, view, None if per_layer is None else per_layer[:, index], routes)
        return self.norm(x)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Logits [N, V] float32 of hidden [N, D]."""
        return tied_head(hidden, self.embed_tokens, self.config.logit_softcap)

    def _per_layer_inputs(self, tokens: np.ndarray, x: np.ndarray) -> np.ndarray | None:
        """[N, layers, d]: a token part and a part projected from the scaled embedding x."""
        dim = self.config.per_layer_dim
        if not dim:
            return None
        shape = (len(tokens), len(self.layers), dim)
        token_part = self.embed_tokens_per_layer(tokens).reshape(shape) * np.float32(dim**0.5)
        projected = self.per_layer_model_projection(x) * np.float32(self.config.hidden_size**-0.5)
        context_part = self.per_layer_projection_norm(projected.reshape(shape))
        return (context_part + token_part) * np.float32(2**-0.5)
