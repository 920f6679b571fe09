"""The measured error of a target's kernels: none on CPU, and what is planted is found."""

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.engine import blocks
from mtp_mlx.engine.blocks import last_logits, measure
from mtp_mlx.verdict import Text
from tests.exact.pairs import golden_pair
from tests.golden import recipe

CHUNK = 16
# Window 8: past it and a chunk border, within both, and one token.
TEXTS = [
    Text(tuple(int(token) for token in recipe.prompt(length, length)), start)
    for length, start in ((60, 40), (17, 7), (20, 5), (12, 1), (9, 3))
]


class Shifted:
    """A target whose logits are `shift` higher at even ids where a forward has many tokens."""

    def __init__(self, target, shift: float, many: int) -> None:
        self.target, self.shift, self.many = target, shift, many

    def __getattr__(self, name):
        return getattr(self.target, name)

    def __call__(self, batch, cache):
        return self.target(batch, cache)

    def logits(self, hidden):
        logits = self.target.logits(hidden)
        if hidden.shape[0] < self.many:
            return logits
        return logits + self.shift * (mx.arange(logits.shape[-1]) % 2 == 0)


def quiet(message: str) -> None:
    """No progress."""


class Swapped(Shifted):
    """The same, but there row `many - 1` alone is off: its best token is least likely."""

    def logits(self, hidden):
        logits = self.target.logits(hidden)
        if hidden.shape[0] < self.many:
            return logits
        at = mx.arange(logits.shape[0])[:, None] == self.many - 1
        best = mx.arange(logits.shape[1])[None] == logits.argmax(-1, keepdims=True)
        return mx.where(at & best, -self.shift, logits)


@pytest.mark.parametrize(("variant", "widths"), [("e2b", range(1, 9)), ("26b", (1, 2, 8))])
def test_blocks_and_neighbours_change_no_logit_on_cpu(variant, widths, monkeypatch):
    assert list(blocks.WIDTHS) == [1, 2, 3, 4, 5, 6, 7, 8]
    monkeypatch.setattr(blocks, "WIDTHS", widths)
    target = golden_pair(variant).target
    seen = measure(target, TEXTS, [1, 8], CHUNK, quiet)
    cells = [(error.rows, error.block) for error in seen.errors]
    assert cells == [(r, b) for r in (1, 8) for b in widths if (r, b) != (1, 1)]
    for error in seen.errors:
        assert (error.largest, error.usual, error.disagreements) == (0, 0, 0)
        assert error.is_rounding(seen.bound)
    assert seen.gaps.shape == (sum(len(text.ids) - text.start for text in TEXTS),)
    assert (seen.gaps > 0).all()


def test_an_error_of_wide_forwards_is_found_where_it_is(monkeypatch):
    monkeypatch.setattr(blocks, "WIDTHS", (1, 2, 5, 6))
    target = Shifted(golden_pair("31b").target, 0.25, many=6)
    seen = measure(target, TEXTS, [1, 4], CHUNK, quiet)
    for error in seen.errors:
        is_wide = error.block * error.rows >= 6
        assert (error.largest > 0) == is_wide, error
        assert error.is_rounding(seen.bound) != is_wide
        if is_wide:
            assert error.largest == pytest.approx(0.25, abs=1e-4)
            assert error.far_disagreements == 0  # half of all logits are off by as much
    assert seen.eps(5, 1) == 0 < seen.eps(6, 1) == seen.bound < 0.1


def test_another_best_token_at_few_positions_is_far_from_a_near_tie(monkeypatch):
    monkeypatch.setattr(blocks, "WIDTHS", (4,))
    target = Swapped(golden_pair("31b").target, 20.0, many=4)
    alone = measure(target, TEXTS, [1], CHUNK, quiet).errors[0]
    assert (alone.usual, alone.block) == (0, 4)
    assert alone.disagreements == alone.far_disagreements > 1
    assert not alone.is_rounding(bound=1e9)


def test_logits_that_are_no_numbers_are_infinitely_far_off(monkeypatch):
    monkeypatch.setattr(blocks, "WIDTHS", (4,))
    target = Shifted(golden_pair("31b").target, float("nan"), many=4)
    (alone,) = measure(target, TEXTS[:1], [1], CHUNK, quiet).errors
    assert alone.largest == float("inf")
    assert not alone.is_rounding(bound=1e9)


def test_last_logits_are_those_of_plain_decoding():
    target = golden_pair("31b").target
    for text in TEXTS:
        whole = last_logits(target, text, CHUNK)
        assert whole.shape == (target.config.vocab_size,)
        told = last_logits(target, Text(text.ids, len(text.ids)), len(text.ids))
        assert np.abs(whole - told).max() < 1e-3
