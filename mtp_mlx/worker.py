"""The one thread that touches the models: commands in, the engine's events out to jobs.

MLX arrays belong to the thread that made them, so the thread builds the runtime itself, and only
Python values cross. Commands are read between steps: before each while rows run, and waiting for
one while none do. Every job that was submitted ends exactly once, whatever happens to the thread.
"""

import contextlib
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from mtp_mlx.backends import EngineLike, Runtime
from mtp_mlx.board import Board
from mtp_mlx.errors import EngineStopped, TimedOut, without_frames
from mtp_mlx.fields import shown
from mtp_mlx.job import Job
from mtp_mlx.request import Event, Failed, Finished

Result = TypeVar("Result")

# An engine that failed so often within so many seconds is not started again.
MAX_FAILURES, FAILURE_WINDOW_S = 3, 60.0
JOIN_S = 30.0  # a step ends within this time, or the thread is left to the process's end
CLOSED = "the model is closed; load it again"


@dataclass(frozen=True)
class Submit:
    """Jobs that join the engine together."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Cancel:
    job: Job


@dataclass(frozen=True)
class Call:
    """Run a function of runtime and engine on the thread."""

    function: Callable[[Runtime, EngineLike], Any]
    answer: Future


@dataclass(frozen=True)
class Close:
    """End the thread; open jobs fail."""


Command = Submit | Cancel | Call | Close


class Inbox:
    """Commands to the thread. Once it has ended, sending raises the reason."""

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a destructor may send while its thread is sending
        self.ended: EngineStopped | None = None

    def send(self, command: Command) -> None:
        """Raises EngineStopped if nobody will read it."""
        with self._lock:
            if self.ended is not None:
                raise EngineStopped(*self.ended.args)
            self._commands.put(command)

    def take(self, wait: bool) -> Command | None:
        """The next command; None if there is none and it should not wait."""
        try:
            return self._commands.get(block=wait)
        except queue.Empty:
            return None

    def end(self, reason: EngineStopped) -> list[Command]:
        """Refuse commands from now on; returns those that nobody has read."""
        with self._lock:
            self.ended = reason
            left = []
            while (command := self.take(wait=False)) is not None:
                left.append(command)
            return left


class Worker:
    """Starts the thread and speaks to it, from any thread of the same process."""

    def __init__(self, build: Callable[[], Runtime]) -> None:
        """Returns when `build` has, on the new thread; raises what it raises."""
        self._inbox = Inbox()
        self._pid = os.getpid()
        built: Future[None] = Future()
        self.board = Board()
        arguments = (build, self._inbox, built, self.board)
        self._thread = threading.Thread(target=_run, args=arguments, name="mtp-mlx", daemon=True)
        self._thread.start()
        # At the end of the process too, so that the thread is not torn out of a step.
        self._finalizer = weakref.finalize(self, _shut, self._inbox, self._thread, self._pid)
        built.result()

    def submit(self, *jobs: Job) -> None:
        """Queue jobs, in their order and together. Raises EngineStopped."""
        self._send(Submit(jobs))

    def cancel(self, job: Job) -> None:
        """End a job, and wait until it has ended; nothing for one that has, or in a fork.

        Raises RuntimeError on the models' own thread.
        """
        if not job.is_done and self.is_here:
            with contextlib.suppress(EngineStopped):  # then the job has ended as well
                self._send(Cancel(job))
            job.wait()

    def abandon(self, job: Job) -> None:
        """End a job without waiting; may be called from a destructor."""
        if not job.is_done and self.is_here:
            with contextlib.suppress(EngineStopped):
                self._inbox.send(Cancel(job))

    def call(self, function: Callable[[Runtime, EngineLike], Result]) -> Result:
        """What a function of runtime and engine returns, between two steps."""
        answer: Future[Result] = Future()
        self._send(Call(function, answer))
        return answer.result()

    def close(self) -> None:
        """End the thread; open jobs fail with EngineStopped. Closing twice does nothing.

        Raises RuntimeError on the thread itself.
        """
        self._check_thread()
        if self._finalizer.alive:
            self._finalizer()
        elif self.is_here:
            self._thread.join(JOIN_S)  # another call is closing it

    @property
    def is_here(self) -> bool:
        """Is this the process that loaded the model, and no fork of it, where no thread runs?"""
        return os.getpid() == self._pid

    def check_caller(self) -> None:
        """Raises where nothing that is waited for would come: EngineStopped in a fork, RuntimeError
        on the models' own thread."""
        self._check_thread()
        if not self.is_here:
            raise EngineStopped(
                f"this model was loaded by process {self._pid}, before the fork; load it in this "
                "process, or start processes with multiprocessing's 'spawn'"
            )

    def check(self) -> None:
        """Raises as check_caller does, and EngineStopped if no command would be read."""
        self.check_caller()
        if self._inbox.ended is not None:
            raise EngineStopped(*self._inbox.ended.args)

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "the model was used by a function that runs on its own thread, such as a progress "
                "callback, and would wait for itself; use it from another thread, or afterwards"
            )

    def _send(self, command: Command) -> None:
        self.check()
        self._inbox.send(command)


def _shut(inbox: Inbox, thread: threading.Thread, pid: int) -> None:
    """Ask the thread to end, and wait for it."""
    if os.getpid() != pid:
        return  # a fork's copy: the thread is the parent's
    with contextlib.suppress(EngineStopped):
        inbox.send(Close())
    if threading.current_thread() is not thread:
        thread.join(JOIN_S)


