"""The law that ragged rows are held to, at its ends too, and what it is not defined for."""

import sys

import pytest

from bench import ragged
from bench.ragged import Law, is_lawful, show


def line(accepted: float, wrong: int = 0) -> dict:
    return {
        "rows": 2, "rounds": 4000, "accepted": accepted, "forwards_per_token": 0.34,
        "wrong": wrong, "of": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("agreement", "mean", "deviation"),
    [(0.8, 1.952, 1.469696**0.5), (0.0, 0.0, 0.0), (1.0, 3.0, 0.0)],
)
def test_the_law_of_three_drafts(agreement, mean, deviation):
    law = Law(agreement, 3)
    assert law.mean == pytest.approx(mean)
    assert law.deviation == pytest.approx(deviation, abs=1e-12)
    assert law.budget(200) >= 2 + 200 * (1 + mean)


@pytest.mark.parametrize(("agreement", "others"), [(0.0, 0.25), (1.0, 2.75)])
def test_where_nothing_is_left_to_chance_the_mean_is_met_exactly(agreement, others, capsys):
    law = Law(agreement, 3)
    assert is_lawful(line(law.mean), law)
    assert not is_lawful(line(others), law)
    show("ours", [line(law.mean), line(others)], law)
    assert [row.split()[4] for row in capsys.readouterr().out.splitlines()[3:]] == [
        "+0.0",
        "+inf" if others > law.mean else "-inf",
    ]


def test_within_three_standard_errors_and_no_row_wrong():
    law = Law(0.8, 3)
    error = law.deviation / 4000**0.5
    assert is_lawful(line(law.mean + 2.9 * error), law)
    assert not is_lawful(line(law.mean - 3.1 * error), law)
    assert not is_lawful(line(law.mean, wrong=1), law)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("agreement", "1.01"),
        ("agreement", "-0.1"),
        ("agreement", "nan"),
        ("rounds", "0"),
        ("peer-tokens", "40"),
    ],
)
def test_what_has_no_law_is_refused_in_one_line(option, value, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ragged", f"--{option}={value}"])
    monkeypatch.setattr(ragged, "ours", lambda *_: pytest.fail("it has begun"))
    with pytest.raises(SystemExit) as left:
        ragged.main()
    said = capsys.readouterr()
    assert (left.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"--{option}" in said.err
