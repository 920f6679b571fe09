"""What a caller asks of the engine, and what it reports back. Token ids only, no text."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Literal

from mtp_mlx.errors import ContextLengthExceeded, RequestError
from mtp_mlx.fields import shown

# Below this temperature sampling is greedy.
GREEDY_BELOW = 1e-5
MAX_SEED = 2**63 - 1
MOST_TOKENS = 1 << 31
# Drafts a round at most: a verify block of 8 is the widest that fused attention takes.
MAX_DRAFT_TOKENS = 7
# Drafts a round of an "auto" request where no policy decides.
AUTO_DRAFT_TOKENS = 3

# "tool_calls" is said of replies alone: the engine reads no text, and says "stop".
FinishReason = Literal["stop", "length", "tool_calls", "error", "cancelled"]
Origin = Literal["prefill", "draft", "target", "plain"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen: filters in the order temperature, top_k, top_p, min_p, then noise.

    top_k 0, top_p 1 and min_p 0 switch a filter off; temperature 0 is greedy; `seed` keys the
    noise. Raises RequestError naming the value that is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        plain = {
            "temperature": check_number("temperature", self.temperature, 0.0, 1e4),
            "top_k": check_integer("top_k", self.top_k, 0, 1 << 30),
            "top_p": check_number("top_p", self.top_p, 0.0, 1.0),
            "min_p": check_number("min_p", self.min_p, 0.0, 1.0),
            "seed": check_integer("seed", self.seed, 0, MAX_SEED),
        }
        if plain["top_p"] == 0.0:
            raise RequestError("top_p must be above 0, found 0", param="top_p")
        for name, value in plain.items():  # NumPy's numbers become Python's
            object.__setattr__(self, name, value)

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


def check_number(param: str, value: Any, low: float, high: float) -> float:
    """`value` as a float; raises RequestError unless it is a number from low to high."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # NaN fails the comparison
        raise RequestError(
            f"{param} must be a number from {low:g} to {high:g}, found {shown(value)}", param=param
        )
    return float(value)


def check_integer(param: str, value: Any, low: int, high: int) -> int:
    """`value` as an int; raises RequestError unless it is an integer from low to high."""
    if not _is_integer(value, low, high):
        raise RequestError(
            f"{param} must be an integer from {low} to {high}, found {shown(value)}", param=param
        )
    return int(value)


