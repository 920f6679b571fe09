"""The masks of a round and the state of a reply, against stepping token by token."""

import random

import numpy as np
import pytest

from mtp_mlx.constraint.constrained import Constrained
from mtp_mlx.constraint.grammar import Begins, Grammar, reply_grammar
from mtp_mlx.errors import MtpError
from tests.constraint.schemas import SCHEMAS, closed
from tests.constraint.walks import (
    ENDS,
    ROWS,
    WORDS,
    allowed,
    begun,
    markers,
    next_allowed,
    tokenizer,
    walk,
)

OPENS, CLOSES, CALL = 100, 101, 48
SHORT = closed({"a": {"enum": ["x", "yes"]}, "b": {"type": "integer", "maximum": 99}}, "b")
GRAMMARS = {
    "flat": reply_grammar(SCHEMAS["flat"], (), markers()),
    "short": reply_grammar(SHORT, (), markers()),
    "recursive": reply_grammar(SCHEMAS["recursive"], (), markers()),
    "unicode": reply_grammar(SCHEMAS["unicode"], (), markers()),
    "calls": reply_grammar(None, ("add", "add_all", "größe"), markers()),
    "either": reply_grammar(SHORT, ("add",), markers()),
}
BEGINS: tuple[Begins, ...] = ("reply", "thought", "either")
DEEPEST = 7


def stepped(grammar: Grammar, begins: Begins, tokens: list[int]) -> Constrained:
    """A new reply that has come so far, token by token."""
    constraint = begun(grammar, begins)
    for token in tokens:
        constraint.take([token])
    return constraint


def drafts_of(reply: list[int], at: int, source: random.Random) -> list[int]:
    """Drafts that follow a reply for a while, and often leave it."""
    drafts = reply[at : at + source.randint(0, DEEPEST)]
    if drafts and source.random() < 0.5:
        drafts[source.randrange(len(drafts))] = source.choice([5, OPENS, CLOSES, CALL, 106, 1599])
    return drafts


@pytest.mark.parametrize("begins", BEGINS)
@pytest.mark.parametrize("name", GRAMMARS)
def test_each_row_is_the_mask_after_its_drafts(name, begins):
    grammar, source = GRAMMARS[name], random.Random(f"{name}/{begins}")
    reached = 0
    for _ in range(4):
        reply = walk(begun(grammar, begins), source)
        at = 0
        constraint = begun(grammar, begins)
        while at < len(reply):
            drafts = drafts_of(reply, at, source)
            rows = constraint.masks(drafts)
            assert rows.dtype == np.uint32 and rows.shape == (len(drafts) + 1, WORDS)
            for place, row in enumerate(rows):
                alone = stepped(grammar, begins, [*reply[:at], *drafts[:place]])
                assert allowed(row) == next_allowed(alone)
                reached += place > 0
                if place == len(drafts) or drafts[place] not in set(allowed(row)) - ENDS:
                    break  # nothing behind it is reached
            step = source.randint(1, 5)
            constraint.take(reply[at : at + step])  # as if masks had never been asked
            at += step
    assert reached > 20


def test_ids_without_text_are_never_allowed():
    for begins in BEGINS:
        constraint = begun(GRAMMARS["flat"], begins)
        source = random.Random(1)
        for token in walk(begun(GRAMMARS["flat"], begins), source):
            assert max(next_allowed(constraint)) < tokenizer().vocab_size < ROWS
            constraint.take([token])


def test_a_thought_comes_first_and_is_free():
    thought = begun(GRAMMARS["flat"], "thought")
    everything = set(range(tokenizer().vocab_size))
    assert set(next_allowed(thought)) == everything - ENDS - {CALL}
    thought.take([*tokenizer().encode("so: {"), 5, CLOSES])
    at_once = set(next_allowed(begun(GRAMMARS["flat"])))
    assert set(next_allowed(thought)) == at_once
    either = begun(GRAMMARS["flat"], "either")
    assert set(next_allowed(either)) == at_once | {OPENS}
    assert OPENS not in at_once


def test_a_thought_may_be_one_token_and_end_within_the_drafts():
    constraint = begun(GRAMMARS["short"], "either")
    drafts = [OPENS, 5, CLOSES, *tokenizer().encode('{"')]
    rows = [set(allowed(row)) for row in constraint.masks(drafts)]
    at_once = next_allowed(begun(GRAMMARS["short"]))
    assert rows[1] == rows[2] and 5 in rows[1] and 106 not in rows[1]
    assert rows[3] == set(at_once)
    assert [tokenizer().id_to_piece(token) for token in rows[5]] == ["a"]
    constraint.take([OPENS, CLOSES])
    assert next_allowed(constraint) == at_once


@pytest.mark.parametrize(
    ("begins", "tokens"),
    [
        ("reply", [5]),
        ("reply", [OPENS]),
        ("reply", [106]),
        ("thought", [5, 106]),
        ("thought", [CALL]),
        ("thought", [CLOSES, 5]),
        ("thought", [1599]),
        ("either", [106]),
        ("either", [OPENS, 1]),
    ],
)
def test_a_token_that_is_not_allowed_is_refused(begins, tokens):
    with pytest.raises(MtpError, match=r"does not allow|may not hold"):
        begun(GRAMMARS["flat"], begins).take(tokens)


def test_replies_of_one_grammar_share_nothing_that_changes():
    first, second = begun(GRAMMARS["flat"]), begun(GRAMMARS["flat"])
    first.take(tokenizer().encode('{"'))
    assert next_allowed(second) == next_allowed(begun(GRAMMARS["flat"])) != next_allowed(first)


def test_a_parser_at_its_limit_is_an_error_of_this_reply_alone():
    branches = [closed({"k": {"const": str(number)}}) for number in range(3000)]
    grammar = reply_grammar(closed({"a": {"anyOf": branches}}), (), markers())
    constraint, other = begun(grammar), begun(grammar)
    colon, object_ = tokenizer().encode(":"), tokenizer().encode("{")
    constraint.take(tokenizer().encode('{"a"'))
    assert not constraint.masks(colon + object_)[1:].any()  # a draft alone does no harm
    assert colon[0] in next_allowed(constraint)
    with pytest.raises(MtpError, match="Current row has 3001 items"):
        constraint.take(colon)
    assert next_allowed(other) == object_
