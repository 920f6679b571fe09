"""What a caller gets back: replies, chunks of a stream, and honest counts of the speculation."""

from dataclasses import asdict, dataclass
from typing import Any

from mtp_mlx.request import CacheUse, FinishReason, Logprob, Origin
from mtp_mlx.text.calls import Kind, ToolCall

NOT_READ = CacheUse(0, "the prompt was not read")


@dataclass(frozen=True)
class Token:
    """One emitted token. `text` became showable with it; `position` counts from the prompt's first
    token. `origin`: "prefill", "draft", "target" or "plain" (see request.Tokens). `logprob`: None
    where the request asked for none."""

    id: int
    text: str
    origin: Origin
    position: int
    logprob: Logprob | None = None

    @property
    def from_draft(self) -> bool:
        return self.origin == "draft"


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed reply: tokens of one round and the text they complete.

    `kind`: "content", what the reply says; "reasoning", its thought; "tool", a call as the model
    writes it. A round with several kinds is several chunks. `drafts`: the ids that the drafter
    proposed in this round, with its first chunk; `accepted` of this chunk's tokens are among them.
    `round`: 0 for the prefill's token, then the reply's rounds from 1 on. `calls`: the tool calls
    that are complete with it.
    """

    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason | None = None
    drafts: tuple[int, ...] = ()
    kind: Kind = "content"
    round: int = 0
    calls: tuple[ToolCall, ...] = ()

    @property
    def accepted(self) -> int:
        return sum(token.from_draft for token in self.tokens)


@dataclass(frozen=True)
class Usage:
    """Counts of tokens. `cached_tokens` of the prompt's were not run again (see Reply.cache);
    those of thoughts, their markers too, are among the completion's."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class SpecStats:
    """Speculation of one reply, without prefill and its first token.

    `per_position[i]` counts rounds whose draft i + 1 was accepted and emitted, of the
    `drafted_per_position[i]` that had one; `target_forwards` verify passes this reply took part in;
    `parked` why drafting stopped, if it did.
    """

    rounds: int
    drafted: int
    accepted: int
    per_position: tuple[int, ...]
    drafted_per_position: tuple[int, ...]
    tokens_per_round: float
    target_forwards: int
    parked: str | None = None


@dataclass(frozen=True)
class Timings:
    """Seconds: to the first token, and for the tokens after it. Of those to the first token,
    `queue_s` passed until the request had a row, and `prompt_s` from then on."""

    first_token_s: float
    generation_s: float
    tokens_per_s: float
    queue_s: float = 0.0
    prompt_s: float = 0.0


@dataclass(frozen=True)
class Reply:
    """One finished reply. `token_ids` includes the token that ended it; `text` excludes a stop
    string. `error` says why when finish_reason is "error". `cache`: what earlier texts had left.

    Of a chat, `text` is what the reply says, `reasoning` its thought, `tool_calls` what it wants
    called (then finish_reason is "tool_calls"), and `tool_text` how the model wrote the calls, also
    those that are cut off or cannot be read. `warning`: what a user should know of it, in one line.
    `logprobs` are those of `token_ids`, `prompt_logprobs` those of the prompt's tokens, None for
    the first; each empty where it was not asked for.

    `plain_tokens_per_s`: what the engine's measured costs say that this row would have got without
    drafts, beside the rows it ran with; None where nothing is measured, and without a round.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    seed: int
    spec: SpecStats
    usage: Usage
    timings: Timings
    error: str | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_text: str = ""
    warning: str | None = None
    cache: CacheUse = NOT_READ
    logprobs: tuple[Logprob, ...] = ()
    prompt_logprobs: tuple[Logprob | None, ...] = ()
    plain_tokens_per_s: float | None = None

    def to_message(self) -> dict[str, Any]:
        """The reply as a message, to go on with the chat."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        return message

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of all fields."""
        values = asdict(self)
        values["usage"]["total_tokens"] = self.usage.total_tokens
        return values


@dataclass(frozen=True)
class RoundCosts:
    """Seconds that rounds of the last round's rows take on this machine, as its decision had them:
    `forward_s[n]` a forward with n drafts; drafting takes `depth_s` for each position of the
    deepest row, `token_s` for each draft, and `host_s` once."""

    forward_s: tuple[float, ...]
    depth_s: float
    token_s: float
    host_s: float

    @property
    def plain_tokens_per_s(self) -> float:
        """What each of the rows would get without drafts."""
        return 1 / self.forward_s[0]


@dataclass(frozen=True)
class EngineStats:
    """An engine at one moment: rows by state, K/V bytes set aside (`kv_budget_bytes` None: no
    limit), the last decision on drafts; and since it began: rounds, those without drafts, tokens
    verified (N), rows of rounds, drafts proposed and accepted, tokens of rounds, tokens of prompts
    and those of them that were cached. `prompt_cache_bytes`: K/V kept of earlier texts, of at most
    `prompt_cache_budget_bytes`. `costs`: None where nothing is measured.

    With experts, None without: `experts_per_layer`, distinct ones that a forward read in a layer,
    mean. `expert_overlap_rows`: of the choices of rows beyond the first, each row by its pending
    token alone, the share that an earlier row had made. `expert_overlap_drafts`: of the choices of
    all rows' drafts, rejected ones too, the share that some pending token, of its own row or
    another, or an earlier draft of any row had made: with several rows it is no measure of
    neighbouring positions alone.
    """

    slots: int
    running: int
    prefilling: int
    waiting: int
    kv_reserved_bytes: int
    kv_budget_bytes: int | None
    decision: str | None
    rounds: int
    plain_rounds: int
    verified: int
    rows: int
    drafted: int
    accepted: int
    tokens: int
    prompt_tokens: int
    cached_tokens: int
    prompt_cache_bytes: int
    prompt_cache_budget_bytes: int
    experts_per_layer: float | None
    expert_overlap_rows: float | None
    expert_overlap_drafts: float | None
    costs: RoundCosts | None

    @property
    def is_idle(self) -> bool:
        return not (self.running or self.prefilling or self.waiting)
