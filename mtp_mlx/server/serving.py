"""What a server that is ready works with."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mtp_mlx.server.desk import Desk
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.standin import Served

PREPARING = 4  # prompts that are rendered and tokenised at once


@dataclass(frozen=True)
class Serving:
    served: Served
    limits: Limits
    desk: Desk
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(PREPARING, "mtp-mlx-prompt")
    )
