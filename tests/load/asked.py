"""The requests of a load test, drawn from a seed, and what each must be answered with."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mtp_mlx.api import LLM
from tests.load.client import CHAT

COMPLETIONS = "/v1/completions"
CHATS = (
    "Tell me a story about a fox and a hen.",
    "What is the capital of France?",
    "What is twelve plus thirty?",
    "Tell me a story about an owl.",
    "Is a fox bigger than a hen?",
    "Tell me a long story about a dog, a cat and a mouse in the forest.",
)
BEGINNINGS = ("Once upon a time, on a sunny day, the fox", "The night is black. A sheep is")
PADS = (0, 1, 4, 12)  # how often a sentence stands before the question
PAD = "It was a sunny day in the forest, and the birds were singing. "


@dataclass(frozen=True)
class Asked:
    """A request: where it goes, its body but for `stream`, and whether it is streamed."""

    path: str
    body: tuple[tuple[str, object], ...]
    is_stream: bool

    @property
    def sent(self) -> dict:
        return {**dict(self.body), "stream": self.is_stream, "model": "tiny"}


def drawn(seed: int, count: int, distinct: int, lengths: Sequence[int]) -> list[Asked]:
    """So many requests, so many of them different: chats and raw prompts, streamed and whole, of
    four prompt lengths, greedy and sampled."""
    draw = random.Random(seed)
    found = []
    for index in range(distinct):
        pad = PAD * PADS[index % len(PADS)]
        options: dict[str, object] = {"max_tokens": draw.choice(lengths)}
        options |= draw.choice(
            [{"temperature": 0}, {"temperature": 0.8, "seed": draw.randrange(99)}]
        )
        if draw.random() < 0.8:
            message = {"role": "user", "content": pad + draw.choice(CHATS)}
            path, prompt = CHAT, {"messages": (message,)}
        else:
            path, prompt = COMPLETIONS, {"prompt": pad + draw.choice(BEGINNINGS)}
        found.append(Asked(path, tuple({**prompt, **options}.items()), draw.random() < 0.6))
    return [*found, *draw.choices(found, k=count - distinct)]


def golden(llm: LLM, requests: Sequence[Asked]) -> dict[tuple, tuple[str, str]]:
    """Text and finish reason of every request, by its body: decoded without drafts, each alone."""
    found: dict[tuple, tuple[str, str]] = {}
    for each in requests:
        if key_of(each) not in found:
            options = dict(each.body)
            chat, text = options.pop("messages", None), options.pop("prompt", None)
            ask = llm.generate if chat is None else llm.chat
            reply = ask(text if chat is None else list(chat), num_draft_tokens=0, **options)
            found[key_of(each)] = (reply.text, reply.finish_reason)
    return found


def key_of(each: Asked) -> tuple:
    return (each.path, repr(each.body))
