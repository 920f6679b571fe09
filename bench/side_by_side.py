"""Our engine beside mlx-lm and mlx-vlm: the embedded pairs, the same prompts, one run.

Each engine runs in a process of its own that stays up; one job runs at a time. In every case (pair,
rows, equal or mixed lengths) all variants run in turn, once a repeat, in an order that turns around
with each repeat (ABBA): mlx-lm plain (one row by generate_step, more by BatchGenerator), mlx-vlm
plain and MTP, ours plain (`num_draft_tokens=0`), "auto" and fixed depths. All are asked for token
ids in the same way, below tokenizers and servers, decode greedily in float32, and write exactly
`--tokens` ids a row: no engine is told of any end of text, and no score is changed for it. One row
means three prompts, one after another.

Timed are, by the clock of the engine's process: `decode`, ids that reach the host after every row
has its first one, over the seconds from then to the last; and `whole`, all ids over the seconds
from asking to the last, prompts included. Ratios are of decoding, within a repeat; median, lowest
and highest over the repeats are shown, and of those within the noise no median. One run more of
each variant is not timed but counted, while all rows decode: these `rounds`, a forward of the
target each; target forwards a token and row (of a plain engine 1), drafts accepted a row and round
(tokens a forward of the row, less 1), and reads, how often the host waits for an array, a target
forward. CPU time is of all threads; other programs move it less than the clock. A row is wrong
where any run gives other ids than the same engine does for the row alone, plain; a preloaded BLAS
rounds a row otherwise beside others, so there wrong rows are counted but no failure. `MB` is MLX's
own peak with the weights. Each variant writes a few ids untimed before a case.

With --blas a library is preloaded in all processes in place of the BLAS that MLX's CPU wheels come
with; OpenBLAS makes rows cheap, as a good GPU does. On Debian:

    apt-get install libopenblas0-pthread
    python -m bench.side_by_side --blas "$(find /usr/lib -name libopenblas.so.0 | head -1)"

Prints tables, then one JSON line. Exit code 1 where a row of ours is wrong (without --blas). With
`--repeats 2 --depths` it took 19 minutes on two idle cores.

    make peers
    python -m bench.side_by_side
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from bench import start
from bench.peers import environment, process
from bench.peers.bars import WITHIN, judged
from bench.peers.cases import BASE, LENGTHS, Case, Seen, Variant, run, spread, variants
from bench.peers.process import OWN, Process
from bench.peers.prompts import prompts
from bench.ratios import compared, told
from mtp_mlx.embedded import NAMES
from mtp_mlx.measure.where import where
from mtp_mlx.request import MAX_DRAFT_TOKENS

RATIO = "x mlx-lm"  # of decoding
HEADS = ("tok/s", "low-high", RATIO, "whole", "rounds", "fwd/tok", "accept", "reads")
HEADS += ("CPU ms/tok", "wrong", "MB")
USUAL = {"rows": [1, 4, 8], "depths": [1, 3], "peer_drafts": 3, "tokens": 256, "repeats": 3}
QUICK = {"rows": [1, 2], "depths": [2], "peer_drafts": 3, "tokens": 24, "repeats": 1}
SHARE_REPEATS = 60  # steps that tell what a draft costs
WARM_UP = 16  # ids a row that each variant writes before a case is timed


def truths(engine: Process, tokens: int, asked: Sequence[list[int]]) -> dict[tuple, list[int]]:
    """What the engine writes for each prompt alone, plain."""
    found = {}
    for prompt in asked:
        if tuple(prompt) not in found:
            case = Case(1, "", ([prompt],))
            found[tuple(prompt)] = run(engine, case, tokens, 0, counts=False)[0].texts[0]
    return found


def measure(
    engines: Mapping[str, Process],
    case: Case,
    chosen: Sequence[Variant],
    tokens: int,
    repeats: int,
) -> dict[Variant, Seen]:
    """All variants of a case, in turn."""
    seen = {variant: Seen() for variant in chosen}
    for variant in chosen:
        run(engines[variant.engine], case, WARM_UP, variant.drafts, counts=False)
    for repeat in range(repeats):
        print(f"{case.rows} rows, {case.lengths}: repeat {repeat + 1}", file=sys.stderr, flush=True)
        for variant in chosen if repeat % 2 == 0 else reversed(chosen):
            engine = engines[variant.engine]
            seen[variant].timed.append(run(engine, case, tokens, variant.drafts, counts=False))
    for variant in chosen:
        engine = engines[variant.engine]
        seen[variant].counted = run(engine, case, tokens, variant.drafts, counts=True)
    return seen


def line(
    variant: Variant, seen: Mapping[Variant, Seen], right: Sequence[list[int]]
) -> dict[str, Any]:
    """What is shown of a variant."""
    plain = Variant(BASE, 0)
    own, base = seen[variant], None if variant == plain else seen.get(plain)
    rows = own.total("rows")
    tokens = own.total("decode_tokens")
    return {
        "variant": variant.name,
        "decode_tokens_per_s": spread(own.decode),
        "whole_tokens_per_s": spread(own.whole),
        "decode_over_base": None if base is None else compared(own.decode, base.decode),
        "whole_over_base": None if base is None else compared(own.whole, base.whole),
        "counted_rounds": own.total("forwards"),
        "forwards_per_token": rows / tokens,
        "accepted": tokens / rows - 1,
        "reads_per_forward": own.total("reads") / own.total("forwards"),
        "cpu_s_per_token": spread(own.cpu_per_token),
        "wrong": own.wrong(right),
        "of": len(right),
        "peak_bytes": max(done.peak_bytes for run in own.timed for done in run),
    }


def cells_of(name: str, cells: Sequence[str]) -> str:
    """A line of a table, whose ratios are as wide as `told` makes them."""
    widths = [18 if head == RATIO else 11 for head in HEADS]
    told_cells = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{name:>14}" + "".join(told_cells)


def show(found: dict[str, Any]) -> None:
    """A line of a case's table."""
    speed, over = found["decode_tokens_per_s"], found["decode_over_base"]
    cells = (
        f"{speed['median']:.0f}",
        f"{speed['lowest']:.0f}-{speed['highest']:.0f}",
        "-" if over is None else told(over),
        f"{found['whole_tokens_per_s']['median']:.0f}",
        str(found["counted_rounds"]),
        f"{found['forwards_per_token']:.2f}",
        f"{found['accepted']:.2f}",
        f"{found['reads_per_forward']:.1f}",
        f"{1e3 * found['cpu_s_per_token']['median']:.1f}",
        f"{found['wrong']} of {found['of']}",
        f"{found['peak_bytes'] / 1e6:.0f}",
    )
    print(cells_of(found["variant"], cells), flush=True)


