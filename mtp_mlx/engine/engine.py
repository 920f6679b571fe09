"""The engine: requests in, events out, one round of all running rows a step. No threads, no text.

A step admits waiting requests into free slots, runs one round of the rows that run, then at most
one chunk of one prompt. Rows join at the next round and leave at once. Chunk borders are multiples
of `chunk` from the start of the prompt, whatever else runs, so a row's text does not depend on its
neighbours. At such borders texts are kept, and later requests that begin the same go on from them
(`keep_prompts`, engine/prefixes.py).
"""

from collections import deque
from dataclasses import replace

import mlx.core as mx

from mtp_mlx.engine.airborne import Airborne
from mtp_mlx.engine.clock import RoundClock
from mtp_mlx.engine.draft import Draft, propose
from mtp_mlx.engine.memory import Memory
from mtp_mlx.engine.planner import FixedPlanner, Planner
from mtp_mlx.engine.policy import Outcome, RowInput, Shadow
from mtp_mlx.engine.prefixes import Prefixes
from mtp_mlx.engine.prompts import first_token, score_chunk
from mtp_mlx.engine.round import (
    Commit,
    Flight,
    Verdict,
    commit,
    judge,
    land,
    launch,
    launch_behind,
    launch_first,
    logprobs_of,
    numerical_error,
    origins,
)
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.engine.shadows import Shadows
from mtp_mlx.engine.stats import Counters, outcome_of, row_statuses, seen_experts
from mtp_mlx.engine.watch import Watch
from mtp_mlx.errors import contained, without_frames
from mtp_mlx.fit import PREFILL_CHUNK
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.drafter import Drafts
from mtp_mlx.model.target import Target
from mtp_mlx.reply import EngineStats
from mtp_mlx.request import (
    MAX_DRAFT_TOKENS,
    Event,
    Failed,
    Finished,
    FinishReason,
    Request,
    Tokens,
    check_request,
)
from mtp_mlx.snapshot import EngineStatus


