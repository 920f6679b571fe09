"""Which path does what. What is not here does not exist: nothing loads, pulls, removes, stops."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from mtp_mlx.fields import shown_name
from mtp_mlx.server.errors import Refused
from mtp_mlx.server.http.generation import Generation
from mtp_mlx.server.http.health import Health
from mtp_mlx.server.http.static import Page
from mtp_mlx.server.http.tokens import Tokens
from mtp_mlx.server.metrics import CONTENT_TYPE
from mtp_mlx.server.settings import ServerSettings
from mtp_mlx.server.status import status
from mtp_mlx.server.wire.asks import read_chat, read_completion
from mtp_mlx.server.wire.openapi import document
from mtp_mlx.server.wire.tokenizing import detokenize, tokenize

if TYPE_CHECKING:
    from mtp_mlx.server.http.app import App

CHAT = "use POST /v1/chat/completions"
# Paths of OpenAI, of other makers and of other servers that clients try.
ELSEWHERE = {
    "/v1/responses": CHAT,
    "/responses": CHAT,
    "/v1/messages": CHAT,
    "/v1/messages/count_tokens": "use POST /v1/tokenize",
    "/v1/embeddings": "this server makes no embeddings",
    "/v1/moderations": "this server moderates nothing",
    "/v1/images/generations": "this server makes no images",
    "/v1/audio/speech": "this server reads text only",
    "/v1/audio/transcriptions": "this server reads text only",
    "/v1/files": "this server keeps no files",
    "/v1/batches": "send the requests themselves, to POST /v1/chat/completions",
    "/v1/assistants": CHAT,
    "/v1/threads": CHAT,
    "/v1/engines": "use GET /v1/models",
    "/v1": "use POST /v1/chat/completions or GET /v1/models",
    "/api/chat": CHAT,
    "/api/generate": "use POST /v1/completions",
    "/api/tags": "use GET /v1/models",
    "/completion": "use POST /v1/completions",
    "/tokenize": "use POST /v1/tokenize",
    "/detokenize": "use POST /v1/detokenize",
    "/version": "use GET /v1/status",
}


class Exact(Route):
    """A route whose refusal of a method is answered like every other fault."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.methods and scope["method"] not in self.methods:
            allowed = ", ".join(sorted({*self.methods, "OPTIONS"}))
            raise Refused(
                405, "method_not_allowed", f"this path takes {allowed}", headers={"allow": allowed}
            )
        await self.app(scope, receive, send)


def router(app: "App") -> Router:
    """All routes; the same under the names that mlx-lm gives them."""
    chat, completion = Generation(app.serving, read_chat), Generation(app.serving, read_completion)
    health, models, figures = Health(app), Models(app), Figures(app)
    posts = {
        "/v1/chat/completions": chat,
        "/chat/completions": chat,
        "/v1/completions": completion,
        "/completions": completion,
        "/v1/tokenize": Tokens(app.serving, tokenize),
        "/v1/detokenize": Tokens(app.serving, detokenize),
    }
    gets: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/health": health.health,
        "/ready": health.ready,
        "/openapi.json": Document(app.settings).get,
        "/metrics": figures.metrics,
        "/v1/status": figures.status,
        "/v1/models": models.all,
        "/models": models.all,
        "/v1/models/{model:path}": models.one,
        "/models/{model:path}": models.one,
    }
    if app.settings.ui:
        page = Page.read()
        gets["/"], gets["/page/{name:path}"] = page.first, page.file
    routes = [Exact(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
    routes += [Exact(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
    return Router(routes, redirect_slashes=False, default=unknown)


class Models:
    """GET /v1/models and /v1/models/ID."""

    def __init__(self, app: "App") -> None:
        self._app = app

    async def all(self, request: Request) -> Response:
        return JSONResponse(self._app.serving().served.models())

    async def one(self, request: Request) -> Response:
        served = self._app.serving().served
        served.check_name(request.path_params["model"])
        return JSONResponse(served.model())


class Document:
    """GET /openapi.json"""

    def __init__(self, settings: ServerSettings) -> None:
        self._found = document(has_keys=bool(settings.api_keys), has_page=settings.ui)

    async def get(self, request: Request) -> Response:
        return JSONResponse(self._found)


class Figures:
    """GET /metrics and /v1/status."""

    def __init__(self, app: "App") -> None:
        self._app = app

    async def metrics(self, request: Request) -> Response:
        metrics = self._app.serving().desk.metrics
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    async def status(self, request: Request) -> Response:
        serving = self._app.serving()
        desk, snapshot = serving.desk, serving.served.llm.snapshot()
        return JSONResponse(status(snapshot, serving.facts, desk.metrics, desk.names()))


async def unknown(scope: Scope, receive: Receive, send: Send) -> None:
    """404, with what to use instead where that is known."""
    path = scope["path"]
    if path in ELSEWHERE:
        raise Refused(404, "not_found", f"{path} is not served here: {ELSEWHERE[path]}")
    raise Refused(
        404, "not_found", f"there is nothing at {shown_name(path)}; see GET /openapi.json"
    )