def _run(build: Callable[[], Runtime], inbox: Inbox, built: Future[None], board: Board) -> None:
    """The thread: build, serve, and whatever ends it, end every job."""
    try:
        serving = _opened(build, inbox, board)
    except BaseException as error:
        inbox.end(EngineStopped(f"the model was not loaded: {shown(error)}"))
        built.set_exception(error)
        return
    built.set_result(None)
    del built, build
    try:
        serving.run()
        reason = EngineStopped(CLOSED)
    except BaseException as error:
        reason = EngineStopped(f"the engine's thread has ended: {shown(error)}")
    serving.end(reason)


def _opened(build: Callable[[], Runtime], inbox: Inbox, board: Board) -> "_Serving":
    """The runtime with an engine of its own; closed again where there can be none."""
    runtime = build()
    try:
        return _Serving(runtime, inbox, board)
    except BaseException:
        runtime.close()
        raise


class _Serving:
    """What the thread knows."""

    def __init__(self, runtime: Runtime, inbox: Inbox, board: Board) -> None:
        self._runtime = runtime
        self._inbox = inbox
        self._board = board
        self._engine = runtime.new_engine()
        self._show()
        self._jobs: dict[int, Job] = {}
        self._arriving: tuple[Job, ...] = ()  # read from the inbox, not all of them in `_jobs` yet
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)

    def run(self) -> None:
        """Take turns until Close; a turn that fails ends all jobs."""
        is_open = True
        while is_open:
            try:
                is_open = self._turn()
            except Exception as error:
                self._recover(error)

    def _turn(self) -> bool:
        """Obey what was sent, then step; False after Close.

        While rows run, at most one Call a turn: who calls in a loop keeps neither rows nor
        deadlines waiting.
        """
        if not self._jobs:
            self._show_if_due()  # before the wait: nothing is shown while it lasts
        command = self._inbox.take(wait=not self._jobs)
        while command is not None:
            if isinstance(command, Close):
                return False
            self._obey(command)
            if isinstance(command, Call) and self._jobs:
                break
            command = self._inbox.take(wait=False)
        if self._jobs:
            self._expire(time.monotonic())
            self._show_if_due()  # before a step: should it never end, one sees who waits for it
            self._step()
        return True

    def _show_if_due(self) -> None:
        if self._board.is_due(self._engine.is_idle):
            self._show()

    def _show(self) -> None:
        runtime = self._runtime
        memory = runtime.active_memory_bytes(), runtime.peak_memory_bytes()
        self._board.show(self._engine.status(), *memory)

    def end(self, reason: EngineStopped) -> None:
        """Fail everything that is open, and free the models."""
        for command in self._inbox.end(reason):
            match command:
                case Submit(jobs):
                    for job in jobs:
                        job.abort(reason)
                case Call(_, answer):
                    answer.set_exception(reason)
        self._fail_all(reason)
        self._board.end(str(reason))
        del self._engine
        self._runtime.close()

    def _obey(self, command: Command) -> None:
        match command:
            case Submit(jobs):
                self._arriving = jobs
                for job in jobs:
                    self._submit(job)
                self._arriving = ()
            case Cancel(job):
                self._cancel(job)
            case Call(function, answer):
                self._engine.disturb()
                try:
                    answer.set_result(function(self._runtime, self._engine))
                except BaseException as error:
                    answer.set_exception(without_frames(error))

    def _submit(self, job: Job) -> None:
        try:
            job.request_id = self._engine.submit(job.request)
        except Exception as error:
            job.abort(without_frames(error))
            return
        self._jobs[job.request_id] = job

    def _cancel(self, job: Job) -> None:
        if job.is_done:
            return
        unknown = [Finished(job.request_id, "cancelled")]
        self._end(job, (self._engine.cancel(job.request_id) or unknown)[-1])

    def _expire(self, now: float) -> None:
        """End jobs that are past their deadline."""
        for job in [job for job in self._jobs.values() if job.is_late(now)]:
            self._engine.cancel(job.request_id)
            self._end(job, Failed(job.request_id, TimedOut(job.timeout_message)))

    def _step(self) -> None:
        """One engine step; every event goes to its job.

        What is shown comes first, so that who has its reply sees an engine that is idle since.
        """
        events = self._engine.step()
        self._board.step(events)
        self._show_if_due()
        for event in events:
            job = self._jobs.get(event.request_id)
            if job is not None:
                self._feed(job, event)

    def _feed(self, job: Job, event: Event) -> None:
        """Hand an event to its job; a job that cannot take it fails alone."""
        try:
            job.feed(event)
        except Exception as error:
            self._engine.cancel(job.request_id)
            job.abort(without_frames(error))
        if job.is_done:
            self._jobs.pop(job.request_id, None)

    def _end(self, job: Job, event: Event) -> None:
        """Hand its last event to a job that the engine has let go of; it ends in any case."""
        try:
            if not job.is_done:
                job.feed(event)
        except Exception as error:
            job.abort(without_frames(error))
        self._jobs.pop(job.request_id, None)

    def _recover(self, error: Exception) -> None:
        """Fail all jobs and go on with a new engine, unless that happens again and again."""
        failure = EngineStopped(f"the engine failed: {shown(error)}")
        failure.__cause__ = without_frames(error)
        self._fail_all(failure)
        now = time.monotonic()
        self._failures.append(now)
        if len(self._failures) == MAX_FAILURES and now - self._failures[0] < FAILURE_WINDOW_S:
            raise EngineStopped(f"{MAX_FAILURES} times in {FAILURE_WINDOW_S:.0f} s: {shown(error)}")
        self._engine = self._runtime.new_engine()

    def _fail_all(self, reason: EngineStopped) -> None:
        for job in list(self._jobs.values()):
            self._end(job, Failed(job.request_id, reason))
        for job in self._arriving:
            job.abort(reason)
        self._arriving = ()
