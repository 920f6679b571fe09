"""Rows C1, C2, C3, C8 counted in the engine's steps, of which each does a round of all rows: how
soon who leaves is gone, and what a reader that stops costs the others. No clock decides."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.request import Tokens
from mtp_mlx.server.http.exchange import Exchange
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.settings import ServerSettings
from tests.server.served import (
    PATIENCE_S,
    Here,
    chat,
    endless,
    read,
    reset,
    send,
    serving,
    until,
)

LONG = [{"role": "user", "content": "a fox and an owl " * 8}]
NEW = 40
# A row that has just begun may miss a round that was launched before it had.
EXTRA_STEPS = 2


@pytest.fixture(scope="module")
def here():
    # Nobody is cut off for reading slowly: what is tested holds while he does not.
    limits = Limits(write_s=600.0, stream_bytes=4096, queue=2)
    with serving(ServerSettings(limits=limits), endless()) as here:
        yield here


class Gate:
    """Steps of the engine wait here until they are let through."""

    def __init__(self, monkeypatch) -> None:
        self.begun = 0
        self.engine: Engine | None = None
        self.is_open = False
        self._let = threading.Semaphore(0)
        step = Engine.step

        def gated(engine):
            self.begun, self.engine = self.begun + 1, engine
            assert self.is_open or self._let.acquire(timeout=PATIENCE_S)
            return step(engine)

        monkeypatch.setattr(Engine, "step", gated)

    def let(self, count: int = 1) -> None:
        self._let.release(count)

    def let_until(self, condition) -> None:
        """Step by step."""
        while not condition():
            begun = self.begun
            self.let()
            until(lambda: self.begun > begun)  # noqa: B023 - asked at once


@pytest.fixture
def gate(monkeypatch, here) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.is_open = True
    gate.let()
    until(here.is_idle)


def begin(here: Here, stream: bool = True):
    """A client that asks for a long reply, and its request as the server has it."""
    before = set(exchanges(here))
    sock = here.connect()
    send(sock, chat(stream=stream, messages=LONG, max_tokens=3000, cache=False))
    until(lambda: set(exchanges(here)) - before)
    [own] = set(exchanges(here)) - before
    return sock, own


def exchanges(here: Here) -> list[Exchange]:
    tickets = list(here.desk._open)
    return [ticket.exchange for ticket in tickets if ticket.exchange is not None]


def hang_up(sock, how: str) -> None:
    if how == "reset":
        reset(sock)
    else:
        sock.close()


def seen_leaving(here: Here, left: Exchange) -> None:
    """Until the server has told the engine that the client has gone."""
    until(lambda: left.why == "client")
    here.ask("GET", "/health")  # of the same event loop: it is past that


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("phase", ["queue", "prefill", "decode"])
def test_who_leaves_is_gone_after_the_step_under_way(here, gate, phase, how, stream):
    others = [begin(here) for _ in range(2 if phase == "queue" else 0)]
    if others:
        gate.let_until(lambda: all(own.has_started for _, own in others))
    sock, own = begin(here, stream)
    [job] = own.jobs
    gate.let_until(
        {
            "queue": lambda: job.request_id > 0,
            "prefill": lambda: job.progress is not None and job.progress.done > 0,
            "decode": lambda: job.usage.completion_tokens > 0,
        }[phase]
    )
    assert own.has_started == (phase != "queue")
    assert bool(job.usage.completion_tokens) == (phase == "decode")
    under_way = gate.begun
    hang_up(sock, how)
    seen_leaving(here, own)
    assert not job.is_done and gate.begun == under_way
    gate.let()
    until(lambda: job.is_done)
    until(lambda: len(exchanges(here)) == len(others))
    # Nothing was done for it since; the step after it, if there is one, is the others'.
    assert gate.begun <= under_way + bool(others)
    engine = gate.engine
    assert engine is not None and not engine.waiting
    assert [sequence.id for sequence in engine.sequences] == [
        each.jobs[0].request_id for _, each in others
    ]
    if not others:
        assert engine.memory.reserved == here.idle_kv
    for other, _ in others:
        reset(other)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["fin", "reset"])
def test_who_leaves_after_the_last_token_has_cancelled_nothing(here, monkeypatch, how, stream):
    """He has read his reply to its end; its place is not free yet."""
    go_on, settle = asyncio.Event(), Exchange.settle

    async def settle_later(exchange):
        async with asyncio.timeout(PATIENCE_S):
            await go_on.wait()
        await settle(exchange)

    monkeypatch.setattr(Exchange, "settle", settle_later)
    before = here.desk.metrics.ended, here.desk.metrics.cancelled
    sock = here.connect()
    send(sock, chat(stream=stream, max_tokens=3))
    assert read(sock).status == 200
    [left] = exchanges(here)
    hang_up(sock, how)
    until(lambda: here.connections == 0)
    here.ask("GET", "/health")  # of the same event loop: whoever heard it has acted
    assert here.desk.in_flight == 1
    left._pumps[0].get_loop().call_soon_threadsafe(go_on.set)
    until(here.is_idle)
    assert here.desk.metrics.ended == before[0] + 1
    assert here.desk.metrics.cancelled == before[1]


def test_who_asks_again_after_each_timeout_has_one_copy_at_work(here, monkeypatch):
    most, step = [0], Engine.step

    def watched(engine):
        most[0] = max(most[0], len(engine.sequences) + len(engine.waiting))
        return step(engine)

    monkeypatch.setattr(Engine, "step", watched)
    cancelled = here.desk.metrics.cancelled
    golden = here.raw(chat(max_tokens=NEW)).json()["choices"][0]["message"]
    for _ in range(5):
        sock, own = begin(here, stream=False)
        until(lambda own=own: own.has_started)
        hang_up(sock, "fin")
    answer = here.raw(chat(max_tokens=NEW))
    assert answer.json()["choices"][0]["message"] == golden
    until(here.is_idle)
    assert here.desk.metrics.cancelled == cancelled + 5
    assert most[0] <= 2  # the one that leaves and the one that comes


# --- readers that stop ---------------------------------------------------------------------------


class Steps:
    """Which requests got tokens in each step."""

    def __init__(self, monkeypatch) -> None:
        self.told: list[set[int]] = []
        step = Engine.step

        def watched(engine):
            events = step(engine)
            self.told.append({e.request_id for e in events if isinstance(e, Tokens)})
            return events

        monkeypatch.setattr(Engine, "step", watched)

    def span(self, request_id: int) -> list[set[int]]:
        """From its first step to its last."""
        own = [index for index, told in enumerate(self.told) if request_id in told]
        return self.told[own[0] : own[-1] + 1]


def paused(here: Here) -> list:
    """Connections that wait for their reader."""
    found = list(here.server._uvicorn.server_state.connections)
    return [each for each in found if each.flow.write_paused]


@contextmanager
def beside(here: Here, reads: bool) -> Iterator[Exchange]:
    """A long stream whose client reads all, or nothing; its reader stands still from here on."""
    sock = here.connect(receive_bytes=2048)
    body = chat(stream=True, max_tokens=4000, num_draft_tokens=0, spec_trace=True, cache=False)
    send(sock, body)
    until(lambda: bool(exchanges(here)))
    [own] = exchanges(here)
    reader = threading.Thread(target=read_all, args=(sock,))
    if reads:
        reader.start()
    until(lambda: own.jobs[0].usage.completion_tokens > 5 and (reads or bool(paused(here))))
    try:
        yield own
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        if reads:
            reader.join(PATIENCE_S)
        sock.close()
        until(here.is_idle)


def read_all(sock) -> None:
    with suppress(OSError):
        while sock.recv(1 << 16):
            pass


def test_who_sends_no_more_and_reads_nothing_has_gone(here):
    """What he has not read would keep his connection, and with it his row, for long."""
    sock = here.connect(receive_bytes=2048)
    send(sock, chat(stream=True, max_tokens=4000, spec_trace=True))
    until(lambda: bool(paused(here)))
    sock.shutdown(socket.SHUT_WR)
    until(here.is_idle)
    until(lambda: here.connections == 0)
    sock.close()


def test_a_reader_that_stops_costs_the_others_no_round(here, monkeypatch):
    """The others' tokens come in as many steps as beside a reader who reads, each of which does a
    round of both rows, and they come while he has not read a byte more."""
    steps = Steps(monkeypatch)
    texts, spans = [], []
    for reads in (True, False):
        with beside(here, reads) as long:
            other = here.raw(chat(max_tokens=NEW, num_draft_tokens=0, cache=False))
            assert not long.jobs[0].is_done, "the streams did not overlap"
            if not reads:
                [waiting] = paused(here)
                # One frame waits here; the others are not made before their reader takes them.
                until(lambda own=long: own._mailbox.qsize() >= NEW)
                assert (
                    waiting.transport.get_write_buffer_size()
                    < here.app.settings.limits.stream_bytes
                )
                assert waiting._write_timer is not None, "he was not waited for"
            texts.append(other.json()["choices"][0]["message"]["content"])
            beginner = max(number for told in steps.told for number in told)
            spans.append(steps.span(beginner))
            assert long.jobs[0].request_id < beginner
            both = {long.jobs[0].request_id, beginner}
            assert sum(told != both for told in spans[-1]) <= EXTRA_STEPS
    assert texts[0] == texts[1]
    assert all(NEW <= len(span) <= NEW + EXTRA_STEPS for span in spans), spans
    assert abs(len(spans[0]) - len(spans[1])) <= 1
