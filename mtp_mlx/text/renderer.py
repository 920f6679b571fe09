"""Asks a process of its own to run chat templates, and ends it when one runs too long.

One process (render_worker.py) serves all templates of this Python process, one chat at a time. It
is started when first needed, or early by `RENDERER.start()`; it answers any number of chats, is
replaced after every overrun or crash, and ends with this process: killed at exit, and at the end of
its stdin where there is no exit. Signals of the terminal do not reach it, and it prints nothing.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from mtp_mlx.errors import MtpError

TIME_LIMIT_S = 2.0
START_LIMIT_S = 30.0  # of a machine that is busy; an idle one needs a tenth of a second
REQUEST_LIMIT_BYTES = 32 << 20  # as JSON, where a character may take 12 bytes
ANSWER_LIMIT_BYTES = 32 << 20
BOOT = "import sys; sys.path[:] = sys.argv[1:]; from mtp_mlx.text.render_worker import main; main()"


class Refused(Exception):
    """A template that is none, or that refuses its values; the message is the reason."""


class Overrun(Exception):
    """A limit was exceeded; the message continues "the chat template"."""


class Renderer:
    """The process and its dialogue. Threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._inherited: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def start(self) -> None:
        """Start the process, if there is none, and do not wait until it is ready.

        Raises MtpError if it cannot be started.
        """
        with self._lock:
            self._living()

    def compile(self, source: str) -> None:
        """Check a template. Raises Refused, Overrun, or MtpError if there can be no process."""
        self._ask({"source": source, "values": None})

    def render(self, source: str, values: dict[str, Any]) -> str:
        """What a template writes, given JSON values. Raises as `compile` does."""
        return self._ask({"source": source, "values": values})

    def close(self) -> None:
        """End the process; the next request starts another."""
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """After a fork: leave the process to the parent, and start one when needed.

        A reference stays, or its pipes would be flushed here.
        """
        self._lock = threading.Lock()
        self._inherited, self._process = self._process, None

    def _ask(self, request: dict[str, Any]) -> str:
        line = _encoded(request)
        with self._lock:
            answer = self._exchange(self._ready(), line, TIME_LIMIT_S)
            match answer:
                case {"text": str(text)}:
                    return text
                case {"refused": str(reason)}:
                    raise Refused(reason)
                case {"overrun": str(reason)}:
                    self._stop()
                    raise Overrun(reason)
            self._stop()
            raise Overrun("gave no answer that can be read")

    def _ready(self) -> subprocess.Popen[bytes]:
        """The process, once it has said that it is ready."""
        process = self._living()
        if not self._is_ready:
            try:
                self._exchange(process, b"", START_LIMIT_S)
            except Overrun as error:
                raise MtpError(
                    f"the process for chat templates did not start: it {error}; "
                    f"check that {sys.executable} can import jinja2"
                ) from error
            self._is_ready = True
        return process

    def _living(self) -> subprocess.Popen[bytes]:
        """The process, started if there is none or if it has ended; perhaps not ready yet."""
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._process is None:
            self._is_ready = False
            self._process = _spawned()
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], line: bytes, limit_s: float) -> object:
        """Send a line, and read the answer to it. Without an answer in time, raises Overrun.

        Whatever interrupts the exchange ends the process: the next answer is to the next request.
        """
        assert process.stdin is not None and process.stdout is not None
        is_late = threading.Event()

        def expire() -> None:
            is_late.set()
            process.kill()

        watchdog = threading.Timer(limit_s, expire)
        watchdog.daemon = True
        answer = b""
        try:
            watchdog.start()
            with contextlib.suppress(BrokenPipeError):  # it has ended: there is no answer
                process.stdin.write(line)
                process.stdin.flush()
            answer = process.stdout.readline(ANSWER_LIMIT_BYTES)
        finally:
            watchdog.cancel()
            watchdog.join()
            if is_late.is_set() or not answer.endswith(b"\n"):
                self._stop()
        if answer.endswith(b"\n"):
            return _decoded(answer)
        if is_late.is_set():
            raise Overrun(f"ran longer than {limit_s:g} s")
        raise Overrun(f"ended its process, with status {process.returncode}")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(BrokenPipeError), process:
                process.kill()


def _spawned() -> subprocess.Popen[bytes]:
    """A new process, without the site's hooks and the environment's settings for Python.

    Modules are found where this process finds them, save in the working folder.
    """
    folders = [folder for folder in sys.path if os.path.isabs(folder)]
    folders.append(str(Path(__file__).resolve().parents[2]))
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", BOOT, *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise MtpError(f"the process for chat templates cannot be started: {error}") from error


def _encoded(request: dict[str, Any]) -> bytes:
    """A request as one line. Raises Refused for what is no JSON, Overrun for too much of it."""
    try:
        line = json.dumps(request).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise Refused(f"its values are no JSON: {error}") from error
    if len(line) > REQUEST_LIMIT_BYTES:
        raise Overrun(f"was given {len(line):,} bytes, more than {REQUEST_LIMIT_BYTES:,}")
    return line


def _decoded(answer: bytes) -> object:
    """The JSON of an answer, None if it is none: a template that escaped may have written it."""
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None


RENDERER = Renderer()
atexit.register(RENDERER.close)
os.register_at_fork(after_in_child=RENDERER.forget)
