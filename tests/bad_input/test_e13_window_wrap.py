"""E13, E1: prompts around the window, blocks across its end, drafts rejected there: same bits."""

import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.request import Request, Sampling
from tests.bad_input.kept import Solo, check_rows
from tests.exact.pairs import Run, golden_pair
from tests.golden import recipe
from tests.oracle import Oracle, accepting, always

WINDOW = 8  # of the golden pairs; a ring holds 16
# Around the window, then around the ring.
LENGTHS = (*range(WINDOW - 2, WINDOW + 3), *range(2 * WINDOW - 2, 2 * WINDOW + 3))
NEW = 3 * WINDOW + 3  # past three windows
CHUNKS = (5, pytest.param(1024, marks=pytest.mark.slow))


def requests(num_drafts: int) -> list[Request]:
    return [
        Request(
            prompt=tuple(int(token) for token in recipe.prompt(length, length)),
            sampling=Sampling(temperature=5.0, seed=length),
            max_tokens=NEW,
            num_draft_tokens=num_drafts,
        )
        for length in LENGTHS
    ]


@pytest.fixture(scope="module", params=CHUNKS)
def solos(request):
    target = golden_pair("e2b").target
    return request.param, [Solo(target, asked, request.param) for asked in requests(0)]


@pytest.mark.parametrize("num_drafts", [0, 1, 3, 7])
def test_keys_around_the_window_are_those_of_plain_decoding(solos, num_drafts):
    chunk, alone = solos
    target = golden_pair("e2b").target
    texts = {index: solo.outcome.ids for index, solo in enumerate(alone, start=1)}
    # Each row rejects at every depth in turn, so that borders fall before, in and behind a block.
    counts = {
        index: [(index + burst) % (num_drafts + 1) for burst in range(num_drafts + 1)]
        for index in texts
    }
    oracle = Oracle(texts, accepting(counts), target.config.vocab_size)
    engine = Engine(target, oracle, max_num_seqs=len(LENGTHS), chunk=chunk)
    oracle.watch(engine)
    run, compared = Run(engine), 0
    for asked in requests(num_drafts):
        run.submit(asked)
    while not engine.is_idle:
        run.step()
        compared += check_rows(engine, alone)
    assert compared > 1000
    assert [run.outcomes[index].text for index in texts] == [s.outcome.text for s in alone]


def test_a_drafter_that_is_always_wrong_leaves_only_committed_keys(solos):
    """E1: one token a round, and the cache as if nothing had been drafted."""
    chunk, alone = solos
    target = golden_pair("e2b").target
    texts = {index: solo.outcome.ids for index, solo in enumerate(alone, start=1)}
    oracle = Oracle(texts, always("wrong"), target.config.vocab_size)
    engine = Engine(target, oracle, max_num_seqs=3, chunk=chunk)
    oracle.watch(engine)
    run = Run(engine)
    for asked in requests(7)[:3]:
        run.submit(asked)
    while not engine.is_idle:
        run.step()
        check_rows(engine, alone)
        for sequence in engine.sequences:
            if sequence.is_running:
                assert engine.cache.lengths[sequence.slot] == len(sequence.tokens) - 1
    for index in (1, 2, 3):
        assert run.outcomes[index].text == alone[index - 1].outcome.text
        assert all(len(event.ids) == 1 for event in run.outcomes[index].rounds)
