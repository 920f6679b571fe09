"""The NumPy twin against what Transformers 5.14.1 computed (tests/golden)."""

from functools import cache

import numpy as np
import pytest

from mtp_mlx.config import read_drafter, read_target
from mtp_mlx.reference import decode
from mtp_mlx.reference.drafter import Drafter
from mtp_mlx.reference.head import Logits
from mtp_mlx.reference.target import Target
from mtp_mlx.reference.view import draft_view
from mtp_mlx.request import Sampling
from tests.golden import recipe

LENGTHS = recipe.PROMPT_LENGTHS
# float32 in another order of summation; Transformers' own float32 is this far from its float64.
LOGITS_ATOL = 5e-4
HIDDEN_ATOL = 2e-4
KEYS_ATOL = 5e-5
DRAFT_ATOL = 1e-4


@cache
def models(variant: str) -> tuple[Target, Drafter]:
    target = read_target(recipe.target_config(variant), "target")
    drafter = read_drafter(recipe.drafter_config(variant), "drafter").paired_with(target)
    weights = recipe.split_experts(recipe.target_weights(variant))
    return Target(target, weights), Drafter(drafter, recipe.drafter_weights(variant))


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_target_equals_transformers_in_chunks_across_the_window(variant):
    target, _ = models(variant)
    golden = recipe.golden(variant)
    for length in LENGTHS:
        ids = golden[f"ids_{length}"].tolist()
        hidden = decode.prefill(target, target.new_cache(1, 1), ids, 7)
        assert np.abs(hidden - golden[f"hidden_{length}"]).max() <= HIDDEN_ATOL
        assert np.abs(target.logits(hidden) - golden[f"logits_{length}"]).max() <= LOGITS_ATOL


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_cached_keys_and_values_of_the_donors_equal_transformers(variant):
    target, _ = models(variant)
    golden = recipe.golden(variant)
    cache = target.new_cache(1, 1)
    decode.prefill(target, cache, golden["ids_23"].tolist(), 5)
    for kind, layer in target.config.donors.items():
        for name, entries in (("key", cache.keys), ("value", cache.values)):
            stored = np.stack(entries[layer][0], axis=1)  # [G, S, K]
            assert np.abs(stored - golden[f"{name}_{kind}_23"]).max() <= KEYS_ATOL


@pytest.mark.parametrize("length", LENGTHS[::2])
@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_greedy_text_equals_transformers(variant, length):
    golden = recipe.golden(variant)
    expected = golden[f"greedy_{length}"].tolist()
    prompt = golden[f"ids_{length}"].tolist()
    found = decode.plain_decode(models(variant)[0], prompt, Sampling(), len(expected))
    assert found == expected


@pytest.mark.parametrize(("extra_keys", "view"), [(0, "_window"), (1, "")])
@pytest.mark.parametrize("length", LENGTHS[1:])
@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_draft_chain_equals_transformers(variant, length, extra_keys, view):
    target, drafter = models(variant)
    golden = recipe.golden(variant)
    *ids, token = golden[f"ids_{length}"].tolist()
    name = f"draft_{length}{view}_"
    cache = target.new_cache(1, 1)
    hidden = decode.prefill(target, cache, ids, 16)[-1:]
    seen = draft_view(cache, (0,), extra_keys)
    for step in range(3):
        found, hidden = drafter.step(target.embed(np.array([token])), hidden, seen)
        scores, selected = spread(found, target.config.vocab_size)
        token = int(scores.argmax())
        if drafter.config.centroids is not None:
            assert (selected == golden[name + "selected"][step]).all()
        difference = (scores - golden[name + "logits"][step])[selected]
        assert np.abs(difference).max() <= DRAFT_ATOL
        assert np.abs(hidden[0] - golden[name + "hidden"][step]).max() <= DRAFT_ATOL
        assert token == golden[name + "tokens"][step]


def spread(found: Logits, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [V] of one row with -inf where none is given, and where one is."""
    if found.ids is None:
        return found.scores[0], np.full(vocab_size, True)
    scores = np.full(vocab_size, -np.inf, dtype=np.float32)
    scores[found.ids[0]] = found.scores[0]
    return scores, scores > -np.inf
