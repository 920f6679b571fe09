"""The answer to a chat.

A tool call is sent in one delta as soon as its end marker has come: half a call is never sent, so
one that is cut off or cannot be read is no call in a stream either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mtp_mlx.reply import Chunk, Reply, Token
from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.answer import Answer, Json, finish_of
from mtp_mlx.server.wire.asks import Ask
from mtp_mlx.server.wire.logprobs import chat_items
from mtp_mlx.server.wire.trace import Trace
from mtp_mlx.text.calls import ToolCall


@dataclass
class _Choice:
    """Where the reply of one choice of a chat stands."""

    trace: Trace
    has_role: bool = False
    calls: int = 0
    content: list[Token] = field(default_factory=list)
    reasoning: list[Token] = field(default_factory=list)

    def keep(self, chunk: Chunk) -> None:
        """The tokens whose probabilities are told."""
        if chunk.kind == "content":
            self.content += chunk.tokens
        elif chunk.kind == "reasoning":
            self.reasoning += chunk.tokens


class ChatAnswer(Answer):
    """See answer.py."""

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, ask: Ask, request_id: str, created: int, served: Served) -> None:
        super().__init__(ask, request_id, created, served)
        self._choices = [_Choice(Trace(self._speller)) for _ in ask.choices]

    def chunk(self, index: int, chunk: Chunk) -> list[Json]:
        choice = self._choices[index]
        delta = self._delta(choice, chunk)
        kept = _Choice(choice.trace)
        kept.keep(chunk)
        logprobs = self._logprobs(kept)
        traces = self._ask.spec_trace and bool(chunk.tokens or chunk.drafts)
        if choice.has_role and not (delta or traces or (logprobs and kept.content)):
            return []
        if not choice.has_role:
            delta = {"role": "assistant", "content": "", **delta}
            choice.has_role = True
        found = {"index": index, "delta": delta, "finish_reason": None, "logprobs": logprobs}
        if self._ask.spec_trace:
            found["spec"] = choice.trace.of(chunk)
        return [self._frame([found])]

    def last(self, index: int, reply: Reply) -> Json:
        found = {
            "index": index,
            "delta": {},
            "finish_reason": finish_of(reply),
            "logprobs": None,
            "tool_text": reply.tool_text or None,
        }
        rest = self._choices[index].trace.rest()
        if rest is not None:
            found["spec"] = rest
        return self._end(index, reply, found)

    def keep(self, index: int, chunk: Chunk) -> None:
        if self._ask.logprobs is not None:
            self._choices[index].keep(chunk)

    def whole(self, replies: Sequence[Reply]) -> Json:
        choices = [
            {
                "index": index,
                "message": message_of(reply),
                "finish_reason": finish_of(reply),
                "logprobs": self._logprobs(self._choices[index]),
                "tool_text": reply.tool_text or None,
            }
            for index, reply in enumerate(replies)
        ]
        return self._whole(choices, replies)

    def _delta(self, choice: _Choice, chunk: Chunk) -> Json:
        if chunk.kind == "tool":
            first = choice.calls
            choice.calls += len(chunk.calls)
            calls = [{"index": first + at, **call_of(call)} for at, call in enumerate(chunk.calls)]
            return {"tool_calls": calls} if calls else {}
        if not chunk.text:
            return {}
        if chunk.kind == "reasoning":
            return {"reasoning_content": chunk.text, "reasoning": chunk.text}
        return {"content": chunk.text}

    def _logprobs(self, choice: _Choice) -> Json | None:
        """Of the tokens of the text; those of a thought apart, those of tool calls not."""
        if self._ask.logprobs is None:
            return None
        found: Json = {"content": chat_items(self._speller, choice.content), "refusal": None}
        if choice.reasoning:
            found["reasoning"] = chat_items(self._speller, choice.reasoning)
        return found


def message_of(reply: Reply) -> Json:
    """OpenAI's message of a reply. Beside calls, no text is null."""
    calls = [call_of(call) for call in reply.tool_calls]
    return {
        "role": "assistant",
        "content": None if calls and not reply.text else reply.text,
        "reasoning_content": reply.reasoning or None,
        "reasoning": reply.reasoning or None,
        "tool_calls": calls or None,
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
    }


def call_of(call: ToolCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
