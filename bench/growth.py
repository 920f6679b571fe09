"""How time and memory grow with the context: a small random model over made-up keys and values.

Rounds at 1k to 64k tokens of a model with sliding layers alone, one with full layers alone (plain
steps), and a pair with both (3 drafts); then the last chunk of a prompt behind as many tokens. Fits
exponents: of times of sliding layers (0 is flat), and of the steps of full layers' times from one
context to the next (1 is linear). Contexts are interleaved, medians taken; exponents of times are
as noisy as the machine, those of bytes exact. Prints one table, then one JSON line. Exit code 1
where memory grows faster than it may, or a time is superlinear beyond what noise explains.

    python -m bench.growth
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np

from mtp_mlx.engine.engine import Engine
from mtp_mlx.fit import MARGIN, PREFILL_CHUNK, work_bytes
from mtp_mlx.measure.where import where
from mtp_mlx.model.drafter import Drafter
from mtp_mlx.model.target import Target
from tests.memory.long_context import (
    ROOM,
    SMALL,
    engine_at,
    make_pair,
    make_target,
    peak_growth_bytes,
    reading_engine_at,
)

CONTEXTS = (1 << 10, 1 << 12, 1 << 14, 1 << 16)
SLIDING, FULL = replace(SMALL, pattern="SSSSSS"), replace(SMALL, pattern="FFFFFF")
DRAFTS = 3
CHUNKS = (PREFILL_CHUNK // 4, PREFILL_CHUNK)
WARM_ROUNDS = 2
MOST_ROUNDS = ROOM // 4 // (DRAFTS + 1) - WARM_ROUNDS  # that the rows have room for, twice
# Exponents above these are superlinear, and not flat; noise of a shared machine is below.
MOST_LINEAR, MOST_FLAT = 1.2, 0.2
MOST_GROWN = 1.5  # times the shortest context's time, of sliding layers at the longest
NOISE = 0.2  # of a figure: smaller gains tell no exponent
EXACT = 1e-6
SMALL_THINGS = 1 << 20  # bytes that a toy's chunk takes beside what the plan counts
Line = dict[str, Any]


def exponent(contexts: Sequence[int], values: Sequence[float]) -> float:
    """p of the closest a · context^p, by least squares of logarithms."""
    return float(np.polyfit(np.log(contexts), np.log(values), 1)[0])


def exponent_of_steps(lines: Sequence[Line], name: str) -> float | None:
    """p where a figure is some constant and a · context^p: that of its steps from context to
    context, which lie equally far apart. First steps may be lost in noise, behind the constant: the
    last of them counts as large as that noise, so that p is the least it may be. None where the
    last step is lost too, for the figure is flat then.
    """
    steps = [after[name] - before[name] for before, after in pairwise(lines)]
    noises = [NOISE * line[name] for line in lines[:-1]]
    clear = [step >= noise for step, noise in zip(steps, noises, strict=True)]
    if not clear[-1]:
        return None
    lost = len(clear) - [*clear[::-1], False].index(False)
    first = max(lost - 1, 0)
    steps = [noises[first] if lost else steps[0], *steps[first + 1 :]]
    return exponent([line["context"] for line in lines[1 + first :]], steps)


@dataclass(frozen=True)
class Model:
    """What rounds are timed of, and the drafts of each."""

    target: Target
    drafter: Drafter | None
    drafts: int

    def engine(self, length: int) -> Engine:
        """One row behind `length` tokens."""
        return engine_at(self.target, self.drafter, (length,), self.drafts)


def models() -> dict[str, Model]:
    """By the kinds of their layers."""
    return {
        "sliding": Model(make_target(SLIDING, np.random.default_rng(0)), None, 0),
        "full": Model(make_target(FULL, np.random.default_rng(0)), None, 0),
        "both": Model(*make_pair(SMALL), DRAFTS),
    }


def round_lines(contexts: Sequence[int], rounds: int) -> list[Line]:
    """Milliseconds of a round by model and context, and the bytes of its K/V."""
    lines = []
    for name, model in models().items():
        engines = {length: model.engine(length) for length in contexts}
        taken: dict[int, list[float]] = {length: [] for length in engines}
        for repeat in range(WARM_ROUNDS + rounds):
            for length, engine in engines.items():
                engine.step()  # the one before may have had the longest context: caches are cold
                started = time.perf_counter()
                engine.step()
                if repeat >= WARM_ROUNDS:
                    taken[length].append(1e3 * (time.perf_counter() - started))
        for length in engines:
            # A new engine: where many live, what one of them frees late counts against another.
            engine = model.engine(length)
            lines.append(
                {
                    "model": name,
                    "context": length,
                    "ms": statistics.median(taken[length]),
                    "full_bytes": engine.cache.full_bytes(0),
                    "ring_bytes": _ring_bytes(engine),
                    "work_bytes": peak_growth_bytes(engine, WARM_ROUNDS),
                }
            )
        del engines, engine
        gc.collect()
    return lines


def _ring_bytes(engine: Engine) -> int:
    rings = engine.cache.window.values()
    return sum(buffer.nbytes for ring in rings for buffer in (ring.keys, ring.values))


def chunk_lines(contexts: Sequence[int], chunks: Sequence[int]) -> list[Line]:
    """What the last chunk of a prompt needs beside K/V, and what the memory plan counts for it,
    which adds a margin."""
    target: Target = make_pair(SMALL)[0]
    lines = []
    for chunk in chunks:
        for length in contexts:
            engine = reading_engine_at(target, length, chunk)
            planned = work_bytes(target.config, length + chunk, 1, mx.float32.size, chunk)
            started = time.perf_counter()
            used = peak_growth_bytes(engine, 1)
            lines.append(
                {
                    "chunk": chunk,
                    "context": length,
                    "ms": 1e3 * (time.perf_counter() - started),
                    "work_bytes": used,
                    "planned_bytes": planned,
                }
            )
    return lines


def fits(rounds: Sequence[Line], chunks: Sequence[Line]) -> Line:
    """Every exponent by name, and the most of a plan that a chunk has used."""
    own = {
        name: [line for line in rounds if line["model"] == name]
        for name in ("sliding", "full", "both")
    }

    def overall(model: str, name: str) -> float:
        lines = own[model]
        return exponent([line["context"] for line in lines], [line[name] for line in lines])

    return {
        "sliding_ms": overall("sliding", "ms"),
        "sliding_grown": own["sliding"][-1]["ms"] / own["sliding"][0]["ms"],
        "full_ms_steps": exponent_of_steps(own["full"], "ms"),
        "both_ms_steps": exponent_of_steps(own["both"], "ms"),
        "sliding_ring_bytes": overall("sliding", "ring_bytes"),
        "full_bytes_steps": exponent_of_steps(own["full"], "full_bytes"),
        "full_work_bytes": overall("full", "work_bytes"),
        "chunk_share_of_plan": max(line["work_bytes"] / line["planned_bytes"] for line in chunks),
    }


def memory_faults(fitted: Line, chunks: Sequence[Line]) -> list[str]:
    """What takes more memory than it may, whatever the machine does beside."""
    found = []
    if abs(fitted["sliding_ring_bytes"]) > EXACT:
        found.append("rings grow with the context")
    if fitted["full_bytes_steps"] is None or abs(fitted["full_bytes_steps"] - 1) > EXACT:
        found.append("the K/V of full layers is not linear in the context")
    for line in chunks:
        if line["work_bytes"] > (1 + MARGIN) * line["planned_bytes"] + SMALL_THINGS:
            found.append(f"a chunk of {line['chunk']} at {line['context']:,} exceeds the plan")
    return found


def time_faults(fitted: Line) -> list[str]:
    """What takes longer than it may, by more than noise explains."""
    limits = {
        "sliding_ms": MOST_FLAT,
        "sliding_grown": MOST_GROWN,
        "full_ms_steps": MOST_LINEAR,
        "both_ms_steps": MOST_LINEAR,
    }
    found = {name: fitted[name] for name, most in limits.items() if (fitted[name] or 0) > most}
    return [f"{name} is {each:.2f}" for name, each in found.items()]


def show(rounds: Sequence[Line], chunks: Sequence[Line], fitted: Line) -> None:
    """The table."""
    titles = ("full K/V", "rings", "work", "plan")
    print(f"{'model':<14}{'context':>8}{'ms':>11}" + "".join(f"{each:>13}" for each in titles))
    for line in rounds:
        print(
            f"{line['model']:<14}{line['context']:>8,}{line['ms']:>11.2f}{line['full_bytes']:>13,}"
            f"{line['ring_bytes']:>13,}{line['work_bytes']:>13,}"
        )
    for line in chunks:
        name = f"chunk of {line['chunk']}"
        print(
            f"{name:<14}{line['context']:>8,}{line['ms']:>11.2f}{'':>26}"
            f"{line['work_bytes']:>13,}{line['planned_bytes']:>13,}"
        )
    said = {name: "none" if each is None else f"{each:.3f}" for name, each in fitted.items()}
    print("exponents: " + ", ".join(f"{name} {each}" for name, each in said.items()))


def main() -> int:
    """Print the table and the JSON line; 1 where something grows too fast."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="timed of each model, 30")
    parser.add_argument("--quick", action="store_true", help="8 rounds, chunks of 256 alone")
    arguments = parser.parse_args()
    usual = 8 if arguments.quick else 30
    wanted = usual if arguments.rounds is None else arguments.rounds
    if not 1 <= wanted <= MOST_ROUNDS:
        print(f"bench.growth: --rounds is {wanted}, not from 1 to {MOST_ROUNDS}", file=sys.stderr)
        return 2
    rounds = round_lines(CONTEXTS, wanted)
    chunks = chunk_lines(CONTEXTS, CHUNKS[:1] if arguments.quick else CHUNKS)
    fitted = fits(rounds, chunks)
    show(rounds, chunks, fitted)
    found = memory_faults(fitted, chunks) + time_faults(fitted)
    for fault in found:
        print(f"bench.growth: {fault}", file=sys.stderr)
    result = {"bench": "growth", "machine": asdict(where()), "fitted": fitted, "faults": found}
    print(json.dumps(result | {"rounds": rounds, "chunks": chunks}))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
