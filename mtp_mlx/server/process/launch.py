"""What the parent and its child say to each other: lines of JSON over a pair of sockets.

The child is first told what it serves. It answers once, `Ready` or `Failed`; afterwards the parent
may give an `Order`. The end of the pipe is the end of the other side.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from mtp_mlx.errors import MtpError, RequestError
from mtp_mlx.options import Keywords
from mtp_mlx.server.limits import Limits

MAX_LINE_BYTES = 1 << 20


class Order(StrEnum):
    """DRAIN: finish what runs, take nothing new. STOP: end what runs, each with an error."""

    DRAIN = "drain"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a child serves, and how. `loading` holds keywords of load(), `sampling` what a request
    falls back on; keys are known by their SHA-256 alone."""

    loading: dict[str, Any]
    sampling: Keywords = field(default_factory=Keywords)
    limits: Limits = field(default_factory=Limits)
    names: tuple[str, ...] = ()
    accepts_any_model: bool = False
    key_digests: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    has_page: bool = True
    metrics_prefix: str = "mtp_mlx"
    log_level: str = "INFO"
    logs_json: bool = False

    def line(self) -> bytes:
        """As it is sent."""
        return _line(asdict(self))

    @staticmethod
    def of(line: bytes) -> "Launch":
        """As it was sent."""
        given: dict[str, Any] = json.loads(line)
        given["limits"] = Limits(**given["limits"])
        for name, value in given.items():
            if isinstance(value, list):
                given[name] = tuple(value)
        return Launch(**given)


@dataclass(frozen=True)
class Ready:
    """The child answers requests; names of what it loaded."""

    model: str
    draft_model: str | None

    def line(self) -> bytes:
        return _line({"ready": asdict(self)})


@dataclass(frozen=True)
class Failed:
    """The child does not serve, and why: one line, and the exit code of that fault."""

    message: str
    code: str
    status: int
    exit_code: int
    param: str | None = None

    @staticmethod
    def of(error: MtpError) -> "Failed":
        param = error.param if isinstance(error, RequestError) else None
        return Failed(str(error), error.code, error.status, error.exit_code, param)

    def line(self) -> bytes:
        return _line({"failed": asdict(self)})


def read_report(line: bytes) -> Ready | Failed | None:
    """What a child has said; None for the end of its pipe, and for what is no report."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    match said:
        case {"ready": dict(values)}:
            return Ready(**values)
        case {"failed": dict(values)}:
            return Failed(**values)
    return None


def order_line(order: Order) -> bytes:
    """An order as it is sent."""
    return _line({"order": order})


def read_order(line: bytes) -> Order:
    """An order as it was sent; the end of the pipe is STOP: the parent has gone."""
    return Order(json.loads(line)["order"]) if line else Order.STOP


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
