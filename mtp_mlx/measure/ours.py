"""Batches of replies by a loaded pair, and what its engine did for them."""

import time
from collections.abc import Sequence

from mtp_mlx.api import LLM, Prompt
from mtp_mlx.backends import EngineLike, Runtime
from mtp_mlx.engine.runtime import MlxRuntime
from mtp_mlx.errors import EngineStopped, Unsupported
from mtp_mlx.measure.sample import Rounds, Sample
from mtp_mlx.reply import Reply
from mtp_mlx.snapshot import EngineStatus


class Ours:
    """Asks a loaded model, which nobody else asks meanwhile. Raises Unsupported for the NumPy
    reference."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        llm._worker.call(lambda runtime, _: on_mlx(runtime))

    def write(self, prompts: Sequence[Prompt], drafts: int | str, max_tokens: int) -> Sample:
        """The greedy replies to some prompts at once; every prompt is read anew."""
        before = self._llm._worker.call(_begin)
        started = time.perf_counter()
        replies = self._llm.batch(
            prompts,
            temperature=0.0,
            max_tokens=max_tokens,
            num_draft_tokens=drafts,
            cache=False,
        )
        seconds = time.perf_counter() - started
        after, peak = self._llm._worker.call(_end)
        for reply in replies:
            if reply.error is not None:
                raise EngineStopped(f"a reply failed: {reply.error}")
        return Sample(
            prompt_tokens=sum(reply.usage.prompt_tokens for reply in replies),
            tokens=sum(reply.usage.completion_tokens for reply in replies),
            seconds=seconds,
            first_s=tuple(reply.timings.first_token_s for reply in replies),
            row_tokens_per_s=tuple(r.timings.tokens_per_s for r in replies if _has_decoded(r)),
            texts=tuple(reply.text for reply in replies),
            rounds=Rounds.of(after).since(Rounds.of(before)),
            peak_bytes=peak,
            decision=after.stats.decision if drafts == "auto" else None,
        )

    def read(self, prompts: Sequence[Sequence[int]]) -> Sample:
        """Prompts read at once, with no more than the first token of each reply."""
        return self.write(prompts, 0, 1)


def on_mlx(runtime: Runtime) -> MlxRuntime:
    """The same runtime, which must be MLX's. Raises Unsupported."""
    if not isinstance(runtime, MlxRuntime):
        raise Unsupported("the NumPy reference is not measured; load with backend='mlx'")
    return runtime


def _begin(runtime: Runtime, engine: EngineLike) -> EngineStatus:
    on_mlx(runtime).forget_peak_memory()
    return engine.status()


def _end(runtime: Runtime, engine: EngineLike) -> tuple[EngineStatus, int]:
    return engine.status(), runtime.peak_memory_bytes()


def _has_decoded(reply: Reply) -> bool:
    return reply.usage.completion_tokens > 1
