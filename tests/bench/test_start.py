"""What starting costs: how often it is asked."""

import sys

import pytest

from bench import start


@pytest.mark.parametrize(
    ("options", "repeats"),
    [([], 7), (["--quick"], 1), (["--quick", "--repeats", "20"], 20), (["--repeats", "2"], 2)],
)
def test_quick_gives_way_to_what_is_named(options, repeats, monkeypatch):
    asked = []
    monkeypatch.setattr(start, "measure", lambda count: asked.append(count) or [])
    monkeypatch.setattr(start, "sizes", dict)
    monkeypatch.setattr(sys, "argv", ["start", *options])
    start.main()
    assert asked == [repeats]
