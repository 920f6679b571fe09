"""Short names and what they stand for."""

import tomllib

import pytest

from mtp_mlx.hub.names import TABLE, alias_for, alias_of, aliases, is_repo_id, repo_ids

SIZES = ["e2b", "e4b", "12b", "26b", "31b"]


def test_all_sizes_have_all_suffixes_and_every_name_is_one_of_a_repository():
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    names = [alias.name for alias in aliases()]
    assert names == [f"{s}{t}" for s in SIZES for t in ("", *(f"-{x}" for x in table["suffixes"]))]
    assert {"e4b-4bit", "12b-8bit", "26b-bf16", "31b-mxfp4"} <= set(names)
    for alias in aliases():
        assert is_repo_id(alias.target)
        assert alias.drafters and all("-it-assistant" in repo_id for repo_id in alias.drafters)
    assert len({alias.target for alias in aliases()}) == len(names)


def test_the_table_says_that_nobody_checked_it():
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    assert table["checked_against_the_hub"] is False
    assert "UNCHECKED" in TABLE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("e4b", "e4b"),
        ("E4B-4bit", "e4b-4bit"),
        ("gemma-4-e4b-4bit", "e4b-4bit"),
        ("gemma-4-E4B-it", "e4b"),
        ("gemma-4-26B-A4B-it-8bit", "26b-8bit"),
        ("26b-a4b", "26b"),
    ],
)
def test_other_spellings_are_understood(spelled, name):
    alias = alias_of(spelled)
    assert alias is not None and alias.name == name


@pytest.mark.parametrize(
    "text", ["", "e4", "e4b-", "e4b-1bit", "e4b/x", "./e4b", "tiny", "e4b-4bit-x", "7b"]
)
def test_anything_else_is_no_short_name(text):
    assert alias_of(text) is None


def test_a_name_stands_for_repositories():
    assert repo_ids("e4b") == ("google/gemma-4-E4B-it",)
    assert repo_ids("12b-8bit") == ("mlx-community/gemma-4-12B-it-8bit",)
    assert repo_ids("e4b-assistant")[0] == "google/gemma-4-E4B-it-assistant"
    assert repo_ids("e4b-4bit-assistant") == repo_ids("e4b-assistant")
    assert repo_ids("org/name") == ("org/name",)
    for no_name in (
        "org/a/b",
        "org/..",
        "../x",
        "/x/y",
        "a b/c",
        "org/a--b",
        "org/",
        "word",
        "a\0/b",
    ):
        assert repo_ids(no_name) == ()


def test_a_repository_is_known_whatever_the_case():
    alias = alias_for("MLX-Community/Gemma-4-e4b-IT-4bit")
    assert alias is not None and alias.name == "e4b-4bit"
    assert alias_for("org/name") is None
