"""`python -m tests.load`: load a server of the built-in pair, and print what was found.

It starts the server itself, on loopback. The full form is the default; --quick is that of `make
test`, --soak SECONDS adds a soak.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

import mtp_mlx
from tests.load.asked import drawn, golden
from tests.load.forms import FULL, QUICK, Form
from tests.load.runs import Target, burst, churn, steady
from tests.load.soak import soak
from tests.server.running import REAL, serving


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    form = QUICK if given.quick else FULL
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), "tiny", command=REAL) as server,
    ):
        server.ready()
        target = Target.at(server.port)
        run(target, form, given.seed)
        if given.soak:
            [child] = server.children()
            print(asyncio.run(soak(target, child, given.soak, given.seed)).row())


def run(target: Target, form: Form, seed: int) -> None:
    """All runs but the soak."""
    requests = drawn(seed, form.most, form.distinct)
    with mtp_mlx.load("tiny") as llm:
        texts = golden(llm, requests)
    print(f"{len(texts)} golden texts, decoded alone and without drafts", flush=True)
    streams = form.streams
    for work in (
        steady(target, requests[: form.steady], texts, streams),
        burst(target, requests[: form.burst], texts),
        churn(target, requests[: form.churn], texts, streams=streams, seed=seed),
    ):
        print(asyncio.run(work).row(), flush=True)


if __name__ == "__main__":
    main()
