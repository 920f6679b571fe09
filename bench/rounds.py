"""What a round costs on this machine: plain steps and rounds with drafts, interleaved.

Runs a golden pair (random weights, toy size), so the figures show the cost of building and running
graphs, not the speed of a real model. Prints a table, then one JSON line. Medians of interleaved
repeats; compare only figures of one run.

    python -m bench.rounds --variant e2b --repeats 30
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx

from bench.counts import positive
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


def measure(variant: str, repeats: int) -> list[dict[str, float]]:
    """Median milliseconds of a step for every batch and depth."""
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
    for _ in range(repeats):
        for cell, engine in engines.items():
            started = time.perf_counter()
            engine.step()
            seconds[cell].append(time.perf_counter() - started)
    return [
        {"batch": batch, "drafts": depth, "ms": 1e3 * statistics.median(seconds[batch, depth])}
        for batch, depth in cells
    ]


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=recipe.VARIANTS, default="e2b")
    parser.add_argument("--repeats", type=positive, default=30)
    arguments = parser.parse_args()
    rows = measure(arguments.variant, arguments.repeats)
    plain = {row["batch"]: row["ms"] for row in rows if row["drafts"] == 0}
    print(f"{'batch':>6} {'drafts':>6} {'ms a round':>11} {'of a plain step':>16}")
    for row in rows:
        row["ratio"] = row["ms"] / plain[row["batch"]]
        print(f"{row['batch']:>6} {row['drafts']:>6} {row['ms']:>11.2f} {row['ratio']:>16.2f}")
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
