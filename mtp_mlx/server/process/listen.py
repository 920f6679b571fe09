"""The socket that the server listens on, bound before anything is loaded."""

import ipaddress
import os
import socket

from mtp_mlx.errors import MtpError
from mtp_mlx.fields import shown

BACKLOG = 512
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # how one reaches a socket that is bound to all


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is a free one. Raises MtpError where the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise MtpError(f"{shown(host)} is no address of this machine: {error}") from error
    fault: OSError | None = None
    for family, kind, protocol, _, address in found:
        try:
            return _bound(socket.socket(family, kind, protocol), address)
        except OSError as error:
            fault = fault or error
    reason = "it has no address" if fault is None else os.strerror(fault.errno or 0)
    remedy = "--port 0 takes a free one" if port else "give another --host"
    raise MtpError(f"port {port} of {host} cannot be listened on: {reason}; {remedy}") from fault


def _bound(listener: socket.socket, address: object) -> socket.socket:
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart at once
        listener.bind(address)  # ty: ignore
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """How a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    host = ANYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Can only this machine reach it?"""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
