"""Replies and chunks of streams as OpenAI's objects, every field filled.

A stream: `chunk` for each chunk, `last` when a choice has ended, `usage` at the end where it was
asked for. A whole reply: `keep` for each chunk, then `whole`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mtp_mlx.reply import Chunk, Reply
from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.asks import Ask
from mtp_mlx.server.wire.figures import figures
from mtp_mlx.server.wire.logprobs import Speller

Json = dict[str, Any]
FINISHED = ("stop", "length", "tool_calls")


class Answer(ABC):
    """What both kinds of completion share; one object for one request."""

    prefix = ""  # of the reply's id
    whole_object = ""
    chunk_object = ""

    def __init__(self, ask: Ask, request_id: str, created: int, served: Served) -> None:
        self._ask = ask
        self._served = served
        self._speller = Speller(served.llm.tokenizer)
        self._head = {
            "id": self.prefix + request_id,
            "created": created,
            "model": ask.model,
            "system_fingerprint": served.fingerprint,
            "service_tier": None,
        }
        self._ended: dict[int, Reply] = {}

    @abstractmethod
    def chunk(self, index: int, chunk: Chunk) -> list[Json]:
        """What to send for a chunk of choice `index`: nothing where nothing is to be seen."""

    @abstractmethod
    def last(self, index: int, reply: Reply) -> Json:
        """The chunk that ends choice `index`."""

    @abstractmethod
    def keep(self, index: int, chunk: Chunk) -> None:
        """Remember what `whole` tells of this chunk of choice `index`."""

    @abstractmethod
    def whole(self, replies: Sequence[Reply]) -> Json:
        """The reply; every chunk was kept."""

    def usage(self, replies: Sequence[Reply]) -> Json:
        """The last chunk of a stream: no choice, all figures."""
        shown = [self._shown(reply) for reply in replies]
        return self._frame([]) | figures(self._ask, self._served, shown)

    def _frame(self, choices: list[Json]) -> Json:
        nothing = {"usage": None} if self._ask.include_usage else {}
        return {**self._head, "object": self.chunk_object, "choices": choices, **nothing}

    def _end(self, index: int, reply: Reply, choice: Json) -> Json:
        """The chunk that ends a choice. The last of them has the figures, unless a chunk of their
        own was asked for."""
        self._ended[index] = self._shown(reply)
        frame = self._frame([choice])
        count = len(self._ask.choices)
        if self._ask.include_usage or len(self._ended) < count:
            return frame
        replies = [self._ended[at] for at in range(count)]
        return frame | figures(self._ask, self._served, replies) | {"usage": None}

    def _whole(self, choices: list[Json], replies: Sequence[Reply]) -> Json:
        shown = figures(self._ask, self._served, replies)
        return {**self._head, "object": self.whole_object, "choices": choices, **shown}

    def _shown(self, reply: Reply) -> Reply:
        """A reply without the token that nobody asked for."""
        if not self._ask.drops_reply:
            return reply
        usage = replace(reply.usage, completion_tokens=0, reasoning_tokens=0)
        return replace(reply, text="", token_ids=(), finish_reason="length", usage=usage)


def finish_of(reply: Reply) -> str:
    """Why it ended; one that failed or was cancelled is answered with an error instead."""
    if reply.finish_reason not in FINISHED:
        raise ValueError(f"a reply that ended with {reply.finish_reason!r} is no answer")
    return reply.finish_reason
