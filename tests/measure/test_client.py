"""The client of other servers: what it asks, what it reads, and how their faults are told."""

import socket

import pytest

from mtp_mlx.errors import RequestError
from mtp_mlx.measure.client import Server, at_once, find_server
from tests.measure.standin import running

CHATS = [[{"role": "user", "content": f"question {index}"}] for index in range(3)]


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_a_server_is_found_with_and_without_v1(ending):
    with running() as standin:
        server = find_server(standin.url + ending, None)
        reply = server.ask(CHATS[0], 9)
    assert (reply.text, reply.prompt_tokens, reply.tokens) == ("a stand-in speaks", 7, 3)
    [asked] = standin.asked
    assert asked["path"] == "/v1/chat/completions"
    assert (asked["model"], asked["messages"], asked["max_tokens"]) == ("stand-in", CHATS[0], 9)
    assert (asked["temperature"], asked["stream"]) == (0.0, True)
    assert asked["stream_options"] == {"include_usage": True}


def test_chats_are_asked_at_once_and_counted():
    with running(pause_s=0.02) as standin:
        sample = Server(standin.url, "any").write(CHATS, 9)
    assert (sample.prompt_tokens, sample.tokens) == (21, 9)
    assert sample.texts == ("a stand-in speaks",) * 3
    assert (sample.rounds, sample.peak_bytes) == (None, None)
    assert all(0.02 <= first < sample.seconds for first in sample.first_s)
    assert len(sample.row_tokens_per_s) == 3
    assert sample.seconds < 3 * 3 * 0.02  # not one after the other


def test_a_reply_that_comes_all_at_once_has_no_speed_of_its_own():
    with running(words=("all",)) as standin:
        sample = Server(standin.url).write(CHATS[:1], 9)
    assert (sample.tokens, sample.row_tokens_per_s) == (1, ())
    assert "model" not in standin.asked[0]


def test_a_reply_without_text_was_not_there_at_once():
    with running(words=("",), pause_s=0.05) as standin:
        reply = Server(standin.url).ask(CHATS[0], 9)
    assert reply.text == "" and reply.first_s == reply.seconds >= 0.05


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "well"},
        {"reasoning": "well", "content": None},
        {"tool_calls": [{"index": 0, "function": {"name": "look"}}]},
    ],
)
def test_what_counts_as_tokens_begins_a_reply_and_is_no_text(delta):
    role = {"role": "assistant", "content": "", "tool_calls": []}  # says nothing yet
    with running(before=(role, delta), words=("a",), pause_s=0.05) as standin:
        reply = Server(standin.url).ask(CHATS[0], 9)
    assert reply.text == "a"
    assert 0.1 <= reply.first_s < reply.seconds - 0.04


def test_clients_ask_one_chat_after_another_and_replies_keep_their_order():
    with running() as standin:
        server = Server(standin.url, extra={"top_k": 1})
        seconds, replies = at_once(lambda chat: server.ask(chat, 5, cache=False), CHATS, 2)
    assert (len(replies), seconds > 0) == (3, True)
    assert all(body["top_k"] == 1 and body["cache"] is False for body in standin.asked)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({"data": [{"id": "one"}, {"id": "two"}]}, "lists 2 models (one, two); name one"),
        ({"data": []}, "lists 0 models (none)"),
        ({"data": [{}]}, "cannot be read"),
        ([], "cannot be read"),
    ],
)
def test_a_model_that_cannot_be_chosen_is_asked_for(models, words):
    with running(models=models) as standin, pytest.raises(RequestError) as told:
        find_server(standin.url, None)
    assert words in str(told.value) and standin.url in str(told.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"status": 503}, "503 "),
        ({"has_usage": False}, "no usage"),
        ({"words": ()}, "reports no tokens"),
        ({"usage": {"prompt_tokens": None, "completion_tokens": 3}}, "reports no tokens"),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": None}}, "reports no tokens"),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": "3"}}, "reports no tokens"),
        ({"usage": {"completion_tokens": 3}}, "reports no tokens"),
        ({"raw": b"data: {]\n\n"}, "cannot be read"),
        ({"raw": b'data: {"choices": [{}]}\n\n'}, "cannot be read"),
        ({"raw": b'data: {"choices": {"a": 1}}\n\n'}, "cannot be read"),
        ({"raw": b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'}, "without [DONE]"),
        ({"raw": b'data: {"error": {"message": "out of memory"}}\n\n'}, "out of memory"),
    ],
)
def test_a_servers_faults_are_its_own(options, words):
    with running(**options) as standin, pytest.raises(RequestError) as told:
        Server(standin.url).write(CHATS, 9)
    assert words in str(told.value) and standin.url in str(told.value)
    assert told.value.param == "against"


def test_nobody_there_is_said_in_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(RequestError, match="cannot be measured") as told:
            find_server(url, None)
    assert url in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8080", "ftp://a/", "http://", "http://a:b/", "http://[a/", "http://a/?b=c"],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(RequestError, match="no URL of a server"):
        Server(url)
