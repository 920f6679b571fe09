import pytest

from mtp_mlx.errors import RequestError, Unsupported
from mtp_mlx.text.messages import read_messages, read_tools, tool_names

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}}


def calling(arguments: object) -> list[dict]:
    function = {"name": "f", "arguments": arguments}
    return [{"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}]


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        *(('{"a": [1, "x"]}', {"a": [1, "x"]}), ({"a": 1}, {"a": 1}), ("{}", {}), ("", {})),
        *((" ", {}), (None, {}), ({}, {})),
    ],
)
def test_arguments_of_earlier_calls_become_objects(arguments, read):
    given = calling(arguments)
    [message] = read_messages(given)
    assert message["tool_calls"] == [{"id": "1", "function": {"name": "f", "arguments": read}}]
    assert given == calling(arguments), "the caller's messages stay as they are"


def test_other_messages_stay_as_they_are():
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": None}]
    assert read_messages(chat) == chat
    assert read_messages(tuple(chat)) == chat


@pytest.mark.parametrize("arguments", ["[1]", "{", "null", "1", [1], 3, "{" * 100_000, '{"a":'])
def test_arguments_that_are_no_object_are_refused(arguments):
    where = r"messages\[0\]\.tool_calls\[0\]\.function\.arguments must be a JSON object"
    with pytest.raises(RequestError, match=where) as caught:
        read_messages(calling(arguments))
    assert caught.value.param == "messages" and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        *(("hello", "list of objects"), ([1], "list of objects"), (None, "list of objects")),
        ([{"tool_calls": {}}], r"messages\[0\]\.tool_calls must be a list"),
        ([{}, {"tool_calls": [1]}], r"messages\[1\]\.tool_calls\[0\] must be an object"),
        ([{"tool_calls": [{"function": 1}]}], "an object with a function"),
        ([{"tool_calls": [{"function": {}}]}], r"function\.name must be text, found None"),
    ],
)
def test_malformed_messages_are_named(messages, said):
    with pytest.raises(RequestError, match=said) as caught:
        read_messages(messages)
    assert caught.value.param == "messages"


def test_tools_are_read_in_both_forms():
    whole = {"type": "function", "function": FUNCTION}
    assert read_tools([FUNCTION]) == read_tools([whole]) == read_tools((whole,)) == [whole]
    assert read_tools([]) == []
    assert tool_names(read_tools([FUNCTION, {"name": "http.post"}])) == ["f", "http.post"]


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        *(("f", "tools must be a list"), ({"name": "f"}, "tools must be a list")),
        *(([1], r"tools\[0\] must be an object"), ([{}], r"tools\[0\]: name must be a name")),
        ([{"type": "function", "function": 1}], r"tools\[0\]\.function must be an object"),
        *(
            ([{"name": name}], "without spaces")
            for name in ("", "a b", "f{", "f(", 'f"', "x" * 129)
        ),
        ([{"name": "f", "parameters": [1]}], "parameters must be a JSON schema"),
        ([FUNCTION, {"name": "g"}, FUNCTION], r"tools\[2\]: there are two tools 'f'"),
    ],
)
def test_what_is_no_tool_is_named(tools, said):
    with pytest.raises(RequestError, match=said) as caught:
        read_tools(tools)
    assert caught.value.param == "tools"


def test_tools_of_another_type_are_not_supported():
    with pytest.raises(Unsupported, match="'web_search' are not supported; functions only"):
        read_tools([{"type": "web_search"}])
