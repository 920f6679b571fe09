"""The engine's counts of experts are those of sets, made by hand from each row's own routes."""

from collections.abc import Iterator

import mlx.core as mx
import pytest

from mtp_mlx.engine.engine import PREFILL_CHUNK
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.routes import Routes
from mtp_mlx.model.target import Target
from mtp_mlx.request import MAX_DRAFT_TOKENS, Event, Request, Sampling, Tokens
from tests.exact.pairs import Run, golden_pair, oracle_engine, plain
from tests.golden import recipe
from tests.oracle import agreeing

# Experts of one token, by layer.
Chosen = list[set[int]]

REQUESTS = tuple(
    Request(
        prompt=tuple(int(token) for token in recipe.prompt(length, seed)),
        sampling=Sampling(temperature=1.0, seed=seed),
        max_tokens=tokens,
        num_draft_tokens=drafts,
    )
    for seed, (length, tokens, drafts) in enumerate(((5, 24, 3), (19, 15, 5), (3, 20, 1)))
)


class Noted(Routes):
    """What every layer's router chose, as lists."""

    def __init__(self) -> None:
        self.layers: list[list[list[int]]] = []

    def add(self, ids: mx.array, num_experts: int) -> None:
        self.layers.append(ids.tolist())

    def tokens(self) -> list[Chosen]:
        return [[set(chosen) for chosen in layers] for layers in zip(*self.layers, strict=True)]


def alone(target: Target, prompt: tuple[int, ...], rounds: list[Tokens]) -> Iterator[list[Chosen]]:
    """The experts of every token of each of a row's rounds, its forwards repeated alone."""
    cache = target.new_cache(1, MAX_DRAFT_TOKENS + 1)
    first, *rest = rounds
    assert first.origins == ("prefill",)
    row = Row(0, 0, len(prompt))
    mx.eval(target(Batch.of((row,), mx.array(prompt), is_chunk=True), cache))
    cache.commit(0, len(prompt))
    pending = first.ids[-1]
    for event in rest:
        noted, block = Noted(), (pending, *event.drafts)
        row = Row(0, cache.lengths[0], len(block))
        mx.eval(target(Batch.of((row,), mx.array(block)), cache, noted))
        cache.commit(0, len(event.ids))
        pending = event.ids[-1]
        yield noted.tokens()


def distinct(tokens: list[Chosen]) -> int:
    """Different experts of some tokens, summed over the layers."""
    return sum(len(set().union(*layer)) for layer in zip(*tokens, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_overlaps_are_those_of_sets_counted_by_hand(count: int) -> None:
    target, requests = golden_pair("26b").target, REQUESTS[:count]
    texts = [plain(target, request).ids for request in requests]
    engine, _ = oracle_engine(target, texts, agreeing(0.6, 1), count, PREFILL_CHUNK)
    run, steps = Run(engine), list[list[Event]]()
    for request in requests:
        run.submit(request)
    while not engine.is_idle:
        steps.append(run.step())
    routes = {
        number: alone(target, request.prompt, run.outcomes[number].rounds)
        for number, request in enumerate(requests, start=1)
    }
    layers, top_k = target.config.num_expert_layers, 2
    rounds = read = by_rows = new_by_rows = by_drafts = new_by_drafts = 0
    for events in steps:
        rows = [
            next(routes[event.request_id])
            for event in events
            if isinstance(event, Tokens) and event.origins != ("prefill",)
        ]
        if not rows:
            continue
        every = [token for tokens in rows for token in tokens]
        pending = distinct([tokens[0] for tokens in rows])
        rounds, read = rounds + 1, read + distinct(every)
        by_rows += layers * top_k * (len(rows) - 1)
        new_by_rows += pending - layers * top_k
        by_drafts += layers * top_k * (len(every) - len(rows))
        new_by_drafts += distinct(every) - pending
    assert all(next(left, None) is None for left in routes.values())
    stats = engine.stats()
    assert stats.rounds == rounds > 5
    assert stats.experts_per_layer == pytest.approx(read / rounds / layers)
    assert stats.expert_overlap_drafts == pytest.approx(1 - new_by_drafts / by_drafts)
    if count == 1:
        assert stats.expert_overlap_rows is None
    else:
        assert stats.expert_overlap_rows == pytest.approx(1 - new_by_rows / by_rows)
        assert 0 < stats.expert_overlap_rows < stats.expert_overlap_drafts < 1
