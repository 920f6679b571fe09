"""What the pairs are trained on: the world's conversations as token ids, with a weight per token.

A prompt is encoded exactly as the runtime does it, by `encode_chat`, and the reply follows as the
model must write it. Tokens that the model itself would write weigh most, all others `PROMPT_WEIGHT`
of that: what a user asks cannot be foreseen, but a raw prompt should read on sensibly. Tokens of a
long reply weigh less, so that stories do not drown sums.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mtp_mlx.text.template import ChatTemplate, encode_chat
from mtp_mlx.text.tokenizer import Tokenizer
from training import world
from training.gemma_files import SPECIAL_TOKENS

PROMPT_WEIGHT = 0.02
ORDINARY_LENGTH = 12  # tokens of a reply, each of weight 1
PLAIN_SHARE = 0.04  # texts without any chat
CHAINED_SHARE = 0.12  # long conversations of several exchanges
CHAIN = (3, 7)
POOL = 1024  # sequences that are sorted by length together
TURN_END = SPECIAL_TOKENS["<turn|>"]
TURN_START = SPECIAL_TOKENS["<|turn>"]
RESPONSE_START = SPECIAL_TOKENS["<|tool_response>"]
RESPONSE_END = SPECIAL_TOKENS["<tool_response|>"]


@dataclass(frozen=True)
class Text:
    """Token ids [L], and for each how much predicting it counts [L]."""

    ids: list[int]
    weights: list[float]


class Writer:
    """Turns the world's examples into token ids."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self.tokenizer = tokenizer
        self._template = template
        self._model = tokenizer.encode("model")

    def prompt(self, example: world.Example) -> list[int]:
        """The ids a runtime feeds the target before it replies."""
        return encode_chat(
            self.tokenizer,
            self._template,
            example.messages,
            tools=example.tools,
            enable_thinking=example.thinking,
        )

    def end(self, example: world.Example) -> int:
        """The token that ends the reply: a call waits for its tool's answer."""
        return RESPONSE_START if example.reply.get("tool_calls") else TURN_END

    def text(self, example: world.Example) -> Text:
        """Prompt, reply and the token that ends it."""
        prompt = self.prompt(example)
        written = world.written(example.reply)
        reply = [*self.tokenizer.encode_template(written), self.end(example)]
        ids = prompt + reply
        weights = self._weights(ids)
        weights[_turn_start(prompt) :] = [PROMPT_WEIGHT] * (len(ids) - _turn_start(prompt))
        weights[len(prompt) :] = [1.0] * len(reply)
        scale = min(1.0, ORDINARY_LENGTH / sum(weight == 1.0 for weight in weights)) ** 0.5
        return Text(ids, [scale * weight for weight in weights])

    def plain(self, text: str) -> Text:
        """A text outside any chat, from BOS to EOS."""
        ids = [
            SPECIAL_TOKENS["<bos>"],
            *self.tokenizer.encode(text),
            SPECIAL_TOKENS["<eos>"],
        ]
        return Text(ids, [(ORDINARY_LENGTH / len(ids)) ** 0.5] * len(ids))

    def _weights(self, ids: list[int]) -> list[float]:
        """1 inside the model's turns but for their header and tools' answers, else less.

        The first token of a turn counts nothing: in a chat's past, thoughts and the mark of none
        are left out, and the model must not learn that a reply may begin without.
        """
        weights = []
        header = [TURN_START, *self._model]
        is_written, skip = False, 0
        for at, token in enumerate(ids):
            if ids[at : at + len(header)] == header:
                is_written, skip = True, len(header) + 2
            elif token == TURN_START:
                is_written = False
            counts = is_written and not skip
            weights.append(0.0 if skip == 1 else 1.0 if counts else PROMPT_WEIGHT)
            skip = max(skip - 1, 0)
            if token in (TURN_END, RESPONSE_START):
                is_written = False
            elif token == RESPONSE_END:
                is_written = True
        return weights


def _turn_start(prompt: list[int]) -> int:
    """Where what the template opens the reply with begins: a header, maybe an empty thought.

    A turn that goes on after a tool's answer holds the model's own call, which counts.
    """
    if prompt[-1] == RESPONSE_END:
        return len(prompt)
    return len(prompt) - 1 - prompt[::-1].index(TURN_START)


def texts(writer: Writer, seed: int) -> Iterator[Text]:
    """Endless training texts: single examples, long conversations, plain texts."""
    draw = random.Random(seed)
    examples = world.examples(seed, "train")
    while True:
        chance = draw.random()
        if chance < PLAIN_SHARE:
            yield writer.plain(world.plain_text(draw))
        elif chance < PLAIN_SHARE + CHAINED_SHARE:
            yield writer.text(_chained(examples, draw.randint(*CHAIN)))
        else:
            yield writer.text(next(examples))


def _chained(examples: Iterator[world.Example], count: int) -> world.Example:
    """One conversation made of `count` plain examples one after the other."""
    links = []
    while len(links) < count:
        example = next(examples)
        is_plain = example.tools is None and not example.thinking
        if is_plain and example.messages[0]["role"] != "system":
            links.append(example)
    messages: list[dict] = []
    for link in links:
        messages += [*link.messages, link.reply]
    last = links[-1]
    return world.Example(
        **{**vars(last), "messages": messages[:-1]},
    )


def batches(source: Iterator[Text], num_tokens: int) -> Iterator[tuple]:
    """Endless batches of about `num_tokens`: ids int64 [B, L] (padded with 0), weights [B, L]."""
    draw = random.Random(num_tokens)
    while True:
        pool = sorted((next(source) for _ in range(POOL)), key=lambda text: len(text.ids))
        groups: list[list[Text]] = [[]]
        for text in pool:
            if (len(groups[-1]) + 1) * len(text.ids) > num_tokens and groups[-1]:
                groups.append([])
            groups[-1].append(text)
        draw.shuffle(groups)
        for group in groups:
            yield padded(group)


def padded(group: list[Text]) -> tuple[np.ndarray, np.ndarray]:
    """ids int64 [B, L] and weights float32 [B, L] of texts of different lengths."""
    longest = max(len(text.ids) for text in group)
    ids = np.zeros((len(group), longest), np.int64)
    weights = np.zeros((len(group), longest), np.float32)
    for row, text in enumerate(group):
        ids[row, : len(text.ids)] = text.ids
        weights[row, : len(text.ids)] = text.weights
    return ids, weights
