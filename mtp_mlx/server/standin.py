"""STAND-IN for asks.py, answers.py until i6-wire is merged."""

import time
from dataclasses import dataclass
from typing import Any



@dataclass(frozen=True)
class Ask:
    choices: tuple[tuple[Any, dict], ...]
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...] = ()
    model: str = "tiny"


def read_chat(body, served):
    options = {k: body[k] for k in ("max_tokens", "temperature", "seed") if k in body}
    n = body.get("n", 1)
    return Ask(
        tuple((body["messages"], options) for _ in range(n)), body.get("stream", False), True
    )


def read_completion(body, served):
    options = {k: body[k] for k in ("max_tokens", "temperature", "seed") if k in body}
    return Ask(((body["prompt"], options),), body.get("stream", False), True)


class ChatAnswer:
    def __init__(self, ask, id, created, **k):
        self.ask, self.id, self.created = ask, id, created

    def _c(self, choices):
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.ask.model,
            "choices": choices,
        }

    def chunk(self, index, chunk):
        return self._c(
            [
                {
                    "index": index,
                    "delta": {"content": chunk.text},
                    "finish_reason": chunk.finish_reason,
                }
            ]
        )

    def usage(self, replies):
        return self._c([])

    def whole(self, replies):
        return {
            **self._c(
                [
                    {
                        "index": i,
                        "message": {"role": "assistant", "content": r.text},
                        "finish_reason": r.finish_reason,
                    }
                    for i, r in enumerate(replies)
                ]
            ),
            "object": "chat.completion",
        }
