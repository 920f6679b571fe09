"""A scripted pair whose law is known, run through the real engine.

The target is a Markov chain: its state of a token is the token's one-hot, its logits a row of a
table. The drafter's logits are a table of (token of the state it is given, token it is given), so a
state from the wrong row changes what it proposes. Everything between the two, cache lengths
included, is the real code.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np

from mtp_mlx.config import LayerSpec, read_target
from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.head import Logits
from mtp_mlx.model.view import View, target_view
from mtp_mlx.request import Failed, Finished, Progress, Request, Sampling, Tokens
from tests.law.oracle import filtered
from tests.tiny_configs import target_dict

VOCAB_SIZE = 16
NUM_SLOTS = 64
# A logit that no draw ever reaches: its probability is 0 in float64 too.
NEVER = -1e4
# Standard deviation of what is added to the target's logits.
CLOSE, POOR = 0.5, 2.5
MAX_POSITIONS = 4096
TINY = read_target(target_dict("31b"), "scripted")
DRAFTERS = ("equal", "close", "poor", "disjoint", "point")


def target_table(seed: int, size: int = VOCAB_SIZE) -> np.ndarray:
    """Logits [V, V] float32: row `last` scores the next token."""
    random = np.random.default_rng(seed)
    return random.normal(0.0, 1.5, (size, size)).astype(np.float32)


def draft_table(kind: str, target: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Logits [V, V, V] float32 of (previous, last) -> next.

    `sampling` matters to "disjoint" alone: it proposes only what the filters take from the target.
    """
    size = len(target)
    random = np.random.default_rng(97)
    noise = random.normal(size=(size, size, size))
    base = np.broadcast_to(target, noise.shape)
    if kind == "equal":
        table = base
    elif kind in ("close", "poor"):
        table = base + (CLOSE if kind == "close" else POOR) * noise
    elif kind == "disjoint":
        table = np.where(filtered(target, sampling) > 0.0, NEVER, noise)
    else:
        best = np.argmax(base + noise, axis=-1)
        table = np.where(np.arange(size) == best[..., None], 0.0, NEVER)
    return np.ascontiguousarray(table, dtype=np.float32)


def layer(index: int, window: int | None, width: int) -> LayerSpec:
    """A layer with one head of `width`, for its cache alone."""
    return replace(
        TINY.layers[0], index=index, window=window, heads=1, kv_heads=1, head_dim=width,
        reads_from=index,
    )  # fmt: skip


class ScriptedTarget:
    """What the engine asks of model.target.Target, over a table."""

    dtype = mx.float32

    def __init__(self, table: np.ndarray) -> None:
        self.table = mx.array(table)
        size = len(table)
        self.one_hot = mx.eye(size)
        self.config = replace(
            TINY, hidden_size=size, vocab_size=size, layers=(), max_positions=MAX_POSITIONS
        )

    def new_cache(self, num_slots: int, max_block: int) -> Cache:
        return Cache(self.config.layers, num_slots, max_block, mx.float32)

    def embed(self, tokens: mx.array) -> mx.array:
        return self.one_hot[tokens]

    def __call__(self, batch: Batch, cache: Cache, routes: None = None) -> mx.array:
        target_view(cache, batch)
        return self.embed(batch.tokens)

    def prefill(self, batch: Batch, cache: Cache) -> tuple[mx.array, mx.array]:
        states = self(batch, cache)
        return states[-1:], states

    def logits(self, hidden: mx.array) -> mx.array:
        return self.table[hidden.argmax(axis=-1)]


class ScriptedDrafter:
    """A model.drafter.Drafts over a table [V, V, V]; its states are one-hots as the target's."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = mx.array(table)

    def step(self, embedded: mx.array, hidden: mx.array, view: View) -> tuple[Logits, mx.array]:
        scores = self.table[hidden.argmax(axis=-1), embedded.argmax(axis=-1)]
        return Logits(scores), embedded


@dataclass
class Reply:
    """One finished request: its ids, per round (drafted, accepted, emitted), and its end."""

    request: Request
    ids: list[int] = field(default_factory=list)
    rounds: list[tuple[int, int, int]] = field(default_factory=list)
    end: Finished | Failed | None = None


def make_engine(
    target: ScriptedTarget, drafter: ScriptedDrafter | None, num_slots: int = NUM_SLOTS
) -> Engine:
    return Engine(target, drafter, max_num_seqs=num_slots)  # ty: ignore[invalid-argument-type]


def seat(engine: Engine, slot: int, request_id: int, request: Request) -> None:
    """Put a request into a slot as if its prompt had run, its last prompt token pending."""
    *cached, _ = request.prompt
    assert engine.memory.reserve(slot, engine._most_tokens(request))
    engine.cache.begin((Row(slot, 0, len(cached)),), is_chunk=True)
    engine.cache.commit(slot, len(cached))
    engine.slots[slot] = Sequence(
        id=request_id,
        request=request,
        budget=request.max_tokens,
        slot=slot,
        tokens=list(request.prompt),
        num_prefilled=len(request.prompt),
        hidden=engine.target.embed(mx.array(cached[-1:]))[0],
        is_running=True,
    )


def seat_free_slots(engine: Engine, waiting: Iterable[tuple[int, Request]]) -> None:
    """Fill every free slot from `waiting`."""
    for slot, holder in enumerate(engine.slots):
        if holder is None:
            entry = next(iter(waiting), None)
            if entry is None:
                return
            seat(engine, slot, *entry)


def play(engine: Engine, requests: list[Request]) -> list[Reply]:
    """All requests through the engine's own rounds, slots refilled as they fall free."""
    replies = [Reply(request) for request in requests]
    waiting = iter(list(enumerate(requests)))
    seat_free_slots(engine, waiting)
    while not engine.is_idle:
        _collect(engine, replies)
        seat_free_slots(engine, waiting)
    return replies


def serve(engine: Engine, requests: list[Request]) -> list[Reply]:
    """All requests through submit, prefill and rounds, as a server would."""
    first = engine.submit(requests[0])
    for request in requests[1:]:
        engine.submit(request)
    replies = [Reply(request) for request in requests]
    while not engine.is_idle:
        _collect(engine, replies, first)
    return replies


def _collect(engine: Engine, replies: list[Reply], first: int = 0) -> None:
    for event in engine.step():
        reply = replies[event.request_id - first]
        if isinstance(event, Tokens):
            reply.ids.extend(event.ids)
            reply.rounds.append((event.drafted, event.accepted, len(event.ids)))
        elif not isinstance(event, Progress):
            reply.end = event
