"""Kernels for this CPU: whether they can be made, and whose the folder is that holds them."""

import json
import os
import shutil
import stat
import subprocess
import sys
from importlib.metadata import version
from subprocess import PIPE

import numpy as np
import pytest

import mtp_mlx
from mtp_mlx.engine import runtime
from mtp_mlx.model import kernels
from tests.api_pairs import folders
from tests.model.test_forms import ATOL, without_compiler

ASKED = """
import json
from mtp_mlx.model.kernels import check_kernels
print(json.dumps([check_kernels(), check_kernels()]))
"""
COMPUTED = """
from tests.model.test_forms import without_compiler
print(json.dumps(without_compiler()))
"""
# Logs when the real one begins and ends; not where it only tells its version.
LOGGED = """#!/bin/sh
[ $# = 1 ] || echo begins >> {log}
{real} "$@"
[ $# = 1 ] || echo ends >> {log}
"""
LEVELS = ("mlx", f"mlx/{version('mlx')}", f"mlx/{version('mlx')}/cpu")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


def begun(code: str, **there) -> subprocess.Popen:
    """A process with an environment of its own."""
    there = os.environ | {name: str(value) for name, value in there.items()}
    return subprocess.Popen([sys.executable, "-c", code], env=there, stdout=PIPE, text=True)


def told(process: subprocess.Popen) -> tuple[str | None, str]:
    """The note of a process that asks twice, and what else it prints."""
    answers, _, rest = process.communicate()[0].partition("\n")
    note, again = json.loads(answers)
    assert note == again
    return note, rest


def put_compiler(folder, text: str) -> str:
    """A g++ of its own before all others; returns the path to look for programs in."""
    (folder / "g++").write_text(text)
    (folder / "g++").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@needs_compiler
def test_kernels_can_be_made_here_by_two_at_once(tmp_path):
    log = tmp_path / "log"
    path = put_compiler(tmp_path, LOGGED.format(log=log, real=shutil.which("g++")))
    both = [begun(ASKED, TMPDIR=tmp_path, PATH=path) for _ in range(2)]
    assert [told(process) for process in both] == [(None, "")] * 2
    # What both try, and one kernel: never at the same time.
    assert log.read_text().split() == ["begins", "ends"] * 3
    assert {stat.S_IMODE((tmp_path / level).stat().st_mode) for level in LEVELS} == {0o700}


@pytest.mark.parametrize(
    ("compiler", "fault"),
    [
        ("[ $# = 1 ]", "g++ fails"),  # no more than its version
        ('for file; do :; done; [ $# = 1 ] || echo none > "$file"', "Could not load"),
    ],
)
def test_kernels_that_cannot_be_made_or_run_are_done_without(tmp_path, compiler, fault):
    path = put_compiler(tmp_path, f"#!/bin/sh\n{compiler}\n")
    note, computed = told(begun(ASKED + COMPUTED, TMPDIR=tmp_path, PATH=path))
    assert fault in note and "TMPDIR" in note and "\n" not in note
    found = json.loads(computed)
    for name, values in without_compiler().items():
        assert np.allclose(found[name], values, rtol=0, atol=ATOL), name


def test_without_a_compiler_it_is_said(tmp_path):
    (tmp_path / "none").mkdir()
    note, _ = told(begun(ASKED, TMPDIR=tmp_path, PATH=tmp_path / "none"))
    assert "No such file" in note and "g++" in note


def test_a_fault_of_the_kernels_is_in_the_models_note_besides_that_of_its_drafter(monkeypatch):
    target, drafter = folders()
    monkeypatch.setattr(runtime, "check_kernels", lambda: "no kernels")
    with mtp_mlx.load(target) as llm:
        assert "no drafter beside" in llm.note and llm.note.endswith("; no kernels")
    for fault in (None, "no kernels"):
        monkeypatch.setattr(runtime, "check_kernels", lambda fault=fault: fault)
        with mtp_mlx.load(target, draft_model=drafter) as llm:
            assert llm.note == fault


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The temporary folder, and MLX's in it, as it makes them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for level in LEVELS:
        (tmp_path / level).mkdir(mode=0o755)
    return tmp_path


def test_the_folder_is_found_as_the_library_finds_it(tmp_path, monkeypatch):
    for name in kernels.TEMPORARY:
        monkeypatch.delenv(name, raising=False)
    for name in ("TEMPDIR", "TEMP", "TMP", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
        assert kernels.own_folder() == tmp_path / name / LEVELS[2]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_that_others_wrote_to_is_closed_and_emptied(temporary, level, mode):
    kernel = temporary / LEVELS[2] / "libkernel.so"
    kernel.touch()
    kernels.own_folder()
    assert kernel.exists()
    (temporary / level).chmod(mode)
    kernels.own_folder()
    assert not kernel.exists()
    assert stat.S_IMODE((temporary / level).stat().st_mode) == 0o755


@pytest.mark.parametrize("level", LEVELS)
def test_a_folder_of_another_is_refused(temporary, monkeypatch, level):
    real = kernels.Path.lstat

    def of_another(path):
        found = list(real(path))
        if path == temporary / level:
            found[stat.ST_UID] += 1
        return os.stat_result(found)

    monkeypatch.setattr(kernels.Path, "lstat", of_another)
    with pytest.raises(PermissionError, match="is another user's"):
        kernels.own_folder()


@pytest.mark.parametrize("level", LEVELS)
def test_a_link_is_no_folder(temporary, level):
    (temporary / level).rename(temporary / "elsewhere")
    (temporary / level).symlink_to(temporary / "elsewhere")
    with pytest.raises(PermissionError, match="or no folder"):
        kernels.own_folder()


@pytest.mark.parametrize(("mode", "is_fine"), [(0o777, False), (0o770, False), (0o1777, True)])
def test_others_must_not_rename_what_the_temporary_folder_holds(temporary, mode, is_fine):
    temporary.chmod(mode)
    if is_fine:
        kernels.own_folder()
        return
    with pytest.raises(PermissionError, match="others may rename"):
        kernels.own_folder()


def test_the_temporary_folder_must_be_ours_or_the_systems(temporary, monkeypatch):
    if os.geteuid() == 0:
        os.chown(temporary, 1234, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(PermissionError, match="is another user's"):
        kernels.own_folder()
