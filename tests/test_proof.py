"""Which level a verification shows, and which divergences it excuses: scripted replies, and a model
whose rounding is made up."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import current_thread, main_thread
from types import SimpleNamespace

import numpy as np
import pytest

import mtp_mlx
from mtp_mlx import proof
from mtp_mlx.engine import blocks
from mtp_mlx.errors import EngineStopped, NumericalError, RequestError, Unsupported
from mtp_mlx.proof import PROMPTS, as_prompts, verify
from mtp_mlx.request import Sampling
from mtp_mlx.together import Case, least_tokens, run_together
from mtp_mlx.verdict import BlockError, Rounding, Text, error_bound
from tests.api_pairs import loaded, prompt_ids

VOCAB = 8


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Little to measure on the golden pair."""
    monkeypatch.setattr(proof, "LONG_TEXT", 40)
    monkeypatch.setattr(proof, "DECODED", 8)
    monkeypatch.setattr(blocks, "WIDTHS", (1, 3))


PLAIN = (1, 1, 1, 1)


@dataclass
class FakeJob:
    """One row of a FakeModel; `notify` is told of its chunks."""

    options: dict
    error: Exception | None = None
    answer: SimpleNamespace | None = None
    notify: Callable[[], None] = lambda: None

    def subscribe(self, notify: Callable[[], None]) -> None:
        self.notify = notify
        notify()

    def reply(self) -> SimpleNamespace | None:
        return self.answer


@dataclass
class FakeModel:
    """Says token 1 four times, unless `says` has another text for (rows, drafts of the row); to
    sampled rows it does so where `is_sampled_too`. `ends` has other reasons than "length", `fails`
    errors. A round has at most `most_rows`, accepts `accepted` drafts of 3 a row.

    The best logit is that of token 1; token 2 lies `gap` below, token 3 lies 5 below.
    """

    says: dict[tuple[int, int | None], tuple[int, ...]] = field(default_factory=dict)
    ends: dict[tuple[int, int | None], str] = field(default_factory=dict)
    fails: dict[tuple[int, int | None], Exception] = field(default_factory=dict)
    is_sampled_too: bool = False
    gap: float = 0.01
    eps: float = 0.0
    bound: float = 1.0
    accepted: int = 2
    most_rows: int = 8
    has_drafter: bool = True
    has_chat_template: bool = False
    asked: list[Text] = field(default_factory=list)
    rounds: list[tuple[int, int]] = field(default_factory=list)  # rows, drafts
    config = SimpleNamespace(max_positions=64)

    @property
    def _worker(self) -> SimpleNamespace:
        return SimpleNamespace(
            call=lambda function: function(self, self),
            submit=self._submit,
            cancel=lambda job: None,
        )

    def stats(self) -> SimpleNamespace:
        rows, drafted = (sum(counts) for counts in zip((0, 0), *self.rounds, strict=True))
        return SimpleNamespace(slots=8, rounds=len(self.rounds), rows=rows, drafted=drafted)

    def prompt_ids(self, prompt: Sequence[int]) -> Sequence[int]:
        return prompt

    def generate(self, ids: Sequence[int], **options) -> SimpleNamespace | None:
        job = self._job(ids, options)
        self._submit(job)
        return job.reply()

    def _job(self, ids: Sequence[int], options: dict) -> FakeJob:
        return FakeJob(options)

    def _submit(self, *jobs: FakeJob) -> None:
        drafts = 0
        for job in jobs:
            asked = job.options["num_draft_tokens"]
            is_scripted = self.is_sampled_too or job.options["temperature"] == 0
            key = (len(jobs), asked) if is_scripted else (0, 0)
            job.error = self.fails.get(key)
            drafted = 0 if asked == 0 else 3
            drafts += drafted
            job.answer = SimpleNamespace(
                token_ids=self.says.get(key, PLAIN),
                finish_reason="error" if job.error else self.ends.get(key, "length"),
                error=str(job.error) if job.error else None,
                spec=SimpleNamespace(drafted=drafted, accepted=min(drafted, self.accepted)),
            )
        for rows in (1, min(len(jobs), self.most_rows)):
            self.rounds.append((rows, drafts))
            jobs[0].notify()

    def measure_rounding(self, texts, sizes, progress) -> Rounding:
        progress("rounding")
        errors = [error(1, size, self.eps / 10) for size in sizes]
        errors += [error(4, size, self.eps) for size in sizes]
        return Rounding(tuple(errors), self.bound, np.array([self.gap, 1.0, 2.0, 3.0]))

    def last_logits(self, text: Text) -> np.ndarray:
        self.asked.append(text)
        logits = np.full(VOCAB, -20.0, np.float32)
        logits[[1, 2, 3]] = (0.0, -self.gap, -5.0)
        return logits


