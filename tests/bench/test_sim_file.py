"""Files of regimes: odd ones that are meant, and hostile ones, which end in one line and code 2."""

import json
import sys
from pathlib import Path

import pytest

from bench import policy_sim, sim_file

REGIME = {
    "name": "small",
    "verify": [[1, 1.0], [8, 1.6]],
    "d0": 0.03,
    "d1": 0.01,
    "host": 0.05,
    "noise": 0.0,
    "drift": 0.0,
    "k_max": 2,
    "rows": [{"arrive": 0, "tokens": 12, "phases": [[20, [0.9]]]}],
}
SHORTENED = 300  # characters of a line that a person still reads


def text_of(**entries: object) -> str:
    return json.dumps([REGIME | entries])


def write(folder: Path, text: str) -> Path:
    path = folder / "regimes.json"
    path.write_text(text, encoding="utf-8")
    return path


HOSTILE = {
    "a number beyond floats": (text_of(d0=10**400), "d0: an integer of 1329 bits is not a number"),
    "a cost beyond floats": (text_of(verify=[[1, 1.0], [2, 10**400]]), "verify at 2: an integer"),
    "5000 digits": (text_of(d0=0).replace('"d0": 0', f'"d0": {"9" * 5000}'), "digits"),
    "a count beyond floats": (text_of(k_max=10**400), "k_max: an integer of 1329 bits"),
    "an infinite N": (
        text_of(verify=[[1, 1.0], [2, 2.0]]).replace("[2, 2.0]", "[1e999, 2]"),
        "verify: inf is not a whole number",
    ),
    "a long value": (text_of(noise="a" * 10_000), "noise: 'aaa"),
    "a name of two lines": (text_of(name="a\nb"), "name is 'a\\nb', not a text"),
    "half a character as name": (text_of(name="\ud800"), "not a text"),
    "a key of two lines": (text_of(**{"a\nb": 1}), "a\\nb is unknown"),
}


@pytest.mark.parametrize("bad", HOSTILE)
def test_a_hostile_file_ends_in_one_short_line_and_code_2(bad, tmp_path, capsys, monkeypatch):
    text, message = HOSTILE[bad]
    monkeypatch.setattr(sys, "argv", ["policy_sim", "--regimes", str(write(tmp_path, text))])
    assert policy_sim.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and message in said.err
    assert len(said.err) < SHORTENED + len(str(tmp_path))


def test_a_phase_may_last_for_ever(tmp_path):
    rows = [{"arrive": 0, "tokens": 12, "phases": [[10**9, [0.9]], [10**30, [0.1]]]}]
    (case,) = sim_file.read(write(tmp_path, text_of(rows=rows)))
    assert case.rows[0].phases == ((10**9, (0.9,)), (10**30, (0.1,)))
    assert case.rows[0].rates_at(10**9) == (0.1,)


def test_whole_numbers_may_be_spelled_as_floats(tmp_path):
    rows = [{"arrive": 0, "tokens": 12.0, "phases": [[20.0, [1]]]}]
    text = text_of(verify=[[1.0, 1.0], [8.0, 1.6]], k_max=2.0, rows=rows)
    (case,) = sim_file.read(write(tmp_path, text))
    (plain,) = sim_file.read(write(tmp_path, text.replace(".0,", ",").replace("2.0", "2")))
    assert case == plain
    assert case.machine.verify == ((1, 1.0), (8, 1.6))
    assert type(case.rows[0].tokens) is int
