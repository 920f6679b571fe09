"""The options of one generation: keywords of the API, resolved against the defaults."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, TypedDict, TypeVar

from mtp_mlx.constraint.schema import read_response_format
from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown
from mtp_mlx.generation import Defaults
from mtp_mlx.request import (
    MAX_DRAFT_TOKENS,
    MAX_LOGPROBS,
    MAX_SEED,
    MOST_TOKENS,
    Sampling,
    check_integer,
)
from mtp_mlx.text.choice import ToolChoice, read_tool_choice
from mtp_mlx.text.messages import read_tools, tool_names

Value = TypeVar("Value")

MAX_TIMEOUT_S = 7 * 24 * 3600
MAX_ID_DIGITS = 10


class Keywords(TypedDict, total=False):
    """Keywords of every generating method; None or absent takes the checkpoint's default.

    `stop`: strings that end the reply and are left out of its text. `num_draft_tokens`: drafts a
    round, 0 for plain decoding, "auto" for as many as pay. `max_tokens` None: 4,096 or the rest of
    the context. `seed` None: drawn from the system, reported in Reply.seed. `timeout`: seconds from
    the call until the reply must be complete, or it fails with TimedOut. `cache`: whether it takes
    up what is kept of earlier texts, and is kept itself (True). `response_format`: the form of the
    reply, as OpenAI has it: {"type": "json_object"}, or {"type": "json_schema", "json_schema":
    {"name": ..., "schema": ...}}, which every token is held to; a thought that comes first is free.

    Of the target's scores, before temperature and filters: `logit_bias` (id -> -100 to 100) is
    added; `repetition_penalty` (above 0, at most 10; 1 is off) weakens tokens of prompt and reply,
    `presence_penalty` and `frequency_penalty` (-2 to 2; 0 is off) those of the reply, once and as
    often as they came. `logprobs` (0 to 20): each token's log-probability by the raw scores, with
    so many best alternatives; `prompt_logprobs`: the same of a raw prompt's tokens, all of which
    are then read, whatever is kept of earlier texts.

    For messages alone: `tools` are functions the model may call, in OpenAI's form or bare; `think`
    lets it think first; `thinking_budget` is how many tokens all its thoughts may have together, 0
    or more; `preserve_thinking` keeps earlier thoughts in the prompt, where the template can.
    `tool_choice`: "auto", "none", "required" (the reply is a call that can be read, of one of the
    tools), or {"type": "function", "function": {"name": ...}}. `parallel_tool_calls` False ends the
    reply with its first call.
    """

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    max_tokens: int | None
    stop: str | Sequence[str] | None
    num_draft_tokens: int | str | None
    timeout: float | None
    cache: bool | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int | str, float] | None
    logprobs: int | None
    prompt_logprobs: int | None
    response_format: Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    think: bool | None
    thinking_budget: int | None
    preserve_thinking: bool | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """See Keywords."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: str | Sequence[str] | None = ()
    num_draft_tokens: int | str | None = "auto"
    timeout: float | None = None
    cache: bool | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int | str, float] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    response_format: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    think: bool | None = False
    thinking_budget: int | None = None
    preserve_thinking: bool | None = False

    @staticmethod
    def of(values: Keywords) -> "Options":
        """Options from keywords; a name that is none raises TypeError."""
        known = [field.name for field in fields(Options)]
        for name in values:
            if name not in known:
                raise TypeError(f"unknown option {name!r}; options are {', '.join(known)}")
        return Options(**values)

    def sampling(self, defaults: Defaults) -> Sampling:
        """How to choose tokens. Raises RequestError for a value out of range."""
        seed = secrets.randbelow(MAX_SEED) if self.seed is None else self.seed
        return Sampling(
            temperature=_or(self.temperature, defaults.temperature),
            top_k=_or(self.top_k, defaults.top_k),
            top_p=_or(self.top_p, defaults.top_p),
            min_p=_or(self.min_p, defaults.min_p),
            seed=seed,
            repetition_penalty=_or(self.repetition_penalty, 1.0),
            presence_penalty=_or(self.presence_penalty, 0.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
            logit_bias=self.biases(),
        )

    def biases(self) -> tuple[tuple[int, float], ...]:
        """What is added to the scores of tokens; JSON spells their ids as strings."""
        if self.logit_bias is None:
            return ()
        if not isinstance(self.logit_bias, Mapping):
            raise RequestError(
                f"logit_bias must map token ids to biases, found {shown(self.logit_bias)}",
                param="logit_bias",
            )
        return tuple((_token_id(key), bias) for key, bias in self.logit_bias.items())

    def scores(self, name: Literal["logprobs", "prompt_logprobs"]) -> int | None:
        """How many best tokens are reported beside each, None for no scores at all."""
        value = self.logprobs if name == "logprobs" else self.prompt_logprobs
        return None if value is None else check_integer(name, value, 0, MAX_LOGPROBS)

    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(stop, list | tuple) or not all(isinstance(s, str) for s in stop):
            raise RequestError(f"stop must be strings, found {shown(self.stop)}", param="stop")
        return tuple(stop)

    def draft_tokens(self) -> int | None:
        """Drafts a round, None for "auto"."""
        if self.num_draft_tokens is None or self.num_draft_tokens == "auto":
            return None
        if isinstance(self.num_draft_tokens, str):
            raise RequestError(
                f"num_draft_tokens must be 'auto' or 0 to {MAX_DRAFT_TOKENS}, "
                f"found {shown(self.num_draft_tokens)}",
                param="num_draft_tokens",
            )
        return check_integer("num_draft_tokens", self.num_draft_tokens, 0, MAX_DRAFT_TOKENS)

    def timeout_s(self) -> float | None:
        """Seconds until the deadline. Raises RequestError for what is no positive number."""
        value = self.timeout
        if value is None:
            return None
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not 0 < value <= MAX_TIMEOUT_S:
            raise RequestError(
                f"timeout must be seconds, above 0 and at most {MAX_TIMEOUT_S:,}, "
                f"found {shown(value)}",
                param="timeout",
            )
        return float(value)

    def declared(self) -> list[dict[str, Any]]:
        """The tools in OpenAI's form. Raises RequestError for what is no tool."""
        return [] if self.tools is None else read_tools(self.tools)

    def schema(self) -> dict[str, Any] | None:
        """The JSON schema that the reply must meet, None for text. Raises RequestError."""
        return read_response_format(self.response_format)

    def calling(self) -> ToolChoice:
        """Which tools may be called. Raises RequestError."""
        choice = read_tool_choice(self.tool_choice, tool_names(self.declared()))
        if choice.must_call and self.schema() is not None:
            raise RequestError(
                "tool_choice requires a call and response_format JSON, and a reply cannot be both; "
                "leave one of them out",
                param="tool_choice",
            )
        return choice

    def is_single_call(self) -> bool:
        """Does the reply end with its first call? Raises RequestError."""
        value = self.parallel_tool_calls
        if value is not None and not isinstance(value, bool):
            raise RequestError(
                f"parallel_tool_calls must be true or false, found {shown(value)}",
                param="parallel_tool_calls",
            )
        if value is not None and not self.declared():
            raise RequestError(
                "parallel_tool_calls needs tools, and there are none; leave it out",
                param="parallel_tool_calls",
            )
        return value is False

    def flag(self, name: Literal["think", "preserve_thinking"]) -> bool:
        """Whether `name` is switched on."""
        value = self.think if name == "think" else self.preserve_thinking
        if value is not None and not isinstance(value, bool):
            raise RequestError(f"{name} must be true or false, found {shown(value)}", param=name)
        return bool(value)

    def budget(self) -> int | None:
        """Tokens that thoughts may have, None for no limit."""
        if self.thinking_budget is None:
            return None
        return check_integer("thinking_budget", self.thinking_budget, 0, MOST_TOKENS)

    def check_chat(self) -> None:
        """Raises RequestError for an option that a chat cannot honour."""
        if self.scores("prompt_logprobs") is not None:
            raise RequestError(
                "prompt_logprobs is for raw prompts, and these are messages; send text or token "
                "ids, or leave it out",
                param="prompt_logprobs",
            )

    def check_raw(self) -> None:
        """Raises RequestError for an option that a prompt without messages cannot honour."""
        asked = {
            "tools": bool(self.declared()),
            "tool_choice": self.tool_choice is not None,
            "parallel_tool_calls": self.parallel_tool_calls is not None,
            "think": self.flag("think"),
            "thinking_budget": self.budget() is not None,
            "preserve_thinking": self.flag("preserve_thinking"),
        }
        for name, is_asked in asked.items():
            if is_asked:
                raise RequestError(
                    f"{name} needs a chat, and this prompt is raw; send messages "
                    "(no --ignore-chat-template, no --prompt-ids)",
                    param=name,
                )

    def may_cache(self) -> bool:
        """Whether earlier texts may be taken up. Raises RequestError for what is no bool."""
        if not isinstance(self.cache, bool | None):
            raise RequestError(
                f"cache must be True or False, found {shown(self.cache)}", param="cache"
            )
        return self.cache is not False

    @property
    def asks_for_drafts(self) -> bool:
        """True for an explicit number of drafts, which a model without drafter cannot give."""
        return isinstance(self.num_draft_tokens, int) and self.num_draft_tokens > 0


def read_biases(text: str) -> dict[str, float]:
    """Biases by token id as they are typed: a JSON object, or ID:BIAS, several between commas.

    Raises RequestError.
    """
    try:
        if text.lstrip().startswith("{"):
            pairs = json.loads(text, object_pairs_hook=list)  # a dict keeps the last of equal names
        else:
            split = [part.split(":") for part in text.split(",")]
            pairs = [(token.strip(), float(bias)) for token, bias in split]
        if not all(isinstance(bias, int | float) for _, bias in pairs):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"logit_bias must be ID:BIAS such as 5:-2.5, several between commas, or a JSON object, "
            f"found {shown(text)}",
            param="logit_bias",
        ) from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError(
            f"logit_bias names a token twice, found {shown(text)}; name it once", param="logit_bias"
        )
    return found


def _token_id(key: int | str) -> int:
    """Raises RequestError for a text that names no token; Sampling looks at all else."""
    if not isinstance(key, str):
        return key
    if not (key.isascii() and key.isdecimal() and len(key) <= MAX_ID_DIGITS):
        raise RequestError(
            f"logit_bias names {shown(key)}, which is no token id; ids are whole numbers from 0",
            param="logit_bias",
        )
    return int(key)


def _or(value: Value | None, default: Value) -> Value:
    return default if value is None else value
