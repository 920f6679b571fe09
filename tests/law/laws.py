"""What replies must satisfy when tokens follow the target and drafts share its noise."""

from dataclasses import dataclass

import numpy as np

from mtp_mlx.request import Sampling
from tests.law.chi_square import (
    ALPHA,
    Z_LIMIT,
    binomial_p_value,
    binomial_z,
    chi_square_tail,
    p_value,
    pearson,
)
from tests.law.oracle import acceptance, chain_law, filtered
from tests.law.scripted import Reply

NUM_TOKENS = 3


@dataclass(frozen=True)
class Law:
    """The law of replies to one prompt under one sampling, by enumeration in float64.

    transitions [V, V]: last -> next. joint [V, V, V]: the first three tokens.
    accepted [V, V]: probability that a draft after (previous, last) is accepted.
    """

    transitions: np.ndarray
    joint: np.ndarray
    accepted: np.ndarray

    @staticmethod
    def of(target: np.ndarray, drafter: np.ndarray, sampling: Sampling, last: int) -> "Law":
        transitions, drafts = filtered(target, sampling), filtered(drafter, sampling)
        size = len(transitions)
        accepted = [
            [acceptance(transitions[own], drafts[before, own]) for own in range(size)]
            for before in range(size)
        ]
        return Law(transitions, chain_law(transitions, last), np.array(accepted))


def check_support(replies: list[Reply], law: Law) -> None:
    """No token that the filters take away, not once."""
    path = paths(replies)
    is_possible = law.transitions[path[:, :-1], path[:, 1:]] > 0.0
    assert is_possible.all(), f"impossible token in {path[~is_possible.all(axis=1)][0]}"


def check_marginals(replies: list[Reply], law: Law) -> None:
    """Each of the first three positions by itself."""
    ids = first_ids(replies)
    for position, others in enumerate(((1, 2), (0, 2), (0, 1))):
        counts = np.bincount(ids[:, position], minlength=len(law.joint))
        assert p_value(counts, law.joint.sum(axis=others)) > ALPHA, f"marginal of {position}"


def check_joint(replies: list[Reply], law: Law) -> None:
    """Neighbouring positions together, and all three."""
    counts = np.zeros(law.joint.shape)
    np.add.at(counts, tuple(first_ids(replies).T), 1)
    assert p_value(counts.sum(axis=2), law.joint.sum(axis=2)) > ALPHA, "joint of 0 and 1"
    assert p_value(counts.sum(axis=0), law.joint.sum(axis=0)) > ALPHA, "joint of 1 and 2"
    assert p_value(counts, law.joint) > ALPHA, "joint of all three"


def check_transitions(replies: list[Reply], law: Law) -> None:
    """Every step of every reply, however long, given the token before."""
    counts = np.zeros(law.transitions.shape)
    path = paths(replies)
    np.add.at(counts, (path[:, :-1].ravel(), path[:, 1:].ravel()), 1)
    parts = [pearson(*row) for row in zip(counts, law.transitions, strict=True) if row[0].any()]
    statistic, freedom = np.sum(parts, axis=0)
    assert chi_square_tail(float(statistic), int(freedom)) > ALPHA, "transitions"


def check_rows_apart(replies: list[Reply], law: Law) -> None:
    """First tokens of rows that sat side by side."""
    first = first_ids(replies)[:, 0]
    size, num_pairs = len(law.joint), len(first) // 2
    counts = np.zeros((size, size))
    np.add.at(counts, (first[: 2 * num_pairs : 2], first[1 : 2 * num_pairs : 2]), 1)
    own = law.joint.sum(axis=(1, 2))
    assert p_value(counts, np.outer(own, own)) > ALPHA, "two rows of a batch"


def check_acceptance(replies: list[Reply], law: Law) -> None:
    """Accepted drafts by context (previous, last): what shared noise gives, no more, no less."""
    accepted, judged = acceptance_counts(replies, len(law.transitions))
    is_judged = judged > 0
    accepted, judged, rates = accepted[is_judged], judged[is_judged], law.accepted[is_judged]
    z = binomial_z(accepted, judged, rates)
    assert abs(z) < Z_LIMIT, f"accepted {accepted.sum()} of {judged.sum()} drafts, z = {z:.1f}"
    assert binomial_p_value(accepted, judged, rates) > ALPHA, "acceptance by context"


def acceptance_counts(replies: list[Reply], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Drafts accepted, and drafts judged (those up to the first mismatch) [V, V] by context."""
    contexts, verdicts = [], []
    for reply in replies:
        path = [*reply.request.prompt[-2:], *reply.ids]
        at = 0
        for drafted, num_accepted, emitted in reply.rounds:
            for index in range(min(num_accepted + 1, drafted, emitted)):
                contexts.append(path[at + index] * size + path[at + index + 1])
                verdicts.append(index < num_accepted)
            at += emitted
    flat, taken = np.array(contexts), np.array(verdicts)
    shape = (size, size)
    judged = np.bincount(flat, minlength=size * size).reshape(shape)
    return np.bincount(flat[taken], minlength=size * size).reshape(shape), judged


def paths(replies: list[Reply]) -> np.ndarray:
    """The last prompt token and all tokens of replies of one length [N, 1 + length]."""
    return np.array([[reply.request.prompt[-1], *reply.ids] for reply in replies])


def first_ids(replies: list[Reply]) -> np.ndarray:
    return np.array([reply.ids[:NUM_TOKENS] for reply in replies])


CHECKS = (
    check_support,
    check_marginals,
    check_joint,
    check_transitions,
    check_rows_apart,
    check_acceptance,
)
