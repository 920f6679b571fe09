"""Streams, read to their end, left, and cancelled."""

import time
from typing import Any

from openai import OpenAI

from tests.openai_client.case import MODEL, STORY, SUM, case, say, streamed, text


@case
def a_stream_says_the_same(client: OpenAI) -> None:
    assert streamed(say(client, STORY, stream=True)) == text(say(client, STORY))


@case
def every_chunk_has_all_its_fields(client: OpenAI) -> None:
    chunks = list(say(client, STORY, stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert all(chunk.model == MODEL and chunk.created for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert ends[-1] == "length" and set(ends[:-1]) == {None}


@case
def a_round_is_a_chunk(client: OpenAI) -> None:
    reply = say(client, STORY, stream=True, extra_body={"num_draft_tokens": 4})
    pieces = [chunk for chunk in reply if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) < 45  # of 60 tokens


@case
def usage_comes_last_where_it_is_asked_for(client: OpenAI) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *before, last = list(say(client, STORY, **options))
    assert all(chunk.usage is None for chunk in before)
    assert last.choices == [] and last.usage.completion_tokens == 60
    assert last.usage.completion_tokens_details.accepted_prediction_tokens > 0


@case
def no_usage_where_it_is_not(client: OpenAI) -> None:
    assert all(chunk.usage is None for chunk in say(client, SUM, stream=True))


@case
def n_choices_stream_by_turns(client: OpenAI) -> None:
    whole = say(client, STORY, n=2, seed=4, temperature=0.9)
    texts = ["", ""]
    for chunk in say(client, STORY, n=2, seed=4, temperature=0.9, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


@case
def logprobs_stream(client: OpenAI) -> None:
    whole = say(client, STORY, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    found = []
    for chunk in say(client, STORY, logprobs=True, top_logprobs=2, stream=True):
        for choice in chunk.choices:
            found += choice.logprobs.content if choice.logprobs else []
    assert [item.logprob for item in found] == [item.logprob for item in whole]


@case
def a_trace_accounts_for_every_byte(client: OpenAI) -> None:
    extra = {"spec_trace": True, "num_draft_tokens": 3}
    drafted = accepted = 0
    chunks = list(say(client, STORY, stream=True, extra_body=extra))
    for chunk in chunks:
        for choice in chunk.choices:
            content = (choice.delta.content or "").encode()
            spec: Any = getattr(choice, "spec", None)
            if spec is None:
                assert not content
                continue
            drafted, accepted = drafted + spec["drafted"], accepted + spec["accepted"]
            assert len(spec["rejected"]) == spec["drafted"] - spec["accepted"]
            if not spec["spans"]:
                assert not content
                continue
            ends = [(start, end) for start, end, _ in spec["spans"]]
            assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
            assert ends[-1][1] == len(content)
            assert {origin for *_, origin in spec["spans"]} <= {"d", "t", "p"}
    timings = chunks[-1].timings
    assert (drafted, accepted) == (timings["draft_n"], timings["draft_n_accepted"])


@case
def a_thought_streams_apart(client: OpenAI) -> None:
    question: Any = [{"role": "user", "content": "Tell me which is bigger, a cat or a pig."}]
    extra = {"enable_thinking": True}
    thought = said = ""
    for chunk in say(client, question, stream=True, max_tokens=200, extra_body=extra):
        for choice in chunk.choices:
            thought += getattr(choice.delta, "reasoning_content", None) or ""
            said += choice.delta.content or ""
    whole = say(client, question, max_tokens=200, extra_body=extra).choices[0].message
    assert (thought, said) == (whole.reasoning_content, whole.content)


@case
def a_stop_string_never_shows(client: OpenAI) -> None:
    reply = streamed(say(client, STORY, stream=True, stop=["sunny day"]))
    assert reply == text(say(client, STORY, stop=["sunny day"]))
    assert "sunny" not in reply


@case
def a_stream_that_is_left_frees_its_row(client: OpenAI) -> None:
    with say(client, STORY, stream=True, max_tokens=2000, logit_bias={"106": -100}) as stream:
        for _ in zip(range(3), stream, strict=False):
            pass
        own = stream.response.headers["x-request-id"]
    deadline = time.monotonic() + 5
    while own in [row["id"] for row in status(client)["rows"]]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def status(client: OpenAI) -> Any:
    """What /v1/status says."""
    return client.get("/status", cast_to=object)


@case
def the_streaming_helper_works(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=SUM, temperature=0) as stream:
        kinds = {event.type for event in stream}
        reply = stream.get_final_completion()
    assert "content.delta" in kinds and reply.choices[0].message.content == "3 + 4 = 7."
