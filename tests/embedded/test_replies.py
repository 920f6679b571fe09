"""The embedded pairs answer rightly, and their drafters are worth it, on held-out prompts."""

from functools import cache

import pytest

import mtp_mlx
from bench.acceptance import counted
from tests.embedded import held_out

SEED = 77
ROWS = 16
DRAFTS = 3
# Held-out prompts, and how many replies must be right; `make test` asks half of them.
QUICK, ALL = (100, 86), (200, 180)
FIRST_DRAFT = 0.75
TOKENS_A_ROUND = {0.0: 2.7, 0.7: 2.2}
CASES = [
    pytest.param(name, temperature, *size, marks=[pytest.mark.slow] if size is ALL else [])
    for size in (QUICK, ALL)
    for name in held_out.NAMES
    for temperature in TOKENS_A_ROUND
]
each_case = pytest.mark.parametrize(("name", "temperature", "count", "right"), CASES)


@cache
def replies(name: str, temperature: float, count: int):
    """Examples and replies, as the checkpoint samples but for the temperature."""
    chosen = held_out.examples(count, SEED)
    with mtp_mlx.load(name, max_num_seqs=ROWS) as llm:
        options = {"temperature": temperature, "num_draft_tokens": DRAFTS}
        return chosen, held_out.run(llm, name, chosen, SEED, **options)


@each_case
def test_most_replies_are_right(name, temperature, count, right):
    faults = [
        (example.kind, example.last_user_message, fault)
        for example, reply in zip(*replies(name, temperature, count), strict=True)
        if (fault := held_out.fault(name, example, reply)) is not None
    ]
    assert count - len(faults) >= right, faults


@each_case
def test_no_reply_goes_round_in_circles(name, temperature, count, right):
    for example, reply in zip(*replies(name, temperature, count), strict=True):
        assert held_out.repeated(name, example, reply) is None, reply.text


@each_case
def test_drafts_are_accepted(name, temperature, count, right):
    figures = counted(replies(name, temperature, count)[1], DRAFTS)
    assert figures["tokens_per_round"] >= TOKENS_A_ROUND[temperature], figures
    if temperature == 0:
        assert figures["per_position"][0] >= FIRST_DRAFT, figures