def error(block: int, rows: int, largest: float, far: int = 0) -> BlockError:
    return BlockError(block, rows, 100, largest, largest / 2, far, far)


ROUNDS = ("plain round", "round with drafts")


def report(model: FakeModel, sizes=(1, 2), drafts: int = 3):
    return verify(model, [[5, 6], [7]], batch_sizes=sizes, num_draft_tokens=drafts)


def test_all_the_same_is_level_c():
    seen = report(FakeModel())
    assert (seen.identical, seen.level, seen.divergences) == (True, "C", ())
    assert seen.cases == 2 * (2 * 2 + 4 * 2)
    assert (seen.covers, report(FakeModel(), sizes=(1,)).level) == (("drafts", "batches"), "B")


def test_what_the_rounds_were_is_told():
    rows = [
        (each.batch_size, each.kind, each.drafted, each.accepted, each.most_rows)
        for each in report(FakeModel(most_rows=1)).exercises
    ]
    assert rows == [
        (1, "drafts", 12, 8, 1),
        (1, "auto", 12, 8, 1),
        (2, "plain", 0, 0, 1),
        (2, "drafts", 24, 16, 1),
        (2, "auto", 12, 8, 1),
    ]


def test_without_accepted_drafts_there_is_no_level():
    seen = report(FakeModel(accepted=0), sizes=(1,))
    assert (seen.identical, seen.level, seen.has_fault) == (True, None, False)
    assert seen.missing == ("no draft was accepted with 1 row (12 made)",)


def test_without_shared_rounds_there_is_no_level():
    seen = report(FakeModel(most_rows=1), sizes=(2, 4))
    assert (seen.identical, seen.level) == (True, None)
    assert seen.missing == tuple(
        f"no {what} had two of {size} rows" for size in (2, 4) for what in ROUNDS
    )


def test_a_batch_that_met_in_part_is_shown_for_as_many_rows():
    seen = report(FakeModel(most_rows=2), sizes=(2, 4))
    assert (seen.identical, seen.level, seen.missing) == (True, "C", ())
    assert seen.partial == tuple(f"of 4 rows at most 2 shared a {what}" for what in ROUNDS)


def test_enough_tokens_for_all_rows_to_meet_are_the_default():
    assert verify(FakeModel(), [[5]]).max_tokens == 64
    assert [least_tokens(1, 3), least_tokens(8, 7), least_tokens(4, 0)] == [3, 59, 6]


def test_the_policy_chooses_in_one_run_of_each_batch():
    seen = report(FakeModel({(2, None): (1, 3, 1, 1), (1, None): (1, 3, 1, 1)}))
    assert [(e.batch_size, e.num_draft_tokens, e.against) for e in seen.faults] == [
        (size, None, "plain") for size in (1, 1, 2, 2)
    ]


def test_near_ties_in_a_batch_alone_leave_level_b():
    other = (1, 2, 2, 2)
    says = {(2, drafts): other for drafts in (0, 1, 2, 3, None)}
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


def test_a_row_that_fails_says_why():
    model = FakeModel({(1, 3): (1, 1)}, fails={(1, 3): NumericalError("the target gave NaN")})
    seen = report(model)
    assert seen.level is None
    for each in seen.to_json()["divergences"]:
        assert (each["error"], each["found_finish"]) == ("the target gave NaN", "error")
        assert (each["position"], each["found"], each["plain_finish"]) == (2, None, "length")


def test_the_same_text_with_another_end_is_a_fault():
    seen = report(FakeModel(ends={(1, 3): "stop"}))
    assert [(e.position, e.plain, e.found, e.found_finish) for e in seen.faults] == [
        (4, None, None, "stop")
    ] * 2


def test_an_engine_that_stops_ends_the_verification():
    failure = EngineStopped("the engine failed: oh")
    with pytest.raises(EngineStopped, match=r"^batches of 2, drafts: the engine failed: oh"):
        report(FakeModel(fails={(2, 2): failure}))


def test_an_error_beyond_rounding_is_a_fault_although_no_text_parts():
    seen = report(FakeModel(eps=0.65, bound=0.03))
    assert (seen.divergences, seen.identical, seen.level) == ((), False, None)
    assert [(each.block, each.rows) for each in seen.kernel_faults] == [
        (1, 1), (1, 2), (4, 1), (4, 2)
    ]  # fmt: skip
    body = seen.to_json()
    assert (body["identical"], body["bound"]) == (False, 0.03)
    assert not any(each["is_rounding"] for each in body["errors"])


def test_a_large_measured_error_excuses_no_large_gap():
    seen = report(FakeModel({(1, 3): (1, 3, 1, 1)}, eps=100.0, bound=0.5))
    assert {each.allowed for each in seen.faults} == {2 * 0.5}
    assert seen.level is None


