"""What the pairs are trained on: the runtime's own prompts, and weights on what a model writes."""

import itertools
import re

import numpy as np

from tests.embedded import held_out
from training import corpus, world

SEED = 9
USER_TURN = re.compile(r"<\|turn>user\n(.*?)<turn\|>", re.DOTALL)


def spelled(text: corpus.Text, keep) -> str:
    """The tokens whose weight, relative to the largest, passes `keep`."""
    tokenizer, largest = held_out.writer("tiny").tokenizer, max(text.weights)
    ids = [i for i, w in zip(text.ids, text.weights, strict=True) if keep(w / largest)]
    return tokenizer.decode(ids, skip_special=False)


def test_the_model_s_own_words_weigh_most_in_every_turn():
    writer = held_out.writer("tiny")
    messages = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Spell fox."},
        {"role": "assistant", "content": "f-o-x"},
        {"role": "user", "content": "hello"},
    ]
    reply = {"role": "assistant", "content": "Hello! How can I help you?"}
    example = world.Example("smalltalk", messages, reply, None, False, ())
    text = writer.text(example)
    assert spelled(text, lambda w: w == 1.0) == "-o-x<turn|>Hello! How can I help you?<turn|>"
    assert spelled(text, lambda w: w == 0.0) == "f"  # of a turn whose thought is left out
    light = [w / max(text.weights) for w in text.weights if 0 < w < max(text.weights)]
    assert set(np.round(light, 6)) == {corpus.PROMPT_WEIGHT}


def test_the_answer_of_a_tool_is_not_the_model_s_word():
    example = next(
        e
        for e in world.examples(SEED, "train", ["tools"])
        if e.messages[-1]["role"] == "tool" and e.messages[0]["role"] == "user"
    )
    text = held_out.writer("tiny").text(example)
    written = spelled(text, lambda w: w == 1.0)
    assert written.startswith("call:") and written.count("<|tool_response>") == 1
    assert "response:" not in written
    assert written.endswith(world.written(example.reply) + "<turn|>")


def test_a_text_begins_with_the_prompt_that_the_runtime_feeds():
    for name in held_out.NAMES:
        writer = held_out.writer(name)
        for example in itertools.islice(world.examples(SEED, "train"), 100):
            prompt, text = writer.prompt(example), writer.text(example)
            assert text.ids[: len(prompt)] == prompt
            end = text.ids[-1]
            assert end == (50 if example.reply.get("tool_calls") else 106)
            shown = writer.tokenizer.decode(text.ids[len(prompt) : -1], skip_special=False)
            assert shown == world.written(example.reply)


def test_no_held_out_message_is_trained_on():
    tokenizer = held_out.writer("tiny").tokenizer
    asked = []
    for text in itertools.islice(corpus.texts(held_out.writer("tiny"), SEED), 1000):
        asked += USER_TURN.findall(tokenizer.decode(text.ids, skip_special=False))
    assert len(set(asked)) > 800
    assert not [message for message in asked if world.is_held_out(message)]


def test_batches_hold_whole_texts_padded_with_no_weight():
    texts = corpus.texts(held_out.writer("tiny"), SEED)
    for ids, weights in itertools.islice(corpus.batches(texts, 2048), 20):
        assert ids.shape == weights.shape
        assert ids.size <= max(2048, ids.shape[1])
        for row in range(len(ids)):
            length = int(np.max(np.nonzero(weights[row]))) + 1
            assert ids[row, 0] == 2 and ids[row, length - 1] in (1, 50, 106)
            assert not ids[row, length:].any()


def test_long_conversations_are_chained_from_whole_exchanges():
    examples = world.examples(SEED, "train")
    chained = corpus._chained(examples, 4)
    roles = [message["role"] for message in chained.messages]
    assert roles[-1] == "user" and roles.count("user") >= 4
    assert all(role == "user" for role in roles[::2]) and set(roles[1::2]) == {"assistant"}
