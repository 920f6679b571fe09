"""E10, E11: a stop string or the budget ends a reply inside a block of drafts."""

from collections import Counter

import pytest

from mtp_mlx.reply import Reply
from tests.api_pairs import prompt_ids
from tests.bad_input.spelled import Spelled, pieces_of
from tests.oracle import Script, accepting, agreeing, always

SIZE = len(pieces_of())
STOPS = [
    ("€",),
    ("👨",),
    ("é€👨",),
    (" h",),
    ("he",),
    ("👨 t",),
    ("the",),
    ("e78",),
    ("8",),
    ("never", "é€ "),
    ("78", "€👨 the7"),
    ("€👨 the", "👨", "never seen"),
]
SCRIPTS: list[Script] = [
    always("right"),
    agreeing(0.6, 4),
    accepting({request: [2, 0, 1, 3] for request in range(1, 20)}),
]


def spelled() -> Spelled:
    return Spelled(pieces_of())


def expected_end(text: Spelled, stops: tuple[str, ...]) -> tuple[tuple[int, ...], str, str]:
    """Ids, text and reason of the plain reply, cut where the first stop string is complete."""
    for number in range(1, SIZE + 1):
        whole = text.text(number)
        for end in range(len(whole) + 1):
            done = [stop for stop in stops if whole[:end].endswith(stop)]
            if done:
                return text.ids[:number], whole[: end - max(map(len, done))], "stop"
    return text.ids, text.text(), "length"


def outcome(reply: Reply) -> tuple[tuple[int, ...], str, str]:
    assert reply.usage.completion_tokens == len(reply.token_ids)
    return reply.token_ids, reply.text, reply.finish_reason


@pytest.mark.parametrize("drafts", [1, 3, 7])
def test_a_stop_string_may_cross_blocks_and_the_bytes_of_one_character(drafts):
    text = spelled()
    expected = [expected_end(text, stops) for stops in STOPS]
    assert Counter(reason for _, _, reason in expected)["stop"] == len(STOPS) - 1
    each = [{"stop": list(stops)} for stops in STOPS]
    options = {**text.options, "max_tokens": SIZE, "num_draft_tokens": drafts}
    for script in SCRIPTS:
        llm = text.llm(script, len(STOPS))
        replies = llm.batch([prompt_ids()] * len(STOPS), each=each, **options)
        assert [outcome(reply) for reply in replies] == expected


def test_a_stop_string_is_completed_by_a_draft_or_by_the_verifiers_token():
    text, origins = spelled(), set()
    for accepted in range(8):
        llm = text.llm(accepting({1: [accepted]}))
        options = {**text.options, "max_tokens": SIZE, "num_draft_tokens": 7}
        stream = llm.stream(prompt_ids(), **options, stop="👨")
        chunks = list(stream)
        assert outcome(stream.reply) == expected_end(text, ("👨",))
        assert "".join(chunk.text for chunk in chunks) == stream.reply.text
        origins.add([token.origin for chunk in chunks for token in chunk.tokens][-1])
    assert origins == {"draft", "target"}


@pytest.mark.parametrize("stops", STOPS, ids=" ".join)
@pytest.mark.parametrize("drafts", [0, 3])
def test_no_more_is_held_back_than_a_stop_string_that_has_begun(stops, drafts):
    text = spelled()
    llm = text.llm(agreeing(0.6, 4))
    options = {**text.options, "max_tokens": SIZE, "num_draft_tokens": drafts}
    ids, end, _ = expected_end(text, stops)
    shown, number = "", 0
    for chunk in llm.stream(prompt_ids(), **options, stop=list(stops)):
        shown, number = shown + chunk.text, number + len(chunk.tokens)
        whole = text.text(number)
        assert whole.startswith(shown)
        if number < len(ids):
            assert len(whole) - len(shown) < max(map(len, stops))
    assert shown == end


@pytest.mark.parametrize("drafts", [1, 3, 7])
@pytest.mark.parametrize("budget", range(1, SIZE + 1))
def test_a_budget_that_ends_inside_a_block_clips_the_drafts(budget, drafts):
    text = spelled()
    llm = text.llm(always("right"))
    options = {**text.options, "max_tokens": budget, "num_draft_tokens": drafts}
    reply = llm.generate(prompt_ids(), **options)
    assert outcome(reply) == (text.ids[:budget], text.text(budget), "length")
    rounds = -(-(budget - 1) // (drafts + 1))
    assert reply.spec.rounds == rounds
    assert reply.spec.drafted == reply.spec.accepted == budget - 1 - rounds
