"""The cases of the exactness law, drawn from a seed: one case is one row of one call.

A call is some requests in one engine with one drafter. A request is drawn into several calls, so
that its plain text, decoded alone, is computed once.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from mtp_mlx.engine.engine import PREFILL_CHUNK
from mtp_mlx.request import MAX_DRAFT_TOKENS, Request, Sampling
from tests.constraints import Steps
from tests.golden import recipe

# A case has at least this many new tokens, or it does not count.
MIN_TOKENS = 16
MAX_TOKENS = 18
WINDOW = 8  # of every golden pair
LONGEST_PROMPT = 72
VOCAB_SIZE = 256
# Part 0 is for `make test`, the others for `make test-all`; cases per variant, half by the oracle.
PARTS = (60, 86, 84, 86, 84)
CALLS_PER_REQUEST = 5  # on average
# Every batch size from 1 to 8, large ones first, so that a small part has all kinds.
BATCH_SIZES = (8, 1, 5, 3, 7, 2, 6, 4)
# Chunks that cut prompts inside and across windows, beside the engine's own.
CHUNKS = (PREFILL_CHUNK, PREFILL_CHUNK, PREFILL_CHUNK, 5)
# A real drafter with random weights agrees at high temperature only, where the noise decides.
WARM = 5.0

DrafterKind = Literal["oracle", "real"]


@dataclass(frozen=True)
class Call:
    """Requests in one engine of `slots` slots; fewer slots than requests reuse some."""

    variant: str
    requests: tuple[Request, ...]
    arrivals: tuple[int, ...]
    slots: int
    chunk: int
    drafter: DrafterKind
    agreement: float
    seed: int


def calls(variant: str, part: int) -> Iterator[Call]:
    """The calls of one part, the same at every run."""
    random_ = random.Random(f"{variant}/{part}")
    pools = _pools(random_, PARTS[part])
    half = PARTS[part] // 2
    for kind, count in (("oracle", half), ("real", PARTS[part] - half)):
        index = part + recipe.VARIANTS.index(variant)  # parts begin with different kinds
        while count:
            size = min(count, BATCH_SIZES[index % len(BATCH_SIZES)])
            chunk = CHUNKS[index % len(CHUNKS)]
            yield _call(random_, variant, kind, pools[chunk], size, chunk)
            count -= size
            index += 1


def _pools(random_: random.Random, num_cases: int) -> dict[int, list[Request]]:
    """Per chunk size the requests to draw from, at least as many as a batch has rows."""
    share = num_cases / CALLS_PER_REQUEST / len(CHUNKS)
    pools = {}
    for chunk in sorted(set(CHUNKS)):
        count = max(*BATCH_SIZES, round(share * CHUNKS.count(chunk)))
        pools[chunk] = [_request(random_) for _ in range(count)]
    return pools


def _call(
    random_: random.Random,
    variant: str,
    kind: DrafterKind,
    pool: list[Request],
    size: int,
    chunk: int,
) -> Call:
    lengths = _draft_lengths(random_, size)
    chosen = random_.sample(pool, size)
    arrivals = [0] * size if random_.random() < 0.5 else [random_.randrange(8) for _ in chosen]
    return Call(
        variant=variant,
        requests=tuple(
            replace(request, num_draft_tokens=length)
            for request, length in zip(chosen, lengths, strict=True)
        ),
        arrivals=tuple(sorted(arrivals)),
        slots=random_.choice((size, size, 8, max(1, size - 2))),
        chunk=chunk,
        drafter=kind,
        agreement=random_.uniform(0.5, 0.9),
        seed=random_.randrange(1 << 30),
    )


def _draft_lengths(random_: random.Random, size: int) -> list[int]:
    """The same for all rows, or each row its own."""
    if random_.random() < 0.5:
        return [random_.randint(1, MAX_DRAFT_TOKENS)] * size
    return [random_.randint(0, MAX_DRAFT_TOKENS) for _ in range(size)]


def _request(random_: random.Random) -> Request:
    prompt = recipe.prompt(_prompt_length(random_), random_.randrange(1 << 30))
    return Request(
        prompt=tuple(int(token) for token in prompt),
        sampling=_sampling(random_),
        max_tokens=random_.randint(MIN_TOKENS, MAX_TOKENS),
        constraint=Steps(random_.choice((2, 3))) if random_.random() < 0.2 else None,
        logprobs=random_.choice((0, 1, 5, 20)) if random_.random() < 0.3 else None,
        prompt_logprobs=random_.choice((0, 3)) if random_.random() < 0.1 else None,
    )


def _prompt_length(random_: random.Random) -> int:
    """One token, up to three windows, or longer."""
    draw = random_.random()
    if draw < 0.1:
        return 1
    if draw < 0.85:
        return random_.randint(2, 3 * WINDOW)
    return random_.randint(3 * WINDOW + 1, LONGEST_PROMPT)


def _sampling(random_: random.Random) -> Sampling:
    """Greedy, or seeded with some of the filters; a few rows so warm that real drafters agree."""
    seed = random_.randrange(1 << 40)
    draw = random_.random()
    changes = _processors(random_) if random_.random() < 0.5 else {}
    if draw < 0.25:
        return Sampling(**changes)
    if draw < 0.45:
        return Sampling(temperature=WARM, seed=seed, **changes)
    return Sampling(
        temperature=random_.choice((0.7, 1.0)),
        top_k=random_.choice((0, 1, 8, 64, 1000)),
        top_p=random_.choice((1.0, 0.95, 0.6)),
        min_p=random_.choice((0.0, 0.0, 0.05)),
        seed=seed,
        **changes,
    )


def _processors(random_: random.Random) -> dict[str, Any]:
    """Penalties, biases and bans, some of them."""
    tokens = random_.sample(range(VOCAB_SIZE), 30)
    biases = tuple((token, random_.uniform(-4.0, 4.0)) for token in tokens[:15])
    return {
        "repetition_penalty": random_.choice((1.0, 1.3, 0.8)),
        "presence_penalty": random_.choice((0.0, 0.6, -0.4)),
        "frequency_penalty": random_.choice((0.0, 0.5, 2.0)),
        "logit_bias": random_.choice(((), biases)),
        "banned": random_.choice(((), tuple(tokens[15:]))),
    }
