"""E23, E27: the number of drafts changes in every round, and drafting stops in mid-reply."""

import random
from dataclasses import replace

import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.request import MAX_DRAFT_TOKENS, Finished, Request, Sampling
from tests.exact.pairs import Outcome, Run, embedded_pair, golden_pair, oracle_engine, plain
from tests.golden import recipe
from tests.oracle import agreeing

SAMPLINGS = (
    Sampling(),
    Sampling(temperature=5.0, seed=2),
    Sampling(temperature=1.0, top_k=8, seed=3),
    Sampling(temperature=0.7, top_p=0.9, min_p=0.02, seed=4),
)
NEW = 24


def requests(vocab_size: int) -> list[Request]:
    return [
        Request(
            prompt=tuple(int(t) % vocab_size for t in recipe.prompt(4 + 7 * index, index)),
            sampling=sampling,
            max_tokens=NEW,
            num_draft_tokens=MAX_DRAFT_TOKENS,
        )
        for index, sampling in enumerate(SAMPLINGS)
    ]


def run_changing(engine: Engine, asked: list[Request], draw: random.Random) -> list[Outcome]:
    """All rows together; before each step, every row is given another number of drafts."""
    run = Run(engine)
    for request in asked:
        run.submit(request)
    while not engine.is_idle:
        for sequence in engine.sequences:
            count = draw.choice((0, 0, *range(MAX_DRAFT_TOKENS + 1)))
            sequence.request = replace(sequence.request, num_draft_tokens=count)
        run.step()
        check_invariants(engine)
    return list(run.outcomes.values())


def check(seen: list[Outcome], alone: list[Outcome]) -> None:
    assert [outcome.text for outcome in seen] == [outcome.text for outcome in alone]
    drafted = {event.drafted for outcome in seen for event in outcome.rounds}
    assert {0, 1, MAX_DRAFT_TOKENS} <= drafted


@pytest.mark.parametrize("seed", range(2))
def test_any_number_of_drafts_in_any_round_gives_the_plain_text(seed):
    target = golden_pair("31b").target
    asked = requests(256)
    alone = [plain(target, request) for request in asked]
    texts = [outcome.ids for outcome in alone]
    engine, _ = oracle_engine(target, texts, agreeing(0.7, seed), len(asked), 1024)
    check(run_changing(engine, asked, random.Random(seed)), alone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny-moe"])
def test_a_trained_drafter_of_changing_length_gives_the_plain_text(name):
    pair = embedded_pair(name)
    asked = requests(pair.vocab_size)
    alone = [plain(pair.target, request) for request in asked]
    engine = Engine(pair.target, pair.drafter, len(asked))
    check(run_changing(engine, asked, random.Random(name)), alone)


def test_a_row_that_is_parked_in_mid_reply_goes_on_with_its_text():
    pair = golden_pair("31b")
    asked = requests(256)
    alone = [plain(pair.target, request) for request in asked]
    for after in (1, 5):
        engine = Engine(pair.target, pair.drafter, len(asked))
        run = Run(engine)
        for request in asked:
            run.submit(request)
        for _ in range(len(asked) + after):
            run.step()
        parked = engine.sequences[::2]
        for sequence in parked:
            sequence.parked = "by the test"
        run.finish()
        assert [outcome.text for outcome in run.outcomes.values()] == [a.text for a in alone]
        for sequence in parked:
            end = run.outcomes[sequence.id].end
            assert isinstance(end, Finished) and end.parked == "by the test"
            assert run.outcomes[sequence.id].rounds[-2].drafted == 0
