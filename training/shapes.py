"""The embedded pairs' shapes: config.json of target and drafter, as Google would publish them.

`tiny` has the structure of Gemma 4 E2B (per-layer inputs, K/V shared by the upper half, double-wide
MLPs there, a centroid head on the drafter), `tiny-moe` that of 26B-A4B (experts beside a dense MLP,
keys used as values on full layers, a dense drafter head). Targets are deep and narrow, so that a
step of the four-layer drafter is cheap beside a step of its target, as it is for the real pairs.
"""

from dataclasses import dataclass, field
from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"
VOCAB_SIZE = 1536
SLIDING_WINDOW = 24
MAX_POSITIONS = 4096
NUM_CENTROIDS = 64
CENTROID_TOP_K = 8
ASSISTANT_TOKENS = 3
ROPE_PARAMETERS = {
    FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
}


@dataclass(frozen=True)
class Shape:
    """One pair. `text` is what its target's text config has over the common one."""

    layer_types: list[str]
    hidden_size: int
    intermediate_size: int
    drafter_hidden_size: int
    key_value_heads: int
    is_ordered: bool = False
    keys_are_values: bool = False
    closes_thought: bool = False
    text: dict[str, Any] = field(default_factory=dict)


SHAPES = {
    "tiny": Shape(
        layer_types=([SLIDING] * 4 + [FULL]) * 4,
        hidden_size=80,
        intermediate_size=96,
        drafter_hidden_size=48,
        key_value_heads=1,
        is_ordered=True,
        text={
            "hidden_size_per_layer_input": 4,
            "num_kv_shared_layers": 10,
            "use_double_wide_mlp": True,
        },
    ),
    "tiny-moe": Shape(
        layer_types=([SLIDING] * 5 + [FULL]) * 2,
        hidden_size=64,
        intermediate_size=48,
        drafter_hidden_size=48,
        key_value_heads=2,
        keys_are_values=True,
        closes_thought=True,
        text={
            "enable_moe_block": True,
            "num_experts": 16,
            "top_k_experts": 2,
            "moe_intermediate_size": 24,
        },
    ),
}


def target_config(name: str) -> dict[str, Any]:
    """The target's config.json, classic dialect."""
    shape = SHAPES[name]
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "audio_config": None,
        "audio_token_id": 258881,
        "dtype": "bfloat16",
        "eos_token_id": [1, 106],
        "image_token_id": 258880,
        "initializer_range": 0.02,
        "model_type": "gemma4",
        "text_config": {**_text_config(shape, shape.layer_types), **shape.text},
        "tie_word_embeddings": True,
        "video_token_id": 258884,
        "vision_config": None,
    }


def drafter_config(name: str) -> dict[str, Any]:
    """The drafter's config.json, classic dialect."""
    shape = SHAPES[name]
    text = {
        **_text_config(shape, [SLIDING] * 3 + [FULL]),
        "final_logit_softcapping": None,
        "hidden_size": shape.drafter_hidden_size,
        "intermediate_size": 2 * shape.drafter_hidden_size,
        "num_kv_shared_layers": 4,
        "vocab_size_per_layer_input": 0,
    }
    return {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "backbone_hidden_size": shape.hidden_size,
        "centroid_intermediate_top_k": CENTROID_TOP_K,
        "dtype": "bfloat16",
        "model_type": "gemma4_assistant",
        "num_centroids": NUM_CENTROIDS,
        "text_config": text,
        "tie_word_embeddings": True,
        "use_ordered_embeddings": shape.is_ordered,
    }


def _text_config(shape: Shape, layer_types: list[str]) -> dict[str, Any]:
    """What the text configs of target and drafter have in common."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": shape.keys_are_values,
        "bos_token_id": 2,
        "dtype": "bfloat16",
        "enable_moe_block": False,
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 32,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": shape.hidden_size,
        "hidden_size_per_layer_input": 0,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "layer_types": layer_types,
        "max_position_embeddings": MAX_POSITIONS,
        "model_type": "gemma4_text",
        "moe_intermediate_size": None,
        "num_attention_heads": 4,
        "num_experts": None,
        "num_global_key_value_heads": 1 if shape.keys_are_values else None,
        "num_hidden_layers": len(layer_types),
        "num_key_value_heads": shape.key_value_heads,
        "num_kv_shared_layers": 0,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_parameters": ROPE_PARAMETERS,
        "sliding_window": SLIDING_WINDOW,
        "tie_word_embeddings": True,
        "top_k_experts": None,
        "use_bidirectional_attention": "vision" if shape.keys_are_values else None,
        "use_cache": True,
        "use_double_wide_mlp": False,
        "vocab_size": VOCAB_SIZE,
        "vocab_size_per_layer_input": VOCAB_SIZE,
    }
