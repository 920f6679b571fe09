"""What this machine has, as far as a plan or a check of it must know; no MLX."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown
from mtp_mlx.request import check_integer

# Of the machine's memory, and of a GPU's own: the rest is for the system and other programs.
RAM_SHARE, GPU_SHARE = 0.75, 0.9
# What a container of this process may use, where it is one: versions 2 and 1 of Linux' cgroups.
CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
MOST_BYTES = 1 << 62
UNITS = {"%": 0, "": 1, "B": 1, "MB": 10**6, "GB": 10**9, "MIB": 1 << 20, "GIB": 1 << 30}
_LIMIT = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z%]*)")


@dataclass(frozen=True)
class Budget:
    """Bytes that a pair may take here, of the `total` that its device has; `bound` says in words
    what sets the first."""

    total: int
    available: int
    bound: str


def machine_memory() -> int:
    """Bytes of main memory, or of the container that this process runs in, where it has less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER_LIMITS:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such container, or "max"
            continue
    return min(limits)


def budget_of(info: Mapping[str, object]) -> Budget:
    """The budget, from what MLX says of its device: a share of a CUDA GPU's own memory, else of the
    machine's, and on Metal at most its recommended working set."""
    if "total_memory" in info:  # CUDA
        total = int(str(info["total_memory"]))
        return Budget(total, int(GPU_SHARE * total), f"{GPU_SHARE:.0%} of the GPU's memory")
    total = machine_memory()
    share = int(RAM_SHARE * total)
    most = int(str(info.get("max_recommended_working_set_size", share)))
    if most < share:
        return Budget(total, most, "Metal's recommended working set")
    return Budget(total, share, f"{RAM_SHARE:.0%} of the machine's memory")


def limit_bytes(limit: int | str, total: int) -> int:
    """Bytes of a limit: a number of them, 12GB, 900MiB, or 70%, which is of `total`. Raises
    RequestError."""
    if not isinstance(limit, str):
        check_integer("memory_limit", limit, 1, MOST_BYTES)
        return limit
    found = _LIMIT.fullmatch(limit.strip())
    unit = found[2].upper() if found else ""
    is_share = unit == "%"
    number = float(found[1]) if found else 0.0
    if unit not in UNITS or number <= 0 or (is_share and number > 100):
        raise RequestError(
            f"memory_limit must be a size (12GB) or a share (70%), found {shown(limit)}",
            param="memory_limit",
        )
    return max(int(total * number / 100 if is_share else number * UNITS[unit]), 1)
