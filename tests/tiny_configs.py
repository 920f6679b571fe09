"""Tiny random pairs in the shape of each published model, other than those of the goldens.

Configs as config.json holds them (classic dialect), seeded float32 weights by canonical key.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtp_mlx.config import DrafterConfig, TargetConfig, read_drafter, read_target
from mtp_mlx.shapes import Shapes, drafter_shapes, target_shapes

VARIANTS = ("e2b", "e4b", "12b", "26b", "31b")
VOCAB_SIZE = 64
HIDDEN_SIZE = 32
DRAFTER_HIDDEN_SIZE = 16
WINDOW = 8
MAX_POSITIONS = 256
SLIDING, FULL = "sliding_attention", "full_attention"

# Small embeddings leave room for the layers, or a tied model repeats its input for ever; the final
# norm makes up for it. Blunt queries keep float32 errors small.
EMBEDDING_SCALE = 0.15
GATE_SCALE = 0.2  # a far negative gate is all rounding error, and the norm behind it blows it up
GAINS = {"norm": 2.0, "q_norm": 0.6, "post_per_layer_input_norm": 0.5}

PER_LAYER = {"hidden_size_per_layer_input": 16}
EXPERTS = {
    "enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 16,
}  # fmt: skip
KEYS_ARE_VALUES = {"attention_k_eq_v": True, "use_bidirectional_attention": "vision"}
ORDERED = {"use_ordered_embeddings": True}
ATTENTION = {
    "num_attention_heads", "num_key_value_heads", "num_global_key_value_heads", "attention_k_eq_v",
    "use_bidirectional_attention",
}  # fmt: skip

# Per variant: the layers (S sliding, F full), what its text config changes, what its drafter adds.
# The layers that own K/V end in S or F beyond number 3, as in all published models.
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "e2b": (
        "SSSSFSF",
        PER_LAYER | {"num_kv_shared_layers": 2, "use_double_wide_mlp": True},
        ORDERED,
    ),
    "e4b": (
        "SSFSSFSF",
        PER_LAYER | {"num_kv_shared_layers": 2, "num_key_value_heads": 2},
        ORDERED,
    ),
    "12b": (
        "SSFSSF",
        KEYS_ARE_VALUES | {"num_key_value_heads": 2, "num_global_key_value_heads": 1},
        {},
    ),
    "26b": (
        "SSFSSF",
        KEYS_ARE_VALUES | EXPERTS | {"num_key_value_heads": 2, "num_global_key_value_heads": 1},
        {},
    ),
    "31b": (
        "SSSSSF",
        KEYS_ARE_VALUES
        | {"num_attention_heads": 8, "num_key_value_heads": 4, "num_global_key_value_heads": 2},
        {},
    ),
}


@dataclass(frozen=True)
class TinyPair:
    """Both configs, the drafter's paired with the target, and both models' weights."""

    target_config: TargetConfig
    drafter_config: DrafterConfig
    target_weights: dict[str, np.ndarray]
    drafter_weights: dict[str, np.ndarray]


def pair(variant: str, seed: int) -> TinyPair:
    """A pair in the shape of `variant`; `seed` draws the weights."""
    target = read_target(target_dict(variant), f"{variant}/config.json")
    drafter = read_drafter(drafter_dict(variant), f"{variant}-assistant/config.json")
    return TinyPair(
        target_config=target,
        drafter_config=drafter.paired_with(target),
        target_weights=_draw(target_shapes(target), seed),
        drafter_weights=_draw(drafter_shapes(drafter), seed + 1),
    )


def target_dict(variant: str) -> dict[str, Any]:
    """The target's config.json."""
    pattern, changes, _ = SHAPES[variant]
    family = "gemma4_unified" if variant == "12b" else "gemma4"
    text = _text_dict(pattern) | {"model_type": f"{family}_text"} | changes
    return {
        "model_type": family,
        "eos_token_id": [1, 5],
        "tie_word_embeddings": True,
        "text_config": text,
    }


def drafter_dict(variant: str) -> dict[str, Any]:
    """The drafter's config.json."""
    _, changes, extra = SHAPES[variant]
    family = "gemma4_unified" if variant == "12b" else "gemma4"
    text = _text_dict("SSSF") | {
        "model_type": f"{family}_text",
        "hidden_size": DRAFTER_HIDDEN_SIZE,
        "intermediate_size": 24,
        "final_logit_softcapping": None,
        "num_kv_shared_layers": 4,
    }
    return {
        "model_type": f"{family}_assistant",
        "backbone_hidden_size": HIDDEN_SIZE,
        "use_ordered_embeddings": False,
        "num_centroids": 8,
        "centroid_intermediate_top_k": 3,
        "tie_word_embeddings": True,
        "text_config": text | {key: changes[key] for key in sorted(ATTENTION & changes.keys())},
    } | extra


def _text_dict(pattern: str) -> dict[str, Any]:
    """What the text configs have in common; `pattern` names the layers."""
    return {
        "attention_bias": False,
        "attention_k_eq_v": False,
        "enable_moe_block": False,
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 16,
        "head_dim": 8,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": HIDDEN_SIZE,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": 48,
        "layer_types": [SLIDING if letter == "S" else FULL for letter in pattern],
        "max_position_embeddings": MAX_POSITIONS,
        "num_attention_heads": 4,
        "num_global_key_value_heads": None,
        "num_hidden_layers": len(pattern),
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 0,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            FULL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
            SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        },
        "sliding_window": WINDOW,
        "tie_word_embeddings": True,
        "use_double_wide_mlp": False,
        "vocab_size": VOCAB_SIZE,
    }


def _draw(shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
    """Random weights, drawn in sorted key order."""
    random = np.random.RandomState(seed)
    return {key: _draw_one(random, key, shapes[key]) for key in sorted(shapes)}


def _draw_one(random: np.random.RandomState, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor; no norm or scalar is 1, or mistakes with them would not show."""
    if key.endswith("token_ordering"):
        return random.permutation(shape[0]).astype(np.int32)
    if key.endswith("layer_scalar"):
        return random.uniform(0.5, 1.0, size=shape).astype(np.float32)
    if "norm" in key or key.endswith("scale"):
        gain = GAINS.get(key.rsplit(".", 2)[-2], 1.0)
        return (gain * (1.0 + 0.3 * random.standard_normal(shape))).astype(np.float32)
    scale = EMBEDDING_SCALE if key.startswith("embed_tokens") else shape[-1] ** -0.5
    scale *= GATE_SCALE if key.endswith("per_layer_input_gate.weight") else 1.0
    return (scale * random.standard_normal(shape)).astype(np.float32)
