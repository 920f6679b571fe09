"""A planner that no policy would be."""

import random

from mtp_mlx.engine.planner import Decision
from mtp_mlx.engine.policy import Outcome, RowInput, Shadow, Timing
from mtp_mlx.request import MAX_DRAFT_TOKENS


class Moody:
    """Draft lengths and shadows by chance, a new mood every round; notes what it is told."""

    k_max = MAX_DRAFT_TOKENS

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.told: list[tuple[Decision, tuple[Outcome, ...], Timing, tuple[Shadow, ...]]] = []
        self.left: list[int] = []

    def plan(self, rows: tuple[RowInput, ...], in_the_air: int = 0) -> Decision:
        is_plain = self.dice.random() < 0.4
        made = tuple(0 if is_plain else self.dice.randint(0, row.cap) for row in rows)
        return Decision(tuple(self.dice.randint(0, count) for count in made), made)

    def learn(self, decision, outcomes, timing, shadows) -> None:
        self.told.append((decision, outcomes, timing, shadows))

    def retire(self, row: int) -> None:
        self.left.append(row)

    @property
    def shadows(self) -> list[Shadow]:
        return [shadow for *_, shadows in self.told for shadow in shadows]
