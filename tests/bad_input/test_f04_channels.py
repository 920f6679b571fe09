"""F4: markers of thoughts and calls never leak, however the stream is cut."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_mlx.asked import Asked
from mtp_mlx.text.parts import Markers
from tests.text.replies import ids_of, replay, tokenizer

THOUGHT, THOUGHT_END, CALL, CALL_END, QUOTE = (
    "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>'
)  # fmt: skip
MARKERS = (THOUGHT, THOUGHT_END, CALL, CALL_END, QUOTE, "<|think|>", "<|turn>", "<tool|>")
REPLIES = {
    "thought": "<|channel>thought\n 17 + 25 is 42.\n\n<channel|>It is 42.<turn|>",
    "call": '<|tool_call>call:get_time{city:<|"|>Köln<|"|>}<tool_call|><|tool_response>',
    "all": "<|channel>thought\nI call it.<channel|>One moment 👩\u200d👧."
    '<|tool_call>call:a{x:[1,{y:<|"|>}{<|"|>}]}<tool_call|> and <|tool_call>call:b{}<tool_call|>',
    "two_thoughts": "<|channel>thought\none<channel|>A<|channel>thought\ntwo<channel|>B",
    "open_thought": "<|channel>thought\nnever ends",
    "open_call": 'Well, <|tool_call>call:a{x:<|"|>never',
    "call_in_a_thought": "<|channel>thought\nhm<|tool_call>call:a{}<tool_call|>done",
    "stray_ends": 'a<channel|>b<tool_call|>c<|"|>d',
    "drifted": 'ok <|tool_call|>call:a({"x": "})\\"", "y": [1]}) done',
    "nearly_drifted": 'a <|tool_call|> b <|tool_call|>call:a {"x": 1} c <|tool_call|>call:a({',
    "no_channel_name": "<|channel>  \nfree thought\n<channel|>\n\nyes ",
}
FRAGMENTS = (
    *("thought", "thought\n", "\n", " ", "a", "call:f{", "call:f(", "{", "}", "[", "]", ":", ","),
    *('"', "\\", "1.5", "true", "é👨", "<|tool_call|>", "<|tool_call|>call:g({", '"k": "v"', "})"),
)
mixed = st.lists(st.one_of(st.sampled_from(MARKERS), st.sampled_from(FRAGMENTS)), max_size=25)


def of_pieces(pieces: list[str]) -> list[int]:
    """Ids of markers and of plain text between them, the latter encoded alone."""
    return [
        id_
        for piece in pieces
        for id_ in (ids_of(piece) if piece in MARKERS else tokenizer().encode(piece))
    ]


def check_spans(replayed, ids: list[int]) -> None:
    """Each token is in one chunk, in order; texts are those of the reply; a round's drafts stand
    once."""
    tokens = [token for chunk in replayed.chunks for token in chunk.tokens]
    assert [token.id for token in tokens] == list(ids[: len(tokens)])
    assert [token.position for token in tokens] == list(range(2, 2 + len(tokens)))
    for chunk in replayed.chunks:
        if chunk.tokens:
            assert chunk.text == "".join(token.text for token in chunk.tokens)
    reply = replayed.reply
    assert replayed.joined("content") == reply.text
    assert replayed.joined("reasoning") == reply.reasoning
    assert replayed.joined("tool") == reply.tool_text
    reasoning = [c for c in replayed.chunks if c.kind == "reasoning"]
    assert reply.usage.reasoning_tokens == sum(len(chunk.tokens) for chunk in reasoning)
    assert sum(len(chunk.drafts) for chunk in replayed.chunks) == len(tokens)
    assert [chunk.finish_reason for chunk in replayed.chunks[:-1]].count(None) == len(
        replayed.chunks[:-1]
    )


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_every_split_point_gives_what_the_whole_gives(name, reason):
    ids = ids_of(REPLIES[name])
    whole = replay(ids, reason=reason, tools=("a", "get_time"))
    check_spans(whole, ids)
    one_by_one = replay(ids, range(1, len(ids)), reason=reason, tools=("a", "get_time"))
    assert one_by_one.parts == whole.parts
    for at in range(1, len(ids)):
        split = replay(ids, [at], reason=reason, tools=("a", "get_time"))
        assert split.parts == whole.parts
        check_spans(split, ids)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(pieces=mixed, seed=st.integers(0, 99), has_tools=st.booleans(), is_cut=st.booleans())
def test_any_cuts_of_any_reply_give_what_the_whole_gives(pieces, seed, has_tools, is_cut):
    ids = of_pieces(pieces)
    options = {"reason": "length" if is_cut else "stop", "tools": ("f", "g") if has_tools else ()}
    whole = replay(ids, **options)
    check_spans(whole, ids)
    draw = random.Random(seed)
    cuts = sorted(draw.sample(range(len(ids) + 1), min(len(ids), draw.randint(0, 9))))
    split = replay(ids, cuts, **options)
    assert split.parts == whole.parts
    check_spans(split, ids)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(pieces=mixed)
def test_what_is_shown_is_what_a_parse_of_the_whole_text_finds(pieces):
    found = replay(of_pieces(pieces)).reply
    assert (found.text, found.reasoning, found.tool_text) == divided(pieces)
    assert not any(marker in found.reasoning + found.text for marker in MARKERS)


def divided(pieces: list[str]) -> tuple[str, str, str]:
    """Content, thoughts and calls, from pieces that are whole markers or plain text."""
    content, thoughts, calls = "", [""], ""
    kind = "content"
    for piece in pieces:
        if piece == THOUGHT and kind != "thought":
            kind = "thought"
            thoughts.append("")
        elif piece == CALL:
            kind, calls = "call", calls + piece
        elif piece in MARKERS and kind == "call":
            calls += piece if piece in (QUOTE, CALL_END) else ""
            kind = "content" if piece == CALL_END else kind
        elif piece == THOUGHT_END and kind == "thought":
            kind = "content"
        elif piece not in MARKERS:
            content += piece if kind == "content" else ""
            thoughts[-1] += piece if kind == "thought" else ""
            calls += piece if kind == "call" else ""
    named = [re.sub(r"\Athought(?=\s|\Z)|\At(h(o(u(g(h)?)?)?)?)?\Z", "", text) for text in thoughts]
    return content, "\n\n".join(text.strip() for text in named if text.strip()), calls


def test_a_thought_that_the_prompt_has_opened_goes_on():
    before = ids_of("<|channel>thought\n")
    found = replay(ids_of(" so it is.\n<channel|>Yes."), before=before)
    assert (found.reply.reasoning, found.reply.text) == ("so it is.", "Yes.")
    assert found.reply.usage.reasoning_tokens == len(ids_of(" so it is.\n<channel|>"))


def test_a_reply_that_ends_inside_its_thought_says_nothing_and_why():
    found = replay(ids_of("<|channel>thought\nI wonder"), reason="length").reply
    assert (found.text, found.reasoning, found.finish_reason) == ("", "I wonder", "length")
    assert f"ended inside its thought, after {len(found.token_ids)} tokens" in found.warning
    assert "raise max_tokens" in found.warning
    ended = replay(ids_of("<|channel>thought\nI wonder")).reply
    assert "ended inside its thought" in ended.warning and "max_tokens" not in ended.warning
    assert replay(ids_of("<|channel>thought\nI<channel|>a"), reason="length").reply.warning is None


def test_stop_strings_are_those_of_what_the_reply_says():
    ids = ids_of("<|channel>thought\nEND of it<channel|>a END b")
    found = replay(ids, stop="END").reply
    assert (found.reasoning, found.text) == ("END of it", "a ")
    assert len(found.token_ids) < len(ids)


def test_the_reply_to_a_raw_prompt_is_not_divided():
    for text in REPLIES.values():
        ids = ids_of(text)
        found = replay(ids, range(1, len(ids)), is_raw=True)
        assert found.reply.text == found.joined("content") == tokenizer().decode(ids)
        assert (found.reply.reasoning, found.reply.tool_text, found.calls) == ("", "", [])
        assert (found.reply.finish_reason, found.reply.warning) == ("stop", None)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(mixed, st.booleans())
def test_a_budget_counts_what_the_reply_calls_its_thought(pieces, is_open):
    """Else the end of a thought would be forced into a call that follows one without its end."""
    before = tuple(ids_of(THOUGHT)) if is_open else ()
    asked = Asked((2, *before), Markers.of(tokenizer()), before=before)
    parts, rule = asked.parts(tokenizer(), ()), asked.thinking(10**6)
    for token in of_pieces(pieces):
        parts.push(token)
        rule = rule.after(token)
        assert rule.is_open == (parts.kind == "reasoning")