def _is_integer(value: Any, low: int, high: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= value <= high


def check_token_ids(param: str, ids: object, vocab_size: int) -> None:
    """Raise RequestError unless `ids` is a sequence of ids that the embedding table holds."""
    if not isinstance(ids, list | tuple):
        raise RequestError(f"{param} must be a list of token ids, found {shown(ids)}", param=param)
    for index, token in enumerate(ids):
        if not _is_integer(token, 0, vocab_size - 1):
            raise RequestError(
                f"{param}[{index}] is {shown(token)}; token ids of this model go from 0 to "
                f"{vocab_size - 1}",
                param=param,
            )


def never(token: int) -> bool:
    """A stop test that never stops."""
    return False


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """A budget of thinking, and where a reply stands with it.

    A thought begins with the token `opens` and ends with `closes`, or with `calls` (None: no token
    is that), which begins a tool call. Inside one, each token but these takes one of `left`; when
    none is left, the target's choice can only be `closes`. So the rule belongs to the target's
    choice, as a stop token does, and drafts change nothing in it.
    """

    opens: int
    closes: int
    left: int
    is_open: bool = False
    calls: int | None = None

    @property
    def is_spent(self) -> bool:
        """May the next token be `closes` alone?"""
        return self.is_open and self.left == 0

    def choice(self, own: int) -> int:
        """The target's choice, when `own` is what it would choose without the budget."""
        return self.closes if self.is_spent else own

    def after(self, token: int) -> "Thinking":
        """Where the reply stands with one token more."""
        if token in (self.opens, self.closes, self.calls):
            return replace(self, is_open=token == self.opens)
        return replace(self, left=self.left - 1) if self.is_open else self


NO_BUDGET = Thinking(opens=-1, closes=-1, left=0)  # of no token, so no thought ever begins


@dataclass(frozen=True, kw_only=True)
class Request:
    """One sequence to generate.

    `prompt` token ids, at least one; `max_tokens` new tokens at most; `stop_ids` end the reply and
    are part of it; `num_draft_tokens` drafts a round, 0 for plain decoding, None for as many as the
    policy finds worth it; `cache`: take up what is kept of earlier texts, and keep this one.
    `is_end` is called once for each emitted token, in order, and answers whether the reply ends
    with it (stop strings). `thinking`: the budget of its thoughts.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    max_tokens: int
    stop_ids: frozenset[int] = frozenset()
    num_draft_tokens: int | None = 0
    cache: bool = True
    is_end: Callable[[int], bool] = never
    thinking: Thinking = NO_BUDGET


def check_request(request: Request, vocab_size: int, context: int) -> None:
    """Raise RequestError where ids, lengths or counts are out of range."""
    check_token_ids("prompt", request.prompt, vocab_size)
    check_token_ids("stop_ids", tuple(request.stop_ids), vocab_size)
    check_integer("max_tokens", request.max_tokens, 1, MOST_TOKENS)
    if request.thinking != NO_BUDGET:
        asked = request.thinking
        markers = [asked.opens, asked.closes, *([] if asked.calls is None else [asked.calls])]
        check_token_ids("thinking", markers, vocab_size)
        check_integer("thinking_budget", request.thinking.left, 0, MOST_TOKENS)
    if request.num_draft_tokens is not None:
        check_integer("num_draft_tokens", request.num_draft_tokens, 0, MAX_DRAFT_TOKENS)
    if not request.prompt:
        raise RequestError("the prompt is empty; give at least one token", param="prompt")
    if len(request.prompt) >= context:
        raise ContextLengthExceeded(
            f"the prompt has {len(request.prompt):,} tokens, the context is {context:,}; "
            "shorten it",
            param="prompt",
        )


@dataclass(frozen=True)
class CacheUse:
    """Tokens of a prompt whose K/V an earlier text had left; `miss_reason`: why no more of them,
    None where nothing longer was ever kept."""

    cached_tokens: int
    miss_reason: str | None


@dataclass(frozen=True)
class Progress:
    """So many of a prompt's tokens are read: 0 when the request gets its row, then those that the
    prompt cache had, if any, then so many after each chunk. `at`: when, in seconds of
    time.perf_counter, for events are handed over at the end of a step."""

    request_id: int
    done: int
    total: int
    at: float = field(default_factory=time.perf_counter, compare=False)


@dataclass(frozen=True)
class Tokens:
    """Tokens emitted by one round (or by prefill: its first token).

    `origins[i]`: "prefill", "draft" (proposed and accepted), "target" (ends a round with drafts),
    "plain" (a round without). `drafts` are the round's proposals in their order, of which the first
    `accepted` were emitted; on MLX an unusable one (from NaN, or no token) stands there as 0. A
    round that was dropped, because a draft led the target to NaN, has drafts and no tokens.
    `cache_use` comes with the prefill's token alone.
    """

    request_id: int
    ids: tuple[int, ...]
    origins: tuple[Origin, ...]
    drafts: tuple[int, ...]
    accepted: int
    cache_use: CacheUse | None = None

    @property
    def drafted(self) -> int:
        return len(self.drafts)


@dataclass(frozen=True)
class Finished:
    """The request ended; nothing follows for it. `parked`: why its drafting stopped, if it did.
    `plain_tokens_per_s`: see reply.Reply; a measured figure, and no part of the outcome."""

    request_id: int
    reason: FinishReason
    parked: str | None = None
    plain_tokens_per_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Failed:
    """The request ended with an error; the tokens reported before stand."""

    request_id: int
    error: Exception


Event = Progress | Tokens | Finished | Failed
