"""The bench runs what rounds run, and leaves its rows as they were."""

import time

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.engine.calibrate import calibrate
from mtp_mlx.engine.timing import CONTEXT_TOKENS, RUN_STEPS, Bench
from mtp_mlx.request import MAX_DRAFT_TOKENS
from tests.exact.pairs import golden_pair
from tests.machine import TickingClock


class Watched:
    """A target that notes the rows and tokens of each forward."""

    def __init__(self, target) -> None:
        self.target = target
        self.rows: list[list[tuple[int, int, int]]] = []
        self.ids: list[list[int]] = []
        self.hidden: list[np.ndarray] = []

    def __getattr__(self, name):
        return getattr(self.target, name)

    def __call__(self, batch, cache, routes=None):
        hidden = self.target(batch, cache, routes)
        self.rows.append([(row.slot, row.start, row.length) for row in batch.rows])
        self.ids.append(np.array(batch.tokens).tolist())
        self.hidden.append(np.array(hidden))
        return hidden


def watched(variant: str = "31b", num_slots: int = 3) -> tuple[Watched, Bench]:
    pair = golden_pair(variant)
    target = Watched(pair.target)
    return target, Bench(target, pair.drafter, num_slots, MAX_DRAFT_TOKENS, TickingClock())


@pytest.mark.parametrize(
    ("num_tokens", "lengths"),
    [(1, [1]), (2, [2]), (8, [8]), (9, [5, 4]), (16, [8, 8]), (17, [6, 6, 5]), (24, [8, 8, 8])],
)
def test_a_forward_has_as_few_and_as_equal_rows_as_hold_it(num_tokens, lengths):
    target, bench = watched()
    assert bench.forward_s(num_tokens) == pytest.approx(1e-3)  # one reading before, one after
    assert target.rows[-1] == [(slot, CONTEXT_TOKENS, n) for slot, n in enumerate(lengths)]


def test_ids_are_random_and_new_each_time_but_the_same_in_every_run():
    target, bench = watched()
    bench.forward_s(24)
    bench.forward_s(24)
    assert len(set(target.ids[-1])) > 12
    assert target.ids[-1] != target.ids[-2]
    again, other = watched()
    other.forward_s(24)
    assert again.ids == target.ids[:2]


def test_rows_have_contexts_of_their_own_and_keep_them():
    target, bench = watched()
    assert target.rows == [[(slot, 0, CONTEXT_TOKENS) for slot in range(3)]]
    for _ in range(2):
        bench.forward_s(24)
        bench.plain_s()
        bench.draft_s(3, 4)
    assert bench._cache.lengths == [CONTEXT_TOKENS] * 3
    assert len({tuple(target.ids[0][at : at + CONTEXT_TOKENS]) for at in (0, 8, 16)}) == 3


def test_a_plain_run_goes_on_from_its_own_tokens():
    target, bench = watched()
    target.rows.clear()
    assert bench.plain_s() == pytest.approx(1e-3 / (RUN_STEPS - 2))
    assert target.rows == [[(0, CONTEXT_TOKENS + step, 1)] for step in range(RUN_STEPS)]
    states = target.hidden[-RUN_STEPS:]
    chosen = [int(np.array(target.logits(mx.array(state))).argmax()) for state in states]
    assert [ids[0] for ids in target.ids[-RUN_STEPS + 1 :]] == chosen[:-1]


def test_rows_that_share_context_and_token_compute_the_same():
    target, bench = watched("26b", num_slots=1)
    assert bench.num_routed == 2
    bench.routed_s(is_alike=False)
    assert target.ids[-1][0] != target.ids[-1][1]
    bench.share_context()
    bench.routed_s(is_alike=True)
    assert target.ids[-1][0] == target.ids[-1][1]
    assert target.rows[-1] == [(0, CONTEXT_TOKENS, 1), (1, CONTEXT_TOKENS, 1)]
    assert (target.hidden[-1][0] == target.hidden[-1][1]).all()
    assert bench.distinct(is_alike=True) == bench.experts.top_k


def test_random_tokens_read_more_experts_than_one_and_no_more_than_they_choose():
    _, bench = watched("26b", num_slots=3)
    top_k = bench.experts.top_k
    assert top_k < bench.distinct(is_alike=False) <= 3 * top_k


@pytest.mark.parametrize("variant", ["e2b", "26b"])
def test_a_real_pair_gives_a_curve_that_can_be_used(variant):
    pair = golden_pair(variant)
    bench = Bench(pair.target, pair.drafter, 2, MAX_DRAFT_TOKENS, time.perf_counter)
    found = calibrate(bench, 0.3, 3)
    counts = [count for count, _ in found.verify]
    assert counts[0] == 1 and counts == sorted(set(counts)) and counts[-1] <= 16
    assert all(seconds > 0 for _, seconds in found.verify)
    assert found.draft_depth_s + found.draft_token_s >= 0
    if variant == "26b":
        assert found.experts is not None and found.experts.expert_s >= 0
    else:
        assert found.experts is None
