"""Which calibration a load uses: the kept one where it still holds, else a new one, kept."""

import os
import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import mtp_mlx
from mtp_mlx import calibration_file, engine
from mtp_mlx.calibration_file import VARIABLE, read, write
from mtp_mlx.engine import calibrated
from mtp_mlx.engine.calibrate import calibrate
from mtp_mlx.engine.calibrated import (
    LOAD_REPEATS,
    LOAD_ROWS,
    MAX_SPREAD,
    Calibrated,
    load_or_calibrate,
)
from tests.api_pairs import folders, runtime_of
from tests.machine import FakeBench, TickingClock
from tests.test_calibration_file import KEY


@dataclass
class FakeSource:
    """See engine.calibrated.Source; `factor` is how slow the machine is, `draft_factor` how slow
    the drafter besides, `jitter` how uneven all is."""

    factor: float = 1.0
    draft_factor: float = 1.0
    jitter: float = 0.0
    num_slots: int = 4
    has_files: bool = True
    benches: list[FakeBench] = field(default_factory=list)

    def key(self):
        if not self.has_files:
            raise FileNotFoundError(2, "No such file or directory", "config.json")
        return KEY

    def bench(self, num_slots: int) -> FakeBench:
        noise = random.Random(3)
        self.benches.append(
            FakeBench(
                num_slots,
                depth_ms=1.5 * self.draft_factor,
                token_ms=0.25 * self.draft_factor,
                noise=lambda trial: self.factor * noise.uniform(1, 1 + self.jitter),
            )
        )
        return self.benches[-1]

    @property
    def counts(self) -> set[int]:
        """The token counts that the last load timed."""
        return {call[1] for call in self.benches[-1].calls if call[0] == "verify"}


CHECKED = {1, 4, 8}


def used(source: FakeSource, folder: Path) -> Calibrated:
    return load_or_calibrate(source, lambda: folder)


def test_the_first_load_measures_and_keeps_and_the_second_times_three_points(tmp_path):
    first = FakeSource()
    fresh = used(first, tmp_path)
    assert fresh.note is None
    assert first.counts > CHECKED
    assert fresh.calibration.repeats == LOAD_REPEATS
    assert os.listdir(tmp_path) == [KEY.file_name]
    second = FakeSource()
    assert used(second, tmp_path) == fresh
    assert second.counts == CHECKED


@pytest.mark.parametrize(
    ("factor", "holds"), [(1.1, True), (0.9, True), (1.2, False), (0.8, False)]
)
def test_a_kept_one_that_is_off_by_more_than_15_percent_is_replaced(tmp_path, factor, holds):
    old = used(FakeSource(), tmp_path).calibration
    source = FakeSource(factor)
    found = used(source, tmp_path)
    assert (found.calibration == old) is holds
    assert (source.counts == CHECKED) is holds
    assert read(tmp_path, KEY, 32).calibration == found.calibration


def test_what_replaces_one_that_is_off_says_so(tmp_path):
    used(FakeSource(), tmp_path)
    assert used(FakeSource(1.25), tmp_path).note == (
        "the calibration was measured anew: a forward takes 1.25 times as long as the one that was "
        "kept says"
    )
    assert used(FakeSource(1.25), tmp_path).note is None


def test_a_drafter_that_has_become_slow_is_noticed(tmp_path):
    used(FakeSource(), tmp_path)
    source = FakeSource(draft_factor=3.0)
    found = used(source, tmp_path)
    assert source.counts > CHECKED
    assert "a round with drafts takes 1.49 times" in found.note
    assert found.calibration.draft_depth_s == pytest.approx(3 * 1.5e-3)


