"""One finding about this machine."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Check:
    """One finding. `fix`: what to do where it is not ok, empty where there is nothing to do."""

    id: str
    ok: bool
    severity: Severity
    expected: str
    observed: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
