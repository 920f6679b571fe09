"""What random tokens within the masks make is always what the schema asks for."""

import json
import random
import sys

import jsonschema_rs
import pytest

from mtp_mlx.constraint.grammar import reply_grammar
from mtp_mlx.constraint.schema import ANY_OBJECT, read_response_format, read_schema
from mtp_mlx.text.parts import NO_MARKERS
from tests.constraint.schemas import SCHEMAS
from tests.constraint.walks import ENDS, begun, next_allowed, text_of, tokenizer, walk

WALKS = 12
BLANKS = 2  # in a row, outside strings


def finite(text: str) -> float:
    """A number of any size, of which JSON sets no limit: 1e999 becomes one that Python has."""
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))


def check(schema: dict, text: str) -> None:
    jsonschema_rs.validator_for(schema).validate(json.loads(text, parse_float=finite))


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_replies_are_valid(name):
    schema = read_schema(SCHEMAS[name], "schema", "response_format")
    grammar = reply_grammar(schema, (), NO_MARKERS)
    texts = set()
    for seed in range(WALKS):
        tokens = walk(begun(grammar), random.Random(f"{name}/{seed}"))
        text = text_of(tokens)
        check(schema, text)
        assert tokens[-1] in ENDS and ENDS.isdisjoint(tokens[:-1])
        texts.add(text)
    assert len(texts) > 1 or name in ("const object", "boolean", "null")


def test_a_checker_that_cannot_fail_would_prove_nothing():
    for schema, text in ((SCHEMAS["range"], '{"n":61}'), (SCHEMAS["flat"], '{"name":"a"}')):
        with pytest.raises(jsonschema_rs.ValidationError):
            check(schema, text)


def test_json_object_is_any_object():
    schema = read_response_format({"type": "json_object"})
    assert schema == ANY_OBJECT
    for seed in range(WALKS):
        tokens = walk(begun(reply_grammar(schema, (), NO_MARKERS)), random.Random(seed))
        assert isinstance(json.loads(text_of(tokens)), dict)


def test_blanks_do_not_go_on():
    constraint = begun(reply_grammar(SCHEMAS["flat"], (), NO_MARKERS))
    constraint.take(tokenizer().encode("{"))
    blank = tokenizer().encode("\n")
    for _ in range(BLANKS):
        assert blank[0] in next_allowed(constraint)
        constraint.take(blank)
    assert not any(tokenizer().piece_bytes(token).isspace() for token in next_allowed(constraint))


def test_a_complete_object_can_only_end():
    constraint = begun(reply_grammar(SCHEMAS["flat"], (), NO_MARKERS))
    constraint.take(tokenizer().encode('{"name":"a","age":3}'))
    assert set(next_allowed(constraint)) == ENDS
