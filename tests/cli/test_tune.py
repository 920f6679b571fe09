"""`mtp-mlx tune`: figures of both built-in pairs, kept for later loads or refused with a reason."""

import json
import os
import random
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx import calibration_file, tuning
from mtp_mlx.calibration_file import VARIABLE
from mtp_mlx.embedded import NAMES
from mtp_mlx.engine import calibrate, calibrated, runtime
from mtp_mlx.engine.calibrated import Calibrated
from tests.api_pairs import loaded
from tests.machine import TickingClock
from tests.test_calibration_file import CALIBRATION

QUICK = ("--rows", 1, "--max-seconds", 5)
COUNTS = [1, 2, 4, 8]
BUSY_MS = random.Random(4).choices((1.0, 3.0, 9.0), k=997)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Calibrations are on and lie here; few points, repeats and texts, every timing is the same,
    and the load itself measures nothing."""
    monkeypatch.setenv(VARIABLE, "on")
    monkeypatch.setattr(calibration_file, "cache_folder", lambda: tmp_path / "kept")
    monkeypatch.setattr(calibrated, "time", TickingClock())
    monkeypatch.setattr(calibrate, "COUNTS", tuple(COUNTS))
    monkeypatch.setattr(runtime, "load_or_calibrate", lambda *_: Calibrated(CALIBRATION))
    monkeypatch.setattr(tuning, "REPEATS", 3)
    monkeypatch.setattr(tuning, "TEXT_TOKENS", 4)
    monkeypatch.setattr(tuning, "NUM_TEXTS", 1)
    return tmp_path / "kept"


@pytest.fixture
def busy(monkeypatch) -> None:
    """Other programs run beside it."""
    monkeypatch.setattr(calibrated, "time", TickingClock(*BUSY_MS))


@pytest.mark.parametrize("name", NAMES)
def test_the_built_in_pairs_are_measured_and_kept(cli, folder, monkeypatch, name):
    answer = cli("tune", name, *QUICK, "--json")
    assert (answer.code, answer.err) == (0, "")
    body = answer.body
    assert [point["tokens"] for point in body["curve"]] == COUNTS
    assert body["verify"] == [[point["tokens"], point["seconds"]] for point in body["curve"]]
    assert all(point["seconds"] > 0 for point in body["curve"])
    assert min(body["draft_depth_s"], body["draft_token_s"], body["host_s"]) >= 0
    assert (body["spread"] <= body["spread_limit"], body["num_slots"]) == (True, 1)
    assert (body["experts"] is not None) == (name == "tiny-moe")
    assert [score["position"] for score in body["positions"]] == ["length", "length - 1"]
    assert body["positions"][0]["drafted"][0] > 0
    assert body["better_position"] in ("length", "length - 1")
    assert body["draft_model"] == f"{name}-assistant"
    assert set(body["machine"]) == set(calibration_file.Key.__dataclass_fields__)
    assert (body["stored"], body["refused"]) == (str(folder / os.listdir(folder)[0]), None)
    monkeypatch.setattr(runtime, "load_or_calibrate", calibrated.load_or_calibrate)
    with mtp_mlx.load(name, max_num_seqs=1) as llm:
        found = llm._worker.call(lambda runtime, _: runtime.calibration)
    assert [list(pair) for pair in found.verify] == body["verify"]
    assert found.repeats == 3


def test_text_output_is_a_table_with_a_plot_and_the_figures(cli, folder):
    answer = cli("tune", "tiny-moe", *QUICK)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["N", "ms", "of", "N", "=", "1", "spread"]
    assert [int(line.split()[0]) for line in lines[1 : 1 + len(COUNTS)]] == COUNTS
    assert all(set(line.split()[-1]) <= set("█▏▎▍▌▋▊▉#") for line in lines[1 : 1 + len(COUNTS)])
    labels = ("machine", "timings", "host", "draft step", "experts", "at length", "better", "kept")
    for label in labels:
        assert any(line.startswith(label) for line in lines), label
    assert lines[-1].endswith(str(folder / os.listdir(folder)[0]))


def test_the_plot_needs_no_unicode(cli, monkeypatch):
    from mtp_mlx.cli import tune

    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr(tune.sys, "stdout", Ascii())
    assert tune._bar(1.0) == "#" * tune.BAR_WIDTH
    assert tune._bar(0.0) == "#"


@pytest.mark.parametrize("rest", [(), ("--json",)])
def test_a_busy_machine_shows_the_spread_and_keeps_nothing(cli, folder, busy, rest):
    answer = cli("tune", "tiny", *QUICK, *rest)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert answer.err.startswith("mtp-mlx: not kept: timings scatter by ")
    assert "more than 20%" in answer.err and "--force" in answer.err
    assert not folder.exists()
    if not rest:
        assert "spread" in answer.out and "kept" not in answer.out
        return
    assert answer.body["spread"] > answer.body["spread_limit"]
    assert (answer.body["stored"], answer.body["refused"] in answer.err) == (None, True)


def test_force_keeps_what_a_busy_machine_measured(cli, folder, busy):
    answer = cli("tune", "tiny", *QUICK, "--force", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.body["spread"] > answer.body["spread_limit"]
    assert len(os.listdir(folder)) == 1


def test_a_folder_that_cannot_be_written_loses_no_figures(cli, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(calibration_file, "cache_folder", lambda: tmp_path / "file" / "kept")
    answer = cli("tune", "tiny", *QUICK, "--json")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "cannot be written" in answer.err
    assert (answer.body["stored"], len(answer.body["curve"])) == (None, len(COUNTS))


def test_where_calibrations_are_off_figures_are_shown_and_not_kept(cli, folder, busy, monkeypatch):
    """Nothing was to be kept, so that the scatter of a busy machine is no fault, and --force, which
    would not help, is not named."""
    monkeypatch.setenv(VARIABLE, "off")
    answer = cli("tune", "tiny", *QUICK)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.endswith("no, MTP_MLX_CALIBRATION is off\n")
    assert not folder.exists()


@pytest.fixture
def asked(monkeypatch) -> dict:
    """What the measurement is asked for; it ends at once."""
    seen = {}

    def measure(bench, budget_s, repeats, progress):
        seen.update(rows=bench.num_slots, budget_s=budget_s)
        raise mtp_mlx.RequestError("enough")

    monkeypatch.setattr(runtime, "measure", measure)
    return seen


@pytest.mark.parametrize(
    ("options", "rows", "budget_s"),
    [(("--max-seconds", 7.5, "--rows", 2), 2, 7.5), ((), 8, 60.0)],
)
def test_the_options_reach_the_measurement_and_have_defaults(cli, asked, options, rows, budget_s):
    assert cli("tune", *options).code == 2
    assert asked == {"rows": rows, "budget_s": budget_s}


def test_help_names_the_defaults(cli):
    said = " ".join(cli("tune", "--help").out.split())
    assert "[default: 8;" in said and "[default: 60.0;" in said


def test_a_model_without_a_drafter_is_refused(cli):
    answer = cli("tune", "tiny", "--draft-model", "none", "--json")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "no drafter" in answer.err and "--draft-model" in answer.err
    assert json.loads(answer.out)["error"]["param"] == "draft_model"


def test_the_reference_is_not_tuned():
    with pytest.raises(mtp_mlx.Unsupported, match="not tuned"):
        tuning.tune(loaded("31b", max_num_seqs=1, backend="numpy"))


@pytest.mark.parametrize(
    "arguments",
    [["--rows", "0"], ["--rows", "65"], ["--max-seconds", "-1"], ["--max-seconds", "nan"]],
)
def test_wrong_usage_exits_with_2(cli, arguments):
    answer = cli("tune", *arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)


def test_a_model_that_is_not_there_exits_with_5(cli):
    answer = cli("tune", "tinny")
    assert (answer.code, answer.err.count("\n")) == (5, 1)
