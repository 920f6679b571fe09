"""What a round costs on this machine: plain steps and rounds with drafts, interleaved.

Runs a golden pair (random weights, toy size), so the figures show the cost of building and running
graphs, not the speed of a real model. Prints a table, then one JSON line. Medians and quartiles of
interleaved repeats; a ratio is of the same repeats, and not told where it is within their noise.
Compare only figures of one run.

    python -m bench.rounds --variant e2b --repeats 30
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from bench.counts import positive
from bench.ratios import compared, told
from mtp_mlx.checkpoint import open_drafter, open_target
from mtp_mlx.engine.engine import Engine
from mtp_mlx.measure.where import where
from mtp_mlx.model.load import load_drafter, load_target
from mtp_mlx.request import Request, Sampling
from tests.golden import recipe

BATCHES = (1, 4, 8)
DEPTHS = (0, 1, 3, 7)
PROMPT_TOKENS = 40
NEW_TOKENS = 4000


def running_engine(engine: Engine, batch: int, depth: int) -> Engine:
    """The engine with `batch` rows past their prompts, each drafting `depth` tokens a round."""
    for row in range(batch):
        prompt = tuple(3 + (row + place) % 200 for place in range(PROMPT_TOKENS + 3 * row))
        request = Request(
            prompt=prompt, sampling=Sampling(), max_tokens=NEW_TOKENS, num_draft_tokens=depth
        )
        engine.submit(request)
    while any(s is None or not s.is_running for s in engine.slots):
        engine.step()
    return engine


def measure(variant: str, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of a step for every batch and depth, and over a plain step of the batch."""
    with tempfile.TemporaryDirectory() as folder:
        target_folder, drafter_folder = recipe.write_pair(Path(folder), variant)
        opened = open_target(target_folder)
        target = load_target(opened, mx.float32)
        drafter = load_drafter(open_drafter(drafter_folder, opened.config), mx.float32)
    cells = [(batch, depth) for batch in BATCHES for depth in DEPTHS]
    engines = {
        cell: running_engine(Engine(target, drafter, max_num_seqs=cell[0]), *cell) for cell in cells
    }
    seconds: dict[tuple[int, int], list[float]] = {cell: [] for cell in cells}
    for repeat in range(repeats + 1):
        for cell, engine in engines.items():
            started = time.perf_counter()
            engine.step()
            if repeat:  # the first one's work was done while other engines were set up
                seconds[cell].append(time.perf_counter() - started)
    return [
        {
            "batch": batch,
            "drafts": depth,
            "ms": 1e3 * statistics.median(seconds[batch, depth]),
            "quartiles_ms": quartiles(seconds[batch, depth]),
            "over_plain": compared(seconds[batch, depth], seconds[batch, 0]) if depth else None,
        }
        for batch, depth in cells
    ]


def quartiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper one, in milliseconds."""
    lower, upper = np.quantile(seconds, (0.25, 0.75))
    return 1e3 * float(lower), 1e3 * float(upper)


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=recipe.VARIANTS, default="e2b")
    parser.add_argument("--repeats", type=positive, default=30)
    arguments = parser.parse_args()
    rows = measure(arguments.variant, arguments.repeats)
    heads = f"{'ms a round':>11} {'quartiles':>13} {'of a plain step':>19}"
    print(f"{'batch':>6} {'drafts':>6} {heads}")
    for row in rows:
        span = "{:.2f}-{:.2f}".format(*row["quartiles_ms"])
        over = "" if row["over_plain"] is None else told(row["over_plain"])
        print(f"{row['batch']:>6} {row['drafts']:>6} {row['ms']:>11.2f} {span:>13} {over:>19}")
    print(
        json.dumps(
            {
                "bench": "rounds",
                "variant": arguments.variant,
                "machine": asdict(where()),
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
