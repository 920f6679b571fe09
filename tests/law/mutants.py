"""Hand-made faults of the round, each with the named test that must see it.

A mutant patches the real code while its killer, a test that passes on the real code, runs.
`python -m tests.law.mutants` prints which test killed which mutant, how fast and with what words.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import mlx.core as mx

from mtp_mlx.engine import engine, round
from mtp_mlx.model import cache, choose, view
from mtp_mlx.model.batch import Row
from tests.law import test_choose_law, test_round_law, test_round_state
from tests.model import test_choose

PACKAGES = ("mtp_mlx.", "tests.")


@contextmanager
def swapped(original: Callable, mutant: Callable) -> Iterator[None]:
    """Every module of package and tests that holds `original` holds `mutant` instead."""
    places = [
        (module, name)
        for module in list(sys.modules.values())
        if module is not None and module.__name__.startswith(PACKAGES)
        for name, held in list(vars(module).items())
        if held is original
    ]
    assert places, f"nobody holds {original}"
    for module, name in places:
        setattr(module, name, mutant)
    try:
        yield
    finally:
        for module, name in places:
            setattr(module, name, original)


# The row's state and length after a round


def hidden_row_off_by_one() -> AbstractContextManager:
    """The state after the pending token's predecessor: right text, poor drafts."""
    original = round.commit

    def commit(cache_, row, kept, hidden):
        original(cache_, row, kept, hidden)
        row.hidden = hidden[max(len(kept.tokens) - 2, 0)]

    return swapped(original, commit)


def state_of_the_last_draft() -> AbstractContextManager:
    """The state of the last row of the block, as if nothing were ever rejected."""
    original = round.commit

    def commit(cache_, row, kept, hidden):
        original(cache_, row, kept, hidden)
        row.hidden = hidden[-1]

    return swapped(original, commit)


def stale_state_after_plain_rounds() -> AbstractContextManager:
    original = round.commit

    def commit(cache_, row, kept, hidden):
        before = row.hidden
        original(cache_, row, kept, hidden)
        if hidden.shape[0] == 1:
            row.hidden = before

    return swapped(original, commit)


def skipped_rollback() -> AbstractContextManager:
    """Rejected drafts stay in the cache: the length counts all that was written."""
    original = round.commit

    def commit(cache_, row, kept, hidden):
        original(cache_, row, kept, hidden)
        cache_.commit(row.slot, hidden.shape[0] - len(kept.tokens))

    return swapped(original, commit)


# What is accepted


def mismatch_keeps_the_draft() -> AbstractContextManager:
    """At the first wrong draft the row takes the draft, and the target's token behind it."""
    original = round.accept

    def accept(drafted, chosen, limit):
        kept = original(drafted, chosen, limit)
        is_wrong = kept.accepted < len(drafted) and len(kept.tokens) == kept.accepted + 1
        if not is_wrong or kept.reason is not None:
            return kept
        return replace(kept, tokens=(*kept.tokens[:-1], drafted[kept.accepted]))

    return swapped(original, accept)


def first_draft_never_verified() -> AbstractContextManager:
    original = round.accept

    def accept(drafted, chosen, limit):
        return original(drafted, [*drafted[:1], *chosen[len(drafted[:1]) :]], limit)

    return swapped(original, accept)


def last_token_from_the_drafter() -> AbstractContextManager:
    """A block that was accepted whole ends in the drafter's next token, not the target's."""
    propose, land = round.propose, round.land
    ends: list[mx.array] = []

    def longer(target, drafter, cache_, sequences, lengths):
        draft = propose(target, drafter, cache_, sequences, tuple(n + (n > 0) for n in lengths))
        if draft.tokens is None:
            return draft
        depth = max(lengths)
        ends.append(draft.tokens)
        return round.Draft(lengths, draft.tokens[:, :depth], draft.is_sound[:, :depth])

    def landed(flight):
        verdict = land(flight)
        if flight.draft.tokens is None:
            return verdict
        drafting = iter(ends.pop().tolist())
        for index, length in enumerate(flight.draft.lengths):
            if length:
                verdict.chosen[index][-1] = next(drafting)[length]
        return verdict

    return _both(swapped(propose, longer), swapped(land, landed))


