"""What the five published pairs take: weights, drafter and K/V by context and rows; the last line
is JSON. Computed from their shapes; nothing is measured."""

import json
from dataclasses import asdict

from mtp_mlx.fit import Plan, make_plan
from mtp_mlx.measure.where import where
from mtp_mlx.pair_names import SIZES
from mtp_mlx.shapes import published

ITEM_BYTES = 2  # bfloat16, as on a Mac
NO_LIMIT = 1 << 62
CONTEXTS, ROWS = (8192, 32768), (1, 8)
PARTS = ("weights", "drafter", "windows", "texts", "work", "margin", "total", "peak")
TITLES = ("weights", "drafter", "sliding", "full", "work", "margin", "needed", "peak")


def plan_of(size: str, rows: int, context: int) -> Plan:
    """The plan of a 4-bit target with its bfloat16 drafter."""
    pair = published(f"{size}-4bit")
    assert pair is not None
    tensors = (pair.target_tensors, pair.drafter_tensors)
    return make_plan(pair.target, tensors, rows, ITEM_BYTES, NO_LIMIT, context)


def parts_of(plan: Plan) -> dict[str, int]:
    """Bytes by purpose."""
    sizes = (plan.weights, plan.drafter, plan.windows, plan.texts, plan.work, plan.margin)
    return dict(zip(PARTS, (*sizes, plan.total, plan.peak), strict=True))


def main() -> None:
    """Print the table in GB, then everything in bytes."""
    print("GB of 4-bit targets with bfloat16 drafter and K/V")
    print(f"{'pair':<6}{'rows':>5}{'context':>9}" + "".join(f"{title:>9}" for title in TITLES))
    found = []
    for size in SIZES:
        for rows in ROWS:
            for context in CONTEXTS:
                parts = parts_of(plan_of(size, rows, context))
                figures = "".join(f"{size_bytes / 1e9:>9.2f}" for size_bytes in parts.values())
                print(f"{size:<6}{rows:>5}{context:>9,}{figures}")
                found.append({"pair": f"{size}-4bit", "rows": rows, "context": context} | parts)
    print(json.dumps({"bench": "fit_table", "machine": asdict(where()), "fit": found}))


if __name__ == "__main__":
    main()
