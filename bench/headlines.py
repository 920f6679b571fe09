"""What a bench came to, in a few words, from the JSON that it printed."""

from collections.abc import Callable
from typing import Any

from bench.peers.bars import WITHIN
from bench.peers.process import LM, OWN
from bench.ratios import told, told_range

ABSENT = "rivals absent"


def headline(name: str, result: Any) -> str:
    """Empty where a bench has no single figure, or printed nothing."""
    tell = HEADLINES.get(name)
    return tell(result) if tell is not None and result is not None else ""


def _range(values: list[float], form: str = ".2f") -> str:
    return f"{min(values):{form}} to {max(values):{form}}"


def _parity(result: Any) -> str:
    worst = {key: max(row[key] for row in result["rows"]) for key in ("mlx", "mlx_lm", "chain")}
    return (
        f"logits off by at most {worst['mlx']:.1e} (mlx-lm {worst['mlx_lm']:.1e}), drafts "
        f"{worst['chain']:.1e}"
    )


def _rounds(result: Any) -> str:
    of_three = [row for row in result["rows"] if row["drafts"] == 3]
    each = ", ".join(f"{told(row['over_plain'])} at {row['batch']}" for row in of_three)
    return f"a round of 3 drafts over a plain step: {each}"


def _draft_step(result: Any) -> str:
    each = ", ".join(
        f"{row['pair']} {told(row['over_plain'])} at {row['rows']}" for row in result["lines"]
    )
    return f"a draft step over a plain step: {each}"


def _auto(result: Any) -> str:
    return f"auto over plain: {told_range(case['over_plain'] for case in result['cases'])}"


def _ragged(result: Any) -> str:
    kept = _range([line["accepted"] for line in result["ours"]])
    wrong = sum(line["wrong"] for line in result["ours"])
    return f"accepted a row and round: {kept} (law {result['law']:.2f}); {wrong} wrong rows"


def _right(result: Any) -> str:
    rights = [each["right"] for each in result["results"]]
    return f"right replies of {result['prompts']}: {_range(rights, 'd')}"


def _policy_time(result: Any) -> str:
    return f"of a round: {_range([row['share'] for row in result['rows']], '.1%')}"


def _policy_sim(result: Any) -> str:
    worst, mean = result["worst_over_plain"], result["mean_over_best_fixed"]
    return f"{result['cases']} cases: of plain {worst:.3f} at worst, of best fixed {mean:.3f}"


def _prefixes(result: Any) -> str:
    last = result["rows"][-1]
    run = last["prompt_tokens"] - last["cached_tokens"]
    same = all(row["is_same"] for row in result["rows"])
    told = "texts the same" if same else "TEXTS PART"
    return f"turn {last['turn']}: {run} of {last['prompt_tokens']} tokens run; {told}"


def _copies(result: Any) -> str:
    return f"growth over a K/V buffer: {max(row['share'] for row in result['rows']):.3f} at most"


def _schemas(result: Any) -> str:
    pairs = result["pairs"]
    return "; ".join(f"{each['valid']} of {each['replies']} valid" for each in pairs)


def _serve(result: Any) -> str:
    each = [
        f"{told(line['over_peer'])} at {line['clients']}"
        for line in result["lines"]
        if line["server"] == "mtp-mlx"
    ]
    return f"over mlx-lm's server: {', '.join(each)}"


def _host_time(result: Any) -> str:
    over = [line["over_two_steps"] for line in result["lines"] if line["over_two_steps"]]
    beside = told_range(over) if over else "not measured"
    return f"host time of a round over two steps of mlx-lm: {beside}"


def _side_by_side(result: Any) -> str:
    bars = [bar for case in result["cases"] for bar in case["bars"]]
    met = sum(bar["is_met"] for bar in bars)
    within = sum(bar["verdict"] == WITHIN for bar in bars)
    told_bars = f"{met} of {len(bars)} bars met ({within} {WITHIN})"
    if result["engines"].get(LM) is None:
        return f"{told_bars}; {ABSENT}"
    over = {
        name: [
            line["decode_over_base"]
            for case in result["cases"]
            for line in case["lines"]
            if line["variant"] == f"{OWN} {name}"
        ]
        for name in ("plain", "auto")
    }
    ratios = "; ".join(f"{name} {told_range(each)}" for name, each in over.items())
    return f"{told_bars}; over mlx-lm: {ratios}"


def _start(result: Any) -> str:
    seconds = [
        f"{line['command']} {line['seconds']:.2f} s"
        for line in result["starts"]
        if line["command"].startswith("import ")
    ]
    sizes = [
        f"{name} {size['bytes'] / 1e6:.0f} MB"
        for name, size in result["installed"].items()
        if size is not None
    ]
    absent = [] if result["installed"].get(LM) else [ABSENT]
    return "; ".join([", ".join(seconds), ", ".join(sizes), *absent])


def _growth(result: Any) -> str:
    names = {"sliding_ms": "sliding", "full_ms_steps": "full", "both_ms_steps": "both"}
    fitted = {name: result["fitted"][key] for key, name in names.items()}
    each = (f"{name} {'none' if p is None else f'{p:.2f}'}" for name, p in fitted.items())
    return f"exponents of time: {', '.join(each)}; {len(result['faults'])} faults"


def _full_size(result: Any) -> str:
    over = [line["over_plain"] for line in result["rounds"] if line["drafts"] == "auto"]
    size = "" if result["shrink"] == 1 else f", shrunken by {result['shrink']}"
    return f"{result['pair']}{size}: auto over plain: {told_range(over)}"


def _roofline(result: Any) -> str:
    lines = result["lines"]
    if not result["is_computed"]:
        return f"of the floor: {_range([line['share'] for line in lines], '.0%')}"
    if "chip" not in lines[0]:
        return f"computed floors of a round: {_range([line['floor_ms'] for line in lines])} ms"
    plain, drafting = ([line["12b"][way] for line in lines] for way in ("plain", "drafting"))
    chips = f"{lines[0]['chip']} to {lines[-1]['chip']}"
    return (
        f"computed, 12b 4bit, {chips}: at most {_range(plain, '.0f')} tokens/s plain, "
        f"{_range(drafting, '.0f')} with drafts"
    )


def _graph(result: Any) -> str:
    counts = [line["operations"] for line in result["lines"]]
    return f"operations of a forward: {_range(counts, 'd')}"


def _fit_load(result: Any) -> str:
    off = _range([line["off"] for line in result["lines"]], "+.1%")
    return f"expected peak over the measured one: {off}"


def _proofs(result: Any) -> str:
    proofs = result["proofs"]
    held = sum(each["exit_code"] == 0 for each in proofs)
    return f"{held} of {len(proofs)} hold"


def _model(result: Any) -> str:
    ratios = [line["over_plain"] for line in result["decode"] if line["over_plain"]]
    return f"over plain: {told_range(ratios)}"


HEADLINES: dict[str, Callable[[Any], str]] = {
    "parity": _parity,
    "rounds": _rounds,
    "draft_step": _draft_step,
    "auto": _auto,
    "ragged": _ragged,
    "right": _right,
    "policy_time": _policy_time,
    "policy_sim": _policy_sim,
    "prefixes": _prefixes,
    "copies": _copies,
    "schema_replies": _schemas,
    "serve": _serve,
    "side_by_side": _side_by_side,
    "host_time": _host_time,
    "start": _start,
    "growth": _growth,
    "full_size": _full_size,
    "roofline": _roofline,
    "graph": _graph,
    "fit_load": _fit_load,
    "proofs": _proofs,
    "mtp_mlx": _model,
}
