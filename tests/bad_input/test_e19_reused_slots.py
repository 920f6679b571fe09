"""E17 to E19: rows come and go, eight become one and eight again; a reused slot is a fresh one."""

import random
from dataclasses import replace

import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.request import Failed, Finished, Request, Sampling
from tests.bad_input.kept import Solo, check_rows
from tests.exact.pairs import Run, golden_pair, oracle_engine
from tests.golden import recipe
from tests.oracle import agreeing

SLOTS, CHUNK = 8, 7
COUNT = 24  # three waves


class Broken(Exception):
    """What a request's own code raises."""


def requests(seed: int) -> list[Request]:
    draw = random.Random(seed)
    return [
        Request(
            prompt=tuple(int(t) for t in recipe.prompt(draw.randint(1, 30), index)),
            sampling=Sampling(temperature=5.0, seed=index),
            max_tokens=draw.randint(2, 16),
            num_draft_tokens=draw.choice((0, 3, 7)),
        )
        for index in range(COUNT)
    ]


def breaks(token: int) -> bool:
    raise Broken


def engine_and_solos(variant: str, asked: list[Request]) -> tuple[Engine, list[Solo]]:
    target = golden_pair(variant).target
    solos = [Solo(target, request, CHUNK) for request in asked]
    texts = [solo.outcome.ids for solo in solos]
    return oracle_engine(target, texts, agreeing(0.6, 5), SLOTS, CHUNK)[0], solos


@pytest.mark.parametrize("variant", ["31b", pytest.param("e2b", marks=pytest.mark.slow)])
def test_eight_rows_become_one_and_eight_again_without_residue(variant):
    asked = requests(1)
    # The first of the second wave outlives its wave; every fourth request fails at once.
    asked[SLOTS] = replace(asked[SLOTS], max_tokens=40)
    doomed = set(range(3, COUNT, 4))
    engine, solos = engine_and_solos(variant, asked)
    run, sizes = Run(engine), []

    def step() -> None:
        run.step()
        check_invariants(engine)
        check_rows(engine, solos)
        sizes.append(len(engine.sequences))

    for index, request in enumerate(asked):
        run.submit(replace(request, is_end=breaks) if index in doomed else request)
        if index % SLOTS < SLOTS - 1:
            continue
        while engine.waiting or len(engine.sequences) > 1:  # until all but the longest have gone
            step()
    run.finish()
    assert max(sizes) == SLOTS and min(sizes) <= 1
    for index, solo in enumerate(solos):
        outcome = run.outcomes[index + 1]
        if index in doomed:
            assert isinstance(outcome.end, Failed) and outcome.ids == []
        else:
            assert outcome.text == solo.outcome.text


def test_rows_that_come_and_go_in_any_step_leave_the_others_bitwise_as_they_are():
    asked = requests(2)
    engine, solos = engine_and_solos("31b", asked)
    draw, run = random.Random(3), Run(engine)
    for request in asked:
        run.submit(request)
        for _ in range(draw.randint(0, 4)):
            if engine.sequences and draw.random() < 0.2:
                run.cancel(draw.choice(engine.sequences).id)
            run.step()
            check_invariants(engine)
            check_rows(engine, solos)
    run.finish()
    ends = [run.outcomes[index].end for index in range(1, COUNT + 1)]
    assert all(isinstance(end, Finished) for end in ends)
    cancelled = [isinstance(end, Finished) and end.reason == "cancelled" for end in ends]
    assert 3 <= sum(cancelled) <= COUNT - 8
    for index, (solo, is_cut) in enumerate(zip(solos, cancelled, strict=True), start=1):
        ids = run.outcomes[index].ids
        assert ids == solo.outcome.ids[: len(ids)]
        assert is_cut or run.outcomes[index].text == solo.outcome.text