def stop_id_dropped_inside_a_block() -> AbstractContextManager:
    """Only the last token of a block is looked at."""
    original = round.accept

    def accept(drafted, chosen, limit):
        kept = original(drafted, chosen, replace(limit, stop_ids=frozenset()))
        is_stop = kept.tokens[-1] in limit.stop_ids
        return replace(kept, reason="stop") if is_stop else kept

    return swapped(original, accept)


def end_test_sees_the_last_token_alone() -> AbstractContextManager:
    """A stop string that ends inside a block is missed."""
    original = round.accept

    def accept(drafted, chosen, limit):
        kept = original(drafted, chosen, replace(limit, is_end=lambda token: False))
        return replace(kept, reason="stop") if limit.is_end(kept.tokens[-1]) else kept

    return swapped(original, accept)


def budget_not_cut() -> AbstractContextManager:
    original = round.accept

    def accept(drafted, chosen, limit):
        kept = original(drafted, chosen, replace(limit, remaining=1 << 30))
        is_full = len(kept.tokens) >= limit.remaining and kept.reason is None
        return replace(kept, reason="length") if is_full else kept

    def draft_length(self, row):
        return row.request.num_draft_tokens if self._wants_drafts(row) else 0

    lengths = patch.object(engine.Engine, "_draft_length", draft_length)
    return _both(swapped(original, accept), lengths)


# Which keys are seen


def wrong_window() -> AbstractContextManager:
    """One key too many, in verify blocks and prompts alike."""
    original = view.View.__init__

    def wider(self, *args, extra_keys=0, **options):
        original(self, *args, extra_keys=extra_keys + 1, **options)

    return patch.object(view.View, "__init__", wider)


def full_mask_off_by_one() -> AbstractContextManager:
    """Queries of full layers see the key behind their own."""
    original = view.View._masks

    def later(self):
        masks = original(self)
        return [mx.concatenate([mask[:, :1], mask[:, :-1]], axis=-1) for mask in masks]

    return patch.object(view.View, "_masks", later)


def ring_read_off_by_one() -> AbstractContextManager:
    """Every ring slot is taken for the position before the one it holds."""
    original = cache.ring_positions
    return swapped(original, lambda end, capacity: original(end, capacity) - 1)


def ring_slack_ignored() -> AbstractContextManager:
    """Rings of `window` slots: a verify block overwrites keys that its first queries need."""
    original = cache.WindowLayer.__init__

    def tight(self, spec, max_block, dtype):
        original(self, spec, 0, dtype)

    return patch.object(cache.WindowLayer, "__init__", tight)


def drafter_sees_a_rejected_key() -> AbstractContextManager:
    """The view of the drafter reaches slot `length`, where the last rejected draft lies."""

    def draft_view(cache_, slots, extra_keys=view.DRAFT_EXTRA_KEYS):
        lengths = [cache_.lengths[slot] for slot in slots]
        rows = tuple(Row(slot, n, 1) for slot, n in zip(slots, lengths, strict=True))
        return view.View(cache_, rows, mx.array(lengths), extra_keys=extra_keys)

    return swapped(view.draft_view, draft_view)


def freed_slot_keeps_its_length() -> AbstractContextManager:
    original = cache.Cache.release

    def release(self, slot, *, wipe=False):
        length = self.lengths[slot]
        original(self, slot, wipe=wipe)
        self.lengths[slot] = length

    return patch.object(cache.Cache, "release", release)


def failed_row_not_wiped() -> AbstractContextManager:
    original = cache.Cache.release

    def release(self, slot, *, wipe=False):
        original(self, slot)

    return patch.object(cache.Cache, "release", release)


