"""Thoughts and tool calls on the command line: where they are shown, and the options for them."""

import json

import pytest

import mtp_mlx
from mtp_mlx.cli.main import main
from tests.cli.test_terminal import OFF, ON, SHOWN, TRAPS, in_pipe, on_terminal

DIM = "\x1b[2m"
SUM, WEATHER = "What is 3 + 4?", "What is the weather in Paris?"
GREEDY = ("--temp", 0, "-m", 40)
TOOL = {"name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}}}}
THINKING = [
    [["", "prefill", "reasoning"]],
    [["I ", "draft", "reasoning"], ["think", "target", "reasoning"]],
    [["It ", "draft"], ["is.", "target"]],
]
CALLING = [[["Wait.", "prefill"]], [['{"a": 1}', "target", "tool"]]]


def test_a_pipe_gets_the_reply_and_no_thought():
    assert in_pipe(THINKING).out == "It is.\n"


def test_a_terminal_shows_the_thought_dim_before_the_reply():
    shown = f"{DIM}thinking: {OFF}{DIM}I think{OFF}\n\n{ON}It {OFF}is.\n"
    assert on_terminal(THINKING).out == shown
    assert on_terminal(THINKING, NO_COLOR="1").out == "thinking: I think\n\nIt is.\n"
    assert on_terminal(THINKING, "--hide-thinking").out == f"{ON}It {OFF}is.\n"


def test_calls_are_lines_of_their_own_on_stdout():
    assert in_pipe(CALLING).out == 'Wait.\nf({"a": 1})\n'
    assert in_pipe(CALLING[1:]).out == 'f({"a": 1})\n'
    assert on_terminal(THINKING[:2] + CALLING[1:], NO_COLOR="1").out == (
        'thinking: I think\n\nf({"a": 1})\n'
    )


def test_thoughts_and_calls_are_never_obeyed():
    rounds = [[[TRAPS, "prefill", "reasoning"]], [[TRAPS, "target", "tool"]]]
    assert on_terminal(rounds, NO_COLOR="1").out == f"thinking: {SHOWN}\n\nf({SHOWN})\n"
    assert in_pipe(rounds).out == f"f({SHOWN})\n"
    assert on_terminal(rounds, "--raw", NO_COLOR="1").out == (
        f"thinking: {TRAPS}\n\nf({TRAPS}){OFF}\n"
    )


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / "tools.json"
    path.write_text(json.dumps([TOOL]))
    return path


def test_json_holds_thought_and_calls(cli, tools):
    body = cli("generate", SUM, "--think", *GREEDY, "--json").body
    with mtp_mlx.load("tiny") as llm:
        asked = [{"role": "user", "content": SUM}]
        reply = llm.chat(asked, think=True, temperature=0, max_tokens=40)
    assert (body["reasoning"], body["text"]) == (reply.reasoning, reply.text)
    assert body["reasoning"] and body["usage"]["reasoning_tokens"] > 0
    body = cli("generate", WEATHER, "--tools", tools, *GREEDY, "--json").body
    [call] = body["tool_calls"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})
    assert (body["finish_reason"], body["text"], body["warning"]) == ("tool_calls", "", None)


def test_text_and_lines_of_json_say_the_same(cli, tools):
    answer = cli("generate", WEATHER, "--tools", tools, *GREEDY)
    assert (answer.code, answer.out) == (0, 'get_weather({"city":"Paris"})\n')
    lines = cli("generate", WEATHER, "--tools", tools, *GREEDY, "--jsonl").lines
    assert {line["kind"] for line in lines[:-1] if line["text"]} == {"tool"}


def test_a_cut_off_call_is_named_on_stderr(cli, tools):
    answer = cli("generate", WEATHER, "--tools", tools, "--temp", 0, "-m", 5)
    assert (answer.code, answer.out) == (0, "\n")
    assert "a tool call is cut off or cannot be read" in answer.err


@pytest.mark.parametrize(
    ("flags", "thinks"),
    [
        *(((), False), (("--think",), True), (("--no-think",), False)),
        (("--chat-template-args", '{"enable_thinking": true}'), True),
        (("--chat-template-args", '{"enable_thinking": false}'), False),
        (("--think", "--chat-template-args", '{"enable_thinking": true}'), True),
        (("--think", "--thinking-budget", 2), True),
    ],
)
def test_thinking_is_off_unless_asked_for(cli, flags, thinks):
    body = cli("generate", SUM, *flags, *GREEDY, "--json").body
    assert bool(body["usage"]["reasoning_tokens"]) == thinks
    if "--thinking-budget" in flags:
        assert body["usage"]["reasoning_tokens"] == 4  # both markers too


def test_the_command_line_comes_before_the_environment(cli, monkeypatch):
    monkeypatch.setenv("MTP_MLX_THINK", "0")
    asked = ("--chat-template-args", '{"enable_thinking": true}')
    assert cli("generate", SUM, *asked, *GREEDY, "--json").body["usage"]["reasoning_tokens"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tools", "nowhere.json"), "nowhere.json: No such file"),
        (("--tools", __file__), "is not JSON: Extra data"),
        (("--chat-template-args", "{"), "is not a JSON object such as"),
        (("--chat-template-args", "[]"), "is not a JSON object such as"),
        (("--chat-template-args", '{"tools": []}'), "only enable_thinking and preserve_thinking"),
        (("--chat-template-args", '{"enable_thinking": 1}'), "to true or false"),
        (("--chat-template-args", '{"preserve_thinking": true}'), "knows no preserve_thinking"),
        (("--no-think", "--chat-template-args", '{"enable_thinking": true}'), "says otherwise"),
        (("--thinking-budget", -1), "thinking_budget must be an integer from 0"),
        (("--think", "--ignore-chat-template"), "think needs a chat"),
        (("--thinking-budget", 3, "--prompt-ids", "2,9"), "not both"),
    ],
)
def test_what_cannot_be_honoured_is_one_line(cli, flags, said):
    answer = cli("generate", SUM, *flags)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err and answer.err.startswith("mtp-mlx: ")
    assert "Traceback" not in answer.err and len(answer.err.splitlines()[-1]) < 300


def test_tools_of_the_wrong_form_are_named(cli, tmp_path):
    path = tmp_path / "tools.json"
    for content, said in (('{"name": "f"}', "tools must be a list"), ("[{}]", "tools[0]: name")):
        path.write_text(content)
        answer = cli("generate", SUM, "--tools", path)
        assert (answer.code, answer.out) == (2, "") and said in answer.err


def test_help_names_the_options_for_thinking(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    shown = capsys.readouterr().out
    for name in ("--think / --no-think", "--hide-thinking", "--thinking-budget", "--tools FILE"):
        assert name in shown
