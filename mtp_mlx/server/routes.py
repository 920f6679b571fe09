"""Which path does what."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from mtp_mlx.server.errors import Refused
from mtp_mlx.server.generation import Generation
from mtp_mlx.server.standin import read_chat, read_completion

if TYPE_CHECKING:
    from mtp_mlx.server.app import App


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
    chat, completion = Generation(app.serving, read_chat), Generation(app.serving, read_completion)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    routes = [
        Exact(path, endpoint, methods=["POST"])
        for path, endpoint in {
            "/v1/chat/completions": chat,
            "/chat/completions": chat,
            "/v1/completions": completion,
            "/completions": completion,
        }.items()
    ]
    return Router([*routes, Exact("/health", health)], redirect_slashes=False, default=unknown)


async def unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise Refused(404, "not_found", "there is nothing at this path; see GET /openapi.json")
