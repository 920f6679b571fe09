"""The first part of a round: what the drafter proposes, on the device."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mtp_mlx.engine.history import DraftHistory
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.model.backend import queue
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.choose import Choice, choose
from mtp_mlx.model.drafter import Drafts
from mtp_mlx.model.head import Logits
from mtp_mlx.model.processors import process
from mtp_mlx.model.target import Target
from mtp_mlx.model.view import draft_view


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

    def flat_places(self, row: int) -> list[int]:
        """Where the drafts of a row that are verified lie in tokens.reshape(-1)."""
        if self.tokens is None:
            return []
        start = sum(made > 0 for made in self.counts[:row]) * self.tokens.shape[1]
        return list(range(start, start + self.lengths[row]))


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
    history = DraftHistory(drafting, vocab)
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
        todo = history.processors(active)
        scores = logits if todo is None else process(logits, todo)
        tokens = choose(scores, Choice(samplings, places))
        sound = sound & _is_sound(logits, tokens, vocab)
        tokens = mx.where(sound, tokens, 0)
        queue(tokens, hidden)  # while the host builds the graph of what follows
        history.add(active, tokens)
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


def packed(pending: mx.array, draft: Draft) -> mx.array:
    """Row after row, the pending token and its drafts [N]."""
    if draft.tokens is None:
        return pending
    num_rows = len(draft.lengths)
    index: list[int] = []
    for row in range(num_rows):
        index += (row, *(num_rows + place for place in draft.flat_places(row)))
    every = mx.concatenate([pending, draft.tokens.reshape(-1)])
    return every[mx.array(np.array(index, dtype=np.int32))]
