"""A15: drafter and target that number their tokens differently."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.checkpoint import check_tokenizers
from mtp_mlx.errors import CheckpointError, DrafterMismatch
from tests.bad_input.faults import Damage, Fault, check, each, in_drafter_json
from tests.bad_input.files import Json, copy_pair, edit_json

NAME = "tokenizer.json"
SAID = ("drafter/tokenizer.json", "target/tokenizer.json", "vocabulary or special ids differ")


def swapped(top: Json) -> None:
    vocab = top["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]


def other_special(top: Json) -> None:
    top["added_tokens"][-1]["id"] = 99


def other_merges(top: Json) -> None:
    top["model"]["merges"].reverse()


DIFFERENT: list[tuple[str, Callable[[Json], object]]] = [
    ("swapped_ids", swapped),
    ("special_id", other_special),
    ("special_text", lambda top: top["added_tokens"][0].update(content="<other>")),
    ("special_gone", lambda top: top["added_tokens"].pop()),
    ("piece_more", lambda top: top["model"]["vocab"].update(xyz=255)),
    ("piece_less", lambda top: top["model"]["vocab"].pop("a")),
    ("merges", other_merges),
]
DAMAGED: list[tuple[str, Callable[[Json], object]]] = [
    ("no_model", lambda top: top.pop("model")),
    ("model_list", lambda top: top.update(model=[])),
    ("vocab_list", lambda top: top["model"].update(vocab=[["a", 1.5]])),
    ("added_null", lambda top: top.update(added_tokens=None)),
    ("added_numbers", lambda top: top.update(added_tokens=[1, 2])),
    ("added_text", lambda top: top.update(added_tokens="abc")),
    ("added_mixed", lambda top: top["added_tokens"].append({"id": "7", "content": None})),
    ("added_unnamed", lambda top: top["added_tokens"].append({})),
    ("merges_null", lambda top: top["model"].update(merges=None)),
    ("merges_numbers", lambda top: top["model"].update(merges=[1, 2])),
    ("merges_mixed", lambda top: top["model"].update(merges=[["a", 2]])),
    ("surrogate", lambda top: top["model"]["vocab"].update({"\ud800": 300})),
]


@each([Fault(n, in_drafter_json(NAME, c), SAID, DrafterMismatch) for n, c in DIFFERENT])
def test_another_vocabulary_is_refused_with_both_files(fault, tmp_path):
    check(fault, tmp_path)


@pytest.mark.parametrize(("name", "change"), DAMAGED, ids=[name for name, _ in DAMAGED])
def test_a_damaged_tokenizer_of_a_drafter_is_a_typed_error(name, change, tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    edit_json(drafter / NAME, change)
    with pytest.raises(CheckpointError) as caught:
        mtp_mlx.load(target, draft_model=drafter)
    assert "drafter/tokenizer.json" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_tokenizer_of_a_drafter_that_is_no_json_is_refused(tmp_path):
    def damage(target: Path, drafter: Path) -> None:
        (drafter / NAME).write_text("{")

    check(Fault("json", damage, (NAME, "not valid JSON")), tmp_path)


def reformatted(target: Path, drafter: Path) -> None:
    """The same tokenizer, keys in another order and merges in the older spelling."""
    top = json.loads((drafter / NAME).read_text(encoding="utf-8"))
    merges = [m if isinstance(m, str) else " ".join(m) for m in top["model"]["merges"]]
    top["model"]["merges"] = merges
    (drafter / NAME).write_text(json.dumps(dict(reversed(top.items())), indent=7))


def enlarged(target: Path, drafter: Path) -> None:
    """Larger than other JSON files may be, as Gemma 4's own with its 33 MB is."""
    for folder, size in ((target, 17 << 20), (drafter, 18 << 20)):
        text = (folder / NAME).read_text(encoding="utf-8").rstrip()
        (folder / NAME).write_text(text + " " * (size - len(text)), encoding="utf-8")


def absent(target: Path, drafter: Path) -> None:
    (drafter / NAME).unlink()


@pytest.mark.parametrize("change", [reformatted, enlarged, absent], ids=lambda f: f.__name__)
def test_the_same_vocabulary_in_another_form_is_accepted(change, tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    change(target, drafter)
    assert mtp_mlx.load(target, draft_model=drafter).has_drafter


def only_sentencepiece(of_target: bytes, of_drafter: bytes) -> Damage:
    def damage(target: Path, drafter: Path) -> None:
        for folder, content in ((target, of_target), (drafter, of_drafter)):
            (folder / NAME).unlink()
            (folder / "tokenizer.model").write_bytes(content)

    return damage


def test_two_tokenizer_models_that_differ_are_refused_with_both_files(tmp_path):
    """Of whole models in tests/text/test_sentencepiece.py; here one of no use to anybody."""
    target, drafter = copy_pair(tmp_path, "31b")
    only_sentencepiece(b"one", b"two")(target, drafter)
    said = r"drafter/tokenizer\.model: vocabulary or special ids differ from .*target/"
    with pytest.raises(DrafterMismatch, match=said):
        check_tokenizers(target, drafter)
    only = (drafter / "tokenizer.model").read_bytes()
    (target / "tokenizer.model").write_bytes(only)
    check_tokenizers(target, drafter)
