"""Tools and messages as clients send them, made what chat templates expect.

Clients follow OpenAI: the arguments of an earlier call are a string of JSON, where Gemma 4's
template wants an object.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mtp_mlx.errors import RequestError, Unsupported
from mtp_mlx.fields import shown
from mtp_mlx.text.calls import NAME

Json = dict[str, Any]


def read_messages(messages: object) -> list[Json]:
    """Messages whose tool calls hold their arguments as objects. Raises RequestError."""
    if not isinstance(messages, list | tuple) or not all(isinstance(m, Mapping) for m in messages):
        raise RequestError(
            f"messages must be a list of objects, found {shown(messages)}", param="messages"
        )
    return [_read_message(dict(each), f"messages[{at}]") for at, each in enumerate(messages)]


def read_tools(tools: object) -> list[Json]:
    """Tools in OpenAI's form, from that form or bare functions. Raises RequestError."""
    if not isinstance(tools, list | tuple):
        raise RequestError(f"tools must be a list of tools, found {shown(tools)}", param="tools")
    read = [_read_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]
    names = tool_names(read)
    for at, name in enumerate(names):
        if name in names[:at]:
            raise RequestError(f"tools[{at}]: there are two tools {shown(name)}", param="tools")
    return read


def tool_names(tools: Sequence[Json]) -> list[str]:
    """The names of tools that were read."""
    return [tool["function"]["name"] for tool in tools]


def _read_tool(tool: object, where: str) -> Json:
    if not isinstance(tool, Mapping):
        raise _wrong(where, "an object", tool, "tools")
    kind = tool.get("type", "function")
    if kind != "function":
        raise Unsupported(
            f"{where}: tools of type {shown(kind)} are not supported; functions only",
            param="tools",
        )
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        raise _wrong(f"{where}.function", "an object", function, "tools")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        expected = "a name of up to 128 characters, without spaces, quotes and brackets"
        raise _wrong(f"{where}: name", expected, name, "tools")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise _wrong(
            f"{where}: parameters", "a JSON schema, which is an object", parameters, "tools"
        )
    if function.get("strict") not in (None, False):
        raise Unsupported(
            f"{where}: strict is not supported, since arguments are not held to their schema; "
            "leave it out",
            param="tools",
        )
    return {"type": "function", "function": dict(function)}


def _read_message(message: Json, where: str) -> Json:
    calls = message.get("tool_calls")
    if calls is None:
        return message
    if not isinstance(calls, list | tuple):
        raise _wrong(f"{where}.tool_calls", "a list", calls, "messages")
    read = [_read_call(call, f"{where}.tool_calls[{at}]") for at, call in enumerate(calls)]
    return message | {"tool_calls": read}


def _read_call(call: object, where: str) -> Json:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        raise _wrong(where, "an object with a function", call, "messages")
    if not isinstance(function.get("name"), str):
        raise _wrong(f"{where}.function.name", "text", function.get("name"), "messages")
    arguments = function.get("arguments")
    found = _parsed(arguments) if isinstance(arguments, str) else arguments or {}
    if not isinstance(found, Mapping):
        raise _wrong(f"{where}.function.arguments", "a JSON object", arguments, "messages")
    return {**call, "function": {**function, "arguments": dict(found)}}


def _parsed(text: str) -> object:
    """The JSON of a text; None where it is none. No text at all is no arguments."""
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return None


def _wrong(where: str, expected: str, found: object, param: str) -> RequestError:
    return RequestError(f"{where} must be {expected}, found {shown(found)}", param=param)
