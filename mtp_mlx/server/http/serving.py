"""What a server that is ready works with."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from mtp_mlx.server.errors import Refused
from mtp_mlx.server.http.client import Client
from mtp_mlx.server.http.desk import Desk
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.served import Served
from mtp_mlx.server.status import Facts

Result = TypeVar("Result")
PREPARING = 8  # prompts that are rendered and tokenised at once


@dataclass(frozen=True)
class Serving:
    """The model, who is let in, what stays as it is; and threads, for what takes long beside the
    event loop."""

    served: Served
    limits: Limits
    desk: Desk
    facts: Facts
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(PREPARING, "mtp-mlx-prompt")
    )

    async def beside(self, client: Client, work: Callable[[], Result]) -> Result:
        """What `work` returns, done on another thread. Raises ClientGone, and Refused after
        `stall_s`: it then ends unheard."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await client.wait(running, self.limits.stall_s)
        except TimeoutError:
            raise Refused(
                503, "timeout", f"the prompt was not read after {self.limits.stall_s:g} s"
            ) from None

    def close(self) -> None:
        """Let the threads go; what they work at is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
