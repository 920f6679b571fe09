"""`mtp-mlx convert`: mlx-lm's flags, one line or JSON, and nothing half written."""

import os
import signal
import subprocess
import sys
import time

import pytest

import mtp_mlx
from mtp_mlx.checkpoint import open_drafter, open_target
from mtp_mlx.quantization import QuantSpec
from tests.interrupts import heed_interrupts
from tests.quantised.sources import source_pair


def test_a_pair_is_converted_and_described(cli, tmp_path):
    source, _ = source_pair(tmp_path, "26b")
    flags = ("-q", "--q-bits", 4, "--q-group-size", 32, "--draft-q-bits", 8, "--dtype", "bfloat16")
    answer = cli("convert", "--hf-path", source, "--mlx-path", tmp_path / "out", *flags)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out'}: 0.00 GB in 1 file, ")
    assert "bits a weight (was 0.00 GB)" in lines[1]
    assert "out: 2 tensors that text never reads are left out (vision, audio" in answer.err
    target = open_target(tmp_path / "out")
    assert target.config.quantization is not None
    assert target.config.quantization.default == QuantSpec(32, 4, "affine")
    assert target.config.quantization.of("layers.0.router.proj") == QuantSpec(64, 8, "affine")
    drafter = open_drafter(tmp_path / "out-assistant", target.config)
    assert drafter.tensors["layers.0.mlp.up_proj.weight"].dtype == "U32"
    assert drafter.tensors["embed_tokens.weight"].dtype == "BF16"
    assert mtp_mlx.load(tmp_path / "out").has_drafter


def test_json_is_one_object(cli, tmp_path):
    source, _ = source_pair(tmp_path, "31b")
    flags = ("-q", "--q-mode", "mxfp4", "--json", "--draft-model", "none")
    answer = cli("convert", "--model", source, "--mlx-path", tmp_path / "out", *flags)
    assert answer.code == 0
    body = answer.body
    assert body["drafter"] is None
    target = body["target"]
    assert target["folder"] == str(tmp_path / "out")
    assert target["left_plain"] == []
    assert 4 < target["bits_per_weight"] < 5
    assert target["num_bytes"] * 8 == pytest.approx(
        target["bits_per_weight"] * target["num_weights"]
    )
    assert not (tmp_path / "out-assistant").exists()


def test_matrices_left_plain_are_named(cli, tmp_path):
    source, _ = source_pair(tmp_path, "31b")
    flags = ("-q", "--q-group-size", 128, "--draft-model", "none")
    answer = cli("convert", "--hf-path", source, "--mlx-path", tmp_path / "out", *flags)
    assert answer.code == 0
    assert "not quantised, for no group divides their rows: language_model.model." in answer.err


def test_without_a_drafter_beside_it_a_line_says_so(cli, tmp_path):
    source, drafter = source_pair(tmp_path, "31b")
    drafter.rename(tmp_path / "elsewhere")
    answer = cli("convert", "--hf-path", source, "--mlx-path", tmp_path / "out")
    assert answer.code == 0
    assert "no drafter beside" in answer.err
    answer = cli("convert", "--hf-path", source, "--mlx-path", tmp_path / "2", "--draft-q-bits", 4)
    assert answer.code == 2 and not (tmp_path / "2").exists()
    assert "--draft-q-bits needs a drafter" in answer.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--q-bits", 4), "--q-bits needs -q"),
        (("--q-mode", "mxfp4"), "--q-mode needs -q"),
        (("--quant-predicate", "mixed_3_6"), "--quant-predicate needs -q"),
        (("-q", "--quant-predicate", "mixed_3_6", "--q-bits", 4), "leave --q-bits out"),
        (("-q", "--quant-predicate", "mixed_3_6", "--q-mode", "mxfp4"), "leave --q-mode mxfp4 out"),
        (("-q", "--q-bits", 7), "--q-bits of mode affine must be one of 2, 3, 4, 5, 6, 8, found 7"),
        (("-q", "--q-mode", "nf4"), "'nf4' is not one of"),
        (("--draft-q-bits", 16), "--draft-q-bits of mode affine must be one of"),
        (("--draft-model", "none", "--draft-q-bits", 4), "--draft-q-bits needs a drafter"),
        (
            ("--draft-model", "none", "--draft-head-q-bits", 4),
            "--draft-head-q-bits needs a drafter",
        ),
        (("--trust-remote-code",), "No such option"),
    ],
)
def test_options_that_contradict_are_usage_errors_of_one_line(cli, tmp_path, flags, said):
    answer = cli("convert", "--hf-path", "tiny", "--mlx-path", tmp_path / "out", *flags)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/", "//"])
def test_a_place_that_is_no_new_folder_is_refused(cli, place):
    answer = cli("convert", "--hf-path", "tiny", "--mlx-path", place)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert f"--mlx-path {place} is the root" in answer.err


def test_a_user_that_is_not_known_is_part_of_a_name(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("convert", "--hf-path", "tiny", "--mlx-path", "~no-such-user").code == 0
    assert (tmp_path / "~no-such-user" / "config.json").is_file()


@pytest.mark.parametrize(("name", "code"), [("nothing", 5), ("tiny-assistant", 2)])
def test_what_is_no_target_is_refused(cli, tmp_path, name, code):
    answer = cli("convert", "--hf-path", name, "--mlx-path", tmp_path / "out")
    assert answer.code == code
    assert answer.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


WAITS = """
import sys, time
from mtp_mlx.conversion import stream
inner = stream._write
def slowly(path, shard):
    for count in inner(path, shard):
        print("writing", flush=True)
        time.sleep(0.5)
        yield count
stream._write = slowly
from mtp_mlx.cli.main import main
main(sys.argv[1:])
"""


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    source, _ = source_pair(tmp_path, "31b")
    arguments = ("convert", "--hf-path", str(source), "--mlx-path", str(tmp_path / "out"), "-q")
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "MTP_MLX_CALIBRATION": "off"}, preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    time.sleep(0.1)
    assert {".out.partial", ".out-assistant.partial"} <= {path.name for path in tmp_path.iterdir()}
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert {path.name for path in tmp_path.iterdir()} == {"source", "source-assistant"}
