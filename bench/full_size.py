"""Speed of the published shapes: random weights in memory, real kernels, scripted agreement.

A 4-bit target and its drafter are drawn in memory (bench/random_models.py: no files), the cache is
filled with made-up keys, and rounds are timed: plain, `auto` and fixed numbers of drafts, of which
each is right with probability `--agreement`; and verify forwards alone, over N tokens. For a Mac's
GPU, or MLX's CUDA backend; activations are bfloat16 there. On a CPU they are float32, and widths
are best divided by --shrink, which the output states: such figures are no model's.

Modes are interleaved, each on an engine of its own at the same context; medians of the repeats.
Prints one table, then one JSON line, which bench.roofline --measured sets beside its floors. A
machine whose memory is too small is refused before anything is drawn.

    python -m bench.full_size --pair 26b
    python -m bench.full_size --pair 12b --shrink 16 --quick
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import mlx.core as mx

from bench.models import STORAGES, Choice, configs
from bench.random_models import (
    PrescribedTarget,
    ScriptedDrafter,
    drawn,
    random_drafter,
    random_target,
    text_after,
)
from bench.ratios import compared
from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.engine.calibrate import calibrate
from mtp_mlx.engine.calibrated import LOAD_BUDGET_S, LOAD_REPEATS
from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.planner import PolicyPlanner, most_drafts
from mtp_mlx.engine.policy import Calibration
from mtp_mlx.engine.runtime import limit_here
from mtp_mlx.engine.timing import Bench
from mtp_mlx.fit import make_plan, spell
from mtp_mlx.measure.where import where
from mtp_mlx.model.backend import on_gpu, read_ints
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.drafter import Drafter
from mtp_mlx.model.routes import Routes
from mtp_mlx.pair_names import SIZES
from mtp_mlx.request import MAX_DRAFT_TOKENS
from mtp_mlx.shapes import drafter_shapes, stored, target_shapes
from tests.memory.long_context import engine_at

MAX_BLOCK = MAX_DRAFT_TOKENS + 1
WARM_ROUNDS = 2  # they compile, and fill the pipeline
LEARN_ROUNDS = 40  # of `auto`, before it is timed
DISTINCT_KEYS = 251  # of a made-up cache: equal ones would make all tokens alike
Mode = int | str
Line = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is timed."""

    batches: Sequence[int] = (1, 2, 4, 8)
    contexts: Sequence[int] = (512, 8192)
    drafts: Sequence[int] = (1, 2, 3, 5, 7)
    each: Sequence[int] = (1, 2, 3, 4, 5, 6, 8)  # tokens of a row in a verify forward
    agreement: float = 0.8
    rounds: int = 24
    repeats: int = 5

    @property
    def room(self) -> int:
        """Positions that an engine's rows may need beyond their context: `engine_at` lets them emit
        half of it."""
        return 2 * MAX_BLOCK * (WARM_ROUNDS + max(self.rounds, LEARN_ROUNDS) + 1)


QUICK = Plan((1, 4), (512,), (1, 3), (1, 2, 4, 8), rounds=8, repeats=3)


class Subject:
    """A random pair, and what its rounds take here."""

    def __init__(self, target: TargetConfig, drafter: DrafterConfig, dtype: mx.Dtype) -> None:
        self.target: PrescribedTarget = random_target(target, dtype)
        self.drafter: Drafter = random_drafter(drafter, dtype)

    def calibrate(self, rows: int) -> Calibration:
        """For rounds of so many rows, as a load does it."""
        bench = Bench(self.target, self.drafter, rows, MAX_DRAFT_TOKENS, time.perf_counter)
        return calibrate(bench, LOAD_BUDGET_S, LOAD_REPEATS)

    def engine(self, rows: int, context: int, mode: Mode, plan: Plan, seed: int) -> Engine:
        """An engine of `rows` rows behind so many tokens, with a script of its own draws.

        The one before it and its drafter hold each other, and with them gigabytes of K/V.
        """
        gc.collect()
        vocab, room = self.target.config.vocab_size, plan.room
        texts = {row + 1: text_after(3 + row, vocab, room) for row in range(rows)}
        drafter = ScriptedDrafter(self.drafter, texts, drawn(plan.agreement, seed, rows, room))
        drafts = None if mode == "auto" else int(mode)
        engine = engine_at(self.target, drafter, (context,) * rows, drafts, room, _contents)
        drafter.watch(engine)
        return engine


