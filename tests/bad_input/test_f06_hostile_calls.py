"""F6: 600 KB of broken calls take time in proportion to their length: the ratio of two sizes."""

import time
from collections.abc import Callable

import pytest

from mtp_mlx.text.calls import QUOTE, parse_call
from tests.text.replies import ids_of, replay, tokenizer

FULL = 600_000
PART = FULL // 24
LEAST_S = 0.001  # what takes less cannot be measured
# Linear is 4; the square of the length would be 16. Best of three, as the machine may be busy.
GROWTH, MOST, TRIES = 4, 8, 3
CALL = "<|tool_call>call:f{"
STREAMS = {
    "markers": CALL,
    "text": "call:f{" * 3,
    "drifted": "<|tool_call|>call:f({",
    "drifted_markers": "<|tool_call|>",
    "strings": '<|tool_call|>call:f({"\\',
    "quotes": CALL + '<|"|>',
    "thoughts": "<|channel>thought\n \n",
    "spaces": "    \n",
}
TEXTS = {
    "objects": "{",
    "named_objects": "{a:",
    "lists": "[[",
    "quotes": QUOTE,
    "words": "a,",
    "plain_quotes": '"\\',
    "open_strings": '"a\\",',
    "numbers": "9",
    "spaces": "  \n",
    "calls": "call:f{",
}


def seconds(work: Callable[[], object]) -> float:
    """The least processor time of a few tries."""
    best = float("inf")
    for _ in range(TRIES):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def check_linear(work: Callable[[int], Callable[[], object]], size: int) -> None:
    """work(n) makes a thunk on n characters."""
    small, large = work(size // GROWTH), work(size)
    for _ in range(TRIES):
        ratio = seconds(large) / max(seconds(small), LEAST_S)
        if ratio < MOST:
            return
    raise AssertionError(f"{GROWTH} times the text takes {ratio:.1f} times as long")


def stream_of(text: str, opening: str) -> Callable[[int], Callable[[], object]]:
    def sized(size: int) -> Callable[[], object]:
        ids = ids_of(opening) + ids_of(text) * (size // len(text))
        return lambda: replay(ids, range(1, len(ids), 8), reason="length", tools=["f"])

    return sized


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [PART, pytest.param(FULL, marks=pytest.mark.slow)])
def test_a_hostile_stream_is_read_in_linear_time(name, size):
    check_linear(stream_of(STREAMS[name], ""), size)


@pytest.mark.parametrize("opening", [CALL, "<|channel>thought\n"])
def test_a_part_that_never_ends_is_read_in_linear_time(opening):
    check_linear(stream_of("{a:[ \n", opening), PART)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("size", [4 * PART, pytest.param(FULL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("frame", ["call:f{%s", "call:f{a:[%s", 'call:f({"a": %s})', "%s"])
def test_a_hostile_call_is_refused_in_linear_time(name, frame, size):
    def sized(size: int) -> Callable[[], object]:
        text = frame % (TEXTS[name] * (size // len(TEXTS[name])))
        assert parse_call(text) is None
        return lambda: parse_call(text)

    check_linear(sized, size)


def test_six_hundred_kilobytes_make_no_call_and_lose_nothing():
    text = CALL * (FULL // len(CALL))
    found = replay(ids_of(text), reason="length", tools=["f"])
    assert (found.calls, found.reply.text, found.reply.tool_text) == ([], "", text)
    plain = text[:PART]
    found = replay(tokenizer().encode(plain), reason="length", tools=["f"])
    assert (found.calls, found.reply.text) == ([], plain)
