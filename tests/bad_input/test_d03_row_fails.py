"""D3: whatever a request's own code raises, in any round, ends that row alone."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.model.target import Target
from mtp_mlx.request import Failed, Request, Sampling
from tests.exact.pairs import Outcome, Run, golden_pair, oracle_engine, plain
from tests.exact.test_acceptance import shallow
from tests.golden import recipe
from tests.oracle import agreeing

TARGET = "31b"
ROUNDS = 20
# Drafts of the rows: three that fail, three that do not, one that waits for a slot.
DRAFTS = (0, 3, 7, 0, 2, 7, 3)
DOOMED, SLOTS = range(3), 6
AGREEMENT = 0.5


class Broken(Exception):
    """What a request's own code raises."""


@cache
def target() -> Target:
    return shallow(golden_pair(TARGET).target)


@cache
def requests() -> tuple[Request, ...]:
    """All but the last run for more than twenty rounds where they do not fail."""
    prompts = [tuple(int(token) for token in recipe.prompt(3 + 4 * i, i)) for i in range(7)]
    return tuple(
        Request(
            prompt=prompt,
            sampling=Sampling(temperature=5.0, seed=index),
            max_tokens=8 if index == SLOTS else 24 if drafts == 0 else 44,
            num_draft_tokens=drafts,
        )
        for index, (prompt, drafts) in enumerate(zip(prompts, DRAFTS, strict=True))
    )


@cache
def alone() -> list[Outcome]:
    return [plain(target(), request) for request in requests()]


class Steps:
    """The engine's steps so far, for the code of a request that fails in one of them."""

    def __init__(self) -> None:
        self.number = 0

    def breaking(self, at: int) -> Callable[[int], bool]:
        """Raises in step `at` or, every other time, once it has taken one token of that step."""
        heard: list[int] = []

        def is_end(token: int) -> bool:
            heard.append(self.number)
            if self.number > at or (self.number == at and heard.count(at) > at % 2):
                raise Broken(f"in step {at}")
            return False

        return is_end


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(number, marks=[] if number % 2 else [pytest.mark.slow])
        for number in range(1, ROUNDS + 1)
    ],
)
def test_rows_that_raise_in_any_round_fail_alone(first):
    steps, asked = Steps(), list(requests())
    # Over all values of `first`, each of the three fails in each of the rounds.
    due = {row: (first - 1 + 7 * row) % ROUNDS + 1 + len(DOOMED) for row in DOOMED}
    for row, at in due.items():
        asked[row] = replace(asked[row], is_end=steps.breaking(at))
    texts = [outcome.ids for outcome in alone()]
    script = agreeing(AGREEMENT, seed=first)
    engine, _ = oracle_engine(target(), texts, script, SLOTS, PREFILL_CHUNK)
    run = Run(engine)
    for request in asked:
        run.submit(request)
    while not engine.is_idle:
        steps.number += 1
        before = {row: list(run.outcomes[row + 1].ids) for row in DOOMED}
        for event in run.step():
            if isinstance(event, Failed):
                row = event.request_id - 1
                assert steps.number - due[row] in (0, 1)
                assert run.outcomes[event.request_id].ids == before[row]
        check_invariants(engine)
    for index, expected in enumerate(alone()):
        seen = run.outcomes[index + 1]
        if index in DOOMED:
            assert isinstance(seen.end, Failed) and isinstance(seen.end.error, Broken)
            assert seen.ids and seen.ids == expected.ids[: len(seen.ids)]
        else:
            assert seen.text == expected.text


def test_all_rows_may_fail_at_once_and_the_next_are_as_ever():
    steps, asked = Steps(), requests()[:3]
    engine = Engine(target(), None, max_num_seqs=3)
    run = Run(engine)
    for request in asked:
        run.submit(replace(request, is_end=steps.breaking(8), num_draft_tokens=0))
    while not engine.is_idle:
        steps.number += 1
        run.step()
        check_invariants(engine)
    assert all(isinstance(outcome.end, Failed) for outcome in run.outcomes.values())
    ids = [run.submit(request) for request in asked]
    run.finish()
    assert [run.outcomes[id_].text for id_ in ids] == [each.text for each in alone()[:3]]
