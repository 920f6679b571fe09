"""tool_choice as clients send it."""

import json

import pytest

from mtp_mlx.errors import RequestError
from mtp_mlx.options import Options
from mtp_mlx.text.choice import ToolChoice, read_tool_choice
from tests.text.replies import ids_of, replay

OFFERED = ("add", "get_time")
TOOLS = [{"name": name} for name in OFFERED]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ToolChoice(OFFERED)),
        ("auto", ToolChoice(OFFERED)),
        ("none", ToolChoice()),
        ("required", ToolChoice(OFFERED, must_call=True)),
        ({"type": "function", "function": {"name": "add"}}, ToolChoice(("add",), must_call=True)),
    ],
)
def test_every_form(value, expected):
    assert read_tool_choice(value, OFFERED) == expected


@pytest.mark.parametrize(
    ("value", "offered", "message"),
    [
        ("auto", (), "tool_choice needs tools, and there are none; leave it out"),
        ("none", (), "tool_choice needs tools"),
        ("any", OFFERED, "tool_choice must be 'none', 'auto', 'required' or .*, found 'any'"),
        (3, OFFERED, "tool_choice must be .*, found 3"),
        ({"type": "allowed_tools"}, OFFERED, "tool_choice of type 'allowed_tools' is not supp"),
        ({"type": "function"}, OFFERED, r"tool_choice\.function\.name must be text, found None"),
        (
            {"type": "function", "function": {"name": "sub"}},
            OFFERED,
            "tool_choice names 'sub', which is not among the tools: 'add, get_time'",
        ),
    ],
)
def test_what_is_no_choice(value, offered, message):
    with pytest.raises(RequestError, match=message) as found:
        read_tool_choice(value, offered)
    assert found.value.param == "tool_choice"
    assert "\n" not in str(found.value)


def test_no_tools_no_choice():
    assert read_tool_choice(None, ()) == ToolChoice()


JSON = {"type": "json_object"}
STRICT = [{"type": "function", "function": {"name": "f", "strict": True}}]


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"tools": TOOLS, "tool_choice": "required", "response_format": JSON}, "tool_choice",
         "tool_choice requires a call and response_format JSON"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", "needs tools, and there are none"),
        ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls",
         "must be true or false, found 'no'"),
        ({"response_format": "json"}, "response_format", "must be an object, found 'json'"),
        ({"response_format": {"type": "xml"}}, "response_format", r"\.type must be .* found 'xml'"),
        ({"response_format": {}}, "response_format", r"\.type must be .* found None"),
        ({"response_format": {"type": "json_schema"}}, "response_format",
         r"\.json_schema must be an object, found None"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": 3}}},
         "response_format", r"\.json_schema\.name must be text, found 3"),
        ({"response_format": {"type": "json_schema", "json_schema": {"strict": "yes"}}},
         "response_format", r"\.json_schema\.strict must be true or false, found 'yes'"),
        ({"tools": STRICT}, "tools", r"tools\[0\]: strict is not supported"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_honoured(options, param, message):
    made = Options.of(options)
    with pytest.raises(RequestError, match=message) as found:
        made.schema(), made.calling(), made.is_single_call()
    assert found.value.param == param and found.value.status == 400


def test_text_is_no_form():
    assert Options.of({"response_format": {"type": "text"}}).schema() is None
    assert Options.of({"response_format": None}).schema() is None


@pytest.mark.parametrize(
    "options", [{"tool_choice": "auto"}, {"parallel_tool_calls": True}, {"tools": TOOLS}]
)
def test_a_raw_prompt_has_no_tools(options):
    with pytest.raises(RequestError, match="needs a chat, and this prompt is raw"):
        Options.of(options).check_raw()


CALLS = {
    "own": "<|tool_call>call:add{a:1}<tool_call|>",
    "drifted": '<|tool_call|>call:add({"a": 1})',
    "unread": "<|tool_call>add{a:1}<tool_call|>",
}


@pytest.mark.parametrize("cuts", [(), range(1, 200), range(3, 200, 3)])
@pytest.mark.parametrize("form", ["own", "drifted"])
def test_a_single_call_ends_the_reply_however_rounds_are_cut(form, cuts):
    ids = ids_of("So: " + CALLS["unread"] + CALLS[form] + CALLS["own"] + " and more")
    cuts = [cut for cut in cuts if cut < len(ids)]
    several = replay(ids, cuts, tools=OFFERED)
    assert len(several.calls) == 2 and several.reply.text.endswith(" and more")
    single = replay(ids, cuts, tools=OFFERED, is_single_call=True)
    [(name, arguments)] = single.calls
    assert (name, json.loads(arguments)) == ("add", {"a": 1})
    assert single.reply.finish_reason == "tool_calls" and single.reply.text == "So: "
    assert single.reply.token_ids == several.reply.token_ids[: len(single.reply.token_ids)]
    assert len(single.reply.token_ids) == len(ids_of("So: " + CALLS["unread"] + CALLS[form]))
