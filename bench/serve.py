"""Served requests: our server and mlx-lm's on the same built-in pair and machine, in turn.

Three servers run side by side on loopback, and one at a time is asked: ours as it comes (drafts,
"auto"), ours without drafts, and mlx-lm's, which drops batching once it has a drafter and so is
asked plainly. 1, 4 and 8 clients stream greedy replies, `--requests` for each of them, to chats of
mixed lengths that no server has seen before: who has a reply takes the next chat. All servers get
the same chats, in an order of servers that turns around with each repeat. Tokens/s is all clients'
completion tokens over the wall time; ratios are of the same repeat, and the median is shown where
it is not within their noise. A reply is wrong where it is not what the same server writes when it
is asked alone, afterwards, without a cache where it can be told so.

Prints a table, then one JSON line. Exit code 1 where a reply of ours is wrong.

    python -m bench.serve --pair tiny --repeats 5
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.counts import positive
from bench.peers import lm_layout
from bench.ratios import compared, told
from mtp_mlx.embedded import NAMES, embedded_folder
from mtp_mlx.errors import RequestError
from mtp_mlx.measure import client
from mtp_mlx.measure.where import where
from tests.embedded import held_out

CLIENTS = (1, 4, 8)
MAX_TOKENS = 96
# Earlier exchanges before the question, by turns.
EARLIER = (0, 1, 4, 10)
KINDS = ("stories", "lists", "counting", "python", "json")
SEED = 31
START_S = 120.0
OURS, PLAIN, PEER = "mtp-mlx", "mtp-mlx, no drafts", "mlx-lm"

Messages = list[dict[str, Any]]  # of a chat


@dataclass(frozen=True)
class Server:
    """One that runs; `alone` is what its requests say besides where they are asked alone."""

    name: str
    client: client.Server
    alone: dict[str, Any]

    def ask(self, messages: client.Messages) -> client.Served:
        return self.client.ask(messages, MAX_TOKENS)


def chats(count: int, seed: int) -> list[Messages]:
    """Held-out questions, each behind some earlier exchanges of the same world."""
    drawn = held_out.examples(count * (1 + max(EARLIER)), seed, KINDS)
    plain = [e for e in drawn if not e.tools and not e.thinking and e.reply.get("content")]
    source = iter(plain * (1 + max(EARLIER)))
    found = []
    for index in range(count):
        messages: Messages = []
        for _ in range(EARLIER[index % len(EARLIER)]):
            earlier = next(source)
            answer = {"role": "assistant", "content": earlier.reply["content"]}
            messages += [{"role": "user", "content": earlier.last_user_message}, answer]
        asked = next(source).last_user_message
        # A number of its own, so that no cache of an earlier repeat holds this chat.
        messages.append({"role": "user", "content": asked})
        messages[0] = {"role": "user", "content": f"{seed} {index}. {messages[0]['content']}"}
        found.append(messages)
    return found


def measure(
    servers: Sequence[Server], clients: int, requests: int, repeats: int
) -> list[dict[str, Any]]:
    """A line for each server."""
    speeds: dict[str, list[float]] = {server.name: [] for server in servers}
    firsts: dict[str, list[float]] = {server.name: [] for server in servers}
    wrong = {server.name: 0 for server in servers}
    for repeat in range(repeats):
        asked = chats(clients * requests, SEED + 1000 * clients + repeat)
        for server in servers if repeat % 2 else reversed(servers):
            seconds, replies = client.at_once(server.ask, asked, clients)
            speeds[server.name].append(sum(reply.tokens for reply in replies) / seconds)
            firsts[server.name] += [reply.first_s for reply in replies]
            alone = [server.client.ask(each, MAX_TOKENS, **server.alone) for each in asked]
            pairs = zip(replies, alone, strict=True)
            wrong[server.name] += sum(reply.text != own.text for reply, own in pairs)
    peer = speeds[PEER]
    return [
        {
            "server": name,
            "clients": clients,
            "tokens_per_s": statistics.median(speeds[name]),
            "lowest": min(speeds[name]),
            "highest": max(speeds[name]),
            "over_peer": None if name == PEER else compared(speeds[name], peer),
            "first_p50_ms": 1e3 * percentile(firsts[name], 50),
            "first_p95_ms": 1e3 * percentile(firsts[name], 95),
            "replies": len(firsts[name]),
            "wrong": wrong[name],
        }
        for name in speeds
    ]


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(-(-len(ordered) * percent // 100), 1) - 1]


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen]:
    """A process that ends with the block."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ours(stack: contextlib.ExitStack, pair: str, folder: Path, name: str) -> Server:
    """Our server, told that it is ready by its file."""
    ready = folder / f"{len(name)}.json"
    command = [sys.executable, "-m", "mtp_mlx", "serve", pair, "--port", "0"]
    log = folder / f"{len(name)}.log"
    process = stack.enter_context(running([*command, "--ready-file", str(ready)], log))
    wait(ready.exists, process, log)
    url = json.loads(ready.read_text())["url"]
    extra = {"num_draft_tokens": 0} if name == PLAIN else {}
    return Server(name, client.Server(url, extra=extra), {"cache": False})


