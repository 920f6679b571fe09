"""What bench/serve.py measures, on servers that are not there."""

import io
import threading
import time

import pytest

from bench import serve
from bench.serve import OURS, Served, Server, chats, crowd, percentile, read

HERE = Server(OURS, 0, {}, {})


@pytest.mark.parametrize("clients", [2, 4, 8])
def test_clients_are_busy_until_nothing_is_left_to_ask(monkeypatch, clients):
    """Chats of a length come every so many; a client that had all the long ones would end alone."""
    asked = chats(4 * clients, 1)
    taken: dict[int, list[int]] = {}

    def answer(server: Server, messages: serve.Messages, extra: dict) -> Served:
        taken.setdefault(threading.get_ident(), []).append(len(messages))
        time.sleep(len(messages) / 200)
        return Served(messages[0]["content"], 1, 0.1)

    monkeypatch.setattr(serve, "ask", answer)
    seconds, replies = crowd(HERE, asked, clients)
    assert [reply.text for reply in replies] == [each[0]["content"] for each in asked]
    assert len(taken) == clients
    longest = max(len(each) for each in asked)
    assert max(map(sum, taken.values())) - min(map(sum, taken.values())) <= longest
    assert seconds < sum(map(len, asked)) / 200


def test_a_client_that_fails_is_heard(monkeypatch):
    def answer(*_: object) -> Served:
        raise ConnectionError("gone")

    monkeypatch.setattr(serve, "ask", answer)
    with pytest.raises(ConnectionError, match="gone"):
        crowd(HERE, chats(3, 1), 2)


def events(*lines: str) -> io.BytesIO:
    return io.BytesIO("".join(f"data: {line}\n\n" for line in lines).encode())


def test_a_stream_is_read():
    usage = '{"choices": [], "usage": {"completion_tokens": 7}}'
    said = [f'{{"choices": [{{"delta": {{"content": "{word}"}}}}]}}' for word in ("", "a", "b")]
    began = time.perf_counter() - 5
    reply = read(events(*said, usage, "[DONE]"), began)
    assert (reply.text, reply.tokens) == ("ab", 7) and 5 <= reply.first_s < 6
    with pytest.raises(RuntimeError, match="broken"):
        read(events('{"error": {"message": "broken"}}'), began)


def test_a_reply_without_text_was_not_there_at_once():
    began = time.perf_counter() - 5
    empty = read(events('{"choices": [{"delta": {}}]}', "[DONE]"), began)
    assert empty.text == "" and empty.first_s >= 5


def test_a_stream_that_is_cut_is_no_reply():
    with pytest.raises(RuntimeError, match="ended early"):
        read(events('{"choices": [{"delta": {"content": "a"}}]}'), time.perf_counter())


def test_percentiles_are_of_the_values():
    assert [percentile([3.0, 1.0, 2.0, 4.0], percent) for percent in (50, 95)] == [2.0, 4.0]
