"""One round: propose, verify, accept, commit.

For each row the drafter proposes up to k tokens; the target sees the pending token and the drafts
in one packed forward and chooses its own token at each place; the row keeps its drafts as far as
they equal the target's choices, and the target's next token. Plain decoding is k = 0 of this path.

`launch` queues a round on the device, `land` waits for it: the one host sync. A plain round may be
launched behind one that has not landed (its tokens are still on the device), so that the device
never waits for the host; what a finished row computed in vain lies beyond its length, unseen.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import mlx.core as mx
import numpy as np

from mtp_mlx.engine.sequence import RowLimit, Sequence
from mtp_mlx.errors import NumericalError
from mtp_mlx.model.backend import read_ints
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.choose import Choice, choose
from mtp_mlx.model.drafter import Drafts
from mtp_mlx.model.head import Logits
from mtp_mlx.model.routes import Distinct, Routes
from mtp_mlx.model.target import Target
from mtp_mlx.model.view import draft_view
from mtp_mlx.request import FinishReason, Origin


@dataclass(frozen=True)
class Draft:
    """Proposals on the device: tokens [b, depth] for the drafting rows.

    By row, `lengths` are verified of the `made` ones (None: all); the rest are shadows, which are
    read and compared later. `is_sound` [b, depth] is false from a row's first proposal that came
    from NaN or infinity, or names no token of the vocabulary.
    """

    lengths: tuple[int, ...]
    tokens: mx.array | None = None
    is_sound: mx.array | None = None
    made: tuple[int, ...] | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Proposals made, by row."""
        return self.lengths if self.made is None else self.made


@dataclass(frozen=True)
class Flight:
    """A round queued on the device. `report` packs all that the host reads of it; `has_routes`:
    the experts that its forward read among it."""

    sequences: tuple[Sequence, ...]
    rows: tuple[Row, ...]
    draft: Draft
    chosen: mx.array
    hidden: mx.array
    report: mx.array
    has_routes: bool = False

    def waiting_for(self, arrays: list[mx.array]) -> "Flight":
        """The same flight, which has landed when these are there too."""
        [report] = mx.depends([self.report], arrays)
        mx.async_eval(report)
        return replace(self, report=report)


@dataclass(frozen=True)
class Verdict:
    """A landed round, host ids by row: drafted[i] has k_i of them, chosen[i] has k_i + 1.

    `proposed[i]` are all sound drafts, verified or not. `experts`: distinct experts that the
    forward read, summed over its layers, None where it has none.
    """

    drafted: list[list[int]]
    chosen: list[list[int]]
    is_finite: list[bool]
    has_fault: list[bool]
    proposed: list[list[int]]
    experts: Distinct | None = None


@dataclass(frozen=True)
class Commit:
    """What a row keeps of a round: its new tokens, how many of them were drafts, and its end."""

    tokens: tuple[int, ...]
    accepted: int
    reason: FinishReason | None


def propose(
    target: Target,
    drafter: Drafts,
    cache: Cache,
    sequences: tuple[Sequence, ...],
    lengths: tuple[int, ...],
) -> Draft:
    """Draft tokens for every row with lengths[i] > 0, chosen with the target's own noise.

    A row leaves the drafter's batch when it has its drafts; its places behind them hold 0.
    """
    drafting = [s for s, length in zip(sequences, lengths, strict=True) if length]
    if not drafting:
        return Draft(lengths)
    view = draft_view(cache, tuple(s.slot for s in drafting))
    tokens = mx.array([s.pending for s in drafting])
    hidden = mx.stack([_hidden(s) for s in drafting])  # [b, D]
    sound = mx.ones(tokens.shape, mx.bool_)
    vocab = target.config.vocab_size
    wanted = [length for length in lengths if length]
    active = list(range(len(drafting)))
    drafted, soundness = [], []
    for depth in range(max(lengths)):
        if any(wanted[index] == depth for index in active):
            keep = [at for at, index in enumerate(active) if wanted[index] > depth]
            active = [active[at] for at in keep]
            view = view.narrowed(keep)
            place = mx.array(keep)
            tokens, hidden, sound = tokens[place], hidden[place], sound[place]
        logits, hidden = drafter.step(target.embed(tokens), hidden, view)
        samplings = [drafting[index].request.sampling for index in active]
        places = [len(drafting[index].tokens) + depth for index in active]
        tokens = choose(logits, Choice(samplings, places))
        sound = sound & _is_sound(logits, tokens, vocab)
        tokens = mx.where(sound, tokens, 0)
        drafted.append(_spread(tokens, active, len(drafting)))
        soundness.append(_spread(sound, active, len(drafting)))
    return Draft(lengths, mx.stack(drafted, axis=1), mx.stack(soundness, axis=1))


