"""Log-probabilities: exact sets among ties, and rows that do not know each other."""

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.model.logprobs import log_probabilities
from mtp_mlx.request import LOGPROB_FLOOR, Logprob


def found(scores: np.ndarray, ids: np.ndarray, count: int) -> list[tuple[list[float], Logprob]]:
    own, best, values = log_probabilities(mx.array(scores), mx.array(ids), count)
    rows = zip(own.tolist(), best.tolist(), values.tolist(), strict=True)
    return [(own, Logprob.of(own[0], zip(*pairs, strict=True), count)) for own, *pairs in rows]


def in_float64(scores: np.ndarray) -> np.ndarray:
    wide = scores.astype(np.float64)
    return wide - np.log(np.exp(wide - wide.max()).sum()) - wide.max()


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_values_are_those_of_float64(count):
    random = np.random.default_rng(count)
    scores = random.normal(0.0, 6.0, (30, 500)).astype(np.float32)
    ids = random.integers(0, 500, (30, 2)).astype(np.int32)
    for row, (own, found_row) in enumerate(found(scores, ids, count)):
        expected = in_float64(scores[row])
        assert np.abs(np.array(own) - expected[ids[row]]).max() < 1e-5
        assert [token for token, _ in found_row.top] == np.argsort(-expected)[:count].tolist()
        values = [value for _, value in found_row.top]
        assert np.abs(values - np.sort(expected)[::-1][:count]).max(initial=0.0) < 1e-5


@pytest.mark.parametrize("spread", [1.0, 6.0])
def test_values_of_a_large_vocabulary_are_no_worse(spread):
    """A sum over all tokens, one after another, would be off by 1e-4."""
    random = np.random.default_rng(1)
    scores = random.normal(0.0, spread, (4, 262_144)).astype(np.float32)
    ids = random.integers(0, 262_144, (4, 2)).astype(np.int32)
    for row, (own, _) in enumerate(found(scores, ids, 0)):
        assert np.abs(np.array(own) - in_float64(scores[row])[ids[row]]).max() < 1e-5


@pytest.mark.parametrize("count", [1, 3, 7, 20])
def test_of_equal_scores_the_lowest_ids_come_first(count):
    """Scores of few levels: nearly every border lies within a tie."""
    random = np.random.default_rng(count)
    scores = random.integers(0, 4, (50, 40)).astype(np.float32)
    for row, (_, found_row) in enumerate(found(scores, np.zeros((50, 1), np.int32), count)):
        order = np.lexsort((np.arange(40), -scores[row]))[:count]
        assert [token for token, _ in found_row.top] == order.tolist()


def test_a_row_is_bitwise_the_same_alone_with_neighbours_and_with_more_asked():
    random = np.random.default_rng(7)
    scores = random.normal(0.0, 6.0, (64, 1001)).astype(np.float32)
    ids = random.integers(0, 1001, (64, 2)).astype(np.int32)
    together = found(scores, ids, 20)
    for row in range(64):
        [(own, alone)] = found(scores[[row]], ids[[row]], 4)
        assert own == together[row][0]
        assert alone.top == together[row][1].top[:4]


def test_more_than_there_are_is_all_there_are():
    scores = np.array([[1.0, 3.0, 2.0]], np.float32)
    own, best, values = log_probabilities(mx.array(scores), mx.array([[0]]), 20)
    assert sorted(best.tolist()[0]) == [0, 1, 2]
    assert own.shape == (1, 1)
    assert values.shape == (1, 3)


def test_what_cannot_come_stands_at_the_floor():
    made = Logprob.of(-np.inf, [(1, -np.inf), (0, 0.0)], 2)
    assert made == Logprob(LOGPROB_FLOOR, ((0, 0.0), (1, LOGPROB_FLOOR)))


def test_nan_names_no_token_beyond_the_vocabulary():
    scores = np.full((1, 50), np.nan, np.float32)
    _, best, _ = log_probabilities(mx.array(scores), mx.array([[0]]), 5)
    assert max(best.tolist()[0]) < 50
