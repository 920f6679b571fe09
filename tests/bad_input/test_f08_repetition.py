"""F8: a model that says one thing for ever ends at its budget, by default 4,096 or the context."""

from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.job import DEFAULT_MAX_TOKENS
from tests.api_pairs import engine_of
from tests.bad_input.files import Json, Tensors, copy_pair, edit_json, edit_tensors

REPEATED = 0  # the first of equal scores; no end token


def silence(tensors: Tensors) -> None:
    """All scores become zero: the last norm multiplies the state by nothing."""
    [name] = [name for name in tensors if name.endswith("model.norm.weight")]
    tensors[name][:] = 0


def repeating_pair(folder: Path, context: int) -> tuple[Path, Path]:
    def widen(top: Json) -> None:
        top["text_config"]["max_position_embeddings"] = context

    target, drafter = copy_pair(folder, "31b")
    edit_json(target / "config.json", widen)
    for path in (target, drafter):
        edit_tensors(path, silence)
    return target, drafter


def test_endless_repetition_ends_at_max_tokens_or_with_the_context(tmp_path):
    target, drafter = repeating_pair(tmp_path, 64)
    with mtp_mlx.load(target, draft_model=drafter) as llm:
        for drafts in (0, 3, 7):
            for budget, length in ((20, 20), (62, 62), (63, 62), (None, 62), (10**6, 62)):
                options = {"temperature": 0, "max_tokens": budget, "num_draft_tokens": drafts}
                reply = llm.generate([2, 9], **options)
                assert reply.token_ids == (REPEATED,) * length
                assert reply.finish_reason == "length"
                assert reply.usage.total_tokens == 2 + length
            assert reply.spec.accepted == reply.spec.drafted
        assert llm.stats().is_idle


def test_the_default_budget_is_named_and_reaches_the_engine(tmp_path):
    target, drafter = repeating_pair(tmp_path, 8192)
    assert DEFAULT_MAX_TOKENS == 4096
    with mtp_mlx.load(target, draft_model=drafter) as llm:
        for prompt, budget in (([2, 9], 4096), ([9] * 4096, 4096), ([9] * 4100, 4092)):
            with llm.stream(prompt, temperature=0, num_draft_tokens=0):
                while not (rows := engine_of(llm).sequences):
                    pass  # it is admitted before its prompt is read
                assert [sequence.budget for sequence in rows] == [budget]


@pytest.mark.slow
def test_endless_repetition_ends_after_4096_tokens_by_default(tmp_path):
    target, drafter = repeating_pair(tmp_path, 8192)
    with mtp_mlx.load(target, draft_model=drafter) as llm:
        reply = llm.generate([2, 9], temperature=0, num_draft_tokens=7)
    assert reply.token_ids == (REPEATED,) * 4096
    assert (reply.finish_reason, reply.spec.rounds) == ("length", 512)
