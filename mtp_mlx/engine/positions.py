"""From which query position the drafter's guesses are best: teacher-forced on known texts.

The drafter looks from one position through a burst. Implementations differ by one place, and which
is right is a fact of the trained weights, so it is measured. It never changes a text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from mtp_mlx.engine.forced import prefill
from mtp_mlx.measured import PositionScore
from mtp_mlx.model.backend import read_ints
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.choose import Choice, choose
from mtp_mlx.model.drafter import Drafts
from mtp_mlx.model.target import Target
from mtp_mlx.model.view import draft_view
from mtp_mlx.request import MAX_DRAFT_TOKENS, Sampling
from mtp_mlx.verdict import Text

BACKS = (0, 1)
DEPTH = 4  # drafts of a burst


@dataclass
class _Tally:
    """Counts of one position, by depth."""

    back: int
    drafted: list[int] = field(default_factory=lambda: [0] * DEPTH)
    accepted: list[int] = field(default_factory=lambda: [0] * DEPTH)

    def add(self, drafts: Sequence[int], text: Sequence[int]) -> None:
        """Take in a burst and how the text goes on."""
        for depth, (draft, token) in enumerate(zip(drafts, text, strict=False)):
            self.drafted[depth] += 1
            if draft != token:
                return
            self.accepted[depth] += 1


def compare(
    target: Target,
    drafter: Drafts,
    texts: Sequence[Text],
    num_slots: int,
    chunk: int,
    progress: Callable[[str], None],
) -> tuple[PositionScore, ...]:
    """Draft greedily after every token of the texts' replies, from each position.

    texts: greedy replies of this target. num_slots: how many are decoded side by side. chunk: of
    their prompts.
    """
    tallies = [_Tally(back) for back in BACKS]
    for first in range(0, len(texts), num_slots):
        group = texts[first : first + num_slots]
        progress(f"drafter's position: texts {first + 1} to {first + len(group)} of {len(texts)}")
        _compare(target, drafter, group, chunk, tallies)
    return tuple(PositionScore(t.back, tuple(t.drafted), tuple(t.accepted)) for t in tallies)


def _compare(
    target: Target, drafter: Drafts, texts: Sequence[Text], chunk: int, tallies: list[_Tally]
) -> None:
    """Count a few texts, side by side."""
    cache = target.new_cache(len(texts), MAX_DRAFT_TOKENS + 1)
    hidden = {}  # slot -> the state [D] before its pending token
    for slot, text in enumerate(texts):
        hidden[slot] = prefill(target, cache, text.ids[: text.start], chunk, slot)[-1][-1]
    while slots := [s for s, text in enumerate(texts) if len(text.ids) - cache.lengths[s] > 1]:
        pending = mx.array([texts[slot].ids[cache.lengths[slot]] for slot in slots])
        states = mx.stack([hidden[slot] for slot in slots])
        bursts = [_burst(target, drafter, cache, slots, (pending, states, b)) for b in BACKS]
        drafted = read_ints(mx.concatenate(bursts))
        for number, tally in enumerate(tallies):
            for row, slot in enumerate(slots):
                first = (number * len(slots) + row) * DEPTH
                after = cache.lengths[slot] + 1
                tally.add(drafted[first : first + DEPTH], texts[slot].ids[after:])
        rows = tuple(Row(slot, cache.lengths[slot], 1) for slot in slots)
        states = target(Batch.of(rows, pending), cache)
        mx.eval(states)
        for row, slot in enumerate(slots):
            cache.commit(slot, 1)
            hidden[slot] = states[row]


def _burst(
    target: Target,
    drafter: Drafts,
    cache: Cache,
    slots: Sequence[int],
    start: tuple[mx.array, mx.array, int],
) -> mx.array:
    """Greedy drafts [B · DEPTH] of each slot, from (pending tokens [B], states [B, D], back)."""
    tokens, hidden, back = start
    view = draft_view(cache, tuple(slots), back=back)
    choice = Choice([Sampling()] * len(slots), [0] * len(slots))
    drafted = []
    for _ in range(DEPTH):
        logits, hidden = drafter.step(target.embed(tokens), hidden, view)
        tokens = choose(logits, choice)
        drafted.append(tokens)
    return mx.stack(drafted, axis=1).reshape(-1)
