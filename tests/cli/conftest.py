"""The command line in this process."""

import os
import signal

import pytest

from mtp_mlx.cli.main import main
from tests.cli.answer import Answer


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs the command line, without stdin, and gives its exit code and output."""

    def call(*arguments: object) -> Answer:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(left.value.code, captured.out, captured.err)

    before = signal.getsignal(signal.SIGINT)
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield call
    signal.signal(signal.SIGINT, before)  # main ignores it on its way out
