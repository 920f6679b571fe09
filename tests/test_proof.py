"""Which level a verification shows, and which divergences it excuses: scripted replies, and a model
whose rounding is made up."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

import mtp_mlx
from mtp_mlx import proof
from mtp_mlx.errors import NumericalError, RequestError, Unsupported
from mtp_mlx.proof import PROMPTS, as_prompts, verify
from mtp_mlx.verdict import MAX_EPS, BlockError, Divergence, Rounding, Text
from tests.api_pairs import loaded, prompt_ids

VOCAB = 8


@dataclass
class FakeModel:
    """Says token 1 four times, unless `says` has another text for (rows, drafts of the row); to
    sampled rows it does so where `is_sampled_too`.

    The best logit is that of token 1; token 2 lies `gap` below, token 3 lies 5 below.
    """

    says: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    is_sampled_too: bool = False
    gap: float = 0.01
    eps: float = 0.0
    has_drafter: bool = True
    has_chat_template: bool = False
    asked: list[Text] = field(default_factory=list)
    config = SimpleNamespace(max_positions=64)

    @property
    def _worker(self) -> SimpleNamespace:
        return SimpleNamespace(call=lambda function: function(self, None))

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(slots=8)

    def prompt_ids(self, prompt: Sequence[int]) -> Sequence[int]:
        return prompt

    def generate(self, ids: Sequence[int], **options) -> SimpleNamespace:
        return self.batch([ids], each=[options])[0]

    def batch(self, prompts, *, each) -> list[SimpleNamespace]:
        replies = []
        for options in each:
            is_scripted = self.is_sampled_too or options["temperature"] == 0
            key = (len(each), options["num_draft_tokens"]) if is_scripted else None
            replies.append(SimpleNamespace(token_ids=self.says.get(key, (1, 1, 1, 1))))
        return replies

    def measure_rounding(self, texts, sizes, progress) -> Rounding:
        errors = [BlockError(1, size, 9, self.eps / 10, 0) for size in sizes]
        errors += [BlockError(4, size, 9, self.eps, 0) for size in sizes]
        return Rounding(tuple(errors), np.array([self.gap, 1.0, 2.0, 3.0]))

    def last_logits(self, text: Text) -> np.ndarray:
        self.asked.append(text)
        logits = np.full(VOCAB, -20.0, np.float32)
        logits[[1, 2, 3]] = (0.0, -self.gap, -5.0)
        return logits


def report(model: FakeModel, sizes=(1, 2), drafts: int = 3):
    return verify(model, [[5, 6], [7]], batch_sizes=sizes, num_draft_tokens=drafts)


def test_all_the_same_is_level_c():
    seen = report(FakeModel())
    assert (seen.identical, seen.level, seen.divergences) == (True, "C", ())
    assert seen.cases == 2 * (2 + 3 * 2)
    assert report(FakeModel(), sizes=(1,)).level == "B"


def test_near_ties_in_a_batch_alone_leave_level_b():
    other = (1, 2, 2, 2)
    says = {(2, drafts): other for drafts in range(4)}
    seen = report(FakeModel(says, gap=0.01, eps=0.1))
    assert (seen.identical, seen.level, seen.faults) == (False, "B", ())
    assert len(seen.divergences) == 2
    for each in seen.divergences:
        assert (each.against, each.position, each.plain, each.found) == ("alone", 1, 1, 2)
        assert each.gap == pytest.approx(0.01)
        assert each.allowed == pytest.approx(2 * 0.1 / 10)  # of single tokens


def test_near_ties_of_drafting_leave_level_a():
    model = FakeModel({(1, 3): (1, 1, 2, 1)}, gap=0.1, eps=0.1)
    seen = report(model)
    assert [(each.prompt, each.position) for each in seen.divergences] == [(0, 2), (1, 2)]
    assert all(each.against == "plain" and each.is_near_tie for each in seen.divergences)
    assert seen.divergences[0].allowed == pytest.approx(0.2)
    assert model.asked == [Text((5, 6, 1, 1), 2), Text((7, 1, 1), 1)]
    assert seen.level == "A"


@pytest.mark.parametrize(
    ("text", "gap"), [((1, 3, 1, 1), 5.0), ((1, 1), None), ((1, 1, 1, 1, 1), None)]
)
def test_what_rounding_cannot_do_is_a_fault(text, gap):
    seen = report(FakeModel({(1, 3): text}, eps=0.1))
    assert seen.level is None
    assert {each.gap for each in seen.faults} == {gap}


def test_a_large_measured_error_excuses_no_large_gap():
    seen = report(FakeModel({(1, 3): (1, 3, 1, 1)}, eps=100.0))
    assert {each.allowed for each in seen.faults} == {2 * MAX_EPS}
    assert seen.level is None


def test_sampled_rows_are_judged_with_their_noise():
    seen = report(FakeModel({(1, 3): (1, 2, 1, 1)}, is_sampled_too=True, gap=0.0))
    greedy, sampled = seen.divergences[:2], seen.divergences[2:]
    assert [each.gap for each in greedy] == [0.0, 0.0]
    assert [each.temperature for each in sampled] == [0.7, 1.0]
    assert all(each.gap is not None and each.gap > 0 for each in sampled)  # the noise tells them


def test_scale_of_the_allowance_is_that_of_the_scores():
    seen = report(FakeModel({(1, 3): (1, 2, 1, 1)}, is_sampled_too=True, eps=0.1))
    assert [each.allowed for each in seen.divergences] == pytest.approx(
        [0.2, 0.2, 0.2 / 0.7, 0.2 / 1.0]
    )


def test_near_ties_are_counted():
    assert report(FakeModel(gap=0.1, eps=0.06)).near_ties_per_1000 == 250.0
    assert report(FakeModel(gap=0.1, eps=0.04)).near_ties_per_1000 == 0.0


def test_json_has_every_field():
    body = report(FakeModel({(1, 3): (1, 2, 1, 1)}, eps=0.1)).to_json()
    assert {"identical", "level", "cases", "batch_sizes", "divergences"} <= set(body)
    names = {"prompt", "position", "plain", "found", "gap", "allowed", "is_near_tie"}
    assert names <= set(body["divergences"][0])


def test_eps_counts_narrower_blocks_and_fewer_rows_only():
    errors = tuple(
        BlockError(block, rows, 1, block / 100 + rows / 1000, 0)
        for block in (1, 4, 8)
        for rows in (1, 8)
    )
    rounding = Rounding(errors, np.zeros(1))
    assert rounding.eps(4, 7) == pytest.approx(0.041)
    assert rounding.eps(3, 8) == pytest.approx(0.018)
    assert rounding.eps(8, 8) == pytest.approx(0.088)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"batch_sizes": (9,)}, "batch_sizes"),
        ({"batch_sizes": (0,)}, "batch_sizes"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"num_draft_tokens": 0}, "num_draft_tokens"),
        ({"prompts": []}, "prompts"),
    ],
)
def test_bad_arguments_are_named(options, param):
    with pytest.raises(RequestError) as caught:
        verify(FakeModel(), **{"prompts": [[5]], **options})
    assert caught.value.param == param


def test_a_model_without_drafter_needs_neighbours():
    with pytest.raises(RequestError, match="nothing to compare"):
        report(replace(FakeModel(), has_drafter=False), sizes=(1,))
    seen = report(replace(FakeModel(), has_drafter=False))
    assert (seen.level, seen.num_draft_tokens, seen.cases) == ("C", 0, 2 * 2)


def test_a_plain_reply_that_fails_names_its_prompt():
    class Failing(FakeModel):
        def generate(self, ids, **options):
            raise NumericalError("the target gave NaN")

    with pytest.raises(NumericalError, match=r"^prompts\[0\]: the target gave NaN"):
        report(Failing())


def test_a_golden_pair_verifies_from_the_package(monkeypatch):
    monkeypatch.setattr(proof, "LONG_TEXT", 40)
    said: list[str] = []
    llm = loaded()
    prompts = [prompt_ids(1), prompt_ids(23)]
    seen = mtp_mlx.verify(
        llm, prompts, max_tokens=6, batch_sizes=[1, 4], num_draft_tokens=2, progress=said.append
    )
    assert isinstance(seen, mtp_mlx.VerifyReport)
    assert (seen.identical, seen.level, seen.eps) == (True, "C", 0.0)
    assert any("batches of 4" in line for line in said)
    assert llm.stats().is_idle


def test_texts_are_messages_where_there_is_a_template():
    assert as_prompts(FakeModel(), PROMPTS) == list(PROMPTS)
    chats = as_prompts(FakeModel(has_chat_template=True), ["a"])
    assert chats == [[{"role": "user", "content": "a"}]]


def test_the_reference_has_nothing_to_verify():
    with pytest.raises(Unsupported, match="backend='mlx'"):
        verify(loaded(backend="numpy"), [[2, 5]], max_tokens=1, batch_sizes=[2])


def test_a_divergence_without_gap_is_no_near_tie():
    where = Divergence(0, 0, 1, None, None, 1.0, 0.0, 0, 1, 3, "plain")
    assert not where.is_near_tie
