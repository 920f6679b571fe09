"""Metrics: what Prometheus reads is what replies said, under the names that its boards know."""

import random
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

import mtp_mlx
from mtp_mlx.reply import Timings, Usage
from mtp_mlx.server.metrics import CONTENT_TYPE, Metrics
from tests.server.shown import STATS, FakeLLM, reply, snapshot

VLLM = (
    *("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"),
    *("prompt_tokens_total", "generation_tokens_total", "request_success_total"),
    *("prefix_cache_queries_total", "prefix_cache_hits_total"),
    *("time_to_first_token_seconds_count", "inter_token_latency_seconds_count"),
    *("e2e_request_latency_seconds_count", "request_queue_time_seconds_count"),
    *("request_prefill_time_seconds_count", "request_decode_time_seconds_count"),
    *("spec_decode_num_drafts_total", "spec_decode_num_draft_tokens_total"),
    *("spec_decode_num_accepted_tokens_total", "spec_decode_num_accepted_tokens_per_pos_total"),
)
PROMPTS = ("A fox", "Two words of it", "Numbers: one, two", "The", "What is", "On a day")


class Read:
    """The samples of an exposition, by name and labels."""

    def __init__(self, metrics: Metrics) -> None:
        text = metrics.exposition().decode()
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def all(self, name: str) -> dict[str, float]:
        """Values by the label that is not common to all."""
        common = {"model_name", "engine"}
        return {
            ",".join(value for label, value in s.labels.items() if label not in common): s.value
            for s in self.samples
            if s.name == name
        }

    def one(self, name: str, label: str = "") -> float:
        return self.all(name)[label]


def test_the_names_are_vllms_under_either_prefix_and_our_own_stay():
    for prefix in ("mtp_mlx", "vllm"):
        metrics = Metrics(FakeLLM(snapshot()), prefix, "tiny")
        metrics.finished(reply(4, 2), gaps=(0.1,))
        found = Read(metrics)
        names = {sample.name for sample in found.samples}
        assert {f"{prefix}:{name}" for name in VLLM} <= names
        assert all(name.startswith((f"{prefix}:", "mtp_mlx:")) for name in names)
        families = [family.name for family in found.families]
        assert len(families) == len(set(families))
        running = next(s for s in found.samples if s.name == f"{prefix}:num_requests_running")
        assert running.labels == {"model_name": "tiny", "engine": "0"}
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_two_servers_of_one_process_share_nothing():
    first, second = (Metrics(FakeLLM(snapshot())) for _ in range(2))
    first.finished(reply())
    assert Read(first).one("mtp_mlx:request_success_total", "stop") == 1
    assert Read(second).one("mtp_mlx:request_success_total", "stop") == 0


def test_the_engine_is_shown_as_its_last_snapshot_has_it():
    llm = FakeLLM(snapshot())
    found = Read(Metrics(llm))
    assert found.one("mtp_mlx:num_requests_running") == 3
    assert found.one("mtp_mlx:num_requests_waiting") == 4
    assert found.one("mtp_mlx:kv_cache_usage_perc") == 0.25
    assert found.one("mtp_mlx:generation_tokens_total") == 23
    assert found.one("mtp_mlx:prefix_cache_hits_total") == 30
    assert found.one("mtp_mlx:spec_decode_num_drafts_total") == 5
    assert found.one("mtp_mlx:spec_decode_num_accepted_tokens_per_pos_total", "1") == 2
    assert found.one("mtp_mlx:spec_decode_num_draft_tokens_per_pos_total", "2") == 2
    assert found.all("mtp_mlx:spec_decode_speedup_ratio") == {"2": 1.5}
    assert found.one("mtp_mlx:spec_decode_depth_count", "2") == 6
    assert found.one("mtp_mlx:spec_decode_depth_sum", "2") == 14
    depths = found.all("mtp_mlx:spec_decode_depth_bucket")
    assert [depths[f"2,{le}.0"] for le in range(4)] == [0, 1, 3, 6]
    assert found.all("mtp_mlx:spec_decode_parked") == {"would_not_pay": 1, "no_row_may_draft": 0}
    assert found.one("mtp_mlx:spec_decode_parked_rounds_total", "would_not_pay") == 3
    assert found.all("mtp_mlx:spec_decode_round_seconds_total") == dict.fromkeys(
        ("launch", "land", "commit", "prompt"), 0.5
    )
    assert found.one("mtp_mlx:experts_per_layer") == 5.5
    memory = found.all("mtp_mlx:memory_bytes")
    assert (memory["kv_reserved"], memory["kv_budget"], memory["active"], memory["peak"]) == (
        *(250, 1000),
        *(700, 900),
    )
    assert found.one("mtp_mlx:engine_up") == 1
    llm.shown = snapshot(stopped="cosmic ray", tokens=24)
    found = Read(Metrics(llm))
    assert (found.one("mtp_mlx:engine_up"), found.one("mtp_mlx:generation_tokens_total")) == (0, 24)


