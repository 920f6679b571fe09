"""A27: a model that is too large is refused before its weights are read, part by part; code 4."""

import pytest

from mtp_mlx.engine import runtime

THERE = 20_000_000
TABLE = ("weights 4.97 MB", "drafter 0.71 MB", "windows of", "a step's work", "margin")


@pytest.fixture(autouse=True)
def unread(monkeypatch):
    """No weight may be read."""
    for name in ("load_target", "load_drafter"):
        monkeypatch.setattr(runtime, name, lambda *_: pytest.fail("weights were read"))


@pytest.mark.parametrize("command", [("generate", "Hi"), ("verify",), ("tune",), ("demo",)])
def test_a_machine_that_is_too_small(cli, monkeypatch, command):
    monkeypatch.setattr(runtime, "available_memory", lambda: THERE)
    answer = cli(*command)
    assert (answer.code, answer.err.count("\n")) == (4, 1)
    for part in (*TABLE, "20.00 MB are there"):
        assert part in answer.err


@pytest.mark.parametrize("command", [("generate", "Hi"), ("verify",), ("tune",)])
@pytest.mark.parametrize("limit", ["20MB", str(THERE)])
def test_a_limit_that_is_too_small(cli, command, limit):
    answer = cli(*command, "--memory-limit", limit)
    assert (answer.code, answer.out, answer.err.count("\n")) == (4, "", 1)
    assert "20.00 MB are there" in answer.err


def test_fit_says_the_same_without_reading_anything(cli):
    plan = cli("fit", "tiny", "--memory-limit", "20MB", "--load")
    assert (plan.code, plan.err.count("\n")) == (4, 1)
    for name in ("weights", "drafter", "sliding K/V", "full K/V", "margin", "needed"):
        assert f"\n{name} " in plan.out
