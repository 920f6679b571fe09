"""The answer to a completion: text, in the shape of the old API."""

from collections.abc import Sequence
from dataclasses import dataclass

from mtp_mlx.reply import Chunk, Reply
from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.answer import Answer, Json, finish_of
from mtp_mlx.server.wire.asks import Ask
from mtp_mlx.server.wire.logprobs import Columns, prompt_items
from mtp_mlx.server.wire.prompts import Prompt
from mtp_mlx.server.wire.trace import Trace


@dataclass
class _Choice:
    """Where the text of one choice stands: how long it is, and the figures of its tokens."""

    trace: Trace
    columns: Columns
    length: int = 0
    has_begun: bool = False


class CompletionAnswer(Answer):
    """See answer.py."""

    prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, ask: Ask, request_id: str, created: int, served: Served) -> None:
        super().__init__(ask, request_id, created, served)
        self._choices = [_Choice(Trace(self._speller), Columns(self._speller)) for _ in ask.choices]

    def chunk(self, index: int, chunk: Chunk) -> list[Json]:
        choice = self._choices[index]
        echo = "" if choice.has_begun else self._echo(index)
        frames = [self._frame([self._choice(index, echo, None)])] if echo else []
        choice.columns = Columns(self._speller)
        self.keep(index, chunk)
        if not self._tells(choice, chunk):
            return frames
        found = self._choice(index, chunk.text, None)
        if self._ask.spec_trace:
            found["spec"] = choice.trace.of(chunk)
        return [*frames, self._frame([found])]

    def _tells(self, choice: _Choice, chunk: Chunk) -> bool:
        """Is anything of a chunk to be seen?"""
        traces = self._ask.spec_trace and bool(chunk.tokens or chunk.drafts)
        return not self._ask.drops_reply and bool(chunk.text or choice.columns.tokens or traces)

    def last(self, index: int, reply: Reply) -> Json:
        choice = self._choices[index]
        choice.columns = Columns(self._speller)
        found = self._choice(index, "", finish_of(self._shown(reply)))
        rest = choice.trace.rest()
        if rest is not None:
            found["spec"] = rest
        return self._end(index, reply, found)

    def keep(self, index: int, chunk: Chunk) -> None:
        choice = self._choices[index]
        if not choice.has_begun:
            choice.length, choice.has_begun = len(self._echo(index)), True
        if self._ask.drops_reply:
            return
        if self._ask.logprobs is not None:
            offset = choice.length
            for token in chunk.tokens:
                choice.columns.add(token.id, token.logprob, offset, self._ask.logprobs)
                offset += len(token.text)
        choice.length += len(chunk.text)

    def whole(self, replies: Sequence[Reply]) -> Json:
        shown = [self._shown(reply) for reply in replies]
        choices = []
        for index, reply in enumerate(shown):
            found = self._choice(index, self._echo(index) + reply.text, finish_of(reply))
            if reply.prompt_logprobs:
                self._add_prompt(index, reply, found)
            choices.append(found)
        return self._whole(choices, shown)

    def _choice(self, index: int, text: str, reason: str | None) -> Json:
        columns = self._choices[index].columns
        return {
            "index": index,
            "text": text,
            "finish_reason": reason,
            "logprobs": None if self._ask.logprobs is None else columns.as_json(),
        }

    def _add_prompt(self, index: int, reply: Reply, found: Json) -> None:
        """The figures of the prompt's tokens, in both forms."""
        prompt = self._prompt(index)
        ids, logprobs = self._served.llm.prompt_ids(prompt.given), reply.prompt_logprobs
        count = self._ask.prompt_logprobs
        if count is not None:
            found["prompt_logprobs"] = prompt_items(self._speller, ids, logprobs, count)
        if not self._ask.echo or self._ask.logprobs is None:
            return
        columns, offset = Columns(self._speller), 0
        for token, logprob, part in zip(ids, logprobs, self._speller.parts(ids), strict=True):
            columns.add(token, logprob, offset, self._ask.logprobs)
            offset += len(part)
        written = found["logprobs"]
        found["logprobs"] = {
            name: [*values, *written[name]] for name, values in columns.as_json().items()
        }

    def _prompt(self, index: int) -> Prompt:
        return self._ask.prompts[index // self._ask.n]

    def _echo(self, index: int) -> str:
        """The text of the prompt, where it is to come back."""
        if not self._ask.echo:
            return ""
        given = self._prompt(index).given
        return given if isinstance(given, str) else self._speller.decoded(given)
