"""The golden and the embedded pairs on MLX, and what a request gives when an engine runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx

from mtp_mlx.checkpoint import open_drafter, open_target
from mtp_mlx.embedded import embedded_folder
from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.model.drafter import Drafter
from mtp_mlx.model.load import load_drafter, load_target
from mtp_mlx.model.target import Target
from mtp_mlx.reference.drafter import Drafter as NumpyDrafter
from mtp_mlx.reference.load import load_weights
from mtp_mlx.reference.target import Target as NumpyTarget
from mtp_mlx.request import Event, Failed, Finished, Logprob, Progress, Request, Tokens
from tests.constraints import copied
from tests.exact.cases import Call
from tests.golden import recipe
from tests.oracle import Oracle, Script, agreeing

# An engine that has not ended after so many steps never will.
MAX_STEPS = 2000


@dataclass(frozen=True)
class Pair:
    target: Target
    drafter: Drafter

    @property
    def vocab_size(self) -> int:
        return self.target.config.vocab_size


@cache
def golden_pair(variant: str) -> Pair:
    """The golden pair of a variant in float32, read once a process; nobody changes its weights."""
    with TemporaryDirectory() as folder:
        return read_pair(*recipe.write_pair(Path(folder), variant))


@cache
def embedded_pair(name: str) -> Pair:
    """A trained pair of the package in float32, likewise."""
    return fresh_embedded_pair(name)


def fresh_embedded_pair(name: str) -> Pair:
    """The same, read anew: its weights may be changed."""
    folder = embedded_folder(name)
    return read_pair(folder, folder.with_name(f"{name}-assistant"))


@cache
def golden_twin(variant: str) -> tuple[NumpyTarget, NumpyDrafter]:
    """The golden pair of a variant in NumPy."""
    with TemporaryDirectory() as folder:
        return read_twin(*recipe.write_pair(Path(folder), variant))


@cache
def embedded_twin(name: str) -> tuple[NumpyTarget, NumpyDrafter]:
    """A trained pair of the package in NumPy."""
    folder = embedded_folder(name)
    return read_twin(folder, folder.with_name(f"{name}-assistant"))


def read_twin(target_folder: Path, drafter_folder: Path) -> tuple[NumpyTarget, NumpyDrafter]:
    """A pair on disk, in NumPy."""
    target = open_target(target_folder)
    drafter = open_drafter(drafter_folder, target.config)
    return (
        NumpyTarget(target.config, load_weights(target)),
        NumpyDrafter(drafter.config, load_weights(drafter)),
    )


def read_pair(target_folder: Path, drafter_folder: Path) -> Pair:
    """A pair on disk, in float32."""
    target = open_target(target_folder)
    drafter = open_drafter(drafter_folder, target.config)
    return Pair(load_target(target, mx.float32), load_drafter(drafter, mx.float32))


@dataclass
class Outcome:
    """All that an engine reported of one request."""

    ids: list[int] = field(default_factory=list)
    rounds: list[Tokens] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    end: Finished | Failed | None = None

    @property
    def text(self) -> tuple[list[int], str | None]:
        """What drafting may not change: the tokens, and why they ended."""
        return self.ids, self.end.reason if isinstance(self.end, Finished) else None

    @property
    def whole(self) -> tuple[list[int], str | None, list[Logprob], list[Logprob | None]]:
        """What drafting may not change either: all that is said of the tokens."""
        return *self.text, self.logprobs, self.prompt_logprobs

    @property
    def logprobs(self) -> list[Logprob]:
        return [each for event in self.rounds for each in event.logprobs]

    @property
    def prompt_logprobs(self) -> list[Logprob | None]:
        return [each for event in self.rounds for each in event.prompt_logprobs]

    @property
    def accepted(self) -> list[int]:
        """Accepted drafts, round after round (prefill left out)."""
        return [event.accepted for event in self.rounds if event.origins[0] != "prefill"]

    def feed(self, event: Event) -> None:
        assert self.end is None, f"{event} follows {self.end}"
        if isinstance(event, Tokens):
            self.ids.extend(event.ids)
            self.rounds.append(event)
        elif isinstance(event, Progress):
            self.progress.append(event)
        else:
            self.end = event


class Run:
    """An engine and the outcome of every request it was given, by request id."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.outcomes: dict[int, Outcome] = {}

    def submit(self, request: Request) -> int:
        request_id = self.engine.submit(copied(request))
        self.outcomes[request_id] = Outcome()
        return request_id

    def step(self) -> list[Event]:
        events = self.engine.step()
        for event in events:
            self.outcomes[event.request_id].feed(event)
        return events

    def cancel(self, request_id: int) -> None:
        for event in self.engine.cancel(request_id):
            self.outcomes[event.request_id].feed(event)

    def finish(self) -> None:
        """Step until nothing is left."""
        for _ in range(MAX_STEPS):
            if self.engine.is_idle:
                return
            self.step()
        raise AssertionError(f"not idle after {MAX_STEPS} steps")


