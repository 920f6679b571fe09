"""`python -m tests.load`: load a server of the built-in pair, and print what was found.

It starts the server itself, on loopback. The full form is the default; --quick is that of `make
test`, --soak SECONDS adds a soak.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import mtp_mlx
from tests.load.asked import golden
from tests.load.ends import aborted, drained
from tests.load.forms import FULL, QUICK
from tests.load.runs import Report, Target, burst, churn, steady
from tests.load.soak import Soaked, soak
from tests.server.running import REAL, Serving, serving


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    form = QUICK if given.quick else FULL
    requests = form.drawn(given.seed)
    with mtp_mlx.load("tiny") as llm:
        texts = golden(llm, requests)
    print(f"{len(texts)} golden texts, decoded alone and without drafts", flush=True)
    with started() as server:
        streams, target = form.streams, Target.at(server.port)
        [child] = server.children()
        show(steady(target, requests[: form.steady], texts, streams))
        show(burst(target, requests[: form.burst], texts))
        show(churn(target, requests[: form.churn], texts, streams=streams, seed=given.seed))
        if given.soak:
            show(soak(target, child, given.soak, given.seed))
        used = psutil.Process(child).cpu_times()
        print(f"the engine's process took {used.user + used.system:.1f} s of processor time")
        show(aborted(server, requests[:streams], texts))
        show(drained(server, requests[:streams], texts))


@contextmanager
def started() -> Iterator[Serving]:
    """A server of the built-in pair."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), "tiny", command=REAL) as server,
    ):
        server.ready()
        yield server


def show(work: Coroutine[None, None, Report | Soaked]) -> None:
    print(asyncio.run(work).row(), flush=True)


if __name__ == "__main__":
    main()
