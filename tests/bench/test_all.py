"""`make bench`: no bench is left out of its list, each runs with its smallest sizes and prints JSON
that its headline can be told from, and one that fails is shown as failed."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bench import all as everything
from bench.all import BENCHES, Bench, Outcome, last_json, run, summary
from bench.headlines import HEADLINES, headline
from bench.peers.bars import WITHIN
from mtp_mlx.measure.figures import WITHIN_NOISE

FOLDER = Path(everything.__file__).parent
SMOKES = [bench for bench in BENCHES if bench.smoke is not None]


def has_main(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in body)


def test_every_bench_is_in_the_list():
    mains = {path.stem for path in FOLDER.glob("*.py") if has_main(path)} - {"all"}
    listed = {bench.name for bench in BENCHES if bench.module.startswith("bench.")}
    assert mains == listed


# It starts three servers, which takes too long for the default suite.
SERVE = Bench("bench.serve", "", "--clients 1 --requests 1 --repeats 1")
LONG = pytest.param(SERVE, marks=[pytest.mark.slow, pytest.mark.timeout(400)])


@pytest.mark.parametrize("bench", [*SMOKES, LONG], ids=lambda bench: bench.name)
def test_a_bench_runs_with_its_smallest_sizes(bench, monkeypatch, capsys):
    module, *arguments = bench.words(is_smoke=True)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        import_module(module).main()  # its verdict is about sizes that say nothing
    except SystemExit as left:
        assert left.code in (None, 0, 1, False, True)
    result = last_json(capsys.readouterr().out)
    assert result["machine"]["mlx"] and "commit" in result["machine"]
    assert headline(bench.name, result) or bench.name not in HEADLINES


@pytest.mark.parametrize(
    ("output", "found"),
    [('table\n{"a": 1}\n', {"a": 1}), ("table\n", None), ("", None), ("[]\nlater", None)],
)
def test_the_last_line_is_the_result(output, found):
    assert last_json(output) == found


def test_a_bench_that_fails_or_prints_no_json_is_shown():
    failed = run(Bench("bench.rounds", "--no-such-option"), is_smoke=False)
    assert (failed.exit_code, failed.result, failed.is_right) == (2, None, False)
    assert failed.command == "python -m bench.rounds --no-such-option"
    lost = Outcome(
        "auto", "python -m bench.auto", 60.4, 1, {"cases": [{"over_plain": {"ratio": 0.9}}]}
    )
    assert not lost.is_right
    lines = summary([failed, lost]).splitlines()
    assert lines[0].split() == ["bench", "s", "exit", "came", "to"]
    assert "2, no JSON" in lines[1]
    assert " ".join(lines[2].split()) == "auto 60 1 auto over plain: 0.90 to 0.90"


def test_the_whole_run_ends_with_a_table_and_a_line_of_json_each():
    command = [sys.executable, "-m", "bench.all", "--smoke", "--only", "draft_step", "fit_table"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    bodies = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [body.get("name", "machine") for body in bodies] == [
        "machine",
        "draft_step",
        "fit_table",
    ]
    assert bodies[0]["machine"]["mlx"] and bodies[0]["seconds"] > 0
    assert bodies[1]["command"] == "python -m bench.draft_step --repeats 1"
    assert len(bodies[1]["result"]["lines"]) == 2
    assert "a draft step over a plain step: tiny" in done.stdout


def test_a_bench_without_a_smoke_is_refused_and_not_passed_over():
    command = [sys.executable, "-m", "bench.all", "--smoke", "--only", "serve", "fit_table"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--smoke: serve takes minutes even so" in done.stderr


def test_a_headline_tells_no_ratio_that_is_noise():
    lines = [{"over_plain": None}, {"over_plain": {"ratio": None}}, {"over_plain": {"ratio": 1.5}}]
    told = headline("mtp_mlx", {"decode": lines})
    assert told == f"over plain: 1.50 to 1.50, 1 of 2 {WITHIN_NOISE}"


RATIO = {"ratio": 2.0, "lowest": 1.9, "highest": 2.1}
NOISE = {"ratio": None, "lowest": 0.9, "highest": 1.1}
CASE = {
    "bars": [
        {"is_met": True, "verdict": "met"},
        {"is_met": True, "verdict": WITHIN},
        {"is_met": False, "verdict": "missed"},
    ],
    "lines": [
        {"variant": "mlx-lm plain", "decode_over_base": None},
        {"variant": "mtp-mlx plain", "decode_over_base": RATIO},
        {"variant": "mtp-mlx auto", "decode_over_base": NOISE},
        {"variant": "mtp-mlx 3", "decode_over_base": RATIO},
    ],
}


def test_bars_that_are_met_are_counted_with_the_ratios_behind_them():
    told = headline("side_by_side", {"engines": {"mlx-lm": {}}, "cases": [CASE]})
    bars = "2 of 3 bars met (1 within the spread)"
    assert told == f"{bars}; over mlx-lm: plain 2.00 to 2.00; auto 1 of 1 {WITHIN_NOISE}"
    for engines in ({"mlx-lm": None}, {}):
        alone = headline("side_by_side", {"engines": engines, "cases": [CASE]})
        assert alone == f"{bars}; rivals absent"


def test_headlines_of_what_takes_too_long_for_a_smoke():
    fitted = {"sliding_ms": 0.014, "full_ms_steps": None, "both_ms_steps": 1.0}
    told = headline("growth", {"fitted": fitted, "faults": ["rings grow"]})
    assert told == "exponents of time: sliding 0.01, full none, both 1.00; 1 faults"
    rounds = [{"drafts": drafts, "over_plain": RATIO} for drafts in (1, "auto")]
    told = headline("full_size", {"pair": "26b", "shrink": 16, "rounds": rounds})
    assert told == "26b, shrunken by 16: auto over plain: 2.00 to 2.00"


def test_chips_have_a_headline_that_says_computed():
    bench = next(bench for bench in BENCHES if bench.name == "roofline")
    result = run(bench, is_smoke=False).result
    assert headline("roofline", result).startswith("computed, 12b 4bit, M1 to ")