def peer(stack: contextlib.ExitStack, pair: str, folder: Path) -> Server:
    """mlx-lm's server with as many rows as ours."""
    layout = folder / "mlx-lm"
    layout.mkdir()
    lm_layout.write(embedded_folder(pair), layout)
    port, log = free_port(), folder / "mlx-lm.log"
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(layout)]
    options = ["--decode-concurrency", "8", "--temp", "0", "--log-level", "WARNING"]
    process = stack.enter_context(
        running(
            [
                *[*command, *options, "--port", str(port)],
                *["--chat-template-args", json.dumps({"enable_thinking": False})],
            ],
            log,
        )
    )
    server = Server(PEER, client.Server(f"http://127.0.0.1:{port}"), {})
    wait(lambda: answers(server), process, log)
    return server


def answers(server: Server) -> bool:
    """Does it reply yet?"""
    try:
        server.ask([{"role": "user", "content": "hello"}])
    except RequestError:
        return False
    return True


def wait(is_there: Any, process: subprocess.Popen, log: Path) -> None:
    """Until a server is there; raises where its process has ended instead."""
    until = time.monotonic() + START_S
    while not is_there():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"a server did not start: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", choices=NAMES, default="tiny")
    parser.add_argument("--clients", type=positive, nargs="+", default=CLIENTS)
    parser.add_argument("--requests", type=positive, default=4, help="for each client, a repeat")
    parser.add_argument("--repeats", type=positive, default=5)
    asked = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        servers = [
            peer(stack, asked.pair, folder),
            ours(stack, asked.pair, folder, PLAIN),
            ours(stack, asked.pair, folder, OURS),
        ]
        for server in servers:  # first uses compile and measure
            client.at_once(server.ask, chats(16, SEED), 8)
        heads = ("TTFT p50", "p95 ms", "wrong", "of")
        speeds = f"{'tokens/s':>13}{'range':>13}{'x mlx-lm':>18}"
        print(f"{'clients':>7} {'server':20}{speeds}" + "".join(f"{head:>13}" for head in heads))
        for clients in asked.clients:
            for line in measure(servers, clients, asked.requests, asked.repeats):
                lines.append(line)
                print(row(line), flush=True)
    versions = {"mlx-lm": version("mlx-lm")}
    about = {
        "bench": "serve",
        "machine": asdict(where()),
        "cpus": os.cpu_count(),
        "versions": versions,
    }
    print(json.dumps({**about, "pair": asked.pair, "lines": lines}))
    return int(any(line["wrong"] for line in lines if line["server"] != PEER))


def row(line: dict[str, Any]) -> str:
    """A line of the table."""
    spread = f"{line['lowest']:.0f}-{line['highest']:.0f}"
    over = "-" if line["over_peer"] is None else told(line["over_peer"])
    return (
        f"{line['clients']:>7} {line['server']:20}{line['tokens_per_s']:>13.0f}{spread:>13}"
        f"{over:>18}{line['first_p50_ms']:>13.1f}{line['first_p95_ms']:>13.1f}"
        f"{line['wrong']:>13}{line['replies']:>13}"
    )


if __name__ == "__main__":
    sys.exit(main())
