"""Rows B7 to B22 of the fault matrix as far as they need no socket: bodies to asks, or to errors
that name the field."""

import pytest

from mtp_mlx.request import MAX_SEED
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.wire.asks import read_chat, read_completion
from mtp_mlx.server.wire.fields import CHAT_ONLY, COMMON, COMPLETION_ONLY, HARMLESS
from tests.server.wire import HELLO, SECRET, WEATHER, chat, completion, fault, options, served

ROWS = 1536  # of the built-in pair's embedding table


def nested(depth):
    return {"a": nested(depth - 1)} if depth else {}


def tool(**function):
    return {"type": "function", "function": {"name": "f"} | function}


ACCEPTED = [
    ({}, {}),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"max_completion_tokens": 5}, {"max_tokens": 5}),
    ({"max_tokens": 5, "max_completion_tokens": 5}, {"max_tokens": 5}),
    ({"max_tokens": 2**31 - 1}, {"max_tokens": 2**31 - 1}),
    ({"max_tokens": None}, {}),
    ({"temperature": 0}, {"temperature": 0}),
    ({"temperature": 1e-30}, {"temperature": 1e-30}),
    ({"top_p": 1, "min_p": 0.1, "top_k": 40}, {"top_p": 1, "min_p": 0.1, "top_k": 40}),
    ({"top_k": -1}, {"top_k": 0}),
    ({"stop": "a"}, {"stop": "a"}),
    ({"stop": ["e\u0301"] * 16}, {"stop": ["e\u0301"] * 16}),
    ({"stop": "x" * 256}, {"stop": "x" * 256}),
    ({"repetition_penalty": 1.0, "presence_penalty": 0, "frequency_penalty": 0}, {}),
    (
        {"presence_penalty": -2, "frequency_penalty": 2},
        {"presence_penalty": -2, "frequency_penalty": 2},
    ),
    ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    ({"logit_bias": {"5": -100, "1535": 100}}, {"logit_bias": {5: -100, 1535: 100}}),
    ({"logit_bias": {}}, {}),
    ({"logprobs": True}, {"logprobs": 0}),
    ({"logprobs": True, "top_logprobs": 20}, {"logprobs": 20}),
    ({"logprobs": False, "top_logprobs": 0}, {}),
    ({"response_format": {"type": "text"}}, {}),
    ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
    ({"response_format": SECRET}, {"response_format": SECRET}),
    ({"tools": [WEATHER]}, {"tools": [WEATHER]}),
    ({"tools": []}, {}),
    (
        {"tools": [WEATHER], "tool_choice": "auto", "parallel_tool_calls": True},
        {"tools": [WEATHER]},
    ),
    ({"tool_choice": "none", "parallel_tool_calls": False}, {}),
    (
        {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False},
    ),
    (
        {
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        },
        {
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        },
    ),
    ({"reasoning_effort": "none"}, {}),
    ({"reasoning_effort": "low"}, {"think": True}),
    ({"enable_thinking": True, "thinking_budget": 0}, {"think": True, "thinking_budget": 0}),
    (
        {"chat_template_kwargs": {"enable_thinking": True, "preserve_thinking": True}},
        {"think": True, "preserve_thinking": True},
    ),
    ({"num_draft_tokens": 7}, {"num_draft_tokens": 7}),
    ({"num_draft_tokens": "auto"}, {"num_draft_tokens": "auto"}),
    ({"draft_model": "none"}, {"num_draft_tokens": 0}),
    ({"draft_model": "tiny-assistant"}, {}),
    ({"cache": False}, {"cache": False}),
    ({"model": "tiny"}, {}),
    ({"model": "TINY"}, {}),
    ({"model": "default"}, {}),
    ({"modalities": ["text"], "best_of": 1, "length_penalty": 1, "min_tokens": 0}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), ACCEPTED)
def test_what_a_chat_asks_for(fields, expected):
    assert options(chat(**fields)) == expected


