"""Attention over the cache: what bounds its memory does not change its result."""

import mlx.core as mx
import pytest

from mtp_mlx.model import view
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.target import Target
from tests.tiny_configs import pair


@pytest.mark.parametrize("max_scores", [1, 300, 1000])
def test_a_prompt_in_pieces_of_attention_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, max_scores: int
):
    tiny = pair("31b", seed=1)
    weights = {key: mx.array(array) for key, array in tiny.target_weights.items()}
    target = Target(tiny.target_config, weights)
    batch = Batch.of((Row(0, 0, 40),), mx.arange(3, 43), is_chunk=True)
    whole = target(batch, target.new_cache(1, 8))
    mx.eval(whole)
    monkeypatch.setattr(view, "MAX_SCORES", max_scores)
    assert mx.array_equal(target(batch, target.new_cache(1, 8)), whole)
