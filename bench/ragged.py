"""What rows of mixed lengths keep of their drafts, in batches of 1, 2, 4, 8, by an oracle drafter.

The oracle proposes the right token with probability `--agreement` a, so that each row should keep
a + a² + a³ of 3 drafts a round (Leviathan et al. 2023), whatever runs beside it, and write what it
writes alone without drafts. The target is a golden one with random weights and a window of 8; the
prompts are shorter and longer than that. With --peer mlx-vlm runs the same checkpoint, prompts and
oracle in an environment of its own (`make peers`), each engine against its own plain text of a row
alone.

Counted are the first `--rounds` rounds of every row. All of them have all their drafts and a budget
that none of them reaches, and their number does not depend on what they keep: the clipped rounds at
a row's end would bias the mean, and so would "all whole rounds of so many tokens", of which unlucky
rows have more. The peer's rounds are counted up to the end, without the clipped ones; that bias is
far below the standard error of so few.

Prints a table, then one JSON line. Exit code 1 where ours is off by 3 standard errors or a row is
wrong.

    python -m bench.ragged --peer
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import mlx.core as mx

from bench.counts import at_least
from bench.peers import environment
from bench.peers.vlm_layout import drop_vision_config
from mtp_mlx.checkpoint import open_target
from mtp_mlx.engine.engine import PREFILL_CHUNK
from mtp_mlx.measure.where import where
from mtp_mlx.model.load import load_target
from mtp_mlx.model.target import Target
from mtp_mlx.request import Request, Sampling
from tests.exact.pairs import Outcome, oracle_engine, plain
from tests.golden import recipe
from tests.oracle import agreeing

VARIANT = "31b"
BATCHES = (1, 2, 4, 8)
DRAFTS = 3
PEER_TOKENS = 150
# By turns below and above the window of 8, all different.
LENGTHS = (3, 40, 6, 23, 4, 61, 7, 33, 5, 72, 2, 19, 8, 52, 9, 28, 10, 46, 12, 81)
PEER_SCRIPT = Path(__file__).resolve().parent / "peers" / "vlm.py"
SIGMAS = 3.0


@dataclass(frozen=True)
class Law:
    """Mean and deviation of what a row keeps of `drafts` drafts, each right with `agreement`."""

    agreement: float
    drafts: int

    @property
    def mean(self) -> float:
        return sum(self.agreement**place for place in range(1, self.drafts + 1))

    @property
    def deviation(self) -> float:
        places = range(1, self.drafts + 1)
        square = sum((2 * place - 1) * self.agreement**place for place in places)
        return math.sqrt(max(square - self.mean**2, 0.0))

    def errors(self, accepted: float, rounds: int) -> float:
        """By how many standard errors a mean of so many rounds is off; where nothing is left to
        chance, 0 or infinity."""
        off = accepted - self.mean
        error = self.deviation / math.sqrt(rounds)
        return off / error if error else math.copysign(math.inf, off) if off else 0.0

    def budget(self, rounds: int) -> int:
        """New tokens that so many rounds do not exhaust: the mean and six deviations more, the
        prompt's own token and one whole round."""
        spread = 6 * self.deviation * math.sqrt(rounds)
        most = rounds * (1 + self.drafts)
        return 2 + self.drafts + min(math.ceil(rounds * (1 + self.mean) + spread), most)


def prompts() -> list[tuple[int, ...]]:
    return [
        tuple(int(token) for token in recipe.prompt(length, seed))
        for seed, length in enumerate(LENGTHS)
    ]


def drafted(
    target: Target,
    requests: Sequence[Request],
    alone: Sequence[Outcome],
    agreement: float,
    rows: int,
) -> list[Outcome]:
    """Outcomes of all requests with the oracle, at most `rows` of them at a time."""
    texts = [outcome.ids for outcome in alone]
    script = agreeing(agreement, seed=rows)  # other draws for each batch size
    engine, _ = oracle_engine(target, texts, script, rows, PREFILL_CHUNK)
    outcomes = {engine.submit(request): Outcome() for request in requests}
    while not engine.is_idle:
        for event in engine.step():
            outcomes[event.request_id].feed(event)
    return list(outcomes.values())


