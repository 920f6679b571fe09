"""What bench/serve.py asks, and how its clients share the work."""

import threading
import time

import pytest

from bench.serve import chats, percentile
from mtp_mlx.measure.client import Messages, Served, at_once


def served(clients: int) -> tuple[int, int]:
    """How much more one client was given than another, and the longest chat."""
    asked = chats(4 * clients, 1)
    taken: dict[int, list[int]] = {}

    def answer(messages: Messages) -> Served:
        taken.setdefault(threading.get_ident(), []).append(len(messages))
        time.sleep(len(messages) / 200)
        return Served(messages[0]["content"], 1, 1, 0.1, 0.1)

    seconds, replies = at_once(answer, asked, clients)
    assert [reply.text for reply in replies] == [each[0]["content"] for each in asked]
    assert len(taken) == clients
    assert seconds < sum(map(len, asked)) / 200
    sums = [sum(each) for each in taken.values()]
    return max(sums) - min(sums), max(map(len, asked))


@pytest.mark.parametrize("clients", [2, 4, 8])
def test_clients_are_busy_until_nothing_is_left_to_ask(clients):
    """Chats of a length come every so many; a client that had all the long ones would end alone.
    A busy machine may keep a client waiting, so that it has three tries."""
    tries = (served(clients) for _ in range(3))
    assert any(more <= longest for more, longest in tries)


def test_percentiles_are_of_the_values():
    assert [percentile([3.0, 1.0, 2.0, 4.0], percent) for percent in (50, 95)] == [2.0, 4.0]
