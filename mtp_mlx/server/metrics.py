"""What Prometheus reads: figures of the engine by its last snapshot, and of requests as they end.

Names are vLLM's where it has one for the same thing, under `prefix`, so that its dashboards read
them with the prefix "vllm"; all others are under "mtp_mlx". No label holds what a request brought.
"""

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from mtp_mlx import __version__
from mtp_mlx.reply import Reply
from mtp_mlx.request import FinishReason
from mtp_mlx.server.engine_metrics import OWN, EngineFamilies, Family
from mtp_mlx.snapshot import Snapshot, kind_of

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# Who ended a request before its time: the client left, the server's limits, or its end.
Why = Literal["client", "queue_time", "request_time", "stall", "slow_reader", "shutdown"]
# vLLM's words for how a request ended; a reply with tool calls stopped.
ENDINGS: dict[FinishReason, str] = {
    "stop": "stop",
    "tool_calls": "stop",
    "length": "length",
    "cancelled": "abort",
    "error": "error",
}
QUEUE_CODES = frozenset({"queue_full"})
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 300)
GAPS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
GAPS += (1.0, 2.5, 5.0, 10.0)
TOKENS = (1, 10, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000)
RATES = tuple(step / 20 for step in range(21))  # 0, 0.05, ... 1


class Shown(Protocol):
    """See api.LLM."""

    device: str

    def snapshot(self) -> Snapshot: ...


class Metrics:
    """`prefix`: of the names that are vLLM's; `model_name`: as the server calls the model.

    `ended` choices, those of them that were `cancelled`, and `refusals` are counted by one thread,
    the event loop's; any may ask for the exposition.
    """

    def __init__(self, llm: Shown, prefix: str = OWN, model_name: str = "") -> None:
        self._registry = CollectorRegistry()
        self._common = {"model_name": model_name, "engine": "0"}
        self._prefix = prefix
        self.ended = self.cancelled = self.refusals = 0
        self._endings = self._counter("request_success", "Ended requests.", ["finished_reason"])
        for ending in sorted(set(ENDINGS.values())):
            self._endings.labels(*self._common.values(), ending)
        self._histograms = {
            name: self._histogram(name, text, buckets)
            for name, (text, buckets) in HISTOGRAMS.items()
        }
        self._acceptance = Histogram(
            f"{OWN}:spec_decode_acceptance_rate",
            "Accepted drafts of those verified, of requests that drafted.",
            buckets=RATES,
            registry=self._registry,
        )
        text = "Ended requests whose drafting had stopped."
        self._parked = self._own("spec_decode_requests_parked", text, "reason")
        self._cancelled = self._own("requests_cancelled", "Requests ended early.", "why")
        self._refused = self._own("requests_refused", "Requests answered with an error.", "code")
        self._rejections = Counter(
            f"{OWN}:queue_rejections",
            "Requests refused because the queue was full.",
            registry=self._registry,
        )
        self._registry.register(_EngineCollector(llm, prefix, self._common))
        for why in get_args(Why):
            self._cancelled.labels(why)
        Info(f"{OWN}:build", "What runs, and on what.", registry=self._registry).info(
            {
                "version": __version__,
                "mlx": _mlx_version(),
                "chip": llm.device,
                "os": f"{platform.system()} {platform.release()}",
            }
        )

    def finished(self, reply: Reply, *, gaps: Iterable[float] = (), why: Why | None = None) -> None:
        """A choice has ended. `gaps`: seconds between its rounds (streams.Stream.gaps); `why`: who
        ended it early, None where nobody did."""
        timings, spec = reply.timings, reply.spec
        self.ended += 1
        self._endings.labels(*self._common.values(), ENDINGS[reply.finish_reason]).inc()
        if why is not None:
            self.cancelled += 1
            self._cancelled.labels(why).inc()
        self._observe("request_queue_time_seconds", timings.queue_s)
        whole = timings.queue_s + timings.prompt_s + timings.generation_s
        self._observe("e2e_request_latency_seconds", whole)
        if reply.usage.completion_tokens:
            self._observe("time_to_first_token_seconds", timings.first_token_s)
            self._observe("request_prefill_time_seconds", timings.prompt_s)
            self._observe("request_decode_time_seconds", timings.generation_s)
        for gap in gaps:
            self._observe("inter_token_latency_seconds", gap)
        self._observe("request_prompt_tokens", reply.usage.prompt_tokens)
        self._observe("request_generation_tokens", reply.usage.completion_tokens)
        if spec.drafted:
            self._acceptance.observe(spec.accepted / spec.drafted)
        if spec.parked is not None:
            self._parked.labels(kind_of(spec.parked)).inc()

    def refused(self, code: str) -> None:
        """A request was answered with an error of the server's own `code`, and nothing ran."""
        self.refusals += 1
        self._refused.labels(code).inc()
        if code in QUEUE_CODES:
            self._rejections.inc()

    def exposition(self) -> bytes:
        """The text that Prometheus reads, of CONTENT_TYPE."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        names = [*self._common, *labels]
        return Counter(f"{self._prefix}:{name}", text, names, registry=self._registry)

    def _own(self, name: str, text: str, label: str) -> Counter:
        return Counter(f"{OWN}:{name}", text, [label], registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(
            f"{self._prefix}:{name}",
            text,
            list(self._common),
            buckets=buckets,
            registry=self._registry,
        )
        return family.labels(*self._common.values())

    def _observe(self, name: str, value: float) -> None:
        self._histograms[name].observe(value)


HISTOGRAMS = {
    "time_to_first_token_seconds": ("From the call to the first token.", SECONDS),
    "inter_token_latency_seconds": ("From one round's tokens to the next's.", GAPS),
    "e2e_request_latency_seconds": ("From the call to the last token.", SECONDS),
    "request_queue_time_seconds": ("From the call to a row.", SECONDS),
    "request_prefill_time_seconds": ("From the row to the first token.", SECONDS),
    "request_decode_time_seconds": ("From the first token to the last.", SECONDS),
    "request_prompt_tokens": ("Tokens of a request's prompt.", TOKENS),
    "request_generation_tokens": ("Tokens of a reply.", TOKENS),
}


def _mlx_version() -> str:
    try:
        return version("mlx")
    except PackageNotFoundError:  # the NumPy reference runs without it
        return "none"


class _EngineCollector(Collector):
    """See EngineFamilies."""

    def __init__(self, llm: Shown, prefix: str, common: dict[str, str]) -> None:
        self._llm = llm
        self._prefix = prefix
        self._common = common

    def collect(self) -> Iterator[Family]:
        yield from EngineFamilies(self._llm.snapshot(), self._prefix, self._common)
