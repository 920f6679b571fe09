"""The embedded pairs answer rightly, and their drafters are worth it, on held-out prompts."""

from functools import cache

import pytest

import mtp_mlx
from bench.acceptance import counted
from tests.embedded import held_out

QUICK, ALL = 100, 200
SEED = 77
ROWS = 64
DRAFTS = 3
RIGHT = 0.9
FIRST_DRAFT = 0.75
TOKENS_A_ROUND = {0.0: 2.7, 0.7: 2.2}
# A fault of the code spoils the first hundred replies as it does all: the weights are pinned.
CASES = [
    pytest.param(name, temperature, count, marks=[pytest.mark.slow] if count == ALL else [])
    for count in (QUICK, ALL)
    for name in held_out.NAMES
    for temperature in TOKENS_A_ROUND
]
each_case = pytest.mark.parametrize(("name", "temperature", "count"), CASES)


@cache
def replies(name: str, temperature: float, count: int):
    """Examples and replies, as the checkpoint samples but for the temperature."""
    chosen = held_out.examples(count, SEED)
    with mtp_mlx.load(name, max_num_seqs=ROWS) as llm:
        options = {"temperature": temperature, "num_draft_tokens": DRAFTS}
        return chosen, held_out.run(llm, name, chosen, SEED, **options)


@each_case
def test_most_replies_are_right(name, temperature, count):
    faults = [
        (example.kind, example.last_user_message, fault)
        for example, reply in zip(*replies(name, temperature, count), strict=True)
        if (fault := held_out.fault(name, example, reply)) is not None
    ]
    assert count - len(faults) >= RIGHT * count, faults


@each_case
def test_no_reply_goes_round_in_circles(name, temperature, count):
    for example, reply in zip(*replies(name, temperature, count), strict=True):
        assert held_out.repeated(name, example, reply) is None, reply.text


@each_case
def test_drafts_are_accepted(name, temperature, count):
    figures = counted(replies(name, temperature, count)[1], DRAFTS)
    assert figures["tokens_per_round"] >= TOKENS_A_ROUND[temperature], figures
    if temperature == 0:
        assert figures["per_position"][0] >= FIRST_DRAFT, figures
