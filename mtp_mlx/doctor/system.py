"""What every run needs: versions, the system, folders, variables."""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mtp_mlx import __version__, calibration_file
from mtp_mlx.doctor import mac
from mtp_mlx.doctor.check import Check
from mtp_mlx.errors import MtpError
from mtp_mlx.fit import spell
from mtp_mlx.hub.cache import cache_folder, is_offline
from mtp_mlx.machine import machine_memory
from mtp_mlx.settings import config_path

PYTHON, MLX, MACOS = (3, 11), (0, 32, 4), (14, 0)
PACKAGES = ("numpy", "tokenizers", "jinja2", "click")
PRELOADS = ("LD_PRELOAD", "DYLD_INSERT_LIBRARIES")
OTHER_BLAS = ("blas", "mkl", "atlas", "blis")


def system_checks() -> list[Check]:
    """All checks that need no model and no MLX."""
    return [*_versions(), _native(), *_system(), *_folders(), _hub(), _preload()]


# --- versions ---


def _versions() -> Iterator[Check]:
    """Python and the packages that all commands need."""
    yield Check("mtp-mlx", True, "info", "", __version__)
    found = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, PYTHON))
    yield Check(
        "python",
        sys.version_info[:2] >= PYTHON,
        "error",
        f"{wanted} or newer",
        found,
        f"install Python {wanted} or newer",
    )
    installed = _version_of("mlx")
    is_new = installed is not None and _numbers(installed) >= MLX
    yield Check(
        "mlx",
        has_mlx() and is_new,
        "error" if installed is None or not has_mlx() else "warning",
        f"{'.'.join(map(str, MLX))} or newer",
        installed or "not installed",
        "pip install mtp-mlx on a Mac, 'mtp-mlx[cpu]' on Linux, 'mtp-mlx[cuda]' for NVIDIA",
    )
    missing = [name for name in PACKAGES if _version_of(name) is None]
    listed = ", ".join(f"{name} {_version_of(name)}" for name in PACKAGES if name not in missing)
    fix = "pip install --force-reinstall mtp-mlx"
    yield Check("packages", not missing, "error", ", ".join(PACKAGES), listed, fix)


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numbers(spelled: str) -> tuple[int, ...]:
    """The numbers of a version, as far as they go."""
    numbers = []
    for part in spelled.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def has_mlx() -> bool:
    try:
        import mlx.core  # noqa: F401
    except ImportError:
        return False
    return True


# --- the system ---


def _native() -> Check:
    """A Python for Intel on Apple's chips runs translated, and MLX's Metal backend is not there."""
    machine = platform.machine()
    translated = mac.output_of("sysctl", "-n", "sysctl.proc_translated") if _is_mac() else None
    is_translated = translated is not None and translated.strip() == "1"
    return Check(
        "native-python",
        not is_translated and (not _is_mac() or machine == "arm64"),
        "error",
        "arm64, native" if _is_mac() else "native",
        f"{machine}, translated by Rosetta" if is_translated else machine,
        "install Python for Apple silicon (uv python install, or python.org's universal2)",
    )


def _is_mac() -> bool:
    return sys.platform == "darwin"


def _system() -> Iterator[Check]:
    """The system, its memory, and what makes a Mac slow."""
    if not _is_mac():
        yield Check("system", True, "info", "", f"{platform.system()} {platform.release()}")
    else:
        release = platform.mac_ver()[0]
        wanted = ".".join(map(str, MACOS))
        is_new = _numbers(release) >= MACOS
        yield Check("macos", is_new, "error", f"{wanted} or newer", release, "update macOS")
        yield from power(mac.output_of("pmset", "-g"), mac.output_of("pmset", "-g", "batt"))
        yield heat(mac.output_of("pmset", "-g", "therm"))
    yield Check("memory", True, "info", "", spell(machine_memory()))


def power(settings: str | None, batt: str | None) -> Iterator[Check]:
    """Low Power Mode and where the power comes from, by the output of pmset."""
    low = None if settings is None else mac.is_low_power(settings)
    yield Check(
        "low-power-mode",
        not low,
        "warning",
        "off",
        {None: "unknown", True: "on", False: "off"}[low],
        "System Settings > Battery > Low Power Mode: Never, or: sudo pmset -a lowpowermode 0",
    )
    source = None if batt is None else mac.battery(batt)
    if source is None:
        return
    charge = "" if source.charge is None else f", {source.charge}%"
    yield Check("power", True, "info", "", f"{source.source}{charge}")


def heat(therm: str | None) -> Check:
    """Whether the chip is slowed down for its heat, by the output of pmset."""
    limit = None if therm is None else mac.speed_limit(therm)
    level = None if therm is None else mac.thermal_warning(therm)
    slowed = limit is not None and limit < mac.FULL_SPEED
    seen = [] if limit is None else [f"speed limit {limit}%"]
    seen += [] if level is None else [f"warning level {level}"]
    quiet = "unknown" if therm is None else "nothing recorded"
    return Check(
        "thermal",
        not slowed and not level,
        "warning",
        "no limit",
        ", ".join(seen) or quiet,
        "let the machine cool down; figures of tune taken now would be wrong",
    )


# --- folders and variables ---


def _folders() -> Iterator[Check]:
    """Where calibrations, models and settings are kept."""
    places: list[tuple[str, Callable[[], Path], str]] = [
        ("cache-folder", calibration_file.cache_folder, "XDG_CACHE_HOME"),
        ("hub-folder", _hub_folder, "HF_HOME"),
        ("config-folder", lambda: config_path().parent, "XDG_CONFIG_HOME"),
    ]
    for name, find, variable in places:
        try:
            folder = find()
        except (OSError, MtpError) as error:
            observed, can_write = str(error), False
        else:
            observed, can_write = str(folder), _can_write(folder)
        fix = f"make it writable, or set {variable} to a folder that is"
        yield Check(name, can_write, "warning", "a folder that can be written", observed, fix)


def _can_write(folder: Path) -> bool:
    """May files be written to this folder, or to the first one above that is there?"""
    for place in (folder, *folder.parents):
        with suppress(OSError):
            if place.exists():
                return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def _hub() -> Check:
    """May mtp-mlx pull ask the network?"""
    observed = "offline (HF_HUB_OFFLINE): nothing is fetched" if is_offline() else "not offline"
    return Check("hub", True, "info", "", observed)


def _hub_folder() -> Path:
    """The hub's cache. Raises OSError for a user without a home folder."""
    folder = cache_folder()
    if folder is None:
        raise OSError("this user has no home folder")
    return folder


def preloaded_blas() -> list[str]:
    """Variables that put another BLAS in MLX's place, with their values."""
    return [
        f"{name}={os.environ[name]}"
        for name in PRELOADS
        if any(word in os.environ.get(name, "").lower() for word in OTHER_BLAS)
    ]


def _preload() -> Check:
    """Another BLAS in MLX's place computes a row of a product otherwise among other rows."""
    found = preloaded_blas()
    return Check(
        "blas-preload",
        not found,
        "warning",
        "no other BLAS is preloaded",
        ", ".join(found) or "none",
        f"unset {' and '.join(PRELOADS)}: with another BLAS a text may differ in a batch",
    )
