"""A thought in one or two sentences before the answer of a plain kind."""

import re
from random import Random

from training.world.example import Example
from training.world.plain import PLAIN

MOST = ("sums", "dates", "spelling", "sizes", "counting")
OTHERS = tuple(kind for kind in PLAIN if kind not in MOST)
SHAPE = re.compile(r"<\|channel>thought\n(.*)\n<channel\|>(.*)", re.DOTALL)


def ask(random: Random) -> Example:
    kind = random.choice(OTHERS if random.random() < 0.3 else MOST)
    turn = PLAIN[kind].ask(random)
    thought = PLAIN[kind].thought(turn.facts)
    reply = {"role": "assistant", "reasoning": thought, "content": turn.reply}
    messages = [{"role": "user", "content": turn.message}]
    return Example("thinking", messages, reply, None, True, (kind, turn.facts))


def check(facts: tuple, text: str) -> str | None:
    kind, inner = facts
    parts = SHAPE.fullmatch(text)
    if parts is None:
        return f"not a thought and an answer: {text!r}"
    if parts[1] != PLAIN[kind].thought(inner):
        return f"wrong thought: {parts[1]!r}"
    return PLAIN[kind].check(inner, parts[2])
