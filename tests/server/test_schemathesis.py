"""Schemathesis against the server's own /openapi.json: no 5xx that it does not name, no reply that
breaks its schema, only documented statuses and content types."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.running import ready_at

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own process; its replies are short unless a request says how long."""
    with ready_at(tmp_path_factory.mktemp("schemathesis"), "--max-tokens", 16) as url:
        yield url


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
