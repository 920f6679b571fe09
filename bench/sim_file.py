"""Regimes from a JSON file: one line says what is wrong with it, and where.

A list of {"name", "verify": [[N, cost], …], "d0", "d1", "host", "noise", "drift", "k_max", "rows":
[{"arrive", "tokens", "phases": [[tokens, [a_1, a_2, …]], …]}, …]}. Costs are linear between the
given N, the last slope beyond; the cost at N = 1 is 1.0 and may be left out.
"""

import json
import math
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.sim_machine import Case, Machine, Phases, Row
from mtp_mlx.fields import shown, shown_name

KEYS = {"name", "verify", "d0", "d1", "host", "noise", "drift", "k_max", "rows"}
ROW_KEYS = {"arrive", "tokens", "phases"}
# More drafts, or tokens of a row, would take longer to simulate than anybody waits.
MOST_DRAFTS, MOST_TOKENS = 64, 10**7


class BadRegime(Exception):
    """A file of regimes that cannot be used; the message names the place."""


def read(path: Path) -> list[Case]:
    """The cases of a file. Raises BadRegime with one line for anything it does not understand."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: an endless integer too
        reason = " ".join(str(error).split())
        raise BadRegime(f"{path}: {reason or 'nested too deeply'}") from error
    if not isinstance(listed, list) or not listed:
        raise BadRegime(f"{path}: not a list of regimes")
    return [_case(entry, f"{path}: regime {index}") for index, entry in enumerate(listed)]


def _case(entry: Any, where: str) -> Case:
    _keys(entry, KEYS, where)
    name = entry["name"]
    if not isinstance(name, str) or not name or not name.isprintable():
        raise BadRegime(f"{where}: name is {shown(name)}, not a text of one line")
    where = f"{where} ({shown_name(name)})"
    machine = Machine(
        verify=_curve(entry["verify"], f"{where}: verify"),
        d0=_number(entry["d0"], 0, f"{where}: d0"),
        d1=_number(entry["d1"], 0, f"{where}: d1"),
        host=_number(entry["host"], 0, f"{where}: host"),
        noise=_number(entry["noise"], 0, f"{where}: noise"),
        drift=_number(entry["drift"], -0.99, f"{where}: drift"),
    )
    rows = _list(entry["rows"], f"{where}: rows")
    return Case(
        name=name,
        machine=machine,
        rows=tuple(_row(row, name, index, where) for index, row in enumerate(rows)),
        k_max=_count(entry["k_max"], 0, MOST_DRAFTS, f"{where}: k_max"),
    )


def _curve(values: Any, where: str) -> tuple[tuple[float, float], ...]:
    points = []
    for pair in _list(values, where):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRegime(f"{where}: {shown(pair)} is not [N, cost]")
        count = _count(pair[0], 1, MOST_TOKENS, where)
        cost = _number(pair[1], 0, f"{where} at {count}")
        if cost == 0:
            raise BadRegime(f"{where} at {count}: a forward that costs nothing")
        points.append((float(count), cost))
    if points[0][0] != 1:
        points.insert(0, (1.0, 1.0))
    if points[0][1] != 1:
        raise BadRegime(f"{where}: the cost at N = 1 is {points[0][1]}, not 1.0")
    if any(left[0] >= right[0] for left, right in pairwise(points)):
        raise BadRegime(f"{where}: N does not rise")
    if len(points) > 1 and points[-1][1] < points[-2][1]:
        raise BadRegime(f"{where}: the cost falls at the end, and would fall below 0 beyond it")
    return tuple(points)


def _row(entry: Any, name: str, index: int, where: str) -> Row:
    where = f"{where}: row {index}"
    _keys(entry, ROW_KEYS, where)
    return Row(
        name=f"{name}/{index}",
        arrive=_number(entry["arrive"], 0, f"{where}: arrive"),
        tokens=_count(entry["tokens"], 1, MOST_TOKENS, f"{where}: tokens"),
        phases=_phases(entry["phases"], f"{where}: phases"),
    )


def _phases(values: Any, where: str) -> Phases:
    phases = []
    for phase in _list(values, where):
        if not isinstance(phase, list) or len(phase) != 2:
            raise BadRegime(f"{where}: {shown(phase)} is not [tokens, [a_1, …]]")
        rates = tuple(_number(rate, 0, where) for rate in _list(phase[1], where))
        if max(rates) > 1:
            raise BadRegime(f"{where}: an acceptance of {max(rates)} is above 1")
        phases.append((_count(phase[0], 1, None, where), rates))
    return tuple(phases)


def _keys(entry: Any, keys: set[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise BadRegime(f"{where}: {shown(entry)} is not an object")
    for key in sorted(keys - entry.keys()):
        raise BadRegime(f"{where}: {key} is missing")
    for key in sorted(entry.keys() - keys):
        raise BadRegime(f"{where}: {shown_name(key)} is unknown")


def _list(value: Any, where: str) -> list:
    if not isinstance(value, list) or not value:
        raise BadRegime(f"{where}: {shown(value)} is not a list with entries")
    return value


def _number(value: Any, least: float, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer beyond all floats
            number = float(value)
            if math.isfinite(number) and number >= least:
                return number
    raise BadRegime(f"{where}: {shown(value)} is not a number from {least:g} up")


def _count(value: Any, least: int, most: int | None, where: str) -> int:
    """A whole number, which may be spelled 8.0; `most` None: however large."""
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if is_whole and not isinstance(value, bool) and least <= value:
        count = int(value)
        if most is None or count <= most:
            return count
    limit = "up" if most is None else f"to {most}"
    raise BadRegime(f"{where}: {shown(value)} is not a whole number from {least} {limit}")
