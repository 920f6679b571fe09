"""K/V is reserved before it is allocated: what does not fit waits, or is refused at once."""

import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.engine.memory import Memory
from mtp_mlx.errors import DoesNotFit
from mtp_mlx.model.cache import GROWTH_STEP
from mtp_mlx.request import Request, Sampling, Tokens
from tests.exact.pairs import Run, golden_pair, plain, run_together
from tests.golden import recipe

VARIANT = "31b"


def request(length: int, new: int = 6, seed: int = 1, drafts: int = 3) -> Request:
    prompt = tuple(int(token) for token in recipe.prompt(length, seed))
    return Request(prompt=prompt, sampling=Sampling(), max_tokens=new, num_draft_tokens=drafts)


def ledger(slots: int, budget: int | None = None) -> Memory:
    target = golden_pair(VARIANT).target
    return Memory(target.config.layers, target.dtype.size, slots, budget)


def engine(slots: int, budget: int | None) -> Engine:
    pair = golden_pair(VARIANT)
    return Engine(pair.target, pair.drafter, slots, kv_budget=budget)


def test_reserved_bytes_are_those_of_the_buffers():
    free = engine(2, None)
    run = Run(free)
    number = run.submit(request(300, 400))
    while not any(isinstance(event, Tokens) for event in run.step()):
        check_invariants(free)
    held = free.cache.full_bytes(0)
    assert 0 < held <= free.memory.rows[0]
    rings = sum(ring.keys.nbytes + ring.values.nbytes for ring in free.cache.window.values())
    assert rings <= free.memory.rings
    run.cancel(number)
    assert free.cache.full_bytes(0) == 0
    assert free.memory.reserved == free.memory.rings


def test_windows_that_do_not_fit_are_refused_when_the_engine_is_made():
    rings = ledger(8).rings
    engine(8, rings)
    with pytest.raises(DoesNotFit, match="max_num_seqs"):
        engine(8, rings - 1)


def test_a_row_that_never_fits_is_refused_at_once_and_one_that_does_is_not():
    tokens = 50 + 6 + 8
    budget = ledger(2).rings + ledger(2).cost(tokens)
    limited = engine(2, budget)
    with pytest.raises(DoesNotFit, match=r"lower max_tokens"):
        limited.submit(request(300))
    asked = request(50)
    seen = run_together(limited, [asked])[0]
    assert seen.text == plain(golden_pair(VARIANT).target, asked).text


def test_rows_wait_for_memory_in_their_order_and_nobody_overtakes():
    small, large = request(20), request(120)
    cost = ledger(4).cost
    budget = ledger(4).rings + cost(120 + 14) + cost(20 + 14)
    limited = engine(4, budget)
    run = Run(limited)
    ids = [run.submit(r) for r in (small, large, large, small)]
    order = []
    while not limited.is_idle:
        for event in run.step():
            if isinstance(event, Tokens) and event.origins[0] == "prefill":
                order.append(event.request_id)
        check_invariants(limited)
    assert order == ids
    target = golden_pair(VARIANT).target
    for request_id, asked in zip(ids, (small, large, large, small), strict=True):
        assert run.outcomes[request_id].text == plain(target, asked).text


@pytest.mark.parametrize("step", [1, 2])
def test_a_row_never_grows_beyond_what_was_reserved(step):
    limited = engine(1, None)
    run, held = Run(limited), set()
    run.submit(request(step * GROWTH_STEP - 10, 16))  # its buffers grow while it writes
    while not limited.is_idle:
        run.step()
        check_invariants(limited)
        held.add(limited.cache.full_bytes(0))
    assert len(held) == 3  # before, after, and none at the end
