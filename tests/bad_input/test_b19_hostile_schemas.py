"""B19: schemas that are huge, deep, remote, unreadable or slow to compile: each is one clear line,
soon, and costs the other requests nothing."""

import os
import time
from typing import Any

import pytest

from mtp_mlx.constraint.checker import CHECKER, Checker
from mtp_mlx.constraint.compiler import Compiler
from mtp_mlx.constraint.grammar import reply_grammar
from mtp_mlx.constraint.schema import MAX_BYTES, MAX_DEPTH, read_response_format, read_schema
from mtp_mlx.errors import InvalidSchema
from mtp_mlx.helper import Overrun
from tests.constraint.schemas import SCHEMAS, closed
from tests.constraint.walks import ENDS, ROWS, begun, markers, tokenizer

PARAM = "response_format"
SOON_S = 15.0  # of a busy machine; on an idle one the slowest takes 1.2 s


def deep(levels: int) -> dict[str, Any]:
    """A schema of so many levels of objects."""
    found: dict[str, Any] = {"type": "integer"}
    for _ in range((levels - 1) // 2):
        found = {"type": "object", "properties": {"a": found}}
    return found


def endless() -> dict[str, Any]:
    found: dict[str, Any] = {"type": "array"}
    found["items"] = found
    return found


def start(schema: dict[str, Any]) -> None:
    begun(reply_grammar(read_schema(schema, "schema", PARAM), (), markers()))


UNREADABLE = {
    "no object": ([], "must be a JSON schema, which is an object, found \\[\\]"),
    "null": (None, "must be a JSON schema, which is an object, found None"),
    "too deep": (deep(2 * MAX_DEPTH), f"nested deeper than {MAX_DEPTH} levels"),
    "endless": (endless(), f"nested deeper than {MAX_DEPTH} levels"),
    "too long": ({"enum": ["x" * MAX_BYTES]}, "has 262,15[0-9] bytes, more than 262,144"),
    "remote": (closed({"a": {"$ref": "http://localhost:1/x"}}), "refers to http://localhost:1/x"),
    "a file": ({"$ref": "file:///etc/passwd"}, "refers to file:///etc/passwd; only parts"),
    "not a number": ({"type": "number", "minimum": float("nan")}, "is no JSON"),
    "a set": ({"enum": {1, 2}}, "is no JSON"),
    "a key that is none": ({"properties": {"a": {3: "x"}}}, "is no JSON: a key is 3"),
    "unknown": (closed({"a": {"minLenght": 3}}), "uses minLenght, which cannot be enforced here"),
    "not enforced": ({"not": {"type": "null"}}, "uses not, which cannot be enforced here"),
    "conditional": (closed({"a": {"if": {}}}), "uses if, which cannot be enforced here"),
    "nullable": (closed({"a": {"type": "string", "nullable": True}}), "uses nullable"),
    "settings of the library": ({"x-guidance": {"lenient": True}}, "uses x-guidance"),
    "escapes": ({"\x1b[2J": 1}, r"uses \\x1b\[2J, which"),
}
REFUSED = {
    "backreference": ({"type": "string", "pattern": r"(a)\1"}, "backreferences are not supported"),
    "look-ahead": ({"type": "string", "pattern": "^(?=a)b"}, "look-around"),
    "bad pattern": ({"type": "string", "pattern": "("}, "unclosed group"),
    "pattern of names": ({"patternProperties": {"(": {}}}, "unclosed group"),
    "no such part": ({"$ref": "#/$defs/none"}, "does not exist"),
    "ends nowhere": ({"$ref": "#"}, "no reply can be so"),
    "a circle": (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "no reply can be so",
    ),
    "unsatisfiable": ({"type": "integer", "minimum": 5, "maximum": 4}, "Unsatisfiable schema"),
    "no such type": ({"type": "thing"}, "Invalid type: thing"),
    "no such format": ({"type": "string", "format": "nosuch"}, "Unknown format: nosuch"),
    "empty enum": ({"enum": []}, "Unsatisfiable"),
    "not one of": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    "products": (
        {"allOf": [{"anyOf": [{"required": [f"{a}{i}"]} for a in "ab"]} for i in range(16)]},
        "schema too large",
    ),
    "half a character": ({"enum": ["\ud800"]}, "hex escape"),
}
SLOW = {
    "many ways": {"properties": {f"p{i}": {"type": "integer"} for i in range(8000)}},
}
FINE = {
    "huge enum": {"enum": [f"value number {i}" for i in range(9000)]},
    "many items": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    "long text": {"type": "string", "minLength": 10**9},
    "backtracking": {"type": "string", "pattern": "^(a+)+$"},
    "exponential states": {"type": "string", "pattern": "^[ab]*a[ab]{30}$"},
    "as deep as may be": deep(MAX_DEPTH),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_enforced_is_named(name):
    schema, message = UNREADABLE[name]
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(InvalidSchema, match=message) as found:
        read_response_format(asked)
    assert found.value.param == PARAM and found.value.code == "invalid_schema"
    assert "\n" not in str(found.value) and "\x1b" not in str(found.value)


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_library_refuses_is_said_in_a_line(name):
    schema, message = REFUSED[name]
    with pytest.raises(InvalidSchema, match=message) as found:
        start(schema)
    assert found.value.param == PARAM
    assert "\n" not in str(found.value) and len(str(found.value)) < 400


@pytest.mark.parametrize("name", SLOW)
def test_what_takes_too_long_is_ended(name):
    started = time.monotonic()
    with pytest.raises(InvalidSchema, match="more than 1 s or too much memory to compile"):
        start(SLOW[name])
    assert time.monotonic() - started < SOON_S
    start(SCHEMAS["flat"])


@pytest.mark.parametrize("name", FINE)
def test_what_looks_bad_and_is_not(name):
    start(FINE[name])


def test_a_schema_that_failed_is_not_tried_again(monkeypatch):
    grammar = reply_grammar(REFUSED["no such type"][0], (), markers())
    for _ in range(2):
        with pytest.raises(InvalidSchema, match="Invalid type"):
            begun(grammar)
        monkeypatch.setattr(Checker, "check", lambda *_: pytest.fail("tried again"))


def test_a_schema_that_took_too_long_once_is_tried_again(monkeypatch):
    """The machine may have been busy."""
    grammar = reply_grammar(SCHEMAS["flat"], (), markers())
    own, tries = Compiler(tokenizer(), ROWS, ENDS), []

    def ask(self, request):
        tries.append(request)
        if len(tries) == 1:
            raise Overrun("ran longer than 20 s")
        return ""

    monkeypatch.setattr(Checker, "ask", ask)
    with pytest.raises(InvalidSchema, match="more than 1 s or too much memory to compile"):
        own.start(grammar, "reply")
    for _ in range(2):
        own.start(grammar, "reply")
    assert len(tries) == 2


def test_what_was_compiled_is_kept_but_not_for_ever(monkeypatch):
    tried = []
    monkeypatch.setattr("mtp_mlx.constraint.compiler.KEPT", 2)
    monkeypatch.setattr(Checker, "check", lambda _, grammars, param: tried.append(grammars))
    grammars = [reply_grammar({"const": number}, (), markers()) for number in range(3)]
    own = Compiler(tokenizer(), ROWS, ENDS)
    for which in (0, 1, 0, 2, 0, 1):  # the last use counts: 2 drives out 1, and then 1 comes again
        own.start(grammars[which], "reply")
    assert tried == [grammars[which].checks for which in (0, 1, 2, 1)]


def test_the_process_comes_again_after_it_died():
    own = Checker()
    try:
        own.check(('{"grammars": [{"json_schema": {}}]}',), PARAM)
        assert own._process is not None and own._process.pid != os.getpid()
        own._process.kill()
        own._process.wait()
        own.check(('{"grammars": [{"json_schema": {}}]}',), PARAM)
    finally:
        own.close()
    assert CHECKER is not own
