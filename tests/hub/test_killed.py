"""Pulls in processes of their own: one that is killed, and two at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

import mtp_mlx
from mtp_mlx.hub.cache import find_repo
from tests.hub.server import DRAFTER, TARGET, cached
from tests.interrupts import heed_interrupts

WAIT_S = 60.0


def pulling(*more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "mtp_mlx", "pull", "e4b-4bit", "--json", *more]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def wait_for(condition) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def finished(process: subprocess.Popen) -> tuple[int, str]:
    _, err = process.communicate(timeout=WAIT_S)
    assert "Traceback" not in err, err
    return process.returncode, err


def whole(hub, cache) -> None:
    for repo_id, repo in hub.repos.items():
        folder = find_repo(repo_id).usable().folder
        assert folder.name == repo.commit
        for path in folder.iterdir():
            assert path.read_bytes() == repo.files[path.name]
    assert list(cache.rglob("*.incomplete")) == []


def test_a_killed_pull_is_no_model_and_the_next_one_completes_it(hub, cache, cli):
    hub.faults.rate = 300_000
    process = pulling()
    parts = cached(cache, TARGET) / "blobs"
    wait_for(lambda: any(path.name[64:65] == "." for path in parts.glob("*.incomplete")))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list(parts.glob("*.incomplete"))
    with pytest.raises(mtp_mlx.ModelNotFound, match=r"not finished.*mtp-mlx pull e4b-4bit$"):
        mtp_mlx.load("e4b-4bit")
    assert "not finished" in cli("ls").out
    hub.faults.rate = None
    hub.requests.clear()
    code, err = finished(pulling())
    assert code == 0, err
    whole(hub, cache)
    assert "config.json" not in {line.rsplit("/", 1)[1] for line in hub.requests if TARGET in line}
    assert not any("agent" in line or "telemetry" in line for line in hub.requests)
    with mtp_mlx.load("e4b-4bit") as llm:
        assert llm.has_drafter


def test_two_processes_pull_the_same_pair_at_once(hub, cache):
    hub.faults.rate = 3_000_000
    both = [pulling(), pulling()]
    for process in both:
        code, err = finished(process)
        assert code == 0, err
    whole(hub, cache)
    weights = [line for line in hub.requests if line == f"GET /cdn/{TARGET}/model.safetensors"]
    assert 1 <= len(weights) <= 2
    assert find_repo(DRAFTER) is not None


def test_ctrl_c_ends_a_pull_at_once(hub, cache):
    hub.faults.rate = 100_000
    process = pulling()
    wait_for(lambda: any("/cdn/" in line for line in hub.requests))
    process.send_signal(signal.SIGINT)
    code, err = finished(process)
    assert code == 130 and "interrupted" in err
    assert find_repo(TARGET).usable() is None
