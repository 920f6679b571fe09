"""Chats on disk."""

import json
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_mlx.chat.conversation import Conversation, Turn
from mtp_mlx.chat.saved import LIMIT_BYTES, Chats, Place, Saved
from mtp_mlx.errors import RequestError

TEXT = st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates too
TURNS = st.builds(
    Turn,
    user=TEXT,
    reply=TEXT,
    finish_reason=st.sampled_from(["stop", "length", "error", "cancelled"]),
    model=TEXT,
    seed=st.integers(0, 2**63 - 1),
    reasoning=TEXT,
)
TALKS = st.builds(
    Conversation,
    system=st.none() | TEXT,
    turns=st.lists(TURNS, max_size=4).map(tuple),
    unanswered=st.none() | TEXT,
)
SAVED = Saved(Conversation("be kind", (Turn("hi", "hello"),)), "tiny", "auto")


@pytest.fixture
def chats(tmp_path) -> Chats:
    return Chats(tmp_path / "data" / "chats")


@settings(derandomize=True, deadline=None, max_examples=60)
@given(TALKS)
def test_what_was_kept_is_read_again(tmp_path_factory, talk):
    chats = Chats(tmp_path_factory.mktemp("chats"))
    place = chats.write(Place("one"), Saved(talk, "tiny", "none"))
    assert chats.read("one") == (Saved(talk, "tiny", "none"), place)


def test_a_file_is_its_owners_alone(chats):
    place = chats.write(Place("one"), SAVED)
    chats.write(place, SAVED)
    assert stat.S_IMODE(chats.path("one").stat().st_mode) == 0o600
    assert stat.S_IMODE(chats.folder.stat().st_mode) == 0o700
    assert [path.name for path in chats.folder.iterdir()] == ["one.jsonl"]


def test_a_write_that_fails_leaves_the_chat_as_it_was(chats, monkeypatch):
    place = chats.write(Place("one"), SAVED)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        chats.write(place, Saved())
    assert chats.read("one") == (SAVED, place)
    assert [path.name for path in chats.folder.iterdir()] == ["one.jsonl"]


def test_a_chat_that_somebody_else_changed_is_not_overwritten(chats):
    mine = chats.write(Place("one"), SAVED)
    other = Saved(Conversation(turns=(Turn("other", "words"),)))
    chats.write(mine, other)
    moved = chats.write(mine, SAVED)
    assert moved.name != "one"
    assert chats.read("one")[0] == other
    assert chats.read(moved.name)[0] == SAVED


def test_a_new_chat_takes_no_name_that_is_taken(chats):
    names = [chats.write(chats.fresh(), SAVED).name for _ in range(3)]
    assert len(set(names)) == 3
    assert chats.names()[0] == names[-1]


def test_a_chat_takes_another_name_unless_it_is_taken(chats):
    first = chats.write(Place("one"), SAVED)
    second = chats.write(Place("two"), SAVED)
    with pytest.raises(RequestError, match="a chat two already"):
        chats.rename(first, "two")
    third = chats.rename(second, "three")
    assert sorted(chats.names()) == ["one", "three"]
    assert chats.write(third, SAVED).name == "three"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "a b", "x" * 65, "é", "-"])
def test_a_name_cannot_leave_the_folder(chats, name):
    with pytest.raises(RequestError, match="no name of a chat"):
        chats.path(name)


def test_a_chat_that_is_not_there_is_named_with_those_that_are(chats):
    chats.write(Place("one"), SAVED)
    with pytest.raises(RequestError, match="no chat two; saved: one"):
        chats.read("two")


HEAD = json.dumps({"format": "mtp-mlx chat", "version": 1, "system": None})
TURN = {
    "user": "a",
    "reply": "b",
    "finish_reason": "stop",
    "model": "m",
    "seed": 1,
    "reasoning": "",
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: expected a chat, found nothing"),
        ("not json", "line 1: not JSON"),
        ("[1]", "line 1: expected an object"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"format": "x", "version": 1}', "line 1: expected format"),
        ('{"format": "mtp-mlx chat", "version": 2}', "version 1, found"),
        (HEAD.replace("null", "7"), "line 1: system: expected text, found 7"),
        (f"{HEAD}\n{{}}", "line 2: user is missing"),
        (f'{HEAD}\n{{"user": "a"}}\n{{"user": "b"}}', "line 3: expected the end"),
        (f"{HEAD}\n{json.dumps(TURN | {'seed': True})}", "line 2: seed is True"),
        (f"{HEAD}\n{json.dumps(TURN | {'seed': -1})}", "line 2: seed is -1"),
        (f"{HEAD}\n{json.dumps(TURN | {'finish_reason': 'x'})}", "line 2: finish_reason is 'x'"),
        (f"{HEAD}\n{json.dumps(TURN | {'reply': None})}", "line 2: reply is missing"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_the_place(chats, text, words):
    chats.folder.mkdir(parents=True)
    chats.path("bad").write_text(text)
    with pytest.raises(RequestError) as caught:
        chats.read("bad")
    assert words in str(caught.value)
    assert "bad.jsonl" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_huge_file_is_not_read(chats):
    chats.folder.mkdir(parents=True)
    with chats.path("big").open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(RequestError, match="larger than"):
        chats.read("big")
