"""The MLX models against Transformers' own figures (tests/golden) and against the NumPy twin.

Bars: with e the float32-against-float64 error of Transformers itself, stored in each golden, logits
lie within max(1e-4, 4e) of Transformers; a chain of three draft steps within 5e-5.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.checkpoint import open_drafter, open_target
from mtp_mlx.engine.engine import Engine
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.drafter import Drafter
from mtp_mlx.model.load import load_drafter, load_target
from mtp_mlx.model.target import Target
from mtp_mlx.model.view import draft_view
from mtp_mlx.reference import decode
from mtp_mlx.reference.load import load_weights
from mtp_mlx.reference.target import Target as NumpyTarget
from mtp_mlx.request import Request, Sampling, Tokens
from tests.golden import recipe

CHAIN_BAR = 5e-5
CROSSING = (1, 7, 5, 1, 9)  # chunk lengths of the 23 ids: several borders inside the window of 8


class Loaded:
    """One golden pair in MLX and NumPy, with its arrays."""

    def __init__(self, folder: Path, variant: str) -> None:
        target, drafter = recipe.write_pair(folder, variant)
        opened = open_target(target)
        self.target: Target = load_target(opened, mx.float32)
        self.twin = NumpyTarget(opened.config, load_weights(opened))
        paired = open_drafter(drafter, opened.config)
        self.drafter: Drafter = load_drafter(paired, mx.float32)
        self.golden = recipe.golden(variant)
        error = json.loads(str(self.golden["meta"]))["error"]
        self.bar = max(1e-4, 4 * error)

    def ids(self, length: int) -> list[int]:
        return self.golden[f"ids_{length}"].tolist()


@pytest.fixture(scope="module", params=recipe.VARIANTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(tmp_path_factory.mktemp(request.param), request.param)


def test_matrices_lie_as_products_want_them_and_tables_as_look_ups_do(pair):
    """On CPU: a gather of rows whose numbers lie apart takes many times as long."""

    def is_by_rows(weight: mx.array) -> bool:
        return np.asarray(weight).strides[-1] == weight.itemsize

    target, drafter = pair.target, pair.drafter
    assert not is_by_rows(target.embed_tokens.weight)  # the head's matrix too
    assert is_by_rows(drafter.embed_tokens.weight) == (drafter.config.centroids is not None)
    assert not is_by_rows(drafter.pre_projection.weight)
    if target.config.per_layer_dim:
        assert is_by_rows(target.embed_tokens_per_layer.weight)


def prefill(target: Target, ids: list[int], chunks: tuple[int, ...]) -> mx.array:
    """Hidden states [L, D] of `ids`, run in the given chunk lengths."""
    cache, states, start = target.new_cache(1, 8), [], 0
    for length in chunks:
        part = mx.array(ids[start : start + length])
        batch = Batch.of((Row(0, start, length),), part, is_chunk=True)
        states.append(target(batch, cache))
        cache.commit(0, length)
        start += length
    return mx.concatenate(states)


def one_by_one(target: Target, ids: list[int]) -> mx.array:
    """Hidden states [L, D] of `ids`: the first as a prompt, the others as plain decode steps."""
    cache = target.new_cache(1, 8)
    states = [target(Batch.of((Row(0, 0, 1),), mx.array(ids[:1]), is_chunk=True), cache)]
    cache.commit(0, 1)
    for place in range(1, len(ids)):
        batch = Batch.of((Row(0, place, 1),), mx.array(ids[place : place + 1]))
        states.append(target(batch, cache))
        cache.commit(0, 1)
    return mx.concatenate(states)


def assert_close(ours: np.ndarray, theirs: np.ndarray, bar: float) -> None:
    """Within `bar`, and the same argmax wherever the gap of the best two is wider than that."""
    assert np.abs(ours - theirs).max() <= bar
    best = np.sort(theirs, axis=-1)
    is_clear = best[:, -1] - best[:, -2] > bar
    assert (ours.argmax(-1) == theirs.argmax(-1))[is_clear].all()


@pytest.mark.parametrize("length", [1, 23, 72])
def test_logits_lie_within_the_bar_of_transformers_and_of_the_twin(pair: Loaded, length: int):
    ids = pair.ids(length)
    ours = np.array(pair.target.logits(prefill(pair.target, ids, (length,))))
    assert_close(ours, pair.golden[f"logits_{length}"], pair.bar)
    assert_close(ours, decode.logits(pair.twin, ids, chunk=64), pair.bar)


def test_chunks_that_cross_the_window_give_the_same_logits(pair: Loaded):
    ours = np.array(pair.target.logits(prefill(pair.target, pair.ids(23), CROSSING)))
    assert_close(ours, pair.golden["logits_23"], pair.bar)


def test_tokens_one_at_a_time_give_the_same_logits(pair: Loaded):
    ours = np.array(pair.target.logits(one_by_one(pair.target, pair.ids(23))))
    assert_close(ours, pair.golden["logits_23"], pair.bar)


def test_hidden_states_after_the_final_norm_match(pair: Loaded):
    ours = np.array(prefill(pair.target, pair.ids(72), (72,)))
    assert np.abs(ours - pair.golden["hidden_72"]).max() <= pair.bar


@pytest.mark.parametrize("length", [23, 72])
@pytest.mark.parametrize(("form", "extra_keys"), [("", 1), ("_window", 0)])
def test_three_chained_draft_steps_match_transformers(
    pair: Loaded, length: int, form: str, extra_keys: int
):
    ids, golden = pair.ids(length), pair.golden
    cache = pair.target.new_cache(1, 8)
    rows = (Row(0, 0, length - 1),)
    hidden = pair.target(Batch.of(rows, mx.array(ids[:-1]), is_chunk=True), cache)[-1:]
    cache.commit(0, length - 1)
    view = draft_view(cache, (0,), extra_keys)
    token = ids[-1]
    for step in range(3):
        scores, hidden = pair.drafter.step(pair.target.embed(mx.array([token])), hidden, view)
        theirs = golden[f"draft_{length}{form}_logits"][step]
        ours = np.array(scores.scores)[0]
        names = np.arange(len(theirs)) if scores.ids is None else np.array(scores.ids)[0]
        assert (
            sorted(names) == np.flatnonzero(golden[f"draft_{length}{form}_selected"][step]).tolist()
        )
        assert np.abs(ours - theirs[names]).max() <= CHAIN_BAR
        states = golden[f"draft_{length}{form}_hidden"][step]
        assert np.abs(np.array(hidden)[0] - states).max() <= CHAIN_BAR
        token = int(names[ours.argmax()])
        assert token == golden[f"draft_{length}{form}_tokens"][step]


@pytest.mark.parametrize("num_draft_tokens", [0, 3])
@pytest.mark.parametrize("length", [1, 23, 72])
def test_greedy_text_is_that_of_transformers(pair: Loaded, length: int, num_draft_tokens: int):
    engine = Engine(pair.target, pair.drafter, max_num_seqs=1)
    theirs = pair.golden[f"greedy_{length}"].tolist()
    request = Request(
        prompt=tuple(pair.ids(length)),
        sampling=Sampling(),
        max_tokens=len(theirs),
        num_draft_tokens=num_draft_tokens,
    )
    engine.submit(request)
    ours: list[int] = []
    while not engine.is_idle:
        ours += [token for e in engine.step() if isinstance(e, Tokens) for token in e.ids]
    assert ours == theirs
