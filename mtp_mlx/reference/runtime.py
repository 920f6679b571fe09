"""A loaded pair on NumPy: the same requests and events as the engine, one row at a time."""

import platform
import resource
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtp_mlx.checkpoint import Checkpoint
from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.errors import Unsupported, contained
from mtp_mlx.loading import Loading
from mtp_mlx.reference.decode import CHUNK, Round, logits, propose, speculative_decode
from mtp_mlx.reference.drafter import Drafter
from mtp_mlx.reference.load import load_weights
from mtp_mlx.reference.target import Target
from mtp_mlx.reply import EngineStats
from mtp_mlx.request import (
    MAX_DRAFT_TOKENS,
    CacheUse,
    Event,
    Failed,
    Finished,
    Progress,
    Request,
    Tokens,
    check_request,
)
from mtp_mlx.snapshot import EngineStatus, RoundStats, RowStatus
from mtp_mlx.verdict import Rounding, Text

# ru_maxrss counts KiB on Linux, bytes on macOS.
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
KEEPS_NOTHING = CacheUse(0, "off: the NumPy reference keeps no texts for later requests")
ONE_KERNEL = "the NumPy reference has no kernels to verify; load with backend='mlx'"


@dataclass
class _Row:
    """A request under way; `was_ended` notes that its own test ended it."""

    id: int
    request: Request
    rounds: Iterator[Round] | None = None
    was_ended: bool = False
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    depth: int = 0


class NumpyEngine:
    """Requests in, events out; each step does one round of every active row, row after row."""

    def __init__(
        self, target: Target, drafter: Drafter | None, max_num_seqs: int, chunk: int = CHUNK
    ) -> None:
        self.target = target
        self.drafter = drafter
        self.max_num_seqs = max_num_seqs
        self.chunk = chunk
        self._rows: deque[_Row] = deque()
        names = ("rounds", "plain_rounds", "verified", "rows", "drafted", "accepted", "tokens")
        self._counts = dict.fromkeys(names, 0)
        self._drafted_at, self._accepted_at = [0] * MAX_DRAFT_TOKENS, [0] * MAX_DRAFT_TOKENS
        self._prompt_tokens = 0
        self._next_id = 0

    @property
    def is_idle(self) -> bool:
        return not self._rows

    def submit(self, request: Request) -> int:
        """See engine.Engine.submit."""
        check_request(request, self.target.config.vocab_size, self.target.config.max_positions)
        self._next_id += 1
        self._rows.append(_Row(self._next_id, request))
        return self._next_id

    def cancel(self, request_id: int) -> list[Event]:
        """See engine.Engine.cancel."""
        for row in list(self._rows):
            if row.id == request_id:
                self._rows.remove(row)
                return [Finished(request_id, "cancelled")]
        return []

    def disturb(self) -> None:
        """Nobody times rounds here."""

    def stats(self) -> EngineStats:
        """See engine.Engine.stats; K/V is not limited here."""
        running = min(len(self._rows), self.max_num_seqs)
        return EngineStats(
            slots=self.max_num_seqs,
            running=running,
            prefilling=0,
            waiting=len(self._rows) - running,
            kv_reserved_bytes=0,
            kv_budget_bytes=None,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=0,
            prompt_cache_bytes=0,
            prompt_cache_budget_bytes=0,
            decision=None,
            costs=None,
            **self._counts,
            experts_per_layer=None,
            expert_overlap_rows=None,
            expert_overlap_drafts=None,
        )

    def status(self) -> EngineStatus:
        """See engine.Engine.status; rounds are neither timed nor planned here."""
        rows = tuple(
            RowStatus(
                id=row.id,
                slot=slot if slot < self.max_num_seqs else None,
                state="queued" if row.rounds is None else "decode",
                prompt_tokens=len(row.request.prompt),
                prompt_done=0 if row.rounds is None else len(row.request.prompt),
                tokens=row.tokens,
                drafted=row.drafted,
                accepted=row.accepted,
                depth=row.depth,
            )
            for slot, row in enumerate(self._rows)
        )
        positions = tuple(self._drafted_at), tuple(self._accepted_at)
        return EngineStatus(self.stats(), rows, RoundStats({}, (), *positions))

    def step(self) -> list[Event]:
        """One round of each of the first `max_num_seqs` rows."""
        events: list[Event] = []
        for row in list(self._rows)[: self.max_num_seqs]:
            if row.rounds is None:
                events.append(Progress(row.id, 0, len(row.request.prompt)))
                row.rounds = self._start(row)
            events += self._advance(row, row.rounds)
        return events

    def _start(self, row: _Row) -> Iterator[Round]:
        def is_end(token: int) -> bool:
            ended = row.request.is_end(token)
            row.was_ended = row.was_ended or ended
            return ended

        self._prompt_tokens += len(row.request.prompt)
        request = replace(row.request, is_end=is_end)
        return speculative_decode(self.target, self.drafter, request, chunk=self.chunk)

    def _advance(self, row: _Row, rounds: Iterator[Round]) -> list[Event]:
        try:
            done = next(rounds)
        except StopIteration:
            self._rows.remove(row)
            return [Finished(row.id, "stop" if row.was_ended else "length")]
        except BaseException as error:  # NaN, or the request's own is_end: nobody else's fault
            self._rows.remove(row)
            return [Failed(row.id, contained(error))]
        self._count(row, done)
        row.was_ended = row.was_ended or done.ids[-1] in row.request.stop_ids
        scores = (done.logprobs, done.prompt_logprobs)
        tokens = Tokens(row.id, done.ids, done.origins, done.drafts, done.accepted, None, *scores)
        if done.origins[0] != "prefill":
            return [tokens]
        length = len(row.request.prompt)
        return [Progress(row.id, length, length), replace(tokens, cache_use=KEEPS_NOTHING)]

    def _count(self, row: _Row, done: Round) -> None:
        row.tokens += len(done.ids)
        row.drafted += done.drafted
        row.accepted += done.accepted
        row.depth = done.drafted
        for place in range(done.drafted):
            self._drafted_at[place] += 1
            self._accepted_at[place] += place < done.accepted
        if done.origins[0] != "prefill":
            drafted, tokens = done.drafted, len(done.ids)
            counts = (1, not drafted, drafted + 1, 1, drafted, done.accepted, tokens)
            for name, count in zip(self._counts, counts, strict=True):
                self._counts[name] += count


