"""Calls that are required: whatever the tokens are, text/calls reads them, by an offered name."""

import json
import random
import re

import pytest

from mtp_mlx.asked import Asked
from mtp_mlx.constraint.calls import MAX_DEPTH
from mtp_mlx.constraint.grammar import reply_grammar
from mtp_mlx.errors import Unsupported
from mtp_mlx.text.parts import NO_MARKERS, Markers, Parts
from tests.constraint.schemas import SCHEMAS
from tests.constraint.walks import begun, markers, next_allowed, text_of, tokenizer, walk

WALKS = 30
NAMES = ("add", "add_all", "get-weather.v2", "größe", "a\\b", "x" * 128)
CALL, CALL_END = 48, 49


def parts_of(tokens: list[int]) -> Parts:
    parts = Parts(tokenizer(), (), markers(), has_tools=True)
    for token in tokens:
        parts.push(token)
    parts.finish(is_cut=False)
    return parts


def test_random_calls_can_be_read():
    grammar = reply_grammar(None, NAMES, markers())
    called = set()
    for seed in range(WALKS):
        tokens = walk(begun(grammar), random.Random(seed))
        parts = parts_of(tokens)
        assert parts.unread is None and len(parts.calls) == tokens.count(CALL) > 0
        called.update(name for name, _ in parts.calls)
    assert called == set(NAMES)


def test_a_value_may_be_of_every_kind():
    constraint = begun(reply_grammar(None, ("f",), markers()))
    constraint.take([CALL, *tokenizer().encode("call:f{k:")])
    begins = {tokenizer().piece_bytes(token)[:1] for token in next_allowed(constraint)}
    assert begins == {bytes([byte]) for byte in b"<-0123456789tfn{["}  # "<" of the quote token


def test_only_a_call_may_begin_and_only_by_an_offered_name():
    constraint = begun(reply_grammar(None, ("add",), markers()))
    assert next_allowed(constraint) == [CALL]
    constraint.take([CALL])
    said = ""
    while "{" not in said:
        [token] = next_allowed(constraint)  # there is one way on
        constraint.take([token])
        said += text_of([token])
    assert said == "call:add{"


def test_calls_are_not_nested_deeper_than_python_reads():
    constraint = begun(reply_grammar(None, ("f",), markers()))
    opened = "call:f{k:" + "[" * (MAX_DEPTH - 1)
    constraint.take([CALL, *tokenizer().encode(opened)])
    pieces = [tokenizer().piece_bytes(token) for token in next_allowed(constraint)]
    assert b"]" in pieces and not any(piece.startswith((b"[", b"{")) for piece in pieces)


def test_json_or_a_call():
    grammar = reply_grammar(SCHEMAS["flat"], ("add",), markers())
    first = next_allowed(begun(grammar))
    assert CALL in first
    assert {tokenizer().piece_bytes(token) for token in first if token != CALL} == {b"{"}
    kinds = set()
    for seed in range(20):
        parts = parts_of(tokens := walk(begun(grammar), random.Random(seed)))
        if not parts.calls:
            assert set(json.loads(text_of(tokens))) == {"name", "age"}
        kinds.add(bool(parts.calls))
    assert kinds == {True, False}


def test_what_json_spells_is_no_call():
    text = '{"quoted":"<|tool_call|>call:add({})"}'
    grammar = reply_grammar({"type": "object"}, ("add",), markers())
    for each, num_calls in ((grammar, 0), (None, 1)):
        asked = Asked((2,), markers(), frozenset({"add"}), grammar=each)
        parts = asked.parts(tokenizer(), ())
        pieces = [piece for token in tokenizer().encode(text) for piece in parts.push(token)]
        pieces += parts.finish(is_cut=False)
        said = "".join(piece.text for piece in pieces if piece.kind == "content")
        assert len(parts.calls) == num_calls and (said == text) == (each is not None)


@pytest.mark.parametrize("known", [NO_MARKERS, Markers(call=48, call_end=49)])
def test_without_tokens_for_calls_none_can_be_required(known):
    with pytest.raises(Unsupported, match=re.escape("no tokens for tool calls")) as found:
        reply_grammar(None, ("add",), known)
    assert found.value.param == "tool_choice"
