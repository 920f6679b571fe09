"""POST /v1/tokenize and /v1/detokenize in vLLM's shapes: ids as the engine sees them."""

from collections.abc import Mapping
from typing import Any

from mtp_mlx.errors import RequestError
from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.chats import plain_messages, thinking_options
from mtp_mlx.server.wire.fields import TOKENIZE, Unhonoured
from mtp_mlx.server.wire.logprobs import Speller
from mtp_mlx.server.wire.nested import check_nested, nested_unknown
from mtp_mlx.server.wire.reading import Json, as_model, header_of, open_body, unknown
from mtp_mlx.server.wire.requests import DetokenizeRequest, TokenizeRequest
from mtp_mlx.text.messages import read_tools

DETOKENIZE: Mapping[str, Unhonoured] = {}


def tokenize(body: object, served: Served) -> tuple[Json, str | None]:
    """The reply, and the value of X-Ignored-Fields. Long texts take long: not for an event loop.

    Raises RequestError, and Refused for a model that is not served.
    """
    given = open_body(body, TOKENIZE)
    check_nested(given, served.limits)
    asked = as_model(TokenizeRequest, given)
    served.check_name(asked.model)
    ids = _chat_ids(asked, given, served) if asked.prompt is None else _text_ids(asked, served)
    speller = Speller(served.llm.tokenizer)
    pieces = [speller.text(token) for token in ids] if asked.return_token_strs else None
    ignored = (*unknown(TokenizeRequest, given, TOKENIZE), *nested_unknown(given))
    found = {
        "count": len(ids),
        "max_model_len": served.context_length,
        "tokens": ids,
        "token_strs": pieces,
    }
    return found, header_of(ignored)


def _text_ids(asked: TokenizeRequest, served: Served) -> list[int]:
    assert asked.prompt is not None
    if asked.messages is not None:
        raise RequestError("give a prompt or messages, not both", param="prompt")
    if asked.add_special_tokens is False:
        return served.llm.tokenizer.encode(asked.prompt)
    return served.llm.prompt_ids(asked.prompt)


def _chat_ids(asked: TokenizeRequest, given: Json, served: Served) -> list[int]:
    if asked.messages is None:
        raise RequestError("prompt is missing; give a prompt, or messages", param="prompt")
    if asked.add_special_tokens:
        raise RequestError(
            "add_special_tokens is for a prompt; the chat template writes those of messages",
            param="add_special_tokens",
        )
    options: dict[str, Any] = thinking_options(asked)
    tools = read_tools(given.get("tools", []))
    if tools:
        options["tools"] = tools
    return served.llm.prompt_ids(plain_messages(asked.messages), **options)


def detokenize(body: object, served: Served) -> tuple[Json, str | None]:
    """The text of ids, control tokens spelled out; see `tokenize`."""
    given = open_body(body, DETOKENIZE)
    asked = as_model(DetokenizeRequest, given)
    served.check_name(asked.model)
    last = served.llm.tokenizer.vocab_size - 1
    for at, token in enumerate(asked.tokens):
        if token > last:
            raise RequestError(
                f"tokens[{at}] must be a token id with a text, 0 to {last}, found {token}",
                param=f"tokens[{at}]",
            )
    text = served.llm.tokenizer.decode(asked.tokens, skip_special=False)
    return {"prompt": text}, header_of(tuple(unknown(DetokenizeRequest, given, DETOKENIZE)))
