"""Schemas and required calls with the built-in pairs: valid, and the same text without drafts."""

import asyncio
import json
from dataclasses import replace

import pytest

import mtp_mlx
from bench.schema_replies import FREE, SCHEMAS, TOOLS, is_valid, measure, outcome, requests, run
from mtp_mlx.errors import InvalidSchema, RequestError
from tests.embedded import held_out
from tests.embedded.test_tools_and_thinking import pair

ASKED = [{"role": "user", "content": "What is the weather in Oslo?"}]
CALL, CALL_END = 48, 49
COUNT = 40
JSON = {"type": "json_object"}


def form(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}


@pytest.mark.timeout(600)  # of a busy machine
def test_replies_are_valid_and_drafts_change_nothing():
    found = measure(pair(), "tiny", COUNT, seed=6, drafts=(1, 3))
    assert (found.replies, found.valid) == (COUNT, COUNT)
    assert found.is_right and found.calls > found.cut
    assert found.accepted > COUNT
    assert any(asked.is_free for asked in requests(COUNT, 6)) and FREE > 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", held_out.NAMES)
def test_five_hundred_replies(name):
    found = measure(pair(name), name, 500, seed=7)
    assert (found.replies, found.valid) == (500, 500)
    assert found.is_right and found.accepted > 500


def test_the_reference_writes_the_same():
    asked = [replace(one, options={**one.options, "max_tokens": 16}) for one in requests(3, 3)]
    with mtp_mlx.load("tiny", backend="numpy") as twin:
        theirs = run(twin, asked, (2,))
    ours = run(pair(), asked, (3,))
    assert [outcome(reply) for reply in theirs] == [outcome(reply) for reply in ours]


def test_a_checker_of_replies_that_cannot_fail_would_prove_nothing():
    [asked] = [one for one in requests(1, 1) if one.schema is not None]
    [reply] = run(pair(), [asked], (2,))
    assert is_valid(asked, reply)
    assert not is_valid(asked, replace(reply, finish_reason="length"))
    for text in (reply.text[:-1], '{"a": 1}'):
        assert not is_valid(replace(asked, schema=SCHEMAS[0]), replace(reply, text=text))


@pytest.mark.parametrize("budget", [None, 0, 4])
def test_a_schema_begins_after_the_thought(budget):
    options = {"response_format": form(SCHEMAS[1]), "temperature": 0.0, "max_tokens": 200}
    replies = [
        pair().chat(ASKED, think=True, thinking_budget=budget, num_draft_tokens=drafts, **options)
        for drafts in (0, 3)
    ]
    assert len({reply.token_ids for reply in replies}) == 1
    reply = replies[-1]
    assert set(json.loads(reply.text)) == {"city", "degrees", "sky"}
    assert reply.finish_reason == "stop" and reply.spec.accepted > 0
    assert bool(reply.reasoning) is (budget != 0)


def test_too_few_tokens_cut_a_schema():
    reply = pair().chat(ASKED, response_format=JSON, temperature=0.0, max_tokens=4)
    assert reply.finish_reason == "length" and len(reply.token_ids) == 4
    assert reply.text.startswith("{")


def test_a_raw_prompt_may_have_a_schema():
    reply = pair().generate("A cow:", response_format=form(SCHEMAS[0]), temperature=0.0)
    assert set(json.loads(reply.text)) == {"name", "legs"}


def test_tool_choice():
    said = [{"role": "user", "content": "Tell me a story about a bear."}]
    options = {"tools": TOOLS, "temperature": 0.0, "max_tokens": 200}
    assert not pair().chat(said, tool_choice="auto", **options).tool_calls
    required = pair().chat(said, tool_choice="required", **options)
    assert required.finish_reason == "tool_calls" and not required.text
    named = {"type": "function", "function": {"name": "get_time"}}
    [call] = pair().chat(said, tool_choice=named, **options).tool_calls
    assert call.name == "get_time"
    assert pair().chat(ASKED, tool_choice="auto", **options).tool_calls
    none = pair().chat(ASKED, tool_choice="none", **options)
    assert not none.tool_calls and CALL not in none.token_ids and none.text


def test_a_schema_and_tools_leave_the_choice_to_the_model():
    options = {"response_format": form(SCHEMAS[0]), "temperature": 0.0, "max_tokens": 200}
    assert pair().chat(ASKED, tools=TOOLS, **options).tool_calls
    told = pair().chat(ASKED, tools=TOOLS, tool_choice="none", **options)
    assert set(json.loads(told.text)) == {"name", "legs"}


@pytest.mark.parametrize("drafts", [0, 3])
def test_one_call_ends_the_reply(drafts):
    """Calls of which a second follows: the grammar allows it, and the prompt asks for it."""
    bias = {50: -100.0, 106: -100.0, 1: -100.0}
    options = {"tools": TOOLS, "temperature": 0.0, "max_tokens": 40, "num_draft_tokens": drafts}
    both = {"tool_choice": "required", "logit_bias": bias, **options}
    several = pair().chat(ASKED, **both)
    assert several.token_ids.count(CALL) > 1
    one = pair().chat(ASKED, parallel_tool_calls=False, **both)
    assert one.finish_reason == "tool_calls" and len(one.tool_calls) == 1
    end = several.token_ids.index(CALL_END)
    assert one.token_ids == several.token_ids[: end + 1]


def test_a_bad_schema_fails_its_request_alone():
    bad = form({"type": "thing"})
    with pytest.raises(InvalidSchema, match=r"prompts\[1\]: .*Invalid type"):
        pair().batch([ASKED, ASKED], each=[{}, {"response_format": bad}])
    assert pair().stats().running == 0

    async def both() -> str:
        stream = pair().astream(ASKED, max_tokens=5)
        with pytest.raises(RequestError):
            pair().astream(ASKED, response_format=bad)
        return "".join([chunk.text async for chunk in stream])

    assert asyncio.run(both())
