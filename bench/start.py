"""What starting costs: importing and asking for help, ours beside mlx-lm and mlx-vlm.

Each command is a new process. All are run in turn, `--repeats` times, in an order that turns around
with each repeat; a first run of each is not counted (it writes bytecode and fills the disk cache).
Seconds are wall time from start to end of the process, so the interpreter's own start is in them:
its line is the floor. `import mtp_mlx` imports nothing heavy until a name is used, so the line
below it takes the name that every program begins with. Sizes are those of a package with all that
it requires and MLX, without compiled bytecode.

Prints a table, then one JSON line.

    make peers
    python -m bench.start
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.counts import positive
from bench.peers import environment
from bench.peers.process import LM, OWN, VLM
from mtp_mlx.measure.where import where

REPEATS = 7
INSTALLED = environment.ROOT / "bench" / "peers" / "installed.py"
# Where MLX computes on the CPU it is a package of its own, which must be asked for.
MLX = "mlx[cpu]" if sys.platform == "linux" else "mlx"
ROOTS = {OWN: ("mtp-mlx", MLX), LM: ("mlx-lm", MLX), VLM: ("mlx-vlm", MLX)}


@dataclass(frozen=True)
class Start:
    """A command of an engine; None: the interpreter of no engine."""

    engine: str | None
    shown: str
    command: tuple[str, ...]


def starts() -> list[Start]:
    """Ours, and the peers' where they are installed."""
    own, peer = Path(sys.executable), environment.python()
    found = [
        Start(None, "python -c pass", (str(own), "-c", "pass")),
        Start(OWN, "import mtp_mlx", _import(own, "import mtp_mlx")),
        Start(OWN, "from mtp_mlx import load", _import(own, "from mtp_mlx import load")),
        Start(OWN, "mtp-mlx --help", (str(own.parent / "mtp-mlx"), "--help")),
    ]
    if peer is not None:
        lm, vlm = (str(peer.parent / f"{name}.generate") for name in ("mlx_lm", "mlx_vlm"))
        found += [
            Start(LM, "import mlx_lm", _import(peer, "import mlx_lm")),
            Start(LM, "mlx_lm.generate --help", (lm, "--help")),
            Start(VLM, "import mlx_vlm", _import(peer, "import mlx_vlm")),
            Start(VLM, "mlx_vlm.generate --help", (vlm, "--help")),
        ]
    return found


def _import(python: Path, line: str) -> tuple[str, ...]:
    return str(python), "-c", line


def seconds_of(command: Sequence[str]) -> float:
    """Wall time of a process. Raises CalledProcessError where it fails."""
    variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=variables
    )
    return time.perf_counter() - started


def measure(repeats: int) -> list[dict[str, Any]]:
    """A line for each command."""
    commands = starts()
    for start in commands:
        seconds_of(start.command)
    spent: dict[str, list[float]] = {start.shown: [] for start in commands}
    for repeat in range(repeats):
        for start in commands if repeat % 2 else reversed(commands):
            spent[start.shown].append(seconds_of(start.command))
    return [
        {
            "engine": start.engine,
            "command": start.shown,
            "seconds": statistics.median(spent[start.shown]),
            "lowest": min(spent[start.shown]),
            "highest": max(spent[start.shown]),
        }
        for start in commands
    ]


def sizes() -> dict[str, dict[str, Any] | None]:
    """What each engine takes on disk; None where it is not installed."""
    return {name: _size(name) for name in ROOTS}


def _size(name: str) -> dict[str, Any] | None:
    python = Path(sys.executable) if name == OWN else environment.python()
    if python is None:
        return None
    command = [str(python), str(INSTALLED), *ROOTS[name]]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def show(lines: Sequence[dict[str, Any]]) -> None:
    """The first table."""
    print(f"\n{'command':>26} {'s':>7} {'lowest':>7} {'highest':>8}")
    for line in lines:
        print("{command:>26} {seconds:>7.3f} {lowest:>7.3f} {highest:>8.3f}".format(**line))


def show_sizes(found: dict[str, dict[str, Any] | None]) -> None:
    """The second table."""
    print(f"\n{'installed':>10} {'packages':>9} {'MB':>7} {'of it MLX':>10}")
    for name, size in found.items():
        if size is None:
            print(f"{name:>10}  {environment.ABSENT}")
            continue
        whole, core = size["bytes"] / 1e6, size["mlx_bytes"] / 1e6
        print(f"{name:>10} {size['distributions']:>9} {whole:>7.0f} {core:>10.0f}")


def main() -> int:
    """Print the tables and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=positive, help=f"{REPEATS}")
    parser.add_argument("--quick", action="store_true", help="once each, if not said")
    arguments = parser.parse_args()
    usual = 1 if arguments.quick else REPEATS
    lines = measure(usual if arguments.repeats is None else arguments.repeats)
    show(lines)
    found = sizes()
    show_sizes(found)
    result = {"bench": "start", "machine": asdict(where()), "cpus": os.cpu_count()}
    print(json.dumps({**result, "starts": lines, "installed": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
