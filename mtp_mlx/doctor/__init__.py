"""Checks of this machine: what a run needs, what would be slow, and how to mend either.

A tool that is not there, or says nothing, is no fault. Nothing is measured that takes longer than a
moment, and no level of exactness is claimed: `mtp-mlx verify` shows that.
"""

from mtp_mlx.doctor.check import Check
from mtp_mlx.doctor.system import has_mlx, system_checks


def examine(
    model: str,
    draft_model: str = "auto",
    dtype: str | None = None,
    memory_limit: int | str | None = None,
) -> list[Check]:
    """All checks, those of `model` among them."""
    found = system_checks()
    if not has_mlx():
        return found
    from mtp_mlx.doctor.pair import pair_checks

    return [*found, *pair_checks(model, draft_model, dtype, memory_limit)]


def is_sound(checks: list[Check]) -> bool:
    """Is nothing wrong that keeps a run from working?"""
    return not any(check.severity == "error" and not check.ok for check in checks)
