"""Where the peers are installed: in an environment of their own, made by `make peers`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-peers"
ABSENT = "not installed; make peers installs it"


def python() -> Path | None:
    """Its interpreter; None where it has not been made to the end."""
    return FOLDER / "bin" / "python" if (FOLDER / "ready").exists() else None
