"""Tensor names: the published prefixes, and which tensors a text model leaves unread.

The remainder after the longest prefix is the canonical key and the attribute path in `model/`.
"""

import re

# Longest first: Hugging Face wrapper, converted wrapper, text-only.
TARGET_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")

_UNUSED = re.compile(
    r"^(model\.)?("
    r"vision_tower\.|audio_tower\.|embed_vision\.|embed_audio\.|vision_embedder\.|"
    r"multi_modal_projector|mtp\."
    r")"
)
_ALWAYS_READ = re.compile(
    r"norm(_\d)?\.weight$|layer_scalar$|router\.(scale|per_expert_scale)$|"
    r"^embed_tokens\.(weight|scales|biases)$"
)
_UNUSED_ANYWHERE = re.compile(r"rotary_emb|\.(input|output)_(min|max)$")


def canonical_key(name: str) -> str:
    """The name without its prefix: `model.language_model.norm.weight` -> `norm.weight`."""
    for prefix in TARGET_PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def is_unused(name: str) -> bool:
    """True for vision and audio towers, rotary tables and clip scalars, which text never reads."""
    return bool(_UNUSED.match(name) or _UNUSED_ANYWHERE.search(name))


def is_always_read(key: str) -> bool:
    """True for norms, scales and the embedding: every row meets them, so one NaN spoils all."""
    return bool(_ALWAYS_READ.search(key))
