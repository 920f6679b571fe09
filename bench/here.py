"""Where and with what a benchmark ran, for its JSON line."""

import platform
import time
from importlib.metadata import version

from mtp_mlx import __version__
from mtp_mlx.model.backend import device_name


def here() -> dict[str, str]:
    """Date, machine and versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.platform(),
        "device": device_name(),
        "mlx": version("mlx"),
        "mtp_mlx": __version__,
    }
