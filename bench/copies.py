"""Memory that rounds need on top of the K/V, as a share of one K/V buffer.

Random models with synthetic cache contents at 8k and 64k tokens: a copy of a buffer would show as a
share of 1 or more. Prints a table, then one JSON line.

    python -m bench.copies
"""

import argparse
import json
from dataclasses import asdict

from mtp_mlx.measure.where import where
from tests.memory.long_context import (
    DEEP,
    SMALL,
    engine_at,
    largest_buffer_bytes,
    make_pair,
    peak_growth_bytes,
)

SHAPES = {"small": SMALL, "30 layers": DEEP}
LENGTHS = {"8k": 8 << 10, "64k": 64 << 10}
DRAFTS = {"pipelined plain steps": 0, "rounds of 3 drafts": 3}
STEPS = 3


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small model at 8k alone")
    is_quick = parser.parse_args().quick
    shapes = {"small": SMALL} if is_quick else SHAPES
    lengths = {"8k": LENGTHS["8k"]} if is_quick else LENGTHS
    rows = []
    print(
        f"{'model':10} {'context':>8} {'mode':24} {'buffer bytes':>13} {'growth':>10} {'share':>6}"
    )
    for name, shape in shapes.items():
        for context, length in lengths.items():
            for mode, drafts in DRAFTS.items():
                engine = engine_at(*make_pair(shape), (length,), drafts)
                growth, buffer = peak_growth_bytes(engine, STEPS), largest_buffer_bytes(engine)
                row = {"model": name, "context": context, "mode": mode, "buffer_bytes": buffer}
                rows.append(row | {"growth_bytes": growth, "share": growth / buffer})
                share = f"{growth / buffer:6.3f}"
                print(f"{name:10} {context:>8} {mode:24} {buffer:>13,} {growth:>10,} {share}")
    print(json.dumps({"bench": "copies", "machine": asdict(where()), "rows": rows}))


if __name__ == "__main__":
    main()
