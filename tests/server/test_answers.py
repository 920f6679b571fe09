"""Replies and streams are OpenAI's objects with every field, and their figures agree."""

from dataclasses import replace

import pytest
from openai.types import Completion as OpenAICompletion
from openai.types.chat import ChatCompletion as OpenAIChat
from openai.types.chat import ChatCompletionChunk as OpenAIChunk
from pydantic import BaseModel

from mtp_mlx.reply import Chunk, Logprob, Reply, SpecStats, Timings, Token, Usage
from mtp_mlx.request import CacheUse
from mtp_mlx.server.wire import objects
from mtp_mlx.server.wire.answers import make_answer
from mtp_mlx.text.calls import ToolCall
from tests.server.wire import WEATHER, chat, completion, served, streamed, streams, whole

# Of the client's types: what only OpenAI's own service has.
NOT_OURS = {
    "metadata", "moderation", "cache_write_tokens", "image_tokens", "text_tokens",
}  # fmt: skip
GREEDY = {"temperature": 0, "seed": 3}
PARIS = [{"role": "user", "content": "What is the weather in Paris?"}]


def unfilled(found: BaseModel, where: str = "") -> list[str]:
    """The fields of the client's types that a reply leaves out."""
    missing = [
        f"{where}{name}" for name in type(found).model_fields if name not in found.model_fields_set
    ]
    for name in found.model_fields_set:
        value = getattr(found, name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, BaseModel):
                missing += unfilled(each, f"{where}{name}.")
    return [name for name in missing if name.rpartition(".")[2] not in NOT_OURS]


def content_of(frames, index=0, field="content"):
    """The text of choice `index` in a stream."""
    choices = [choice for frame in frames for choice in frame["choices"]]
    return "".join(c["delta"].get(field) or "" for c in choices if c["index"] == index)


def test_a_whole_chat_fills_every_field_of_the_client():
    found, replies = whole(chat(n=2, max_tokens=20, **GREEDY))
    objects.ChatCompletion.model_validate(found)
    parsed = OpenAIChat.model_validate(found)
    assert unfilled(parsed) == []
    assert parsed.id == "chatcmpl-1" and parsed.created == 7 and parsed.model == "tiny"
    assert [choice.message.content for choice in parsed.choices] == [r.text for r in replies]
    assert parsed.choices[0].finish_reason == "stop"
    assert parsed.usage.prompt_tokens == replies[0].usage.prompt_tokens, "a prompt counts once"
    assert parsed.usage.completion_tokens == sum(len(reply.token_ids) for reply in replies)
    assert parsed.usage.total_tokens == parsed.usage.prompt_tokens + parsed.usage.completion_tokens
    assert found["mtp"]["seed"] == 3 and found["mtp"]["exactness"] == "A"


def test_the_figures_agree_with_one_another():
    found, _ = whole(chat(n=2, max_tokens=20, stop="help", **GREEDY))
    details, timings = found["usage"]["completion_tokens_details"], found["timings"]
    metrics = found["metrics"]["speculative_decoding"]
    accepted, rejected = (
        details["accepted_prediction_tokens"], details["rejected_prediction_tokens"],
    )  # fmt: skip
    assert rejected > 0, "the stop string cut off no draft, so this shows nothing"
    assert accepted + rejected == timings["draft_n"] == metrics["num_draft_tokens"]
    assert accepted == timings["draft_n_accepted"] == metrics["num_accepted_draft_tokens"]
    histogram = {int(count): times for count, times in metrics["acceptance_histogram"].items()}
    assert sum(histogram.values()) == timings["draft_rounds"] == metrics["num_spec_steps"]
    assert sum(count * times for count, times in histogram.items()) == accepted
    assert metrics["mean_acceptance_length"] == pytest.approx(
        1 + accepted / sum(histogram.values()), abs=1e-3
    )
    assert found["choices"][0]["finish_reason"] == "stop"


