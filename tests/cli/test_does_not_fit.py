"""A model that is too large for this machine is one line that says so, and exit code 4."""

import pytest

from mtp_mlx.engine import runtime


@pytest.mark.parametrize("command", [("generate", "Hi"), ("verify",), ("tune",)])
def test_what_is_needed_and_there_is_said_in_one_line(cli, monkeypatch, command):
    monkeypatch.setattr(runtime, "available_memory", lambda: 20_000_000)
    answer = cli(*command)
    assert (answer.code, answer.out, answer.err.count("\n")) == (4, "", 1)
    assert "are needed and 20.00 MB are there (weights 4.9" in answer.err
    assert "max_num_seqs" in answer.err