def _contents(buffer: mx.array) -> mx.array:
    """Some random vectors, over and over."""
    width = buffer.shape[-1]
    some = mx.random.normal((DISTINCT_KEYS, width), buffer.dtype)
    return some[mx.arange(buffer.size // width) % DISTINCT_KEYS].reshape(buffer.shape)


def too_large(
    configs: tuple[TargetConfig, DrafterConfig], plan: Plan, itemsize: int, limit: int
) -> str | None:
    """Why the pair cannot be drawn and run within `limit` bytes; None where it can."""
    target, drafter = configs
    tensors = (
        stored(target_shapes(target), target.quantization).values(),
        stored(drafter_shapes(drafter), drafter.quantization).values(),
    )
    rows, tokens = max(plan.batches), max(plan.contexts) + plan.room
    needed = make_plan(target, tensors, rows, itemsize, limit, tokens)
    if needed.fits:
        return None
    return (
        f"{spell(needed.total)} of memory are needed and {spell(limit)} are there; "
        "give fewer --batches, shorter --contexts, or --shrink"
    )


def verify_line(engine: Engine, each: int, repeats: int) -> Line:
    """A forward of `each` tokens of every row, waited for; nothing is committed."""
    cache, target = engine.cache, engine.target
    rows = tuple(Row(slot, cache.lengths[slot], each) for slot in range(len(engine.slots)))
    vocab = target.config.vocab_size
    taken, experts = [], None
    for repeat in range(repeats + 1):
        texts = [text_after((7 * row.slot + 31 * repeat + 3) % vocab, vocab, each) for row in rows]
        tokens = mx.array([token for text in texts for token in text])
        mx.eval(tokens)
        started = time.perf_counter()
        routes = Routes()
        logits = target.logits(target(Batch.of(rows, tokens), cache, routes))
        read_ints(logits.argmax(axis=-1))
        taken.append(time.perf_counter() - started)
        if target.config.num_expert_layers:
            distinct = read_ints(routes.distinct(list(range(len(tokens)))))[-1]
            experts = distinct / target.config.num_expert_layers
    del taken[0]  # it may have compiled
    return {
        "rows": len(rows),
        "each": each,
        "context": cache.lengths[0],
        "ms": 1e3 * statistics.median(taken),
        "least_ms": 1e3 * min(taken),
        "most_ms": 1e3 * max(taken),
        "experts": experts,
    }


def timed(engine: Engine, rounds: int) -> Line:
    """Seconds and counts of so many rounds."""
    for _ in range(WARM_ROUNDS):
        engine.step()
    before = engine.stats()
    started = time.perf_counter()
    for _ in range(rounds):
        engine.step()
    took = time.perf_counter() - started
    after = engine.stats()
    return {
        "ms": 1e3 * took / rounds,
        "tokens_per_s": (after.tokens - before.tokens) / took,
        "accepted": (after.accepted - before.accepted) / (after.rows - before.rows),
        "drafted": (after.drafted - before.drafted) / (after.rows - before.rows),
        "experts": after.experts_per_layer,
        "decision": after.decision,
    }


def round_lines(
    subject: Subject, rows: int, context: int, plan: Plan, calibration: Calibration
) -> list[Line]:
    """A line for every mode, medians over the repeats."""
    modes: list[Mode] = [0, "auto", *plan.drafts]
    k_max = most_drafts(subject.target.config, on_gpu=on_gpu())
    planner = PolicyPlanner(calibration, rows, k_max)  # it goes on learning
    found: dict[Mode, list[Line]] = {mode: [] for mode in modes}

    def run(mode: Mode, repeat: int, rounds: int) -> Line:
        """On an engine that is dropped with the call: two at once would hold their K/V twice."""
        engine = subject.engine(rows, context, mode, plan, seed=repeat)
        if mode == "auto":
            engine.planner = planner
        return timed(engine, rounds)

    run("auto", 0, LEARN_ROUNDS - WARM_ROUNDS)
    for repeat in range(plan.repeats):
        for mode in modes if repeat % 2 else reversed(modes):
            found[mode].append(run(mode, repeat, plan.rounds))
    return [
        {"rows": rows, "context": context, "drafts": mode}
        | _middle(lines)
        | {"over_plain": compared(_speeds(lines), _speeds(found[0])) if mode else None}
        for mode, lines in found.items()
    ]


def _speeds(lines: list[Line]) -> list[float]:
    return [line["tokens_per_s"] for line in lines]


def _middle(lines: list[Line]) -> Line:
    """Medians of the repeats, and how far their speeds lie apart."""
    speeds = _speeds(lines)
    names = ("ms", "tokens_per_s", "accepted", "drafted")
    middle = {name: statistics.median(line[name] for line in lines) for name in names}
    return middle | {
        "least_tokens_per_s": min(speeds),
        "most_tokens_per_s": max(speeds),
        "experts": lines[-1]["experts"],
        "decision": lines[-1]["decision"],
    }


def measure(subject: Subject, plan: Plan) -> tuple[list[Line], list[Line]]:
    """Verify forwards, and rounds."""
    forwards, rounds = [], []
    calibration = subject.calibrate(max(plan.batches))
    for context in plan.contexts:
        for rows in plan.batches:
            engine = subject.engine(rows, context, 0, plan, seed=0)
            forwards += [verify_line(engine, each, plan.repeats) for each in plan.each]
            del engine
            rounds += round_lines(subject, rows, context, plan, calibration)
            print(f"  {context:,} tokens, {rows} rows: done", file=sys.stderr)
    return forwards, rounds


def show(name: str, forwards: Sequence[Line], rounds: Sequence[Line]) -> None:
    """The table."""
    print(name)
    titles = ("ms", "of plain", "tokens/s", "least", "most", "accepted", "experts")
    print(f"{'context':>8}{'rows':>5}  {'what':<10}" + "".join(f"{each:>10}" for each in titles))
    plain = {(r["context"], r["rows"]): r["ms"] for r in rounds if r["drafts"] == 0}
    single = {(f["context"], f["rows"]): f["ms"] for f in forwards if f["each"] == 1}
    for line in [*forwards, *rounds]:
        at = (line["context"], line["rows"])
        begin = f"{line['context']:>8,}{line['rows']:>5}  "
        experts = "" if line["experts"] is None else f"{line['experts']:.1f}"
        if "each" in line:
            what, ratio = f"verify {line['rows'] * line['each']}", line["ms"] / single[at]
            print(f"{begin}{what:<10}{line['ms']:>10.2f}{ratio:>10.2f}{'':>40}{experts:>10}")
            continue
        is_auto = line["drafts"] == "auto"
        what = "auto" if is_auto else f"{line['drafts']} drafts"
        speeds = ("tokens_per_s", "least_tokens_per_s", "most_tokens_per_s")
        figures = "".join(f"{line[speed]:>10.1f}" for speed in speeds)
        print(
            f"{begin}{what:<10}{line['ms']:>10.2f}{line['ms'] / plain[at]:>10.2f}{figures}"
            f"{line['accepted']:>10.2f}{experts:>10}  {line['decision'] if is_auto else ''}"
        )


def refuse(reason: str) -> NoReturn:
    """One line and exit code 2."""
    print(f"bench.full_size: {reason}", file=sys.stderr)
    sys.exit(2)


def _parse() -> tuple[Choice, Plan]:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", choices=SIZES, default="12b")
    parser.add_argument("--storage", choices=STORAGES, default="4bit")
    parser.add_argument("--drafter", choices=STORAGES, default="bf16")
    parser.add_argument("--shrink", type=int, default=1, help="divide widths, heads, vocabulary")
    of_plan = parser.add_argument_group("what is timed")
    of_plan.add_argument("--batches", type=int, nargs="+")
    of_plan.add_argument("--contexts", type=int, nargs="+")
    of_plan.add_argument("--drafts", type=int, nargs="+")
    of_plan.add_argument("--agreement", type=float)
    of_plan.add_argument("--rounds", type=int)
    of_plan.add_argument("--repeats", type=int)
    parser.add_argument("--quick", action="store_true", help="less of all that is not named")
    asked = vars(parser.parse_args())
    choice = Choice(*(asked.pop(name) for name in ("pair", "storage", "drafter", "shrink")))
    usual = QUICK if asked.pop("quick") else Plan()
    plan = replace(usual, **{name: value for name, value in asked.items() if value is not None})
    counts = (choice.shrink, *plan.batches, *plan.contexts, plan.rounds, plan.repeats)
    if min(counts) < 1:
        refuse("--shrink, --batches, --contexts, --rounds and --repeats must be 1 at least")
    if not 1 <= min(plan.drafts) <= max(plan.drafts) <= MAX_DRAFT_TOKENS:
        refuse(f"--drafts must be 1 to {MAX_DRAFT_TOKENS}; plain decoding is always timed")
    if not 0 <= plan.agreement <= 1:
        refuse(f"--agreement is {plan.agreement:g}, not from 0 to 1")
    return choice, plan


def main() -> None:
    """Print the table and the JSON line."""
    choice, plan = _parse()
    both, dtype = configs(choice), mx.bfloat16 if on_gpu() else mx.float32
    reason = too_large(both, plan, dtype.size, limit_here(None))
    if reason is not None:
        refuse(reason)
    subject = Subject(*both, dtype)
    mx.reset_peak_memory()  # of drawing it, which rounds do not need
    forwards, rounds = measure(subject, plan)
    kind = str(dtype).removeprefix("mlx.core.")
    size = "full size" if choice.shrink == 1 else f"SHRUNKEN by {choice.shrink}, no real model"
    name = f"{choice.pair} {choice.storage}, drafter {choice.drafter}, {size}, {kind}"
    show(f"{name}, agreement {plan.agreement:g}", forwards, rounds)
    result = {
        "bench": "full_size",
        "pair": choice.pair,
        "storage": choice.storage,
        "drafter": choice.drafter,
        "shrink": choice.shrink,
        "dtype": kind,
        "itemsize": dtype.size,
        "agreement": plan.agreement,
        "peak_bytes": mx.get_peak_memory(),
        "machine": asdict(where()),
        "verify": forwards,
        "rounds": rounds,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
