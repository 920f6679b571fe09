"""A16: target and drafter in each other's place."""

import pytest

import mtp_mlx
from mtp_mlx.errors import DrafterMismatch, ModelNotFound, UnsupportedModel
from tests.bad_input.faults import both_backends, refusal
from tests.bad_input.files import copy_pair

VARIANTS = ["e2b", "12b"]


@both_backends
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_drafter_given_as_target_is_refused_clearly(variant, backend, tmp_path):
    _, drafter = copy_pair(tmp_path, variant)
    error = refusal(drafter, None, backend)
    assert type(error) is UnsupportedModel
    assert "drafter/config.json" in str(error)
    assert "is a drafter; give it as --draft-model" in str(error)


@both_backends
@pytest.mark.parametrize("layout", ["hf", "hf-text", "mlx"])
def test_a_target_given_as_drafter_is_refused_clearly(layout, backend, tmp_path):
    target, _ = copy_pair(tmp_path / "one", "31b")
    other, _ = copy_pair(tmp_path / "two", "31b", layout)
    error = refusal(target, other, backend)
    assert type(error) is UnsupportedModel
    assert "two/target/config.json" in str(error)
    assert "is a target; give it as --model" in str(error)


@both_backends
def test_the_two_swapped_are_refused_clearly(backend, tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    assert "is a drafter" in str(refusal(drafter, target, backend))


def test_one_folder_as_both_is_refused(tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    (tmp_path / "link").symlink_to(target)
    for same in (target, tmp_path / "link", target / ".." / "target"):
        error = refusal(target, same)
        assert type(error) is DrafterMismatch
        assert "are the same folder" in str(error)


@pytest.mark.parametrize("role", ["target", "drafter"])
@pytest.mark.parametrize("name", ["absent", "a\nb", "x" * 5000, "a\0b", "~nobody-of-that-name/x"],
                         ids=lambda name: ascii(name)[:20])  # fmt: skip
def test_a_folder_that_is_not_there_is_named(name, role, tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    pair = (name, None) if role == "target" else (target, name)
    with pytest.raises(ModelNotFound) as caught:
        mtp_mlx.load(pair[0], draft_model=pair[1])
    assert "no such model or folder" in str(caught.value)
    remedy = "tiny or tiny-moe" if role == "target" else "none to decode plainly"
    assert remedy in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.exit_code == 5


def test_without_a_drafter_beside_the_target_a_note_says_so(tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    llm = mtp_mlx.load(target)
    assert not llm.has_drafter
    assert "no drafter beside" in (llm.note or "")
    drafter.rename(tmp_path / "target-assistant")
    assert mtp_mlx.load(target).has_drafter