class NumpyRuntime:
    """See backends.Runtime."""

    def __init__(
        self,
        target: Checkpoint[TargetConfig],
        drafter: Checkpoint[DrafterConfig] | None,
        loading: Loading,
    ) -> None:
        self._chunk = CHUNK if loading.prefill_chunk is None else loading.prefill_chunk
        self._target = Target(target.config, load_weights(target))
        self._drafter = None if drafter is None else Drafter(drafter.config, load_weights(drafter))
        self._max_num_seqs = loading.max_num_seqs

    @property
    def has_drafter(self) -> bool:
        return self._drafter is not None

    @property
    def note(self) -> str | None:
        return None

    @property
    def device(self) -> str:
        return f"NumPy on {platform.machine()}"

    def close(self) -> None:
        """Let go of the weights."""
        del self._target, self._drafter

    def new_engine(self) -> NumpyEngine:
        """An engine with no rows; it shares the weights."""
        return NumpyEngine(self._target, self._drafter, self._max_num_seqs, self._chunk)

    def peak_memory_bytes(self) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES

    def active_memory_bytes(self) -> int | None:
        return None

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return logits(self._target, ids, self._chunk)

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        assert self._drafter is not None
        return propose(self._target, self._drafter, ids, count)

    def measure_rounding(
        self, texts: Sequence[Text], sizes: Sequence[int], progress: Callable[[str], None]
    ) -> Rounding:
        raise Unsupported(ONE_KERNEL, param="backend")

    def last_logits(self, text: Text) -> np.ndarray:
        raise Unsupported(ONE_KERNEL, param="backend")
