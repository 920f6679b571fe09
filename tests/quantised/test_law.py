"""The exactness law on quantised pairs: targets by mlx_lm.convert, drafters by us, all with `==`.

The cases are those of `tests/exact/`; a drafter's table and centroids are quantised too.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import mtp_mlx
from mtp_mlx.checkpoint import open_drafter, open_target
from mtp_mlx.request import Request
from tests.exact import cases
from tests.exact.pairs import Outcome, Pair, plain, read_pair, run_call
from tests.golden import recipe
from tests.quantised.converted import SETTINGS, converted

QUICK_ROWS, QUICK_TOKENS = 4, 9  # of a pair; all calls of a part have 60 rows
# Settings of the target with the drafter's bits.
QUICK = {"4_bits_of_32": 4, "8_bits_of_64": 8}
ALL = {name: 4 if at % 2 else 8 for at, name in enumerate(SETTINGS)}
CASES = [(variant, name, bits) for variant in recipe.VARIANTS for name, bits in QUICK.items()]
EVERY_CASE = [
    (variant, name, bits)
    for variant in recipe.VARIANTS
    for name, bits in (*QUICK.items(), *ALL.items())
]


@cache
def pair_of(variant: str, name: str, bits: int) -> Pair:
    return read_pair(*converted(variant, name, bits))


@cache
def plain_outcome(variant: str, name: str, bits: int, chunk: int, request: Request) -> Outcome:
    return plain(pair_of(variant, name, bits).target, request, chunk)


def check_law(variant: str, name: str, bits: int, calls: Iterable[cases.Call]) -> None:
    """Every row of these calls, in a ragged batch with drafts, is what it is plainly and alone."""
    pair = pair_of(variant, name, bits)
    tally = Counter[str]()
    for call in calls:
        bare = [replace(request, num_draft_tokens=0) for request in call.requests]
        expected = [plain_outcome(variant, name, bits, call.chunk, each) for each in bare]
        found = run_call(pair, call, expected)
        assert [row.text for row in found] == [row.text for row in expected], call
        tally["rows"] += len(found)
        tally[call.drafter] += sum(event.drafted for row in found for event in row.rounds)
    assert tally["rows"] >= QUICK_ROWS
    assert min(tally["oracle"], tally["real"]) > 0


def some_calls(variant: str) -> Iterator[cases.Call]:
    """The smallest batch with each kind of drafter, its replies cut short."""
    calls = [call for call in cases.calls(variant, 0) if len(call.requests) > 1]
    for kind in ("oracle", "real"):
        least = min((call for call in calls if call.drafter == kind), key=lambda c: len(c.requests))
        short = tuple(replace(request, max_tokens=QUICK_TOKENS) for request in least.requests)
        yield replace(least, requests=short)


@pytest.mark.parametrize(("variant", "name", "bits"), CASES)
def test_drafts_and_neighbours_never_change_a_row_of_a_quantised_pair(variant, name, bits):
    check_law(variant, name, bits, some_calls(variant))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("variant", "name", "bits"), EVERY_CASE)
def test_the_law_holds_in_every_form(variant, name, bits):
    check_law(variant, name, bits, list(cases.calls(variant, 0))[::2])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("variant", ["e2b", "26b"])
def test_a_quantised_drafter_proposes_what_its_twin_does(variant, bits):
    """e2b has the centroid head: of its packed table it reads the rows of the best clusters."""
    target, drafter = converted(variant, "8_bits_of_64", bits)
    config = open_target(target).config
    tensors = open_drafter(drafter, config).tensors
    assert tensors["embed_tokens.weight"].dtype == tensors["pre_projection.weight"].dtype == "U32"
    if variant == "e2b":
        assert tensors["masked_embedding.centroids.weight"].dtype == "U32"
        assert tensors["masked_embedding.token_ordering"].dtype == "I64"
    fast, slow = (
        mtp_mlx.load(target, draft_model=drafter, backend=backend) for backend in ("mlx", "numpy")
    )
    for seed in range(4):
        ids = [2, *np.random.RandomState(seed).randint(3, 256, 12).tolist()]
        assert fast.propose(ids, 4) == slow.propose(ids, 4)
