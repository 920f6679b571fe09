"""Bytes and speed of a download."""

import io

import pytest

from mtp_mlx.cli.meter import Meter, bytes_text


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_550_000, "2.5 MB"), (7.5e9, "7.5 GB"),
     (3e15, "3000.0 TB")],
)  # fmt: skip
def test_sizes_are_spelled_as_a_disk_spells_them(number, text):
    assert bytes_text(number) == text


def test_the_speed_is_that_of_the_last_seconds():
    clock = Clock()
    meter = Meter(1_000_000_000, clock)
    for _ in range(20):
        clock.now += 1
        meter.count(1_000_000)
    assert meter.line().startswith("20.0 MB of 1.0 GB  1.0 MB/s  16 min 20 s left")
    for _ in range(10):
        clock.now += 1
        meter.count(10_000_000)
    assert "  10.0 MB/s  " in meter.line()
    clock.now += 100
    assert "  0 B/s  " in meter.line()


def test_the_time_left_is_not_guessed_at_once():
    clock = Clock()
    meter = Meter(100, clock)
    clock.now += 5
    meter.count(10)
    assert "left" not in meter.line()


def test_bytes_that_come_again_are_taken_back_and_names_are_made_safe():
    meter = Meter(100, Clock())
    meter.count(50)
    meter.count(-50)
    meter.say("\x1b[2Jname")
    assert meter.line() == "0 B of 100 B  0 B/s  ␛[2Jname"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_is_erased_at_the_end(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("mtp_mlx.cli.meter.REFRESH_S", 0.001)
    with Meter(10) as meter:
        meter.count(10)
        while "10 B of 10 B" not in screen.getvalue():
            pass
    assert "\n" not in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_elsewhere_there_is_a_line_now_and_then(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    monkeypatch.setattr("mtp_mlx.cli.meter.LINE_S", 0.001)
    with Meter(10):
        while log.getvalue().count("\n") < 2:
            pass
    assert "\x1b" not in log.getvalue() and "0 B of 10 B" in log.getvalue()