def ours(folder: Path, law: Law, rounds: int) -> list[dict[str, Any]]:
    """A line of the table for each batch size."""
    target = load_target(open_target(folder), mx.float32)
    requests = [
        Request(
            prompt=prompt,
            sampling=Sampling(),
            max_tokens=law.budget(rounds),
            num_draft_tokens=law.drafts,
        )
        for prompt in prompts()
    ]
    alone = [plain(target, replace(request, num_draft_tokens=0)) for request in requests]
    lines = []
    for rows in BATCHES:
        seen = drafted(target, requests, alone, law.agreement, rows)
        counts = [outcome.accepted[:rounds] for outcome in seen]
        for outcome, count in zip(seen, counts, strict=True):
            whole = [e.drafted == law.drafts for e in outcome.rounds[1:][:rounds]]
            assert len(count) == rounds and all(whole), "a row has too few whole rounds"
        kept = [accepted for count in counts for accepted in count]
        lines.append(
            {
                "rows": rows,
                "rounds": len(kept),
                "accepted": sum(kept) / len(kept),
                "forwards_per_token": sum(len(outcome.accepted) for outcome in seen)
                / sum(len(outcome.ids) - 1 for outcome in seen),
                "wrong": sum(a.text != b.text for a, b in zip(seen, alone, strict=True)),
                "of": len(seen),
            }
        )
    return lines


def peer(folders: tuple[Path, Path], law: Law, tokens: int) -> dict[str, Any]:
    """What mlx-vlm says: its version and a line for each batch size; or why there is none."""
    python = environment.python()
    if python is None:
        return {"version": None, "note": environment.ABSENT}
    drop_vision_config(folders[0])
    task = {
        "target": str(folders[0]),
        "drafter": str(folders[1]),
        "prompts": prompts(),
        "tokens": tokens,
        "drafts": law.drafts,
        "agreement": law.agreement,
        "batches": BATCHES,
    }
    done = subprocess.run(
        [str(python), str(PEER_SCRIPT)], input=json.dumps(task), text=True, stdout=subprocess.PIPE
    )
    if done.returncode:
        return {"version": None, "note": f"failed with exit code {done.returncode}, see stderr"}
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, lines: Sequence[dict[str, Any]], law: Law) -> None:
    """The table of one engine."""
    print(f"\n{name}")
    print(f"{'rows':>5} {'rounds':>7} {'accepted':>9} {'of law':>7} {'in s.e.':>8}", end="")
    print(f" {'forwards/token':>15} {'wrong rows':>11}")
    for line in lines:
        sigmas = law.errors(line["accepted"], line["rounds"])
        wrong = f"{line['wrong']} of {line['of']}"
        print(
            f"{line['rows']:>5} {line['rounds']:>7,} {line['accepted']:>9.3f} {law.mean:>7.3f} "
            f"{sigmas:>+8.1f} {line['forwards_per_token']:>15.3f} {wrong:>11}"
        )


def is_lawful(line: dict[str, Any], law: Law) -> bool:
    """Within 3 standard errors, and no row wrong."""
    return line["wrong"] == 0 and abs(law.errors(line["accepted"], line["rounds"])) <= SIGMAS


def _refuse(reason: str) -> NoReturn:
    print(f"bench.ragged: {reason}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Print tables and the JSON line; leave with 1 where ours breaks the law, with 2 and one line
    where there is none."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agreement", type=float, default=0.8)
    parser.add_argument("--rounds", type=int, default=200, help="rounds counted of each row")
    parser.add_argument("--peer", action="store_true", help="run mlx-vlm beside it")
    tokens = f"new tokens of a peer's row, {PEER_TOKENS}"
    parser.add_argument("--peer-tokens", type=at_least(2), help=tokens)
    arguments = parser.parse_args()
    if not 0 <= arguments.agreement <= 1:
        _refuse(f"--agreement is {arguments.agreement:g}, not from 0 to 1")
    if arguments.rounds < 1:
        _refuse(f"--rounds is {arguments.rounds}, not at least 1")
    if arguments.peer_tokens is not None and not arguments.peer:
        _refuse("--peer-tokens are of the peer that --peer runs; give it too")
    law = Law(arguments.agreement, DRAFTS)
    with tempfile.TemporaryDirectory() as folder:
        folders = recipe.write_pair(Path(folder), VARIANT, layout="mlx")
        lines = ours(folders[0], law, arguments.rounds)
        show(f"mtp-mlx, {DRAFTS} drafts, agreement {law.agreement:g}", lines, law)
        theirs = (
            peer(folders, law, arguments.peer_tokens or PEER_TOKENS) if arguments.peer else None
        )
    if theirs is not None:
        name = f"mlx-vlm {theirs['version'] or ''}".strip()
        show(name, theirs.get("lines", []), law)
        if "note" in theirs:
            print(theirs["note"])
    result = {
        "bench": "ragged",
        "drafts": DRAFTS,
        "agreement": law.agreement,
        "law": law.mean,
        "machine": asdict(where()),
        "ours": lines,
        "peer": theirs,
    }
    print(json.dumps(result))
    sys.exit(0 if all(is_lawful(line, law) for line in lines) else 1)


if __name__ == "__main__":
    main()
