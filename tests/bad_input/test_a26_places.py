"""A26: folders with odd names, a home that cannot be written or is not there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtp_mlx
from mtp_mlx.embedded import HERE

ODD = {
    "spaces": b"my own model",
    "unicode": "modèle €".encode(),
    "not utf-8": b"mod\xffel",
    "newline": b"a\nb",
    "pattern": b"[a]*",
}


@pytest.fixture(params=ODD.values(), ids=ODD)
def folder(request, tmp_path):
    """A pair in a folder of an odd name."""
    place = tmp_path / os.fsdecode(request.param)
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    for name in ("tiny", "tiny-assistant"):
        shutil.copytree(HERE / name, place / name)
    return place / "tiny"


def test_a_pair_loads_whatever_its_folder_is_called(folder):
    with mtp_mlx.load(folder) as llm, mtp_mlx.load("tiny") as same:
        assert llm.has_drafter
        options = {"temperature": 0, "max_tokens": 8}
        assert llm.generate("fox", **options).token_ids == same.generate("fox", **options).token_ids


@pytest.mark.parametrize("home", ["file", "none"])
def test_without_a_home_that_can_be_written_a_path_and_a_built_in_name_load(home, tmp_path):
    model = Path(shutil.copytree(HERE / "tiny", tmp_path / "model"))
    (tmp_path / "home").touch()  # nothing can be made below a file, not even by root
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    env = {**kept, "MTP_MLX_CALIBRATION": "off"}
    if home == "file":
        env["HOME"] = str(tmp_path / "home")
    for name in (str(model), "tiny"):
        command = ["generate", "hi", "--model", name, "--draft-model", "none", "-m", "2"]
        done = subprocess.run(
            [sys.executable, "-m", "mtp_mlx", *command],
            env=env, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
