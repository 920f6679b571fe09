"""A server in the caller's own process: `mtp_mlx.serve`."""

import logging
import threading
from collections.abc import Sequence
from types import TracebackType

from mtp_mlx.api import LLM
from mtp_mlx.errors import RequestError
from mtp_mlx.server.http.app import make_app
from mtp_mlx.server.http.run import Server as Http
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.process.begin import serve_telling
from mtp_mlx.server.process.listen import is_loopback, listen, url_of
from mtp_mlx.server.served import Served
from mtp_mlx.server.settings import ServerSettings, digest

UNPROTECTED = (
    "serving in this process: an abort of the device, such as a GPU out of memory, ends it; "
    "mtp-mlx serve keeps the model in a process of its own"
)
CLOSE_S = 5.0

logger = logging.getLogger("mtp_mlx.server")


def serve(  # noqa: PLR0913 - keywords, which a user names
    llm: LLM,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    api_keys: Sequence[str] = (),
    served_model_names: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    allowed_origins: Sequence[str] = (),
    ui: bool = True,
    limits: Limits | None = None,
) -> "Server":
    """Serve a loaded pair over HTTP, as `mtp-mlx serve` does, from a thread of this process.

    It has no protection against an abort of the device: when a GPU's command buffer fails, as for
    want of memory, this process ends with it. `mtp-mlx serve` survives that, because its model is
    in a process of its own. The model stays usable, and is not closed with the server.

    port: 0 takes a free one. api_keys: one of them must come with a request; needed where `host`
    lets other machines in. Raises RequestError for such a host without a key, MtpError where the
    address cannot be listened on.
    """
    listener = listen(host, port)
    if not api_keys and not is_loopback(listener):
        listener.close()
        raise RequestError(
            f"host {host} lets other machines in, and there is no API key; give api_keys, or "
            "listen on 127.0.0.1",
            param="host",
        )
    settings = ServerSettings(
        limits=limits or Limits(),
        api_keys=tuple(digest(key) for key in api_keys),
        allowed_hosts=frozenset((host, *allowed_hosts)),
        allowed_origins=frozenset(allowed_origins),
        ui=ui,
    )
    llm.warm()
    url = url_of(listener)
    served = Served.of(llm, names=served_model_names, limits=settings.limits)
    http = Http(make_app(llm, served, settings), settings)
    has_begun = threading.Event()
    arguments = (http, listener, has_begun.set)
    thread = threading.Thread(
        target=serve_telling, args=arguments, name="mtp-mlx-http", daemon=True
    )
    thread.start()
    has_begun.wait()
    logger.warning("%s", UNPROTECTED)
    return Server(url, http, thread)


class Server:
    """A running server and its `url`. A context manager: leaving it closes."""

    def __init__(self, url: str, http: Http, thread: threading.Thread) -> None:
        self.url = url
        self._http = http
        self._thread = thread

    def close(self) -> None:
        """End it; replies that are being written end with an error. Closing twice does nothing."""
        self._http.stop()
        self._thread.join(CLOSE_S)

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
