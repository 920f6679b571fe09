"""Bias, penalties, bans and masks: their definitions, and rows that do not know each other."""

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.model.choose import Choice, choose
from mtp_mlx.model.head import Logits
from mtp_mlx.model.processors import Processors, allow, biases, counts, process
from mtp_mlx.request import Sampling
from tests.constraints import words

VOCAB = 70  # two words of a mask and a part of a third


def made(rows, samplings, prompts=(), replies=()) -> Processors:
    """Processors with all arrays, as if some row needed each."""
    prompts, replies = prompts or [()] * len(rows), replies or [()] * len(rows)
    arrays = (
        mx.stack([biases(each, VOCAB) for each in samplings]),
        *(mx.stack([counts(ids, VOCAB) for ids in each]) for each in (prompts, replies)),
    )
    return Processors(rows, samplings, *arrays)


def changed(scores: np.ndarray, *arguments) -> np.ndarray:
    return np.array(process(Logits(mx.array(scores)), made(*arguments)).scores)


def row(*values: float) -> np.ndarray:
    scores = np.zeros((1, VOCAB), np.float32)
    scores[0, : len(values)] = values
    return scores


def test_repetition_divides_what_is_positive_and_multiplies_what_is_negative():
    """Once, however often a token came, in prompt and reply."""
    sampling = Sampling(repetition_penalty=2.0)
    found = changed(row(4.0, 4.0, -4.0, -4.0, 4.0, 4.0), [0], [sampling], [(0, 2, 0)], [(4, 4)])
    assert found[0, :6].tolist() == [2.0, 4.0, -8.0, -4.0, 2.0, 4.0]


def test_presence_and_frequency_count_the_reply_alone():
    sampling = Sampling(presence_penalty=1.0, frequency_penalty=0.25)
    found = changed(row(4.0, 4.0, 4.0, 4.0), [0], [sampling], [(3, 3)], [(0, 1, 1, 1)])
    assert found[0, :4].tolist() == [2.75, 2.25, 4.0, 4.0]


def test_bias_comes_before_the_penalties_and_a_ban_after_all():
    sampling = Sampling(
        repetition_penalty=2.0, logit_bias=((0, -6.0), (1, 6.0), (2, 100.0)), banned=(2,)
    )
    found = changed(row(4.0, -4.0, 4.0), [0], [sampling], [(0, 1, 2)])
    assert found[0, :3].tolist() == [-4.0, 1.0, -np.inf]


def test_no_processor_changes_another_row():
    random = np.random.default_rng(1)
    scores = random.normal(size=(5, VOCAB)).astype(np.float32)
    sampling = Sampling(repetition_penalty=1.3, presence_penalty=1.0, logit_bias=((3, 5.0),))
    before = mx.array(scores)
    found = process(Logits(before), made([1, 3], [sampling, Sampling()], [(1, 2), (1, 2)])).scores
    assert (np.array(found)[[0, 2, 3, 4]] == scores[[0, 2, 3, 4]]).all()
    assert (np.array(found)[1] != scores[1]).sum() == 3
    assert (np.array(before) == scores).all()  # which the logprobs still need


def test_a_row_is_changed_the_same_alone_and_in_any_batch():
    random = np.random.default_rng(2)
    scores = random.normal(0.0, 4.0, (40, VOCAB)).astype(np.float32)
    rows = [
        Sampling(
            repetition_penalty=float(random.choice([1.0, 0.7, 1.7])),
            presence_penalty=float(random.choice([0.0, 1.1, -0.3])),
            frequency_penalty=float(random.choice([0.0, 0.13])),
            logit_bias=((int(random.integers(VOCAB)), 1.3),),
            banned=tuple(int(token) for token in random.integers(0, VOCAB, 3)),
        )
        for _ in scores
    ]
    pasts = [random.integers(0, VOCAB, (2, 9)).tolist() for _ in rows]
    alone = [
        changed(scores[[i]], [0], [rows[i]], [pasts[i][0]], [pasts[i][1]])[0] for i in range(40)
    ]
    for _ in range(5):
        some = random.permutation(40)[: random.integers(1, 40)]
        chosen = [int(i) for i in some[: 1 + len(some) // 2]]
        places = [int(np.flatnonzero(some == i)[0]) for i in chosen]
        found = changed(
            scores[some],
            places,
            [rows[i] for i in chosen],
            [pasts[i][0] for i in chosen],
            [pasts[i][1] for i in chosen],
        )
        for index, place in zip(chosen, places, strict=True):
            assert (found[place] == alone[index]).all()


def test_scores_of_some_ids_are_changed_as_those_of_all():
    """The centroid head of the small drafters."""
    random = np.random.default_rng(3)
    scores = random.normal(0.0, 4.0, (3, VOCAB)).astype(np.float32)
    ids = np.stack([random.permutation(VOCAB)[:20] for _ in scores]).astype(np.int32)
    sampling = Sampling(repetition_penalty=1.5, frequency_penalty=0.5, logit_bias=((7, 9.0),))
    todo = made([0, 2], [sampling] * 2, [range(0, VOCAB, 2)] * 2, [range(0, VOCAB, 3)] * 2)
    whole = np.array(process(Logits(mx.array(scores)), todo).scores)
    part = mx.array(np.take_along_axis(scores, ids, axis=1))
    found = process(Logits(part, mx.array(ids)), todo)
    assert (np.array(found.scores) == np.take_along_axis(whole, ids, axis=1)).all()
    assert (np.array(found.ids) == ids).all()


@pytest.mark.parametrize("places", [[0, 1, 2], [2], [1, 0]])
def test_a_mask_leaves_what_is_allowed_and_nothing_else(places):
    random = np.random.default_rng(4)
    scores = random.normal(size=(3, VOCAB)).astype(np.float32)
    allowed = random.random((len(places), VOCAB)) < 0.4
    found = np.array(allow(mx.array(scores), places, mx.array(words(allowed))))
    for place in range(3):
        may = allowed[places.index(place)] if place in places else np.ones(VOCAB, dtype=bool)
        assert (found[place][may] == scores[place][may]).all()
        assert (found[place][~may] == -np.inf).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_filters_and_noise_never_bring_back_what_is_not_allowed(temperature):
    random = np.random.default_rng(5)
    scores = random.normal(size=(200, VOCAB)).astype(np.float32)
    allowed = random.random((200, VOCAB)) < 0.05
    allowed[:, 1] = True
    left = allow(mx.array(scores), list(range(200)), mx.array(words(allowed)))
    for options in ({}, {"top_k": 30}, {"top_p": 0.999}, {"min_p": 1e-6}):
        rows = [Sampling(temperature=temperature, seed=seed, **options) for seed in range(200)]
        ids = choose(Logits(left), Choice(rows, [0] * 200)).tolist()
        assert allowed[np.arange(200), ids].all()