def test_a_stream_says_what_the_whole_reply_says():
    fields = {"n": 2, "max_tokens": 20, **GREEDY}
    expected, _ = whole(chat(**fields))
    frames, _ = streamed(chat(**fields, stream=True, stream_options={"include_usage": True}))
    for frame in frames:
        objects.ChatChunk.model_validate(frame)
        OpenAIChunk.model_validate(frame)
        assert frame["id"] == "chatcmpl-1" and frame["model"] == "tiny"
    for index, choice in enumerate(expected["choices"]):
        own = [c for frame in frames for c in frame["choices"] if c["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert all("role" not in c["delta"] for c in own[1:])
        assert content_of(frames, index) == choice["message"]["content"]
        assert [c["finish_reason"] for c in own if c["finish_reason"]] == ["stop"]
        assert own[-1]["finish_reason"] == "stop" and own[-1]["delta"] == {}
    last = frames[-1]
    assert last["choices"] == [] and last["usage"] == expected["usage"]
    assert all(frame["usage"] is None for frame in frames[:-1])
    assert last["metrics"] == expected["metrics"]


def test_without_a_chunk_of_its_own_the_figures_come_with_the_end():
    frames, _ = streamed(chat(n=2, max_tokens=5, stream=True, **GREEDY))
    assert [("mtp" in frame) for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert not any(frame.get("usage") for frame in frames)
    assert frames[-1]["timings"]["predicted_n"] == 10


@pytest.mark.parametrize(
    "fields", [{}, {"stop": "help"}, {"max_tokens": 3}, {"temperature": 2.0, "max_tokens": 60}]
)
def test_a_trace_tells_of_every_byte_and_every_draft(fields):
    asked = {"max_tokens": 20, **GREEDY, **fields, "stream": True, "spec_trace": True}
    frames, (reply,) = streamed(chat(**asked))
    specs = [
        (choice["delta"].get("content") or "", choice["spec"])
        for frame in frames
        for choice in frame["choices"]
        if "spec" in choice
    ]
    for text, spec in specs:
        objects.Spec.model_validate(spec)
        borders = [0, *(end for _, end, _ in spec["spans"])]
        assert [start for start, _, _ in spec["spans"]] == borders[:-1]
        assert borders[-1] <= len(text.encode())
        assert sum(origin == "d" for _, _, origin in spec["spans"]) <= spec["accepted"]
    assert sum(spec["drafted"] for _, spec in specs) == reply.spec.drafted
    assert sum(spec["accepted"] for _, spec in specs) == reply.spec.accepted
    rejected = [each for _, spec in specs for each in spec["rejected"]]
    assert len(rejected) == reply.spec.drafted - reply.spec.accepted


def test_a_trace_shows_rejected_drafts_where_their_round_ends():
    """A round that is two chunks: only the second knows what was rejected."""
    ask = chat(stream=True, spec_trace=True)
    answer = make_answer(ask, "1", 7, served())
    ids = served().llm.tokenizer.encode("one two three four")
    first = Chunk("a", (Token(ids[0], "a", "draft", 5),), None, tuple(ids[:3]), "reasoning", 4)
    second = Chunk("é", (Token(9, "é", "target", 6),), round=4)
    frames = answer.chunk(0, first) + answer.chunk(0, second)
    thought, said = (frame["choices"][0] for frame in frames)
    assert thought["delta"] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "a",
        "reasoning": "a",
    }
    assert thought["spec"] == {
        "round": 4,
        "drafted": 3,
        "accepted": 1,
        "spans": [[0, 1, "d"]],
        "rejected": [],
    }
    assert said["spec"]["spans"] == [[0, 2, "t"]]
    assert [each["id"] for each in said["spec"]["rejected"]] == ids[1:3]


def test_a_round_that_was_dropped_rejects_all_its_drafts():
    answer = make_answer(chat(stream=True, spec_trace=True), "1", 7, served())
    (frame,) = answer.chunk(0, Chunk("", (), drafts=(5, 6), round=2))
    assert [each["id"] for each in frame["choices"][0]["spec"]["rejected"]] == [5, 6]
    assert answer._choices[0].trace.rest() is None


def test_a_tool_call_is_one_delta_as_soon_as_it_is_complete():
    fields = {"messages": PARIS, "tools": [WEATHER], "max_tokens": 60, **GREEDY}
    found, (reply,) = whole(chat(**fields))
    (call,) = reply.tool_calls
    message = OpenAIChat.model_validate(found).choices[0].message
    assert message.content is None and unfilled(OpenAIChat.model_validate(found)) == []
    assert message.tool_calls[0].function.name == "get_weather"
    assert message.tool_calls[0].function.arguments == call.arguments
    assert found["choices"][0]["finish_reason"] == "tool_calls"
    ask = chat(**fields, stream=True)
    frames, (reply,) = streamed(ask)
    chunks = list(streams(ask)[0])
    deltas = [frame["choices"][0]["delta"] for frame in frames]
    calls = [each for delta in deltas for each in delta.get("tool_calls", [])]
    assert [(each["index"], each["id"]) for each in calls] == [(0, reply.tool_calls[0].id)]
    assert calls[0]["function"] == {"name": "get_weather", "arguments": call.arguments}
    (chunk,) = [chunk for chunk in chunks if chunk.calls]
    assert chunk.text.endswith("<tool_call|>") and chunk.finish_reason is None
    assert content_of(frames) == "", "a marker leaked into the text"
    assert frames[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_call_that_is_cut_off_is_no_call_in_a_stream_either():
    frames, (reply,) = streamed(
        chat(messages=PARIS, tools=[WEATHER], max_tokens=6, stream=True, **GREEDY)
    )
    assert reply.tool_text and not reply.tool_calls, "the call was not cut off"
    assert not any(frame["choices"][0]["delta"].get("tool_calls") for frame in frames)
    last = frames[-1]
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["tool_text"] == reply.tool_text
    assert last["mtp"]["warning"] == reply.warning is not None


def test_several_calls_are_counted():
    answer = make_answer(chat(stream=True), "1", 7, served())
    calls = [ToolCall(f"call_{at}", "f", "{}") for at in range(3)]
    frames = answer.chunk(0, Chunk("x", (), kind="tool", calls=tuple(calls[:2])))
    frames += answer.chunk(0, Chunk("x", (), kind="tool", calls=tuple(calls[2:])))
    found = [each for frame in frames for each in frame["choices"][0]["delta"]["tool_calls"]]
    assert [(each["index"], each["id"]) for each in found] == [
        (at, f"call_{at}") for at in range(3)
    ]


def test_a_thought_is_told_under_both_names():
    fields = {"enable_thinking": True, "max_tokens": 200, **GREEDY}
    found, (reply,) = whole(chat(**fields))
    message = found["choices"][0]["message"]
    assert (
        reply.reasoning and message["reasoning_content"] == message["reasoning"] == reply.reasoning
    )
    assert found["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    frames, _ = streamed(chat(**fields, stream=True))
    assert content_of(frames, field="reasoning_content") == reply.reasoning
    assert content_of(frames, field="reasoning") == reply.reasoning
    assert content_of(frames) == reply.text


def test_nothing_is_sent_for_a_round_that_shows_nothing():
    answer = make_answer(chat(stream=True), "1", 7, served())
    token = Token(9, "", "target", 3)
    assert len(answer.chunk(0, Chunk("", (token,)))) == 1, "the first has the role"
    assert answer.chunk(0, Chunk("", (token,))) == []


# Log-probabilities, of made-up replies: the engine's own are tested with the engine.

SPEC = SpecStats(1, 3, 2, (1, 1, 0), (1, 1, 1), 3.0, 1)


def reply_of(ids, text="", **fields):
    prompt = fields.pop("prompt_tokens", 3)
    return Reply(
        text=text,
        token_ids=tuple(ids),
        finish_reason="length",
        seed=1,
        spec=SPEC,
        usage=Usage(prompt, len(ids)),
        timings=Timings(0.5, 2.0, 1.0, queue_s=0.25, prompt_s=0.125),
        cache=CacheUse(0, "new"),
        plain_tokens_per_s=40.0,
        **fields,
    )


def encoded(text):
    return served().llm.tokenizer.encode(text)


def byte_ids(text):
    """The tokens that spell a text byte by byte."""
    tokenizer = served().llm.tokenizer
    spelled = {
        tokenizer.piece_bytes(i): i
        for i in range(tokenizer.vocab_size)
        if tokenizer.id_to_piece(i).startswith("<0x")
    }
    return [spelled[bytes([byte])] for byte in text.encode()]


def token(id, text, value=-0.5, top=(), origin="plain"):
    return Token(id, text, origin, 0, Logprob(value, tuple(top)))


def test_logprobs_of_a_chat_are_those_of_its_text():
    ask, tokenizer = chat(logprobs=True, top_logprobs=2), served().llm.tokenizer
    a, b = encoded("a")[0], encoded("b")[0]
    smile = byte_ids("é")
    chunks = [
        Chunk("hm", (token(b, "hm"),), kind="reasoning"),
        Chunk("x", (token(b, "x"),), kind="tool"),
        Chunk(
            "aé",
            (
                token(a, "a", -0.25, [(a, -0.25), (b, -2.0)]),
                token(smile[0], "", -1.0, [(smile[0], -1.0), (a, -9999.0)]),
                token(smile[1], "é"),
                token(tokenizer.control_id("<turn|>"), ""),
            ),
        ),
    ]
    answer = make_answer(ask, "1", 7, served())
    for chunk in chunks:
        answer.keep(0, chunk)
    found = answer.whole([reply_of([b, b, a, *smile, 106], "aé")])
    objects.ChatCompletion.model_validate(found)
    logprobs = OpenAIChat.model_validate(found).choices[0].logprobs
    assert unfilled(logprobs) == []
    assert bytes(byte for item in logprobs.content for byte in item.bytes).decode() == "aé"
    first, second, *_ = logprobs.content
    assert (first.token, first.logprob, len(first.top_logprobs)) == ("a", -0.25, 2)
    assert second.token == "\\xc3" and second.top_logprobs[1].logprob == -9999.0
    assert [item["token"] for item in found["choices"][0]["logprobs"]["reasoning"]] == ["b"]
    streaming = make_answer(chat(logprobs=True, stream=True), "1", 7, served())
    frames = [frame for chunk in chunks for frame in streaming.chunk(0, chunk)]
    items = [
        item
        for frame in frames
        for item in (frame["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    for frame in frames:
        objects.ChatChunk.model_validate(frame)
    assert [item["logprob"] for item in items] == [item.logprob for item in logprobs.content]


def test_figures_of_a_made_up_reply():
    answer = make_answer(chat(), "1", 7, served())
    found = answer.whole([reply_of([5, 6, 7], "abc")])
    assert found["timings"] == {
        "prompt_n": 3, "cache_n": 0, "prompt_ms": 125.0, "prompt_per_token_ms": 41.667,
        "prompt_per_second": 24.0, "predicted_n": 3, "predicted_ms": 2000.0,
        "predicted_per_token_ms": 1000.0, "predicted_per_second": 1.0,
        "draft_n": 3, "draft_n_accepted": 2, "draft_rounds": 1,
    }  # fmt: skip
    assert found["metrics"]["speculative_decoding"] == {
        "mean_acceptance_length": 3.0, "draft_acceptance_rate": 0.667,
        "acceptance_histogram": {"2": 1}, "num_spec_steps": 1, "num_accepted_draft_tokens": 2,
        "num_draft_tokens": 3, "num_spec_tokens": 3,
    }  # fmt: skip
    assert found["mtp"]["queue_ms"] == 250.0 and found["mtp"]["plain_tps_estimate"] == 40.0
    assert found["mtp"]["cache"] == {"hit_tokens": 0, "miss_reason": "new"}


def test_a_reply_that_failed_is_no_answer():
    answer = make_answer(chat(), "1", 7, served())
    for reason in ("error", "cancelled"):
        with pytest.raises(ValueError, match=reason):
            answer.whole([replace(reply_of([5]), finish_reason=reason)])


# Completions.


def test_a_whole_completion_fills_every_field_of_the_client():
    found, replies = whole(completion(prompt=["The", "A"], n=2, max_tokens=5, **GREEDY))
    objects.Completion.model_validate(found)
    parsed = OpenAICompletion.model_validate(found)
    assert unfilled(parsed) == []
    assert [choice.index for choice in parsed.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in parsed.choices] == [reply.text for reply in replies]
    assert parsed.usage.prompt_tokens == 4, "each prompt counts once"
    assert parsed.usage.completion_tokens == 20


@pytest.mark.parametrize("prompt", ["The", [1330, 9]])
def test_an_echo_of_nothing_but_the_prompt(prompt):
    found, (reply,) = whole(completion(prompt=prompt, echo=True, max_tokens=0))
    objects.Completion.model_validate(found)
    text = prompt if isinstance(prompt, str) else served().llm.tokenizer.decode(prompt)
    (choice,) = found["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, "length")
    assert len(reply.token_ids) == 1, "the engine writes one"
    assert found["usage"]["completion_tokens"] == 0
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"]
    frames, _ = streamed(completion(prompt=prompt, echo=True, max_tokens=0, stream=True))
    assert [frame["choices"][0]["text"] for frame in frames] == [text, ""]
    assert frames[-1]["choices"][0]["finish_reason"] == "length"


def test_a_stream_of_a_completion_says_what_the_whole_one_says():
    fields = {"prompt": ["The", "A"], "echo": True, "max_tokens": 8, **GREEDY}
    expected, _ = whole(completion(**fields))
    frames, replies = streamed(completion(**fields, stream=True, spec_trace=True))
    for index, choice in enumerate(expected["choices"]):
        own = [c for frame in frames for c in frame["choices"] if c["index"] == index]
        assert "".join(c["text"] for c in own) == choice["text"]
        assert own[0]["text"] == fields["prompt"][index] and "spec" not in own[0]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        specs = [c["spec"] for c in own if "spec" in c]
        assert sum(spec["drafted"] for spec in specs) == replies[index].spec.drafted
    for frame in frames:
        objects.TextChunk.model_validate(frame)


def test_logprobs_of_a_prompt_and_its_completion():
    ids = served().llm.prompt_ids("a é")
    bos, a, *_ = ids
    told = (None, *(Logprob(-1.0 - at, ((a, -0.5), (bos, -0.75))) for at in range(len(ids) - 1)))
    ask = completion(prompt="a é", echo=True, logprobs=1, prompt_logprobs=2)
    answer = make_answer(ask, "1", 7, served())
    written = encoded("b")[0]
    answer.keep(0, Chunk("b", (token(written, "b", -0.25, [(a, -0.125)]),)))
    reply = reply_of([written], "b", prompt_logprobs=told, prompt_tokens=len(ids))
    found = answer.whole([reply])
    objects.Completion.model_validate(found)
    (choice,) = found["choices"]
    assert choice["text"] == "a éb"
    columns = choice["logprobs"]
    assert {len(column) for column in columns.values()} == {len(ids) + 1}
    assert columns["token_logprobs"][0] is columns["top_logprobs"][0] is None
    assert columns["token_logprobs"][1:] == [-1.0 - at for at in range(len(ids) - 1)] + [-0.25]
    assert columns["text_offset"][:2] == [0, 0], "<bos> adds no text"
    assert columns["text_offset"][-1] == len("a é")
    assert columns["tokens"][-1] == "b"
    assert columns["top_logprobs"][-1] == {"a": -0.125, "b": -0.25}
    prompt = choice["prompt_logprobs"]
    assert prompt[0] is None and len(prompt) == len(ids)
    assert prompt[1][str(a)] == {"logprob": -0.5, "rank": 1, "decoded_token": "a"}
    assert prompt[1][str(bos)]["rank"] == 2
    bare = make_answer(
        completion(prompt="a é", echo=True, logprobs=1, max_tokens=0), "1", 7, served()
    )
    bare.keep(0, Chunk("b", (token(written, "b"),)))
    (alone,) = bare.whole([reply])["choices"]
    assert alone["text"] == "a é" and len(alone["logprobs"]["tokens"]) == len(ids)


def test_streamed_columns_are_the_whole_ones():
    chunks = [
        Chunk("ab", (token(encoded("a")[0], "a"), token(encoded("b")[0], "b"))),
        Chunk("", (token(encoded("c")[0], ""),)),
        Chunk("c", ()),
    ]
    kept = make_answer(completion(logprobs=0), "1", 7, served())
    for chunk in chunks:
        kept.keep(0, chunk)
    expected = kept.whole([reply_of([1, 2, 3], "abc")])["choices"][0]["logprobs"]
    assert expected["text_offset"] == [0, 1, 2]
    streaming = make_answer(completion(logprobs=0, stream=True), "1", 7, served())
    found = [
        frame["choices"][0]["logprobs"] for chunk in chunks for frame in streaming.chunk(0, chunk)
    ]
    joined = {name: [item for each in found for item in each[name]] for name in expected}
    assert joined == expected
