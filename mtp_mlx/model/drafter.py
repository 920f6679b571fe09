"""Google's MTP assistant: four query-only layers over the target's K/V.

One step turns (token, hidden state) into the logits of the next token and the hidden state for the
step after. The query position is constant through a burst, so draft tokens know each other only
through the hidden state; the drafter writes no K/V. Source: Transformers 5.14.1,
models/gemma4_assistant.
"""

from collections.abc import Mapping
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn

from mtp_mlx.config import DrafterConfig
from mtp_mlx.model.head import Logits, MaskedEmbedding, tied_head
from mtp_mlx.model.linear import Linear
from mtp_mlx.model.norm import RMSNorm
from mtp_mlx.model.target import DecoderLayer
from mtp_mlx.model.view import View
from mtp_mlx.model.weights import fill


class Drafts(Protocol):
    """Whatever can propose: the assistant, or a scripted stand-in in tests and benchmarks."""

    def step(self, embedded: mx.array, hidden: mx.array, view: View) -> tuple[Logits, mx.array]:
        """See Drafter.step."""
        ...


class Drafter(nn.Module):
    """The assistant from its paired config and its weights (canonical key -> array)."""

    def __init__(self, config: DrafterConfig, weights: Mapping[str, mx.array]) -> None:
        super().__init__()
        self.config = config
        width, backbone, eps = config.hidden_size, config.backbone_hidden_size, config.rms_norm_eps
        self.pre_projection = Linear(2 * backbone, width)
        self.layers = [DecoderLayer(spec, width, eps) for spec in config.layers]
        self.norm = RMSNorm(width, eps)
        self.post_projection = Linear(width, backbone)
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        if config.centroids is not None:
            self.masked_embedding = MaskedEmbedding(config.centroids, width, config.vocab_size)
        fill(self, weights, config.quantization, config.source)

    def step(self, embedded: mx.array, hidden: mx.array, view: View) -> tuple[Logits, mx.array]:
        """One draft token a row.

        embedded [B, D]: the target's scaled embedding of the last token. hidden [B, D]: its state
        after its final norm at the position before, or this method's own second result.
        Returns the logits of the next token and the hidden state [B, D] for the next step.
        """
        x = self.pre_projection(mx.concatenate([embedded, hidden], axis=-1))
        for layer in self.layers:
            x = layer(x, view)
        x = self.norm(x)
        return self._head(x), self.post_projection(x)

    def _head(self, x: mx.array) -> Logits:
        cap = self.config.logit_softcap
        if self.config.centroids is not None:
            return self.masked_embedding(x, self.embed_tokens, cap)
        return Logits(tied_head(x, self.embed_tokens, cap))
