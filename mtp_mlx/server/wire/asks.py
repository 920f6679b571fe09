"""From the body of a generating request to what the Python API takes, one prompt a choice."""

import secrets
from dataclasses import dataclass
from typing import Any, NamedTuple

from mtp_mlx.errors import RequestError
from mtp_mlx.options import Keywords
from mtp_mlx.request import MAX_SEED
from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.chats import chat_options, plain_messages
from mtp_mlx.server.wire.fields import CHAT_ONLY, COMMON, COMPLETION_ONLY, Unhonoured
from mtp_mlx.server.wire.nested import check_nested, nested_unknown
from mtp_mlx.server.wire.options import common_options
from mtp_mlx.server.wire.prompts import Prompt, read_prompts
from mtp_mlx.server.wire.reading import Json, as_model, header_of, open_body, unknown
from mtp_mlx.server.wire.requests import ChatRequest, CompletionRequest, Generation

CHAT_FIELDS = {**COMMON, **CHAT_ONLY}
COMPLETION_FIELDS = {**COMMON, **COMPLETION_ONLY}
DRAWN_SEEDS = 2**53  # a reply tells its seed, and JavaScript rounds what is larger


class Choice(NamedTuple):
    """What `LLM.prepare(prompt, **options)` gets."""

    prompt: Any
    options: Keywords


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request that was read. Choice i answers prompt i // n with the seed `seed` + i.

    `logprobs`: alternatives shown for each token, None for no logprobs at all; `prompt_logprobs`
    the same of the prompt, as vLLM shows them. `prompts` are those of a completion; `echo`: they
    come back before the replies. `drops_reply`: max_tokens was 0; the engine writes at least one
    token, so one is asked for and neither shown nor counted. `ignored`: names that nobody defines.
    """

    is_chat: bool
    choices: tuple[Choice, ...]
    model: str
    seed: int
    n: int
    stream: bool
    include_usage: bool
    spec_trace: bool
    ignored: tuple[str, ...]
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    prompts: tuple[Prompt, ...] = ()
    echo: bool = False
    drops_reply: bool = False

    @property
    def ignored_header(self) -> str | None:
        """The value of X-Ignored-Fields, None where nothing was left aside."""
        return header_of(self.ignored)


def read_chat(body: object, served: Served) -> Ask:
    """POST /v1/chat/completions. Raises RequestError, and Refused for a model not served."""
    given = open_body(body, CHAT_FIELDS)
    check_nested(given, served.limits)
    asked = as_model(ChatRequest, given)
    served.check_name(asked.model)
    logprobs = _chat_logprobs(asked)
    options = common_options(asked, served) | chat_options(asked, given)
    if logprobs is not None:
        options["logprobs"] = logprobs
    messages = plain_messages(asked.messages)
    n = _choices(asked, 1, served)
    return _ask(asked, given, CHAT_FIELDS, served, [(messages, options)] * n, logprobs=logprobs)


def read_completion(body: object, served: Served) -> Ask:
    """POST /v1/completions. Raises as `read_chat`."""
    given = open_body(body, COMPLETION_FIELDS)
    check_nested(given, served.limits)
    asked = as_model(CompletionRequest, given)
    served.check_name(asked.model)
    prompts = read_prompts(asked.prompt, served)
    n = _choices(asked, len(prompts), served)
    options = common_options(asked, served) | _completion_options(asked)
    return _ask(
        asked,
        given,
        COMPLETION_FIELDS,
        served,
        [(prompt.given, options) for prompt in prompts for _ in range(n)],
        logprobs=asked.logprobs,
        prompt_logprobs=asked.prompt_logprobs,
        prompts=tuple(prompts),
        echo=bool(asked.echo),
        drops_reply=asked.max_tokens == 0,
    )


def _ask(
    asked: Generation,
    given: Json,
    refused: dict[str, Unhonoured],
    served: Served,
    pairs: list[tuple[Any, Json]],
    **shown: Any,
) -> Ask:
    seed = secrets.randbelow(DRAWN_SEEDS - len(pairs)) if asked.seed is None else asked.seed
    if seed + len(pairs) - 1 > MAX_SEED:
        raise RequestError(
            f"seed must be at most {MAX_SEED} less the number of choices, found {seed}",
            param="seed",
        )
    stream, of_stream = bool(asked.stream), asked.stream_options
    for name in ("stream_options", "spec_trace"):
        if given.get(name) and not stream:
            raise RequestError(f'{name} is for streams; give "stream": true', param=name)
    ignored = unknown(type(asked), given, refused) + nested_unknown(given)
    return Ask(
        is_chat=isinstance(asked, ChatRequest),
        choices=tuple(
            Choice(prompt, Keywords(**{**options, "seed": seed + at}))
            for at, (prompt, options) in enumerate(pairs)
        ),
        model=served.id,
        seed=seed,
        n=asked.n or 1,
        stream=stream,
        include_usage=bool(of_stream and of_stream.include_usage),
        spec_trace=bool(asked.spec_trace),
        ignored=tuple(ignored),
        **shown,
    )


def _choices(asked: Generation, prompts: int, served: Served) -> int:
    """Choices a prompt. Raises RequestError for more than the server could ever take at once."""
    n = asked.n or 1
    if n > served.slots:
        raise RequestError(
            f"n must be at most {served.slots}, the rows of this server, found {n}", param="n"
        )
    most = served.slots + served.limits.queue
    if n * prompts > most:
        raise RequestError(
            f"prompt must have at most {most // n} texts for {n} choices each, found {prompts}",
            param="prompt",
        )
    return n


def _chat_logprobs(asked: ChatRequest) -> int | None:
    if not asked.logprobs:
        if asked.top_logprobs:
            raise RequestError('top_logprobs needs "logprobs": true', param="top_logprobs")
        return None
    return asked.top_logprobs or 0


def _completion_options(asked: CompletionRequest) -> Json:
    options: Json = {}
    of_prompt = [asked.prompt_logprobs, asked.logprobs if asked.echo else None]
    most = max((count for count in of_prompt if count is not None), default=None)
    if most is not None and asked.stream:
        raise RequestError(
            "logprobs of a prompt come with the whole reply; leave stream out",
            param="prompt_logprobs" if asked.prompt_logprobs is not None else "echo",
        )
    if most is not None:
        options["prompt_logprobs"] = most
    if asked.logprobs is not None:
        options["logprobs"] = asked.logprobs
    if asked.max_tokens == 0:
        if not asked.echo:
            raise RequestError(
                'max_tokens must be at least 1, found 0; 0 is for "echo": true', param="max_tokens"
            )
        options |= {"max_tokens": 1, "num_draft_tokens": 0}
    return options
