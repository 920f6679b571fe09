"""The measured error of a target's kernels: none on CPU, and what is planted is found."""

import mlx.core as mx
import numpy as np

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


def test_blocks_and_neighbours_change_no_logit_on_cpu():
    for variant in ("e2b", "26b"):
        seen = measure(golden_pair(variant).target, TEXTS, [1, 2, 8], CHUNK, quiet)
        cells = [(error.rows, error.block) for error in seen.errors]
        assert cells == [(r, b) for r in (1, 2, 8) for b in range(1, 9) if (r, b) != (1, 1)]
        assert all(error.largest == 0 and error.disagreements == 0 for error in seen.errors)
        assert seen.gaps.shape == (sum(len(text.ids) - text.start for text in TEXTS),)
        assert (seen.gaps > 0).all()


def test_an_error_of_wide_forwards_is_found_where_it_is():
    target = Shifted(golden_pair("31b").target, 0.25, many=6)
    seen = measure(target, TEXTS, [1, 4], CHUNK, quiet)
    for error in seen.errors:
        is_wide = error.block * error.rows >= 6
        assert (error.largest > 0) == is_wide, error
        if is_wide:
            assert abs(error.largest - 0.25) < 1e-4
    assert seen.eps(5, 1) == 0 < seen.eps(6, 1)


def test_last_logits_are_those_of_plain_decoding():
    target = golden_pair("31b").target
    for text in TEXTS:
        whole = last_logits(target, text, CHUNK)
        assert whole.shape == (target.config.vocab_size,)
        told = last_logits(target, Text(text.ids, len(text.ids)), len(text.ids))
        assert np.abs(whole - told).max() < 1e-3
