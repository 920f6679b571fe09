"""Every field that OpenAI defines is honoured, harmless or refused by name: none is passed over."""

from collections.abc import Iterable

import pytest
from openai.types import completion_create_params, shared_params
from openai.types.chat import (
    chat_completion_assistant_message_param,
    chat_completion_developer_message_param,
    chat_completion_function_tool_param,
    chat_completion_stream_options_param,
    chat_completion_system_message_param,
    chat_completion_tool_message_param,
    chat_completion_user_message_param,
)
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.shared_params import response_format_json_schema
from pydantic import BaseModel

from mtp_mlx.server.wire import requests
from mtp_mlx.server.wire.asks import CHAT_FIELDS, COMPLETION_FIELDS
from mtp_mlx.server.wire.fields import HARMLESS, Unhonoured

REFUSED_IN_MESSAGES = {"function_call", "audio", "refusal"}  # see nested.py


def names(*params: type) -> set[str]:
    """The fields of the client's own types."""
    return {name for each in params for name in each.__annotations__}


def known(model: type[BaseModel], others: Iterable[str] = ()) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()} | set(others)


CHAT = names(
    chat_create_params.CompletionCreateParamsBase,
    chat_create_params.CompletionCreateParamsStreaming,
)
TEXT = names(
    completion_create_params.CompletionCreateParamsBase,
    completion_create_params.CompletionCreateParamsStreaming,
)


@pytest.mark.parametrize(
    ("fields", "model", "refused"),
    [
        (CHAT, requests.ChatRequest, CHAT_FIELDS),
        (TEXT, requests.CompletionRequest, COMPLETION_FIELDS),
    ],
    ids=["chat", "completion"],
)
def test_no_field_of_a_request_is_passed_over(
    fields: set[str], model: type[BaseModel], refused: dict[str, Unhonoured]
) -> None:
    honoured = known(model)
    assert len(fields) > 15
    assert fields - honoured - set(refused) - HARMLESS == set()
    assert not honoured & HARMLESS and not honoured & set(refused)


MESSAGES = {
    requests.Said: (
        chat_completion_system_message_param.ChatCompletionSystemMessageParam,
        chat_completion_developer_message_param.ChatCompletionDeveloperMessageParam,
        chat_completion_user_message_param.ChatCompletionUserMessageParam,
    ),
    requests.Written: (
        chat_completion_assistant_message_param.ChatCompletionAssistantMessageParam,
    ),
    requests.ToolAnswer: (chat_completion_tool_message_param.ChatCompletionToolMessageParam,),
}


@pytest.mark.parametrize("model", MESSAGES)
def test_no_field_of_a_message_is_passed_over(model: type[BaseModel]) -> None:
    fields = names(*MESSAGES[model])
    assert {"role", "content"} <= fields
    assert fields - known(model, REFUSED_IN_MESSAGES) == set()


@pytest.mark.parametrize(
    ("param", "model"),
    [
        (shared_params.FunctionDefinition, requests.Function),  # strict is refused: see nested.py
        (
            chat_completion_function_tool_param.ChatCompletionFunctionToolParam,
            requests.Tool,
        ),
        (response_format_json_schema.JSONSchema, requests.Schema),
        (
            chat_completion_stream_options_param.ChatCompletionStreamOptionsParam,
            requests.StreamOptions,
        ),
    ],
)
def test_no_field_of_a_part_is_passed_over(param: type, model: type[BaseModel]) -> None:
    assert names(param) and names(param) - known(model) == set()
