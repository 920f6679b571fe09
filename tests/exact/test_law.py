"""The exactness law: with a drafter = without = alone = in a batch, token for token.

Every row of a ragged batch with drafts is compared with the same request decoded plainly and alone.
"""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from mtp_mlx.request import Request
from tests.exact import cases
from tests.exact.pairs import Outcome, golden_pair, plain, run_call
from tests.golden import recipe

QUICK_CASES = 300
ALL_CASES = 2000
LAW_PARTS = [
    pytest.param(variant, part, marks=[pytest.mark.slow] if part else [])
    for part in range(len(cases.PARTS))
    for variant in recipe.VARIANTS
]


@cache
def plain_outcome(variant: str, chunk: int, request: Request) -> Outcome:
    return plain(golden_pair(variant).target, request, chunk)


def solo(call: cases.Call, request: Request) -> Outcome:
    """The request's plain outcome alone; equal requests of other calls share it."""
    return plain_outcome(call.variant, call.chunk, replace(request, num_draft_tokens=0))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("variant", "part"), LAW_PARTS)
def test_drafts_and_neighbours_never_change_a_row(variant, part, record_property):
    tally = Counter[str]()
    mismatches = []
    for call in cases.calls(variant, part):
        expected = [solo(call, request) for request in call.requests]
        found = run_call(golden_pair(variant), call, expected)
        for row, (seen, want) in enumerate(zip(found, expected, strict=True)):
            if seen.whole != want.whole:
                mismatches.append((call, row, seen.whole, want.whole))
            tally["cases"] += len(want.ids) >= cases.MIN_TOKENS
            tally["tokens"] += len(want.ids)
            tally[f"accepted by {call.drafter}"] += sum(seen.accepted)
            tally[f"drafted by {call.drafter}"] += sum(event.drafted for event in seen.rounds)
    tally["mismatches"] = len(mismatches)
    record_property("exactness", dict(tally))
    assert not mismatches, f"{len(mismatches)} of {tally['cases']}, the first: {mismatches[0]}"
    assert tally["cases"] == cases.PARTS[part]
    assert tally["accepted by oracle"] > 0
    assert part == 0 or tally["accepted by real"] > 0


def test_the_law_has_two_thousand_cases_of_every_kind():
    quick, every = Counter(), Counter()
    for variant in recipe.VARIANTS:
        for part in range(len(cases.PARTS)):
            for call in cases.calls(variant, part):
                kinds = _kinds(call)
                every += kinds
                quick += kinds if part == 0 else Counter()
    for counts, total in ((quick, QUICK_CASES), (every, ALL_CASES)):
        assert counts["cases"] == total
        assert counts["by oracle"] == counts["by real"] == total // 2
        for kind in (
            *(f"batch of {size}" for size in range(1, 9)),
            *(f"{length} drafts" for length in range(8)),
            *("one token", "long prompt", "greedy", "warm", "cold", "chunked", "reused slots"),
            *("top_k", "top_p", "min_p", "late"),
            *("repetition", "presence", "frequency", "bias", "banned", "constrained"),
            *("logprobs", "prompt logprobs", "nothing of these"),
        ):
            assert counts[kind] >= 0.01 * total, f"{kind}: {counts[kind]} of {total}"


def _kinds(call: cases.Call) -> Counter[str]:
    """How many rows of a call are of each kind."""
    size = len(call.requests)
    kinds = Counter({"cases": size, f"by {call.drafter}": size, f"batch of {size}": size})
    kinds["chunked"] = size * (call.chunk < cases.LONGEST_PROMPT)
    kinds["reused slots"] = size * (call.slots < size)
    kinds["late"] = sum(step > 0 for step in call.arrivals)
    for request in call.requests:
        sampling = request.sampling
        kinds[f"{request.num_draft_tokens} drafts"] += 1
        kinds["one token"] += len(request.prompt) == 1
        kinds["long prompt"] += len(request.prompt) > 3 * cases.WINDOW
        kinds["greedy"] += sampling.is_greedy
        kinds["warm"] += sampling.temperature == cases.WARM
        kinds["cold"] += sampling.temperature in (0.7, 1.0)
        kinds["top_k"] += sampling.top_k > 0
        kinds["top_p"] += sampling.top_p < 1.0
        kinds["min_p"] += sampling.min_p > 0.0
        kinds["repetition"] += sampling.repetition_penalty != 1.0
        kinds["presence"] += sampling.presence_penalty != 0.0
        kinds["frequency"] += sampling.frequency_penalty != 0.0
        kinds["bias"] += bool(sampling.logit_bias)
        kinds["banned"] += bool(sampling.banned)
        kinds["constrained"] += request.constraint is not None
        kinds["logprobs"] += request.logprobs is not None
        kinds["prompt logprobs"] += request.prompt_logprobs is not None
        is_bare = request.constraint is None and request.logprobs is None
        kinds["nothing of these"] += is_bare and not sampling.has_processors
    return kinds
