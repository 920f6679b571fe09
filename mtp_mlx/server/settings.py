"""How one server is set up: its limits, who may ask, what it shows."""

import hashlib
from dataclasses import dataclass, field

from mtp_mlx.server.limits import Limits

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """`api_keys` are digests (see `digest`); without one, no key is asked for. `allowed_hosts` are
    names in a Host header beyond those of loopback, with a port or for any; `allowed_origins` are
    pages of elsewhere that may call, spelled as browsers do (`https://app.example`)."""

    limits: Limits = field(default_factory=Limits)
    api_keys: tuple[bytes, ...] = ()
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()
    ui: bool = True
    metrics_prefix: str = "mtp_mlx"


def digest(key: str | bytes) -> bytes:
    """What is kept of an API key."""
    return hashlib.sha256(key if isinstance(key, bytes) else key.encode()).digest()