def _spread(values: mx.array, places: list[int], length: int) -> mx.array:
    """Values [n] at their places among `length`, zeros elsewhere."""
    if len(places) == length:
        return values
    spread = mx.zeros((length,), values.dtype)
    spread[mx.array(places)] = values
    return spread


def _is_sound(logits: Logits, tokens: mx.array, vocab_size: int) -> mx.array:
    return mx.isfinite(logits.scores.max(axis=-1)) & (tokens >= 0) & (tokens < vocab_size)


def _hidden(sequence: Sequence) -> mx.array:
    assert sequence.hidden is not None, "a running sequence has a hidden state"
    return sequence.hidden


def launch(target: Target, cache: Cache, sequences: tuple[Sequence, ...], draft: Draft) -> Flight:
    """Queue the verify forward of every row's pending token and drafts."""
    rows = tuple(
        Row(s.slot, len(s.tokens) - 1, 1 + length)
        for s, length in zip(sequences, draft.lengths, strict=True)
    )
    pending = mx.array([s.pending for s in sequences])
    return _queue(target, cache, sequences, rows, draft, _packed(pending, draft))


def launch_behind(flight: Flight, target: Target, cache: Cache, keep: tuple[int, ...]) -> Flight:
    """Queue the plain round after a plain flight that has not landed, for its rows `keep`."""
    assert not any(flight.draft.counts), "only plain rounds run ahead"
    sequences = tuple(flight.sequences[i] for i in keep)
    rows = tuple(Row(flight.rows[i].slot, flight.rows[i].end, 1) for i in keep)
    is_same = len(keep) == len(flight.sequences)
    tokens = flight.chosen if is_same else flight.chosen[mx.array(keep)]
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
    logits = target.logits(hidden)
    samplings = [
        s.request.sampling for s, r in zip(sequences, rows, strict=True) for _ in range(r.length)
    ]
    places = [place + 1 for row in rows for place in range(row.start, row.end)]
    chosen = choose(Logits(logits), Choice(samplings, places))  # [N]
    parts = [chosen, is_finite(hidden, logits).astype(mx.int32)]
    if draft.tokens is not None and draft.is_sound is not None:
        parts += [draft.tokens.reshape(-1), draft.is_sound.reshape(-1).astype(mx.int32)]
    if routes is not None:
        parts.append(routes.distinct(first_tokens(rows)))
    report = mx.concatenate(parts)
    mx.async_eval(report, hidden)
    return Flight(sequences, rows, draft, chosen, hidden, report, routes is not None)


def first_tokens(rows: tuple[Row, ...]) -> list[int]:
    """Where each row's pending token lies among the packed tokens."""
    ends = accumulate(row.length for row in rows)
    return [end - row.length for end, row in zip(ends, rows, strict=True)]


def is_finite(hidden: mx.array, logits: mx.array) -> mx.array:
    """Per token [N]: no NaN or infinity in its state or scores; argmax would hide them."""
    return mx.isfinite(hidden.sum(axis=-1)) & mx.isfinite(logits.max(axis=-1))


def _packed(pending: mx.array, draft: Draft) -> mx.array:
    """Row after row, the pending token and its drafts [N]."""
    if draft.tokens is None:
        return pending
    num_rows, depth = len(draft.lengths), draft.tokens.shape[1]
    index, drafting = [], 0
    for row, (length, made) in enumerate(zip(draft.lengths, draft.counts, strict=True)):
        index.append(row)
        index.extend(num_rows + drafting * depth + i for i in range(length))
        drafting += made > 0
    every = mx.concatenate([pending, draft.tokens.reshape(-1)])
    return every[mx.array(np.array(index, dtype=np.int32))]


def land(flight: Flight) -> Verdict:
    """Wait for a flight and read it: the one host sync of a round."""
    report = read_ints(flight.report)
    experts = None
    if flight.has_routes:
        *report, pending, every = report
        experts = Distinct(pending, every)
    lengths, counts = flight.draft.lengths, flight.draft.counts
    num_tokens = sum(lengths) + len(lengths)
    chosen, finite = report[:num_tokens], report[num_tokens : 2 * num_tokens]
    proposals = report[2 * num_tokens :]
    depth = max(counts)
    sound = proposals[len(proposals) // 2 :]
    verdict = Verdict([], [], [], [], [], experts)
    at, drafting = 0, 0
    for length, made in zip(lengths, counts, strict=True):
        start = drafting * depth
        drafting += made > 0
        verdict.drafted.append(proposals[start : start + length])
        verdict.has_fault.append(not all(sound[start : start + made]))
        num_sound = [*sound[start : start + made], 0].index(0)
        verdict.proposed.append(proposals[start : start + num_sound])
        verdict.chosen.append(chosen[at : at + length + 1])
        verdict.is_finite.append(all(finite[at : at + length + 1]))
        at += length + 1
    return verdict


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
