"""Whatever JSON a client sends: it is read, or refused in words; and what is read is what
/openapi.json allows."""

import json

import jsonschema_rs
from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_mlx.errors import RequestError
from mtp_mlx.server.errors import Refused, error_answer
from mtp_mlx.server.wire.asks import CHAT_FIELDS, COMPLETION_FIELDS, Ask, read_chat, read_completion
from mtp_mlx.server.wire.openapi import document
from mtp_mlx.server.wire.requests import ChatRequest, CompletionRequest
from mtp_mlx.server.wire.tokenizing import detokenize, tokenize
from tests.server.wire import HELLO, SECRET, WEATHER, served

# What LLM.prepare takes of a server.
KEYWORDS = {
    "temperature", "top_k", "top_p", "min_p", "seed", "max_tokens", "stop", "num_draft_tokens",
    "cache", "tools", "think", "thinking_budget", "preserve_thinking", "repetition_penalty",
    "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "prompt_logprobs",
    "response_format", "tool_choice", "parallel_tool_calls",
}  # fmt: skip

texts = st.one_of(
    st.text(st.characters(exclude_categories=[]), max_size=6),
    st.sampled_from(
        ["user", "assistant", "tool", "text", "function", "json_schema", "auto", "none"]
    ),
)
numbers = st.one_of(
    st.integers(-3, 30), st.integers(), st.floats(), st.sampled_from([10**400, 2**63, 1e300])
)
keys = st.one_of(
    texts,
    st.sampled_from(
        ["role", "content", "type", "text", "function", "name", "arguments", "tool_calls",
         "json_schema", "schema", "enable_thinking", "include_usage", "parameters", "strict", "5"]
    ),
)  # fmt: skip
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
GOOD = {
    "messages": HELLO,
    "prompt": "a",
    "tools": [WEATHER],
    "response_format": SECRET,
    "logit_bias": {"5": 1},
    "stream_options": {"include_usage": True},
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    "chat_template_kwargs": {"enable_thinking": True},
}


def bodies(model, refused, base):
    """Bodies of known fields and others, with values of any form, good ones among them."""
    names = sorted({*model.model_fields, *refused, "user", "zeta"})
    fields = st.dictionaries(st.one_of(st.sampled_from(names), texts), values, max_size=4)
    good = st.sets(st.sampled_from(sorted(GOOD)), max_size=3).map(
        lambda chosen: {name: GOOD[name] for name in chosen if name in model.model_fields}
    )
    return st.builds(
        lambda base, good, fields: base | good | fields, st.sampled_from([{}, base]), good, fields
    )


def read_or_refuse(read, body):
    """What was read, None where it was refused; nothing else may happen."""
    try:
        found = read(body, served())
    except (RequestError, Refused) as error:
        answer = error_answer(error)
        assert 400 <= answer.status < 500
        fault = json.loads(json.dumps(answer.body, allow_nan=False))["error"]
        assert fault["message"] and "\n" not in fault["message"]
        assert len(fault["message"]) < 2000
        return None
    return found


SCHEMAS = document()["components"]["schemas"]


def validator(name):
    """Of one schema of the document, the others beside it."""
    return jsonschema_rs.validator_for(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
    )


CHAT, TEXT = validator("ChatRequest"), validator("CompletionRequest")


def check(ask, body, schema):
    assert isinstance(ask, Ask) and ask.choices
    for choice in ask.choices:
        assert set(choice.options) <= KEYWORDS
        json.dumps(choice, allow_nan=False)
    assert schema.is_valid(body), "the document does not allow what was read"


@settings(max_examples=300, deadline=None)
@given(bodies(ChatRequest, CHAT_FIELDS, {"messages": HELLO}))
def test_any_chat(body):
    ask = read_or_refuse(read_chat, body)
    if ask is not None:
        check(ask, body, CHAT)


@settings(max_examples=200, deadline=None)
@given(bodies(CompletionRequest, COMPLETION_FIELDS, {"prompt": "a"}))
def test_any_completion(body):
    ask = read_or_refuse(read_completion, body)
    if ask is not None:
        check(ask, body, TEXT)


@settings(max_examples=100, deadline=None)
@given(values)
def test_any_value(body):
    for read in (read_chat, read_completion, tokenize, detokenize):
        read_or_refuse(read, body)


@settings(max_examples=100, deadline=None)
@given(values)
def test_any_message(message):
    ask = read_or_refuse(read_chat, {"messages": [message]})
    if ask is not None:
        check(ask, {"messages": [message]}, CHAT)
