"""What a caller asks of the engine, and what it reports back. Token ids only, no text."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mtp_mlx.errors import ContextLengthExceeded, RequestError
from mtp_mlx.fields import shown

if TYPE_CHECKING:
    import numpy as np

# Below this temperature sampling is greedy.
GREEDY_BELOW = 1e-5
MAX_SEED = 2**63 - 1
MOST_TOKENS = 1 << 31
# Drafts a round at most: a verify block of 8 is the widest that fused attention takes.
MAX_DRAFT_TOKENS = 7
# Drafts a round of an "auto" request where no policy decides.
AUTO_DRAFT_TOKENS = 3
MAX_REPETITION = 10.0
MAX_PENALTY = 2.0  # of presence and frequency, either way
MAX_BIAS = 100.0
MAX_BIASES = 1024
MAX_LOGPROBS = 20
# A token that cannot come has no finite log-probability, and JSON has no infinity.
LOGPROB_FLOOR = -9999.0

# "tool_calls" is said of replies alone: the engine reads no text, and says "stop".
FinishReason = Literal["stop", "length", "tool_calls", "error", "cancelled"]
Origin = Literal["prefill", "draft", "target", "plain"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen: processors, then filters in the order temperature, top_k, top_p,
    min_p, then noise.

    Processors change the scores of greedy rows too: `logit_bias` adds to those of its ids;
    `repetition_penalty` divides what is positive and multiplies what is negative of tokens that
    prompt or reply hold; `presence_penalty` is taken from tokens of the reply, `frequency_penalty`
    as often as they came; `banned` ids are never chosen.

    top_k 0, top_p 1 and min_p 0 switch a filter off, 1, 0 and 0 the penalties; temperature 0 is
    greedy; `seed` keys the noise. Raises RequestError naming the value that is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    banned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        plain = {
            "temperature": check_number("temperature", self.temperature, 0.0, 1e4),
            "top_k": check_integer("top_k", self.top_k, 0, 1 << 30),
            "top_p": check_number("top_p", self.top_p, 0.0, 1.0),
            "min_p": check_number("min_p", self.min_p, 0.0, 1.0),
            "seed": check_integer("seed", self.seed, 0, MAX_SEED),
            "repetition_penalty": check_number(
                "repetition_penalty", self.repetition_penalty, 0.0, MAX_REPETITION
            ),
            "presence_penalty": _check_penalty("presence_penalty", self.presence_penalty),
            "frequency_penalty": _check_penalty("frequency_penalty", self.frequency_penalty),
            "logit_bias": _check_biases(self.logit_bias),
        }
        for name in ("top_p", "repetition_penalty"):
            if plain[name] == 0.0:
                raise RequestError(f"{name} must be above 0, found 0", param=name)
        for name, value in plain.items():  # NumPy's numbers become Python's
            object.__setattr__(self, name, value)

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def repeats_matter(self) -> bool:
        """Does the choice depend on how often tokens came before?"""
        return self.repetition_penalty != 1.0 or bool(
            self.presence_penalty or self.frequency_penalty
        )

    @property
    def has_processors(self) -> bool:
        """Are scores changed before the filters?"""
        return self.repeats_matter or bool(self.logit_bias or self.banned)


def _check_penalty(param: str, value: Any) -> float:
    return check_number(param, value, -MAX_PENALTY, MAX_PENALTY)


def _check_biases(pairs: Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Ids and their biases; whether the model has such ids, check_request knows."""
    found: dict[int, float] = {}
    for token, bias in pairs:
        if not _is_integer(token, 0, MOST_TOKENS):
            raise RequestError(
                f"logit_bias names {shown(token)}; token ids are integers from 0",
                param="logit_bias",
            )
        if token in found:
            raise RequestError(f"logit_bias names token {token} twice", param="logit_bias")
        what = f"logit_bias of token {token}"
        found[int(token)] = check_number("logit_bias", bias, -MAX_BIAS, MAX_BIAS, what)
    if len(found) > MAX_BIASES:
        raise RequestError(
            f"logit_bias has {len(found):,} entries; at most {MAX_BIASES:,} are taken",
            param="logit_bias",
        )
    return tuple(found.items())


