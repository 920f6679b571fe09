"""Who may ask, judged by headers alone, before a request reaches a route.

A page on any site can make its reader's browser call a server on loopback. So the Host must be a
name of ours (a rebound DNS name is not), and an Origin must be our own page's or one that was
allowed by name. Keys are compared as digests, in constant time.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable

from starlette.types import Scope

from mtp_mlx.server.errors import Refused
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.settings import LOOPBACK, ServerSettings, digest

REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
HEADER_NAMES = re.compile(rb"[A-Za-z0-9, _-]{1,1024}")
# What anybody may read: neither names a model.
PUBLIC = frozenset({"/", "/health"})
PAGE = "/page/"
METHODS = b"GET, HEAD, POST, OPTIONS"
MALFORMED = "this is no valid HTTP/1.1 request"
PREFLIGHT_S = b"600"

Headers = list[tuple[bytes, bytes]]


class Guard:
    """The checks of one server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._limits = settings.limits
        self._keys = settings.api_keys
        self._hosts = LOOPBACK | {in_header(host) for host in settings.allowed_hosts}
        self._origins = settings.allowed_origins

    def check(self, scope: Scope) -> None:
        """Raises Refused for a request that goes no further."""
        headers: Headers = scope["headers"]
        check_sizes(headers, self._limits)
        check_framing(scope)
        self._check_host(headers)
        self._check_origin(scope)
        if not is_public(scope["path"]) and scope["method"] != "OPTIONS":
            self._check_key(headers)

    def cors(self, scope: Scope) -> Headers:
        """Headers that let a page of an allowed origin read the reply."""
        headers: Headers = scope["headers"]
        origins = values(headers, b"origin")
        if len(origins) != 1 or origins[0].decode("latin-1") not in self._origins:
            return []
        found = [
            (b"access-control-allow-origin", origins[0]),
            (b"access-control-expose-headers", b"x-request-id, x-ignored-fields, retry-after"),
            (b"vary", b"origin"),
        ]
        if scope["method"] == "OPTIONS":
            asked = b"".join(values(headers, b"access-control-request-headers")[:1])
            allowed = asked if HEADER_NAMES.fullmatch(asked) else b"authorization, content-type"
            found += [
                (b"access-control-allow-methods", METHODS),
                (b"access-control-allow-headers", allowed),
                (b"access-control-allow-private-network", b"true"),
                (b"access-control-max-age", PREFLIGHT_S),
            ]
        return found

    def _check_host(self, headers: Headers) -> None:
        hosts = values(headers, b"host")
        host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        if host not in self._hosts and without_port(host) not in self._hosts:
            raise Refused(
                403,
                "forbidden_host",
                "the Host header does not name this server; use its address, or start it with "
                "--allowed-hosts",
            )

    def _check_origin(self, scope: Scope) -> None:
        origins = values(scope["headers"], b"origin")
        if not origins:
            return
        own = f"{scope['scheme']}://".encode() + values(scope["headers"], b"host")[0]
        if len(origins) == 1 and (
            origins[0].lower() == own.lower() or origins[0].decode("latin-1") in self._origins
        ):
            return
        raise Refused(
            403,
            "forbidden_origin",
            "pages of this origin may not call this server; start it with --allowed-origins",
        )

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        given = list(presented(headers))
        # Every key that is given must be right, and all are compared with all.
        known = [sum(hmac.compare_digest(digest(key), own) for own in self._keys) for key in given]
        if not known or not all(known):
            raise Refused(
                401,
                "invalid_api_key",
                "give the API key of this server as 'Authorization: Bearer KEY'",
                headers={"www-authenticate": "Bearer"},
            )


def is_public(path: str) -> bool:
    """May it be read without a key?"""
    return path in PUBLIC or path.startswith(PAGE)


def values(headers: Headers, name: bytes) -> list[bytes]:
    """All values of a header; names are in lower case already."""
    return [value for key, value in headers if key == name]


def presented(headers: Headers) -> Iterable[bytes]:
    """The keys in a request, and what stands where a key should."""
    for value in values(headers, b"authorization"):
        scheme, _, key = value.partition(b" ")
        yield key.strip() if scheme.lower() == b"bearer" else b""
    yield from values(headers, b"x-api-key")


def in_header(host: str) -> str:
    """A host as clients spell it: brackets around an IPv6 address, and the shortest form of it."""
    try:
        return f"[{ipaddress.IPv6Address(host)}]"
    except ValueError:
        return host.lower()


def without_port(host: str) -> str:
    """`host` without `:8080`."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isascii() and port.isdigit() else host


def check_sizes(headers: Headers, limits: Limits) -> None:
    """h11 bounds only headers that come in parts."""
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > limits.header_lines or size > limits.header_bytes:
        raise Refused(
            431,
            "headers_too_large",
            f"the request has {len(headers):,} headers of {size:,} bytes; at most "
            f"{limits.header_lines} of {limits.header_bytes:,} bytes are taken",
            headers={"connection": "close"},
        )


def check_framing(scope: Scope) -> None:
    """HTTP/1, with one statement of the body's length: two may be read differently by a proxy. h11
    refuses two lengths that differ; it takes a chunked body that has a length, and any version."""
    if scope["http_version"] not in ("1.0", "1.1"):
        raise Refused(400, "invalid_value", MALFORMED, headers={"connection": "close"})
    headers: Headers = scope["headers"]
    if values(headers, b"transfer-encoding") and values(headers, b"content-length"):
        raise Refused(
            400,
            "invalid_value",
            "a request has Content-Length or Transfer-Encoding, not both",
            headers={"connection": "close"},
        )


def request_id(headers: Headers) -> bytes | None:
    """The id that the client gave, if it is one that can be echoed."""
    given = values(headers, b"x-request-id")
    return given[0] if len(given) == 1 and REQUEST_ID.fullmatch(given[0]) else None