class Engine:
    """Continuous batching over `max_num_seqs` slots. Use from one thread."""

    def __init__(
        self,
        target: Target,
        drafter: Drafts | None,
        max_num_seqs: int = 8,
        chunk: int = PREFILL_CHUNK,
        kv_budget: int | None = None,
        planner: Planner | None = None,
    ) -> None:
        """`kv_budget`: bytes for K/V of all rows, None for no limit. `planner` decides how many
        drafts rows make where the request leaves it open; None drafts a fixed number.

        Raises DoesNotFit where it does not even hold the windows of `max_num_seqs` rows.
        """
        self.target = target
        self.drafter = drafter
        self.cache = target.new_cache(max_num_seqs, MAX_DRAFT_TOKENS + 1)
        self.chunk = chunk
        self.slots: list[Sequence | None] = [None] * max_num_seqs
        self.waiting: deque[tuple[int, Request]] = deque()
        self.memory = Memory(target.config.layers, target.dtype.size, max_num_seqs, kv_budget)
        self.counters = Counters()
        self.planner: Planner = FixedPlanner() if planner is None else planner
        self._air: Airborne | None = None
        self._has_drafted = False  # the last round that did not run ahead
        self.watch = Watch()
        self._clock = RoundClock()
        self._shadows = Shadows()
        self._left: list[int] = []
        self._next_id = 0
        self.keep_prompts(0)

    def keep_prompts(self, num_bytes: int) -> None:
        """Keep texts for later requests that begin with them, in so many bytes at most."""
        layers, size = self.target.config.layers, self.target.dtype.size
        self.prefixes = Prefixes(layers, self.cache, self.memory, size, self.chunk, num_bytes)

    def submit(self, request: Request) -> int:
        """Queue a request; its id marks its events.

        Raises RequestError for an impossible one, DoesNotFit for one that needs too much memory
        even alone.
        """
        check_request(request, self.target.config.vocab_size, self.target.config.max_positions)
        self.memory.check(self._most_tokens(request))
        self._next_id += 1
        self.waiting.append((self._next_id, request))
        return self._next_id

    def cancel(self, request_id: int) -> list[Event]:
        """End a request now; empty when it is not (or no longer) known."""
        for entry in self.waiting:
            if entry[0] == request_id:
                self.waiting.remove(entry)
                return [Finished(request_id, "cancelled")]
        for sequence in self.sequences:
            if sequence.id == request_id:
                ended = self._finish(sequence, "cancelled")
                if self._air is None:  # no outcome of it is still to come
                    self._retire()
                return [ended]
        return []

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        """All admitted sequences in the order of their slots."""
        return tuple(s for s in self.slots if s is not None)

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.sequences

    def disturb(self) -> None:
        """Something else has used the device: what the round under way takes is not typical."""
        self._clock.disturb()

    def stats(self) -> EngineStats:
        """What it holds and has done."""
        decision = self.watch.decision
        running = [s for s in self.sequences if s.is_running]
        return EngineStats(
            slots=len(self.slots),
            running=len(running),
            prefilling=len(self.sequences) - len(running),
            waiting=len(self.waiting),
            kv_reserved_bytes=self.memory.reserved,
            kv_budget_bytes=self.memory.budget,
            prompt_cache_bytes=self.prefixes.borders.bytes,
            prompt_cache_budget_bytes=self.prefixes.borders.budget,
            decision=None if decision is None else str(decision),
            costs=self.watch.costs,
            **self.counters.to_stats(),
        )

    def status(self) -> EngineStatus:
        """How it stands, row by row."""
        rounds = self.watch.stats(self.counters.drafted_at, self.counters.accepted_at)
        return EngineStatus(self.stats(), row_statuses(self.sequences, self.waiting), rounds)

    def step(self) -> list[Event]:
        """Admit, run one round, run one prompt chunk; the events in the order they happened.

        The chunk comes last, so that a first token is handed over as soon as it is known.
        """
        self.watch.begin()
        events = self._admit()
        events += self._round()
        events += self._prefill()
        self.watch.lap("prompt")
        return events

    def _admit(self) -> list[Event]:
        """Rows for the requests that came first, as far as slots and memory go."""
        events: list[Event] = []
        for slot, holder in enumerate(self.slots):
            if holder is not None or not self.waiting:
                continue
            request_id, request = self.waiting[0]
            most = self._most_tokens(request)
            self.prefixes.make_way(request.prompt, most)
            if not self.memory.reserve(slot, most):
                break  # nobody overtakes the one that waits longest
            self.waiting.popleft()
            self._clock.disturb()
            self.cache.limit(slot, most)
            context = self.target.config.max_positions
            admitted = Sequence.of(request_id, request, slot, context)
            self.slots[slot] = admitted
            events.append(admitted.progress)
        return events

    def _most_tokens(self, request: Request) -> int:
        """Positions that a row may write: prompt, reply, and a block that is rejected."""
        whole = min(len(request.prompt) + request.max_tokens, self.target.config.max_positions)
        return whole + self.cache.max_block

    def _prefill(self) -> list[Event]:
        """One chunk of the prompt that was admitted first; the first token after its last chunk."""
        waiting = [s for s in self.sequences if not s.is_running]
        if not waiting:
            return []
        self._clock.disturb()
        events: list[Event] = []
        sequence = min(waiting, key=lambda s: s.id)
        if sequence.cache_use is None:
            sequence.cache_use = self.prefixes.start(sequence)
            sequence.num_prefilled = sequence.cache_use.cached_tokens
            self.counters.count_prompt(sequence.request, sequence.cache_use)
            if sequence.num_prefilled:
                events.append(sequence.progress)
        start = sequence.num_prefilled
        part = sequence.tokens[start : start + self.chunk]
        row = Row(sequence.slot, start, len(part))
        batch = Batch.of((row,), mx.array(part), is_chunk=True)
        if sequence.request.prompt_logprobs is None:
            last, states = self.target.prefill(batch, self.cache)
        else:
            states = self.target(batch, self.cache)
            last = states[-1:]
        self.cache.commit(sequence.slot, len(part))
        sequence.num_prefilled = row.end
        self.prefixes.keep_chunk(sequence, start, states)
        score_chunk(self.target, sequence, start, states)
        events.append(sequence.progress)
        if row.end == len(sequence.tokens):
            events += self._first_token(sequence, last)
        return events

    def _first_token(self, sequence: Sequence, hidden: mx.array) -> list[Event]:
        """Choose the token after the prompt from the last state [1, D]."""
        verdict = land(launch_first(self.target, sequence, hidden))
        try:
            first, kept = first_token(sequence, verdict, hidden)
        except BaseException as error:  # NaN, or of the request's own is_end or constraint
            return [self._fail(sequence, contained(error))]
        events: list[Event] = [first]
        if kept.reason is not None:
            events.append(self._finish(sequence, kept.reason))
        return events

    def _round(self) -> list[Event]:
        air = self._air or self._launch()
        if air is None:
            self._clock.rest()
            self._retire()
            return []
        self.watch.decide(air)
        self._air = self._run_ahead(air)
        self.watch.lap("launch")
        verdict = land(air.flight)
        self.watch.lap("land")
        draft = air.flight.draft
        num_tokens = len(draft.lengths) + sum(draft.lengths)
        seen = seen_experts(verdict, self.target.config.num_expert_layers)
        timing = self._clock.land((len(draft.lengths), num_tokens), seen)
        self.counters.count_round(len(draft.lengths), num_tokens)
        if seen is not None:
            top_k = self.target.config.mean_top_k
            self.counters.count_experts(len(draft.lengths), num_tokens, seen, top_k)
        events, outcomes, judged = self._commit(air.flight, verdict)
        self.prefixes.keep(air.copies)
        self.planner.learn(air.decision, tuple(outcomes), timing, tuple(judged))
        self._retire()
        self.watch.land(air.decision, timing, self.counters.tokens)
        self.watch.lap("commit")
        return events

    def _retire(self) -> None:
        """Let the planner forget the rows that have left; their last outcomes it has heard."""
        for row in self._left:
            self.planner.retire(row)
        self._left.clear()

    def _commit(
        self, flight: Flight, verdict: Verdict
    ) -> tuple[list[Event], list[Outcome], list[Shadow]]:
        """What every row keeps of a landed round, and what that says of the drafts."""
        events: list[Event] = []
        outcomes: list[Outcome] = []
        judged: list[Shadow] = []
        offset = 0
        for index, sequence in enumerate(flight.sequences):
            length = flight.draft.lengths[index]
            states = flight.hidden[offset : offset + length + 1]
            offset += length + 1
            if self.slots[sequence.slot] is not sequence:
                continue  # ended while this flight was in the air
            drafted = verdict.drafted[index]
            if not verdict.is_finite[index]:
                events += self._refuse(sequence, drafted)
                continue
            sequence.note_fault(verdict.has_fault[index])
            try:
                kept = judge(sequence, verdict, index)
            except BaseException as error:  # of its own is_end or constraint: nobody else's fault
                events.append(self._fail(sequence, contained(error)))
                continue
            start = len(sequence.tokens)
            commit(self.cache, sequence, kept, states)
            self.counters.count(sequence, len(drafted), kept)
            if drafted:
                outcomes.append(outcome_of(sequence, drafted, kept))
            if kept.accepted == len(drafted):
                self._shadows.keep(sequence, start, len(drafted), verdict.proposed[index])
            judged += self._shadows.judge(sequence, is_over=kept.reason is not None)
            where = origins(kept, length)
            scores = logprobs_of(verdict, index, kept)
            made = (tuple(drafted), kept.accepted, None, scores)
            events.append(Tokens(sequence.id, kept.tokens, where, *made))
            if kept.reason is not None:
                events.append(self._finish(sequence, kept.reason))
        return events, outcomes, judged

    def _launch(self) -> Airborne | None:
        running = tuple(s for s in self.sequences if s.is_running)
        if not running:
            return None
        self._clock.begin()
        rows = tuple(self._input(s) for s in running)
        decision = self.planner.plan(rows)
        if decision.is_plain and self._has_drafted:
            self._clock.disturb()  # the host's part, which runs ahead from now on, is in its time
        self._has_drafted = not decision.is_plain
        draft = Draft(decision.lengths)
        if self.drafter is not None and not decision.is_plain:
            made = propose(self.target, self.drafter, self.cache, running, decision.made)
            draft = replace(made, lengths=decision.lengths, made=decision.made)
        flight = launch(self.target, self.cache, running, draft)
        copies = self.prefixes.copy_rows(running, draft.lengths)
        if copies:
            self._clock.disturb()
            flight = flight.waiting_for([array for each in copies for array in each.arrays])
        return Airborne(flight, rows, decision, copies)

    def _run_ahead(self, air: Airborne) -> Airborne | None:
        """The next plain round, queued before this one lands; None where rows draft or join, or
        where the token on the device is not the one that a row will emit."""
        flight = air.flight
        running = {s.id for s in self.sequences if s.is_running}
        if not air.decision.is_plain or running - {s.id for s in flight.sequences} or air.copies:
            return None
        going = enumerate(flight.sequences)
        keep = tuple(i for i, s in going if s.id in running and s.remaining > 1)
        if not keep or any(self._ends_run(flight, index) for index in keep):
            return None
        rows = tuple(self._input(flight.sequences[index], in_the_air=1) for index in keep)
        decision = self.planner.plan(rows, in_the_air=1)
        if not decision.is_plain:
            return None
        return Airborne(launch_behind(flight, self.target, self.cache, keep), rows, decision)

    def _ends_run(self, flight: Flight, index: int) -> bool:
        """Must this flight land first: is a row's next token not free, must the host know the one
        in the air, or would the round behind it pass a chunk border, where the row is copied?"""
        sequence = flight.sequences[index]
        if sequence.thinking.is_spent or sequence.needs_its_tokens:
            return True
        end = flight.rows[index].end
        return self.prefixes.reaches(sequence, end, end + 1) is not None

    def _input(self, sequence: Sequence, in_the_air: int = 0) -> RowInput:
        """The row for the planner: no more drafts than it can still emit, its own token besides."""
        asked = sequence.request.num_draft_tokens
        cap = 0
        if self.drafter is not None and sequence.parked is None:
            room = sequence.remaining - in_the_air - 1
            cap = max(min(self.planner.k_max if asked is None else asked, room), 0)
        return RowInput(sequence.id, cap, is_command=asked is not None)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> Event:
        self._free(sequence)
        parked = sequence.parked or sequence.declined
        return Finished(sequence.id, reason, parked, sequence.plain_tokens_per_s)

    def _refuse(self, sequence: Sequence, drafted: list[int]) -> list[Event]:
        """Drop a row's round with NaN or infinity in it. Drafts may have caused what the plain text
        would never meet, so a row that drafted goes on plainly; one that did not has failed."""
        if not drafted:
            return [self._fail(sequence, numerical_error(sequence))]
        self.cache.scrub(sequence.slot)
        self.counters.count(sequence, len(drafted), Commit((), 0, None))
        sequence.parked = "a draft led the target to NaN or infinity"
        return [Tokens(sequence.id, (), (), tuple(drafted), 0)]

    def _fail(self, sequence: Sequence, error: Exception) -> Event:
        """End a row alone."""
        self._free(sequence)
        return Failed(sequence.id, without_frames(error))

    def _free(self, sequence: Sequence) -> None:
        self.cache.release(sequence.slot)
        self.memory.release(sequence.slot)
        self.slots[sequence.slot] = None
        self._shadows.drop(sequence)
        self._left.append(sequence.id)
        self._clock.disturb()
        if not self.sequences:
            self._air = None  # of rows that have all left, which it would keep
