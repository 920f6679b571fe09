"""Tables of floors: what is computed says so, and a measured share is floor over time."""

import json
import sys

import pytest

from bench import chips, roofline
from bench.models import Choice, configs
from bench.work import Pair
from mtp_mlx.pair_names import SIZES

RUN = {
    "bench": "full_size", "pair": "26b", "storage": "4bit", "drafter": "8bit", "shrink": 16,
    "itemsize": 4,
    "verify": [{"rows": 2, "each": 3, "context": 512, "ms": 4.0, "experts": 20.0}],
    "rounds": [
        {"rows": 2, "drafts": 2, "context": 512, "ms": 8.0, "experts": 20.0},
        {"rows": 2, "drafts": "auto", "context": 512, "ms": 7.0, "experts": 20.0},
    ],
}  # fmt: skip


def run(monkeypatch, capsys, *options: str) -> tuple[list[str], dict]:
    monkeypatch.setattr(sys, "argv", ["roofline", *options])
    roofline.main()
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


def test_floors_of_every_pair(monkeypatch, capsys):
    options = ("--quick", "--batches", "2", "--drafts", "0", "3", "--bandwidth", "100")
    lines, result = run(monkeypatch, capsys, *options)
    assert lines[0].startswith("computed") and len(lines) == 2 + 2 * len(SIZES)
    assert result["is_computed"]
    for line in result["lines"]:
        assert line["floor_ms"] == pytest.approx(line["bytes"] / 100e9 * 1e3)
        assert line["of_plain"] == 1 if line["drafts"] == 0 else line["of_plain"] > 1


def test_neighbours_that_share_all_experts_read_those_of_one_token(monkeypatch, capsys):
    options = ("--quick", "--batches", "1", "--drafts", "0", "3", "--correlation", "1")
    _, result = run(monkeypatch, capsys, *options)
    plain, drafting = (line for line in result["lines"] if line["pair"] == "26b")
    assert drafting["experts"] == plain["experts"] > 0


def test_chips_are_labelled_as_computed(monkeypatch, capsys):
    lines, result = run(monkeypatch, capsys, "--chips")
    assert lines[0].startswith("computed, not measured")
    assert [line["chip"] for line in result["lines"]] == list(chips.BANDWIDTHS)
    plain = {line["chip"]: line["12b"]["plain"] for line in result["lines"]}
    assert plain["M1 Max"] == pytest.approx(2 * plain["M1 Pro"])


def test_a_share_is_the_floor_over_what_was_measured(monkeypatch, capsys, tmp_path):
    file = tmp_path / "run.txt"
    file.write_text(f"a table\n{json.dumps(RUN)}\n", encoding="utf-8")
    _, result = run(monkeypatch, capsys, "--measured", str(file), "--bandwidth", "50")
    forward, drafting = result["lines"]  # a round of `auto` has no one number of drafts
    pair = Pair(*configs(Choice("26b", "4bit", "8bit", 16)), 4)
    assert forward["floor_ms"] == 1e3 * pair.forward(2, 3, 512, 20.0).seconds(50e9)
    assert drafting["floor_ms"] == 1e3 * pair.round(2, 2, 512, 20.0).seconds(50e9)
    assert (forward["share"], drafting["share"]) == (
        forward["floor_ms"] / 4.0, drafting["floor_ms"] / 8.0,
    )  # fmt: skip
    assert not result["is_computed"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--bandwidth", "0"), "--bandwidth is 0"),
        (("--drafts", "8"), "--drafts must be 0 to 7"),
        (("--context", "0"), "--context"),
        (("--correlation", "1.1"), "--correlation is 1.1"),
        (("--measured", "/nowhere/file"), "/nowhere/file"),
        (("--chips", "--bandwidth", "100"), "--bandwidth"),
        (("--chips", "--quick"), "--quick"),
        (("--measured", "/nowhere/file", "--quick"), "--quick"),
        (("--chips", "--measured", "/nowhere/file"), "give one"),
        (("--measured", "/nowhere/file", "--context", "100"), "--context"),
    ],
)
def test_what_makes_no_table_is_refused_in_one_line(options, said, monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, capsys, *options)
    seen = capsys.readouterr()
    assert (left.value.code, seen.out, seen.err.count("\n")) == (2, "", 1)
    assert said in seen.err
