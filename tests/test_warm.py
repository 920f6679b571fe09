"""Kernels are made once for a source, and never said to be there where they cannot be made."""

import pytest

from tests import warm


@pytest.fixture
def made(tmp_path, monkeypatch):
    """How often kernels are made, in a temporary folder and for a source of their own."""
    seen = []
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(warm, "MODEL", tmp_path)
    monkeypatch.setattr(warm, "on_gpu", lambda: False)
    monkeypatch.setattr(warm, "check_kernels", lambda: None)
    monkeypatch.setattr(warm, "make", lambda: seen.append("made"))
    return seen


def test_kernels_are_made_once_for_a_source(made, tmp_path):
    for source, times in (("a = 1", 1), ("a = 2", 2), ("a = 1", 2)):
        (tmp_path / "a.py").write_text(source)
        for _ in range(2):
            warm.warm()
            assert len(made) == times


def test_what_failed_is_made_again(made, monkeypatch):
    with monkeypatch.context() as failing:
        failing.setattr(warm, "make", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            warm.warm()
    warm.warm()
    assert made == ["made"]


def test_where_they_cannot_be_made_nothing_is_marked(made, tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "check_kernels", lambda: "no compiler")
    warm.warm()
    assert made == [] and not (tmp_path / "mlx").exists()
