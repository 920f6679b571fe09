"""Google's MTP assistant: four query-only layers over the target's K/V.

One step turns (token, hidden state) into the logits of the next token and the hidden state for the
step after. The query position is constant through a burst, so draft tokens know each other only
through the hidden state; the drafter writes no K/V. Source: Transformers 5.14.1,
models/gemma4_assistant.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from mtp_mlx.config import DrafterConfig
from mtp_mlx.reference.head import Logits, MaskedEmbedding, tied_head
from mtp_mlx.reference.nn import Embedding, Linear, RMSNorm, Tensors
from mtp_mlx.reference.target import DecoderLayer
from mtp_mlx.reference.view import View

# A drafter layer owns no K/V, whatever its number: this index is that of no target layer.
NOT_A_TARGET_LAYER = -1


class Drafts(Protocol):
    """Whatever can propose: the assistant, or a scripted stand-in in tests."""

    def step(
        self, embedded: np.ndarray, hidden: np.ndarray, view: View
    ) -> tuple[Logits, np.ndarray]:
        """See Drafter.step."""
        ...


class Drafter:
    """The assistant from its paired config and its weights (canonical key -> array)."""

    def __init__(self, config: DrafterConfig, weights: Mapping[str, np.ndarray]) -> None:
        self.config = config
        width, backbone, eps = config.hidden_size, config.backbone_hidden_size, config.rms_norm_eps
        tensors = Tensors(weights, config.source)
        self.pre_projection = Linear(2 * backbone, width, tensors.under("pre_projection."))
        self.layers = []
        for spec in config.layers:
            own = tensors.under(f"layers.{spec.index}.")
            reader = replace(spec, index=NOT_A_TARGET_LAYER)
            self.layers.append(DecoderLayer(reader, width, eps, 0, own))
        self.norm = RMSNorm(width, eps, tensors.under("norm."))
        self.post_projection = Linear(width, backbone, tensors.under("post_projection."))
        self.embed_tokens = Embedding(config.vocab_size, width, tensors.under("embed_tokens."))
        if config.centroids is not None:
            own = tensors.under("masked_embedding.")
            self.masked_embedding = MaskedEmbedding(config.centroids, width, config.vocab_size, own)
        tensors.check_all_taken()

    def step(
        self, embedded: np.ndarray, hidden: np.ndarray, view: View
    ) -> tuple[Logits, np.ndarray]:
        """One draft token a row.

        embedded [B, D]: the target's scaled embedding of the last token. hidden [B, D]: its state
        after its final norm at the position before, or this method's own second result.
        Returns the logits of the next token and the hidden state [B, D] for the next step.
        """
        x = self.pre_projection(np.concatenate([embedded, hidden], axis=-1))
        for layer in self.layers:
            x = layer(x, view)
        x = self.norm(x)
        return self._head(x), self.post_projection(x)

    def _head(self, x: np.ndarray) -> Logits:
        cap = self.config.logit_softcap
        if self.config.centroids is not None:
            return self.masked_embedding(x, self.embed_tokens, cap)
        return Logits(tied_head(x, self.embed_tokens, cap))
