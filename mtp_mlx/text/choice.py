"""Whether a reply may, must or must not call tools, as OpenAI's `tool_choice` says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtp_mlx.errors import RequestError, Unsupported
from mtp_mlx.fields import shown

PARAM = "tool_choice"
FORMS = "'none', 'auto', 'required' or {'type': 'function', 'function': {'name': ...}}"


@dataclass(frozen=True)
class ToolChoice:
    """The names that may be called, and whether one of them must be."""

    names: tuple[str, ...] = ()
    must_call: bool = False


def read_tool_choice(value: object, offered: Sequence[str]) -> ToolChoice:
    """The choice among the offered names. Raises RequestError."""
    if value is None:
        return ToolChoice(tuple(offered))
    if not offered:
        raise RequestError(f"{PARAM} needs tools, and there are none; leave it out", param=PARAM)
    match value:
        case "none":
            return ToolChoice()
        case "auto":
            return ToolChoice(tuple(offered))
        case "required":
            return ToolChoice(tuple(offered), must_call=True)
        case Mapping():
            return ToolChoice((_named(value, offered),), must_call=True)
    raise RequestError(f"{PARAM} must be {FORMS}, found {shown(value)}", param=PARAM)


def _named(value: Mapping[object, object], offered: Sequence[str]) -> str:
    kind = value.get("type", "function")
    if kind != "function":
        raise Unsupported(
            f"{PARAM} of type {shown(kind)} is not supported; it must be {FORMS}", param=PARAM
        )
    function = value.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(f"{PARAM}.function.name must be text, found {shown(name)}", param=PARAM)
    if name not in offered:
        names = ", ".join(offered)
        raise RequestError(
            f"{PARAM} names {shown(name)}, which is not among the tools: {shown(names)}",
            param=PARAM,
        )
    return name
