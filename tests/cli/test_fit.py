"""`mtp-mlx fit`: the table, JSON, exit code 4, and the published pairs without their files."""

import sys

import pytest

from mtp_mlx.engine import runtime
from mtp_mlx.pair_names import SIZES

PARTS = ("weights", "drafter", "sliding_kv", "full_kv", "work", "margin")


def test_the_parts_sum_up(cli):
    answer = cli("fit", "tiny", "--ctx", "300", "--batch", "2", "--json")
    assert (answer.code, answer.err) == (0, "")
    body = answer.body
    assert sum(body[part] for part in PARTS) == body["needed"] <= body["limit"]
    assert (body["fits"], body["is_here"], body["rows"], body["context"]) == (True, True, 2, 300)
    assert (body["model"], body["draft_model"]) == ("tiny", "tiny-assistant")
    assert "peak_measured" not in body


@pytest.mark.parametrize("size", SIZES)
def test_every_published_pair_is_planned_without_its_files(cli, monkeypatch, size):
    monkeypatch.setattr(runtime, "available_memory", lambda: 1 << 40)
    answer = cli("fit", f"{size}-4bit", "--batch", "1")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == f"{size}-4bit, float32, from its published shape: it is not here"
    for name in ("weights", "drafter", "sliding K/V", "full K/V", "needed", "peak expected"):
        assert any(line.startswith(name) for line in lines)
    assert lines[-1].startswith("fits: ")


def test_what_does_not_fit_is_exit_code_4_with_the_table(cli):
    answer = cli("fit", "31b-4bit", "--memory-limit", "8GB")
    assert (answer.code, answer.err.count("\n")) == (4, 1)
    assert answer.err.startswith("mtp-mlx: 31b-4bit does not fit: ")
    assert "weights" in answer.out and "fits" not in answer.out
    body = cli("fit", "31b-4bit", "--memory-limit", "8GB", "--json").body
    assert (body["fits"], body["limit"]) == (False, 8 * 10**9)


def test_context_is_8k_or_the_models_longest(cli):
    assert cli("fit", "tiny", "--json").body["context"] == 4096
    assert cli("fit", "e2b-4bit", "--batch", "1", "--json").body["context"] == 8192


def test_faults_are_one_line(cli):
    for arguments, code in (
        (("fit", "absent"), 5),
        (("fit", "tiny", "--ctx", "5000"), 2),
        (("fit", "tiny", "--batch", "0"), 2),
        (("fit", "tiny", "--memory-limit", "lots"), 2),
        (("fit", "e4b-4bit", "--load", "--batch", "1"), 2),
        (("fit", "e4b-4bit", "--draft-model", "here"), 2),
        (("fit", "tiny-moe", "--dtype", "bfloat16"), 2),
    ):
        answer = cli(*arguments)
        assert (answer.code, answer.err.count("\n"), answer.out) == (code, 1, ""), arguments


def test_without_mlx_one_line_names_the_extras(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    answer = cli("fit", "tiny")
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert "mtp-mlx[cpu]" in answer.err