INVALID = [
    # B7
    *[
        ({"max_tokens": value}, "max_tokens")
        for value in (0, -1, 10**18, "5", True, 1.5, 2**31, [])
    ],
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    # B8, B9
    *[
        ({"temperature": value}, "temperature")
        for value in (float("nan"), float("inf"), -1, 1e999, "1", True, 10**400)
    ],
    *[({"top_p": value}, "top_p") for value in (0, 1.1, -0.1)],
    *[({"top_k": value}, "top_k") for value in (-5, 2e9, 1.0, 2**31)],
    ({"min_p": 1.5}, "min_p"),
    ({"repetition_penalty": float("nan")}, "repetition_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"frequency_penalty": "0"}, "frequency_penalty"),
    *[({"seed": value}, "seed") for value in (2**64, -1, 1.0, "7")],
    ({"seed": MAX_SEED, "n": 2}, "seed"),
    # B10
    *[({"n": value}, "n") for value in (0, 9, 10**9, True)],
    # B11
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": ["x"] * 1000}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a", ""]}, "stop[1]"),
    ({"stop": "x" * 257}, "stop"),
    ({"stop": ["x" * (1 << 20)]}, "stop[0]"),
    ({"stop": 5}, "stop"),
    ({"stop": [5]}, "stop[0]"),
    # B12
    ({"logit_bias": {str(ROWS): 1}}, f"logit_bias.{ROWS}"),
    ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
    ({"logit_bias": {"x": 1}}, "logit_bias.x"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"logit_bias": {"5": 1, "05": 2}}, "logit_bias.05"),
    ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias"),
    # B13
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": HELLO * 2049}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": ["hello"]}, "messages[0]"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]"),
    ({"messages": [*HELLO, {"role": "robot", "content": "a"}]}, "messages[1].role"),
    ({"messages": [{"content": "a"}]}, "messages[0].role"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
        "messages[0].tool_calls[0].function",
    ),
    # B16
    ({"messages": [{"role": "user", "content": "ab\ud800"}]}, "messages[0].content"),
    ({"stop": "\udc00"}, "stop"),
    ({"a\ud800": 1}, None),
    # B18, B19
    ({"chat_template_kwargs": {"enable_thinking": 1}}, "chat_template_kwargs.enable_thinking"),
    ({"tools": [WEATHER] * 129}, "tools"),
    ({"tools": [WEATHER, WEATHER]}, "tools"),
    ({"tools": [tool(description="x" * (256 << 10))]}, "tools"),
    ({"tools": [tool(parameters=nested(40))]}, "tools"),
    ({"tools": [tool(parameters=nested(500))]}, "tools"),
    ({"tools": [tool(name="a b")]}, "tools[0].function.name"),
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice.function.name",
    ),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        "response_format.json_schema.schema",
    ),
    ({"response_format": "json"}, "response_format"),
    # the rest
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": 2}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"num_draft_tokens": 8}, "num_draft_tokens"),
    ({"num_draft_tokens": "many"}, "num_draft_tokens"),
    ({"draft_model": "none", "num_draft_tokens": 2}, "draft_model"),
    ({"reasoning_effort": "none", "enable_thinking": True}, "reasoning_effort"),
    ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    ({"thinking_budget": -1}, "thinking_budget"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"spec_trace": True}, "spec_trace"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"model": 5}, "model"),
]


@pytest.mark.parametrize(("fields", "param"), INVALID)
def test_a_wrong_value_is_named(fields, param):
    status, code, named, message = fault(read_chat, {"messages": HELLO} | fields)
    assert (status, code, named) == (400, "invalid_value", param)
    assert param is None or param in message
    assert len(message) < 400


UNSUPPORTED = [
    ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
    ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema"),
    ({"chat_template_kwargs": {"date": "x"}}, "chat_template_kwargs.date"),
    ({"tools": [tool(strict=True)]}, "tools[0].function.strict"),
    ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
    ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
    ({"draft_model": "other"}, "draft_model"),
    ({"stream": True, "stream_options": {"continuous_usage_stats": True}},
     "stream_options.continuous_usage_stats"),
    ({"messages": [{"role": "assistant", "function_call": {}}]}, "messages[0].function_call"),
    *[
        ({"messages": [{"role": "user", "content": [{"type": kind, kind: {"url": url}}]}]},
         "messages[0].content[0].type")
        for kind in ("image_url", "input_audio", "file")
        for url in ("http://127.0.0.1:9/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA")
    ],
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED)
def test_what_is_known_and_not_honoured_inside_is_refused(fields, param):
    status, code, named, message = fault(read_chat, {"messages": HELLO} | fields)
    assert (status, code, named) == (400, "unsupported_parameter", param)
    assert ";" in message or "leave" in message, "no remedy"


