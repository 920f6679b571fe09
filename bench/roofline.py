"""The least time of a round, by the bytes that it must move; nothing is measured here.

Counts bytes and operations of rounds of the five published pairs from their configs (bench/work.py:
dense part, distinct experts, head, K/V, drafter), with activations and K/V in bfloat16. Of experts
nothing is certain: they are those of tokens routed each on its own, the most that is likely, or
where --correlation says so of a row's neighbours that share: 0.456 is "four read 2.5 times one's".
Prints one table, then one JSON line.

    python -m bench.roofline --bandwidth 400                      bytes and floors, by storage
    python -m bench.roofline --chips                              floors on M1 to M5 (computed)
    python -m bench.roofline --bandwidth 4800 --measured FILE     what bench.full_size reached of it
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from bench.chips import BANDWIDTHS
from bench.models import STORAGES, Choice, configs
from bench.work import Pair
from mtp_mlx.measure.where import where
from mtp_mlx.pair_names import SIZES
from mtp_mlx.request import MAX_DRAFT_TOKENS

GB = 1e9
BF16_BYTES = 2
AGREEMENT = 0.8  # of each draft, where a table tells tokens a second
PARTS = ("dense", "experts", "head", "kv", "drafter")
CHIP_DRAFTS = 3
TAKEN = {  # options of each table
    "chips": {"context", "drafter"},
    "measured": {"bandwidth"},
    "floors": {
        "bandwidth", "storages", "drafter", "batches", "drafts", "context", "correlation",
    },
}  # fmt: skip
Line = dict[str, Any]


def pair_of(size: str, storage: str, drafter: str) -> Pair:
    """A published pair on a GPU, where activations are bfloat16."""
    return Pair(*configs(Choice(size, storage, drafter)), BF16_BYTES)


def tokens_a_round(agreement: float, drafts: int) -> float:
    """Of one row whose drafts are right with probability `agreement` each."""
    return sum(agreement**place for place in range(drafts + 1))


@dataclass(frozen=True)
class Cases:
    """What a table of floors has lines for; `drafter`: how that is stored."""

    storages: Sequence[str] = STORAGES
    batches: Sequence[int] = (1, 4, 8)
    drafts: Sequence[int] = (0, 1, 3, 7)
    context: int = 8192
    drafter: str = "bf16"
    correlation: float = 0.0


def floors(cases: Cases, bandwidth: float) -> Iterator[Line]:
    """A line for each pair, storage, batch and number of drafts."""
    context = cases.context
    for size in SIZES:
        for storage in cases.storages:
            pair = pair_of(size, storage, cases.drafter)
            for rows in cases.batches:
                plain = pair.round(rows, 0, context).bytes
                for count in cases.drafts:
                    apart = rows * (1 + (1 - cases.correlation) * count)
                    work = pair.round(rows, count, context, pair.distinct(apart))
                    yield {
                        "pair": size,
                        "storage": storage,
                        "rows": rows,
                        "drafts": count,
                        "tokens": rows * (1 + count),
                        "context": context,
                        **asdict(work),
                        "bytes": work.bytes,
                        "of_plain": work.bytes / plain,
                        "floor_ms": 1e3 * work.seconds(bandwidth),
                    }


def show_floors(lines: Sequence[Line], bandwidth: float) -> None:
    """The table of `floors`."""
    print(
        f"computed, not measured: GB that a round moves, and its floor at {bandwidth / GB:g} GB/s"
    )
    titles = ("dense", "experts", "head", "K/V", "draft", "total", "GFLOP", "of plain", "ms")
    print(f"{'pair':<5}{'':<5}{'rows':>5}{'drafts':>7}" + "".join(f"{each:>9}" for each in titles))
    for line in lines:
        sizes = "".join(f"{line[part] / GB:>9.3f}" for part in (*PARTS, "bytes"))
        print(
            f"{line['pair']:<5}{line['storage']:<5}{line['rows']:>5}{line['drafts']:>7}{sizes}"
            f"{line['operations'] / GB:>9.1f}{line['of_plain']:>9.2f}{line['floor_ms']:>9.3f}"
        )


def chip_lines(context: int, drafter: str) -> Iterator[Line]:
    """Plain and drafting tokens a second of one row on every chip, were bandwidth all."""
    made = tokens_a_round(AGREEMENT, CHIP_DRAFTS)
    works = {}
    for size in SIZES:
        pair = pair_of(size, "4bit", drafter)
        works[size] = (pair.round(1, 0, context), pair.round(1, CHIP_DRAFTS, context))
    for chip, rate in BANDWIDTHS.items():
        line: Line = {"chip": chip, "gb_per_s": rate}
        for size, (plain, drafting) in works.items():
            plain_s, drafting_s = plain.seconds(rate * GB), drafting.seconds(rate * GB)
            line[size] = {"plain": 1 / plain_s, "drafting": made / drafting_s}
        yield line


def show_chips(lines: Sequence[Line], context: int, drafter: str) -> None:
    """The table of `chip_lines`."""
    print(
        "computed, not measured: the most tokens/s of one row that bandwidth allows, 4bit, context "
        f"{context:,};\nplain / with {CHIP_DRAFTS} drafts of a {drafter} drafter, each right with "
        f"{AGREEMENT:g}; whether the machine holds the pair is not asked"
    )
    print(f"{'chip':<9}{'GB/s':>6}" + "".join(f"{size:>14}" for size in SIZES))
    for line in lines:
        cells = (f"{line[size]['plain']:.0f} / {line[size]['drafting']:.0f}" for size in SIZES)
        print(f"{line['chip']:<9}{line['gb_per_s']:>6}" + "".join(f"{cell:>14}" for cell in cells))


def measured_lines(path: Path, bandwidth: float) -> Iterator[Line]:
    """Every timing in the JSON lines of bench.full_size, beside its floor. Raises ValueError for a
    file without any, OSError."""
    records = [json.loads(text) for text in path.read_text().splitlines() if text.startswith("{")]
    runs = [each for each in records if each.get("bench") == "full_size"]
    if not runs:
        raise ValueError(f"{path} has no JSON line of bench.full_size")
    for run in runs:
        choice = Choice(run["pair"], run["storage"], run["drafter"], run["shrink"])
        pair = Pair(*configs(choice), run["itemsize"])
        for timing in run["verify"] + [each for each in run["rounds"] if each["drafts"] != "auto"]:
            rows, context, experts = timing["rows"], timing["context"], timing["experts"]
            if "drafts" in timing:
                what = f"{timing['drafts']} drafts"
                work = pair.round(rows, timing["drafts"], context, experts)
            else:
                what = f"verify {rows * timing['each']}"
                work = pair.forward(rows, timing["each"], context, experts)
            floor_ms = 1e3 * work.seconds(bandwidth)
            yield {
                "pair": run["pair"],
                "storage": run["storage"],
                "shrink": run["shrink"],
                "what": what,
                "rows": rows,
                "context": context,
                "ms": timing["ms"],
                "floor_ms": floor_ms,
                "share": floor_ms / timing["ms"],
                "gb_per_s": work.bytes / GB / (timing["ms"] / 1e3),
            }


def show_measured(lines: Sequence[Line], bandwidth: float) -> None:
    """The table of `measured_lines`."""
    print(f"measured by bench.full_size, and its share of the floor at {bandwidth / GB:g} GB/s")
    titles = ("ms", "floor ms", "share", "GB/s")
    head = f"{'pair':<5}{'':<5}{'shrink':>7}{'rows':>5}{'context':>8}  {'what':<11}"
    print(head + "".join(f"{each:>10}" for each in titles))
    for line in lines:
        print(
            f"{line['pair']:<5}{line['storage']:<5}{line['shrink']:>7}{line['rows']:>5}"
            f"{line['context']:>8,}  {line['what']:<11}{line['ms']:>10.3f}{line['floor_ms']:>10.3f}"
            f"{line['share']:>10.1%}{line['gb_per_s']:>10.1f}"
        )


def refuse(reason: str) -> NoReturn:
    """One line and exit code 2."""
    print(f"bench.roofline: {reason}", file=sys.stderr)
    sys.exit(2)


def _parse() -> tuple[str, dict[str, Any]]:
    """The table that is asked for and its options; refuses those that another table has."""
    assert __doc__ is not None
    usual = {**asdict(Cases()), "bandwidth": 400.0}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", action="store_true", help="one row on M1 to M5, 4-bit")
    parser.add_argument("--measured", type=Path, help="JSON lines that bench.full_size printed")
    parser.add_argument("--bandwidth", type=float, help="GB/s of the memory, 400")
    parser.add_argument("--storages", choices=STORAGES, nargs="+", help="of the targets")
    parser.add_argument("--drafter", choices=STORAGES, help="how drafters are stored, bf16")
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--drafts", type=int, nargs="+")
    parser.add_argument("--context", type=int, help=f"{usual['context']:,}")
    parser.add_argument("--correlation", type=float, help="of neighbours' experts, 0")
    parser.add_argument("--quick", action="store_true", help="4-bit alone")
    asked = vars(parser.parse_args())
    is_chips, measured = asked.pop("chips"), asked.pop("measured")
    if is_chips and measured is not None:
        refuse("--chips and --measured ask for two tables; give one")
    is_quick = asked.pop("quick")
    if is_quick and (is_chips or measured is not None):
        refuse("--quick is of the floors' table alone; leave it out")
    if is_quick:
        asked["storages"] = asked["storages"] or STORAGES[:1]
    given = {name: value for name, value in asked.items() if value is not None}
    table = "chips" if is_chips else "floors" if measured is None else "measured"
    for name in given.keys() - TAKEN[table]:
        refuse(f"--{name} says nothing of the table that --{table} asks for")
    found = {**usual, **given, "measured": measured}
    _check(found)
    return table, found


def _check(found: dict[str, Any]) -> None:
    """Refuse what no table has."""
    if not 0 < found["bandwidth"] < float("inf"):
        refuse(f"--bandwidth is {found['bandwidth']:g}, not above 0")
    if min(found["batches"]) < 1 or found["context"] < 1:
        refuse("--batches and --context must be 1 at least")
    if not 0 <= min(found["drafts"]) <= max(found["drafts"]) <= MAX_DRAFT_TOKENS:
        refuse(f"--drafts must be 0 to {MAX_DRAFT_TOKENS}")
    if not 0 <= found["correlation"] <= 1:
        refuse(f"--correlation is {found['correlation']:g}, not from 0 to 1")


def main() -> None:
    """Print the table that was asked for and the JSON line."""
    table, asked = _parse()
    bandwidth, context, drafter = asked["bandwidth"] * GB, asked["context"], asked["drafter"]
    result: Line = {
        "bench": "roofline",
        "machine": asdict(where()),
        "is_computed": table != "measured",
    }
    if table == "measured":
        try:
            lines = list(measured_lines(asked["measured"], bandwidth))
        except (OSError, ValueError, KeyError, TypeError) as error:
            refuse(f"--measured {asked['measured']}: {error!r}")
        show_measured(lines, bandwidth)
        result |= {"bandwidth": bandwidth}
    elif table == "chips":
        lines = list(chip_lines(context, drafter))
        show_chips(lines, context, drafter)
        result |= {"context": context, "drafter": drafter, "drafts": CHIP_DRAFTS}
        result |= {"agreement": AGREEMENT}
    else:
        cases = Cases(**{field.name: asked[field.name] for field in fields(Cases)})
        lines = list(floors(cases, bandwidth))
        show_floors(lines, bandwidth)
        result |= {"bandwidth": bandwidth, "drafter": drafter, "correlation": cases.correlation}
    print(json.dumps(result | {"lines": lines}))


if __name__ == "__main__":
    main()
