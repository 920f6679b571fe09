"""Which commit figures belong to."""

import subprocess
from dataclasses import replace

from mtp_mlx import __version__
from mtp_mlx.measure.where import commit, where
from tests.measure.reports import WHERE


def git(folder, *command):
    options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *options, *command], check=True, capture_output=True)


def test_a_checkout_has_its_commit_and_says_where_files_differ(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "file").write_text("1")
    git(tmp_path, "init")
    assert commit(package) is None  # nothing is committed yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    clean = commit(package)
    assert clean is not None and len(clean) == 12 and int(clean, 16) >= 0
    (package / "file").write_text("2")
    assert commit(package) == f"{clean}-dirty"


def test_a_package_installed_inside_another_repository_has_none(tmp_path):
    git(tmp_path, "init")
    package = tmp_path / "lib" / "package"
    package.mkdir(parents=True)
    assert commit(package) is None


def test_this_machine_is_named(monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    here = where()
    assert (here.mtp_mlx, here.blas) == (__version__, None)
    assert "cores" in here.chip and here.memory_bytes > 0
    monkeypatch.setenv("LD_PRELOAD", "libopenblas.so")
    assert where().blas == "LD_PRELOAD=libopenblas.so"


def test_words_have_the_commit_and_the_library_where_there_are_some():
    assert "mtp-mlx 0.1.0, Python" in str(WHERE)
    known = replace(WHERE, commit="abc-dirty", blas="LD_PRELOAD=x")
    assert "mtp-mlx 0.1.0 (abc-dirty), Python 3.11.7, with LD_PRELOAD=x" in str(known)
