"""The embedded pairs answer rightly, and their drafters are worth it, on held-out prompts."""

from functools import cache

import pytest

import mtp_mlx
from bench.acceptance import counted
from tests.embedded import held_out

NUM_PROMPTS = 200
SEED = 77
ROWS = 16
DRAFTS = 3
RIGHT = 0.9
FIRST_DRAFT = 0.75
TOKENS_A_ROUND = {0.0: 2.7, 0.7: 2.2}
CASES = [(name, temperature) for name in held_out.NAMES for temperature in TOKENS_A_ROUND]


@cache
def replies(name: str, temperature: float):
    """Examples and replies; every row with the same seed, nothing filtered."""
    chosen = held_out.examples(NUM_PROMPTS, SEED)
    with mtp_mlx.load(name, max_num_seqs=ROWS) as llm:
        options = {"temperature": temperature, "top_k": 0, "top_p": 1.0, "seed": SEED}
        return chosen, held_out.run(llm, name, chosen, num_draft_tokens=DRAFTS, **options)


@pytest.mark.parametrize(("name", "temperature"), CASES)
def test_nine_of_ten_replies_are_right(name, temperature):
    faults = [
        (example.kind, example.last_user_message, fault)
        for example, reply in zip(*replies(name, temperature), strict=True)
        if (fault := held_out.fault(name, example, reply)) is not None
    ]
    assert len(faults) <= (1 - RIGHT) * NUM_PROMPTS, faults


@pytest.mark.parametrize(("name", "temperature"), CASES)
def test_no_reply_goes_round_in_circles(name, temperature):
    for example, reply in zip(*replies(name, temperature), strict=True):
        assert held_out.repeated(name, example, reply) is None, reply.text


@pytest.mark.parametrize(("name", "temperature"), CASES)
def test_drafts_are_accepted(name, temperature):
    figures = counted(replies(name, temperature)[1], DRAFTS)
    assert figures["tokens_per_round"] >= TOKENS_A_ROUND[temperature], figures
    if temperature == 0:
        assert figures["per_position"][0] >= FIRST_DRAFT, figures
