"""How deep each row drafts, decided every round. Pure: no arrays, no clock, no chance, no files."""

from mtp_mlx.engine.policy.calibration import Calibration, Experts
from mtp_mlx.engine.policy.decision import Allocation
from mtp_mlx.engine.policy.inputs import (
    Limits,
    Outcome,
    RowId,
    RowInput,
    SeenExperts,
    Shadow,
    Timing,
)
from mtp_mlx.engine.policy.state import State, allocate, observe, retire

__all__ = [
    "Allocation",
    "Calibration",
    "Experts",
    "Limits",
    "Outcome",
    "RowId",
    "RowInput",
    "SeenExperts",
    "Shadow",
    "State",
    "Timing",
    "allocate",
    "observe",
    "retire",
]
