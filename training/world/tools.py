"""Conversations with declared tools: a call, the answer after a call, or no need of a call."""

import re
from random import Random
from typing import Any

from training.world.example import Example
from training.world.plain import PLAIN
from training.world.toolbox import TOOLS, declaration
from training.world.wording import differs, worded

CALL = re.compile(r"<\|tool_call>call:(\w+)\{(.*)\}<tool_call\|>")
ARGUMENT = re.compile(r'(\w+):(?:<\|"\|>([^<>|]*)<\|"\|>|(0|[1-9]\d{0,3}))')


def ask(random: Random) -> Example:
    form = random.choice(("call", "call", "answer", "plain"))
    if form == "plain":
        return _plain(random)
    name = random.choice(list(TOOLS))
    tool = TOOLS[name]
    given = tool.pick(random)
    messages = [{"role": "user", "content": worded(random, tool.asked, **given)}]
    function = {"type": "function", "function": {"name": name, "arguments": given}}
    call = {"role": "assistant", "content": "", "tool_calls": [function]}
    tools = _declared(random, [name], [other for other in TOOLS if other != name])
    if form == "call":
        return Example("tools", messages, call, tools, False, (form, name, given, {}))
    answer = tool.answer(random, given)
    messages += [call, {"role": "tool", "name": name, "content": answer}]
    reply = {"role": "assistant", "content": tool.said.format(**given, **answer)}
    return Example("tools", messages, reply, tools, False, (form, name, given, answer))


def check(facts: tuple, text: str) -> str | None:
    form, name, given, answer = facts
    if form == "plain":
        return PLAIN[name].check(given, text)
    if form == "answer":
        return differs(text, TOOLS[name].said.format(**given, **answer))
    parts = CALL.fullmatch(text)
    if parts is None:
        return f"not a tool call: {text!r}"
    if parts[1] != name:
        return f"the tool is {name}, not {parts[1]}"
    return _check_arguments(parts[2], given)


def _check_arguments(text: str, given: dict[str, Any]) -> str | None:
    found = []
    for part in text.split(","):
        pair = ARGUMENT.fullmatch(part)
        if pair is None:
            return f"malformed argument: {part!r}"
        found.append((pair[1], pair[2] if pair[3] is None else int(pair[3])))
    return None if found == sorted(given.items()) else f"wrong arguments: {text!r}"


def _plain(random: Random) -> Example:
    """A plain question beside tools that are of no use for it."""
    kind = random.choice(list(PLAIN))
    turn = PLAIN[kind].ask(random)
    of_use = turn.facts if kind == "unknown" else ()
    free = [name for name, tool in TOOLS.items() if kind not in tool.near and name not in of_use]
    tools = _declared(random, [], free)
    messages = [{"role": "user", "content": turn.message}]
    reply = {"role": "assistant", "content": turn.reply}
    return Example("tools", messages, reply, tools, False, ("plain", kind, turn.facts, {}))


def _declared(random: Random, needed: list[str], others: list[str]) -> list[dict[str, Any]]:
    """One to three declarations in any order: the needed ones and some of the others."""
    chosen = needed + random.sample(others, random.randint(1, 3) - len(needed))
    random.shuffle(chosen)
    return [declaration(name) for name in chosen]
