"""A9: numbers of a config out of range, refused before anything is allocated."""

import pytest

from tests.bad_input.faults import (
    Fault,
    both_backends,
    check,
    in_drafter_json,
    in_target_json,
    refusal,
    with_value,
)
from tests.bad_input.files import copy_pair, edit_json

CONFIG, GENERATION = "config.json", "generation_config.json"
OF_BOTH = [
    ("num_hidden_layers", 1_000_000_000), ("num_hidden_layers", 0), ("head_dim", 0),
    ("head_dim", 1 << 30), ("global_head_dim", -1), ("vocab_size", -1), ("vocab_size", 1 << 62),
    ("sliding_window", 0), ("layer_types", ["full_attention"]), ("layer_types", 7),
    ("hidden_size", 0), ("hidden_size", 1 << 40), ("intermediate_size", 0),
    ("num_attention_heads", 1 << 40), ("num_attention_heads", 3), ("num_key_value_heads", 0),
    ("rms_norm_eps", "small"), ("rms_norm_eps", -1), ("rms_norm_eps", 0),
    ("num_kv_shared_layers", -2),
]  # fmt: skip
OF_TARGETS = [
    ("max_position_embeddings", 0), ("eos_token_id", 256), ("eos_token_id", [1, -1]),
    ("hidden_size_per_layer_input", -5), ("final_logit_softcapping", 0),
]  # fmt: skip
OF_DRAFTERS = [("backbone_hidden_size", 0), ("backbone_hidden_size", 1 << 40)]
OF_GENERATION = [
    ("temperature", -1), ("temperature", "hot"), ("temperature", 1e9), ("top_k", -1),
    ("top_k", 1.5), ("top_p", 1.1), ("top_p", 0), ("top_p", -0.1), ("min_p", 2), ("min_p", [0]),
    ("do_sample", "yes"), ("eos_token_id", 256), ("eos_token_id", [-1]), ("eos_token_id", "<eos>"),
]  # fmt: skip


def pairs(values):
    return pytest.mark.parametrize(("key", "value"), values, ids=lambda value: repr(value)[:30])


@both_backends
@pairs(OF_BOTH + OF_TARGETS)
def test_a_target_out_of_range_is_refused_by_key(key, value, backend, tmp_path):
    damage = in_target_json(CONFIG, with_value(key, value))
    check(Fault(key, damage, ("target/config.json", key)), tmp_path, backend=backend)


@both_backends
@pairs(OF_BOTH + OF_DRAFTERS)
def test_a_drafter_out_of_range_is_refused_by_key(key, value, backend, tmp_path):
    damage = in_drafter_json(CONFIG, with_value(key, value))
    check(Fault(key, damage, ("drafter/config.json", key)), tmp_path, backend=backend)


@pairs(OF_GENERATION)
def test_sampling_defaults_out_of_range_are_refused_by_key(key, value, tmp_path):
    def change(values):
        values.update({"do_sample": True, key: value})

    damage = in_target_json(GENERATION, change)
    check(Fault(key, damage, (GENERATION, key, "must be")), tmp_path)


LARGEST = [
    ("num_attention_heads", 1024), ("head_dim", 8192), ("global_head_dim", 8192),
    ("hidden_size", 131072), ("vocab_size", 1 << 22), ("intermediate_size", 131072),
]  # fmt: skip


@both_backends
@pairs(LARGEST)
def test_the_largest_value_of_the_range_is_refused_for_its_tensors(key, value, backend, tmp_path):
    """In range, so the tensors decide: nothing of that size is allocated on the way."""
    target, _ = copy_pair(tmp_path, "31b")
    edit_json(target / CONFIG, with_value(key, value))
    message = str(refusal(target, None, backend))
    assert "target/config.json: tensor " in message
    assert " should have shape " in message
