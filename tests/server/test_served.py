"""The names of what is served, and the level that it promises."""

from pathlib import Path

import pytest
from openai.types import Model as OpenAIModel

from mtp_mlx import proof_file
from mtp_mlx.backends import Pair
from mtp_mlx.server import served as module
from mtp_mlx.server.served import Served, shown_level
from mtp_mlx.server.wire import objects
from tests.server.wire import served

TINY = served().llm.pair


def test_the_model_fills_every_field_of_the_client():
    found = served().model()
    objects.Model.model_validate(found)
    objects.Models.model_validate(served().models())
    parsed = OpenAIModel.model_validate(found)
    assert (parsed.id, parsed.object, parsed.owned_by) == ("tiny", "model", "mtp-mlx")
    assert found["context_length"] == 4096 and found["draft_model"] == "tiny-assistant"


def test_names_of_the_user_come_first():
    own = served(names=("org/mine",))
    assert own.id == "org/mine" and own.names == ("org/mine", "tiny")
    for name in (None, "org/mine", "tiny", "Tiny", "default", "default_model"):
        own.check_name(name)


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("/mine/secret/gemma-4-mine", ("gemma-4-mine",)),
        (
            "/c/models--mlx-community--gemma-4-e4b-it-4bit/snapshots/abc",
            ("mlx-community/gemma-4-e4b-it-4bit", "gemma-4-e4b-it-4bit", "e4b-4bit"),
        ),
        ("/c/models--google--other/snapshots/abc", ("google/other", "other")),
    ],
)
def test_no_name_tells_where_files_lie(folder, names):
    assert module._names(Path(folder)) == names


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where results of verify are kept; the function keeps one for the built-in pair."""
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    keys = []
    last = proof_file.last
    monkeypatch.setattr(
        proof_file, "last", lambda folder, key: keys.append(key) or last(folder, key)
    )
    shown_level(TINY, None)
    return lambda level, fault=False: proof_file.keep(
        tmp_path, keys[0], proof_file.Kept(level, 9, fault)
    )


def test_the_level_is_what_verify_showed_here(kept):
    assert shown_level(TINY, None) == "A"
    kept("C")
    assert shown_level(TINY, None) == "C"
    assert Served.of(served().llm).exactness == "C"
    assert shown_level(TINY, "bfloat16") == "A", "shown for another type"
    kept(None)
    assert shown_level(TINY, None) == "A"
    kept("B", True)
    assert shown_level(TINY, None) is None


def test_a_pair_that_is_gone_promises_no_more_than_the_least(tmp_path):
    assert shown_level(Pair(tmp_path, None, None), None) == "A"
