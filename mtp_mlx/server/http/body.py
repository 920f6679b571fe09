"""The JSON object in a request's body: bounded while it is read, and checked as it is parsed."""

import asyncio
import json
import math
import time
from array import array
from collections import Counter
from itertools import accumulate
from typing import Any, NoReturn

from starlette.types import Receive, Scope

from mtp_mlx.fields import shown
from mtp_mlx.server.errors import Refused
from mtp_mlx.server.http.client import ClientGone
from mtp_mlx.server.http.guard import values
from mtp_mlx.server.limits import Limits

IN_LOOP_BYTES = 64 << 10  # larger ones are parsed beside the event loop
PIECE_BYTES = 64 << 10  # at least, of what is kept of one that still comes
MAX_DIGITS = 20  # of an integer; a seed has at most 20
MAX_FLOAT_CHARS = 1024
STEPS = bytes(1 if byte in b"[{" else 255 for byte in range(256))  # +1, -1 as signed bytes
OTHERS = bytes(set(range(256)) - set(b"[]{}"))


async def read_object(scope: Scope, receive: Receive, limits: Limits) -> dict[str, Any]:
    """The body's JSON object. Raises Refused, and ClientGone."""
    check_type(scope)
    body = await read_body(scope, receive, limits)
    if len(body) > IN_LOOP_BYTES:
        return await asyncio.to_thread(parse, body, limits.json_depth)
    return parse(body, limits.json_depth)


def check_type(scope: Scope) -> None:
    """JSON, not compressed."""
    types = values(scope["headers"], b"content-type")
    kind = types[0].partition(b";")[0].strip().lower() if len(types) == 1 else b""
    if kind != b"application/json":
        raise Refused(
            415, "unsupported_media_type", "the body must have Content-Type: application/json"
        )
    encodings = [value.strip().lower() for value in values(scope["headers"], b"content-encoding")]
    if any(encoding != b"identity" for encoding in encodings):
        raise Refused(
            415, "unsupported_media_type", "a compressed body is not taken; send it as it is"
        )


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """All bytes of the body; never holds more than the limit and one message, until it is
    whole: it is kept in pieces, for one that grows would have to move."""
    too_large = Refused(
        413, "body_too_large", f"the body is larger than {limits.body_bytes:,} bytes"
    )
    lengths = values(scope["headers"], b"content-length")
    if lengths and int(lengths[0]) > limits.body_bytes:
        raise too_large
    pieces, size = [bytearray()], 0
    end = time.monotonic() + limits.body_s
    more = True
    while more:
        try:
            async with asyncio.timeout(min(limits.body_idle_s, end - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise Refused(
                408,
                "body_timeout",
                f"the body was not complete: nothing came for {limits.body_idle_s:g} s, or it took "
                f"{limits.body_s:g} s",
                headers={"connection": "close"},
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        came = message.get("body", b"")
        size += len(came)
        if size > limits.body_bytes:
            raise too_large
        if len(pieces[-1]) > PIECE_BYTES:
            pieces.append(bytearray())
        pieces[-1] += came
        more = message.get("more_body", False)
    return b"".join(pieces)


def parse(body: bytes, most_depth: int) -> dict[str, Any]:
    """The object that `body` spells. Raises Refused."""
    if not body.strip():
        raise _invalid("the body is empty; it must be a JSON object")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not UTF-8 at byte {error.start:,}") from None
    if depth(body) > most_depth:
        raise _invalid(f"the body is nested deeper than {most_depth}")
    try:
        found = json.loads(
            text,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno:,}, column {error.colno:,}"
        raise _invalid(f"the body is not JSON: {error.msg} at {where}") from None
    if not isinstance(found, dict):
        raise _invalid(f"the body must be a JSON object, found {shown(found)}")
    return found


def depth(body: bytes) -> int:
    """How deep brackets nest outside strings; linear, and Python's parser would recurse."""
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(unescaped.split(b'"')[::2])
    brackets = array("b", outside.translate(STEPS, OTHERS))
    return max(accumulate(brackets), default=0)


def _invalid(message: str) -> Refused:
    return Refused(400, "invalid_json", message)


def _constant(word: str) -> NoReturn:
    raise _invalid(f"the body holds {word}, which is no JSON")


def _float(digits: str) -> float:
    value = float(digits) if len(digits) <= MAX_FLOAT_CHARS else math.inf
    if value in (math.inf, -math.inf):
        raise _invalid(f"the body holds {shown(digits)}, a number too large to be one")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _invalid(f"the body holds an integer of {len(digits):,} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _invalid(f"the body has {shown(twice)} twice in one object")
    return found
