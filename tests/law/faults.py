"""Hand-made faults of the round: each a patch of the real code while its context is open."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from unittest.mock import patch

import mlx.core as mx

from mtp_mlx.engine import constraints, draft, engine, history, round, sequence
from mtp_mlx.engine.draft import Draft
from mtp_mlx.model import cache, choose, view
from mtp_mlx.model.batch import Row

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
    propose, land = draft.propose, round.land
    ends: list[mx.array] = []

    def longer(target, drafter, cache_, sequences, lengths):
        draft = propose(target, drafter, cache_, sequences, tuple(n + (n > 0) for n in lengths))
        if draft.tokens is None:
            return draft
        depth = max(lengths)
        ends.append(draft.tokens)
        return Draft(lengths, draft.tokens[:, :depth], draft.is_sound[:, :depth])

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

    row_input = engine.Engine._input

    def uncut(self, row, in_the_air=0):
        made = row_input(self, row, in_the_air)
        return replace(made, cap=row.request.num_draft_tokens) if made.cap else made

    lengths = patch.object(engine.Engine, "_input", uncut)
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
        seen = [mask.seen for mask in original(self)]
        return [view.Mask(mx.concatenate([s[..., :1], s[..., :-1]], axis=-1)) for s in seen]

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

    def release(self, slot):
        length = self.lengths[slot]
        original(self, slot)
        self.lengths[slot] = length

    return patch.object(cache.Cache, "release", release)


def reused_slot_not_wiped() -> AbstractContextManager:
    return patch.object(cache.WindowLayer, "wipe", lambda self, slot: None)


# Noise, filters, temperature


def target_not_filtered() -> AbstractContextManager:
    """Filters act on drafts alone."""
    propose, threshold = draft.propose, choose.filter_threshold
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
        is_first = caller == "choose_all" and len(positions) == 1 and _is_prefill()
        original(self, rows, [p - (not is_first) for p in positions])

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


def _is_prefill() -> bool:
    """Is this called for the token after a prompt?"""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "launch_first":
        frame = frame.f_back
    return frame is not None


# What comes before a place, and what may come at it


def penalties_see_rejected_drafts() -> AbstractContextManager:
    judge, replies = round.judge, history._replies
    rejected: dict[int, list[int]] = {}

    def noted(sequence, verdict, row):
        kept = judge(sequence, verdict, row)
        own = rejected.setdefault(id(sequence), [])
        own += verdict.drafted[row][kept.accepted :]
        return kept

    def longer(sequences, vocab_size):
        tokens = [each.tokens for each in sequences]
        for each in sequences:
            each.tokens = each.tokens + rejected.get(id(each), [])
        try:
            return replies(sequences, vocab_size)
        finally:
            for each, own in zip(sequences, tokens, strict=True):
                each.tokens = own

    return _both(swapped(judge, noted), swapped(replies, longer))


def penalties_miss_the_drafts_of_the_block() -> AbstractContextManager:
    original = history.processors_of

    def committed_alone(sequences, lengths, drafts, tokens, vocab_size):
        return original(sequences, lengths, drafts, None, vocab_size)

    return swapped(original, committed_alone)


def penalties_see_the_draft_of_their_own_place() -> AbstractContextManager:
    """Place i counts draft i, which it judges."""
    original = history._counted

    def early(table, rows, ids):
        return original(table, [max(row - 1, 0) for row in rows], ids)

    return swapped(original, early)


def penalties_behind_a_token_in_the_air() -> AbstractContextManager:
    """Plain rounds run ahead of what the host has counted."""
    return patch.object(sequence.Sequence, "needs_its_tokens", False)


def drafter_does_not_count_its_drafts() -> AbstractContextManager:
    """Right text, poor drafts."""
    return patch.object(history.DraftHistory, "add", lambda self, active, tokens: None)


def masks_of_another_block() -> AbstractContextManager:
    """The constraint is asked about drafts that are all token 0."""
    original = constraints._read

    def zeros(sequences, draft, forward):
        return [[0] * len(own) for own in original(sequences, draft, forward)]

    return swapped(original, zeros)


def constraint_hears_of_rejected_drafts() -> AbstractContextManager:
    """It is told the whole block."""
    original = round.judge

    def told(sequence, verdict, row):
        kept = original(sequence, verdict, row)
        if sequence.request.constraint is not None:
            sequence.request.constraint.last = [*kept.tokens, *verdict.drafted[row]][-1]
        return kept

    return swapped(original, told)


@contextmanager
def _both(first: AbstractContextManager, second: AbstractContextManager) -> Iterator[None]:
    with first, second:
        yield
