"""Streams: chunks, origins, cancelling, and several at once; and what a failed step leaves."""

import asyncio
import gc
from itertools import zip_longest

import pytest

import mtp_mlx
from tests.api_pairs import loaded, prompt_ids, scripted
from tests.oracle import agreeing

SAMPLED = {"temperature": 1.0, "top_k": 8, "top_p": 0.95, "min_p": 0.02, "seed": 11}
PROMPTS = ([2, 9, 7], [2, *range(110, 140)], [2, 44])


def plain_reply(prompt=None, **options) -> mtp_mlx.Reply:
    options = {**SAMPLED, "num_draft_tokens": 0, "max_tokens": 16, **options}
    return loaded().generate(prompt or prompt_ids(), **options)


@pytest.mark.parametrize("drafts", [0, 3, 7])
def test_chunks_join_to_the_reply(drafts):
    full = plain_reply()
    llm = scripted([full.token_ids], agreeing(0.7, 2))
    stream = llm.stream(prompt_ids(), **SAMPLED, max_tokens=16, num_draft_tokens=drafts)
    chunks = list(stream)
    reply = stream.reply
    tokens = [token for chunk in chunks for token in chunk.tokens]
    assert "".join(chunk.text for chunk in chunks) == reply.text == full.text
    assert tuple(token.id for token in tokens) == reply.token_ids == full.token_ids
    assert "".join(token.text for token in tokens) == reply.text
    first = len(prompt_ids())
    assert [token.position for token in tokens] == list(range(first, first + len(tokens)))
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == reply.finish_reason == "length"
    origins = [token.origin for token in tokens]
    assert origins[0] == "prefill"
    # A last token that is left alone needs no drafts.
    assert set(origins[1:-1]) == ({"draft", "target"} if drafts else {"plain"})
    assert sum(token.from_draft for token in tokens) == reply.spec.accepted
    assert sum(len(chunk.drafts) for chunk in chunks) == reply.spec.drafted
    for chunk in chunks:
        accepted = tuple(token.id for token in chunk.tokens if token.from_draft)
        assert chunk.drafts[: chunk.accepted] == accepted
    assert llm.stats().is_idle


def test_both_backends_report_the_same_drafts():
    options = {"temperature": 0, "max_tokens": 8, "num_draft_tokens": 3}
    drafts = [
        [chunk.drafts for chunk in loaded(backend=backend).stream(prompt_ids(), **options)]
        for backend in ("mlx", "numpy")
    ]
    assert drafts[0] == drafts[1]
    assert drafts[0][1] and drafts[0][0] == drafts[0][-1] == ()  # prompt, rounds, end


@pytest.mark.parametrize("backend", ["mlx", "numpy"])
def test_a_stop_string_never_shows_in_a_stream(backend):
    text = plain_reply(max_tokens=12).text
    at = next(at for at in range(2, len(text)) if text[at : at + 2].isascii())
    stop = text[at : at + 2]
    stream = loaded(backend=backend).stream(prompt_ids(), **SAMPLED, max_tokens=12, stop=stop)
    joined = "".join(chunk.text for chunk in stream)
    assert joined == text[: text.index(stop)] == stream.reply.text
    assert stream.reply.finish_reason == "stop"


def test_held_back_text_comes_at_the_end():
    full = plain_reply(max_tokens=12)
    stop = full.text[-1] + "\x00 never"
    stream = loaded().stream(prompt_ids(), **SAMPLED, max_tokens=12, stop=[stop])
    chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == full.text
    assert chunks[-1].tokens == ()


def test_a_stream_counts_its_tokens_before_it_has_ended():
    stream = loaded().stream(prompt_ids(), **SAMPLED, max_tokens=12)
    seen = 0
    for chunk in stream:
        seen += len(chunk.tokens)
        assert stream.usage.prompt_tokens == len(prompt_ids())
        assert seen <= stream.usage.completion_tokens <= 12
    assert stream.usage == stream.reply.usage == mtp_mlx.Usage(len(prompt_ids()), 12)


def test_leaving_a_stream_cancels_its_request():
    llm = loaded()
    with llm.stream(prompt_ids(), max_tokens=200, seed=1) as stream:
        next(stream)
    assert llm.stats().is_idle
    assert stream.reply.finish_reason == "cancelled"
    rest = list(stream)
    assert rest[-1].finish_reason == "cancelled"
    tokens = [token.id for chunk in rest for token in chunk.tokens]
    assert stream.reply.token_ids[len(stream.reply.token_ids) - len(tokens) :] == tuple(tokens)
    stream.cancel()
    assert list(stream) == []