def test_what_is_not_known_is_left_out():
    stats = replace(STATS, experts_per_layer=None, kv_budget_bytes=None)
    found = Read(Metrics(FakeLLM(snapshot(stats=stats, active_bytes=None))))
    names = {sample.name for sample in found.samples}
    assert not names & {"mtp_mlx:experts_per_layer", "mtp_mlx:kv_cache_usage_perc"}
    assert not {"active", "kv_budget"} & found.all("mtp_mlx:memory_bytes").keys()


def test_a_stuck_engine_can_be_alarmed_on():
    old = snapshot()
    found = Read(Metrics(FakeLLM(snapshot(at=old.at - 40, last_step_at=old.at - 40))))
    assert found.one("mtp_mlx:engine_stalled_seconds") >= 40


def test_requests_are_counted_as_they_end():
    metrics = Metrics(FakeLLM(snapshot()))
    metrics.finished(reply(10, 8, parked="parked, drafting would not pay: N=2"), gaps=(0.1, 0.3))
    metrics.finished(reply(finish_reason="tool_calls"))
    metrics.finished(reply(finish_reason="cancelled"), why="client")
    metrics.finished(reply(finish_reason="error", error="no time"), why="request_time")
    for code in ("queue_full", "queue_full", "bad_json"):
        metrics.refused(code)
    found = Read(metrics)
    assert found.all("mtp_mlx:request_success_total") == {
        "stop": 2,
        "length": 0,
        "abort": 1,
        "error": 1,
    }
    cancelled = found.all("mtp_mlx:requests_cancelled_total")
    assert {why: count for why, count in cancelled.items() if count} == {
        "client": 1,
        "request_time": 1,
    }
    assert found.all("mtp_mlx:requests_refused_total") == {"queue_full": 2, "bad_json": 1}
    assert found.one("mtp_mlx:queue_rejections_total") == 2
    assert found.all("mtp_mlx:spec_decode_requests_parked_total") == {"would_not_pay": 1}
    assert found.one("mtp_mlx:inter_token_latency_seconds_sum") == pytest.approx(0.4)
    assert found.one("mtp_mlx:e2e_request_latency_seconds_sum") == pytest.approx(4 * 0.8)
    assert found.one("mtp_mlx:spec_decode_acceptance_rate_count") == 1
    assert (metrics.ended, metrics.cancelled, metrics.refusals) == (4, 2, 3)


def test_a_request_that_ended_in_the_queue_had_no_first_token():
    metrics = Metrics(FakeLLM(snapshot()))
    nothing = reply(usage=Usage(5, 0), token_ids=(), timings=Timings(0.0, 0.0, 0.0, 3.0, 0.0))
    metrics.finished(nothing, why="queue_time")
    found = Read(metrics)
    assert found.one("mtp_mlx:time_to_first_token_seconds_count") == 0
    assert found.one("mtp_mlx:request_queue_time_seconds_sum") == 3.0


