"""The simulator: a few cases as regression, files of regimes, and how it refuses bad ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import policy_sim, sim_file, sim_regimes
from bench.sim_machine import Case, Machine, Row
from bench.sim_policy import Policy
from bench.sim_run import Fixed, Result, Simulation, compare

ROOT = Path(__file__).resolve().parents[3]
REGIME = {
    "name": "small",
    "verify": [[1, 1.0], [4, 1.1], [8, 1.6]],
    "d0": 0.03,
    "d1": 0.01,
    "host": 0.05,
    "noise": 0.02,
    "drift": 0.0,
    "k_max": 3,
    "rows": [
        {"arrive": 0, "tokens": 60, "phases": [[20, [0.9]], [20, [0.2, 0.1]]]},
        {"arrive": 10.5, "tokens": 40, "phases": [[40, [0.5]]]},
    ],
}


def result(name: str) -> Result:
    case = next(case for case in sim_regimes.builtin() if case.name == name)
    return compare(case, Policy(case))


# Name, least throughput of plain, least of the best fixed depth. Single cases vary by 2 % with
# their luck, so the bounds lie below the figures in bench/README.md.
REGRESSION = (
    ("m5max_12b_q4/code/1", 2.6, 0.95),
    ("linear/prose/4", 0.98, 0.98),
    ("cuda_pad8/adverse/1", 0.98, 0.98),
    ("m5max_12b_q4/enum+3adverse/4", 1.05, 1.05),
    ("cliff_then_flat/enum/1", 1.9, 0.85),
    ("m5max_12b_q4/short adverse/1", 0.98, 0.98),
)


@pytest.mark.parametrize(("name", "of_plain", "of_fixed"), REGRESSION)
def test_the_policy_does_well_on(name, of_plain, of_fixed):
    found = result(name)
    assert found.over_plain >= of_plain
    assert found.over_best_fixed >= of_fixed


def test_plain_decoding_makes_a_token_a_row_for_a_forward():
    machine = Machine(((1, 1.0), (8, 2.4)), d0=0.1, d1=0.1, host=0.1)
    rows = tuple(Row(f"x/{i}", 0.0, 50, ((50, (0.5,)),)) for i in range(4))
    tally = Simulation(Case("x", machine, rows), Fixed(0), 1.0).run()
    assert tally.tokens == 200
    assert tally.busy == pytest.approx(50 * 1.6)
    assert tally.efficiency == pytest.approx(1)


def test_a_fixed_depth_gains_what_its_acceptance_says():
    machine = Machine(((1, 1.0), (8, 1.0)), d0=0.0, d1=0.0, host=0.0)
    rows = (Row("y/0", 0.0, 20_000, ((1, (0.8,)),)),)
    tally = Simulation(Case("y", machine, rows), Fixed(3), 1.0).run()
    assert tally.efficiency == pytest.approx(2.952, rel=0.02)  # (1 - .8^4) / (1 - .8)


def test_every_policy_meets_the_same_luck():
    case = next(case for case in sim_regimes.builtin() if case.name == "flat_gpu/switch/2")
    first, second = (Simulation(case, Fixed(3), 1.0).run() for _ in range(2))
    assert first == second


def write(folder: Path, content: object) -> Path:
    path = folder / "regimes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_file_of_regimes_is_simulated(tmp_path, capsys, monkeypatch):
    path = write(tmp_path, [REGIME])
    monkeypatch.setattr(sys, "argv", ["policy_sim", "--regimes", str(path), "--json"])
    assert policy_sim.main() == 0
    (figures,) = json.loads(capsys.readouterr().out)
    assert list(figures) == [
        "name",
        "plain",
        "best_fixed",
        "best_fixed_depth",
        "ours",
        "ours_over_plain",
        "ours_over_best_fixed",
    ]
    assert figures["name"] == "small"
    assert figures["ours_over_plain"] == pytest.approx(figures["ours"] / figures["plain"])


def test_our_own_regimes_are_twenty_and_readable():
    cases = sim_file.read(policy_sim.OWN)
    assert len({case.name for case in cases}) == 20


def changed(**entries: object) -> list[dict]:
    return [REGIME | entries]


def row(**entries: object) -> list[dict]:
    return changed(rows=[REGIME["rows"][0] | entries])


BAD = {
    "no JSON": ("[{", "line 1 column"),
    "no list": ({"name": "x"}, "not a list of regimes"),
    "empty": ([], "not a list of regimes"),
    "no object": ([3], "regime 0: 3 is not an object"),
    "missing": ([{k: v for k, v in REGIME.items() if k != "host"}], "regime 0: host is missing"),
    "unknown": (changed(beta=1), "regime 0: beta is unknown"),
    "name": (changed(name=""), "name is '', not a text"),
    "first cost": (changed(verify=[[1, 2.0]]), "verify: the cost at N = 1 is 2.0, not 1.0"),
    "order": (changed(verify=[[1, 1.0], [4, 2], [3, 2]]), "verify: N does not rise"),
    "pair": (changed(verify=[[1, 1.0, 3]]), "is not [N, cost]"),
    "free": (changed(verify=[[1, 1.0], [2, 0]]), "a forward that costs nothing"),
    "negative": (changed(d0=-1), "d0: -1 is not a number from 0 up"),
    "text": (changed(noise="a"), "noise: 'a' is not a number"),
    "depth": (changed(k_max=1.5), "k_max: 1.5 is not a whole number from 0 to 64"),
    "no rows": (changed(rows=[]), "rows: [] is not a list with entries"),
    "tokens": (row(tokens=0), "row 0: tokens: 0 is not a whole number"),
    "phases": (row(phases=[[1]]), "phases: [1] is not [tokens, [a_1, …]]"),
    "acceptance": (row(phases=[[1, [1.2]]]), "an acceptance of 1.2 is above 1"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_file_is_refused_in_one_line_that_names_the_place(bad, tmp_path):
    content, message = BAD[bad]
    with pytest.raises(sim_file.BadRegime) as refused:
        sim_file.read(write(tmp_path, content))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_ends_the_program_with_one_line(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "bench.policy_sim", "--regimes", str(tmp_path / "none.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "none.json" in ended.stderr
