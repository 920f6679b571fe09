"""JSON schemas as clients send them: read, and refused where they could not be enforced whole.

A keyword that nobody enforces is an error that names it, never dropped: a reply that ignores half
of its schema is worse than none.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mtp_mlx.errors import InvalidSchema, RequestError
from mtp_mlx.fields import shown, shown_name

Json = dict[str, Any]

MAX_BYTES = 256 << 10
MAX_DEPTH = 32
# Keywords of llguidance that hold schemas: one, a list of them, or named ones.
ONE = ("items", "additionalItems", "additionalProperties")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
NAMED = ("properties", "patternProperties", "$defs", "definitions")
ENFORCED = frozenset(
    {
        *("$ref", "const", "enum", "type", "minItems", "maxItems"),
        *("required", "minProperties", "maxProperties"),
        *("minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *ONE,
        *LISTS,
        *NAMED,
    }
)
# They say something about a value and ask nothing of it.
NOTES = frozenset(
    {
        *("$schema", "$id", "id", "$anchor", "$comment", "title", "description", "default"),
        *("examples", "deprecated", "readOnly", "writeOnly", "contentMediaType"),
        "contentEncoding",
    }
)
OWN = "x-guidance"  # settings of llguidance, which are ours to make
ANY_OBJECT: Json = {"type": "object"}


def read_response_format(value: object) -> Json | None:
    """The schema that OpenAI's response_format asks for, None for text. Raises RequestError."""
    param = "response_format"
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise RequestError(f"{param} must be an object, found {shown(value)}", param=param)
    match value.get("type"):
        case "text":
            return None
        case "json_object":
            return ANY_OBJECT
        case "json_schema":
            return _named_schema(value.get("json_schema"), f"{param}.json_schema", param)
    raise RequestError(
        f"{param}.type must be 'text', 'json_object' or 'json_schema', "
        f"found {shown(value.get('type'))}",
        param=param,
    )


def _named_schema(named: object, where: str, param: str) -> Json:
    """The schema of {"name", "schema", "strict"}. It is enforced whether strict or not."""
    if not isinstance(named, Mapping):
        raise RequestError(f"{where} must be an object, found {shown(named)}", param=param)
    name, strict = named.get("name"), named.get("strict")
    if name is not None and not isinstance(name, str):
        raise RequestError(f"{where}.name must be text, found {shown(name)}", param=param)
    if strict is not None and not isinstance(strict, bool):
        raise RequestError(
            f"{where}.strict must be true or false, found {shown(strict)}", param=param
        )
    return read_schema(named.get("schema"), f"{where}.schema", param)


def read_schema(schema: object, where: str, param: str) -> Json:
    """A schema that may be enforced. Raises InvalidSchema."""
    if not isinstance(schema, Mapping):
        raise InvalidSchema(
            f"{where} must be a JSON schema, which is an object, found {shown(schema)}", param=param
        )
    _check_depth(schema, where, param)
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidSchema(f"{where} is no JSON: {error}", param=param) from error
    if size > MAX_BYTES:
        raise InvalidSchema(
            f"{where} has {size:,} bytes, more than {MAX_BYTES:,}; make it shorter", param=param
        )
    for node in nodes(schema):
        _check_node(node, where, param)
    return dict(schema)


def _check_depth(value: object, where: str, param: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise InvalidSchema(
        f"{where} is nested deeper than {MAX_DEPTH} levels; name its parts in $defs", param=param
    )


def _inside(value: object) -> list[object]:
    """The objects and lists in a value."""
    if isinstance(value, Mapping):
        inner = list(value.values())
    else:
        inner = list(value) if isinstance(value, list | tuple) else []
    return [each for each in inner if isinstance(each, Mapping | list | tuple)]


def nodes(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every schema in a schema, itself first; what is data in it, such as an enum, is none."""
    left: list[object] = [schema]
    while left:
        node = left.pop()
        if not isinstance(node, Mapping):
            continue  # true and false are schemas too
        yield node
        left += [node.get(key) for key in ONE]
        for key in LISTS:
            inner = node.get(key)
            left += inner if isinstance(inner, list | tuple) else []
        for key in NAMED:
            inner = node.get(key)
            left += inner.values() if isinstance(inner, Mapping) else []


def _check_node(node: Mapping[str, Any], where: str, param: str) -> None:
    for key in node:
        if not isinstance(key, str):
            raise InvalidSchema(f"{where} is no JSON: a key is {shown(key)}", param=param)
        is_note = key in NOTES or (key.startswith("x-") and key != OWN)
        if key not in ENFORCED and not is_note:
            raise InvalidSchema(
                f"{where} uses {shown_name(key)}, which cannot be enforced here; leave it out",
                param=param,
            )
    reference = node.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        raise InvalidSchema(
            f"{where} refers to {shown_name(reference)}; only parts of the schema itself can be "
            "referred to, such as #/$defs/name",
            param=param,
        )
