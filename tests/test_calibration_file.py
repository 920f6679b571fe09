"""Kept calibrations: what is read is what was written, and whatever is wrong is ignored."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mtp_mlx import calibration_file
from mtp_mlx.calibration_file import VARIABLE, Key, checkpoint_digest, is_on, read, write
from mtp_mlx.engine.policy import Calibration, Experts
from mtp_mlx.errors import RequestError

KEY = Key(
    chip="Apple M3 Max applegpu_g15s, 16 cores",
    system="Darwin 25.0.0 arm64",
    device="gpu",
    mlx="0.32.4",
    mtp_mlx="0.1.0",
    dtype="mlx.core.bfloat16",
    target="ab" * 32,
    drafter="cd" * 32,
    quantization="affine-4-64 none",
    k_max=7,
)
CALIBRATION = Calibration(
    verify=((1, 0.02), (4, 0.025), (8, 0.04), (16, 0.07)),
    draft_depth_s=1e-3,
    draft_token_s=2e-5,
    host_s=3e-4,
    spread=0.02,
    repeats=5,
    experts=Experts(128, 8, 1e-4),
)
REACH = 16  # tokens of the widest forward that is wanted


@pytest.fixture
def kept(tmp_path) -> Path:
    return write(tmp_path, KEY, CALIBRATION)


def reason(folder: Path, key: Key = KEY, num_tokens: int = REACH) -> str:
    found = read(folder, key, num_tokens)
    assert found.calibration is None
    return found.reason


@pytest.mark.parametrize("calibration", [CALIBRATION, replace(CALIBRATION, experts=None)])
def test_what_is_read_is_what_was_written(tmp_path, calibration):
    folder = tmp_path / "not" / "there yet"
    path = write(folder, KEY, calibration)
    assert path.parent == folder
    for num_tokens in (1, 5, REACH):  # a curve for more rows covers fewer
        assert read(folder, KEY, num_tokens).calibration == calibration
    assert reason(folder, num_tokens=17) == "it ends at 16 tokens, and 17 are wanted"
    assert os.listdir(folder) == [path.name]


def test_a_later_one_replaces_it(tmp_path, kept):
    later = replace(CALIBRATION, spread=0.5)
    assert write(tmp_path, KEY, later) == kept
    assert read(tmp_path, KEY, REACH).calibration == later
    assert os.listdir(tmp_path) == [kept.name]


def test_nothing_is_kept_at_first(tmp_path):
    assert reason(tmp_path) == ""
    assert reason(tmp_path / "missing") == ""


@pytest.mark.parametrize("name", list(Key.__dataclass_fields__))
def test_every_part_of_the_key_tells_machines_and_pairs_apart(tmp_path, kept, name):
    other = replace(KEY, **{name: 3 if name == "k_max" else "other"})
    assert other.file_name != KEY.file_name
    assert reason(tmp_path, other) == ""


def test_a_file_that_was_moved_here_from_another_machine_is_ignored(tmp_path, kept):
    other = replace(KEY, chip="Apple M1")
    kept.rename(tmp_path / other.file_name)
    assert "another machine" in reason(tmp_path, other)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_ignored(tmp_path, kept, share):
    text = kept.read_bytes()
    kept.write_bytes(text[: int(share * len(text))])
    assert reason(tmp_path)


@pytest.mark.parametrize(
    "content", [b"\x00\xff" * 100, b"[]", b"null", b"7", b"[" * 5000, b"{" * 100, b'{"a":NaN}']
)
def test_a_file_of_something_else_is_ignored(tmp_path, kept, content):
    kept.write_bytes(content)
    assert reason(tmp_path)


def test_a_huge_file_is_ignored(tmp_path, kept):
    kept.write_bytes(b" " * (calibration_file.LIMIT_BYTES + 1))
    assert "at most" in reason(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="no pipes")
def test_a_pipe_in_its_place_does_not_block(tmp_path):
    os.mkfifo(tmp_path / KEY.file_name)
    assert "regular file" in reason(tmp_path)


def test_a_folder_in_its_place_is_ignored(tmp_path):
    (tmp_path / KEY.file_name).mkdir()
    assert reason(tmp_path)


CHANGES = [
    ("schema", 1),
    ("schema", None),
    ("key", None),
    ("calibration", None),
    ("calibration", []),
    ("calibration", "x"),
    ("verify", []),
    ("verify", [[2, 0.1]]),
    ("verify", [[1, 0.0]]),
    ("verify", [[1, -1.0]]),
    ("verify", [[1, 0.1], [1, 0.2]]),
    ("verify", [[1, 0.1, 3]]),
    ("verify", [1, 2]),
    ("verify", {"1": 2}),
    ("verify", 3),
    ("draft_depth_s", -1),
    ("draft_token_s", None),
    ("host_s", "a"),
    ("host_s", "3e-4"),
    ("host_s", 10**39),
    ("host_s", True),
    ("spread", []),
    ("repeats", 0),
    ("repeats", "4"),
    ("repeats", 4.7),
    ("repeats", 4.0),
    ("repeats", True),
    ("verify", [["1", 0.1], [16, 0.2]]),
    ("verify", [[1, 0.1], [16.9, 0.2]]),
    ("verify", [[1, "0.1"], [16, 0.2]]),
    ("verify", [[True, 0.1], [16, 0.2]]),
    ("verify", [[1, 0.1]]),  # whole, but of no use for so many rows
    ("more", 1),
    ("experts", 3),
    ("experts", {"num_experts": 8}),
    ("experts", {"num_experts": 0, "top_k": 0, "expert_s": 0.1}),
    ("experts", {"num_experts": 8, "top_k": 8, "expert_s": 0.1}),
    ("experts", {"num_experts": 8, "top_k": 2, "expert_s": -0.1}),
    ("experts", {"num_experts": "a", "top_k": 2, "expert_s": 0.1}),
    ("experts", {"num_experts": "8", "top_k": 2, "expert_s": 0.1}),
    ("experts", {"num_experts": 8.5, "top_k": 2, "expert_s": 0.1}),
]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_a_damaged_value_is_ignored(tmp_path, kept, name, value):
    body = json.loads(kept.read_text())
    (body if name in body else body["calibration"])[name] = value
    kept.write_text(json.dumps(body))
    assert reason(tmp_path)


@pytest.mark.parametrize("name", ["schema", "key", "calibration", "verify", "experts"])
def test_a_missing_value_is_ignored(tmp_path, kept, name):
    body = json.loads(kept.read_text())
    del (body["calibration"] if name in body["calibration"] else body)[name]
    kept.write_text(json.dumps(body))
    assert reason(tmp_path)


WRITER = """
import sys
import time
from dataclasses import replace
from pathlib import Path
from mtp_mlx.calibration_file import write
from tests.test_calibration_file import CALIBRATION, KEY
folder, host_s = Path(sys.argv[1]), float(sys.argv[2])
points = tuple((count, host_s * count) for count in range(1, 400))
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    write(folder, KEY, replace(CALIBRATION, verify=points, host_s=host_s))
"""


def test_two_processes_at_once_leave_one_good_file(tmp_path):
    root = Path(__file__).resolve().parents[1]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path, str(host_s)],
            cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for host_s in (1.0, 2.0)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = []
    while any(writer.poll() is None for writer in writers):
        found = read(tmp_path, KEY, REACH)
        assert found.calibration is not None or not found.reason
        seen.append(found.calibration)
    for writer in writers:
        assert writer.wait() == 0
        writer.communicate()
    last = read(tmp_path, KEY, REACH).calibration
    assert last is not None and last.host_s in (1.0, 2.0)
    for each in [*filter(None, seen), last]:  # never half of one and half of the other
        assert each.verify == tuple((count, each.host_s * count) for count in range(1, 400))
    assert os.listdir(tmp_path) == [KEY.file_name]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, kept, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(calibration_file.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, KEY, replace(CALIBRATION, spread=0.5))
    assert os.listdir(tmp_path) == [kept.name]
    assert read(tmp_path, KEY, REACH).calibration == CALIBRATION


def test_what_killed_writers_left_is_swept_and_what_living_ones_write_is_not(tmp_path, kept):
    old, new = tmp_path / ".new-old.json", tmp_path / ".new-fresh.json"
    other, folder = tmp_path / "mine.json", tmp_path / ".new-folder.json"
    for path in (old, new, other):
        path.write_text("{")
    folder.mkdir()
    hour_ago = time.time() - 3600
    for path in (old, other, folder):
        os.utime(path, (hour_ago, hour_ago))
    write(tmp_path, KEY, CALIBRATION)
    assert sorted(os.listdir(tmp_path)) == sorted([kept.name, new.name, other.name, folder.name])
    assert read(tmp_path, KEY, REACH).calibration == CALIBRATION


def test_a_folder_that_cannot_be_made_is_an_oserror(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write(tmp_path / "file" / "calibration", KEY, CALIBRATION)
    assert read(tmp_path / "file" / "calibration", KEY, REACH).calibration is None


@pytest.mark.parametrize(("value", "expected"), [("", True), ("on", True), ("off", False)])
def test_the_switch(monkeypatch, value, expected):
    monkeypatch.setenv(VARIABLE, value)
    assert is_on() is expected


def test_the_switch_is_on_by_itself(monkeypatch):
    monkeypatch.delenv(VARIABLE)
    assert is_on()


@pytest.mark.parametrize("value", ["OFF", "0", "false", "auto", " off"])
def test_another_value_of_the_switch_is_an_error_that_names_it(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(RequestError, match=VARIABLE) as caught:
        is_on()
    assert repr(value) in str(caught.value)


def test_the_suite_runs_with_the_switch_off():
    assert os.environ[VARIABLE] == "off"


def test_the_files_lie_below_the_users_cache_folder(monkeypatch, tmp_path):
    folder = calibration_file.cache_folder()
    assert folder.is_absolute()
    assert "mtp-mlx" in folder.parts and folder.name == "calibration"
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert calibration_file.cache_folder() == tmp_path / "mtp-mlx" / "calibration"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the folder is found otherwise")
@pytest.mark.parametrize("is_old", [False, True])
def test_a_user_without_a_home_folder_has_none_and_is_told(monkeypatch, is_old):
    def no_home(*arguments, **options):
        if is_old:
            return Path("~/.cache/mtp-mlx")
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    with pytest.raises(OSError, match="no home folder") as caught:
        calibration_file.cache_folder()
    assert "\n" not in str(caught.value)


# --- the digest of a checkpoint ---


@pytest.fixture
def checkpoint(tmp_path) -> tuple[Path, list[Path]]:
    header = b'{"a": 1}'
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    config.write_text("{}")
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1 << 20))
    return config, [weights]


@pytest.mark.parametrize("place", [0, 9, 16, (1 << 19) + 99, -1])
def test_weights_that_differ_where_it_looks_have_another_digest(checkpoint, place):
    config, weights = checkpoint
    before = checkpoint_digest(config, weights)
    assert before == checkpoint_digest(config, weights)
    data = bytearray(weights[0].read_bytes())
    data[place] ^= 1
    weights[0].write_bytes(data)
    assert checkpoint_digest(config, weights) != before


def test_config_size_name_and_number_of_files_count_too(checkpoint):
    config, weights = checkpoint
    seen = {checkpoint_digest(config, weights), checkpoint_digest(config, [])}
    config.write_text("{ }")
    seen.add(checkpoint_digest(config, weights))
    with weights[0].open("ab") as file:
        file.write(b"\0")
    seen.add(checkpoint_digest(config, weights))
    other = weights[0].rename(weights[0].with_name("model-2.safetensors"))
    seen.add(checkpoint_digest(config, [other]))
    assert len(seen) == 5
    with pytest.raises(OSError):
        checkpoint_digest(config, weights)


def test_a_digest_reads_little_of_large_weights(checkpoint, monkeypatch):
    config, weights = checkpoint
    with weights[0].open("r+b") as file:
        file.truncate(1 << 40)  # a hole: reading it all would take minutes
    assert checkpoint_digest(config, weights)


def test_a_header_length_that_is_nonsense_reads_no_more_than_there_is(checkpoint):
    config, weights = checkpoint
    weights[0].write_bytes(b"\xff" * 8 + bytes(100))
    assert checkpoint_digest(config, weights)
