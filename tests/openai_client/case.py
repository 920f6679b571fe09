"""The list of cases: functions that take a client of openai and assert what it gets."""

from collections.abc import Awaitable, Callable
from typing import Any

from openai import AsyncOpenAI, OpenAI

Case = Callable[[OpenAI], None]
AsyncCase = Callable[[AsyncOpenAI], Awaitable[None]]

CASES: list[Case] = []
ASYNC_CASES: list[AsyncCase] = []

MODEL = "tiny"
STORY = [{"role": "user", "content": "Tell me a story about a fox and a hen."}]
SUM = [{"role": "user", "content": "What is 3 plus 4?"}]
TIMER = [{"role": "user", "content": "I need a timer for 47 minutes."}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "set_timer",
            "description": "Set a timer.",
            "parameters": {
                "type": "object",
                "properties": {"minutes": {"type": "integer"}},
                "required": ["minutes"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_time",
            "description": "Get the time in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    },
]
PERSON_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def case(function: Case) -> Case:
    """Put a case on the list."""
    CASES.append(function)
    return function


def async_case(function: AsyncCase) -> AsyncCase:
    """Put a case for the asynchronous client on the list."""
    ASYNC_CASES.append(function)
    return function


def say(client: OpenAI, messages: Any = SUM, **options: Any) -> Any:
    """A greedy reply to messages, unless `options` say otherwise."""
    options = {"model": MODEL, "temperature": 0.0, "max_tokens": 60, **options}
    return client.chat.completions.create(messages=messages, **options)


def text(reply: Any) -> str:
    """What the first choice says."""
    content = reply.choices[0].message.content
    assert isinstance(content, str)
    return content


def streamed(chunks: Any) -> str:
    """The text of the first choice of a stream that was read to its end."""
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == 0
    )