def test_the_median_and_the_95th_of_acceptance_can_be_read():
    draw = random.Random(6)
    rates = [min(max(draw.gauss(0.7, 0.15), 0.0), 1.0) for _ in range(400)]
    metrics = Metrics(FakeLLM(snapshot()))
    for rate in rates:
        metrics.finished(reply(1000, round(1000 * rate)))
    buckets = Read(metrics).all("mtp_mlx:spec_decode_acceptance_rate_bucket")
    bounds = sorted((float(label), count) for label, count in buckets.items())
    assert [bound for bound, _ in bounds[:3]] == [0.0, 0.05, 0.1] and len(bounds) == 22
    for quantile in (0.5, 0.95):
        read = next(bound for bound, count in bounds if count >= quantile * len(rates))
        exact = sorted(rates)[int(quantile * len(rates)) - 1]
        assert read - 0.051 <= exact <= read + 0.001


def test_the_counters_are_what_the_replies_said():
    with mtp_mlx.load("tiny", max_num_seqs=3) as llm:
        metrics, replies = Metrics(llm, "vllm", "tiny"), []
        streams = [
            llm.stream(prompt, max_tokens=12 + 5 * index, seed=index, temperature=0.7)
            for index, prompt in enumerate(PROMPTS)
        ]
        for stream in streams[:-1]:
            list(stream)
        streams[-1].cancel()
        for stream in streams:
            metrics.finished(stream.reply, gaps=stream.gaps)
            replies.append(stream.reply)
        found = Read(metrics)
    drafted = sum(each.spec.drafted for each in replies)
    accepted = sum(each.spec.accepted for each in replies)
    assert found.one("vllm:spec_decode_num_draft_tokens_total") == drafted > 0
    assert found.one("vllm:spec_decode_num_accepted_tokens_total") == accepted > 0
    for place in range(7):
        label = str(place)
        ours = sum(sum(each.spec.per_position[place : place + 1]) for each in replies)
        name = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
        assert found.one(name, label) == ours
        made = sum(sum(each.spec.drafted_per_position[place : place + 1]) for each in replies)
        assert found.one("mtp_mlx:spec_decode_num_draft_tokens_per_pos_total", label) == made
    tokens = sum(each.usage.completion_tokens for each in replies)
    assert found.one("vllm:generation_tokens_total") == tokens
    assert found.one("vllm:request_generation_tokens_sum") == tokens
    begun = [each for each in replies if each.usage.completion_tokens]
    assert found.one("vllm:prompt_tokens_total") >= sum(e.usage.prompt_tokens for e in begun)
    assert found.one("vllm:time_to_first_token_seconds_count") == len(begun)
    rounds = sum(each.spec.rounds for each in replies)
    assert found.one("vllm:inter_token_latency_seconds_count") == rounds
    assert found.one("vllm:num_requests_running") == 0
    assert sum(found.all("vllm:request_success_total").values()) == len(PROMPTS)
    rates = [each.spec.accepted / each.spec.drafted for each in replies if each.spec.drafted]
    assert found.one("mtp_mlx:spec_decode_acceptance_rate_sum") == pytest.approx(sum(rates))
    build = next(s.labels for s in found.samples if s.name == "mtp_mlx:build_info")
    assert build["chip"] == llm.device and build["version"] == mtp_mlx.__version__


def test_no_label_holds_what_a_request_brought():
    with mtp_mlx.load("tiny") as llm:
        metrics = Metrics(llm)
        answer = llm.generate("zanzibar", max_tokens=8, stop=["quixotic"])
        metrics.finished(answer)
        text = metrics.exposition().decode()
    assert "zanzibar" not in text and "quixotic" not in text
    labels = {name for s in Read(metrics).samples for name in s.labels}
    assert labels <= {
        *("model_name", "engine", "le", "finished_reason", "position", "batch", "phase"),
        *("reason", "why", "code", "kind", "version", "mlx", "chip", "os"),
    }
