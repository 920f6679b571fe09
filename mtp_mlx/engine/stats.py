"""What an engine has done since it began."""

from dataclasses import dataclass

from mtp_mlx.engine.round import Commit


@dataclass
class Counters:
    """Rows of rounds, drafts proposed and accepted, and tokens emitted by rounds."""

    rows: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0

    def count(self, drafted: int, kept: Commit) -> None:
        """One row of one round."""
        self.rows += 1
        self.drafted += drafted
        self.accepted += kept.accepted
        self.tokens += len(kept.tokens)
