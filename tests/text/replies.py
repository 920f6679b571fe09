"""Replies replayed from token ids: what a job makes of them, in rounds of any size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mtp_mlx.asked import Asked
from mtp_mlx.embedded import embedded_folder
from mtp_mlx.generation import Defaults
from mtp_mlx.job import Job
from mtp_mlx.options import Keywords, Options
from mtp_mlx.reply import Chunk, Reply
from mtp_mlx.request import Finished, FinishReason, Tokens
from mtp_mlx.text.calls import Kind
from mtp_mlx.text.parts import Markers
from mtp_mlx.text.tokenizer import Tokenizer

PROMPT = (2, 9)


@cache
def tokenizer() -> Tokenizer:
    """That of the built-in pairs: Gemma 4's control tokens, and pieces for all bytes."""
    return Tokenizer.from_folder(embedded_folder("tiny"))


def ids_of(text: str) -> list[int]:
    """The ids of a reply whose control tokens are spelled."""
    return tokenizer().encode_template(text)


@dataclass(frozen=True)
class Replayed:
    """The chunks of a stream, and the reply."""

    chunks: list[Chunk]
    reply: Reply

    def joined(self, kind: Kind) -> str:
        return "".join(chunk.text for chunk in self.chunks if chunk.kind == kind)

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [(call.name, call.arguments) for call in self.reply.tool_calls]

    @property
    def parts(self) -> tuple[str, str, str, list[tuple[str, str]], str | None]:
        """All that the model's ids alone decide."""
        reply = self.reply
        return reply.text, reply.reasoning, reply.tool_text, self.calls, reply.warning


def replay(  # noqa: PLR0913 - keywords
    ids: Sequence[int],
    cuts: Sequence[int] = (),
    *,
    reason: FinishReason = "stop",
    tools: Sequence[str] = (),
    before: Sequence[int] = (),
    is_raw: bool = False,
    is_single_call: bool = False,
    **options,
) -> Replayed:
    """What a chat makes of `ids`, a round ending before each of `cuts` (ascending) and at the end.

    tools: names that may be called; before: the end of the prompt that leaves a thought open.
    """
    asked = Asked(
        PROMPT,
        Markers.of(tokenizer()),
        frozenset(tools),
        tuple(before),
        is_single_call=is_single_call,
    )
    asked = Asked(PROMPT) if is_raw else asked
    made = Options.of(Keywords(max_tokens=len(ids) + 1, **options))
    job = Job(asked, made, Defaults(), tokenizer())
    start, is_over = 0, False
    for end in [*cuts, len(ids)]:
        part = []
        for token in ids[start:end]:
            part.append(token)
            is_over = job.request.is_end(token)
            if is_over:
                break
        drafts = (7,) * len(part)
        job.feed(Tokens(1, tuple(part), ("target",) * len(part), drafts, 0))
        start = end
        if is_over:
            break
    job.feed(Finished(1, reason))
    chunks = []
    while (chunk := job.take()) is not None:
        chunks.append(chunk)
    return Replayed(chunks, job.reply())
