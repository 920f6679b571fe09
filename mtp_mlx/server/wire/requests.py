"""The bodies of requests: types and ranges, from which /openapi.json is made too.

Every field may be null, which is as if it were absent. Names that nobody defines are allowed.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from mtp_mlx.request import MAX_DRAFT_TOKENS, MAX_LOGPROBS, MAX_SEED, MOST_TOKENS
from mtp_mlx.text.transcript import MAX_STOP_CHARS, MAX_STOPS

MAX_MESSAGES, MAX_TOOLS = 2048, 128
MAX_LOGIT_BIAS = 1024
TOKEN_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
TEXTS = {"type": "array", "minItems": 1, "items": {"type": "string"}}
PROMPT = {
    "description": "A text, a list of texts, token ids, or a list of lists of token ids.",
    "anyOf": [
        {"type": "string"},
        TEXTS,
        TOKEN_IDS,
        {"type": "array", "minItems": 1, "items": TOKEN_IDS},
    ],
}

Tokens = Annotated[int, Field(ge=1, lt=MOST_TOKENS)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TOKEN_ID = r"^[0-9]{1,9}$"
NAME = r"""^[^\s(){}\[\]<>,"']{1,128}$"""
PATTERNS = {
    TOKEN_ID: "a token id",
    NAME: "a name of up to 128 characters, without spaces, quotes, commas and brackets",
}
TokenId = Annotated[str, Field(pattern=TOKEN_ID)]
Name = Annotated[str, Field(pattern=NAME)]


class Body(BaseModel):
    """Strict types: "5" and true are no numbers."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Part(Body):
    """A piece of a message."""

    type: Literal["text"]
    text: str


Content = str | Annotated[list[Part], Field(min_length=1)]


class Said(Body):
    """A message of a user, or of the system."""

    role: Literal["system", "developer", "user"]
    content: Content
    name: str | None = None


class Called(Body):
    """A function and the JSON text of its arguments."""

    name: str
    arguments: str | dict[str, Any] | None = None


class PastCall(Body):
    """A call that the model made earlier."""

    id: str | None = None
    type: Literal["function"] | None = None
    function: Called


class Written(Body):
    """A message that the model wrote earlier."""

    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[PastCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ToolAnswer(Body):
    """What a tool answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str | None = None
    name: str | None = None


Message = Annotated[Said | Written | ToolAnswer, Field(discriminator="role")]


class Function(Body):
    """What a tool is."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] | None = None


class Tool(Body):
    """A function that the model may call."""

    type: Literal["function"]
    function: Function


class Named(Body):
    """The name of a function."""

    name: str


class NamedChoice(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: Named


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class JsonObject(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class Schema(Body):
    """A JSON schema and its name."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchema(Body):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: Schema


Format = Annotated[TextFormat | JsonObject | JsonSchema, Field(discriminator="type")]


class StreamOptions(Body):
    """What a stream holds."""

    include_usage: bool | None = Field(None, description="End with a chunk of the figures.")
    include_obfuscation: bool | None = None
    continuous_usage_stats: Literal[False] | None = None


class TemplateValues(Body):
    """Variables of the chat template."""

    enable_thinking: bool | None = None
    preserve_thinking: bool | None = None


class Generation(Body):
    """What all generating requests have."""

    model: str | None = Field(None, description="A name of /v1/models; absent: the served one.")
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = Field(None, description="The same as max_tokens.")
    temperature: float | None = Field(None, ge=0, le=1e4)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1 << 30, description="0 or -1: off.")
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Choice i uses seed + i.")
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    n: int | None = Field(None, ge=1, description="At most as many as the server has rows.")
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[TokenId, Bias] | None = Field(None, max_length=MAX_LOGIT_BIAS)
    response_format: Format | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = Field(None, description="With stream alone.")
    num_draft_tokens: Annotated[int, Field(ge=0, le=MAX_DRAFT_TOKENS)] | Literal["auto"] | None = (
        Field(None, description='Drafts a round: "auto", or 0 for plain decoding.')
    )
    draft_model: str | None = Field(None, description='The loaded drafter\'s name, or "none".')
    spec_trace: bool | None = Field(None, description="Each chunk says where its tokens are from.")
    cache: bool | None = Field(None, description="Take up and keep texts for later prompts.")


class ChatRequest(Generation):
    """POST /v1/chat/completions"""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        Field(None, description='"none" switches thinking off, all others on.')
    )
    enable_thinking: bool | None = None
    chat_template_kwargs: TemplateValues | None = None
    thinking_budget: int | None = Field(None, ge=0, le=MOST_TOKENS)


class CompletionRequest(Generation):
    """POST /v1/completions"""

    prompt: Annotated[Any, WithJsonSchema(PROMPT)]
    max_tokens: Annotated[int, Field(ge=0, lt=MOST_TOKENS)] | None = Field(
        None, description="0 with echo alone: the prompt comes back, and nothing is written."
    )
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)


class TokenizeRequest(Body):
    """POST /v1/tokenize: the ids of a prompt, or of messages."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    enable_thinking: bool | None = None
    chat_template_kwargs: TemplateValues | None = None
    add_special_tokens: bool | None = Field(None, description="Begin a prompt with BOS: true.")
    return_token_strs: bool | None = None


class DetokenizeRequest(Body):
    """POST /v1/detokenize"""

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0)]]
