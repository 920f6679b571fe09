"""Schemathesis against the server's own /openapi.json: no 5xx that it does not name, no reply that
breaks its schema, only documented statuses and content types."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
START_S = 60


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own process; its replies are short unless a request says how long."""
    ready: Path = tmp_path_factory.mktemp("schemathesis") / "ready.json"
    command = [sys.executable, "-m", "mtp_mlx", "serve", "tiny", "--port", "0"]
    options = ["--max-tokens", "16", "--ready-file", str(ready)]
    process = subprocess.Popen([*command, *options], env=os.environ)
    try:
        until = time.monotonic() + START_S
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        yield json.loads(ready.read_text())["url"]
    finally:
        process.terminate()
        assert process.wait(20) == 0


def check(url: str, folder: Path, *options: str) -> None:
    """Run schemathesis; fails with what it found."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
    settings = ["--checks", ",".join(CHECKS), "--warnings", "off", "--request-timeout", "120"]
    done = subprocess.run(
        [*command, *settings, *options], capture_output=True, text=True, cwd=folder, timeout=800
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout, done.stdout[-3000:]


def test_a_few_examples_of_every_operation(url: str, tmp_path: Path) -> None:
    check(url, tmp_path, "--phases", "fuzzing", "--max-examples", "3", "--seed", "1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_examples_of_every_operation(url: str, tmp_path: Path) -> None:
    check(url, tmp_path, "--max-examples", "50", "--seed", "2")
