"""Schemas of all kinds that are enforced."""

from typing import Any


def closed(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    """An object of these properties and no others, all required but the optional ones."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


TREE = closed({"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}, "next")
POINT = closed({"x": {"type": "number"}, "y": {"type": "number"}})

SCHEMAS: dict[str, dict[str, Any]] = {
    "any": {},
    "object": {"type": "object"},
    "flat": closed({"name": {"type": "string"}, "age": {"type": "integer"}}),
    "optional": closed({"a": {"type": "null"}, "b": {"type": "boolean"}}, "a", "b"),
    "nested": closed({"place": closed({"city": {"type": "string"}, "at": POINT})}),
    "open": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "typed rest": {"type": "object", "additionalProperties": {"type": "integer"}},
    "counted": {
        "type": "object",
        "additionalProperties": {"type": "boolean"},
        "minProperties": 1,
        "maxProperties": 2,
    },
    "by pattern": {
        "type": "object",
        "patternProperties": {"^n_[a-c]$": {"type": "integer"}},
        "additionalProperties": False,
    },
    "array": {"type": "array", "items": {"type": "integer"}},
    "short array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    "arrays": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "string"}],
        "items": False,
        "minItems": 2,
    },
    "objects": {"type": "array", "items": POINT, "minItems": 1},
    "enum": {"enum": ["red", "green", 3, None, True]},
    "enum of text": closed({"color": {"type": "string", "enum": ["red", "re", "green"]}}),
    "const": closed({"kind": {"const": "cat"}, "legs": {"const": 4}}),
    "const object": {"const": {"a": [1, 2.5, "x"], "b": None}},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "range": closed({"n": {"type": "integer", "minimum": -50, "maximum": 60}}),
    "exclusive": {"type": "integer", "exclusiveMinimum": 8, "exclusiveMaximum": 12},
    "number range": {"type": "number", "minimum": 0.5, "maximum": 2},
    "multiple": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 1000},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "pattern": closed({"code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}}),
    "unanchored": {"type": "string", "pattern": "a[bc]d", "maxLength": 12},
    "length": closed({"s": {"type": "string", "minLength": 2, "maxLength": 5}}),
    "date": closed({"on": {"type": "string", "format": "date"}}),
    "uuid": {"type": "string", "format": "uuid"},
    "any of": {"anyOf": [POINT, {"type": "string", "maxLength": 3}, {"type": "null"}]},
    "one of": {"oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "null"}}]},
    "types": closed({"v": {"type": ["string", "null", "integer"]}}),
    "all of": {"allOf": [{"type": "object", "required": ["x"]}, {"properties": {"x": POINT}}]},
    "definitions": {"$defs": {"p": POINT}, "type": "array", "items": {"$ref": "#/$defs/p"}},
    "recursive": {"$defs": {"node": TREE}, "$ref": "#/$defs/node"},
    "unicode": closed({"größe": {"enum": ["klein", "groß", "日本"]}, "é": {"type": "string"}}),
    "quotes": closed({'a"b\\c\n': {"enum": ['"', "\\", "/", "\t"]}}),
    "notes": {"title": "T", "description": "D", "x-order": 1, "default": 1, "type": "integer"},
}
