"""Is the server well, and would it take a request now?"""

import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mtp_mlx.server.errors import RESTART_S, Refused
from mtp_mlx.server.http.serving import Serving

if TYPE_CHECKING:
    from mtp_mlx.server.http.app import App


def state(serving: Serving | None) -> str:
    """One word: "ok", "loading", "stopped" where the engine has ended, "stuck" where requests are
    open and no step of theirs has ended for long."""
    if serving is None:
        return "loading"
    snapshot = serving.served.llm.snapshot()
    if snapshot.stopped is not None:
        return "stopped"
    is_stuck = snapshot.stalled_s(time.monotonic()) >= serving.limits.stuck_s
    return "stuck" if is_stuck else "ok"


class Health:
    """GET /health, which anybody may read, and GET /ready."""

    def __init__(self, app: "App") -> None:
        self._app = app

    async def health(self, request: Request) -> Response:
        found = state(self._app.current)
        return JSONResponse({"status": found}, 200 if found == "ok" else 503)

    async def ready(self, request: Request) -> Response:
        """200 where a request would be let in now; else the refusal that it would get."""
        serving = self._app.serving()
        serving.desk.check()
        found = state(serving)
        if found != "ok":
            raise Refused(503, "engine_stopped", f"the engine is {found}", retry_after_s=RESTART_S)
        return JSONResponse({"status": "ready"})
