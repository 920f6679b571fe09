"""E5, E6, E19: NaN in keys that nobody checked, of a row that has left, reaches no later row."""

from dataclasses import replace

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mtp_mlx.engine.engine import Engine
from mtp_mlx.model.target import Target
from mtp_mlx.request import Request, Sampling
from tests.exact.pairs import Run, golden_pair, plain
from tests.golden import recipe

VARIANT = "e2b"  # its per-layer embedding may hold NaN that the tied head does not see
CHUNK = 8


def request(length: int, seed: int) -> Request:
    prompt = tuple(int(token) for token in recipe.prompt(length, seed))
    sampling = Sampling(temperature=1.0, seed=seed)
    return Request(prompt=prompt, sampling=sampling, max_tokens=12)


def poisoned(target: Target, token: int) -> Target:
    """The target, to which one token gives NaN."""
    weights = dict(tree_flatten(target.parameters()))
    name = "embed_tokens_per_layer.weight"
    weights[name] = mx.array(weights[name])
    weights[name][token] = mx.nan
    return Target(target.config, weights)


def pending(run: Run) -> int | None:
    """The newest token of the only row."""
    return run.engine.sequences[0].tokens[-1] if run.engine.sequences else None


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_round_that_ran_ahead_of_the_end_leaves_nothing(is_cancelled: bool) -> None:
    healthy = golden_pair(VARIANT).target
    first, second = request(3, 1), request(3, 2)
    text, expected = plain(healthy, first).ids, plain(healthy, second)
    others = {*expected.ids, *first.prompt, *second.prompt}
    at = next(at for at in range(5, 12) if text[at] not in {*text[:at], *others})
    target = poisoned(healthy, text[at])
    run = Run(Engine(target, None, max_num_seqs=1))
    one = run.submit(
        first if is_cancelled else replace(first, stop_ids=frozenset(text[at : at + 1]))
    )
    if is_cancelled:  # its last token is poison, and a round over it is in the air
        while pending(run) != text[at]:
            run.step()
        run.cancel(one)
    two = run.submit(second)
    run.finish()
    assert run.outcomes[one].text[:2] == (text[: at + 1], "cancelled" if is_cancelled else "stop")
    assert run.outcomes[two].text == expected.text


def test_chunks_of_a_prompt_that_is_cancelled_leave_nothing() -> None:
    healthy = golden_pair(VARIANT).target
    expected = plain(healthy, request(3, 2), CHUNK)
    used = {*expected.ids, *request(3, 2).prompt}
    poison = next(token for token in range(1, 256) if token not in used)
    run = Run(Engine(poisoned(healthy, poison), None, max_num_seqs=1, chunk=CHUNK))
    one = run.submit(replace(request(3, 1), prompt=(poison,) * (3 * CHUNK)))
    run.step()
    assert run.engine.sequences[0].num_prefilled == CHUNK
    run.cancel(one)
    two = run.submit(request(3, 2))
    run.finish()
    assert run.outcomes[one].text[:2] == ([], "cancelled")
    assert run.outcomes[two].text == expected.text
