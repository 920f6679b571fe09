"""What `doctor` finds on this machine, and on one where something is wrong."""

import mlx.core as mx
import pytest

from mtp_mlx import calibration_file, proof_file
from mtp_mlx.api import load
from mtp_mlx.backends import find_pair, open_pair
from mtp_mlx.doctor import Check, examine, is_sound, pair, system
from mtp_mlx.engine import calibrated, runtime
from mtp_mlx.engine.calibrated import Calibrated, key_of
from tests.api_pairs import runtime_of
from tests.test_calibration_file import CALIBRATION


def by_id(checks: list[Check]) -> dict[str, Check]:
    assert len({check.id for check in checks}) == len(checks)
    return {check.id: check for check in checks}


def found(model: str = "tiny", draft_model: str = "auto", **options) -> dict[str, Check]:
    return by_id(examine(model, draft_model, **options))


def test_this_machine_is_sound():
    checks = examine("tiny", "auto")
    assert is_sound(checks)
    named = by_id(checks)
    for name in ("python", "mlx", "packages", "native-python", "rows", "fit", "drafter", "dtype"):
        assert named[name].ok, named[name]
    assert {check.severity for check in checks} == {"error", "warning", "info"}
    assert all(check.observed for check in checks)
    assert all(check.fix for check in checks if not check.ok)


def test_only_a_level_that_verify_showed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration_file, "cache_folder", lambda: tmp_path)
    before = found()["exactness"]
    assert (before.ok, before.severity, before.fix) == (False, "info", "mtp-mlx verify tiny")
    monkeypatch.setenv(calibration_file.VARIABLE, "on")
    checkpoint = open_pair(find_pair("tiny", "auto"))
    key = key_of((checkpoint.target, checkpoint.drafter), mx.float32)
    proof_file.keep(tmp_path, key, proof_file.Kept("C", 64, has_fault=False))
    after = found()["exactness"]
    assert after.ok and after.observed.startswith("level C, ") and "64 texts" in after.observed
    assert not found(draft_model="none")["exactness"].ok  # another pair
    [file] = tmp_path.glob("verify-*.json")
    for damaged in ("", "[]", "{}", file.read_text().replace('"cases": 64', '"cases": "64"')):
        file.write_text(damaged)
        assert not found()["exactness"].ok


def test_differences_that_verify_found_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration_file, "cache_folder", lambda: tmp_path)
    kept = proof_file.Kept(None, 64, has_fault=True)
    monkeypatch.setattr(proof_file, "last", lambda *_: kept)
    checks = examine("tiny", "auto")
    assert not is_sound(checks)
    assert "differences" in by_id(checks)["exactness"].observed


def test_a_calibration_that_is_kept_is_found(tmp_path, monkeypatch):
    assert "is off" in found()["calibration"].observed
    monkeypatch.setenv(calibration_file.VARIABLE, "on")
    monkeypatch.setattr(calibration_file, "cache_folder", lambda: tmp_path)
    missing = found()["calibration"]
    assert (missing.ok, missing.severity, missing.fix) == (False, "info", "mtp-mlx tune tiny")
    monkeypatch.setattr(runtime, "load_or_calibrate", lambda *_: Calibrated(CALIBRATION))
    with load("tiny") as llm:
        path = runtime_of(llm).keep_calibration(CALIBRATION)
    kept = found()["calibration"]
    assert kept.ok
    assert str(path) in kept.observed
    monkeypatch.setattr(calibrated, "device_name", lambda: "another chip")
    assert not found()["calibration"].ok


def test_a_model_that_does_not_fit_or_is_not_here(monkeypatch):
    wide = examine("31b-4bit", "auto", memory_limit="8GB")
    assert not is_sound(wide)
    assert by_id(wide)["fit"].observed.endswith("of 31b-4bit")
    absent = examine("no-such-model", "auto")
    assert not is_sound(absent)
    assert "no such model" in by_id(absent)["model"].observed


def test_bfloat16_on_cpu_is_slow():
    assert not found(dtype="bfloat16")["dtype"].ok
    assert is_sound(examine("tiny", "auto", dtype="bfloat16"))