def test_cancelling_before_the_first_chunk_gives_an_empty_reply():
    llm = loaded()
    stream = llm.stream(prompt_ids(), max_tokens=5)
    with pytest.raises(mtp_mlx.RequestError, match="not complete"):
        _ = stream.reply
    stream.cancel()
    assert (stream.reply.text, stream.reply.token_ids) == ("", ())
    assert stream.reply.spec.rounds == 0
    assert llm.stats().is_idle


def test_a_dropped_stream_gives_its_slot_back():
    llm = loaded(max_num_seqs=3)
    for _ in range(5):
        for _ in llm.stream(prompt_ids(), max_tokens=2000, seed=1):
            break
    gc.collect()
    llm.generate([2, 9], max_tokens=2)
    assert llm.stats().is_idle


def test_cancelling_one_stream_leaves_the_others_alone():
    llm = loaded()
    expected = [plain_reply(prompt) for prompt in PROMPTS]
    streams = [llm.stream(prompt, **SAMPLED, max_tokens=16) for prompt in PROMPTS]
    for stream in streams:
        next(stream)
    streams[1].cancel()
    for stream, full in ((streams[0], expected[0]), (streams[2], expected[2])):
        list(stream)
        assert stream.reply.token_ids == full.token_ids
    part = streams[1].reply.token_ids
    assert part == expected[1].token_ids[: len(part)]
    assert llm.stats().is_idle


@pytest.mark.parametrize("backend", ["mlx", "numpy"])
def test_interleaved_streams_each_equal_their_own_run(backend):
    llm = loaded(backend=backend)
    size = 12
    expected = [plain_reply(prompt, max_tokens=size) for prompt in PROMPTS]
    drafts = (0, 3, 5)
    streams = [
        llm.stream(prompt, **SAMPLED, max_tokens=size, num_draft_tokens=count)
        for prompt, count in zip(PROMPTS, drafts, strict=True)
    ]
    between = plain_reply(max_tokens=4)
    texts = ["", "", ""]
    for chunks in zip_longest(*streams):
        for index, chunk in enumerate(chunks):
            texts[index] += chunk.text if chunk else ""
    for stream, text, full in zip(streams, texts, expected, strict=True):
        assert (stream.reply.token_ids, text) == (full.token_ids, full.text)
    assert between.token_ids == plain_reply(max_tokens=4).token_ids


def test_a_call_waits_for_a_slot_that_a_stream_holds():
    llm = loaded(max_num_seqs=1)
    expected = [plain_reply(prompt) for prompt in PROMPTS[:2]]
    stream = llm.stream(PROMPTS[0], **SAMPLED, max_tokens=16)
    next(stream)
    reply = llm.generate(PROMPTS[1], **SAMPLED, max_tokens=16)
    assert reply.token_ids == expected[1].token_ids
    list(stream)
    assert stream.reply.token_ids == expected[0].token_ids


def test_an_abandoned_stream_ends_without_being_waited_for():
    llm = loaded()
    stream = llm.stream(prompt_ids(), **SAMPLED, max_tokens=400, stop="never said")
    first = next(stream)
    stream.abandon()
    stream.abandon()
    chunks = [first, *stream]
    assert chunks[-1].finish_reason == stream.reply.finish_reason == "cancelled"
    assert "".join(chunk.text for chunk in chunks) == stream.reply.text
    assert llm.stats().is_idle


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1}, "temperature"),
        ({"stop": 3}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_options_are_checked_without_a_reply(options, words):
    rounds = loaded().stats().rounds
    loaded().check_options(**SAMPLED)
    with pytest.raises(mtp_mlx.RequestError, match=words):
        loaded().check_options(**options)
    assert loaded().stats().rounds == rounds


def test_prepared_requests_start_together_and_equal_their_own_runs():
    llm = loaded()
    jobs = [llm.prepare(prompt, **SAMPLED, max_tokens=8) for prompt in PROMPTS]
    assert llm.stats().is_idle

    async def read() -> list[mtp_mlx.Reply]:
        streams = llm.follow(*jobs)
        for stream in streams:
            async for _ in stream:
                pass
        return [stream.reply for stream in streams]

    replies = asyncio.run(read())
    alone = [llm.generate(prompt, **SAMPLED, max_tokens=8) for prompt in PROMPTS]
    assert [reply.token_ids for reply in replies] == [reply.token_ids for reply in alone]


def test_a_followed_request_can_be_abandoned_without_waiting():
    llm = loaded()

    async def leave() -> mtp_mlx.Reply:
        (stream,) = llm.follow(llm.prepare(prompt_ids(), **SAMPLED, max_tokens=500))
        await anext(stream)
        stream.abandon()
        await stream.aclose()
        return stream.reply

    assert asyncio.run(leave()).finish_reason == "cancelled"
    assert llm.stats().is_idle
