"""A hub on loopback, an empty cache, and the command line."""

import socket

import pytest

from tests.cli.conftest import cli  # noqa: F401
from tests.hub.server import tiny_hub

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """No test of this folder looks up another host."""
    real = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if host not in LOOPBACK:
            raise socket.gaierror(f"{host} is not loopback")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The empty cache that all names resolve in."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def hub(cache, monkeypatch):
    """A hub with the built-in pair as e4b-4bit."""
    with tiny_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running
