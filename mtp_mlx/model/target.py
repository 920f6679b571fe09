"""The Gemma 4 text model: tokens in, hidden states and logits out, K/V into the cache.

Attribute names are the canonical checkpoint keys (`mtp_mlx.keys`). Source of the formulas:
Transformers 5.14.1, models/gemma4.
"""

from collections.abc import Mapping
from functools import cached_property

import mlx.core as mx
import mlx.nn as nn

from mtp_mlx.config import LayerSpec, TargetConfig
from mtp_mlx.model.attention import Attention
from mtp_mlx.model.backend import on_gpu, queue
from mtp_mlx.model.batch import Batch
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.ffn import MLP, make_experts
from mtp_mlx.model.head import tied_head
from mtp_mlx.model.linear import Linear
from mtp_mlx.model.norm import RMSNorm
from mtp_mlx.model.routes import Routes
from mtp_mlx.model.tail import Dense, Mixed
from mtp_mlx.model.view import View, last_view, target_view
from mtp_mlx.model.weights import fill

# The device starts on so many layers while the host builds the graph of the next ones. On a GPU a
# start is a command buffer; on a CPU it costs little, and a longer queue has the host wait for it.
STARTED_LAYERS, STARTED_ON_CPU = 4, 1


class DecoderLayer(nn.Module):
    """One layer, of target or drafter; every residual branch ends in a norm."""

    def __init__(self, spec: LayerSpec, width: int, eps: float, per_layer_dim: int = 0) -> None:
        super().__init__()
        self.has_experts = spec.experts is not None
        self.num_experts = 0 if spec.experts is None else spec.experts.num_experts
        self.self_attn = Attention(spec, width, eps)
        self.mlp = MLP(width, spec.ffn_dim)
        self.input_layernorm = RMSNorm(width, eps)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.pre_feedforward_layernorm = RMSNorm(width, eps)
        self.post_feedforward_layernorm = RMSNorm(width, eps)
        self.layer_scalar = mx.ones((1,))
        self.has_per_layer = per_layer_dim > 0
        if self.has_experts:
            self.router, self.experts = make_experts(spec, width, eps)
            self.post_feedforward_layernorm_1 = RMSNorm(width, eps)
            self.post_feedforward_layernorm_2 = RMSNorm(width, eps)
            self.pre_feedforward_layernorm_2 = RMSNorm(width, eps)
        if per_layer_dim:
            self.per_layer_input_gate = Linear(width, per_layer_dim)
            self.per_layer_projection = Linear(per_layer_dim, width)
            self.post_per_layer_input_norm = RMSNorm(width, eps)

    def __call__(
        self,
        x: mx.array,
        view: View,
        per_layer: mx.array | None = None,
        routes: Routes | None = None,
    ) -> mx.array:
        """x [N, D], per_layer [N, d] or None -> [N, D]; `routes` is told the experts chosen."""
        attended = self.self_attn(self.input_layernorm(x), view)
        if not self.has_experts:
            return self._dense.all(x, attended, per_layer, self.layer_scalar)
        residual, own, entered = self._mixed.before(x, attended)
        ids, weights = self.router(residual)
        if routes is not None:
            routes.add(ids, self.num_experts)
        routed = self.experts(entered, ids, weights)
        return self._mixed.after(residual, own, routed, per_layer, self.layer_scalar)

    @cached_property
    def _dense(self) -> Dense:
        return Dense(self)

    @cached_property
    def _mixed(self) -> Mixed:
        return Mixed(self)


class Target(nn.Module):
    """Gemma 4 from its config and weights (canonical key -> array).

    Raises CheckpointError for a missing, unexpected or misshapen tensor.
    """

    def __init__(self, config: TargetConfig, weights: Mapping[str, mx.array]) -> None:
        super().__init__()
        self.config = config
        width, eps = config.hidden_size, config.rms_norm_eps
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.layers = [
            DecoderLayer(spec, width, eps, config.per_layer_dim) for spec in config.layers
        ]
        self.norm = RMSNorm(width, eps)
        if config.per_layer_dim:
            total = config.per_layer_dim * len(config.layers)
            self.embed_tokens_per_layer = nn.Embedding(config.vocab_size, total)
            self.per_layer_model_projection = Linear(width, total)
            self.per_layer_projection_norm = RMSNorm(config.per_layer_dim, eps)
        fill(self, weights, config.quantization, config.source)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of activations and K/V."""
        return self.norm.weight.dtype

    def new_cache(self, num_slots: int, max_block: int) -> Cache:
        """An empty cache for `num_slots` rows and blocks of at most `max_block` tokens."""
        return Cache(self.config.layers, num_slots, max_block, self.dtype)

    def embed(self, tokens: mx.array) -> mx.array:
        """Scaled embeddings [N, D]; the scale √D is rounded to the activation type first."""
        scale = mx.array(self.config.hidden_size**0.5, self.dtype)
        return self.embed_tokens(tokens) * scale

    def __call__(self, batch: Batch, cache: Cache, routes: Routes | None = None) -> mx.array:
        """Hidden states [N, D] after the final norm; K/V are written provisionally.

        `routes` is told which experts each layer chose.
        """
        view = target_view(cache, batch)
        x = self.embed(batch.tokens)
        per_layer = self._per_layer_inputs(batch.tokens, x)
        return self.norm(self._run(range(len(self.layers)), x, view, per_layer, routes))

    def prefill(self, batch: Batch, cache: Cache) -> tuple[mx.array, mx.array]:
        """A prompt chunk of which only the last token's state is wanted.

        Returns that state [1, D], and the states [N, D] behind the last layer that owns K/V: the
        layers above read the K/V of others, so there the other tokens need not run.
        """
        view = target_view(cache, batch)
        x = self.embed(batch.tokens)
        per_layer = self._per_layer_inputs(batch.tokens, x)
        owning = 1 + max(spec.index for spec in self.config.layers if spec.owns_cache)
        below = self._run(range(owning), x, view, per_layer, None)
        last = None if per_layer is None else per_layer[-1:]
        above = range(owning, len(self.layers))
        state = self._run(above, below[-1:], last_view(cache, batch), last, None)
        return self.norm(state), below

    def _run(
        self,
        indices: range,
        x: mx.array,
        view: View,
        per_layer: mx.array | None,
        routes: Routes | None,
    ) -> mx.array:
        """x [N, D] through some of the layers."""
        started = STARTED_LAYERS if on_gpu() else STARTED_ON_CPU
        for index in indices:
            own = None if per_layer is None else per_layer[:, index]
            x = self.layers[index](x, view, own, routes)
            if index % started == started - 1:
                queue(x)
        return x

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits [N, V] float32 of hidden [N, D]."""
        return tied_head(hidden, self.embed_tokens, self.config.logit_softcap)

    def _per_layer_inputs(self, tokens: mx.array, x: mx.array) -> mx.array | None:
        """[N, layers, d]: a token part and a part projected from the scaled embedding x."""
        dim = self.config.per_layer_dim
        if not dim:
            return None
        shape = (tokens.shape[0], len(self.layers), dim)
        token_part = self.embed_tokens_per_layer(tokens).astype(mx.float32) * dim**0.5
        context = self.per_layer_model_projection(x).astype(mx.float32)
        context = (context * self.config.hidden_size**-0.5).astype(self.dtype).reshape(shape)
        context = self.per_layer_projection_norm(context).astype(mx.float32)
        return ((context + token_part.reshape(shape)) * 2**-0.5).astype(self.dtype)
