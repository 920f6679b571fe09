"""Replies as they are written: an iterator and an async iterator over the chunks of one job."""

import asyncio
import contextlib
import queue
from collections.abc import Iterator
from types import TracebackType

from mtp_mlx.errors import RequestError
from mtp_mlx.job import Job
from mtp_mlx.reply import Chunk, Reply, Usage
from mtp_mlx.request import Progress
from mtp_mlx.worker import Worker


class _Streamed:
    """A job on its way, and what remains of it: leaving or dropping it cancels the request."""

    def __init__(self, worker: Worker, job: Job) -> None:
        self._worker = worker
        self._job = job

    def __del__(self) -> None:
        self._worker.abandon(self._job)

    def abandon(self) -> None:
        """End the request without waiting; its last chunks are still to come. A signal handler may
        call it."""
        self._worker.abandon(self._job)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self._job.prompt

    @property
    def usage(self) -> Usage:
        """The tokens so far, of chunks that were read or not."""
        return self._job.usage

    @property
    def request_id(self) -> int:
        """The engine's, as in snapshot.RowStatus.id; 0 until its thread has taken the request."""
        return self._job.request_id

    @property
    def silent_s(self) -> float:
        """Seconds since the engine last told of it, by a token or a part of its prompt."""
        return self._job.silent_s

    @property
    def progress(self) -> Progress | None:
        """How much of the prompt is read; None while the request waits for a row."""
        return self._job.progress

    @property
    def gaps(self) -> tuple[float, ...]:
        """Seconds from one round's tokens to the next's, so far."""
        return self._job.gaps

    @property
    def reply(self) -> Reply:
        """The whole reply, once it has ended."""
        if self._job.finish_reason is None:
            raise RequestError(
                "the reply is not complete; iterate over the stream to its end first"
            )
        return self._job.reply()


class Stream(_Streamed):
    """An iterator over the chunks of one reply, and a context manager.

    Other requests go on whether it is read or not. A failed request raises its error after its last
    chunk.
    """

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        self._worker.check_caller()
        chunk = self._job.take()
        if chunk is None:
            self._job.raise_error()
            raise StopIteration
        return chunk

    def cancel(self) -> None:
        """End the request and wait until its row is free; chunks that are ready stay readable."""
        self._worker.cancel(self._job)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()


class AsyncStream(_Streamed):
    """The same for asyncio; `aclose` cancels.

    The event loop that made it reads it: in another one, RuntimeError is raised.
    """

    def __init__(self, worker: Worker, job: Job) -> None:
        super().__init__(worker, job)
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
                loop.call_soon_threadsafe(ready.set)

        self._loop, self._ready = loop, ready
        job.subscribe(notify)

    def __aiter__(self) -> "AsyncStream":
        return self

    async def __anext__(self) -> Chunk:
        self._worker.check_caller()
        self._check_loop()
        while True:
            self._ready.clear()
            try:
                chunk = self._job.take(wait=False)
            except queue.Empty:
                await self._ready.wait()
                continue
            if chunk is None:
                self._job.raise_error()
                raise StopAsyncIteration
            return chunk

    async def aclose(self) -> None:
        """End the request and wait until its row is free."""
        if self._job.is_done or not self._worker.is_here:
            return
        self._worker.abandon(self._job)
        self._check_loop()
        while not self._job.is_done:
            self._ready.clear()
            if not self._job.is_done:
                await self._ready.wait()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "this stream belongs to another event loop, which would have to wake this one; "
                "call astream and read the stream in the same loop"
            )

    async def __aenter__(self) -> "AsyncStream":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
