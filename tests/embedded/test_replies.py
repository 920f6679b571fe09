"""The embedded pairs answer rightly, and their drafters are worth it, on held-out prompts."""

from functools import cache

import pytest

import mtp_mlx
from bench.acceptance import counted
from tests.embedded import held_out

NUM_PROMPTS = 200
SEED = 77
ROWS = 64
DRAFTS = 3
RIGHT = 0.9
FIRST_DRAFT = 0.75
TOKENS_A_ROUND = {0.0: 2.7, 0.7: 2.2}
CASES = [(name, temperature) for name in held_out.NAMES for temperature in TOKENS_A_ROUND]
each_case = pytest.mark.parametrize(("name", "temperature"), CASES)


@cache
def replies(name: str, temperature: float):
    """Examples and replies, as the checkpoint samples but for the temperature."""
    chosen = held_out.examples(NUM_PROMPTS, SEED)
    with mtp_mlx.load(name, max_num_seqs=ROWS) as llm:
        options = {"temperature": temperature, "num_draft_tokens": DRAFTS}
        return chosen, held_out.run(llm, name, chosen, SEED, **options)


@each_case
def test_most_replies_are_right(name, temperature):
    faults = [
        (example.kind, example.last_user_message, fault)
        for example, reply in zip(*replies(name, temperature), strict=True)
        if (fault := held_out.fault(name, example, reply)) is not None
    ]
    assert NUM_PROMPTS - len(faults) >= RIGHT * NUM_PROMPTS, faults


@each_case
def test_no_reply_goes_round_in_circles(name, temperature):
    for example, reply in zip(*replies(name, temperature), strict=True):
        assert held_out.repeated(name, example, reply) is None, reply.text


@each_case
def test_drafts_are_accepted(name, temperature):
    figures = counted(replies(name, temperature)[1], DRAFTS)
    assert figures["tokens_per_round"] >= TOKENS_A_ROUND[temperature], figures
    if temperature == 0:
        assert figures["per_position"][0] >= FIRST_DRAFT, figures
