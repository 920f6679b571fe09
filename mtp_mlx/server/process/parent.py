"""The process that owns the socket, and knows no MLX: it starts the engine's process, answers while
that one does not, starts it again when it dies, and ends it in good order.

A GPU's command buffer that fails aborts its whole process. Here that closes the streams that were
open, and nothing else: the socket stays, newcomers are told to ask again, and a new child loads.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtp_mlx.errors import EngineStopped, MtpError
from mtp_mlx.server.process.ended import wait_for_end
from mtp_mlx.server.process.launch import Failed, Launch, Order, Ready
from mtp_mlx.server.process.listen import url_of
from mtp_mlx.server.process.ready import ReadyFile
from mtp_mlx.server.process.relay import Relay
from mtp_mlx.server.process.spawned import CHILD, Spawned, how_it_ended
from mtp_mlx.server.process.waiting import State, Waiting

# Deaths within so many seconds that are answered with another child; and, however slowly, deaths in
# a row of children that never served.
MAX_RESTARTS, RESTART_WINDOW_S = 3, 60.0
# A child ends so long after its replies may have ended; after the second signal, so long.
END_S, HURRY_S = 1.5, 0.5
EXIT_INTERRUPTED = 130
ABORTED = "; a GPU out of memory does that: lower --memory-limit or --max-num-seqs"

logger = logging.getLogger("mtp_mlx.server")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the one who starts a server wants of its process."""

    ready_file: Path | None = None
    parent_pid: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How serving ended: the exit code, and with a fault what it was and what was said before."""

    code: int
    failed: Failed | None = None
    log: tuple[str, ...] = ()


class Parent:
    """Supervises one child at a time on a listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        launch: Launch,
        wishes: Wishes,
        relay: Relay,
        command: Sequence[str] = CHILD,
    ) -> None:
        self._listener = listener
        self._launch = launch
        self._wishes = wishes
        self._relay = relay
        self._command = command
        self._ready_file = ReadyFile(wishes.ready_file)
        self._waiting = Waiting(listener, launch.limits)
        self._child: Spawned | None = None
        self._is_serving = self._has_served = False
        self._deaths: deque[float] = deque(maxlen=MAX_RESTARTS + 1)
        self._failed_loads = 0
        self._code: int | None = None  # once it is leaving
        self._failed: Failed | None = None

    async def run(self) -> Outcome:
        """Serve until a signal, the end of the process that wants it, or a child that cannot.

        Raises OSError where the ready file cannot be written.
        """
        self._heed_signals()
        if self._wishes.parent_pid is not None:
            self._watch(self._wishes.parent_pid)
        self._ready_file.remove()
        try:
            await self._waiting.open(State.LOADING)
            while self._code is None:
                await self._serve_once()
        except MtpError as error:
            self._give_up(Failed.of(error))
        finally:
            self._waiting.drop()
            if self._child is not None:
                self._child.kill()
                await self._child.end()
        if self._failed is None:
            self._ready_file.remove()
            return Outcome(self._code or 0)
        is_engine = self._failed.exit_code == EngineStopped.exit_code
        log = self._relay.last_lines() if is_engine else ()
        with contextlib.suppress(OSError):  # the fault itself matters more
            self._ready_file.say_failed(self._failed, log)
        return Outcome(self._failed.exit_code, self._failed, log)

    async def _serve_once(self) -> None:
        """One child, from its start to its end."""
        child = await Spawned.start(self._command, self._listener, self._launch, self._relay)
        self._child = child
        if self._code is not None:  # a signal came meanwhile
            child.kill()
        report = await child.report()
        if isinstance(report, Ready):
            if self._code is None:
                self._serving(report)
            report = await child.report()  # why it ends, if it can still say so
        was_serving, self._is_serving = self._is_serving, False
        if self._code is None:
            await self._waiting.open(State.RESTARTING if self._has_served else State.LOADING)
        self._kill_after(END_S)  # it has nothing left to do
        status = await child.end()
        self._child = None
        failed = report if isinstance(report, Failed) else None
        if self._code is None:
            self._after_death(failed, status, was_serving)
        elif failed is not None or status not in (0, -signal.SIGKILL):  # which is our own
            _log_death(failed, status, "shutting_down")

    def _serving(self, ready: Ready) -> None:
        """The child answers from now on."""
        self._waiting.close()
        self._is_serving = True
        url = url_of(self._listener)
        drafter = "no drafter" if ready.draft_model is None else f"drafter {ready.draft_model}"
        logger.info(
            "%s %s, %s, at %s/v1",
            "serving again:" if self._has_served else "serving",
            *(ready.model, drafter, url),
            extra={"fields": {"phase": "ready", "url": url}},
        )
        if not self._has_served:
            self._ready_file.say_ready(url, ready)
        self._has_served = True
        self._failed_loads = 0

    def _after_death(self, failed: Failed | None, status: int, was_serving: bool) -> None:
        """Go on to the next child, or give up."""
        if not self._has_served:
            how = f"{how_it_ended(status)} while it loaded{_hint(status)}"
            self._give_up(failed or _engine_failed(f"the engine's process {how}"))
            return
        now = time.monotonic()
        self._deaths.append(now)
        self._failed_loads += not was_serving
        _log_death(failed, status, "restarting")
        is_loop = len(self._deaths) > MAX_RESTARTS and now - self._deaths[0] < RESTART_WINDOW_S
        if is_loop or self._failed_loads >= MAX_RESTARTS:
            reason = f"the engine's process {how_it_ended(status)}{_hint(status)}"
            if failed is not None:
                reason = failed.message
            self._give_up(
                _engine_failed(f"the engine failed {MAX_RESTARTS + 1} times; the last: {reason}")
            )

    def _give_up(self, failed: Failed) -> None:
        """End with this fault."""
        self._code, self._failed = failed.exit_code, failed

    def _heed_signals(self) -> None:
        """SIGTERM and Ctrl-C drain, a second one hurries; a terminal that closes is ignored."""
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as background jobs of a shell
                loop.add_signal_handler(number, self._leave)

    def _watch(self, pid: int) -> None:
        """Leave when the process `pid` has ended: nobody is there to read a reply."""
        loop = asyncio.get_running_loop()

        def watch() -> None:
            wait_for_end(pid)
            loop.call_soon_threadsafe(self._hurry, 0)

        threading.Thread(target=watch, name="mtp-mlx-parent", daemon=True).start()

    def _leave(self) -> None:
        """The first signal: finish what runs. The second: do not."""
        if self._code is not None:
            self._hurry(EXIT_INTERRUPTED)
            return
        self._code = 0
        logger.info("shutting down", extra={"fields": {"phase": "shutting_down"}})
        self._close_door()
        if self._child is not None and self._is_serving:
            self._child.order(Order.DRAIN)
            self._kill_after(self._launch.limits.drain_s + END_S)
        else:
            self._kill_after(0)

    def _hurry(self, code: int) -> None:
        """End what runs, and leave."""
        self._code = code
        self._close_door()
        if self._child is not None:
            self._child.order(Order.STOP)
        self._kill_after(HURRY_S)

    def _close_door(self) -> None:
        """Newcomers are told that the server leaves, whatever the child does."""
        opening = asyncio.ensure_future(self._waiting.open(State.LEAVING))
        opening.add_done_callback(lambda done: done.cancelled() or done.result())

    def _kill_after(self, delay_s: float) -> None:
        if self._child is not None:
            asyncio.get_running_loop().call_later(delay_s, self._child.kill)


def _log_death(failed: Failed | None, status: int, phase: str) -> None:
    said = "" if failed is None else f"failed: {failed.message}; it "
    logger.error(
        "the engine's process %s%s%s",
        *(said, how_it_ended(status), _hint(status)),
        extra={"fields": {"phase": phase, "status": status}},
    )


def _hint(status: int) -> str:
    return ABORTED if status == -signal.SIGABRT else ""


def _engine_failed(message: str) -> Failed:
    return Failed.of(EngineStopped(message))
