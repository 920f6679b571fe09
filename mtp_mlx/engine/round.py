"""One round: propose, verify, accept, commit.

For each row the drafter proposes up to k tokens; the target sees the pending token and the drafts
in one packed forward and chooses its own token at each place; the row keeps its drafts as far as
they equal the target's choices, and the target's next token. Plain decoding is k = 0 of this path.

`launch` queues a round on the device, `land` waits for it: the one host sync. A plain round may be
launched behind one that has not landed (its tokens are still on the device), so that the device
never waits for the host; what a finished row computed in vain lies beyond its length, unseen.
"""

from dataclasses import dataclass, field, replace
from itertools import accumulate

import mlx.core as mx

from mtp_mlx.engine.choosing import Chosen, Reader, choose_all, read_logprobs
from mtp_mlx.engine.draft import Draft, packed
from mtp_mlx.engine.sequence import RowLimit, Sequence
from mtp_mlx.errors import NumericalError
from mtp_mlx.model.backend import queue, read_ints
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.routes import Distinct, Routes
from mtp_mlx.model.target import Target
from mtp_mlx.request import FinishReason, Logprob, Origin, nothing_allowed


@dataclass(frozen=True)
class Flight:
    """A round queued on the device. `report` packs all that the host reads of it; `has_routes`:
    the experts that its forward read among it."""

    sequences: tuple[Sequence, ...]
    rows: tuple[Row, ...]
    draft: Draft
    chosen: Chosen
    hidden: mx.array
    report: mx.array
    has_routes: bool = False

    def waiting_for(self, arrays: list[mx.array]) -> "Flight":
        """The same flight, which has landed when these are there too."""
        [report] = mx.depends([self.report], arrays)
        queue(report)
        return replace(self, report=report)


@dataclass(frozen=True)
class Verdict:
    """A landed round, host ids by row: drafted[i] has k_i of them, chosen[i] has k_i + 1.

    `proposed[i]` are all sound drafts, verified or not. Of row i at most reach[i] tokens may be
    kept, and none where its constraint failed (`errors`). `logprobs[i]`, where it asked for them:
    by place, of the chosen token and of the one that ends a thought. `experts`: distinct experts
    that the forward read, summed over its layers, None where it has none.
    """

    drafted: list[list[int]]
    chosen: list[list[int]]
    is_finite: list[bool]
    has_fault: list[bool]
    proposed: list[list[int]]
    reach: list[int]
    errors: dict[int, Exception] = field(default_factory=dict)
    logprobs: dict[int, list[list[Logprob]]] = field(default_factory=dict)
    experts: Distinct | None = None


@dataclass(frozen=True)
class Commit:
    """What a row keeps of a round: its new tokens, how many of them were drafts, and its end."""

    tokens: tuple[int, ...]
    accepted: int
    reason: FinishReason | None


def launch(target: Target, cache: Cache, sequences: tuple[Sequence, ...], draft: Draft) -> Flight:
    """Queue the verify forward of every row's pending token and drafts."""
    rows = tuple(
        Row(s.slot, len(s.tokens) - 1, 1 + length)
        for s, length in zip(sequences, draft.lengths, strict=True)
    )
    pending = mx.array([s.pending for s in sequences])
    return _queue(target, cache, sequences, rows, draft, packed(pending, draft))


def launch_behind(flight: Flight, target: Target, cache: Cache, keep: tuple[int, ...]) -> Flight:
    """Queue the plain round after a plain flight that has not landed, for its rows `keep`."""
    assert not any(flight.draft.counts), "only plain rounds run ahead"
    sequences = tuple(flight.sequences[i] for i in keep)
    rows = tuple(Row(flight.rows[i].slot, flight.rows[i].end, 1) for i in keep)
    is_same = len(keep) == len(flight.sequences)
    tokens = flight.chosen.ids if is_same else flight.chosen.ids[mx.array(keep)]
    return _queue(target, cache, sequences, rows, Draft((0,) * len(keep)), tokens)


def _queue(
    target: Target,
    cache: Cache,
    sequences: tuple[Sequence, ...],
    rows: tuple[Row, ...],
    draft: Draft,
    tokens: mx.array,
) -> Flight:
    routes = Routes() if target.config.num_expert_layers else None
    hidden = target(Batch.of(rows, tokens), cache, routes)  # [N, D]
    return _flight(sequences, rows, draft, hidden, target.logits(hidden), routes)


def launch_first(target: Target, sequence: Sequence, hidden: mx.array) -> Flight:
    """Queue the choice of the token after a prompt, from its last state [1, D]."""
    rows = (Row(sequence.slot, len(sequence.tokens) - 1, 1),)
    return _flight((sequence,), rows, Draft((0,)), hidden, target.logits(hidden), None)


def _flight(
    sequences: tuple[Sequence, ...],
    rows: tuple[Row, ...],
    draft: Draft,
    hidden: mx.array,
    logits: mx.array,
    routes: Routes | None,
) -> Flight:
    chosen = choose_all(hidden, logits, sequences, rows, draft)
    parts = chosen.report
    if draft.tokens is not None and draft.is_sound is not None:
        parts += [draft.tokens.reshape(-1), draft.is_sound.reshape(-1).astype(mx.int32)]
    if routes is not None:
        parts.append(routes.distinct(first_tokens(rows)))
    report = mx.concatenate(parts)
    queue(report, hidden)
    return Flight(sequences, rows, draft, chosen, hidden, report, routes is not None)


def first_tokens(rows: tuple[Row, ...]) -> list[int]:
    """Where each row's pending token lies among the packed tokens."""
    ends = accumulate(row.length for row in rows)
    return [end - row.length for end, row in zip(ends, rows, strict=True)]


