"""Tools and thoughts with the built-in pairs, through the API: what their world has taught them."""

import asyncio
import itertools
import json
from functools import cache
from random import Random

import pytest

import mtp_mlx
from mtp_mlx.api import LLM
from tests.embedded import held_out
from training import world
from training.world.plain import PLAIN
from training.world.toolbox import TOOLS, declaration

COUNT = 4  # held-out prompts of a kind
DECLARED = [declaration("get_time"), declaration("add")]
ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]
THINK = {"think": True, "temperature": 0.0}
SUM = [{"role": "user", "content": "What is 3 + 4?"}]
BUDGETS = (None, 0, 2, 6)


@cache
def pair(name: str = "tiny") -> LLM:
    return mtp_mlx.load(name)


def questions(kind: str, form: str | None = None) -> list[world.Example]:
    """Held-out examples without a chat before the question."""
    found = world.examples(5, "held-out", [kind])
    chosen = (e for e in found if form is None or e.facts[0] == form)
    return list(itertools.islice((e for e in chosen if e.messages[0]["role"] != "system"), COUNT))


@pytest.mark.parametrize("name", held_out.NAMES)
def test_calls_are_parsed_and_answered(name):
    right = answered = 0
    for example in questions("tools", "call"):
        _, tool, given, _ = example.facts
        options = {"tools": example.tools, "temperature": 0.0}
        reply = pair(name).chat(example.messages, **options)
        if reply.finish_reason != "tool_calls":
            continue
        [call] = reply.tool_calls
        assert reply.text == reply.reasoning == "" and reply.warning is None
        assert reply.tool_text.startswith("<|tool_call>call:")
        right += (call.name, json.loads(call.arguments)) == (tool, given)
        result = TOOLS[tool].answer(Random(3), given)
        answer = {"role": "tool", "tool_call_id": call.id, "content": result}
        final = pair(name).chat([*example.messages, reply.to_message(), answer], **options)
        assert final.finish_reason == "stop" and not final.tool_calls
        answered += final.text == TOOLS[tool].said.format(**given, **result)
    assert right >= COUNT - 1
    assert answered >= COUNT - 1


def test_the_round_trip_of_a_call_reads_what_openai_clients_send():
    llm = pair()
    tool = declaration("get_weather")
    bare = [tool["function"]]
    reply = llm.chat(ASKED, tools=bare, temperature=0.0)
    assert reply.token_ids == llm.chat(ASKED, tools=[tool], temperature=0.0).token_ids
    [call] = reply.tool_calls
    assert (call.name, call.arguments) == ("get_weather", '{"city":"Paris"}')
    message = reply.to_message()
    assert message["tool_calls"][0]["function"]["arguments"] == '{"city":"Paris"}'
    content = {"weather": "sunny", "degrees": 9}
    answer = {"role": "tool", "tool_call_id": call.id, "content": content}
    chat = [*ASKED, message, answer]
    final = llm.chat(chat, tools=bare, temperature=0.0)
    assert final.text == "It is sunny in Paris, with 9 degrees."
    parsed = json.loads(json.dumps(message))
    parsed["tool_calls"][0]["function"]["arguments"] = {"city": "Paris"}
    assert llm.prompt_ids([*ASKED, parsed, answer], tools=bare) == llm.prompt_ids(chat, tools=bare)


@pytest.mark.parametrize("name", held_out.NAMES)
def test_thoughts_are_parted_from_answers(name):
    right = 0
    for example in questions("thinking"):
        kind, facts = example.facts
        reply = pair(name).chat(example.messages, **THINK)
        thought, answer = PLAIN[kind].thought(facts), PLAIN[kind].check(facts, reply.text)
        right += reply.reasoning == thought and answer is None
        assert "thought" not in reply.text and "|" not in reply.text + reply.reasoning
        assert 0 < reply.usage.reasoning_tokens < reply.usage.completion_tokens
        assert reply.finish_reason == "stop" and reply.warning is None
    assert right >= COUNT - 2


def test_without_think_there_is_no_thought():
    reply = pair().chat(SUM, temperature=0.0)
    assert (reply.reasoning, reply.usage.reasoning_tokens) == ("", 0)
    assert pair().prompt_ids(SUM) != pair().prompt_ids(SUM, think=True)


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 4}])
def test_a_budget_gives_one_text_with_any_drafts_alone_and_in_a_batch(sampling):
    llm = pair()
    options = {"think": True, "max_tokens": 24, **sampling}
    alone = {
        budget: llm.chat(SUM, thinking_budget=budget, num_draft_tokens=0, **options)
        for budget in BUDGETS
    }
    rows = [
        {"thinking_budget": budget, "num_draft_tokens": drafts}
        for budget, drafts in itertools.product(BUDGETS, (2, 7, "auto"))
    ]
    together = llm.batch([SUM] * len(rows), each=rows, **options)
    for own, reply in zip(rows, together, strict=True):
        expected = alone[own["thinking_budget"]]
        assert reply.token_ids == expected.token_ids
        assert (reply.text, reply.reasoning) == (expected.text, expected.reasoning)
        budget = own["thinking_budget"]
        if budget is not None:
            assert reply.usage.reasoning_tokens <= budget + 2  # the markers
    assert len({reply.token_ids for reply in together}) == len(BUDGETS)


