"""The other end of a request: is it still there?"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import Receive

Result = TypeVar("Result")


class ClientGone(Exception):
    """The client has left; nobody reads a reply."""


class Client:
    """Watches for the disconnect, from when the body was read until `stop`."""

    def __init__(self, receive: Receive) -> None:
        self._watch = asyncio.create_task(_until_gone(receive))

    def when_gone(self, tell: Callable[[], None]) -> None:
        """Call `tell` once the client has left."""
        self._watch.add_done_callback(lambda watch: None if watch.cancelled() else tell())

    async def wait(self, work: Awaitable[Result], seconds: float) -> Result:
        """What `work` gives. Raises ClientGone, or TimeoutError; then nobody waits for the work."""
        task = asyncio.ensure_future(work)
        done, _ = await asyncio.wait(
            {task, self._watch}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if task in done:
            return task.result()
        task.cancel()
        if self._watch in done:
            raise ClientGone
        raise TimeoutError

    def stop(self) -> None:
        """Watch no longer."""
        self._watch.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
