"""Choosing with shared noise: the target's distribution, and as many agreements as that allows."""

import numpy as np
import pytest

from mtp_mlx.reference.choose import Choice, choose, filter_threshold, gumbel
from mtp_mlx.reference.head import Logits
from mtp_mlx.request import Sampling

COUNT = 5000
TARGET = np.array([0.3, 0.3, 0.4])
DRAFTER = np.array([0.5, 0.3, 0.2])


def draw(probabilities: np.ndarray, ids: list[int]) -> np.ndarray:
    """Tokens chosen at COUNT positions with one seed from a distribution over `ids`."""
    scores = np.tile(np.log(probabilities).astype(np.float32), (COUNT, 1))
    rows = [Sampling(temperature=1.0, seed=11)] * COUNT
    named = np.tile(np.array(ids, dtype=np.int32), (COUNT, 1))
    return choose(Logits(scores, named), Choice(rows, range(COUNT)))


def test_tokens_follow_the_distribution_and_the_drafter_mostly_agrees():
    target, drafter = draw(TARGET, [0, 1, 2]), draw(DRAFTER, [0, 1, 2])
    for token, probability in enumerate(TARGET):
        sigma = (COUNT * probability * (1 - probability)) ** 0.5
        assert abs((target == token).sum() - COUNT * probability) < 3 * sigma
    # Independent draws would agree in 0.32 of the cases, no scheme in more than 0.8.
    assert 0.6 < (target == drafter).mean() < 0.8


def test_noise_belongs_to_the_token_not_to_its_place():
    assert (draw(TARGET, [0, 1, 2]) == draw(TARGET[[2, 0, 1]], [2, 0, 1])).all()


def test_noise_is_gumbel_distributed():
    noise = gumbel(np.array([[123, 456]], dtype=np.uint32), np.arange(200_000))[0]
    euler_gamma = 0.5772
    assert abs(noise.mean() - euler_gamma) < 0.01
    assert abs(noise.var() - np.pi**2 / 6) < 0.03


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(temperature=1.0), 5),
        (Sampling(temperature=1.0, top_k=2), 2),
        (Sampling(temperature=1.0, top_k=9), 5),
        (Sampling(temperature=1.0, top_p=0.39), 1),
        (Sampling(temperature=1.0, top_p=0.41), 2),
        (Sampling(temperature=1.0, top_p=0.71), 5),  # equal tokens at the border all stay
        (Sampling(temperature=1.0, top_p=1e-50), 1),  # zero in float32
        (Sampling(temperature=1.0, min_p=0.7), 2),
        (Sampling(temperature=1.0, top_k=2, top_p=0.6), 2),  # 0.4 / 0.7 of the two is below 0.6
        (Sampling(temperature=1.0, top_k=2, top_p=0.5), 1),
    ],
)
def test_filters(sampling, kept):
    scaled = np.log(np.array([[0.1, 0.4, 0.1, 0.3, 0.1]], dtype=np.float32))
    threshold = filter_threshold(scaled, Choice([sampling], [0]))
    passing = scaled.size if threshold is None else (scaled >= threshold).sum()
    assert passing == kept
