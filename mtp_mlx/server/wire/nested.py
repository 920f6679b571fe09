"""What is known and not honoured inside messages, tools and formats: refused before types are
looked at, so that the answer says why. Values of another form are left to the models."""

import json
from collections.abc import Iterator
from typing import Any

from mtp_mlx.errors import RequestError, Unsupported
from mtp_mlx.fields import shown
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.wire.fields import SCHEMA, TEXT_ONLY
from mtp_mlx.server.wire.reading import Json, spell
from mtp_mlx.server.wire.requests import StreamOptions, TemplateValues

FORMATS = ("text", "json_object", "json_schema")
CHOICES = ("function",)


def check_nested(given: Json, limits: Limits) -> None:
    """Raises RequestError, Unsupported for what is known and not honoured."""
    for at, message in enumerate(_list(given.get("messages"))):
        _check_message(_object(message), f"messages[{at}]")
    tools = _list(given.get("tools"))
    for at, tool in enumerate(tools):
        _check_tool(_object(tool), f"tools[{at}]")
    _check_size("tools", tools, limits)
    choice = _object(given.get("tool_choice"))
    _check_kind(choice, "tool_choice", CHOICES, "name a function, or leave it out")
    _check_format(_object(given.get("response_format")), limits)
    for name in _object(given.get("chat_template_kwargs")):
        if name not in TemplateValues.model_fields:
            known = ", ".join(TemplateValues.model_fields)
            where = f"chat_template_kwargs.{spell((name,))}"
            raise Unsupported(f"{where} is not supported; known are {known}", param=where)
    if _object(given.get("stream_options")).get("continuous_usage_stats"):
        where = "stream_options.continuous_usage_stats"
        raise Unsupported(f"{where} is not supported; use include_usage", param=where)


def nested_unknown(given: Json) -> list[str]:
    """Names that nobody defines in the messages and the options of the stream."""
    known = {
        "role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning",
        "refusal", "annotations", "audio", "function_call",
    }  # fmt: skip
    messages = [_object(each) for each in _list(given.get("messages"))]
    found = [f"messages[].{name}" for each in messages for name in each if name not in known]
    options = _object(given.get("stream_options"))
    found += [f"stream_options.{n}" for n in options if n not in StreamOptions.model_fields]
    return list(dict.fromkeys(found))


def _check_message(message: Json, where: str) -> None:
    content = message.get("content")
    for at, part in enumerate(_list(content)):
        kind = _object(part).get("type")
        if isinstance(kind, str) and kind != "text":
            place = f"{where}.content[{at}].type"
            raise Unsupported(f"{place} {shown(kind)} is not supported; {TEXT_ONLY}", param=place)
    for name, remedy in (
        ("function_call", "use tool_calls"),
        ("audio", TEXT_ONLY),
        ("refusal", "put it into content"),
    ):
        if message.get(name) is not None:
            place = f"{where}.{name}"
            raise Unsupported(f"{place} is not supported; {remedy}", param=place)
    for at, call in enumerate(_list(message.get("tool_calls"))):
        _check_kind(_object(call), f"{where}.tool_calls[{at}]", CHOICES, "functions only")


def _check_tool(tool: Json, where: str) -> None:
    _check_kind(tool, where, CHOICES, "functions only")
    if _object(tool.get("function")).get("strict") is True:
        place = f"{where}.function.strict"
        raise Unsupported(
            f"{place} is not supported: arguments are not bound to a schema; leave it out",
            param=place,
        )


def _check_format(form: Json, limits: Limits) -> None:
    _check_kind(form, "response_format", FORMATS, f"known are {', '.join(FORMATS)}")
    if form.get("type") == "json_object" and form.get("schema") is not None:
        place = "response_format.schema"
        raise Unsupported(f"{place} is not supported; {SCHEMA}", param=place)
    schema = _object(form.get("json_schema")).get("schema")
    _check_size("response_format.json_schema.schema", schema, limits)


def _check_kind(value: Json, where: str, known: tuple[str, ...], remedy: str) -> None:
    kind = value.get("type")
    if isinstance(kind, str) and kind not in known:
        place = f"{where}.type"
        raise Unsupported(f"{place} {shown(kind)} is not supported; {remedy}", param=place)


def _check_size(where: str, value: Any, limits: Limits) -> None:
    """Raises RequestError for a schema that is too large or too deep."""
    depth = max(_depths(value), default=0)
    if depth > limits.tools_depth:
        raise RequestError(
            f"{where} must be nested at most {limits.tools_depth} deep, found {depth}", param=where
        )
    size = len(json.dumps(value, ensure_ascii=False).encode()) if depth else 0
    if size > limits.tools_bytes:
        raise RequestError(
            f"{where} must have at most {limits.tools_bytes:,} bytes, found {size:,}", param=where
        )


def _depths(value: Any) -> Iterator[int]:
    """How deep each list or object in a value lies, itself included."""
    left = [(1, value)]
    while left:
        depth, inner = left.pop()
        if isinstance(inner, dict | list):
            yield depth
            children = inner.values() if isinstance(inner, dict) else inner
            left += [(depth + 1, child) for child in children]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}
