"""The mutation floor: each fault of `faults`, and the named test that must see it.

The killer passes on the real code, as a test of its own, and fails while the fault is in.
`python -m tests.law.mutants` prints which test killed which mutant, how fast and with what words.
"""

import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.law import faults, test_choose_law
from tests.law import test_history as past
from tests.law import test_round_law as law
from tests.law import test_round_state as state
from tests.model import test_choose


@dataclass(frozen=True)
class Mutant:
    """One fault, and the test that passes without it and fails with it."""

    fault: Callable[[], AbstractContextManager]
    killer: Callable[..., Any]
    arguments: tuple = ()

    @property
    def name(self) -> str:
        return self.fault.__name__

    @property
    def check(self) -> Callable[[], None]:
        return partial(self.killer, *self.arguments)


MUTANTS = (
    Mutant(
        faults.hidden_row_off_by_one,
        state.test_the_state_that_seeds_the_drafter_predicted_the_pending_token,
        ("close",),
    ),
    Mutant(
        faults.state_of_the_last_draft, state.test_acceptance_of_the_scripted_pairs_is_as_recorded
    ),
    Mutant(
        faults.stale_state_after_plain_rounds, state.test_the_state_is_fresh_after_plain_rounds_too
    ),
    Mutant(
        faults.skipped_rollback,
        state.test_the_cache_holds_the_committed_tokens_and_no_rejected_draft,
        ("disjoint",),
    ),
    Mutant(faults.mismatch_keeps_the_draft, state.test_drafts_never_change_a_token, ("poor", 3)),
    Mutant(faults.first_draft_never_verified, state.test_drafts_never_change_a_token, ("close", 3)),
    Mutant(
        faults.last_token_from_the_drafter,
        law.test_the_last_token_of_an_accepted_block_is_the_targets,
    ),
    Mutant(
        faults.stop_id_dropped_inside_a_block,
        state.test_a_stop_id_ends_a_row_wherever_it_falls_in_a_block,
        ("equal",),
    ),
    Mutant(
        faults.end_test_sees_the_last_token_alone,
        state.test_the_end_test_sees_every_emitted_token_once_and_in_order,
    ),
    Mutant(faults.budget_not_cut, state.test_a_reply_has_exactly_its_budget, (3,)),
    Mutant(faults.wrong_window, state.test_a_block_sees_its_window_and_itself, (9, 2)),
    Mutant(faults.full_mask_off_by_one, state.test_a_block_sees_its_window_and_itself, (9, 2)),
    Mutant(faults.ring_read_off_by_one, state.test_the_drafter_sees_committed_keys_alone, (1,)),
    Mutant(faults.ring_slack_ignored, state.test_rejected_blocks_leave_no_trace_in_what_is_seen),
    Mutant(
        faults.drafter_sees_a_rejected_key, state.test_the_drafter_sees_committed_keys_alone, (2,)
    ),
    Mutant(faults.freed_slot_keeps_its_length, state.test_a_freed_slot_is_empty),
    Mutant(faults.reused_slot_not_wiped, state.test_a_row_after_a_failed_one_is_as_in_a_fresh_slot),
    Mutant(faults.target_not_filtered, law.test_no_token_outside_the_support_in_a_thousand_replies),
    Mutant(
        faults.noise_shared_by_neighbouring_positions,
        law.test_neighbouring_positions_of_a_round_are_independent_given_the_chain,
    ),
    Mutant(faults.noise_shared_by_rows, law.test_rows_of_a_round_draw_apart),
    Mutant(
        faults.round_reuses_the_noise_of_the_token_before,
        law.test_prompt_end_and_first_round_draw_apart,
    ),
    Mutant(faults.drafts_with_noise_of_their_own, law.test_acceptance_is_that_of_shared_noise),
    Mutant(
        faults.temperature_off_by_a_tenth, test_choose_law.test_ten_percent_of_temperature_are_seen
    ),
    Mutant(
        faults.filters_before_temperature,
        test_choose.test_temperature_comes_before_the_other_filters,
    ),
    Mutant(
        faults.top_p_drops_the_token_that_reaches_it, test_choose.test_top_p_counts_among_the_top_k
    ),
    Mutant(faults.ties_at_the_border_dropped, test_choose.test_ties_at_the_border_stay_in),
    Mutant(
        faults.penalties_see_rejected_drafts,
        past.test_penalties_count_kept_tokens_and_the_drafts_in_front,
        ("poor", 3),
    ),
    Mutant(
        faults.penalties_miss_the_drafts_of_the_block,
        past.test_penalties_count_kept_tokens_and_the_drafts_in_front,
        ("equal", 3),
    ),
    Mutant(
        faults.penalties_see_the_draft_of_their_own_place,
        past.test_penalties_count_kept_tokens_and_the_drafts_in_front,
        ("equal", 3),
    ),
    Mutant(
        faults.penalties_behind_a_token_in_the_air,
        past.test_plain_rounds_do_not_run_ahead_of_a_history,
    ),
    Mutant(
        faults.drafter_does_not_count_its_drafts,
        past.test_penalties_count_kept_tokens_and_the_drafts_in_front,
        ("equal", 3),
    ),
    Mutant(faults.masks_of_another_block, past.test_a_mask_is_that_of_its_place, ("equal",)),
    Mutant(
        faults.constraint_hears_of_rejected_drafts,
        past.test_a_mask_is_that_of_its_place,
        ("poor",),
    ),
)


def death(mutant: Mutant) -> str | None:
    """What the killer says under the mutant; None when it lives."""
    with mutant.fault():
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