@dataclass(frozen=True)
class Arrival:
    """When a request arrives, and the step before which it is cancelled, if it is."""

    request: Request
    step: int
    cancelled_at: int | None


def run_schedule(
    engine: Engine, arrivals: Sequence[Arrival], look: Callable[[], None] = lambda: None
) -> list[Outcome]:
    """The outcomes in the order of the arrivals; the engine's invariants are checked after each
    step, and `look` is called."""
    running = Run(engine)
    ids: dict[int, int] = {}
    for step in range(MAX_STEPS):
        for index, arrival in enumerate(arrivals):
            if arrival.step == step:
                ids[index] = running.submit(arrival.request)
            if arrival.cancelled_at == step and index in ids:
                running.cancel(ids[index])
        running.step()
        check_invariants(engine)
        look()
        if len(ids) == len(arrivals) and engine.is_idle:
            return [running.outcomes[ids[index]] for index in range(len(arrivals))]
    raise AssertionError(f"not idle after {MAX_STEPS} steps")


def run_together(
    engine: Engine, requests: Sequence[Request], arrivals: Sequence[int] = ()
) -> list[Outcome]:
    """Outcomes of `requests` in a new engine, where request i has id i + 1.

    Request i is submitted before step arrivals[i] (ascending), or before the first step.
    """
    steps = arrivals or [0] * len(requests)
    assert list(steps) == sorted(steps), "ids follow the order of arrival"
    run = Run(engine)
    waiting = list(zip(steps, requests, strict=True))
    for step in range(MAX_STEPS):
        while waiting and waiting[0][0] <= step:
            run.submit(waiting.pop(0)[1])
        if not waiting and engine.is_idle:
            return [run.outcomes[index + 1] for index in range(len(requests))]
        run.step()
    raise AssertionError(f"not idle after {MAX_STEPS} steps")


def plain(target: Target, request: Request, chunk: int = PREFILL_CHUNK) -> Outcome:
    """The request decoded token by token, alone: what every other way must equal."""
    alone = replace(request, num_draft_tokens=0)
    return run_together(Engine(target, None, max_num_seqs=1, chunk=chunk), [alone])[0]


def oracle_engine(
    target: Target, texts: Sequence[Sequence[int]], script: Script, slots: int, chunk: int
) -> tuple[Engine, Oracle]:
    """An engine with a scripted drafter; texts[i] is the plain text of the request of id i + 1."""
    oracle = Oracle(dict(enumerate(texts, start=1)), script, target.config.vocab_size)
    engine = Engine(target, oracle, max_num_seqs=slots, chunk=chunk)
    oracle.watch(engine)
    return engine, oracle


def run_call(pair: Pair, call: Call, expected: Sequence[Outcome]) -> list[Outcome]:
    """The rows of a call, in its batch and with its drafter; `expected`: their plain texts."""
    if call.drafter == "oracle":
        script = agreeing(call.agreement, call.seed)
        texts = [outcome.ids for outcome in expected]
        engine, _ = oracle_engine(pair.target, texts, script, call.slots, call.chunk)
    else:
        engine = Engine(pair.target, pair.drafter, call.slots, call.chunk)
    return run_together(engine, call.requests, call.arrivals)
