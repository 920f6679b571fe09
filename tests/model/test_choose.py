"""`choose`: its filters, the independence of its rows, and the quality of its noise."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.model.choose import Choice, choose, filter_threshold, gumbel, noise_key
from mtp_mlx.model.head import Logits
from mtp_mlx.request import GREEDY_BELOW, MAX_SEED, Sampling
from tests.law.chi_square import ALPHA, Z_LIMIT, p_value
from tests.law.oracle import kept_ids

EULER = 0.5772156649015329
NUM_BINS = 64
# Mass this close to top_p may round to either side in float32.
BORDER = 1e-5


def sampling(random: np.random.Generator, **fixed) -> Sampling:
    """A random sampled row."""
    values = {
        "temperature": float(random.choice([0.2, 0.5, 0.7, 1.0, 1.5])),
        "top_k": int(random.choice([0, 1, 2, 5, 40, 1000])),
        "top_p": float(random.choice([1.0, 0.95, 0.5, 0.1])),
        "min_p": float(random.choice([0.0, 0.05, 0.3, 1.0])),
        "seed": int(random.integers(MAX_SEED)),
    }
    return Sampling(**{**values, **fixed})


def kept(scores: np.ndarray, rows: list[Sampling]) -> np.ndarray:
    """What passes the filters of the code under test [N, M]."""
    choice = Choice(rows, [0] * len(rows))
    scaled = mx.array(scores) / choice.temperature
    threshold = filter_threshold(scaled, choice)
    passes = mx.ones_like(scaled) > 0 if threshold is None else scaled >= threshold
    return np.array(passes)


def chosen(scores: np.ndarray, rows: list[Sampling], positions: list[int]) -> list[int]:
    return choose(Logits(mx.array(scores)), Choice(rows, positions)).tolist()


def is_near_border(scores: np.ndarray, row: Sampling) -> bool:
    """Whether float32 may put a token on the other side of top_p or min_p than float64 does."""
    scaled = np.sort(np.float64(scores) / np.float64(np.float32(row.temperature)))[::-1]
    weights = np.exp(scaled - scaled[0])
    mass = np.cumsum(weights[: row.top_k or None])
    gaps = [abs(mass / mass[-1] - row.top_p).min() if row.top_p < 1.0 else 1.0]
    if 0.0 < row.min_p < 1.0:
        gaps.append(abs(scaled - scaled[0] - math.log(row.min_p)).min())
    return min(gaps) < BORDER


# Filters


@pytest.mark.parametrize("width", [1, 2, 7, 30, 257, 1024])
def test_filters_keep_what_their_definition_in_float64_keeps(width: int) -> None:
    random = np.random.default_rng(width)
    scores = random.normal(0.0, 3.0, (200, width)).astype(np.float32)
    rows = [sampling(random) for _ in range(200)]
    found, num_checked = kept(scores, rows), 0
    for own, row, mask in zip(scores, rows, found, strict=True):
        if not is_near_border(own, row):
            assert mask.tolist() == kept_ids(own, row).tolist(), row
            num_checked += 1
    assert num_checked > 150


@pytest.mark.parametrize("width", [4, 30, 257])
def test_filters_keep_what_their_definition_keeps_among_ties(width: int) -> None:
    """Scores of four levels: nearly every border lies within a tie, and top_p at no share."""
    random = np.random.default_rng(width)
    scores = random.integers(0, 4, (200, width)).astype(np.float32)
    rows = [sampling(random, temperature=0.5, top_p=0.4321) for _ in range(100)]
    rows += [sampling(random, temperature=0.5, top_p=1.0) for _ in range(100)]
    found, num_checked = kept(scores, rows), 0
    for own, row, mask in zip(scores, rows, found, strict=True):
        if not is_near_border(own, row):
            assert mask.tolist() == kept_ids(own, row).tolist(), row
            num_checked += 1
    assert num_checked > 150


def test_ties_at_the_border_stay_in() -> None:
    scores = np.array([[3.0, 2.0, 2.0, 2.0, 1.0]], np.float32)
    for row, count in (
        (Sampling(temperature=1.0, top_k=2), 4),
        (Sampling(temperature=1.0, top_k=1), 1),
        (Sampling(temperature=1.0, top_p=0.6), 4),
        (Sampling(temperature=1.0, top_p=0.4), 1),
        (Sampling(temperature=1.0, min_p=0.3), 4),
    ):
        assert kept(scores, [row]).sum() == count, row


def law(*shares: float) -> np.ndarray:
    return np.log(np.array([shares], np.float32))


def test_temperature_comes_before_the_other_filters() -> None:
    """Shares .5 .3 .2 become .66 .24 .10 at T = 0.5, and .43 .33 .25 at T = 2."""
    scores = law(0.5, 0.3, 0.2)
    for temperature, top_p, min_p, count in (
        (0.5, 0.6, 0.0, 1),
        (1.0, 0.6, 0.0, 2),
        (2.0, 0.6, 0.0, 2),
        (2.0, 0.8, 0.0, 3),
        (1.0, 1.0, 0.5, 2),
        (2.0, 1.0, 0.5, 3),
        (0.5, 1.0, 0.5, 1),
    ):
        row = Sampling(temperature=temperature, top_p=top_p, min_p=min_p)
        assert kept(scores, [row]).sum() == count, row


def test_top_p_counts_among_the_top_k() -> None:
    """Of .4 .3 .2 .1 the best two have shares .57 .43: .55 is reached by the first alone."""
    scores = law(0.4, 0.3, 0.2, 0.1)
    assert kept(scores, [Sampling(temperature=1.0, top_k=2, top_p=0.55)]).sum() == 1
    assert kept(scores, [Sampling(temperature=1.0, top_p=0.55)]).sum() == 2


def test_min_p_comes_after_top_p() -> None:
    """With min_p first the best two would have shares .57 .43, and .55 would keep one."""
    scores = law(0.4, 0.3, 0.2, 0.1)
    assert kept(scores, [Sampling(temperature=1.0, top_p=0.55, min_p=0.6)]).sum() == 2


def test_the_best_token_always_stays() -> None:
    random = np.random.default_rng(4)
    scores = random.normal(0.0, 5.0, (50, 64)).astype(np.float32)
    for row in (
        Sampling(temperature=1.0, top_p=1e-9, seed=1),
        Sampling(temperature=1.0, min_p=1.0, seed=1),
        Sampling(temperature=1.0, top_k=1, seed=1),
        Sampling(temperature=1.0, top_k=1, top_p=1e-30, min_p=1.0, seed=1),
    ):
        assert chosen(scores, [row] * 50, list(range(50))) == scores.argmax(axis=1).tolist()


def test_top_k_above_the_vocabulary_keeps_all() -> None:
    scores = np.random.default_rng(2).normal(size=(1, 10)).astype(np.float32)
    assert kept(scores, [Sampling(temperature=1.0, top_k=1 << 30)]).all()


# Rows


def test_a_row_chooses_the_same_alone_and_in_any_batch() -> None:
    """Greedy rows, all filters, any neighbours, in any order: `==`."""
    random = np.random.default_rng(6)
    scores = random.normal(0.0, 3.0, (120, 300)).astype(np.float32)
    rows = [Sampling() if i % 7 == 0 else sampling(random) for i in range(120)]
    positions = random.integers(0, 100_000, 120).tolist()
    alone = [chosen(scores[[i]], [rows[i]], [positions[i]])[0] for i in range(120)]
    for _ in range(6):
        some = random.permutation(120)[: random.integers(2, 120)]
        batch = chosen(scores[some], [rows[i] for i in some], [positions[i] for i in some])
        assert batch == [alone[i] for i in some]


def test_thresholds_are_bitwise_those_of_the_row_alone() -> None:
    random = np.random.default_rng(7)
    scores = random.normal(0.0, 3.0, (100, 1000)).astype(np.float32)
    rows = [sampling(random, top_p=0.95) for _ in range(100)]
    together = thresholds(scores, rows)
    for index, row in enumerate(rows):
        assert thresholds(scores[[index]], [row])[0] == together[index], row


def thresholds(scores: np.ndarray, rows: list[Sampling]) -> list[float]:
    choice = Choice(rows, [0] * len(rows))
    return filter_threshold(mx.array(scores) / choice.temperature, choice)[:, 0].tolist()


def test_noise_is_bitwise_that_of_the_row_alone() -> None:
    keys = [noise_key(seed, seed % 5) for seed in range(65)]
    together, ids = noise(keys, mx.arange(1001)), mx.arange(1001)
    for index, key in enumerate(keys):
        assert (noise([key], ids)[0] == together[index]).all()


@pytest.mark.parametrize("num_sampled", [0, 1, 5])
def test_restricted_logits_draw_the_noise_of_their_ids(num_sampled: int) -> None:
    """The centroid head scores some ids alone: as if all others were impossible."""
    random = np.random.default_rng(8)
    num_rows, vocab, width = 5, 64, 16
    rows = [sampling(random, temperature=1.5) for _ in range(num_sampled)]
    rows += [Sampling()] * (num_rows - num_sampled)
    for position in range(40):
        full = np.full((num_rows, vocab), -1e9, np.float32)
        ids = np.stack([random.permutation(vocab)[:width] for _ in rows]).astype(np.int32)
        scores = random.normal(0.0, 2.0, ids.shape).astype(np.float32)
        np.put_along_axis(full, ids, scores, axis=1)
        choice = Choice(rows, [position] * num_rows)
        restricted = choose(Logits(mx.array(scores), mx.array(ids)), choice).tolist()
        assert restricted == choose(Logits(mx.array(full)), choice).tolist()
        assert all(token in own for token, own in zip(restricted, ids, strict=True))


def test_equal_greedy_scores_choose_the_lowest_id() -> None:
    scores = np.zeros((3, 1000), np.float32)
    scores[1, [17, 500, 999]] = 2.0
    scores[2, 999] = 1e-6
    assert chosen(scores, [Sampling()] * 3, [0, 1, 2]) == [0, 17, 999]
    mixed = [Sampling(), Sampling(), Sampling(temperature=1e-3)]
    assert chosen(scores, mixed, [0, 1, 2])[:2] == [0, 17]


@pytest.mark.parametrize("temperature", [0.0, GREEDY_BELOW / 2, GREEDY_BELOW, 1e-4])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    """Scores up to 30 (the softcap), a hundredth apart: the noise is far below the gaps."""
    random = np.random.default_rng(9)
    scores = np.stack([random.permutation(3000) for _ in range(20)]).astype(np.float32) / 100
    for options in ({}, {"top_p": 0.5}, {"min_p": 0.5}, {"top_k": 5}):
        row = Sampling(temperature=temperature, seed=3, **options)
        assert chosen(scores, [row] * 20, list(range(20))) == scores.argmax(axis=1).tolist()


def test_filtered_tokens_are_never_chosen() -> None:
    random = np.random.default_rng(10)
    scores = random.normal(0.0, 1.0, (400, 40)).astype(np.float32)
    rows = [sampling(random) for _ in range(400)]
    ids = chosen(scores, rows, list(range(400)))
    assert kept(scores, rows)[np.arange(400), ids].all()


def test_a_seed_repeats_and_another_seed_differs() -> None:
    scores = np.zeros((100, 1000), np.float32)
    first, second = ([Sampling(temperature=1.0, seed=seed)] * 100 for seed in (1, 2))
    places = list(range(100))
    assert chosen(scores, first, places) == chosen(scores, first, places)
    assert sum(map(int.__eq__, chosen(scores, first, places), chosen(scores, second, places))) < 5


# Noise


def noise(keys: list[tuple[int, int]], ids: mx.array) -> np.ndarray:
    return np.array(gumbel(mx.array(np.array(keys, dtype=np.uint32)), ids), dtype=np.float64)


def grid(kind: str) -> np.ndarray:
    """A million noise values, most of them neighbours in one of: ids, positions, seeds."""
    if kind == "ids":
        return noise([noise_key(seed, 3) for seed in range(4)], mx.arange(250_000))
    if kind == "positions":
        return noise([noise_key(5, place) for place in range(50_000)], mx.arange(20)).T
    return noise([noise_key(seed, 7) for seed in range(50_000)], mx.arange(20)).T


def uniforms(values: np.ndarray) -> np.ndarray:
    """The uniform each Gumbel value was made of."""
    return -np.expm1(-np.exp(-values))


KINDS = ("ids", "positions", "seeds")


@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_the_mean_and_spread_of_a_gumbel(kind: str) -> None:
    values = grid(kind).ravel()
    variance, kurtosis = math.pi**2 / 6, 5.4  # of the standard Gumbel law; 12/5 + 3
    assert abs(values.mean() - EULER) < Z_LIMIT * math.sqrt(variance / values.size)
    spread = variance * math.sqrt((kurtosis - 1) / values.size)
    assert abs(values.var() - variance) < Z_LIMIT * spread


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_uniform_in_its_bins_and_in_its_tails(kind: str) -> None:
    values = uniforms(grid(kind).ravel())
    counts = np.bincount((values * NUM_BINS).astype(int).clip(0, NUM_BINS - 1), minlength=NUM_BINS)
    assert p_value(counts, np.full(NUM_BINS, 1 / NUM_BINS)) > ALPHA
    for tail in (values, 1.0 - values):
        num_far = int((tail < 1e-4).sum())
        law = np.array([1e-4, 1 - 1e-4])
        assert p_value(np.array([num_far, values.size - num_far]), law) > ALPHA


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", [1, 2, 16])
def test_noise_of_neighbours_is_independent(kind: str, distance: int) -> None:
    """Pairs (i, i + distance), none used twice, in a table of 16 by 16."""
    bins = np.minimum((uniforms(grid(kind)) * 16).astype(int), 15)
    width = bins.shape[1] // (2 * distance) * (2 * distance)
    blocks = bins[:, :width].reshape(len(bins), -1, 2, distance)
    table = np.zeros((16, 16))
    np.add.at(table, (blocks[:, :, 0].ravel(), blocks[:, :, 1].ravel()), 1)
    assert p_value(table, np.full((16, 16), 1 / 256)) > ALPHA


def test_keys_of_seeds_and_positions_never_meet() -> None:
    """Near and far seeds, the largest included; a shift of seed is no shift of position."""
    seeds = [*range(300), *(MAX_SEED - i for i in range(100)), *(1 << bit for bit in range(9, 63))]
    keys = {noise_key(seed, place) for seed in seeds for place in range(300)}
    assert len(keys) == len(seeds) * 300
    assert all(0 <= part < 1 << 32 for key in list(keys)[:1000] for part in key)


def test_noise_is_finite_at_every_uniform() -> None:
    values = noise([noise_key(seed, 0) for seed in range(16)], mx.arange(262_144))
    assert np.isfinite(values).all()
    assert values.max() > 13.0
    assert values.min() < -2.5
