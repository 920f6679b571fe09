"""Files that are written whole: their permissions, and what a write that fails leaves."""

import os
import stat

import pytest

from mtp_mlx.whole_file import write_whole


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def usual_mask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_new_file_is_as_open_as_the_users_other_files(tmp_path):
    """Caches are shared: what is pulled must be readable to whom its folder is."""
    path = tmp_path / "deep" / "new"
    write_whole(path, "text")
    assert (path.read_text(), mode_of(path)) == ("text", 0o640)


def test_a_file_keeps_its_permissions(tmp_path):
    for mode in (0o644, 0o600):
        path = tmp_path / f"{mode:o}"
        path.write_text("old")
        path.chmod(mode)
        write_whole(path, "new")
        assert (path.read_text(), mode_of(path)) == ("new", mode)


def test_the_permissions_that_are_asked_for_hold_from_the_start(tmp_path, monkeypatch):
    seen = []
    real = os.fsync

    def look(number):
        seen.append(stat.S_IMODE(os.fstat(number).st_mode))
        real(number)

    monkeypatch.setattr(os, "fsync", look)
    path = tmp_path / "mine"
    path.write_text("old")
    write_whole(path, "new", mode=0o600)
    assert (seen, mode_of(path)) == ([0o600], 0o600)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    write_whole(path, "old")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
