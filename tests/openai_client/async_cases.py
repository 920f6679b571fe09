"""The asynchronous client."""

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.openai_client.case import MODEL, PERSON_SCHEMA, STORY, SUM, TIMER, TOOLS, async_case


async def say(client: AsyncOpenAI, messages: Any = SUM, **options: Any) -> Any:
    """A greedy reply, unless `options` say otherwise."""
    options = {"model": MODEL, "temperature": 0.0, "max_tokens": 60, **options}
    return await client.chat.completions.create(messages=messages, **options)


async def read(chunks: Any) -> str:
    """The text of a stream."""
    found = ""
    async for chunk in chunks:
        for choice in chunk.choices:
            found += choice.delta.content or ""
    return found


@async_case
async def a_reply_comes(client: AsyncOpenAI) -> None:
    assert (await say(client)).choices[0].message.content == "3 + 4 = 7."


@async_case
async def a_stream_says_the_same(client: AsyncOpenAI) -> None:
    whole = (await say(client, STORY)).choices[0].message.content
    assert await read(await say(client, STORY, stream=True)) == whole


@async_case
async def eight_at_once_do_not_mix(client: AsyncOpenAI) -> None:
    sums = [[{"role": "user", "content": f"What is {left} plus 4?"}] for left in range(1, 9)]
    alone = [(await say(client, one)).choices[0].message.content for one in sums]
    together = await asyncio.gather(*(say(client, one) for one in sums))
    assert [reply.choices[0].message.content for reply in together] == alone


@async_case
async def eight_streams_at_once(client: AsyncOpenAI) -> None:
    whole = (await say(client, STORY)).choices[0].message.content
    streams = await asyncio.gather(*(say(client, STORY, stream=True) for _ in range(8)))
    assert await asyncio.gather(*(read(stream) for stream in streams)) == [whole] * 8


@async_case
async def a_cancelled_task_cancels_its_request(client: AsyncOpenAI) -> None:
    options: dict[str, Any] = {
        "max_tokens": 2000,
        "logit_bias": {"106": -100},
        "extra_headers": {"X-Request-Id": "cancelled-task"},
    }
    task = asyncio.create_task(say(client, STORY, **options))
    await until(client, "cancelled-task", True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(client, "cancelled-task", False)


async def until(client: AsyncOpenAI, own: str, is_there: bool) -> None:
    """Until a request runs, or does not any more."""
    async with asyncio.timeout(10):
        while (own in await running(client)) != is_there:
            await asyncio.sleep(0.02)


async def running(client: AsyncOpenAI) -> list[str]:
    status: Any = await client.get("/status", cast_to=object)
    return [row["id"] for row in status["rows"]]


@async_case
async def a_call_comes(client: AsyncOpenAI) -> None:
    [call] = (await say(client, TIMER, tools=TOOLS)).choices[0].message.tool_calls
    assert call.function.name == "set_timer"


@async_case
async def a_schema_is_followed(client: AsyncOpenAI) -> None:
    schema = {"name": "person", "schema": PERSON_SCHEMA}
    form = {"type": "json_schema", "json_schema": schema}
    reply = await say(client, STORY, response_format=form, max_tokens=200)
    assert set(json.loads(reply.choices[0].message.content)) == {"name", "age"}


@async_case
async def errors_are_errors(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await say(client, temperature=-1)
    with pytest.raises(openai.NotFoundError):
        await say(client, model="gpt-17")


@async_case
async def completions_come(client: AsyncOpenAI) -> None:
    reply = await client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=8, temperature=0
    )
    assert reply.usage is not None and reply.usage.completion_tokens <= 8
    assert reply.choices[0].text


@async_case
async def models_are_listed(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
