"""Tokens of the real round follow the target's filtered law, whatever drafts.

64 rows at once through `Engine.step`, three tokens or more a reply, against exact enumeration. The
drafter is a table of known distance from the target, so acceptance has a known rate as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from mtp_mlx.request import Request, Sampling
from tests.law import laws
from tests.law.laws import Law
from tests.law.scripted import (
    DRAFTERS,
    NUM_SLOTS,
    Reply,
    ScriptedDrafter,
    ScriptedTarget,
    draft_table,
    make_engine,
    play,
    serve,
    target_table,
)

PROMPT = (3, 5)
NUM_REPLIES = 20_000
NUM_REPLIES_SLOW = 61_000
# Enough for the one effect that a quick test looks for, which is large.
NUM_REPLIES_QUICK = 5_000


@dataclass(frozen=True)
class Combination:
    """One pair and one way to decode it; `num_tokens` per reply bounds the drafts of a round."""

    drafter: str
    num_drafts: int
    sampling: Sampling
    num_tokens: int = 3
    table_seed: int = 1

    def __str__(self) -> str:
        s = self.sampling
        filters = f"T{s.temperature}-k{s.top_k}-p{s.top_p}-m{s.min_p}"
        return f"{self.drafter}-K{self.num_drafts}-{filters}"

    @property
    def tables(self) -> tuple:
        target = target_table(self.table_seed)
        return target, draft_table(self.drafter, target, self.sampling)

    @property
    def law(self) -> Law:
        return Law.of(*self.tables, self.sampling, PROMPT[-1])

    def requests(self, count: int, first_seed: int = 0) -> list[Request]:
        return [
            Request(
                prompt=PROMPT,
                sampling=replace(self.sampling, seed=first_seed + index),
                max_tokens=self.num_tokens,
                num_draft_tokens=self.num_drafts,
            )
            for index in range(count)
        ]

    def play(self, count: int, num_slots: int = NUM_SLOTS) -> list[Reply]:
        target, drafter = self.tables
        engine = make_engine(ScriptedTarget(target), ScriptedDrafter(drafter), num_slots)
        return play(engine, self.requests(count))


def filters(temperature: float, top_k: int, top_p: float, min_p: float) -> Sampling:
    return Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)


COMBINATIONS = (
    Combination("equal", 2, filters(1.0, 0, 1.0, 0.0)),
    Combination("equal", 4, filters(0.7, 5, 0.95, 0.05), num_tokens=5),
    Combination("close", 1, filters(1.5, 0, 1.0, 0.05)),
    Combination("close", 2, filters(1.0, 5, 1.0, 0.0)),
    Combination("close", 4, filters(0.7, 40, 0.95, 0.0), num_tokens=5),
    Combination("poor", 2, filters(1.0, 0, 0.95, 0.0)),
    Combination("poor", 1, filters(0.7, 5, 0.5, 0.3)),
    Combination("disjoint", 2, filters(1.5, 5, 1.0, 0.0)),
    Combination("point", 2, filters(1.5, 0, 0.95, 0.3)),
    Combination("point", 1, filters(0.2, 40, 1.0, 0.05)),
)
SLOW_COMBINATIONS = tuple(
    Combination(drafter, num_drafts, sampling, max(3, num_drafts + 1), table_seed=2)
    for drafter in DRAFTERS
    for num_drafts in (1, 7)
    for sampling in (filters(1.0, 0, 1.0, 0.0), filters(0.7, 5, 0.95, 0.05))
    if drafter != "disjoint" or sampling.top_k
)
PLAIN = filters(1.0, 0, 1.0, 0.0)


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_tokens_of_the_round_follow_the_filtered_target(combination: Combination) -> None:
    replies, law = combination.play(NUM_REPLIES), combination.law
    for check in laws.CHECKS:
        check(replies, law)


def test_no_token_outside_the_support_in_a_thousand_replies() -> None:
    for drafter in ("equal", "poor"):
        combination = Combination(drafter, 2, filters(1.0, 3, 1.0, 0.0))
        laws.check_support(combination.play(500), combination.law)


def test_marginals_of_a_round_are_the_targets() -> None:
    combination = Combination("close", 2, PLAIN)
    laws.check_marginals(combination.play(NUM_REPLIES_QUICK), combination.law)


def test_neighbouring_positions_of_a_round_are_independent_given_the_chain() -> None:
    combination = Combination("close", 2, PLAIN)
    laws.check_joint(combination.play(NUM_REPLIES_QUICK), combination.law)


def test_rows_of_a_round_draw_apart() -> None:
    combination = Combination("close", 2, PLAIN)
    laws.check_rows_apart(combination.play(NUM_REPLIES_QUICK), combination.law)


def test_acceptance_is_that_of_shared_noise() -> None:
    for drafter in ("equal", "close", "poor"):
        combination = Combination(drafter, 2, PLAIN)
        laws.check_acceptance(combination.play(2_000), combination.law)


def test_the_last_token_of_an_accepted_block_is_the_targets() -> None:
    """A close drafter and one draft: half the tokens end a block that was accepted whole."""
    combination = Combination("close", 1, PLAIN)
    laws.check_transitions(combination.play(NUM_REPLIES_QUICK), combination.law)


def test_long_replies_from_submit_to_end_follow_the_chain() -> None:
    """64 rows that join one after the other, 320 tokens each, through prefill and rounds."""
    combination = Combination("close", 3, filters(1.0, 8, 0.95, 0.0), num_tokens=320)
    target, drafter = combination.tables
    engine = make_engine(ScriptedTarget(target), ScriptedDrafter(drafter))
    replies, law = serve(engine, combination.requests(NUM_SLOTS)), combination.law
    for check in (laws.check_support, laws.check_transitions):
        check(replies, law)


def test_prompt_end_and_first_round_draw_apart() -> None:
    """The token after the prompt is chosen by prefill, the next ones by rounds."""
    combination = Combination("close", 1, PLAIN)
    target, drafter = combination.tables
    engine = make_engine(ScriptedTarget(target), ScriptedDrafter(drafter))
    laws.check_joint(serve(engine, combination.requests(700)), combination.law)


def mixed_samplings() -> Iterator[Combination]:
    for sampling in (PLAIN, filters(0.7, 5, 1.0, 0.0), filters(1.5, 0, 0.5, 0.0)):
        yield Combination("poor", 2, sampling)


def test_rows_of_different_samplings_each_follow_their_own_law() -> None:
    combinations = list(mixed_samplings())
    target, drafter = combinations[0].tables
    engine = make_engine(ScriptedTarget(target), ScriptedDrafter(drafter))
    kinds = [c.requests(NUM_REPLIES_QUICK) for c in combinations]
    replies = play(engine, [request for row in zip(*kinds, strict=True) for request in row])
    for index, combination in enumerate(combinations):
        for check in laws.CHECKS:
            check(replies[index :: len(combinations)], combination.law)


@pytest.mark.slow
@pytest.mark.parametrize("num_slots", [1, 2, 3, 5, 8])
def test_the_law_holds_at_every_batch_size(num_slots: int) -> None:
    combination = Combination("close", 2, filters(0.7, 5, 0.95, 0.0))
    replies, law = combination.play(NUM_REPLIES, num_slots), combination.law
    for check in laws.CHECKS:
        check(replies, law)


@pytest.mark.slow
@pytest.mark.parametrize("combination", [*COMBINATIONS, *SLOW_COMBINATIONS], ids=str)
def test_tokens_follow_the_filtered_target_at_guaranteed_power(combination: Combination) -> None:
    replies, law = combination.play(NUM_REPLIES_SLOW), combination.law
    for check in laws.CHECKS:
        check(replies, law)