@pytest.mark.parametrize(
    ("read", "base", "table"),
    [
        (read_chat, {"messages": HELLO}, COMMON | CHAT_ONLY),
        (read_completion, {"prompt": "a"}, COMMON | COMPLETION_ONLY),
    ],
)
def test_each_field_that_is_not_honoured_is_refused_but_for_its_default(read, base, table):
    for name, field in table.items():
        for default in (*field.defaults, None):
            assert read({**base, name: default}, served()).ignored == ()
        for value in ("x", 7, True not in field.defaults, {"a": 1}):
            status, code, param, message = fault(read, {**base, name: value})
            assert (status, code, param) == (400, "unsupported_parameter", name)
            assert message.startswith(name) and field.remedy in message


def test_true_is_not_one_and_one_is_one():
    assert fault(read_chat, {"messages": HELLO, "best_of": True})[2] == "best_of"
    assert (
        fault(read_chat, {"messages": HELLO, "skip_special_tokens": 1})[2] == "skip_special_tokens"
    )
    assert chat(length_penalty=1, best_of=1.0).ignored == ()


def test_names_that_nobody_defines_are_told_and_harmless_ones_are_not():
    assert chat(**{name: {"any": 1} for name in HARMLESS}).ignored == ()
    ask = chat(
        zeta=1,
        messages=[{"role": "user", "content": "a", "cache_control": {}, "id": 3}] * 2,
        stream=True,
        stream_options={"include_usage": True, "more": 1},
    )
    told = ("zeta", "messages[].cache_control", "messages[].id", "stream_options.more")
    assert ask.ignored == told
    assert ask.ignored_header == ", ".join(told)
    assert chat().ignored_header is None


def test_a_header_cannot_be_split_by_a_name():
    ask = chat(**{"a\r\nSet-Cookie: b": 1, "é, \x1b": 2}, **{f"x{n}": 1 for n in range(100)})
    header = ask.ignored_header
    assert header.startswith("a??Set-Cookie??b, ????, x0, ")
    assert header.isascii() and header.isprintable() and len(header) < 4096


def test_a_model_that_is_not_served_is_404_and_lists_those_that_are():
    status, code, param, message = fault(read_chat, {"messages": HELLO, "model": "gpt-4\n\x1b"})
    assert (status, code, param) == (404, "model_not_found", "model")
    assert "tiny" in message and "\x1b" not in message
    open_to_all = served(accept_any_model=True)
    ask = read_chat({"messages": HELLO, "model": "gpt-4"}, open_to_all)
    assert ask.model == "tiny"


def test_each_choice_has_its_seed():
    ask = chat(n=8, seed=5)
    assert [choice.options["seed"] for choice in ask.choices] == list(range(5, 13))
    assert chat(seed=MAX_SEED).seed == MAX_SEED
    drawn = chat(n=2)
    assert [choice.options["seed"] - drawn.seed for choice in drawn.choices] == [0, 1]
    assert chat().seed != chat().seed
    # As large as JavaScript's and Swift's numbers can tell back.
    assert all(chat().seed < 2**53 for _ in range(20))


def test_a_body_that_is_no_object():
    for body in (None, [], "a", 5, True):
        assert fault(read_chat, body)[:3] == (400, "invalid_value", None)


@pytest.mark.parametrize("field", ["messages", "stop", "temperature", "stream"])
def test_an_object_where_none_belongs_is_called_one(field):
    message = fault(read_chat, {"messages": HELLO, field: {}})[3]
    assert message.endswith(", found an object")


