"""What macOS says of its power and heat, read from the output of its own tools."""

import re
import subprocess
from dataclasses import dataclass

TIMEOUT_S = 5.0
FULL_SPEED = 100
_LOW_POWER = re.compile(r"^\s*lowpowermode\s+(\d+)\s*$", re.MULTILINE)
_POWER_MODE = re.compile(r"^\s*powermode\s+(\d+)\s*$", re.MULTILINE)
_LIMIT = re.compile(r"^\s*CPU_Speed_Limit\s*=\s*(\d+)\s*$", re.MULTILINE)
_WARNING = re.compile(r"thermal warning level\s*(?:(?:is )?set to|=)\s*(\d+)", re.IGNORECASE)
_SOURCE = re.compile(r"Now drawing from '([^']+)'")
_CHARGE = re.compile(r"(\d{1,3})%;")
LOW_POWER = 1


@dataclass(frozen=True)
class Battery:
    """Where the power comes from; `charge` in percent, None for a machine without a battery."""

    source: str
    charge: int | None


def output_of(*command: str) -> str | None:
    """What a tool prints; None where there is no such tool, or it fails."""
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.decode(errors="replace") if result.returncode == 0 else None


def is_low_power(settings: str) -> bool | None:
    """Is Low Power Mode on, by `pmset -g`? None where it does not say."""
    found = _LOW_POWER.search(settings) or _POWER_MODE.search(settings)
    return None if found is None else int(found[1]) == LOW_POWER


def speed_limit(therm: str) -> int | None:
    """Percent of its speed that the chip is allowed, by `pmset -g therm`; None where nothing was
    recorded, which is the case for a cool machine."""
    found = _LIMIT.search(therm)
    return None if found is None else int(found[1])


def thermal_warning(therm: str) -> int | None:
    """The level of the last thermal warning, by `pmset -g therm`; None where there was none."""
    found = _WARNING.search(therm)
    return None if found is None else int(found[1])


def battery(batt: str) -> Battery | None:
    """Where the power comes from, by `pmset -g batt`; None where it does not say."""
    source, charge = _SOURCE.search(batt), _CHARGE.search(batt)
    if source is None:
        return None
    return Battery(source[1], None if charge is None else int(charge[1]))
