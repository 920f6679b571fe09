"""The scores of a long prompt's chunk are never there as a whole: the plan counts on that bound."""

import mlx.core as mx
import pytest

from mtp_mlx.model import view

HEADS, TOKENS, KEYS, WIDTH = 2, 512, 8192, 16
F32 = 4


def growth_bytes(max_scores: int, monkeypatch) -> int:
    """How far memory rises while a chunk attends to all keys."""
    monkeypatch.setattr(view, "MAX_SCORES", max_scores)
    queries = mx.random.normal((HEADS, TOKENS, WIDTH))
    keys, values = (mx.random.normal((HEADS, KEYS, WIDTH)) for _ in range(2))
    mask = mx.arange(KEYS)[None] <= mx.arange(KEYS - TOKENS, KEYS)[:, None]
    mx.eval(queries, keys, values, mask)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    out = view._attend_in_pieces(queries, keys, values, view.Mask(mask[None]))
    mx.eval(out)
    return mx.get_peak_memory() - before - out.nbytes


@pytest.mark.parametrize("pieces", [2, 4, 16])
def test_one_piece_is_there_at_a_time(monkeypatch, pieces):
    scores = HEADS * TOKENS * KEYS
    whole = growth_bytes(scores, monkeypatch)
    assert whole >= F32 * scores
    assert growth_bytes(scores // pieces, monkeypatch) < 1.3 * whole / pieces
