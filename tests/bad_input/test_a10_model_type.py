"""A10: models of other families."""

import pytest

from mtp_mlx.errors import CheckpointError, UnsupportedModel
from tests.bad_input.faults import (
    Fault,
    both_backends,
    check,
    in_drafter_json,
    in_target_json,
    with_value,
)

CONFIG = "config.json"
LISTS = {"target": "gemma4, gemma4_unified", "drafter": "gemma4_assistant, gemma4_unified_assis"}
EDITS = {"target": in_target_json, "drafter": in_drafter_json}


@both_backends
@pytest.mark.parametrize("role", ["target", "drafter"])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "Gemma4", "", "a\nb", "x" * 100_000], ids=len)
def test_another_family_is_refused_with_those_that_run(kind, role, backend, tmp_path):
    damage = EDITS[role](CONFIG, lambda top: top.update(model_type=kind))
    said = (CONFIG, "model_type", f"is not supported; supported: {LISTS[role]}")
    check(Fault(kind, damage, said, UnsupportedModel), tmp_path, backend=backend)


@pytest.mark.parametrize("role", ["target", "drafter"])
@pytest.mark.parametrize("kind", [None, 3, ["gemma4"], {"gemma4": 1}])
def test_a_model_type_that_is_no_string_is_refused(kind, role, tmp_path):
    damage = EDITS[role](CONFIG, lambda top: top.update(model_type=kind))
    check(Fault("kind", damage, (CONFIG, "model_type must be a string")), tmp_path)


@pytest.mark.parametrize("role", ["target", "drafter"])
def test_a_missing_model_type_is_named(role, tmp_path):
    damage = EDITS[role](CONFIG, lambda top: top.pop("model_type"))
    said = (f"{role}/config.json: model_type is missing",)
    check(Fault("missing", damage, said, CheckpointError), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_activation", "silu"), ("attention_bias", True), ("tie_word_embeddings", False)],
)
def test_what_no_gemma_4_has_is_refused_by_key(key, value, tmp_path):
    damage = in_target_json(CONFIG, with_value(key, value))
    check(Fault(key, damage, (CONFIG, key, "must be")), tmp_path)
