"""The picture of a report: a PNG with all its curves, and one line where it cannot be drawn."""

import builtins
from dataclasses import replace

import pytest

from mtp_mlx.errors import Unsupported
from mtp_mlx.measure import plot
from mtp_mlx.measure.plot import check_plots, draw
from tests.measure.reports import report

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_report_is_drawn(tmp_path):
    check_plots()
    draw(report(has_server=True), tmp_path / "a.png")
    drawn = (tmp_path / "a.png").read_bytes()
    assert drawn.startswith(PNG) and len(drawn) > 20_000


def test_every_line_has_its_curve():
    from matplotlib.figure import Figure

    found = report(has_server=True)
    batch, depth, cost = Figure().subplots(1, 3)
    plot._over_batch(batch, found)
    names = {text.get_text() for text in batch.get_legend().get_texts()}
    kinds = ("plain", "3 drafts", "auto", "server")
    assert names == {name for kind in kinds for name in (kind, f"{kind}, identical prompts")}
    plot._over_depth(depth, found)
    assert [text.get_text() for text in depth.get_xticklabels()] == ["plain", "3", "auto"]
    assert {text.get_text() for text in depth.get_legend().get_texts()} == {"batch 1", "batch 4"}
    plot._costs(cost, found)
    [line, single] = cost.get_lines()[0], cost.get_lines()[-1]
    assert list(line.get_xdata()) == [1, 2, 4, 8, 16, 32, 64]
    assert list(line.get_ydata()) == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    [bars] = cost.containers[0].lines[2]
    low, high = bars.get_segments()[0][:, 1]  # of 1 ms and the host's half: 1 %
    assert (low, high) == pytest.approx((0.985, 1.015))
    assert "without the host's wait of 0.500 ms" in cost.get_ylabel()
    assert list(single.get_ydata()) == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])


def test_plain_alone_is_drawn_too(tmp_path):
    whole = report(costs=0)
    plain = tuple(line for line in whole.lines if line.drafts == 0)
    draw(replace(whole, lines=plain, draft_model=None), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_without_the_library_one_line_names_the_extra(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(Unsupported, match=r"pip install 'mtp-mlx\[plot\]'"):
        check_plots()
