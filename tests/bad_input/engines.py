"""Models that a test may break, calls that must come back, and how a stream ended."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mtp_mlx
from mtp_mlx.api import LLM
from mtp_mlx.streams import Stream
from tests.api_pairs import folders

SOON_S = 30.0  # of a machine that is busy; what must come takes milliseconds
LONG = {"max_tokens": 2000, "temperature": 0, "num_draft_tokens": 0}
SAMPLED = {"temperature": 1.0, "top_k": 8, "seed": 11, "max_tokens": 10}
PROMPTS = ([2, 9, 7], [2, *range(110, 140)], [2, 44])


def own(backend: str = "mlx", max_num_seqs: int = 8) -> LLM:
    """A pair that the test may break."""
    target, drafter = folders()
    return mtp_mlx.load(target, draft_model=drafter, max_num_seqs=max_num_seqs, backend=backend)


def streams(llm: LLM, prompts: Sequence[list[int]] = PROMPTS, **options: Any) -> list[Stream]:
    """Streams whose requests join the engine together, before its next step."""
    jobs = [llm._job(prompt, options or LONG) for prompt in prompts]
    llm._worker.submit(*jobs)
    return [Stream(llm._worker, job) for job in jobs]


@dataclass
class End:
    """How a call ended, and when on the monotonic clock."""

    result: Any = None
    error: BaseException | None = None
    at: float = 0.0


class Calls:
    """Calls on threads of their own. `ends` waits for them, and fails where one does not return."""

    def __init__(self, *calls: Callable[[], Any]) -> None:
        self._ends = [End() for _ in calls]
        self._threads = [
            threading.Thread(target=self._run, args=pair, daemon=True)
            for pair in zip(calls, self._ends, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _run(call: Callable[[], Any], end: End) -> None:
        try:
            end.result = call()
        except BaseException as error:
            end.error = error
        end.at = time.monotonic()

    def ends(self) -> list[End]:
        for index, thread in enumerate(self._threads):
            thread.join(SOON_S)
            assert not thread.is_alive(), f"call {index} waits for ever"
        return self._ends


def wait_for_threads(most: int) -> None:
    """Until no more than `most` are left; one that has answered may still be leaving."""
    deadline = time.monotonic() + SOON_S
    while threading.active_count() > most:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.001)


@dataclass
class Reading:
    """A stream read to its end: its chunks, and the error that it raised."""

    chunks: list[mtp_mlx.Chunk] = field(default_factory=list)
    error: mtp_mlx.MtpError | None = None

    @property
    def ends(self) -> list[str]:
        """Why it ended, as its chunks say: one of them, the last."""
        return [chunk.finish_reason for chunk in self.chunks if chunk.finish_reason is not None]


def read(stream: Stream) -> Reading:
    reading = Reading()
    try:
        for chunk in stream:
            reading.chunks.append(chunk)
    except mtp_mlx.MtpError as error:
        reading.error = error
    assert len(reading.ends) == 1 and reading.chunks[-1].finish_reason is not None
    assert stream._job.take(wait=False) is None, "something follows the end"
    return reading


class Fault:
    """Calls of a method of a class, the `at`th of which raises; `at` None: none."""

    def __init__(self, kind: type, name: str, monkeypatch) -> None:
        self.at: int | None = None
        self.error: BaseException = ArithmeticError("cosmic ray")
        self.raised_at = 0.0
        self.count = 0
        original = getattr(kind, name)

        def faulty(instance, *args, **kwargs):
            self.count += 1
            if self.count == self.at:
                self.raised_at = time.monotonic()
                raise self.error
            return original(instance, *args, **kwargs)

        monkeypatch.setattr(kind, name, faulty)

    def plan(self, at: int, error: BaseException | None = None) -> None:
        """Raise in the `at`th call from now on."""
        self.count, self.at = 0, at
        self.error = error or self.error
