"""Rows decoded together, and what their rounds were like: how many rows, how many drafts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from mtp_mlx.api import LLM
from mtp_mlx.backends import EngineLike
from mtp_mlx.errors import EngineStopped
from mtp_mlx.job import Job
from mtp_mlx.options import Keywords
from mtp_mlx.reply import Reply
from mtp_mlx.request import FinishReason, Sampling
from mtp_mlx.verdict import Exercise, Kind


@dataclass(frozen=True)
class Case:
    """A row to run: prompt number, its ids, and how its tokens are chosen."""

    prompt: int
    ids: tuple[int, ...]
    sampling: Sampling

    def options(self, num_draft_tokens: int | None, max_tokens: int) -> Keywords:
        """Keywords of its run; num_draft_tokens None is the policy's choice."""
        return Keywords(
            temperature=self.sampling.temperature,
            seed=self.sampling.seed,
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            max_tokens=max_tokens,
            num_draft_tokens=num_draft_tokens,
            cache=False,  # every run is to compute all of its text
        )


@dataclass(frozen=True)
class Written:
    """What a row wrote, why it ended, and its error if it failed."""

    tokens: tuple[int, ...]
    finish: FinishReason
    error: str | None

    @staticmethod
    def of(reply: Reply) -> "Written":
        """A finished reply."""
        return Written(reply.token_ids, reply.finish_reason, reply.error)

    def token(self, at: int) -> int | None:
        """The token there; None where the text has ended."""
        return self.tokens[at] if at < len(self.tokens) else None

    def parts_from(self, other: "Written") -> int | None:
        """Where the first token differs, or the end of both where only their reasons do; None where
        they are the same."""
        pairs = zip_longest(self.tokens, other.tokens)
        at = next((at for at, (one, two) in enumerate(pairs) if one != two), None)
        if at is None and self.finish != other.finish:
            return len(self.tokens)
        return at


def least_tokens(size: int, num_draft_tokens: int) -> int:
    """New tokens with which a round can have all rows of a batch of `size`, and drafts: one row
    joins a round, and every row before may emit all its drafts and one token more."""
    return (size - 1) * (num_draft_tokens + 1) + 3  # the prompt's, a draft, the target's own


def run_together(
    llm: LLM, batch: Sequence[Case], lengths: Sequence[int | None], max_tokens: int, kind: Kind
) -> tuple[list[Written], Exercise]:
    """What rows write that are submitted at once, with so many drafts each, in their order; and
    what their rounds were.

    A row that fails says so in its text, as in `LLM.batch`. Raises EngineStopped where the engine
    fails.
    """
    jobs = [
        llm._job(case.ids, case.options(length, max_tokens))
        for case, length in zip(batch, lengths, strict=True)
    ]
    watch = llm._worker.call(lambda _, engine: _Watch(engine, jobs))
    llm._worker.submit(*jobs)
    try:
        replies = [job.reply() for job in jobs]
    finally:
        for job in jobs:
            llm._worker.cancel(job)
    for job in jobs:
        if isinstance(job.error, EngineStopped):
            raise job.error
    exercise = Exercise(
        batch_size=len(batch),
        kind=kind,
        drafted=sum(reply.spec.drafted for reply in replies),
        accepted=sum(reply.spec.accepted for reply in replies),
        most_rows=watch.most_drafting_rows if kind == "drafts" else watch.most_rows,
    )
    return [Written.of(reply) for reply in replies], exercise


class _Watch:
    """Looks at the engine's counts whenever a job has a new chunk, on the engine's thread: events
    are handed out after every step, and a step has one round."""

    def __init__(self, engine: EngineLike, jobs: Sequence[Job]) -> None:
        self.most_rows = 0
        self.most_drafting_rows = 0
        self._engine = engine
        self._before = engine.stats()
        for job in jobs:
            job.subscribe(self._look)

    def _look(self) -> None:
        stats, before = self._engine.stats(), self._before
        self._before = stats
        rounds = stats.rounds - before.rounds
        if rounds == 0:
            return
        # More than one where all rows of a round had left: on average then, never too many.
        rows = (stats.rows - before.rows) // rounds
        self.most_rows = max(self.most_rows, rows)
        if stats.drafted > before.drafted:
            self.most_drafting_rows = max(self.most_drafting_rows, rows)