# Noise, filters, temperature


def target_not_filtered() -> AbstractContextManager:
    """Filters act on drafts alone."""
    propose, threshold = round.propose, choose.filter_threshold
    drafting: list[bool] = []

    def marked(*args):
        drafting.append(True)
        try:
            return propose(*args)
        finally:
            drafting.pop()

    def only_drafts(scaled, choice):
        return threshold(scaled, choice) if drafting else None

    return _both(swapped(propose, marked), swapped(threshold, only_drafts))


def noise_shared_by_neighbouring_positions() -> AbstractContextManager:
    original = choose.noise_key
    return swapped(original, lambda seed, position: original(seed, position // 2))


def noise_shared_by_rows() -> AbstractContextManager:
    """All rows of a call draw with the first one's seed."""
    original = choose.Choice.__init__

    def shared(self, rows: Sequence, positions: Sequence):
        first = rows[0].seed if len(rows) else 0
        original(self, [replace(row, seed=first) for row in rows], positions)

    return patch.object(choose.Choice, "__init__", shared)


def round_reuses_the_noise_of_the_token_before() -> AbstractContextManager:
    """Rounds count positions one lower than prefill: its noise is drawn twice."""
    original = choose.Choice.__init__

    def early(self, rows, positions):
        caller = sys._getframe(1).f_code.co_name
        original(self, rows, [p - (caller != "_first_token") for p in positions])

    return patch.object(choose.Choice, "__init__", early)


def drafts_with_noise_of_their_own() -> AbstractContextManager:
    """Right law, poor drafts: the drafter's noise is that of other seeds."""
    original = choose.Choice.__init__

    def apart(self, rows, positions):
        if sys._getframe(1).f_code.co_name == "propose":
            rows = [replace(row, seed=row.seed + (1 << 40)) for row in rows]
        original(self, rows, positions)

    return patch.object(choose.Choice, "__init__", apart)


def temperature_off_by_a_tenth() -> AbstractContextManager:
    original = choose.Choice.__init__

    def warmer(self, rows, positions):
        original(self, rows, positions)
        self.temperature = self.temperature * 1.1

    return patch.object(choose.Choice, "__init__", warmer)


def filters_before_temperature() -> AbstractContextManager:
    """top_p and min_p of the logits at T = 1, as mlx-lm does."""
    original = choose.filter_threshold

    def at_one(scaled, choice):
        threshold = original(scaled * choice.temperature, choice)
        return None if threshold is None else threshold / choice.temperature

    return swapped(original, at_one)


def top_p_drops_the_token_that_reaches_it() -> AbstractContextManager:
    """Only tokens whose own mass still lies below top_p, the best one always."""
    original = choose.filter_threshold

    def shorter(scaled, choice):
        threshold = original(scaled, choice)
        above = mx.where(scaled > threshold, scaled, mx.inf).min(axis=-1, keepdims=True)
        return mx.where((choice.top_p < 1.0) & mx.isfinite(above), above, threshold)

    return swapped(original, shorter)


def ties_at_the_border_dropped() -> AbstractContextManager:
    """Exactly k tokens, whichever come first."""
    original = choose.filter_threshold

    def strict(scaled, choice):
        order = mx.arange(scaled.shape[-1], 0, -1) * 1e-6
        return original(scaled + order, choice)

    return swapped(original, strict)


@contextmanager
def _both(first: AbstractContextManager, second: AbstractContextManager) -> Iterator[None]:
    with first, second:
        yield


@dataclass(frozen=True)
class Mutant:
    """One fault, and the test that passes without it and fails with it."""

    patch: Callable[[], AbstractContextManager]
    killer: Callable[..., Any]
    arguments: tuple = ()

    @property
    def name(self) -> str:
        return self.patch.__name__

    @property
    def check(self) -> Callable[[], None]:
        return partial(self.killer, *self.arguments)


state, law = test_round_state, test_round_law
MUTANTS = (
    Mutant(
        hidden_row_off_by_one,
        state.test_the_state_that_seeds_the_drafter_predicted_the_pending_token,
        ("close",),
    ),
    Mutant(state_of_the_last_draft, state.test_acceptance_of_the_scripted_pairs_is_as_recorded),
    Mutant(stale_state_after_plain_rounds, state.test_the_state_is_fresh_after_plain_rounds_too),
    Mutant(
        skipped_rollback,
        state.test_the_cache_holds_the_committed_tokens_and_no_rejected_draft,
        ("disjoint",),
    ),
    Mutant(mismatch_keeps_the_draft, state.test_drafts_never_change_a_token, ("poor", 3)),
    Mutant(first_draft_never_verified, state.test_drafts_never_change_a_token, ("close", 3)),
    Mutant(
        last_token_from_the_drafter,
        law.test_the_last_token_of_an_accepted_block_is_the_targets,
    ),
    Mutant(
        stop_id_dropped_inside_a_block,
        state.test_a_stop_id_ends_a_row_wherever_it_falls_in_a_block,
        ("equal",),
    ),
    Mutant(
        end_test_sees_the_last_token_alone,
        state.test_the_end_test_sees_every_emitted_token_once_and_in_order,
    ),
    Mutant(budget_not_cut, state.test_a_reply_has_exactly_its_budget, (3,)),
    Mutant(wrong_window, state.test_a_block_sees_its_window_and_itself, (9, 2)),
    Mutant(full_mask_off_by_one, state.test_a_block_sees_its_window_and_itself, (9, 2)),
    Mutant(ring_read_off_by_one, state.test_the_drafter_sees_committed_keys_alone, (1,)),
    Mutant(ring_slack_ignored, state.test_rejected_blocks_leave_no_trace_in_what_is_seen),
    Mutant(drafter_sees_a_rejected_key, state.test_the_drafter_sees_committed_keys_alone, (2,)),
    Mutant(freed_slot_keeps_its_length, state.test_a_freed_slot_is_empty),
    Mutant(failed_row_not_wiped, state.test_a_row_after_a_failed_one_is_as_in_a_fresh_slot),
    Mutant(target_not_filtered, law.test_no_token_outside_the_support_in_a_thousand_replies),
    Mutant(
        noise_shared_by_neighbouring_positions,
        law.test_neighbouring_positions_of_a_round_are_independent_given_the_chain,
    ),
    Mutant(noise_shared_by_rows, law.test_rows_of_a_round_draw_apart),
    Mutant(
        round_reuses_the_noise_of_the_token_before,
        law.test_prompt_end_and_first_round_draw_apart,
    ),
    Mutant(drafts_with_noise_of_their_own, law.test_acceptance_is_that_of_shared_noise),
    Mutant(temperature_off_by_a_tenth, test_choose_law.test_ten_percent_of_temperature_are_seen),
    Mutant(filters_before_temperature, test_choose.test_temperature_comes_before_the_other_filters),
    Mutant(top_p_drops_the_token_that_reaches_it, test_choose.test_top_p_counts_among_the_top_k),
    Mutant(ties_at_the_border_dropped, test_choose.test_ties_at_the_border_stay_in),
)


def death(mutant: Mutant) -> str | None:
    """What the killer says under the mutant; None when it lives."""
    with mutant.patch():
        try:
            mutant.check()
        except AssertionError as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return str(error).split("\n")[0] or f"{place.name}: {place.line}"
    return None


def main() -> int:
    alive = 0
    for mutant in MUTANTS:
        start = time.process_time()
        words = death(mutant)
        seconds = time.process_time() - start
        alive += words is None
        verdict = "ALIVE" if words is None else f"killed: {words}"
        print(f"{mutant.name:44} {seconds:5.2f} s  {mutant.killer.__name__}\n    {verdict}")
    print(f"{len(MUTANTS) - alive} of {len(MUTANTS)} mutants killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
