"""What a reply may be, as a grammar in llguidance's dialect of Lark."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mtp_mlx.constraint.calls import call_rules
from mtp_mlx.constraint.schema import OWN, Json, nodes
from mtp_mlx.errors import Unsupported
from mtp_mlx.text.parts import Markers

# What a reply begins with: its grammar, a thought that the prompt left open, or either of them.
Begins = Literal["reply", "thought", "either"]
# Models fill their budget with blanks where a schema lets them.
SETTINGS = {
    "whitespace_pattern": r"[ \n]{0,2}",
    "item_separator": ",",
    "key_separator": ":",
    "coerce_one_of": False,
    "lenient": False,
}
# The keywords that bear upon a string with a pattern.
OF_TEXT = ("pattern", "minLength", "maxLength", "format")


@dataclass(frozen=True)
class Grammar:
    """`lark` is the grammar. `checks` are grammars of strangers' parts of it, which must compile
    within limits first; `param` names the option that asked for it."""

    lark: str
    checks: tuple[str, ...]
    param: str


def reply_grammar(schema: Json | None, names: tuple[str, ...], markers: Markers) -> Grammar:
    """The grammar of a reply that is JSON of this schema, or calls of these names.

    Without a schema it is calls alone, without names JSON alone. Raises Unsupported where no token
    marks a call.
    """
    kinds = [*(["json"] if schema is not None else []), *(["call+"] if names else [])]
    lines = [f"start: {' | '.join(kinds)}"]
    checks: tuple[str, ...] = ()
    if schema is not None:
        lines.append(f"json: {_json_rule(schema)}")
        checks = (_alone(schema), *map(_alone, _patterns(schema)))
    if names:
        lines += call_rules(names, *_call_markers(markers))
    return Grammar("\n".join(lines), checks, "tool_choice" if schema is None else "response_format")


def _call_markers(markers: Markers) -> tuple[int, int, int]:
    call, call_end, quote = markers.call, markers.call_end, markers.quote
    if call is None or call_end is None or quote is None:
        raise Unsupported(
            "this model's tokenizer has no tokens for tool calls, so none can be required; "
            "leave tool_choice 'auto'",
            param="tool_choice",
        )
    return call, call_end, quote


def _json_rule(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, OWN: SETTINGS})}"


def _alone(schema: Mapping[str, Any]) -> str:
    """In the library's other form, whose errors do not repeat the grammar."""
    return json.dumps({"grammars": [{"json_schema": {**schema, OWN: SETTINGS}}]})


def _patterns(schema: Json) -> list[Json]:
    """A schema for each pattern in a schema, since what is wrong with it shows only where it is
    used."""
    found = []
    for node in nodes(schema):
        if "pattern" in node:
            found.append({"type": "string"} | {key: node[key] for key in OF_TEXT if key in node})
        named = node.get("patternProperties")
        names = named if isinstance(named, Mapping) else ()
        found += [{"type": "string", "pattern": name} for name in names]
    return found
