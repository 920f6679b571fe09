"""STAND-IN for asks.py, answers.py until i6-wire is merged."""

from dataclasses import dataclass
from typing import Any, NamedTuple


class Choice(NamedTuple):
    prompt: Any
    options: dict


@dataclass(frozen=True)
class Ask:
    choices: tuple[Choice, ...]
    stream: bool
    include_usage: bool = True
    ignored_header: str | None = None
    model: str = "tiny"


NAMES = ("max_tokens", "temperature", "seed", "num_draft_tokens")


def read_chat(body, served):
    options = {k: body[k] for k in NAMES if k in body}
    n = body.get("n", 1)
    return Ask(
        tuple(Choice(body["messages"], options) for _ in range(n)), body.get("stream", False)
    )


def read_completion(body, served):
    options = {k: body[k] for k in NAMES if k in body}
    return Ask((Choice(body["prompt"], options),), body.get("stream", False))


class Answer:
    def __init__(self, ask, id, created):
        self.ask, self.id, self.created = ask, id, created

    def _c(self, choices):
        return {"id": self.id, "created": self.created, "choices": choices}

    def chunk(self, index, chunk):
        found = {"index": index, "delta": {"content": chunk.text}, "finish_reason": None}
        return [self._c([found])]

    def last(self, index, reply):
        return self._c([{"index": index, "delta": {}, "finish_reason": reply.finish_reason}])

    def keep(self, index, chunk):
        pass

    def usage(self, replies):
        return self._c([])

    def whole(self, replies):
        return self._c(
            [
                {
                    "index": i,
                    "message": {"role": "assistant", "content": r.text},
                    "text": r.text,
                    "finish_reason": r.finish_reason,
                }
                for i, r in enumerate(replies)
            ]
        )


def make_answer(ask, request_id, created, served):
    return Answer(ask, request_id, created)
