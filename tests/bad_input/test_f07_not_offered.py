"""F7: a tool that was not offered is named as the model wrote it; nothing is ever carried out."""

import pytest

import mtp_mlx
from mtp_mlx.embedded import NAMES
from mtp_mlx.errors import RequestError
from tests.text.replies import ids_of, replay

CALL = '<|tool_call>call:rm.all{path:<|"|>/<|"|>}<tool_call|><|tool_response>'


@pytest.mark.parametrize("tools", [(), ("other",)])
def test_a_call_of_what_was_not_offered_is_passed_on_with_a_warning(tools):
    found = replay(ids_of(CALL), tools=tools)
    assert found.calls == [("rm.all", '{"path":"/"}')]
    assert found.reply.finish_reason == "tool_calls"
    assert found.reply.warning == "the model called what is not among the tools: rm.all"


def test_an_offered_one_has_no_warning():
    found = replay(ids_of(CALL * 2), tools=("other", "rm.all"))
    assert len(found.calls) == 2 and found.reply.warning is None


def test_names_of_calls_are_safe_in_the_warning():
    found = replay(ids_of("<|tool_call>call:\x1b]0;x\x07{}<tool_call|>"))
    assert found.reply.warning is not None and found.reply.warning.isprintable()


def test_a_choice_among_no_tools_or_of_none_of_them_is_refused():
    asked = [{"role": "user", "content": "a"}]
    with mtp_mlx.load(NAMES[0]) as llm:
        for value in ("none", "required", "auto"):
            with pytest.raises(RequestError, match="tool_choice needs tools, and there are none"):
                llm.chat(asked, tool_choice=value)
        named = {"type": "function", "function": {"name": "rm"}}
        with pytest.raises(RequestError, match="names 'rm', which is not among the tools: 'other'"):
            llm.chat(asked, tools=[{"name": "other"}], tool_choice=named)
