"""A draft that drives the target to NaN harms nothing: the row goes on with its own text."""

from pathlib import Path

import mlx.core as mx
import pytest

from mtp_mlx.checkpoint import open_target
from mtp_mlx.engine.engine import Engine
from mtp_mlx.model.head import Logits
from mtp_mlx.model.load import load_target
from mtp_mlx.model.target import Target
from mtp_mlx.model.view import View
from mtp_mlx.request import Finished, Progress, Request, Sampling, Tokens
from tests.golden import recipe

POISON = 200
PROMPTS = ((2, 5, 9), (2, *range(10, 40)))


class PoisonDrafter:
    """Proposes the poisoned token always."""

    def step(self, embedded: mx.array, hidden: mx.array, view: View) -> tuple[Logits, mx.array]:
        scores = mx.zeros((embedded.shape[0], 256))
        scores[:, POISON] = 1e30
        return Logits(scores), hidden


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    """An e2b target whose per-layer input of one token is NaN: only a forward over it suffers."""
    folder, _ = recipe.write_pair(Path(tmp_path_factory.mktemp("poison")), "e2b")
    target = load_target(open_target(folder), mx.float32)
    target.embed_tokens_per_layer.weight[POISON] = mx.nan
    return target


def run(engine: Engine, num_draft_tokens: int) -> tuple[dict[int, list[int]], list[str | None]]:
    """Texts by request, and why drafting stopped."""
    for prompt in PROMPTS:
        request = Request(
            prompt=prompt, sampling=Sampling(), max_tokens=24, num_draft_tokens=num_draft_tokens
        )
        engine.submit(request)
    texts: dict[int, list[int]] = {}
    parked = []
    while not engine.is_idle:
        for event in engine.step():
            if isinstance(event, Tokens):
                texts.setdefault(event.request_id, []).extend(event.ids)
            elif not isinstance(event, Progress):
                assert isinstance(event, Finished), event
                parked.append(event.parked)
    return texts, parked


def test_a_draft_that_yields_nan_leaves_the_text_as_it_is(target: Target):
    plain, _ = run(Engine(target, None, max_num_seqs=2), 0)
    assert not any(POISON in text for text in plain.values()), "pick another token to poison"
    drafted, parked = run(Engine(target, PoisonDrafter(), max_num_seqs=2), 3)
    assert drafted == plain
    assert all(reason is not None and "NaN" in reason for reason in parked)


def test_drafts_of_a_refused_round_are_counted(target: Target):
    engine, rounds = Engine(target, PoisonDrafter(), max_num_seqs=2), []
    for prompt in PROMPTS:
        engine.submit(
            Request(prompt=prompt, sampling=Sampling(), max_tokens=24, num_draft_tokens=3)
        )
    while not engine.is_idle:
        rounds += [
            event
            for event in engine.step()
            if isinstance(event, Tokens) and event.origins != ("prefill",)
        ]
    stats = engine.stats()
    assert [event.drafted for event in rounds if not event.ids] == [3, 3]
    assert stats.drafted == sum(event.drafted for event in rounds)
    assert (stats.rows, stats.tokens) == (len(rounds), sum(len(event.ids) for event in rounds))
