"""The application: the shell around the routes, and the model once it is loaded."""

from starlette.types import Receive, Scope, Send

from mtp_mlx.api import LLM
from mtp_mlx.server.errors import Refused
from mtp_mlx.server.http.desk import Desk
from mtp_mlx.server.http.guard import Guard
from mtp_mlx.server.http.routes import router
from mtp_mlx.server.http.serving import Serving
from mtp_mlx.server.http.shell import Shell
from mtp_mlx.server.metrics import Metrics
from mtp_mlx.server.served import Served
from mtp_mlx.server.settings import ServerSettings
from mtp_mlx.server.status import Facts

LOADING_S = 2  # Retry-After


class App:
    """An ASGI application. It answers before a model is there: 503 until `open` was called."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._serving: Serving | None = None
        self._shell = Shell(router(self), Guard(settings), self._refused)

    def open(self, llm: LLM, served: Served) -> None:
        """Serve this model from now on; any thread may call it."""
        limits = self.settings.limits
        metrics = Metrics(llm, self.settings.metrics_prefix, served.id)
        facts = Facts(
            model=served.id,
            draft_model=served.draft_model,
            exactness=served.exactness,
            queue_limit=limits.queue,
        )
        self._serving = Serving(served, limits, Desk(served.slots, limits, metrics), facts)

    @property
    def current(self) -> Serving | None:
        """What is served; None while it is being loaded."""
        return self._serving

    def serving(self) -> Serving:
        """What is served. Raises Refused while it is being loaded."""
        if self._serving is None:
            raise Refused(
                503, "model_loading", "the model is being loaded", retry_after_s=LOADING_S
            )
        return self._serving

    def _refused(self, code: str) -> None:
        if self._serving is not None:
            self._serving.desk.metrics.refused(code)

    def close(self) -> None:
        """The server has ended."""
        if self._serving is not None:
            self._serving.close()

    async def drain(self) -> None:
        """Let nobody in; returns when all have left."""
        if self._serving is not None:
            await self._serving.desk.drain()

    def cut_off(self) -> None:
        """End every reply now."""
        if self._serving is not None:
            self._serving.desk.cut_off()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._shell(scope, receive, send)


def make_app(llm: LLM, served: Served, settings: ServerSettings) -> App:
    """The application that serves a loaded pair."""
    app = App(settings)
    app.open(llm, served)
    return app