def test_messages_as_the_template_reads_them():
    ask = chat(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "be kind", "x": 1}]},
            {"role": "user", "content": "hi", "name": None},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "audio": None,
                "annotations": [],
                "function_call": None,
                "reasoning": "hm",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a": null}'},
                        "index": 0,
                    }
                ],
            },
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}],
            },
        ]
    )
    assert ask.choices[0].prompt == [
        {"role": "developer", "content": [{"type": "text", "text": "be kind"}]},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "",
            "reasoning": "hm",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": {"a": None}},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    assert ask.ignored == ()


def test_arguments_that_are_no_object_are_named():
    call = {"function": {"name": "f", "arguments": "[1]"}}
    body = {"messages": [*HELLO, {"role": "assistant", "tool_calls": [call]}]}
    assert "messages[1].tool_calls[0].function.arguments" in fault(read_chat, body)[3]


PROMPTS = [
    ("a", ["a"]),
    ("", [""]),
    (["a", "b"], ["a", "b"]),
    ([5, 6], [[5, 6]]),
    ([[5], [6, 7]], [[5], [6, 7]]),
]


@pytest.mark.parametrize(("given", "expected"), PROMPTS)
def test_all_forms_of_a_prompt(given, expected):
    assert [choice.prompt for choice in completion(prompt=given).choices] == expected


BAD_PROMPTS = [
    (None, "prompt"),
    ([], "prompt"),
    ([[]], "prompt[0]"),
    (5, "prompt"),
    ({}, "prompt"),
    (["a", 5], "prompt[1]"),
    ([5, "a"], "prompt[1]"),
    ([5, True], "prompt[1]"),
    ([5, -1], "prompt[1]"),
    ([5, ROWS], "prompt[1]"),
    ([[5], [10**30]], "prompt[1][0]"),
    ([[5], "a"], "prompt[1]"),
    ([None], "prompt[0]"),
    (["a"] * 41, "prompt"),
]


@pytest.mark.parametrize(("given", "param"), BAD_PROMPTS)
def test_a_wrong_prompt_is_named(given, param):
    assert fault(read_completion, {"prompt": given})[:3] == (400, "invalid_value", param)


def test_many_prompts_are_as_many_as_the_server_ever_takes():
    most = served().slots + Limits().queue
    assert len(completion(prompt=["a"] * most).choices) == most
    assert fault(read_completion, {"prompt": ["a"] * (most // 2 + 1), "n": 2})[2] == "prompt"


def test_choices_of_many_prompts():
    ask = completion(prompt=["a", "b"], n=2, seed=0)
    assert [(choice.prompt, choice.options["seed"]) for choice in ask.choices] == [
        ("a", 0), ("a", 1), ("b", 2), ("b", 3),
    ]  # fmt: skip


COMPLETIONS = [
    ({"logprobs": 0}, {"logprobs": 0}),
    ({"logprobs": 5, "echo": True}, {"logprobs": 5, "prompt_logprobs": 5}),
    ({"echo": True}, {}),
    ({"prompt_logprobs": 3}, {"prompt_logprobs": 3}),
    ({"prompt_logprobs": 3, "logprobs": 5, "echo": True}, {"logprobs": 5, "prompt_logprobs": 5}),
    ({"max_tokens": 0, "echo": True}, {"max_tokens": 1, "num_draft_tokens": 0}),
    ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
    ({"stop": ["a"], "max_completion_tokens": 3}, {"stop": ["a"], "max_tokens": 3}),
]


@pytest.mark.parametrize(("fields", "expected"), COMPLETIONS)
def test_what_a_completion_asks_for(fields, expected):
    assert options(completion(**fields)) == expected


BAD_COMPLETIONS = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1, "echo": True}, "max_tokens"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"echo": "yes"}, "echo"),
    ({"echo": True, "logprobs": 1, "stream": True}, "echo"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_COMPLETIONS)
def test_a_wrong_value_of_a_completion_is_named(fields, param):
    body = {"prompt": "a"} | fields
    assert fault(read_completion, body)[:3] == (400, "invalid_value", param)
