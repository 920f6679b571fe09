"""What pmset prints, in the forms that macOS has, and what is read from it."""

import pytest

from mtp_mlx.doctor.mac import (
    Battery,
    battery,
    is_low_power,
    output_of,
    speed_limit,
    thermal_warning,
)
from mtp_mlx.doctor.system import heat, power

SETTINGS = """System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 hibernatefile        /var/vm/sleepimage
 powernap             1
 networkoversleep     0
 disksleep            10
 sleep                1 (sleep prevented by powerd, coreaudiod)
 hibernatemode        3
 ttyskeepawake        1
 displaysleep         2
 tcpkeepalive         1
 lowpowermode         {}
 womp                 0
"""
POWERMODE = "Currently in use:\n powermode            {}\n womp                 0\n"
COOL = """Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
Note: No CPU power status has been recorded
"""
LIMITED = """Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
2026-07-01 10:00:00 +0200 CPU Power notify
\tCPU_Scheduler_Limit \t= 100
\tCPU_Available_CPUs \t= 8
\tCPU_Speed_Limit \t= {}
"""
WARNED = "Thermal Warning Level = 2\nNote: No CPU power status has been recorded\n"
ON_BATTERY = """Now drawing from 'Battery Power'
 -InternalBattery-0 (id=22609955)\t79%; discharging; 5:12 remaining present: true
"""
DESKTOP = "Now drawing from 'AC Power'\n"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SETTINGS.format(1), True),
        (SETTINGS.format(0), False),
        (POWERMODE.format(1), True),
        (POWERMODE.format(0), False),
        (POWERMODE.format(2), False),  # High Power Mode
        ("", None),
        ("lowpowermode", None),
    ],
)
def test_low_power_mode(settings, expected):
    assert is_low_power(settings) is expected


@pytest.mark.parametrize(
    ("therm", "limit", "level"),
    [
        (COOL, None, None),
        (LIMITED.format(100), 100, None),
        (LIMITED.format(62), 62, None),
        (WARNED, None, 2),
        ("", None, None),
    ],
)
def test_heat(therm, limit, level):
    assert (speed_limit(therm), thermal_warning(therm)) == (limit, level)


@pytest.mark.parametrize(
    ("batt", "expected"),
    [
        (ON_BATTERY, Battery("Battery Power", 79)),
        (DESKTOP, Battery("AC Power", None)),
        ("", None),
    ],
)
def test_battery(batt, expected):
    assert battery(batt) == expected


@pytest.mark.parametrize(
    ("therm", "ok", "observed"),
    [
        (COOL, True, "nothing recorded"),
        (LIMITED.format(100), True, "speed limit 100%"),
        (LIMITED.format(62), False, "speed limit 62%"),
        (WARNED, False, "warning level 2"),
        (None, True, "unknown"),
    ],
)
def test_the_check_of_heat(therm, ok, observed):
    found = heat(therm)
    assert (found.ok, found.observed, found.severity) == (ok, observed, "warning")


def test_the_checks_of_power():
    low, source = power(SETTINGS.format(1), ON_BATTERY)
    assert (low.ok, low.observed, "Low Power Mode" in low.fix) == (False, "on", True)
    assert (source.ok, source.observed) == (True, "Battery Power, 79%")
    (unknown,) = power(None, None)
    assert (unknown.ok, unknown.observed) == (True, "unknown")


def test_a_tool_that_is_missing_or_fails_says_nothing():
    assert output_of("no-such-tool-of-any-system") is None
    assert output_of("false") is None
    assert output_of("echo", "7") == "7\n"
