"""E28: prompts of one token, and prompts that end at, before and behind a chunk's border."""

import pytest

from mtp_mlx.checkpoint import open_target
from mtp_mlx.reference import decode
from mtp_mlx.reference.load import load_weights
from mtp_mlx.reference.target import Target as NumpyTarget
from mtp_mlx.request import Request, Sampling
from tests.api_pairs import folders
from tests.exact.pairs import golden_pair, oracle_engine, plain, run_together
from tests.golden import recipe
from tests.oracle import agreeing

CHUNK = 8
LENGTHS = (1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK)
NEW = 14


def requests(num_drafts: int) -> list[Request]:
    return [
        Request(
            prompt=tuple(int(token) for token in recipe.prompt(length, length)),
            sampling=Sampling(temperature=1.0, seed=length) if length % 2 else Sampling(),
            max_tokens=NEW,
            num_draft_tokens=num_drafts,
        )
        for length in LENGTHS
    ]


@pytest.fixture(scope="module")
def alone():
    return [plain(golden_pair("e4b").target, request, CHUNK) for request in requests(0)]


@pytest.mark.parametrize("num_drafts", [0, 1, 3, 7])
def test_a_prompt_may_end_anywhere_in_a_chunk(alone, num_drafts):
    target = golden_pair("e4b").target
    texts = [outcome.ids for outcome in alone]
    engine, _ = oracle_engine(target, texts, agreeing(0.7, 2), len(LENGTHS), CHUNK)
    seen = run_together(engine, requests(num_drafts))
    assert [outcome.text for outcome in seen] == [outcome.text for outcome in alone]


def test_the_twin_says_the_same_in_other_chunks(alone):
    checkpoint = open_target(folders("e4b")[0])
    twin = NumpyTarget(checkpoint.config, load_weights(checkpoint))
    for request, outcome in zip(requests(0), alone, strict=True):
        said = decode.plain_decode(
            twin, request.prompt, request.sampling, request.max_tokens, chunk=CHUNK + 3
        )
        assert said == outcome.ids
