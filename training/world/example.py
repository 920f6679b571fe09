"""What the world hands out: one conversation with its right reply."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple


class Turn(NamedTuple):
    """One plain question with its reply. `facts` is all that its kind's check needs to know."""

    message: str
    reply: str
    facts: tuple[Any, ...]


class Kind(NamedTuple):
    """A plain kind: how to ask, how to check a reply, and what to think before it."""

    ask: Callable[[Random], Turn]
    check: Callable[[tuple[Any, ...], str], str | None]
    thought: Callable[[tuple[Any, ...]], str]


@dataclass(frozen=True)
class Example:
    """One conversation: `messages` up to the last user or tool message, then `reply`."""

    kind: str
    messages: list[dict]
    reply: dict
    tools: list[dict] | None
    thinking: bool
    facts: tuple[Any, ...]

    @property
    def last_user_message(self) -> str:
        """The message that decides which split this conversation is in."""
        return [m["content"] for m in self.messages if m["role"] == "user"][-1]


def written(reply: dict) -> str:
    """The reply as the model writes it, special tokens visible, without its final end token."""
    reasoning = reply.get("reasoning")
    thought = f"<|channel>thought\n{reasoning}\n<channel|>" if reasoning else ""
    calls = [written_call(call["function"]) for call in reply.get("tool_calls") or []]
    return thought + (reply.get("content") or "") + "".join(calls)


def written_call(function: dict) -> str:
    """One tool call; its arguments are sorted by key."""
    pairs = sorted(function["arguments"].items())
    arguments = ",".join(f"{key}:{_written_value(value)}" for key, value in pairs)
    return f"<|tool_call>call:{function['name']}{{{arguments}}}<tool_call|>"


def _written_value(value: str | int | bool) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    return str(value).lower() if isinstance(value, bool) else str(value)
