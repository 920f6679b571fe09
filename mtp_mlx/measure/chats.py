"""What the model is asked: questions that any chat model answers, the built-in pairs too.

Random tokens would say nothing about drafts: how many are accepted depends on the text.
"""

from collections.abc import Sequence
from itertools import combinations, islice

from mtp_mlx.errors import RequestError
from mtp_mlx.loading import MAX_NUM_SEQS

ANIMALS = ("fox", "hen", "cat", "goat", "frog", "horse", "dog", "bear", "mouse", "owl")


def built_in() -> list[str]:
    """Distinct questions, as many as the largest batch has rows: every other one is for a story,
    whose reply is the longest."""
    texts = []
    for number, (one, other) in enumerate(islice(combinations(ANIMALS, 2), MAX_NUM_SEQS // 2), 1):
        is_code = number % 2 == 0
        texts += [
            f"Tell me a story about a {one} and a {other}.",
            f"Write a Python function add_{number} that adds {number} to a number."
            if is_code
            else f"Count from {number} to {number + 15}.",
        ]
    return texts


def batch_of(
    texts: Sequence[str], rows: int, *, is_alike: bool, number: int | None = None
) -> list[str]:
    """The questions of one batch: the first `rows`, or the first one so often. `number`: put before
    each, so that no server has read the chat before.

    Raises RequestError where there are fewer.
    """
    if not is_alike and len(texts) < rows:
        raise RequestError(
            f"{len(texts)} prompts are too few for a batch of {rows} that differ; give at least as "
            "many as the largest batch",
            param="prompts",
        )
    chosen = [texts[0]] * rows if is_alike else list(texts[:rows])
    return chosen if number is None else [f"{number}. {text}" for text in chosen]
