"""Errors, and what the client makes of them."""

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.openai_client.case import SUM, TIMER, TOOLS, case, say


def refused(client: OpenAI, kind: type[openai.APIStatusError] = openai.BadRequestError, **options):
    """The error of a request, as (code, param, message)."""
    messages = options.pop("messages", SUM)
    with pytest.raises(kind) as caught:
        say(client, messages, **options)
    error: Any = caught.value.body
    assert isinstance(error["message"], str) and error["message"]
    assert "Traceback" not in error["message"] and "/" not in error["message"].split("http")[0]
    assert caught.value.response.headers["content-type"].startswith("application/json")
    return error["code"], error["param"]


@case
def an_unknown_model_is_404(client: OpenAI) -> None:
    found = refused(client, openai.NotFoundError, model="gpt-17")
    assert found == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-17")


@case
def values_out_of_range_are_400(client: OpenAI) -> None:
    for name, value in (
        ("temperature", -1),
        ("top_p", 2),
        ("n", 99),
        ("seed", 2**64),
        ("presence_penalty", 9),
        ("max_tokens", 0),
        ("top_logprobs", 3),  # without logprobs
        ("stop", [""]),
        ("logit_bias", {"99999999": 1}),
    ):
        code, param = refused(client, **{name: value})
        assert code in ("invalid_value", "unsupported_parameter"), name
        assert param is not None and param.split(".")[0].split("[")[0] == name


@case
def what_is_not_honoured_is_400(client: OpenAI) -> None:
    for name, value in (
        ("prediction", {"type": "content", "content": "x"}),
        ("modalities", ["audio"]),
        ("functions", [TOOLS[0]["function"]]),
        ("web_search_options", {}),
    ):
        assert refused(client, extra_body={name: value}) == ("unsupported_parameter", name)


@case
def a_bad_schema_is_400(client: OpenAI) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "banana"}}}
    code, param = refused(client, response_format=schema)
    assert code == "invalid_schema" and param.startswith("response_format")


@case
def a_tool_choice_without_tools_is_400(client: OpenAI) -> None:
    assert refused(client, tool_choice="required")[1] == "tool_choice"


@case
def a_tool_that_is_not_there_is_400(client: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "fly"}}
    _, param = refused(client, messages=TIMER, tools=TOOLS, tool_choice=choice)
    assert param is not None and param.startswith("tool_choice")


@case
def images_are_400(client: OpenAI) -> None:
    picture = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}
    message = [{"role": "user", "content": [picture]}]
    code, param = refused(client, messages=message)
    assert code == "unsupported_parameter" and param.startswith("messages[0]")


@case
def no_messages_is_400(client: OpenAI) -> None:
    assert refused(client, messages=[])[1] == "messages"


@case
def a_role_nobody_has_is_400(client: OpenAI) -> None:
    assert refused(client, messages=[{"role": "king", "content": "x"}])[1].startswith("messages[0]")


@case
def a_prompt_beyond_the_context_is_400(client: OpenAI) -> None:
    long = [{"role": "user", "content": "a fox and a hen " * 3000}]
    assert refused(client, messages=long)[0] == "context_length_exceeded"


@case
def an_error_in_a_stream_request_is_a_status(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        say(client, stream=True, temperature=-1)


@case
def paths_that_are_not_there_say_what_to_use(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="tiny", input="hello")
    assert "/v1/chat/completions" in caught.value.body["message"]  # ty: ignore


@case
def embeddings_are_404(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="tiny", input="hello")