def test_without_a_drafter_it_says_so():
    assert not found(draft_model="none")["drafter"].ok


@pytest.mark.parametrize("name", ["LD_PRELOAD", "DYLD_INSERT_LIBRARIES"])
def test_another_blas_is_named(monkeypatch, name):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert found()["blas-preload"].ok
    monkeypatch.setenv(name, "/usr/lib/libopenblas.so.0")
    preload = found()["blas-preload"]
    assert (preload.ok, preload.severity) == (False, "warning")
    assert preload.observed == f"{name}=/usr/lib/libopenblas.so.0"
    monkeypatch.setenv(name, "/usr/lib/libjemalloc.so")
    assert found()["blas-preload"].ok


def test_rows_that_differ_are_seen(monkeypatch):
    monkeypatch.setattr(pair.mx, "array_equal", lambda *_: False)
    rows = found()["rows"]
    assert (rows.ok, rows.observed) == (False, "they differ: float32, 4 bits")


def test_offline_is_said(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "nothing is fetched" in found()["hub"].observed


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_is_what_the_hubs_library_takes_for_it(monkeypatch, name):
    for each in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(each, raising=False)
    assert found()["hub"].observed == "not offline"
    monkeypatch.setenv(name, "yes")
    assert "nothing is fetched" in found()["hub"].observed


def test_the_limit_that_holds_is_the_one_that_is_named():
    fit = found("31b-4bit", memory_limit="8GB")["fit"]
    assert "--memory-limit" in fit.expected
    assert "75%" not in fit.expected


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file / "below"))
    assert not found()["cache-folder"].ok
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "deep"))
    assert found()["cache-folder"].ok
    assert not (tmp_path / "new").exists()
    monkeypatch.setenv("HF_HUB_CACHE", str(file / "below"))
    assert not found()["hub-folder"].ok
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setattr(system, "cache_folder", lambda: None)
    assert "no home folder" in found()["hub-folder"].observed
    monkeypatch.setattr(system, "config_path", lambda: file / "below" / "config.toml")
    assert not found()["config-folder"].ok


def test_a_mac_that_is_old_translated_hot_and_saves_power(monkeypatch):
    said = {
        ("sysctl", "-n", "sysctl.proc_translated"): "1\n",
        ("pmset", "-g"): " lowpowermode         1\n",
        ("pmset", "-g", "batt"): "Now drawing from 'Battery Power'\n 40%; discharging\n",
        ("pmset", "-g", "therm"): "\tCPU_Speed_Limit \t= 50\n",
    }
    monkeypatch.setattr(system.sys, "platform", "darwin")
    monkeypatch.setattr(system.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(system.platform, "mac_ver", lambda: ("13.6.1", ("", "", ""), "x86_64"))
    monkeypatch.setattr(system.mac, "output_of", lambda *command: said[command])
    named = by_id(system.system_checks())
    for name in ("native-python", "macos", "low-power-mode", "thermal"):
        assert not named[name].ok
    assert named["native-python"].observed == "x86_64, translated by Rosetta"
    assert named["power"].observed == "Battery Power, 40%"
    assert not is_sound(list(named.values()))


def test_a_mac_whose_tools_are_missing_is_not_at_fault(monkeypatch):
    monkeypatch.setattr(system.sys, "platform", "darwin")
    monkeypatch.setattr(system.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(system.platform, "mac_ver", lambda: ("26.5", ("", "", ""), "arm64"))
    monkeypatch.setattr(system.mac, "output_of", lambda *command: None)
    named = by_id(system.system_checks())
    for name in ("native-python", "macos", "low-power-mode", "thermal"):
        assert named[name].ok


def test_without_mlx_the_rest_is_checked(monkeypatch):
    from mtp_mlx import doctor

    for module in (doctor, system):
        monkeypatch.setattr(module, "has_mlx", lambda: False)
    checks = examine("tiny", "auto")
    assert not is_sound(checks)
    assert not by_id(checks)["mlx"].ok
