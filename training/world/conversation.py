"""From single questions to conversations: system messages, earlier exchanges, and the split."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from random import Random

from training.world import thinking, tools
from training.world.example import Example
from training.world.plain import PLAIN

KINDS = (*PLAIN, "tools", "thinking")
WEIGHTS = {
    "thinking": 4,
    "sums": 3,
    "tools": 2.5,
    "counting": 2.2,
    "dates": 2,
    "spelling": 1.5,
    "sizes": 1.4,
    "colours": 1.3,
}
HELD_OUT_ONE_IN = 10
SPLITS = ("train", "held-out")
SYSTEM, EARLIER, TWO_EARLIER = 0.15, 0.25, 0.4
SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a helpful model.",
    "You are a tiny model.",
    "You are a good friend.",
    "Answer briefly.",
    "Answer in a few words.",
    "Please be helpful.",
    "Be a good friend.",
    "Please help me.",
    "You are a helpful assistant. Answer briefly.",
)


def normalised(message: str) -> str:
    """What all careless typings of one question share: no capitals, spaces, marks or "please".

    Only the signs of sums and the words themselves stay; "what's" is "what is".
    """
    lowered = re.sub(r"what['\u2019]?s\b", "what is", message.lower())
    return re.sub(r"\bplease\b|[^\w+*-]", "", lowered)


def is_held_out(message: str) -> bool:
    """Whether prompts that end with this user message are never trained on, also in other case,
    with other spaces and marks, with or without "please"."""
    digest = sha256(normalised(message).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


def examples(seed: int, split: str, kinds: Sequence[str] = KINDS) -> Iterator[Example]:
    """Endless conversations of one split; the same for the same seed.

    Kinds that are hard to learn are drawn more often in training; held-out ones all alike.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {SPLITS}")
    random = Random(f"{seed} {split}")
    held_out = split == "held-out"
    weights = [1 if held_out else WEIGHTS.get(kind, 1) for kind in kinds]
    while True:
        kind = random.choices(kinds, weights)[0]
        made = _single(kind, random)
        while is_held_out(made.last_user_message) != held_out:
            made = _single(kind, random)
        yield _with_before(random, made, lambda message: held_out or not is_held_out(message))


def check(example: Example, text: str) -> str | None:
    """None if `text` is a right reply, else one line that says what is wrong."""
    if example.kind == "tools":
        return tools.check(example.facts, text)
    if example.kind == "thinking":
        return thinking.check(example.facts, text)
    return PLAIN[example.kind].check(example.facts, text)


def _single(kind: str, random: Random) -> Example:
    if kind == "tools":
        return tools.ask(random)
    if kind == "thinking":
        return thinking.ask(random)
    turn = PLAIN[kind].ask(random)
    messages = [{"role": "user", "content": turn.message}]
    reply = {"role": "assistant", "content": turn.reply}
    return Example(kind, messages, reply, None, False, turn.facts)


def _with_before(random: Random, made: Example, allowed: Callable[[str], bool]) -> Example:
    """The conversation, sometimes with a system message and with exchanges before it."""
    before = []
    if random.random() < SYSTEM:
        before.append({"role": "system", "content": random.choice(SYSTEM_MESSAGES)})
    if random.random() < EARLIER:
        for _ in range(2 if random.random() < TWO_EARLIER else 1):
            turn = PLAIN[random.choice(list(PLAIN))].ask(random)
            while not allowed(turn.message):
                turn = PLAIN[random.choice(list(PLAIN))].ask(random)
            before.append({"role": "user", "content": turn.message})
            before.append({"role": "assistant", "content": turn.reply})
    return replace(made, messages=before + made.messages)
