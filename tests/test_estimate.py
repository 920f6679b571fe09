"""What a pair takes: the estimate beside a measured peak, and what is proposed for a machine."""

import json
import subprocess
import sys

import pytest

from mtp_mlx.api import load
from mtp_mlx.embedded import NAMES
from mtp_mlx.errors import DoesNotFit, ModelNotFound, RequestError
from mtp_mlx.estimate import LISTED, PROPOSED, estimate, find_subject, rehearse, suggest
from mtp_mlx.fit import make_plan
from mtp_mlx.shapes import published

GB = 10**9
CLOSE = 0.10
F32, BF16 = 4, 2
# A chunk of the prompt and less, alone and in a batch.
SHAPES = [(1, 64), (8, 64), (1, 500)]
LONG = [(1, 1500), (1, 4096), (8, 700), (8, 2100)]


def measured(name: str, rows: int, tokens: int) -> dict:
    """What `fit --load` says in a process of its own."""
    texts = ["--batch", str(rows), "--ctx", str(tokens)]
    command = [sys.executable, "-m", "mtp_mlx", "fit", name, *texts, "--load", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


@pytest.mark.parametrize(("rows", "tokens"), SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_peak_is_as_estimated(name, rows, tokens):
    found = measured(name, rows, tokens)
    assert found["peak_expected"] == pytest.approx(found["peak_measured"], rel=CLOSE)
    assert found["peak_measured"] < found["needed"]


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "tokens"), LONG)
@pytest.mark.parametrize("name", NAMES)
def test_the_peak_of_long_texts_is_as_estimated(name, rows, tokens):
    test_the_peak_is_as_estimated(name, rows, tokens)


def test_the_estimate_is_wrong_where_a_part_is_forgotten():
    plan = estimate(find_subject("tiny", "auto"), 8, 64).plan
    parts = (plan.weights, plan.peak - plan.weights - plan.drafter)
    assert min(parts) > CLOSE * plan.peak  # so the tests above would notice


def test_a_rehearsal_keeps_no_texts_which_the_peak_does_not_count():
    with load("tiny", draft_model="none", max_num_seqs=1, prefill_chunk=16) as llm:
        rehearse(llm, 1, 60)
        again = llm.generate([7 * place % llm.config.vocab_size for place in range(48)])
    assert again.usage.cached_tokens == 0


def test_it_fits_where_a_load_admits_all_texts():
    subject = find_subject("tiny", "auto")
    fits = estimate(subject, 3, 500).plan
    exact = make_plan(subject.config, subject.tensors, 3, F32, fits.total, 500)
    exact.check()
    with pytest.raises(DoesNotFit, match=r"K/V of 500 tokens a row 1\.\d\d MB"):
        make_plan(subject.config, subject.tensors, 3, F32, fits.total - 1, 500).check()


def test_a_published_pair_is_planned_without_its_files():
    subject = find_subject("e4b-4bit", "auto")
    assert (subject.name, subject.draft_name, subject.is_here) == (
        "e4b-4bit",
        "e4b-assistant",
        False,
    )
    with_drafter = estimate(subject, 2, 8192).plan
    plain = estimate(find_subject("e4b-4bit", "none"), 2, 8192).plan
    assert (with_drafter.drafter > 0, plain.drafter) == (True, 0)
    assert with_drafter.weights == plain.weights


def test_what_has_no_name_is_not_found():
    with pytest.raises(ModelNotFound):
        find_subject("e5b-4bit", "auto")
    with pytest.raises(RequestError, match="leave out draft_model"):
        find_subject("e4b-4bit", "some/folder")


@pytest.mark.parametrize("tokens", [0, 4097])
def test_a_context_beyond_the_models_own_is_refused(tokens):
    with pytest.raises(RequestError, match="context must be 1 to 4,096") as caught:
        estimate(find_subject("tiny", "auto"), 1, tokens)
    assert caught.value.param == "context"


# --- what is proposed ---


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1 * GB, None),
        (6 * GB, "e2b-4bit"),
        (9 * GB, "e4b-4bit"),
        (18 * GB, "12b-4bit"),
        (27 * GB, "26b-4bit"),
        (96 * GB, "26b-4bit"),  # 31b is listed and never proposed
    ],
)
def test_the_pair_for_a_budget(budget, expected):
    found = suggest(budget)
    assert (None if found.best is None else found.best.name) == expected
    assert [offer.name for offer in found.offers] == [*LISTED, *PROPOSED]


@pytest.mark.parametrize("budget", range(2 * GB, 40 * GB, GB // 2))
def test_what_is_proposed_takes_four_fifths_and_can_be_loaded(budget):
    best = suggest(budget).best
    if best is None:
        assert budget < 6 * GB
        return
    pair = published(best.name)
    assert pair is not None
    tensors = (pair.target_tensors, pair.drafter_tensors)
    plan = make_plan(pair.target, tensors, 4, BF16, budget, 8192)
    plan.check()
    assert best.needed == plan.weights + plan.drafter + plan.windows + plan.texts
    assert best.needed <= 0.8 * budget
    larger = PROPOSED[: PROPOSED.index(best.name)]
    assert not any(offer.fits for offer in suggest(budget).offers if offer.name in larger)
