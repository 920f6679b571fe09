"""What the server answers to a fault: one function builds every error reply.

The body is OpenAI's, `{"error": {"message", "type", "param", "code"}}`. The openai client sends a
request again after 408, 409, 429, 5xx unless `x-should-retry: false` says that it would fail again.
"""

from dataclasses import dataclass, field
from typing import Any

from mtp_mlx.errors import EngineStopped, MtpError, RequestError

INTERNAL = "the server failed on this request; its log names the fault by this request's id"
STOPPED = "the engine has failed, or was stopped; the server's log says why"
STOPPING = "the server is stopping; try again later"
TRANSIENT_S = 1  # Retry-After, in seconds
RESTART_S = 5  # Retry-After of a server that stops: another may come up


class Refused(Exception):
    """A request that is answered with an error; raised by the server's own parts."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers or {}


@dataclass(frozen=True)
class Answer:
    """A reply: status, JSON body, headers."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def error_answer(error: BaseException) -> Answer:
    """The reply to `error`; what is not ours to explain is a 500 that says nothing of its cause."""
    if isinstance(error, Refused):
        headers = dict(error.headers)
        if error.retry_after_s is not None:
            headers["retry-after"] = str(error.retry_after_s)
        elif error.status in (408, 409, 429) or error.status >= 500:
            headers["x-should-retry"] = "false"
        return Answer(
            error.status, body_of(error.status, error.code, str(error), error.param), headers
        )
    if isinstance(error, EngineStopped):
        # Never again by itself: the request may be what the engine fails on.
        body = body_of(error.status, error.code, STOPPED, None)
        return Answer(error.status, body, {"x-should-retry": "false"})
    if isinstance(error, MtpError) and error.code != MtpError.code:
        param = error.param if isinstance(error, RequestError) else None
        again = {"x-should-retry": "false"} if error.status >= 408 else {}
        return Answer(error.status, body_of(error.status, error.code, str(error), param), again)
    return Answer(500, body_of(500, "internal", INTERNAL, None), {"x-should-retry": "false"})


def body_of(status: int, code: str, message: str, param: str | None) -> dict[str, Any]:
    """The body of an error reply."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
