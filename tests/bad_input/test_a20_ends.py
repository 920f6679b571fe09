"""A20: the tokens that end a reply: of every file, in range, and what happens without any."""

import json
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.errors import RequestError
from tests.bad_input.faults import Damage, Fault, both_backends, check, each
from tests.bad_input.files import copy_pair, edit_json

CONFIG, GENERATION, NAMES = "config.json", "generation_config.json", "tokenizer_config.json"
PLACES = ["outer", "inner", "generation"]  # of config.json, of its text_config, the other file
PROMPT = [2, 72, 101]


def without_ends(target: Path) -> None:
    """No file names a token that ends a reply any more."""

    def forget(top: dict) -> None:
        top.pop("eos_token_id", None)
        top["text_config"].pop("eos_token_id", None)

    edit_json(target / CONFIG, forget)
    edit_json(target / GENERATION, lambda top: top.pop("eos_token_id", None))
    edit_json(target / NAMES, lambda top: top.update(eos_token="none", eot_token="none"))


def named(place: str, ids: object) -> Damage:
    """`ids` in one place alone."""

    def damage(target: Path, drafter: Path) -> None:
        without_ends(target)
        path = target / (GENERATION if place == "generation" else CONFIG)
        top = json.loads(path.read_text())
        (top["text_config"] if place == "inner" else top)["eos_token_id"] = ids
        path.write_text(json.dumps(top))

    return damage


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("is_list", [True, False])
def test_a_reply_ends_at_the_token_that_any_file_names(is_list, place, tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    without_ends(target)
    reply = mtp_mlx.load(target, draft_model=None).generate(PROMPT, max_tokens=6, temperature=0)
    end = reply.token_ids[2]
    named(place, [end, 7] if is_list else end)(target, drafter)
    llm = mtp_mlx.load(target, draft_model=drafter)
    cut = llm.generate(PROMPT, temperature=0, num_draft_tokens=2)
    assert cut.token_ids == reply.token_ids[: reply.token_ids.index(end) + 1]
    assert cut.finish_reason == "stop"


@both_backends
@each(
    [
        Fault(f"{place}_{ids}", named(place, ids), ("eos_token_id", "token ids from 0 to 255"))
        for place in PLACES
        for ids in (256, [1, 256], -1, [True], "1", [[1]], 1.0)
    ]
)
def test_an_end_that_is_no_token_is_refused_by_key(fault, backend, tmp_path):
    """MLX checks no index: an id past the table would read memory beside it."""
    check(fault, tmp_path, backend=backend)


def test_an_end_of_the_tokenizer_past_the_table_is_refused(tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    without_ends(target)
    added = {"id": 256, "content": "<end>", "special": True, "single_word": False,
             "lstrip": False, "rstrip": False, "normalized": False}  # fmt: skip
    edit_json(target / "tokenizer.json", lambda top: top["added_tokens"].append(added))
    edit_json(target / NAMES, lambda top: top.update(eos_token="<end>"))
    with pytest.raises(RequestError, match=r"eos ids of the tokenizer.*256"):
        mtp_mlx.load(target, draft_model=None)


@both_backends
def test_without_any_end_a_reply_needs_max_tokens(backend, tmp_path):
    target, _ = copy_pair(tmp_path, "31b")
    without_ends(target)
    llm = mtp_mlx.load(target, draft_model=None, backend=backend)
    with pytest.raises(RequestError, match="a token that ends a reply; give max_tokens") as caught:
        llm.generate(PROMPT)
    assert caught.value.param == "max_tokens"
    reply = llm.generate(PROMPT, max_tokens=5, temperature=0)
    assert (len(reply.token_ids), reply.finish_reason) == (5, "length")
