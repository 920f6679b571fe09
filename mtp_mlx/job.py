"""One request as the API follows it: events in, chunks and the final reply out.

`feed` is called by the engine's thread alone; any thread may take chunks and wait for the end.
"""

import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from mtp_mlx.asked import Asked
from mtp_mlx.errors import MtpError, RequestError
from mtp_mlx.fields import shown_name
from mtp_mlx.generation import Defaults
from mtp_mlx.options import Options
from mtp_mlx.reply import NOT_READ, Chunk, Reply, SpecStats, Timings, Token, Usage
from mtp_mlx.request import (
    Constraint,
    Event,
    Failed,
    Finished,
    FinishReason,
    Logprob,
    Progress,
    Request,
    Tokens,
)
from mtp_mlx.spans import Spans
from mtp_mlx.text.calls import Kind, ToolCall
from mtp_mlx.text.parts import Piece
from mtp_mlx.text.tokenizer import Tokenizer

# New tokens for max_tokens=None; the rest of the context where that is shorter.
DEFAULT_MAX_TOKENS = 4096
ID_BYTES = 12  # of the made-up id of a tool call


class Job:
    """A request with its transcript, statistics and the chunks nobody has taken yet."""

    def __init__(
        self,
        asked: Asked,
        options: Options,
        defaults: Defaults,
        tokenizer: Tokenizer,
        constraint: Constraint | None = None,
    ) -> None:
        """`constraint` is that of `asked`'s grammar; it belongs to this job alone."""
        self.sampling = replace(options.sampling(defaults), banned=asked.banned)
        self.prompt = asked.ids
        self.request_id = 0  # the engine's; its ids begin at 1
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self.progress: Progress | None = None  # the last; None while it waits for a row
        self._tools = asked.tools
        self._parts = asked.parts(tokenizer, options.stops())
        self._num_pieces = tokenizer.vocab_size
        self._pieces: deque[list[Piece]] = deque()  # of each token that no event has told of yet
        self._ids: list[int] = []
        self._logprobs: list[Logprob] = []
        self._prompt_logprobs: tuple[Logprob | None, ...] = ()
        self._rounds: list[tuple[int, int]] = []  # drafted, accepted
        self._gaps: list[float] = []
        self._parked: str | None = None
        self._texts: dict[Kind, list[str]] = {"content": [], "reasoning": [], "tool": []}
        self._num_reasoning = 0
        self._calls: tuple[ToolCall, ...] = ()
        self._cache = NOT_READ
        self._started = time.perf_counter()
        self._heard = self._started
        self._admitted: float | None = None
        self._plain_tokens_per_s: float | None = None
        self._first: float | None = None
        self._last = self._started
        self._timeout = options.timeout_s()
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._notify: Callable[[], None] | None = None
        if options.max_tokens is None and not defaults.eos_ids:
            raise RequestError(
                "no file of this model names a token that ends a reply; give max_tokens",
                param="max_tokens",
            )
        limit = DEFAULT_MAX_TOKENS if options.max_tokens is None else options.max_tokens
        self.request = Request(
            prompt=self.prompt,
            sampling=self.sampling,
            max_tokens=limit,
            stop_ids=frozenset(defaults.eos_ids) | tokenizer.tool_answer_ids,
            num_draft_tokens=options.draft_tokens(),
            cache=options.may_cache(),
            is_end=self._is_end,
            thinking=asked.thinking(options.budget()),
            logprobs=options.scores("logprobs"),
            prompt_logprobs=options.scores("prompt_logprobs"),
            constraint=constraint,
        )

    def _is_end(self, token: int) -> bool:
        # Embedding tables are padded: an id beyond the tokenizer's last has no text.
        has_text = token < self._num_pieces
        self._pieces.append(self._parts.push(token) if has_text else [Piece(self._parts.kind, "")])
        return self._parts.is_stopped

    @property
    def is_done(self) -> bool:
        """Has it ended? Then all its chunks are ready."""
        return self._ended.is_set()

    def wait(self) -> None:
        """Until it has ended."""
        self._ended.wait()

    def is_late(self, now: float) -> bool:
        """Is `now`, on the monotonic clock, past the deadline?"""
        return self._deadline is not None and now >= self._deadline

    @property
    def timeout_message(self) -> str:
        return f"the reply was not complete after {self._timeout:g} s; give more time or less to do"

    @property
    def silent_s(self) -> float:
        """Seconds since the engine last said anything of it, or since it was made."""
        return time.perf_counter() - self._heard

    @property
    def gaps(self) -> tuple[float, ...]:
        """Seconds between the first token and the first round's, that and the second's, ..."""
        return tuple(self._gaps)

    def take(self, wait: bool = True) -> Chunk | None:
        """The next chunk, None after the last. Raises queue.Empty where it should not wait."""
        chunk = self._chunks.get(block=wait)
        if chunk is None:
            self._chunks.put(None)  # whoever asks again hears the same
        return chunk

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call `notify` on the engine's thread after each chunk from now on, and once now."""
        self._notify = notify
        notify()

    def feed(self, event: Event) -> None:
        """Take one event of this request."""
        self._heard = time.perf_counter()
        match event:
            case Progress():
                self.progress = event
                if self._admitted is None:
                    self._admitted = event.at
            case Tokens():
                self._feed_tokens(event)
            case Finished():
                self._parked = event.parked
                self._plain_tokens_per_s = event.plain_tokens_per_s
                self._end(event.reason)
            case Failed():
                self.error = event.error
                self._end("error")

    def abort(self, error: Exception) -> None:
        """End it with an error and nothing else, if it has not ended: for one that cannot take an
        event."""
        if not self.is_done:
            self.error, self.finish_reason = error, "error"
            self._put(Chunk("", (), "error", round=len(self._rounds)))

    def _feed_tokens(self, event: Tokens) -> None:
        if self._first is None:
            self._first = self._heard
        else:
            self._gaps.append(self._heard - self._last)
        self._last = self._heard
        start = len(self.prompt) + len(self._ids)
        self._ids.extend(event.ids)
        if event.cache_use is not None:
            self._cache, self._prompt_logprobs = event.cache_use, event.prompt_logprobs
        if event.origins[:1] != ("prefill",):
            self._rounds.append((event.drafted, event.accepted))
        self._logprobs.extend(event.logprobs)
        spans = Spans(len(self._rounds))
        scores = event.logprobs or [None] * len(event.ids)
        rows = zip(event.ids, event.origins, scores, strict=True)
        for index, (token, origin, score) in enumerate(rows):
            first, *others = self._pieces.popleft()
            spans.add(first.kind, Token(token, first.text, origin, start + index, score))
            self._num_reasoning += first.kind == "reasoning"
            for piece in others:
                spans.add_text(piece)
        for chunk in spans.chunks(event.drafts, self._new_calls()):
            self._emit(chunk)

    def _new_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls that are complete since the last time."""
        fresh = tuple(
            ToolCall(f"call_{secrets.token_hex(ID_BYTES)}", name, arguments)
            for name, arguments in self._parts.calls[len(self._calls) :]
        )
        self._calls += fresh
        return fresh

    def _end(self, reason: FinishReason) -> None:
        rest = self._parts.finish(is_cut=reason != "stop")
        calls = self._new_calls()
        reason = "tool_calls" if reason == "stop" and self._calls else reason
        last = rest.pop() if rest else Piece("content", "")
        for piece in rest:
            self._emit(Chunk(piece.text, (), kind=piece.kind, round=len(self._rounds)))
        self.finish_reason = reason
        done = len(self._rounds)
        self._emit(Chunk(last.text, (), reason, kind=last.kind, round=done, calls=calls))

    def _emit(self, chunk: Chunk) -> None:
        self._texts[chunk.kind].append(chunk.text)
        self._put(chunk)

    def _put(self, chunk: Chunk) -> None:
        self._chunks.put(chunk)
        if self.finish_reason is not None:
            self._chunks.put(None)
            self._ended.set()
        if self._notify is not None:
            self._notify()

    @property
    def usage(self) -> Usage:
        """Tokens so far, in chunks that were taken or not."""
        cached = self._cache.cached_tokens
        return Usage(len(self.prompt), len(self._ids), cached, self._num_reasoning)

    def reply(self) -> Reply:
        """The finished reply."""
        self.wait()
        assert self.finish_reason is not None
        return Reply(
            text="".join(self._texts["content"]),
            token_ids=tuple(self._ids),
            finish_reason=self.finish_reason,
            seed=self.sampling.seed,
            spec=self._spec(),
            usage=self.usage,
            timings=self._timings(),
            error=None if self.error is None else str(self.error),
            reasoning="".join(self._texts["reasoning"]),
            tool_calls=self._calls,
            tool_text="".join(self._texts["tool"]),
            warning=self._warning(),
            cache=self._cache,
            logprobs=tuple(self._logprobs),
            prompt_logprobs=self._prompt_logprobs,
            plain_tokens_per_s=self._plain_tokens_per_s,
        )

    def _timings(self) -> Timings:
        first = self._last if self._first is None else self._first
        seconds = self._last - first
        later = max(len(self._ids) - 1, 0)
        end = self._heard if self._first is None else self._first
        admitted = end if self._admitted is None else self._admitted
        return Timings(
            first_token_s=first - self._started,
            generation_s=seconds,
            tokens_per_s=later / seconds if seconds else 0.0,
            queue_s=admitted - self._started,
            prompt_s=end - admitted,
        )

    def _warning(self) -> str | None:
        """What a user should know of the reply, in one line."""
        found = []
        if self.finish_reason in ("length", "stop") and self._parts.kind == "reasoning":
            remedy = "raise max_tokens, or " if self.finish_reason == "length" else ""
            found.append(
                f"the reply ended inside its thought, after {len(self._ids):,} tokens; "
                f"{remedy}give a thinking_budget"
            )
        if self._parts.unread is not None:
            call = shown_name(self._parts.unread)
            found.append(f"a tool call is cut off or cannot be read, so there is none: {call}")
        unknown = sorted({call.name for call in self._calls} - self._tools)
        if unknown:
            names = shown_name(", ".join(unknown))
            found.append(f"the model called what is not among the tools: {names}")
        return "; ".join(found) or None

    def _spec(self) -> SpecStats:
        rounds = len(self._rounds)
        deepest = max((drafted for drafted, _ in self._rounds), default=0)
        later = max(len(self._ids) - 1, 0)
        return SpecStats(
            rounds=rounds,
            drafted=sum(drafted for drafted, _ in self._rounds),
            accepted=sum(accepted for _, accepted in self._rounds),
            per_position=tuple(
                sum(accepted > place for _, accepted in self._rounds) for place in range(deepest)
            ),
            drafted_per_position=tuple(
                sum(drafted > place for drafted, _ in self._rounds) for place in range(deepest)
            ),
            tokens_per_round=later / rounds if rounds else 0.0,
            target_forwards=rounds,
            parked=self._parked,
        )

    def raise_error(self) -> None:
        """Raise the error that ended this job, if one did."""
        if self.error is not None:
            if isinstance(self.error, MtpError):
                raise self.error
            raise MtpError(str(self.error)) from self.error