@pytest.mark.parametrize(
    ("spread", "factor", "holds"),
    [(0.1, 1.18, False), (0.19, 1.18, True), (0.3, 1.18, True), (0.9, 1.25, False)],
)
def test_a_machine_that_scatters_may_be_off_by_that_much_up_to_20_percent(
    tmp_path, spread, factor, holds
):
    """A curve of a busy machine may have been kept by force."""
    write(tmp_path, KEY, replace(calibrate(FakeBench(4), 2.0, 3), spread=spread))
    source = FakeSource(factor)
    used(source, tmp_path)
    assert (source.counts == CHECKED) is holds


def test_a_busy_machine_uses_what_it_measured_and_does_not_keep_it(tmp_path):
    found = used(FakeSource(jitter=1.5), tmp_path)
    assert found.calibration.spread > MAX_SPREAD
    assert found.note.startswith("the calibration is not kept: timings scatter")
    assert "\n" not in found.note
    assert os.listdir(tmp_path) == []


def test_a_busy_machine_does_not_replace_a_good_one(tmp_path):
    good = used(FakeSource(), tmp_path).calibration
    assert used(FakeSource(9.0, jitter=1.5), tmp_path).note is not None
    assert read(tmp_path, KEY, 32).calibration == good


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"schema": 1'])
def test_a_damaged_one_is_measured_anew_and_replaced(tmp_path, damage):
    old = used(FakeSource(), tmp_path)
    (tmp_path / KEY.file_name).write_bytes(damage)
    source = FakeSource()
    found = used(source, tmp_path)
    assert found.calibration == old.calibration
    assert found.note.startswith("the calibration was measured anew: ") and "\n" not in found.note
    assert source.counts > CHECKED
    assert read(tmp_path, KEY, 32).calibration == old.calibration
    assert used(FakeSource(), tmp_path) == old


@pytest.mark.parametrize("last", [1, 31])
def test_a_curve_that_ends_before_the_widest_round_is_measured_anew(tmp_path, last):
    whole = used(FakeSource(), tmp_path).calibration
    points = tuple(point for point in whole.verify if point[0] < last) or whole.verify[:1]
    write(tmp_path, KEY, replace(whole, verify=points))
    found = used(FakeSource(), tmp_path)
    assert found.calibration.verify == whole.verify
    assert f"it ends at {points[-1][0]} tokens, and 32 are wanted" in found.note
    assert read(tmp_path, KEY, 32).calibration.verify == whole.verify


def test_one_of_fewer_rows_is_replaced_and_one_of_more_rows_serves(tmp_path):
    few = used(FakeSource(num_slots=1), tmp_path).calibration
    assert few.verify[-1][0] == 8
    more = used(FakeSource(num_slots=4), tmp_path).calibration
    assert more.verify[-1][0] == 32
    assert used(FakeSource(num_slots=1), tmp_path).calibration == more


def test_a_load_for_many_rows_measures_eight(tmp_path):
    source = FakeSource(num_slots=64)
    used(source, tmp_path)
    assert source.benches[-1].num_slots == LOAD_ROWS
    again = FakeSource(num_slots=64)
    used(again, tmp_path)
    assert again.counts == CHECKED


def test_a_folder_that_cannot_be_written_is_a_note(tmp_path):
    (tmp_path / "file").write_text("")
    found = used(FakeSource(), tmp_path / "file" / "calibration")
    assert found.calibration.verify[0][0] == 1
    assert found.note.startswith("the calibration is not kept: ")
    assert "\n" not in found.note


def test_a_user_without_a_home_folder_has_a_note():
    def nowhere() -> Path:
        raise OSError("this user has no home folder")

    found = load_or_calibrate(FakeSource(), nowhere)
    assert found.calibration.verify[0][0] == 1
    assert found.note == "the calibration is not kept: this user has no home folder"


def test_files_of_the_model_that_have_gone_are_a_note(tmp_path):
    found = used(FakeSource(has_files=False), tmp_path)
    assert found.calibration.verify[0][0] == 1
    assert "config.json" in found.note
    assert os.listdir(tmp_path) == []


