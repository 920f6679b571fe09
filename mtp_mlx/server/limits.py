"""What the server takes at most: sizes in bytes, times in seconds, counts."""

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Defaults are those of the command line.

    `body_idle_s` passes between two pieces of a body, `body_s` over all of it; `queue_s` is how
    long a request waits for a row, `request_s` until its reply is complete, `stall_s` without a
    token or a part of its prompt; within `write_s` a client must read `stream_bytes`, or all that
    waits for it. `drain_s`: running replies have so long after SIGTERM. A server whose rows take no
    step for `stuck_s` is not healthy.
    """

    body_bytes: int = 8 * MIB
    header_bytes: int = 16 * KIB
    header_lines: int = 64
    header_s: float = 15.0
    body_idle_s: float = 15.0
    body_s: float = 60.0
    json_depth: int = 64
    connections: int = 256
    keep_alive_s: float = 30.0
    queue: int = 32
    queue_s: float = 120.0
    request_s: float = 600.0
    stall_s: float = 60.0
    write_s: float = 30.0
    stream_bytes: int = 256 * KIB
    drain_s: float = 10.0
    stuck_s: float = 30.0
    tools_bytes: int = 256 * KIB
    tools_depth: int = 32
    ping_s: float = 10.0
