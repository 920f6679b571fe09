"""What a bench says of two variants that ran in the same repeats; measure.figures says when a ratio
is within the noise."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtp_mlx.measure.figures import WITHIN_NOISE, Figure, Ratio

Compared = Mapping[str, Any]


def compared(over: Sequence[float], under: Sequence[float]) -> dict[str, Any]:
    """How many times as much, repeat by repeat: `ratio` is the median, None within the noise; the
    median, the lowest and the highest are what they are."""
    pairs = Figure(tuple(a / b for a, b in zip(over, under, strict=True)))
    return {
        **Ratio(pairs).to_json(),
        "median": pairs.median,
        "lowest": min(pairs.values),
        "highest": max(pairs.values),
    }


def told(found: Compared) -> str:
    """The median and the range behind it; no figure that stands alone is told of noise."""
    span = f"{found['lowest']:.2f}-{found['highest']:.2f}"
    return f"{span} (noise)" if found["ratio"] is None else f"{found['ratio']:.2f} ({span})"


def told_range(every: Iterable[Compared]) -> str:
    """From the least to the most of several; those within the noise are counted alone."""
    ratios = [each["ratio"] for each in every]
    clear = [ratio for ratio in ratios if ratio is not None]
    parts = [f"{min(clear):.2f} to {max(clear):.2f}"] if clear else []
    if len(clear) < len(ratios):
        parts.append(f"{len(ratios) - len(clear)} of {len(ratios)} {WITHIN_NOISE}")
    return ", ".join(parts)
