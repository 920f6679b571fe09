"""B12: an id that the embedding table does not hold reaches no engine, whoever let it through:
MLX's gather has no bounds check."""

from dataclasses import replace

import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.errors import RequestError
from mtp_mlx.reference.runtime import NumpyEngine
from mtp_mlx.request import Request, Sampling, Thinking
from tests.exact.pairs import golden_pair, golden_twin

VARIANT = "31b"
VOCAB = 256
ASKED = Request(prompt=(2, 9), sampling=Sampling(), max_tokens=3)
OUTSIDE = (-1, VOCAB, 1 << 20, 1 << 40)


def requests(token: int) -> dict[str, Request]:
    """A request with this id in each place that holds one; a bias below 0 is refused before."""
    thinking = Thinking(opens=1, closes=2, left=3)
    found = {
        "prompt": replace(ASKED, prompt=(2, token, 9)),
        "stop_ids": replace(ASKED, stop_ids=frozenset({1, token})),
        "banned": replace(ASKED, sampling=Sampling(banned=(5, token))),
        "opens": replace(ASKED, thinking=replace(thinking, opens=token)),
        "closes": replace(ASKED, thinking=replace(thinking, closes=token)),
        "calls": replace(ASKED, thinking=replace(thinking, calls=token)),
    }
    if 0 <= token < 1 << 31:
        found["logit_bias"] = replace(ASKED, sampling=Sampling(logit_bias=((token, 1.0),)))
    return found


def twin_or_pair(kind: type) -> tuple:
    if kind is NumpyEngine:
        return golden_twin(VARIANT)
    pair = golden_pair(VARIANT)
    return pair.target, pair.drafter


@pytest.mark.parametrize("token", OUTSIDE)
@pytest.mark.parametrize("kind", [Engine, NumpyEngine])
def test_an_id_outside_the_table_is_refused_by_the_engine_itself(kind, token):
    target, drafter = twin_or_pair(kind)
    engine = kind(target, drafter, 2)
    assert engine.target.config.vocab_size == VOCAB
    for request in requests(token).values():
        with pytest.raises(RequestError, match=rf"is {token}; token ids of this model go from 0"):
            engine.submit(request)
    assert engine.is_idle
    for request in requests(VOCAB - 1).values():
        engine.submit(request)
