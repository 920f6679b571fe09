"""GET /v1/status: rows, speeds and memory in JSON, and no text of any request."""

import json
import time

import pytest

import mtp_mlx
from mtp_mlx.server.metrics import Metrics
from mtp_mlx.server.status import Facts, status
from tests.server.shown import FakeLLM, reply, snapshot

FACTS = Facts(
    model="tiny",
    draft_model="tiny-assistant",
    exactness="A",
    queue_limit=32,
    since=time.monotonic(),
)
KEYS = {
    *("model", "draft_model", "version", "exactness", "slots", "running", "prefilling", "waiting"),
    *("queue_limit", "rows", "tokens_per_s", "plain_tokens_per_s", "depth", "parked", "memory"),
    *("acceptance_by_position", "uptime_s", "last_round_age_s", "stopped", "requests"),
}
ROW_KEYS = {
    *("slot", "id", "state", "prompt_tokens", "prompt_done", "tokens", "tokens_per_s"),
    *("drafted", "accepted", "depth"),
}


def told(shown, metrics: Metrics | None = None, ids: dict[int, str] | None = None) -> dict:
    made = Metrics(FakeLLM(shown)) if metrics is None else metrics
    body = status(shown, FACTS, made, {} if ids is None else ids)
    return json.loads(json.dumps(body, allow_nan=False))


def test_a_busy_engine_row_by_row():
    body = told(snapshot(), ids={11: "chatcmpl-a", 12: "chatcmpl-b", 13: "chatcmpl-b"})
    assert body.keys() == KEYS
    assert all(row.keys() == ROW_KEYS for row in body["rows"])
    assert [row["id"] for row in body["rows"]] == ["chatcmpl-a", "chatcmpl-b", "chatcmpl-b", None]
    assert [row["state"] for row in body["rows"]] == ["decode", "decode", "prefill", "queued"]
    assert [row["slot"] for row in body["rows"]] == [0, 1, 2, None]
    assert [row["tokens_per_s"] for row in body["rows"]] == [25.5, None, None, None]
    assert (body["running"], body["prefilling"], body["waiting"]) == (2, 1, 4)
    assert (body["tokens_per_s"], body["plain_tokens_per_s"]) == (61.5, 40.0)
    assert body["depth"] == [3, 2]
    assert body["acceptance_by_position"] == pytest.approx([0.8, 2 / 3, 0.5])
    assert body["parked"].startswith("parked, drafting would not pay")
    assert body["memory"] == {
        "kv_reserved_bytes": 250,
        "kv_budget_bytes": 1000,
        "prompt_cache_bytes": 0,
        "prompt_cache_budget_bytes": 0,
        "active_bytes": 700,
        "peak_bytes": 900,
    }
    assert body["version"] == mtp_mlx.__version__ and body["uptime_s"] > 0


def test_requests_that_ended_are_counted():
    metrics = Metrics(FakeLLM(snapshot()))
    metrics.finished(reply())
    metrics.finished(reply(finish_reason="cancelled"), why="client")
    metrics.refused("queue_full")
    assert told(snapshot(), metrics)["requests"] == {"total": 2, "cancelled": 1, "refused": 1}


def test_a_stuck_engine_shows_its_age():
    past = time.monotonic() - 40
    assert told(snapshot(last_step_at=past))["last_round_age_s"] >= 40
    assert told(snapshot(stopped="cosmic ray"))["stopped"] == "cosmic ray"


def test_the_engine_while_it_runs_and_after():
    endless = {"max_tokens": 4000, "logit_bias": dict.fromkeys((1, 50, 106), -100.0)}
    with mtp_mlx.load("tiny") as llm:
        with llm.stream("zanzibar", stop=["quixotic"], seed=1, **endless) as stream:
            text = "".join(next(stream).text for _ in range(5))
            end = time.monotonic() + 30
            while not any(row.state == "decode" for row in llm.snapshot().rows):
                next(stream)
                assert time.monotonic() < end
            body = told(llm.snapshot(), ids={stream.request_id: "cmpl-1"})
            assert [row["id"] for row in body["rows"]] == ["cmpl-1"]
            assert body["rows"][0]["tokens"] > 0 and body["depth"]
            dumped = json.dumps(body)
            assert "zanzibar" not in dumped and "quixotic" not in dumped and text not in dumped
        idle = told(llm.snapshot())
    assert (idle["rows"], idle["depth"], idle["tokens_per_s"]) == ([], [], 0.0)
    assert (idle["plain_tokens_per_s"], idle["last_round_age_s"]) == (None, 0.0)
