"""What loads a pair tells, on stderr, what is to be known of this machine."""

import pytest

from mtp_mlx.engine import runtime

COMMANDS = {
    "demo": ("demo", "--model", "tiny", "--json"),
    "fit": ("fit", "tiny", "--load", "--ctx", 64),
    "generate": ("generate", "A fox.", "--model", "tiny", "--max-tokens", 2),
    "tune": ("tune", "tiny", "--rows", 1, "--max-seconds", 1),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_machine_without_kernels_is_told_of(cli, monkeypatch, name):
    monkeypatch.setattr(runtime, "check_kernels", lambda: "no kernels")
    answer = cli(*COMMANDS[name])
    assert "mtp-mlx: no kernels" in answer.err.splitlines()[0]
    assert "no kernels" not in answer.out
