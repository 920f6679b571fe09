"""A pair of the hub's cache goes by its repositories' names, wherever it is shown."""

import json

import pytest

from mtp_mlx.cli.chat import proposed_model
from mtp_mlx.engine import runtime
from mtp_mlx.errors import ModelNotFound
from mtp_mlx.estimate import find_subject
from tests.hub.server import DRAFTER, TARGET
from tests.hub.test_cache import A, B, snapshot


@pytest.fixture
def pair(cache):
    snapshot(cache, TARGET, A)
    snapshot(cache, DRAFTER, B, "tiny-assistant")


def test_fit_and_doctor_name_the_repositories(cli, pair):
    body = cli("fit", "e4b-4bit", "--json").body
    assert (body["model"], body["draft_model"], body["is_here"]) == (TARGET, DRAFTER, True)
    checks = {each["id"]: each for each in cli("doctor", "e4b-4bit", "--json").body["checks"]}
    assert checks["drafter"]["observed"] == DRAFTER
    assert checks["fit"]["observed"].endswith(f"of {TARGET}")


def test_a_kept_chat_names_the_repository(cli, pair, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    message = tmp_path / "message"
    message.write_text("Hi")
    with message.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert cli("chat", "e4b-4bit", "--session", "one", "-m", "2").code == 0
    [kept] = tmp_path.rglob("one.jsonl")
    assert json.loads(kept.read_text().splitlines()[1])["model"] == TARGET


def test_a_chat_takes_the_best_pair_that_fits_and_is_here(cache, pair, monkeypatch):
    monkeypatch.setattr(runtime, "available_memory", lambda: 1 << 40)
    assert proposed_model("mlx", None) == "e4b-4bit"  # 26b-4bit fits too, and is not here
    assert proposed_model("mlx", "2GB") == "tiny"
    snapshot(cache, "mlx-community/gemma-4-12B-it-4bit", A)
    assert proposed_model("mlx", None) == "12b-4bit"


def test_a_repository_of_the_table_is_planned_before_it_is_here(cache, cli, monkeypatch):
    monkeypatch.setattr(runtime, "available_memory", lambda: 1 << 40)
    for name in (TARGET, TARGET.upper(), "google/gemma-4-E4B-it"):
        assert not cli("fit", name, "--batch", "1", "--json").body["is_here"]


def test_a_drafter_that_is_not_here_is_what_fails(pair):
    with pytest.raises(ModelNotFound, match="nosuch"):
        find_subject("e4b-4bit", "nosuch")
