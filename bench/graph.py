"""How many operations MLX runs for a forward: counted in its graph, so the same on every run.

On small models and fast devices an operation costs more to hand over than to compute; this is what
the host builds and the device is told, for a plain step and for the verify of rounds with drafts.
Prints a table, then one JSON line.

    python -m bench.graph --pair tiny
"""

import argparse
import json
import re
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import mlx.core as mx

from mtp_mlx.checkpoint import open_target
from mtp_mlx.embedded import NAMES, embedded_folder
from mtp_mlx.measure.where import where
from mtp_mlx.model import target as target_module
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.load import load_target
from mtp_mlx.model.target import Target

PROMPT = 40
ROWS = (1, 4, 8)
DRAFTS = (0, 3)
SHOWN = 6
_LABEL = re.compile(r'label ="([^"]+)", shape=rectangle')


def operations(target: Target, rows: int, drafts: int) -> Counter[str]:
    """By kind, of a forward of so many rows of 1 + `drafts` tokens, its logits included."""
    cache = target.new_cache(rows, 8)
    for slot in range(rows):
        chunk = Batch.of((Row(slot, 0, PROMPT),), mx.array([5] * PROMPT), is_chunk=True)
        mx.eval(target.prefill(chunk, cache))
        mx.eval([(ring.keys, ring.values) for ring in cache.window.values()])
        cache.commit(slot, PROMPT)
    batch = tuple(Row(slot, PROMPT, 1 + drafts) for slot in range(rows))
    with patch.object(target_module, "queue"), tempfile.TemporaryDirectory() as folder:
        tokens = mx.array([7] * rows * (1 + drafts))
        logits = target.logits(target(Batch.of(batch, tokens), cache))
        file = Path(folder) / "graph.dot"
        mx.export_to_dot(str(file), logits)
        return Counter(_LABEL.findall(file.read_text()))


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", choices=NAMES, action="append")
    arguments = parser.parse_args()
    lines = []
    print(f"{'pair':>9} {'rows':>4} {'drafts':>6} {'operations':>10}  most often")
    for name in arguments.pair or NAMES:
        target = load_target(open_target(embedded_folder(name)), mx.float32)
        for rows in ROWS:
            for drafts in DRAFTS:
                kinds = operations(target, rows, drafts)
                fused = sum(count for kind, count in kinds.items() if kind.startswith("Compiled"))
                plain = {k: n for k, n in kinds.most_common() if not k.startswith("Compiled")}
                most = ", ".join(f"{kind} {plain[kind]}" for kind in list(plain)[:SHOWN])
                line = {"pair": name, "rows": rows, "drafts": drafts, "operations": kinds.total()}
                lines.append(line | {"compiled": fused})
                print(f"{name:>9} {rows:>4} {drafts:>6} {kinds.total():>10}  fused {fused}, {most}")
    print(json.dumps({"bench": "graph", "machine": asdict(where()), "lines": lines}))


if __name__ == "__main__":
    main()
