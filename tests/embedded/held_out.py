"""Held-out prompts of the world, as an embedded pair reads them, and what its replies are worth."""

import itertools
from collections import Counter
from collections.abc import Sequence
from functools import cache

from mtp_mlx.api import LLM
from mtp_mlx.embedded import NAMES, embedded_folder
from mtp_mlx.reply import Reply
from mtp_mlx.text.template import ChatTemplate
from mtp_mlx.text.tokenizer import Tokenizer
from training import world
from training.corpus import Writer

__all__ = ["NAMES", "examples", "fault", "repeated", "run", "writer"]

MAX_TOKENS = 200
GRAM = 4
MAX_REPEATS = 3
# Replies of these kinds count, list or loop: they may repeat themselves.
REPETITIVE = ("counting", "lists", "python", "json")


def examples(count: int, seed: int, kinds: Sequence[str] = world.KINDS) -> list[world.Example]:
    """`count` examples whose last user message was never trained on."""
    return list(itertools.islice(world.examples(seed, "held-out", kinds), count))


@cache
def writer(name: str) -> Writer:
    """Encodes examples for a pair."""
    folder = embedded_folder(name)
    template = ChatTemplate.from_folder(folder)
    assert template is not None
    return Writer(Tokenizer.from_folder(folder), template)


def run(llm: LLM, name: str, chosen: Sequence[world.Example], seed: int, **options) -> list[Reply]:
    """The pair's replies to the examples' prompts, with seeds from `seed` on, one a row.

    What `options` leave open is as the checkpoint sets it: top-k 64, top-p 0.95.
    """
    prompts = [writer(name).prompt(example) for example in chosen]
    each = [{"seed": seed + row} for row in range(len(prompts))]
    return llm.batch(prompts, each=each, **{"max_tokens": MAX_TOKENS, **options})


def fault(name: str, example: world.Example, reply: Reply) -> str | None:
    """What is wrong with a reply, by the grammar's own checker; None if nothing is."""
    if reply.finish_reason != "stop":
        return f"does not end: {reply.text!r}"
    if reply.token_ids[-1] != writer(name).end(example):
        return f"ends as another kind of turn: {reply.token_ids[-1]}"
    text = writer(name).tokenizer.decode(reply.token_ids[:-1], skip_special=False)
    return world.check(example, text)


def kind_of(example: world.Example) -> str:
    """The kind of its answer: a thought, or tools of no use, stand before one of any kind."""
    match example.kind, example.facts:
        case "thinking", (kind, *_):
            return kind
        case "tools", ("plain", kind, *_):
            return kind
    return example.kind


def repeated(name: str, example: world.Example, reply: Reply) -> str | None:
    """A 4-gram of tokens that a reply repeats more than three times where it should not."""
    if kind_of(example) in REPETITIVE:
        return None
    ids = reply.token_ids
    grams = Counter(tuple(ids[at : at + GRAM]) for at in range(len(ids) - GRAM + 1))
    gram, count = max(grams.items(), key=lambda item: item[1], default=((), 0))
    return None if count <= MAX_REPEATS else writer(name).tokenizer.decode(gram)
