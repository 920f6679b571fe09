"""A server under load: texts stay those of a request alone, all is answered, nothing is held."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.server.limits import MIB
from tests.load.asked import golden
from tests.load.client import Outcome, fill
from tests.load.ends import aborted, drained
from tests.load.forms import FULL, QUICK
from tests.load.runs import Target, burst, churn, steady
from tests.load.soak import soak
from tests.server.running import REAL, connect, serving

FORMS = [pytest.param(QUICK, id="quick"), pytest.param(FULL, id="full", marks=pytest.mark.slow)]
SOAK_S = 600.0
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("load"), "tiny", command=REAL) as running:
        running.ready()
        yield running


@pytest.fixture(scope="module")
def target(server):
    return Target.at(server.port)


@pytest.fixture(scope="module")
def texts():
    """Golden texts by form, each decoded once."""
    found = {}

    def of(form):
        requests = form.drawn(0)
        if form not in found:
            with mtp_mlx.load("tiny") as llm:
                found[form] = golden(llm, requests)
        return requests, found[form]

    return of


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.timeout(900)
def test_every_request_of_eight_streams_is_complete_and_equal_to_its_golden_text(
    target, texts, form
):
    requests, expected = texts(form)
    found = asyncio.run(steady(target, requests[: form.steady], expected, form.streams))
    assert found.counts == {"equal": form.steady}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.timeout(900)
def test_more_clients_than_there_is_room_for_are_answered_or_refused(target, texts, form):
    requests, expected = texts(form)
    found = asyncio.run(burst(target, requests[: form.burst], expected))
    assert found.counts.total() == form.burst
    assert found.counts["equal"] >= 40  # 8 rows and a queue of 32
    assert found.counts["refused"] == form.burst - found.counts["equal"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.timeout(900)
def test_clients_that_leave_send_rubbish_or_read_slowly_harm_nobody(target, texts, form):
    requests, expected = texts(form)
    work = churn(target, requests[: form.churn], expected, streams=form.streams)
    counts = asyncio.run(work).counts
    assert counts["left"] + counts["malformed"] + counts["equal"] == form.churn
    assert min(counts[kind] for kind in ("left", "malformed", "slow", "cancelled")) > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no peak to read here")
def test_headers_and_bodies_without_end_take_no_memory(server):
    """5 MiB at most, and for a body its limit besides."""
    post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    piece = b" " * (1 << 18)
    floods = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nx: ", b"a" * MIB, 1, 0),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"x-a: 1\r\n" * 10_000, 1, 0),
        (post + JSON + b"Content-Length: 8388609\r\n\r\n", piece, 64, 0),
        (post + JSON + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n", piece, 128, 8 * MIB),
    ]
    [child] = server.children()
    for head, each, count, body in floods * 2:
        before = restart_peak(child)
        with connect(server.port) as sock, suppress(ConnectionError):
            sock.sendall(head)
            for _ in range(count):
                sock.sendall(each)
            assert sock.recv(9) == b"HTTP/1.1 "
            assert sock.recv(3) in (b"431", b"413")
        grown = peak_bytes(child) - before
        assert grown < 5 * MIB + body * 9 // 8, f"{grown / MIB:.1f} MiB after {head[:60]}"


def restart_peak(pid: int) -> int:
    """The resident bytes of a process, from which its peak counts from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_bytes(pid)


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_minutes_of_load_leave_memory_files_and_threads_as_they_were(server, target):
    [child] = server.children()
    found = asyncio.run(soak(target, child, SOAK_S))
    assert found.growth <= 1.05, found
    assert found.end_files <= found.start_files + 2, found
    assert found.end_threads <= found.start_threads + 2, found


@pytest.mark.slow
def test_an_abort_and_a_sigterm_in_mid_stream_under_load(texts, tmp_path):
    requests, expected = texts(QUICK)
    with serving(tmp_path, "tiny", command=REAL) as own:
        own.ready()
        counts = asyncio.run(aborted(own, requests[:8], expected)).counts
        assert (counts["equal"], counts["cut"] > 0) == (8, True)
        assert counts["told to ask again"] > 0
        assert asyncio.run(drained(own, requests[:8], expected)).counts["equal"] == 8


def test_the_client_tells_a_stream_that_was_cut_from_one_that_ended():
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    frame = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\n\n'
    ended, cut = Outcome(), Outcome()
    fill(ended, head + frame + b"data: [DONE]\n\n")
    fill(cut, head + frame)
    assert (ended.text, ended.is_whole) == ("a", True)
    assert (cut.text, cut.is_whole) == ("a", False)
