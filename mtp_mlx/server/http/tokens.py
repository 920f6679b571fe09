"""The endpoints of POST /v1/tokenize and /v1/detokenize."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from mtp_mlx.server.http.body import read_object
from mtp_mlx.server.http.client import Client
from mtp_mlx.server.http.serving import Serving
from mtp_mlx.server.served import Served

Work = Callable[[dict[str, Any], Served], tuple[dict[str, Any], str | None]]


@dataclass(frozen=True)
class Tokens:
    """One of the two; `work` (see tokenizing.py) is done beside the event loop."""

    serving: Callable[[], Serving]
    work: Work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = self.serving()
        body = await read_object(scope, receive, serving.limits)
        client = Client(receive)
        try:
            found, ignored = await serving.beside(client, lambda: self.work(body, serving.served))
        finally:
            client.stop()
        headers = {} if ignored is None else {"x-ignored-fields": ignored}
        await JSONResponse(found, headers=headers)(scope, receive, send)