# --- a loaded pair ---


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Calibrations are on, lie here, have few points, and every timing is the same."""
    monkeypatch.setenv(VARIABLE, "on")
    monkeypatch.setattr(calibration_file, "cache_folder", lambda: tmp_path / "calibration")
    monkeypatch.setattr(calibrated, "time", TickingClock())
    monkeypatch.setattr(engine.calibrate, "COUNTS", (1, 4, 8))
    return tmp_path / "calibration"


def load(**options) -> mtp_mlx.LLM:
    target, drafter = folders("e2b")
    return mtp_mlx.load(target, **{"draft_model": drafter, "max_num_seqs": 2} | options)


def calibration_of(llm: mtp_mlx.LLM):
    return llm._worker.call(lambda runtime, _: runtime.calibration)


def test_a_loaded_pair_has_a_calibration_that_lasts(folder):
    with load() as llm:
        found = calibration_of(llm)
        assert [count for count, _ in found.verify] == [1, 4, 8, 16]
        assert llm.note is None
    assert len(os.listdir(folder)) == 1
    with load(max_num_seqs=1) as llm:
        assert calibration_of(llm) == found


def test_it_is_read_once(folder, monkeypatch):
    with load() as llm:
        found = calibration_of(llm)
        (folder / os.listdir(folder)[0]).unlink()
        assert calibration_of(llm) is found
    assert os.listdir(folder) == []


def test_models_of_other_weights_do_not_share_one(folder):
    for variant in ("e2b", "31b"):
        target, drafter = folders(variant)
        with mtp_mlx.load(target, draft_model=drafter, max_num_seqs=1) as llm:
            calibration_of(llm)
    assert len(os.listdir(folder)) == 2


def test_off_neither_measures_nor_reads_nor_writes(folder, monkeypatch):
    monkeypatch.setenv(VARIABLE, "off")
    monkeypatch.setattr(calibrated, "time", SimpleNamespace())  # nobody may ask for the time
    monkeypatch.setattr(calibration_file, "cache_folder", lambda: pytest.fail("looked for files"))
    with load() as llm:
        assert calibration_of(llm) is None
        assert llm.note is None
    assert not folder.exists()


def test_without_a_drafter_there_is_none(folder):
    with load(draft_model=None) as llm:
        assert calibration_of(llm) is None
    assert not folder.exists()


def test_a_switch_that_means_nothing_is_refused_before_weights_are_read(folder, monkeypatch):
    monkeypatch.setenv(VARIABLE, "of")
    monkeypatch.setattr("mtp_mlx.engine.runtime.load_target", lambda *_: pytest.fail("read"))
    with pytest.raises(mtp_mlx.RequestError, match=VARIABLE):
        load()


def test_a_read_only_cache_folder_breaks_no_load(folder, monkeypatch):
    folder.parent.joinpath("file").write_text("")
    monkeypatch.setattr(calibration_file, "cache_folder", lambda: folder.parent / "file" / "x")
    with load() as llm:
        assert calibration_of(llm) is not None
        assert llm.note.startswith("the calibration is not kept: ")
        assert llm.generate([2, 9], max_tokens=2).token_ids


def test_the_real_clock_is_the_monotonic_one(monkeypatch):
    assert calibrated.time is time
    monkeypatch.setenv(VARIABLE, "off")
    with load() as llm:
        source = runtime_of(llm)._source
        bench = llm._worker.call(lambda *_: source.bench(1))
    assert bench.clock is time.perf_counter


def test_the_key_names_machine_and_pair():
    with load() as llm:
        source = runtime_of(llm)._source
        key = llm._worker.call(lambda *_: source.key())
        again = llm._worker.call(lambda *_: source.key())
    assert key == again
    assert all(str(value).strip() and "\n" not in str(value) for value in vars(key).values())
    assert key.target != key.drafter
    assert (key.dtype, key.quantization, key.k_max) == ("mlx.core.float32", "none none", 7)
