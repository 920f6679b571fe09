"""Calls of tools."""

import json
from typing import Any

from openai import OpenAI

from tests.openai_client.case import STORY, TIMER, TOOLS, case, say, text


def arguments(reply: Any) -> Any:
    """The arguments of the only call."""
    [call] = reply.choices[0].message.tool_calls
    assert call.type == "function" and call.id
    return call.function.name, json.loads(call.function.arguments)


@case
def a_tool_is_called(client: OpenAI) -> None:
    reply = say(client, TIMER, tools=TOOLS)
    assert reply.choices[0].finish_reason == "tool_calls"
    assert arguments(reply) == ("set_timer", {"minutes": 47})
    assert not reply.choices[0].message.content


@case
def a_result_is_answered(client: OpenAI) -> None:
    message = say(client, TIMER, tools=TOOLS).choices[0].message
    result = {
        "role": "tool",
        "tool_call_id": message.tool_calls[0].id,
        "content": json.dumps({"ready": True}),
    }
    reply = say(client, [*TIMER, message, result], tools=TOOLS)
    assert text(reply) and reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens > say(client, TIMER, tools=TOOLS).usage.prompt_tokens + 10


@case
def a_call_streams(client: OpenAI) -> None:
    names, written, ends = [], "", []
    for chunk in say(client, TIMER, tools=TOOLS, stream=True):
        for choice in chunk.choices:
            ends.append(choice.finish_reason)
            assert "<|" not in (choice.delta.content or "")
            for call in choice.delta.tool_calls or []:
                assert call.index == 0
                names += [call.function.name] if call.function.name else []
                written += call.function.arguments or ""
    assert names == ["set_timer"] and json.loads(written) == {"minutes": 47}
    assert ends[-1] == "tool_calls"


@case
def none_calls_nothing(client: OpenAI) -> None:
    reply = say(client, TIMER, tools=TOOLS, tool_choice="none")
    assert reply.choices[0].message.tool_calls is None
    assert reply.choices[0].finish_reason in ("stop", "length")


@case
def required_calls_one(client: OpenAI) -> None:
    reply = say(client, STORY, tools=TOOLS, tool_choice="required", max_tokens=200)
    name, _ = arguments(reply)
    assert name in ("set_timer", "get_time")


@case
def a_named_one_is_called(client: OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "get_time"}}
    reply = say(client, TIMER, tools=TOOLS, tool_choice=choice, max_tokens=200)
    assert arguments(reply)[0] == "get_time"


@case
def drafts_change_no_call(client: OpenAI) -> None:
    replies = [
        say(client, TIMER, tools=TOOLS, extra_body={"num_draft_tokens": drafts})
        for drafts in (0, 3, 7)
    ]
    assert {str(arguments(reply)) for reply in replies} == {"('set_timer', {'minutes': 47})"}


@case
def at_most_one_call_where_asked(client: OpenAI) -> None:
    reply = say(client, TIMER, tools=TOOLS, parallel_tool_calls=False)
    assert arguments(reply) == ("set_timer", {"minutes": 47})
