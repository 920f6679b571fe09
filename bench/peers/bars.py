"""The ratios that are claimed, and what they must be at least (the issue's "Must show")."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.peers.cases import Seen, Variant
from bench.peers.process import LM, OWN, VLM
from bench.ratios import Compared, compared

WITHIN = "within the spread"


@dataclass(frozen=True)
class Bar:
    """`least` by number of rows. `with_blas`: only where rows are cheap, as OpenBLAS makes them.
    `draft_share`: only where a draft step takes less of a plain step. `is_strict`: it must be more
    than `least`."""

    name: str
    over: Variant
    under: Variant
    least: Mapping[int, float]
    with_blas: bool = False
    lengths: tuple[str, ...] = ("equal", "mixed")
    draft_share: float | None = None
    is_strict: bool = False

    def is_met(self, rows: int, ratio: float) -> bool:
        return ratio > self.least[rows] or (not self.is_strict and ratio == self.least[rows])

    def is_asked(self, rows: int, lengths: str, draft_share: float | None) -> bool:
        """`draft_share`: as measured, with a BLAS; None without one."""
        if rows not in self.least or lengths not in self.lengths:
            return False
        if self.draft_share is not None:
            return draft_share is not None and draft_share < self.draft_share
        return draft_share is not None or not self.with_blas


def bars(peer_drafts: int) -> tuple[Bar, ...]:
    lm, vlm = Variant(LM, 0), Variant(VLM, peer_drafts)
    plain, auto = Variant(OWN, 0), Variant(OWN, "auto")
    return (
        Bar("plain / mlx-lm plain", plain, lm, {1: 1.4, 4: 1.4, 8: 1.4}),
        Bar("auto / plain", auto, plain, {1: 0.98, 4: 0.98, 8: 0.98}),
        Bar("auto / mlx-lm plain", auto, lm, {1: 2.0, 4: 1.7, 8: 1.6}, with_blas=True),
        Bar(
            "auto / plain, drafts cheap",
            *(auto, plain, {1: 1.0, 4: 1.0, 8: 1.0}),
            with_blas=True,
            draft_share=0.2,
            is_strict=True,
        ),
        Bar("auto / mlx-vlm MTP", auto, vlm, {1: 1.3}),
        Bar("auto / mlx-vlm MTP", auto, vlm, {8: 5.0}, lengths=("mixed",)),
    )


def judged(
    seen: Mapping[Variant, Seen],
    rows: int,
    lengths: str,
    draft_share: float | None,
    peer_drafts: int,
) -> list[dict[str, Any]]:
    """The bars of a case whose variants are all here, by decoding speed. `draft_share`: what a
    draft step takes of a plain step, with a preloaded BLAS; None without one."""
    found = []
    for bar in bars(peer_drafts):
        if bar.is_asked(rows, lengths, draft_share) and bar.over in seen and bar.under in seen:
            measured = compared(seen[bar.over].decode, seen[bar.under].decode)
            about = {"bar": bar.name, "least": bar.least[rows], "is_strict": bar.is_strict}
            found.append({**about, **verdict(bar, rows, measured), **measured})
    return found


def verdict(bar: Bar, rows: int, measured: Compared) -> dict[str, Any]:
    """Met or missed by the median, and whether every repeat says so."""
    is_met, lowest, highest = (
        bar.is_met(rows, measured[name]) for name in ("median", "lowest", "highest")
    )
    told = WITHIN if lowest != highest else "met" if is_met else "missed"
    return {"is_met": is_met, "verdict": told}
