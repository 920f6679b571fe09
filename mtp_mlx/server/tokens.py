"""POST /v1/tokenize and /v1/detokenize: ids as the engine reads them."""

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown
from mtp_mlx.request import check_token_ids
from mtp_mlx.server.body import read_object
from mtp_mlx.server.client import Client
from mtp_mlx.server.serving import Serving


class Tokens:
    """One of the two endpoints; `work` is done beside the event loop."""

    def __init__(
        self, serving: Callable[[], Serving], work: Callable[[Serving, dict], dict]
    ) -> None:
        self._serving = serving
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = self._serving()
        body = await read_object(scope, receive, serving.limits)
        client = Client(receive)
        try:
            found = await serving.beside(client, lambda: self._work(serving, body))
        finally:
            client.stop()
        await JSONResponse(found)(scope, receive, send)


def tokenize(serving: Serving, body: dict[str, Any]) -> dict[str, Any]:
    """The ids of `prompt`, a text with its BOS, or of `messages`, rendered."""
    _check(serving, body, {"model", "prompt", "messages", "tools"})
    given = [name for name in ("prompt", "messages") if body.get(name) is not None]
    if len(given) != 1:
        raise RequestError("give a prompt or messages, one of the two", param="prompt")
    prompt = body[given[0]]
    kind = str if given == ["prompt"] else list
    if not isinstance(prompt, kind) or (kind is list and not prompt):
        what = "a text" if kind is str else "a list of messages"
        raise RequestError(f"{given[0]} must be {what}, found {shown(prompt)}", param=given[0])
    if kind is list and not all(isinstance(message, dict) for message in prompt):
        raise RequestError("messages must hold objects", param="messages")
    tools = {"tools": body["tools"]} if body.get("tools") is not None else {}
    ids = serving.served.llm.prompt_ids(prompt, **tools)
    return {"tokens": ids, "count": len(ids), "max_model_len": serving.served.context_length}


def detokenize(serving: Serving, body: dict[str, Any]) -> dict[str, Any]:
    """The text of `tokens`."""
    _check(serving, body, {"model", "tokens"})
    tokens = body.get("tokens")
    if not isinstance(tokens, list):
        raise RequestError(f"tokens must be a list of ids, found {shown(tokens)}", param="tokens")
    llm = serving.served.llm
    check_token_ids("tokens", tokens, llm.config.vocab_size)
    return {"prompt": llm.tokenizer.decode(tokens)}


def _check(serving: Serving, body: dict[str, Any], known: set[str]) -> None:
    for name in body:
        if name not in known:
            raise RequestError(f"there is no field {shown(name)} here", param=str(name)[:64])
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise RequestError(f"model must be a name, found {shown(model)}", param="model")
    serving.served.check_name(model)
