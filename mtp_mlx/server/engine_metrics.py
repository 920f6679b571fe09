"""The engine's figures for Prometheus, from its last snapshot: scraping asks the engine nothing."""

import time
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from mtp_mlx.snapshot import RoundStats, Snapshot

OWN = "mtp_mlx"
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class EngineFamilies:
    """The families of one snapshot. `common`: labels, and their values, of those that go by vLLM's
    names, for dashboards choose by them."""

    def __init__(self, snapshot: Snapshot, prefix: str, common: dict[str, str]) -> None:
        self._snapshot = snapshot
        self._prefix = prefix
        self._names, self._values = list(common), list(common.values())

    def __iter__(self) -> Iterator[Family]:
        yield from self._requests()
        yield from self._drafts()
        yield from self._rounds()
        yield from self._parked()
        yield from self._machine()

    def _requests(self) -> Iterator[Family]:
        """What vLLM calls by these names too."""
        snapshot, stats = self._snapshot, self._snapshot.stats
        running = stats.running + stats.prefilling
        yield self._gauge("num_requests_running", "Requests that have a row.", running)
        yield self._gauge("num_requests_waiting", "Requests that wait for a row.", stats.waiting)
        if stats.kv_budget_bytes:
            share = stats.kv_reserved_bytes / stats.kv_budget_bytes
            yield self._gauge("kv_cache_usage_perc", "K/V set aside for rows; 1 is all.", share)
        text = "Tokens of prompts that began to be read, those from the prompt cache among them."
        yield self._counter("prompt_tokens", text, stats.prompt_tokens)
        yield self._counter("generation_tokens", "Tokens emitted.", snapshot.tokens)
        text = "Tokens of prompts that were looked up in the prompt cache."
        yield self._counter("prefix_cache_queries", text, stats.prompt_tokens)
        text = "Tokens of prompts that the prompt cache had."
        yield self._counter("prefix_cache_hits", text, stats.cached_tokens)

    def _drafts(self) -> Iterator[Family]:
        stats, rounds = self._snapshot.stats, self._snapshot.rounds
        drafting = sum(rounds.drafted_per_position[:1])
        text = "Drafting rows of rounds."
        yield self._counter("spec_decode_num_drafts", text, drafting)
        text = "Drafts that were verified."
        yield self._counter("spec_decode_num_draft_tokens", text, stats.drafted)
        text = "Drafts that were accepted and emitted."
        yield self._counter("spec_decode_num_accepted_tokens", text, stats.accepted)
        text = "Accepted drafts by their position in the round, from 0."
        name = "spec_decode_num_accepted_tokens_per_pos"
        yield self._by_position(name, text, rounds.accepted_per_position)
        text = "Verified drafts by their position in the round, from 0."
        family = CounterMetricFamily(
            f"{OWN}:spec_decode_num_draft_tokens_per_pos", text, labels=["position"]
        )
        for position, count in enumerate(rounds.drafted_per_position):
            family.add_metric([str(position)], count)
        yield family

    def _rounds(self) -> Iterator[Family]:
        stats, rounds = self._snapshot.stats, self._snapshot.rounds
        yield CounterMetricFamily(f"{OWN}:spec_decode_rounds", "Rounds.", value=stats.rounds)
        text = "Rounds without drafts."
        yield CounterMetricFamily(f"{OWN}:spec_decode_plain_rounds", text, value=stats.plain_rounds)
        text = (
            "The host's seconds: launch, until it waits for the device; land, the wait; commit, "
            "what follows; prompt, chunks of prompts."
        )
        seconds = CounterMetricFamily(f"{OWN}:spec_decode_round_seconds", text, labels=["phase"])
        for phase, taken in rounds.seconds.items():
            seconds.add_metric([phase], taken)
        yield seconds
        yield from _batches(rounds)

    def _parked(self) -> Iterator[Family]:
        rounds = self._snapshot.rounds
        text = "1 for the reason for which no row drafted, when it last was the policy's choice."
        now = GaugeMetricFamily(f"{OWN}:spec_decode_parked", text, labels=["reason"])
        text = "Rounds in which the policy let no row draft."
        total = CounterMetricFamily(f"{OWN}:spec_decode_parked_rounds", text, labels=["reason"])
        for reason, count in sorted(rounds.parked_rounds.items()):
            now.add_metric([reason], reason == rounds.parked_kind)
            total.add_metric([reason], count)
        yield now
        yield total

    def _machine(self) -> Iterator[Family]:
        snapshot, stats = self._snapshot, self._snapshot.stats
        memory = GaugeMetricFamily(f"{OWN}:memory_bytes", "Bytes by their use.", labels=["kind"])
        kinds = {
            "kv_reserved": stats.kv_reserved_bytes,
            "kv_budget": stats.kv_budget_bytes,
            "prompt_cache": stats.prompt_cache_bytes,
            "prompt_cache_budget": stats.prompt_cache_budget_bytes,
            "active": snapshot.active_bytes,
            "peak": snapshot.peak_bytes,
        }
        for kind, size in kinds.items():
            if size is not None:
                memory.add_metric([kind], size)
        yield memory
        if stats.experts_per_layer is not None:
            text = "Distinct experts that a forward of a round read in a layer, mean."
            yield _gauge("experts_per_layer", text, stats.experts_per_layer)
        text = "Steps of the engine."
        yield CounterMetricFamily(f"{OWN}:engine_steps", text, value=snapshot.steps)
        text = "Seconds since a step ended, 0 where there is nothing to do."
        yield _gauge("engine_stalled_seconds", text, snapshot.stalled_s(time.monotonic()))
        yield _gauge("engine_up", "0 when the engine has ended.", snapshot.stopped is None)

    def _gauge(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"{self._prefix}:{name}", text, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> CounterMetricFamily:
        family = CounterMetricFamily(f"{self._prefix}:{name}", text, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def _by_position(self, name: str, text: str, counts: Sequence[int]) -> CounterMetricFamily:
        labels = [*self._names, "position"]
        family = CounterMetricFamily(f"{self._prefix}:{name}", text, labels=labels)
        for position, count in enumerate(counts):
            family.add_metric([*self._values, str(position)], count)
        return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{OWN}:{name}", text, value=value)


def _batches(rounds: RoundStats) -> Iterator[Family]:
    """By the number of rows of a round."""
    text = "Drafts that a row had verified in a round of so many rows."
    depths = HistogramMetricFamily(f"{OWN}:spec_decode_depth", text, labels=["batch"])
    text = "Tokens a second as a multiple of plain decoding's by the measured costs."
    ratios = GaugeMetricFamily(f"{OWN}:spec_decode_speedup_ratio", text, labels=["batch"])
    for batch in rounds.batches:
        label = [str(batch.rows)]
        upto = [sum(batch.depths[: depth + 1]) for depth in range(len(batch.depths))]
        buckets = [(f"{depth}.0", count) for depth, count in enumerate(upto)]
        total = sum(depth * count for depth, count in enumerate(batch.depths))
        depths.add_metric(label, [*buckets, ("+Inf", upto[-1])], sum_value=total)
        if batch.speedup is not None:
            ratios.add_metric(label, batch.speedup)
    yield depths
    yield ratios
