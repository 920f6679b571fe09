"""A round that is queued on the device, with all that is needed when it lands."""

from dataclasses import dataclass

from mtp_mlx.engine.planner import Decision
from mtp_mlx.engine.policy import RowInput
from mtp_mlx.engine.prefixes import Copy
from mtp_mlx.engine.round import Flight


@dataclass(frozen=True)
class Airborne:
    """A round in the air, what the planner was told of its rows, its decision, and what is copied
    of rows that may pass a chunk border."""

    flight: Flight
    rows: tuple[RowInput, ...]
    decision: Decision
    copies: tuple[Copy, ...] = ()