def test_other_best_tokens_that_usual_rounding_does_not_explain_are_a_fault():
    assert error(4, 1, 0.1, far=2).is_rounding(bound=1.0)
    assert not error(4, 1, 0.1, far=3).is_rounding(bound=1.0)
    assert replace(error(4, 1, 0.1, far=1), positions=8).is_rounding(bound=1.0)


def test_an_infinite_error_is_a_fault_and_no_number_in_json():
    infinite = error(4, 1, float("inf"))
    assert not infinite.is_rounding(bound=1.0)
    seen = replace(report(FakeModel()), errors=(infinite,))
    text = json.dumps(seen.to_json(), allow_nan=False)
    assert json.loads(text)["errors"][0]["largest"] is None


def test_rounding_is_a_share_of_the_logits_in_float32_and_a_logit_otherwise():
    assert error_bound(30.0, is_float32=True) == pytest.approx(0.03)
    assert error_bound(30.0, is_float32=False) == 1.0


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
        error(block, rows, block / 100 + rows / 1000) for block in (1, 4, 8) for rows in (1, 8)
    )
    rounding = Rounding(errors, 0.08, np.zeros(1))
    assert rounding.eps(4, 7) == pytest.approx(0.041)
    assert rounding.eps(3, 8) == pytest.approx(0.018)
    assert rounding.eps(8, 8) == 0.08  # the bound


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
    assert (seen.covers, seen.to_json()["covers"]) == (("batches",), ("batches",))
    near = FakeModel({(2, 0): (1, 2, 1, 1)}, has_drafter=False, eps=0.1)
    assert report(near).level == "A"  # nothing was drafted that B could speak of


def test_a_plain_reply_that_fails_names_its_prompt():
    class Failing(FakeModel):
        def generate(self, ids, **options):
            raise NumericalError("the target gave NaN")

    with pytest.raises(NumericalError, match=r"^prompts\[0\]: the target gave NaN"):
        report(Failing())


def test_a_golden_pair_verifies_from_the_package():
    said: list[tuple[str, bool]] = []

    def tell(message: str) -> None:
        said.append((message, current_thread() is main_thread()))

    llm = loaded()
    prompts = [prompt_ids(1), prompt_ids(23)]
    seen = mtp_mlx.verify(
        llm, prompts, max_tokens=9, batch_sizes=[1, 3], num_draft_tokens=2, progress=tell
    )
    assert isinstance(seen, mtp_mlx.VerifyReport)
    assert (seen.identical, seen.eps) == (True, 0.0)
    assert {each.most_rows for each in seen.exercises if each.batch_size == 3} == {3}
    assert seen.level is None  # a random drafter's drafts are never right
    assert {what.partition(" with ")[0] for what in seen.missing} == {"no draft was accepted"}
    assert any("batches of 3" in line for line, _ in said)
    assert any(line.startswith("rounding: 3 rows") for line, _ in said)
    assert all(is_here for _, is_here in said)
    assert llm.stats().is_idle


def test_rows_that_never_met_are_not_counted_together():
    llm = loaded()
    batch = [
        Case(number, tuple(prompt_ids(length)), Sampling()) for number, length in enumerate((1, 23))
    ]
    for tokens, most in ((2, 1), (8, 2)):
        _, plain = run_together(llm, batch, [0, 0], tokens, "plain")
        assert plain.most_rows == most
    _, drafting = run_together(llm, batch, [2, 0], 8, "drafts")
    assert (drafting.most_rows, drafting.drafted > 0) == (2, True)
    _, none = run_together(llm, batch, [0, 0], 8, "drafts")
    assert (none.most_rows, none.drafted) == (0, 0)


def test_an_interrupted_caller_ends_the_measurement():
    def interrupt(message: str) -> None:
        if message.startswith("rounding"):
            raise KeyboardInterrupt

    llm = loaded()
    with pytest.raises(KeyboardInterrupt):
        verify(llm, [prompt_ids(1)], max_tokens=8, batch_sizes=[2], progress=interrupt)
    assert llm.stats().is_idle


def test_texts_are_messages_where_there_is_a_template():
    assert as_prompts(FakeModel(), PROMPTS) == list(PROMPTS)
    chats = as_prompts(FakeModel(has_chat_template=True), ["a"])
    assert chats == [[{"role": "user", "content": "a"}]]


def test_the_reference_has_nothing_to_verify():
    with pytest.raises(Unsupported, match="backend='mlx'"):
        verify(loaded(backend="numpy"), [[2, 5]], max_tokens=7, batch_sizes=[2])


def test_a_divergence_without_gap_is_no_near_tie():
    (where,) = report(FakeModel({(1, 3): (1,)}, eps=0.1)).divergences[:1]
    assert (where.gap, where.is_near_tie) == (None, False)