def land(flight: Flight) -> Verdict:
    """Wait for a flight and read it: the one host sync of a round."""
    report = Reader(read_ints(flight.report))
    lengths, counts = flight.draft.lengths, flight.draft.counts
    num_tokens = sum(lengths) + len(lengths)
    chosen, finite = report.take(num_tokens), report.take(num_tokens)
    ruling, scored = flight.chosen.ruling, flight.chosen.scored
    is_open = [1] * num_tokens if ruling is None else report.take(num_tokens)
    errors = {} if ruling is None else ruling.errors
    logprobs = {} if scored is None else _read_logprobs(report, flight, scored.count)
    depth = max(counts)
    num_made = depth * sum(made > 0 for made in counts)
    proposals, sound = report.take(num_made), report.take(num_made)
    experts = Distinct(*report.take(2)) if flight.has_routes else None
    verdict = Verdict([], [], [], [], [], [], errors, logprobs, experts)
    at, drafting = 0, 0
    for row, (length, made) in enumerate(zip(lengths, counts, strict=True)):
        start = drafting * depth
        drafting += made > 0
        verdict.drafted.append(proposals[start : start + length])
        verdict.has_fault.append(not all(sound[start : start + made]))
        num_sound = [*sound[start : start + made], 0].index(0)
        verdict.proposed.append(proposals[start : start + num_sound])
        verdict.chosen.append(chosen[at : at + length + 1])
        verdict.is_finite.append(all(finite[at : at + length + 1]))
        reach = length + 1 if ruling is None else ruling.reach[row]
        verdict.reach.append([*is_open[at : at + reach], 0].index(0))
        at += length + 1
    return verdict


def _read_logprobs(report: Reader, flight: Flight, count: int) -> dict[int, list[list[Logprob]]]:
    """By row that asked for them, and place."""
    found = {}
    for row, (sequence, length) in enumerate(
        zip(flight.sequences, flight.draft.lengths, strict=True)
    ):
        asked = sequence.request.logprobs
        if asked is not None:
            found[row] = [read_logprobs(report, 2, count, asked) for _ in range(length + 1)]
    return found


def judge(sequence: Sequence, verdict: Verdict, row: int) -> Commit:
    """The tokens that a row keeps of a landed round. Raises what its constraint or its own stop
    test raises, and RequestError where its constraint allows no token."""
    if row in verdict.errors:
        raise verdict.errors[row]
    reach = verdict.reach[row]
    if not reach:
        raise nothing_allowed(sequence.num_emitted)
    drafted, chosen = verdict.drafted[row], verdict.chosen[row]
    kept = accept(drafted[: reach - 1], chosen[:reach], sequence.limit)
    if sequence.request.constraint is not None:
        sequence.request.constraint.take(kept.tokens)
    return kept


def logprobs_of(verdict: Verdict, row: int, kept: Commit) -> tuple[Logprob, ...]:
    """Of the kept tokens, () where the row asked for none. What the target would not have chosen
    itself is the end of a thought."""
    places = zip(kept.tokens, verdict.chosen[row], verdict.logprobs.get(row, ()), strict=False)
    return tuple(own if token == chosen else ending for token, chosen, (own, ending) in places)


def accept(drafted: list[int], chosen: list[int], limit: RowLimit) -> Commit:
    """The tokens a row keeps: its drafts as far as the target agrees, then the target's own next.

    drafted has k host ids, chosen k + 1. A stop token, a stop string or the end of the budget cuts
    the row there, as if it had been decoded token by token. Leviathan et al. 2023, §2.3, with
    matching in place of weighing (see model/choose.py). The token that ends a thought whose budget
    is spent takes the place of the target's choice: drafts behind it stay only where it was drafted
    itself.
    """
    assert len(chosen) == len(drafted) + 1
    assert limit.remaining > 0
    tokens: list[int] = []
    accepted = 0
    thinking = limit.thinking
    for index, own in enumerate(chosen):
        token = thinking.choice(own)
        thinking = thinking.after(token)
        tokens.append(token)
        is_match = index < len(drafted) and drafted[index] == token
        accepted += is_match
        # is_end comes first: it must see every emitted token.
        if limit.is_end(token) or token in limit.stop_ids:
            return Commit(tuple(tokens), accepted, "stop")
        if len(tokens) == limit.remaining:
            return Commit(tuple(tokens), accepted, "length")
        if not is_match:
            break
    return Commit(tuple(tokens), accepted, None)


def commit(cache: Cache, sequence: Sequence, kept: Commit, hidden: mx.array) -> None:
    """Take what a row keeps: the one place where length, tokens and hidden state change.

    `hidden` [k + 1, D] are the row's states of this round; the last kept token was predicted by the
    state at its own index, and is pending from now on.
    """
    cache.commit(sequence.slot, len(kept.tokens))
    sequence.extend(kept.tokens)
    sequence.hidden = hidden[len(kept.tokens) - 1]


def origins(kept: Commit, length: int) -> tuple[Origin, ...]:
    """Where each kept token of a round with `length` drafts came from."""
    if length == 0:
        return ("plain",)
    own = len(kept.tokens) - kept.accepted
    return ("draft",) * kept.accepted + ("target",) * own


def numerical_error(sequence: Sequence) -> NumericalError:
    """The error of a row whose state or logits are not finite."""
    return NumericalError(
        f"the target gave NaN or infinity after {sequence.num_emitted} tokens; "
        "check the weights, or load with dtype float32"
    )
