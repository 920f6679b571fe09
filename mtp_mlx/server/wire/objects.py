"""Replies as objects, for /openapi.json and its tests: what answers.py builds, field by field."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]


class Shown(BaseModel):
    """Every field is always there; null where there is nothing to say."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ErrorBody(Shown):
    """What went wrong."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class Error(Shown):
    """Every error reply."""

    error: ErrorBody


class PromptDetails(Shown):
    cached_tokens: Count
    audio_tokens: Count


class CompletionDetails(Shown):
    reasoning_tokens: Count
    accepted_prediction_tokens: Count
    rejected_prediction_tokens: Count
    audio_tokens: Count


class Usage(Shown):
    """Tokens of the prompt and of the reply. Rejected drafts are in neither."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Timings(Shown):
    """llama.cpp's names."""

    prompt_n: Count
    cache_n: Count
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: Count
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    draft_n: Count
    draft_n_accepted: Count
    draft_rounds: Count


class Speculation(Shown):
    """vLLM's names."""

    mean_acceptance_length: float
    draft_acceptance_rate: float
    acceptance_histogram: dict[str, int]
    num_spec_steps: Count
    num_accepted_draft_tokens: Count
    num_draft_tokens: Count
    num_spec_tokens: Count


class Metrics(Shown):
    speculative_decoding: Speculation


class Cache(Shown):
    hit_tokens: Count
    miss_reason: str | None


class Mtp(Shown):
    """What only this server tells."""

    seed: Count
    exactness: Literal["A", "B", "C"] | None
    parked: str | None
    plain_tps_estimate: float | None
    queue_ms: float
    warning: str | None
    cache: Cache


class TopLogprob(Shown):
    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Shown):
    """`reasoning` is there where tokens of a thought are."""

    content: list[TokenLogprob]
    refusal: None
    reasoning: list[TokenLogprob] | None = None


class CalledFunction(Shown):
    name: str
    arguments: str


class ToolCall(Shown):
    id: str
    type: Literal["function"]
    function: CalledFunction


class ToolCallDelta(ToolCall):
    index: Count


class Message(Shown):
    role: Literal["assistant"]
    content: str | None
    reasoning_content: str | None
    reasoning: str | None
    tool_calls: list[ToolCall] | None
    refusal: None
    annotations: list[Any]
    audio: None
    function_call: None


class ChatChoice(Shown):
    """`tool_text`: how the model wrote its calls, also those that cannot be read."""

    index: Count
    message: Message
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: ChatLogprobs | None
    tool_text: str | None


class Head(Shown):
    """What begins every reply and chunk."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: None


class Figures(Shown):
    usage: Usage
    timings: Timings
    metrics: Metrics
    mtp: Mtp


class ChatCompletion(Head, Figures):
    """A whole reply to a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class Rejected(Shown):
    id: Count
    text: str


class Spec(Shown):
    """spec_trace: `spans` are [start, end, origin] in bytes of this delta's text; origins are d for
    an accepted draft, t for the target's token after drafts, p for one without."""

    round: Count
    drafted: Count
    accepted: Count
    spans: list[list[int | str]]
    rejected: list[Rejected]


class Delta(Shown):
    """Fields that are not there say nothing."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Shown):
    index: Count
    delta: Delta
    finish_reason: Literal["stop", "length", "tool_calls"] | None
    logprobs: ChatLogprobs | None
    tool_text: str | None = None
    spec: Spec | None = None


class LastFigures(Shown):
    """With the chunk that ends a stream."""

    usage: Usage | None = None
    timings: Timings | None = None
    metrics: Metrics | None = None
    mtp: Mtp | None = None


class ChatChunk(Head, LastFigures):
    """A chunk of a streamed chat."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]


class TextLogprobs(Shown):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[Count]


class PromptLogprob(Shown):
    logprob: float
    rank: int | None
    decoded_token: str


class TextChoice(Shown):
    index: Count
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: TextLogprobs | None
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None


class Completion(Head, Figures):
    """A whole reply to a prompt."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class TextChunkChoice(Shown):
    index: Count
    text: str
    finish_reason: Literal["stop", "length"] | None
    logprobs: TextLogprobs | None
    spec: Spec | None = None


class TextChunk(Head, LastFigures):
    """A chunk of a streamed completion."""

    object: Literal["text_completion"]
    choices: list[TextChunkChoice]


class Model(Shown):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: Count
    max_model_len: Count
    draft_model: str | None


class Models(Shown):
    object: Literal["list"]
    data: list[Model]


class Tokenized(Shown):
    count: Count
    max_model_len: Count
    tokens: list[Count]
    token_strs: list[str] | None


class Detokenized(Shown):
    prompt: str


class Health(BaseModel):
    """How the server is."""

    model_config = ConfigDict(strict=True, extra="allow")
    status: str