def show_bar(bar: dict[str, Any]) -> None:
    """Met or missed by the median; and whether every repeat says so."""
    verdict = "met" if bar["is_met"] else "MISSED"
    if bar["verdict"] == WITHIN:
        verdict += f", {WITHIN}"
    wanted = f"{'above' if bar['is_strict'] else 'at least'} {bar['least']:.2f}"
    said = "{bar}: {median:.2f} ({lowest:.2f}-{highest:.2f})".format(**bar)
    print(f"  {said}, {wanted}: {verdict}", flush=True)


def draft_shares(pair: str, rows: Sequence[int], blas: Path) -> dict[int, float]:
    """What a draft step takes of a plain step there by number of rows, by bench.draft_step."""
    words = [sys.executable, "-m", "bench.draft_step", "--preloaded", str(blas)]
    done = subprocess.run(
        [*words, "--pair", pair, "--repeats", str(SHARE_REPEATS), "--rows", *map(str, rows)],
        cwd=environment.ROOT,
        env={**os.environ, "LD_PRELOAD": str(blas)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise process.Failed(f"bench.draft_step has ended with {done.returncode}: {reason}")
    lines = json.loads(done.stdout.splitlines()[-1])["lines"]
    return {line["rows"]: line["over_plain"]["median"] for line in lines}


def measure_pair(
    pair: str, engines: Mapping[str, Process], chosen: Sequence[Variant], asked: argparse.Namespace
) -> list[dict[str, Any]]:
    """All cases of a pair."""
    shares = {} if asked.blas is None else draft_shares(pair, asked.rows, asked.blas)
    for rows, share in shares.items():
        print(f"{pair}, {rows} rows: a draft step takes {share:.3f} of a plain step")
    most = max(asked.rows)
    texts = {kind: prompts(pair, LENGTHS[kind])[: max(most, 3)] for kind in asked.lengths}
    every = [prompt for kind in texts.values() for prompt in kind]
    right = {name: truths(engine, asked.tokens, every) for name, engine in engines.items()}
    same_alone = {}
    for name, own in right.items():
        same_alone[name] = same = sum(own[key] == right[OWN][key] for key in own)
        print(f"{pair}, {name}: {same} of {len(own)} rows alone are ours, to the last id")
    cases = []
    for kind in asked.lengths:
        for rows in asked.rows:
            case = Case.of(rows, kind, texts[kind])
            seen = measure(engines, case, chosen, asked.tokens, asked.repeats)
            print(f"\n{pair}, {rows} row{'s' * (rows > 1)}, {kind} lengths")
            print(cells_of("", HEADS))
            lines = []
            for variant in chosen:
                alone = [right[variant.engine][tuple(prompt)] for prompt in case.prompts]
                lines.append(line(variant, seen, alone))
                show(lines[-1])
            share = shares.get(rows)
            met = judged(seen, rows, kind, share, asked.peer_drafts)
            for bar in met:
                show_bar(bar)
            case_is = {"pair": pair, "rows": rows, "lengths": kind, "draft_share": share}
            alone = {"same_alone": same_alone, "of_alone": len(right[OWN])}
            cases.append({**case_is, **alone, "lines": lines, "bars": met})
    return cases


def _refuse(reason: str) -> NoReturn:
    print(f"bench.side_by_side: {reason}", file=sys.stderr)
    sys.exit(2)


def arguments() -> argparse.Namespace:
    """What is asked; leaves with 2 and one line where it makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", choices=NAMES, action="append", default=None)
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--lengths", choices=tuple(LENGTHS), nargs="+", default=list(LENGTHS))
    parser.add_argument("--depths", type=int, nargs="*", help="ours, fixed")
    parser.add_argument("--peer-drafts", type=int, help="mlx-vlm's, a round")
    parser.add_argument("--tokens", type=int, help="new ones of each row")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--blas", type=Path, help="a library to preload, as OpenBLAS")
    parser.add_argument("--own", action="store_true", help="leave the peers out")
    parser.add_argument("--quick", action="store_true", help="less of all that is not named")
    asked = parser.parse_args()
    if asked.own and asked.peer_drafts is not None:
        _refuse("--peer-drafts are of mlx-vlm, which --own leaves out")
    usual = (QUICK if asked.quick else USUAL).items()
    left_out = {name: value for name, value in usual if vars(asked)[name] is None}
    asked = argparse.Namespace(**vars(asked) | left_out)
    _check(asked)
    return asked


def _check(asked: argparse.Namespace) -> None:
    """Refuse what makes no sense, and find the library's own path."""
    most = len(LENGTHS["equal"])
    if not all(1 <= rows <= most for rows in asked.rows):
        _refuse(f"--rows are {asked.rows}, not each from 1 to {most}")
    if not all(0 <= depth <= MAX_DRAFT_TOKENS for depth in asked.depths):
        _refuse(f"--depths are {asked.depths}, not each from 0 to {MAX_DRAFT_TOKENS}")
    if not 1 <= asked.peer_drafts <= MAX_DRAFT_TOKENS:
        _refuse(f"--peer-drafts is {asked.peer_drafts}, not from 1 to {MAX_DRAFT_TOKENS}")
    if asked.tokens < 2 or asked.repeats < 1:
        _refuse(f"--tokens {asked.tokens}, --repeats {asked.repeats}: at least 2, and 1")
    if asked.blas is not None:
        if sys.platform != "linux":
            _refuse("--blas preloads with LD_PRELOAD, which Linux alone has")
        if not asked.blas.is_file():
            _refuse(f"--blas {asked.blas}: no such file")
        asked.blas = asked.blas.resolve()


def about(asked: argparse.Namespace) -> dict[str, Any]:
    """The machine, and what was asked."""
    return {
        "bench": "side_by_side",
        "machine": asdict(where()),
        "cpus": os.cpu_count(),
        "blas": None if asked.blas is None else asked.blas.name,
        "tokens": asked.tokens,
        "repeats": asked.repeats,
        "peer_drafts": asked.peer_drafts,
    }


def show_engines(known: Mapping[str, dict[str, Any] | None]) -> None:
    """Versions, and the memory of the whole processes."""
    print()
    for name, engine in known.items():
        if engine is None:
            print(f"{name:>8}  {environment.ABSENT}")
            continue
        said = "{version}, MLX {mlx}, Python {python}, {device}".format(**engine)
        note = "" if engine["note"] is None else f"; {engine['note']}"
        print(f"{name:>8}  {said}; {engine['max_rss_bytes'] / 1e6:.0f} MB resident at most{note}")


def main() -> int:
    """Print tables and the JSON line; 1 where a row of ours is wrong, 2 where a process fails."""
    asked = arguments()
    try:
        return beside(asked)
    except process.Failed as error:
        _refuse(str(error))


def beside(asked: argparse.Namespace) -> int:
    """All that is asked for, from processes to JSON."""
    present = (OWN,) if asked.own else process.installed()
    wanted = present if asked.own else tuple(process.MODULES)
    engines: dict[str, dict[str, Any] | None] = dict.fromkeys(wanted)
    for name in wanted:
        if name not in present:
            print(f"{name}: {environment.ABSENT}")
    chosen = variants(present, asked.depths, asked.peer_drafts)
    cases = []
    for pair in asked.pair or NAMES:
        with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
            folder = Path(temporary)
            folders = process.write_pairs(pair, folder)
            up = {
                name: stack.enter_context(
                    process.running(name, folders[name], folder / "cache", asked.blas)
                )
                for name in present
            }
            cases += measure_pair(pair, up, chosen, asked)
            engines |= {name: engine.about for name, engine in up.items()}
    show_engines(engines)
    sizes = start.sizes()
    start.show_sizes(sizes)
    starts = start.measure(1 if asked.quick else 3)
    start.show(starts)
    result = {**about(asked), "engines": engines, "installed": sizes, "starts": starts}
    print(json.dumps({**result, "cases": cases}))
    ours = [each for case in cases for each in case["lines"] if each["variant"].startswith(OWN)]
    return int(asked.blas is None and any(each["wrong"] for each in ours))


if __name__ == "__main__":
    sys.exit(main())
