"""The real openai client against the real server: all cases at 8 at once; alone in the long form.

Retries are off, except where they are what is tested.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.openai_client import (
    async_cases,
    chat_cases,
    completion_cases,
    error_cases,
    schema_cases,
    stream_cases,
    tool_cases,
)
from tests.openai_client.case import ASYNC_CASES, CASES, AsyncCase, Case, say, text
from tests.server.running import ready_at

MODULES = (
    async_cases,
    chat_cases,
    completion_cases,
    error_cases,
    schema_cases,
    stream_cases,
    tool_cases,
)
AT_ONCE = 8


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own process."""
    with ready_at(tmp_path_factory.mktemp("openai")) as url:
        yield url


def client_of(url: str, **options) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60, **options)


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with client_of(url) as client:
        yield client


def test_there_are_about_sixty_cases() -> None:
    assert len(CASES) + len(ASYNC_CASES) >= 60 and MODULES


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_case(client: OpenAI, case: Case) -> None:
    case(client)


@pytest.mark.slow
@pytest.mark.parametrize("case", ASYNC_CASES, ids=lambda case: case.__name__)
def test_async_case(url: str, case: AsyncCase) -> None:
    asyncio.run(with_client(url, case))


async def with_client(url: str, *cases: AsyncCase) -> None:
    async with AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60
    ) as client:
        await asyncio.gather(*(case(client) for case in cases))


def test_all_cases_at_eight_at_once(url: str) -> None:
    """Eight threads take the cases one after another."""
    with client_of(url) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = {case.__name__: pool.submit(case, client) for case in CASES}
        faults = {name: outcome.exception() for name, outcome in outcomes.items()}
    assert {name: fault for name, fault in faults.items() if fault is not None} == {}


def test_all_async_cases_at_once(url: str) -> None:
    asyncio.run(with_client(url, *ASYNC_CASES))


def test_a_refusal_for_a_moment_is_tried_again(url: str) -> None:
    """More at once than rows and queue: the client's own retries bring every reply."""
    trying = client_of(url).with_options(max_retries=8)
    with trying as client, ThreadPoolExecutor(60) as pool:
        replies = list(pool.map(lambda _: text(say(client)), range(60)))
    assert replies == ["3 + 4 = 7."] * 60


def test_a_server_that_is_not_there() -> None:
    with client_of("http://127.0.0.1:1") as client, pytest.raises(openai.APIConnectionError):
        say(client)