@pytest.mark.parametrize("name", held_out.NAMES)
def test_budgets_and_trained_drafters_keep_the_law(name):
    chosen = questions("thinking")
    each = [
        {"thinking_budget": index % 5, "num_draft_tokens": index % 8, "seed": index}
        for index in range(COUNT)
    ]
    chats = [example.messages for example in chosen]
    together = pair(name).batch(chats, each=each, think=True, max_tokens=30)
    accepted = 0
    for chat, own, reply in zip(chats, each, together, strict=True):
        plain = {**own, "num_draft_tokens": 0}
        expected = pair(name).chat(chat, **plain, think=True, max_tokens=30)
        assert reply.token_ids == expected.token_ids
        assert reply.usage.reasoning_tokens <= own["thinking_budget"] + 2
        accepted += reply.spec.accepted
    assert accepted


def test_streams_have_chunks_of_each_kind():
    llm = pair()
    stream = llm.stream(SUM, **THINK, num_draft_tokens=4)
    chunks = list(stream)
    kinds = [kind for kind, _ in itertools.groupby(chunks, key=lambda chunk: chunk.kind)]
    assert kinds == ["reasoning", "content"]
    for kind, text in (("reasoning", stream.reply.reasoning), ("content", stream.reply.text)):
        assert "".join(chunk.text for chunk in chunks if chunk.kind == kind) == text != ""
    proposed = sum(len(chunk.drafts) for chunk in chunks)
    assert proposed == stream.reply.spec.drafted
    assert sum(chunk.accepted for chunk in chunks) == stream.reply.spec.accepted > 0

    async def read() -> list[str]:
        asynchronous = llm.astream(ASKED, tools=[declaration("get_weather")], temperature=0.0)
        return [chunk.kind async for chunk in asynchronous if chunk.text]

    assert set(asyncio.run(read())) == {"tool"}


def test_the_numpy_twin_keeps_the_same_budget():
    with mtp_mlx.load("tiny", backend="numpy") as twin:
        for budget in (0, 4):
            options = {**THINK, "thinking_budget": budget, "max_tokens": 12}
            assert twin.chat(SUM, **options).token_ids == pair().chat(SUM, **options).token_ids


def test_thinking_and_tools_need_a_chat():
    cases = {"tools": DECLARED, "think": True, "thinking_budget": 3, "preserve_thinking": True}
    for name, value in cases.items():
        for call in (pair().generate, pair().stream):
            with pytest.raises(mtp_mlx.RequestError, match=f"{name} needs a chat") as caught:
                call("hello", **{name: value})
            assert caught.value.param == name
    assert pair().generate("hello", tools=[], think=False, max_tokens=1).token_ids


def test_what_the_template_does_not_know_is_refused():
    with pytest.raises(mtp_mlx.Unsupported, match="knows no preserve_thinking") as caught:
        pair().chat(SUM, preserve_thinking=True)
    assert caught.value.param == "preserve_thinking"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("think", value) for value in (1, "yes", [])),
        *(("thinking_budget", value) for value in (-1, 1.5, "3", True, 1 << 40)),
        *(("preserve_thinking", value) for value in (1, "no")),
    ],
)
def test_options_out_of_range_are_named(name, value):
    with pytest.raises(mtp_mlx.RequestError, match=name) as caught:
        pair().chat(SUM, **{name: value})
    assert caught.value.param == name
    assert pair().stats().is_idle


def test_a_reply_is_json_with_all_of_it():
    reply = pair().chat(ASKED, tools=[declaration("get_weather")], temperature=0.0)
    body = json.loads(json.dumps(reply.to_json()))
    assert body["tool_calls"][0]["name"] == "get_weather"
    assert (body["reasoning"], body["usage"]["reasoning_tokens"]) == ("", 0)
    assert body["finish_reason"] == "tool_calls"


def test_earlier_thoughts_are_dropped_as_the_template_says():
    llm = pair()
    answer = {"role": "assistant", "content": "7."}
    thought = {**answer, "reasoning_content": "I add 3 and 4."}
    after = [*SUM, {"role": "user", "content": "And 5 + 6?"}]
    chat, thinking = ([after[0], each, after[1]] for each in (answer, thought))
    assert llm.prompt_ids(chat) == llm.prompt_ids(thinking)


def test_a_thought_that_the_template_opens_is_a_thought_from_its_first_token_on():
    llm = pair()
    tools = [declaration("get_weather")]
    first = llm.chat(ASKED, tools=tools, temperature=0.0)
    [call] = first.tool_calls
    answer = {"role": "tool", "tool_call_id": call.id, "content": {"weather": "rainy"}}
    chat = [*ASKED, first.to_message(), answer]
    opened = llm.tokenizer.encode_template("<|channel>thought\n")
    assert llm.prompt_ids(chat, tools=tools, think=True)[-len(opened) :] == opened
    for budget in (0, 3):
        options = {"tools": tools, "think": True, "thinking_budget": budget, "max_tokens": 12}
        reply = llm.chat(chat, **options, temperature=0.0)
        ends = reply.token_ids.index(llm.tokenizer.control_id("<channel|>"))
        assert ends <= budget
        assert reply.usage.reasoning_tokens >= ends + 1
        assert reply.reasoning == llm.tokenizer.decode(reply.token_ids[:ends]).strip()


@pytest.mark.parametrize("kind", ["image", "image_url", "audio", "input_audio", "video"])
def test_images_and_audio_are_refused(kind):
    parts = [{"type": "text", "text": "What is this?"}, {"type": kind, "url": "a"}]
    with pytest.raises(mtp_mlx.Unsupported, match=f"'{kind}' is not supported; text only"):
        pair().chat([{"role": "user", "content": parts}], tools=DECLARED, think=True)