def check_number(param: str, value: Any, low: float, high: float, what: str | None = None) -> float:
    """`value` as a float; raises RequestError unless it is a number from low to high. `what` names
    it, where that is not `param`."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # NaN fails the comparison
        raise RequestError(
            f"{what or param} must be a number from {low:g} to {high:g}, found {shown(value)}",
            param=param,
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


class Constraint(Protocol):
    """Which tokens may come next: the state of one reply, used on the engine's thread alone."""

    def masks(self, drafts: Sequence[int]) -> "np.ndarray":
        """uint32 [len(drafts) + 1, ceil(V / 32)]: bit t % 32 of word t // 32 of row i: may token t
        come at place i, given drafts[:i]? Rows behind a forbidden draft are never reached, and hold
        whatever."""
        ...

    def take(self, tokens: Sequence[int]) -> None:
        """Committed tokens, in order; raises where one is not allowed."""
        ...


def nothing_allowed(num_emitted: int) -> RequestError:
    """The error of a reply that may go on with no token."""
    return RequestError(
        f"the constraint allows no token after {num_emitted:,} tokens of the reply; loosen it, or "
        "take back the bans that it meets",
        param="response_format",
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    """One sequence to generate.

    `prompt` token ids, at least one; `max_tokens` new tokens at most; `stop_ids` end the reply and
    are part of it; `num_draft_tokens` drafts a round, 0 for plain decoding, None for as many as the
    policy finds worth it; `cache`: take up what is kept of earlier texts, and keep this one.
    `is_end` is called once for each emitted token, in order, and answers whether the reply ends
    with it (stop strings). `thinking`: the budget of its thoughts. `constraint`: which tokens may
    come, a state that belongs to this request alone. `logprobs`: log-probabilities of each emitted
    token and of so many best ones; `prompt_logprobs`: the same of the prompt's tokens.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    max_tokens: int
    stop_ids: frozenset[int] = frozenset()
    num_draft_tokens: int | None = 0
    cache: bool = True
    is_end: Callable[[int], bool] = never
    thinking: Thinking = NO_BUDGET
    constraint: Constraint | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    @property
    def may_cache(self) -> bool:
        """May earlier texts be taken up? What is not read again has no scores."""
        return self.cache and self.prompt_logprobs is None


def check_request(request: Request, vocab_size: int, context: int) -> None:
    """Raise RequestError where ids, lengths or counts are out of range."""
    check_token_ids("prompt", request.prompt, vocab_size)
    check_token_ids("stop_ids", tuple(request.stop_ids), vocab_size)
    _check_scores(request, vocab_size)
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


def _check_scores(request: Request, vocab_size: int) -> None:
    """Ids and counts of what changes or reports scores."""
    sampling = request.sampling
    check_token_ids("logit_bias", tuple(token for token, _ in sampling.logit_bias), vocab_size)
    check_token_ids("banned", sampling.banned, vocab_size)
    if len(set(sampling.banned)) == vocab_size:
        raise RequestError(
            f"banned names all {vocab_size:,} tokens; leave one that may come", param="banned"
        )
    for name, count in (
        ("logprobs", request.logprobs),
        ("prompt_logprobs", request.prompt_logprobs),
    ):
        if count is not None:
            check_integer(name, count, 0, MAX_LOGPROBS)


@dataclass(frozen=True)
class Logprob:
    """The log-probability of a token, and the likeliest at its place with theirs, best first, of
    equal ones the lowest id first. Of the target's own scores: before bias, penalties, bans,
    constraint and temperature."""

    logprob: float
    top: tuple[tuple[int, float], ...]

    @staticmethod
    def of(value: float, best: Iterable[tuple[int, float]], count: int) -> "Logprob":
        """From the values of the `count` or more best, in any order."""
        order = sorted(best, key=lambda pair: (-pair[1], pair[0]))[:count]
        top = tuple((token, max(own, LOGPROB_FLOOR)) for token, own in order)
        return Logprob(max(value, LOGPROB_FLOOR), top)


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
    `logprobs` are those of the ids, where the request asked. `cache_use` comes with the prefill's
    token alone, as do `prompt_logprobs`: one for each token of the prompt, None for the first.
    """

    request_id: int
    ids: tuple[int, ...]
    origins: tuple[Origin, ...]
    drafts: tuple[int, ...]
    accepted: int
    cache_use: CacheUse | None = None
    logprobs: tuple[Logprob, ...] = ()
    prompt_logprobs: tuple[Logprob | None, ...] = ()

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
