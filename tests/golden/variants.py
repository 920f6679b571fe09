"""The five tiny pairs as Google would publish them; only `make.py` reads this table.

Each variant copies the structure of one Gemma 4 model at toy size. Tests read the configs that
`make.py` stores in `<variant>.json`, never this module.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"
VOCAB_SIZE = 256
HIDDEN_SIZE = 64
DRAFTER_HIDDEN_SIZE = 32
ROPE_PARAMETERS = {
    FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
}
DENSE_SCALES = {"weight": 0.15, "embedding": 0.2, "final_norm": 2.5, "query_norm": 0.6}
# Keeps the drafters' chains of three steps within 5e-5 of float64 in every variant.
DRAFTER_FINAL_NORM = 0.5
PER_LAYER_SCALES = {"weight": 0.15, "embedding": 0.5, "final_norm": 1.0, "query_norm": 0.6}


@dataclass(frozen=True)
class Variant:
    """One pair: `repeats` blocks of `sliding` sliding layers and a full one, plus what differs.

    `text` overrides the target's text config. `prompt_seeds` maps a prompt length to its seed.
    `scales` are set so that texts vary and float32 stays close to float64 (see `make.py`).
    """

    sliding: int
    key_value_heads: int
    target_seed: int
    drafter_seed: int
    prompt_seeds: dict[int, int]
    repeats: int = 2
    unified: bool = False
    ordered: bool = False
    keys_are_values: bool = False
    text: dict[str, Any] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=lambda: dict(DENSE_SCALES))


PER_LAYER = {"hidden_size_per_layer_input": 32}
MIXTURE = {
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 2,
    "moe_intermediate_size": 32,
}
VARIANTS = {
    "e2b": Variant(
        sliding=4,
        key_value_heads=1,
        target_seed=104,
        drafter_seed=201,
        prompt_seeds={23: 1, 72: 1},
        ordered=True,
        text={**PER_LAYER, "num_kv_shared_layers": 5, "use_double_wide_mlp": True},
        scales=PER_LAYER_SCALES,
    ),
    "e4b": Variant(
        sliding=5,
        key_value_heads=2,
        target_seed=102,
        drafter_seed=202,
        prompt_seeds={23: 2, 72: 1},
        ordered=True,
        text={**PER_LAYER, "num_kv_shared_layers": 6},
        scales=PER_LAYER_SCALES,
    ),
    "12b": Variant(
        sliding=2,
        key_value_heads=2,
        target_seed=106,
        drafter_seed=203,
        prompt_seeds={23: 7, 72: 4},
        unified=True,
        keys_are_values=True,
    ),
    "26b": Variant(
        sliding=2,
        key_value_heads=2,
        target_seed=119,
        drafter_seed=204,
        prompt_seeds={23: 21, 72: 22},
        keys_are_values=True,
        text=MIXTURE,
    ),
    "31b": Variant(
        sliding=5,
        repeats=1,
        key_value_heads=2,
        target_seed=108,
        drafter_seed=205,
        prompt_seeds={23: 2, 72: 2},
        keys_are_values=True,
    ),
}


def target_config(variant: Variant) -> dict[str, Any]:
    """The target's config.json, classic dialect."""
    family = "gemma4_unified" if variant.unified else "gemma4"
    name = "Gemma4Unified" if variant.unified else "Gemma4"
    layers = ([SLIDING] * variant.sliding + [FULL]) * variant.repeats
    text = {**_text_config(variant, layers), "model_type": f"{family}_text", **variant.text}
    return {
        "architectures": [f"{name}ForConditionalGeneration"],
        "audio_config": None,
        "audio_token_id": 258881,
        "dtype": "float32",
        "eos_token_id": [1, 106],
        "image_token_id": 258880,
        "initializer_range": 0.02,
        "model_type": family,
        "text_config": text,
        "tie_word_embeddings": True,
        "video_token_id": 258884,
        "vision_config": None,
    }


def drafter_config(variant: Variant) -> dict[str, Any]:
    """The drafter's config.json, classic dialect."""
    family = "gemma4_unified" if variant.unified else "gemma4"
    name = "Gemma4Unified" if variant.unified else "Gemma4"
    text = {
        **_text_config(variant, [SLIDING] * 3 + [FULL]),
        "final_logit_softcapping": None,
        "hidden_size": DRAFTER_HIDDEN_SIZE,
        "intermediate_size": 48,
        "model_type": f"{family}_text",
        "num_kv_shared_layers": 4,
        "vocab_size_per_layer_input": 0,
    }
    return {
        "architectures": [f"{name}AssistantForCausalLM"],
        "backbone_hidden_size": HIDDEN_SIZE,
        "centroid_intermediate_top_k": 4,
        "dtype": "float32",
        "model_type": f"{family}_assistant",
        "num_centroids": 16,
        "text_config": text,
        "tie_word_embeddings": True,
        "use_ordered_embeddings": variant.ordered,
    }


def _text_config(variant: Variant, layer_types: list[str]) -> dict[str, Any]:
    """What the text configs of target and drafter have in common."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": variant.keys_are_values,
        "bos_token_id": 2,
        "dtype": "float32",
        "enable_moe_block": False,
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 32,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": HIDDEN_SIZE,
        "hidden_size_per_layer_input": 0,
        "initializer_range": 0.02,
        "intermediate_size": 96,
        "layer_types": layer_types,
        "max_position_embeddings": 4096,
        "moe_intermediate_size": None,
        "num_attention_heads": 4,
        "num_experts": None,
        "num_global_key_value_heads": 1 if variant.keys_are_values else None,
        "num_hidden_layers": len(layer_types),
        "num_key_value_heads": variant.key_value_heads,
        "num_kv_shared_layers": 0,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_parameters": ROPE_PARAMETERS,
        "sliding_window": 8,
        "tie_word_embeddings": True,
        "top_k_experts": None,
        "use_bidirectional_attention": "vision" if variant.keys_are_values else None,
        "use_cache": True,
        "use_double_wide_mlp": False,
        "vocab_size": VOCAB_SIZE,
        "vocab_size_per_layer_input": VOCAB_SIZE,
    }


def with_seeds(variant: Variant, target_seed: int) -> Variant:
    """The same variant with other target weights."""
    return replace(variant, target_seed=target_seed)
