"""What a hub, a network or a disk that fails comes to: one line, exit 5 or 1, no half model."""

import builtins
import errno
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from mtp_mlx.hub import client
from mtp_mlx.hub.cache import find_repo
from tests.hub.server import DRAFTER, TARGET, cached
from tests.hub.test_cache import A, snapshot

AGAIN = "mtp-mlx pull e4b-4bit\n"


def refused(cli, cache: Path, *words: str, code: int = 5) -> str:
    """Pull, and check that it fails as it should: what it says."""
    answer = cli("pull", "e4b-4bit")
    assert answer.code == code, answer.err
    last = answer.err.splitlines()[-1]
    assert all(word in last for word in words), last
    assert answer.err.endswith(AGAIN)
    assert "Traceback" not in answer.err
    assert list(cache.rglob("*.incomplete")) == []
    repo = find_repo(TARGET)
    assert repo is None or repo.usable() is None
    assert cli("generate", "hi", "--model", "e4b-4bit").code == 5
    return last


def completes(cli) -> None:
    """Pull again, without the fault."""
    assert cli("pull", "e4b-4bit").code == 0
    assert find_repo(TARGET).usable() is not None
    assert find_repo(DRAFTER).usable() is not None


@pytest.fixture
def no_waits(monkeypatch):
    """The library's pauses between two attempts take no time."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_waits")
def test_a_connection_that_breaks_once_goes_on_where_it_was(hub, cli):
    ends = iter([100_000])
    hub.faults.cut = lambda: next(ends, None)
    completes(cli)
    assert sum(line.startswith(f"GET /cdn/{TARGET}") for line in hub.requests) == 2


@pytest.mark.usefixtures("no_waits")
def test_a_connection_that_always_breaks_is_given_up(hub, cache, cli):
    hub.faults.cut = lambda: 100_000
    refused(cli, cache, TARGET, "model.safetensors", "whole")
    hub.faults.cut = lambda: None
    completes(cli)


def test_a_file_that_is_too_short_is_refused(hub, cache, cli):
    hub.faults.shorten = 10
    refused(cli, cache, TARGET, "model.safetensors", "size")
    hub.faults.shorten = 0
    completes(cli)


def test_bytes_that_are_not_the_hubs_are_refused_and_removed(hub, cache, cli):
    hub.faults.flip = True
    refused(cli, cache, TARGET, "model.safetensors", "digest", "sha256:")
    assert not list(cached(cache, TARGET).glob("snapshots/*/model.safetensors"))
    hub.faults.flip = False
    completes(cli)


STATUSES = [
    (401, ("HF_TOKEN", "401")),
    (403, ("HF_TOKEN", "403")),
    (404, ("no such model", "404")),
    (429, ("429", "asks to wait 17 s", "HF_TOKEN")),
    (500, ("500",)),
    (503, ("503",)),
]


@pytest.mark.parametrize(("status", "words"), STATUSES)
def test_what_the_hub_answers_is_told_within_ten_seconds(status, words, hub, cache, cli):
    hub.faults.status, hub.faults.retry_after = status, "17"
    start = time.monotonic()
    refused(cli, cache, TARGET, *words)
    assert time.monotonic() - start < 10
    assert not cache.exists()
    hub.faults.status = None
    completes(cli)


def test_a_gated_model_names_its_page_and_the_token(hub, cache, cli):
    hub.repos[TARGET].token, hub.repos[TARGET].gated = "hf_x", True
    refused(cli, cache, "gated", f"{hub.url}/{TARGET}", "HF_TOKEN")


def test_a_login_page_is_no_hub(hub, cache, cli):
    hub.faults.html = True
    refused(cli, cache, TARGET, hub.url, "no hub", "HF_ENDPOINT")


def test_nobody_answers(cache, cli, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        start = time.monotonic()
        refused(cli, cache, TARGET, "cannot be reached", "HF_HUB_OFFLINE", "127.0.0.1")
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1",
        "http://x\x01y",
        "http://127.0.0.1:99999",
        "nonsense",
        "ftp://x",
        "http://",
        "http://a b",
    ],
)
def test_an_address_that_is_none_is_refused_before_it_is_asked(address, cache, cli, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", address)
    answer = cli("pull", "e4b-4bit")
    assert answer.code == 5
    assert answer.err.startswith("mtp-mlx: HF_ENDPOINT must be an address such as https://")
    assert answer.err.count("\n") == 1 and not cache.exists()
    snapshot(cache, "org/name", A)
    assert cli("rm", "org/name", "-y").code == 5
    assert find_repo("org/name") is not None


def test_a_name_that_nobody_knows(cache, cli, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    refused(cli, cache, TARGET, "cannot be reached", "HF_HUB_OFFLINE", "hub.invalid")


def test_a_name_server_that_stays_silent_is_not_waited_for(cache, cli, monkeypatch):
    monkeypatch.setattr(client, "FIRST_ANSWER_S", 0.3)
    waits = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: waits.wait(20))
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    start = time.monotonic()
    refused(cli, cache, TARGET, "cannot be reached", "no answer within 0.3 s")
    assert time.monotonic() - start < 10
    waits.set()


def test_a_port_that_swallows_everything_is_not_waited_for(cache, cli, monkeypatch):
    monkeypatch.setattr(client, "FIRST_ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        refused(cli, cache, TARGET, "cannot be reached", "HF_HUB_OFFLINE")


def test_the_copy_that_is_here_serves_when_the_hub_is_away(hub, cli):
    completes(cli)
    hub.faults.status = 503
    answer = cli("pull", "e4b-4bit", "--json")
    assert answer.code == 0
    assert answer.body["model"]["repo"] == TARGET
    assert "503" in answer.err


def test_a_disk_that_is_too_small_is_seen_before_the_download(hub, cache, cli, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    needed = cli("pull", "e4b-4bit", "--dry-run", "--json").body["fetch_bytes"]
    refused(cli, cache, "too full", f"{needed:,} bytes are needed", "1,000 are free", code=1)
    assert hub.fetched() == set()


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)


def test_a_disk_that_fills_up_leaves_no_half_file(hub, cache, cli, monkeypatch):
    real = Path.open

    def opened(path, *arguments, **options):
        file = real(path, *arguments, **options)
        is_weights = path.name.endswith(".incomplete") and len(path.name.split(".")[0]) == 64
        return Full(file, 1_000_000) if is_weights else file

    monkeypatch.setattr(Path, "open", opened)
    refused(cli, cache, "too full", "bytes are needed", "are free", "HF_HOME", code=1)
    monkeypatch.setattr(Path, "open", real)
    completes(cli)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_cache_that_may_not_be_written_is_named(number, hub, cache, cli, monkeypatch):
    real = os.mkdir

    def mkdir(path, *arguments, **options):
        if Path(path).is_relative_to(cache):
            raise OSError(number, os.strerror(number), str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    refused(cli, cache, str(cache), os.strerror(number), "HF_HOME", code=1)


def test_without_a_home_a_model_loads_by_its_path_and_a_pull_says_what_to_set(cli, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    answer = cli("pull", "e4b-4bit")
    assert answer.code == 5 and "HF_HOME" in answer.err
    assert cli("show", "tiny").code == 0
    assert cli("ls").code == 0


def test_a_cache_that_may_only_be_read_serves(hub, cache, cli, monkeypatch):
    completes(cli)
    real = builtins.open

    def reading(path, mode="r", *arguments, **options):
        assert not (set(mode) & set("wax+")) or not str(path).startswith(str(cache))
        return real(path, mode, *arguments, **options)

    monkeypatch.setattr(builtins, "open", reading)
    for made in ("mkdir", "makedirs", "replace", "unlink"):
        monkeypatch.setattr(os, made, None)
    assert cli("show", "e4b-4bit").code == 0
    assert cli("generate", "hi", "--model", "e4b-4bit", "-m", 2).code == 0
