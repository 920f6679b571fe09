"""A process of ours that answers one request at a time, and is ended when one takes too long.

For work on what strangers wrote, which cannot be stopped from within: chat templates and schemas.
One process serves all threads of this Python process. It is started when first needed, or early by
`start`; it answers any number of requests, is replaced after every overrun or crash, and ends with
this process: killed at exit, and at the end of its stdin where there is no exit. Signals of the
terminal do not reach it, and it prints nothing.

Its module has a `main` that writes one line of JSON when it is ready, and then reads a line of JSON
a request and writes one a reply, with one key: "text"; "refused", what is wrong with the request;
or "overrun", which limit was exceeded, as the end of a sentence.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, TypeVar

from mtp_mlx.errors import MtpError

START_LIMIT_S = 30.0  # of a machine that is busy; an idle one needs a tenth of a second
REQUEST_LIMIT_BYTES = 32 << 20  # as JSON, where a character may take 12 bytes
ANSWER_LIMIT_BYTES = 32 << 20
BOOT = "import sys; sys.path[:] = sys.argv[1:]; from MODULE import main; main()"

Made = TypeVar("Made", bound="Helper")


class Refused(Exception):
    """The request is wrong; the message is the reason."""


class Overrun(Exception):
    """A limit was exceeded; the message is the end of a sentence."""


class Helper:
    """The process and its dialogue. Threads may share one."""

    def __init__(self, module: str, purpose: str, needs: str, limit_s: float) -> None:
        """`module` is what it runs, `needs` what that imports; `purpose` names it in errors. Each
        answer may take `limit_s`."""
        self._module, self._purpose, self._needs, self._limit_s = module, purpose, needs, limit_s
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

    def ask(self, request: dict[str, Any]) -> str:
        """The text that answers a request, of JSON values. Raises Refused, Overrun, or MtpError if
        there can be no process."""
        line = _encoded(request)
        with self._lock:
            answer = self._exchange(self._ready(), line, self._limit_s)
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
                    f"the process for {self._purpose} did not start: it {error}; "
                    f"check that {sys.executable} can import {self._needs}"
                ) from error
            self._is_ready = True
        return process

    def _living(self) -> subprocess.Popen[bytes]:
        """The process, started if there is none or if it has ended; perhaps not ready yet."""
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._process is None:
            self._is_ready = False
            self._process = self._spawned()
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

    def _spawned(self) -> subprocess.Popen[bytes]:
        """A new process, without the site's hooks and the environment's settings for Python.

        Modules are found where this process finds them, save in the working folder.
        """
        folders = [folder for folder in sys.path if os.path.isabs(folder)]
        folders.append(str(Path(__file__).resolve().parents[1]))
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", BOOT.replace("MODULE", self._module), *folders],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise MtpError(f"the process for {self._purpose} cannot be started: {error}") from error


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
    """The JSON of an answer, None if it is none: a stranger's program may have written it."""
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None


def lasting(helper: Made) -> Made:
    """`helper`, ended at exit and left to the parent by a fork."""
    atexit.register(helper.close)
    os.register_at_fork(after_in_child=helper.forget)
    return helper
